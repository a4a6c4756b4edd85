// Package lake is the seam to the tables: what they are called, which columns
// they get from JSON, and what a reader sees of them. The driver is
// lake/iceberg.
package lake

import (
	"context"
	"errors"
	"fmt"
	"time"

	"naru/internal/event"
)

// ErrNoTable: the table does not exist.
var ErrNoTable = errors.New("no such table")

// Ident names a table: namespace = stream, name = type in lower snake case.
type Ident struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

func (i Ident) String() string { return i.Namespace + "." + i.Name }

// Column is one column of a table, by Iceberg field id.
type Column struct {
	FieldID int    `json:"field_id"`
	Name    string `json:"name"`
	// Type is the Iceberg type in text: boolean, long, int, double, string,
	// binary, timestamptz, date, list<long>, ...
	Type string `json:"type"`
	// ElementID is the field id of a list's element, else 0.
	ElementID int `json:"element_id,omitempty"`
}

// File is one data file of a snapshot.
type File struct {
	Path  string `json:"path"` // local path
	Rows  int64  `json:"rows"`
	Bytes int64  `json:"bytes"`
	// Bounds of its columns, by the field ids of View.Columns.
	Bounds Bounds `json:"-"`
}

// View is one consistent cut of a table. It stays readable until Release.
type View struct {
	Ident      Ident
	SnapshotID int64 // 0 when the table has no snapshot yet
	Columns    []Column
	Files      []File
	Positions  event.Positions // first offsets that the snapshot does not cover
	Rows       int64           // of the snapshot
	Hot        *Hot            // rows that the log has beyond the snapshot; nil: none
	Release    func()          // never nil
}

// Hot is the hot tail of a table in a View: local files beside the snapshot's.
type Hot struct {
	// Columns of the files by their field ids, which are not the snapshot's; what
	// belongs together has the same name. A type may be wider than the snapshot's.
	Columns []Column
	Files   []File
	// Spans are what counts: a row of the files belongs to the view when its
	// _log, _partition and _offset lie in one of them.
	Spans []event.Span
}

// Info describes a table for people.
type Info struct {
	Ident      Ident           `json:"table"`
	Location   string          `json:"location"`
	SnapshotID int64           `json:"snapshot_id"`
	Rows       int64           `json:"rows"`
	Files      int             `json:"files"`
	Bytes      int64           `json:"bytes"`
	LastCommit time.Time       `json:"last_commit"`
	Columns    []Column        `json:"columns"`
	Positions  event.Positions `json:"positions"`
	// Partition and Sort are what new files are put together by, as a contract
	// writes it: day(_time), bucket(16, id); user desc. Files of before may be others.
	Partition []string `json:"partition,omitempty"`
	Sort      []string `json:"sort,omitempty"`
	// Rescued are the paths most often found in _rescued, with counts.
	Rescued []PathCount `json:"rescued,omitempty"`
}

// PathCount is a JSON path and how often it occurred.
type PathCount struct {
	Path  string `json:"path"`
	Count int64  `json:"count"`
}

// Tables are what queries read. Safe for concurrent use.
type Tables interface {
	// List names all tables, sorted by namespace and name.
	List(ctx context.Context) ([]Ident, error)
	// Newest is List with the tables of which only the log knows yet. It costs
	// more than List.
	Newest(ctx context.Context) ([]Ident, error)
	// Cut cuts the tables, all those of a stream at one place of it. The views
	// are in the order of the tables, and every one is to be released.
	Cut(ctx context.Context, tables []Ident) ([]*View, error)
}

// Snapshots are tables without a hot tail: what is committed.
type Snapshots struct{ Reader }

// Newest implements Tables.
func (s Snapshots) Newest(ctx context.Context) ([]Ident, error) { return s.List(ctx) }

// Cut implements Tables.
func (s Snapshots) Cut(ctx context.Context, tables []Ident) ([]*View, error) {
	views := make([]*View, 0, len(tables))
	for _, t := range tables {
		v, err := s.View(ctx, t)
		if err != nil {
			for _, v := range views {
				v.Release()
			}
			return nil, &CutError{Table: t, Err: err}
		}
		views = append(views, v)
	}
	return views, nil
}

// CutError names the table that could not be cut.
type CutError struct {
	Table Ident
	Err   error
}

func (e *CutError) Error() string { return fmt.Sprintf("read table %s: %v", e.Table, e.Err) }

// Unwrap gives the cause.
func (e *CutError) Unwrap() error { return e.Err }

// Reader is what and people need of the lake. Safe for concurrent use.
type Reader interface {
	// List names all tables, sorted by namespace and name.
	List(ctx context.Context) ([]Ident, error)
	// View cuts the table at its newest snapshot.
	View(ctx context.Context, t Ident) (*View, error)
	// Info describes a table.
	Info(ctx context.Context, t Ident) (*Info, error)
}
