package iceberg

import (
	"context"
	"fmt"
	"maps"
	"path"
	"time"

	ice "github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
)

// Audit is one table at its newest snapshot, with all that it says of itself:
// what `naru verify` holds against the log.
type Audit struct {
	lake.View
	// Err tells why the rows cannot be read; Files are then not complete.
	Err error
	// Own tells whether naru has ever committed to the table.
	Own bool
	// Stream is the one that Positions are of where a configured pipeline fills the
	// table; empty: the namespace's.
	Stream string
	// Committed are the rows of all commits that naru has made of a pipeline's table, by
	// their places; nil: some are from before they were counted.
	Committed *lake.Tally
	// Schema has the columns; nil when they are not naru's.
	Schema *columnar.Schema
	// RolledBack: see State. Refused: see Lake.Refusal.
	RolledBack, Refused event.Positions
	// Remade tells that an earlier table of this name was dropped: this one lies
	// in a folder of its own.
	Remade bool
	// Foreign are the snapshots that other writers made, newest first, as far as
	// they are kept.
	Foreign []ForeignSnapshot
}

// ForeignSnapshot is a commit that naru did not make.
type ForeignSnapshot struct {
	ID             int64
	Operation      string // append, overwrite, delete, replace
	Time           time.Time
	Added, Removed []lake.File
}

// Rewrote tells whether the commit says of itself that it only wrote rows anew,
// as a compaction does.
func (f ForeignSnapshot) Rewrote() bool { return f.Operation == string(table.OpReplace) }

// Audit reads a table. Its View is to be released; a table that cannot be read
// at all is an error.
func (l *Lake) Audit(ctx context.Context, t lake.Ident) (_ *Audit, err error) {
	release := l.garbage.lease()
	defer func() {
		if err != nil {
			release()
		}
	}()
	h, err := l.current(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("audit %s: %w", t, err)
	}
	a := &Audit{View: lake.View{Ident: t, Columns: columns(h.meta.CurrentSchema()), Positions: h.positions.Clone(), Release: release},
		Stream: h.meta.Properties()[keyStream], Own: h.commitID != "" || len(h.positions) > 0, RolledBack: ahead(h.property, h.positions)}
	a.Committed = h.rows
	if h.schemaErr == nil {
		a.Schema = h.schema.Clone()
	}
	if folder, err := localPath(h.meta.Location()); err == nil {
		a.Remade = path.Base(folder) != t.Name
	}
	if a.Refused, err = l.Refusal(t); err != nil {
		return nil, fmt.Errorf("audit %s: %w", t, err)
	}
	if h.snap == nil {
		return a, nil
	}
	a.SnapshotID = h.snap.SnapshotID
	files, err := l.dataFiles(h)
	if err != nil {
		a.Err = fmt.Errorf("audit %s: %w", t, withCure(t, err))
		return a, nil
	}
	for _, f := range files {
		a.Files = append(a.Files, f.File)
		a.Rows += f.Rows
	}
	for s := range ancestry(h.meta, h.snap) {
		if s.Summary != nil && s.Summary.Properties[keyCommitID] != "" {
			continue
		}
		f := ForeignSnapshot{ID: s.SnapshotID, Time: time.UnixMilli(s.TimestampMs).UTC()}
		if s.Summary != nil {
			f.Operation = string(s.Summary.Operation)
		}
		manifests, err := s.Manifests(l.io)
		if err != nil {
			return nil, fmt.Errorf("audit %s: snapshot %d: %w", t, s.SnapshotID, err)
		}
		for _, m := range manifests {
			if m.SnapshotID() != s.SnapshotID || m.ManifestContent() != ice.ManifestContentData {
				continue
			}
			for e, err := range m.Entries(l.io, false) {
				if err != nil {
					return nil, fmt.Errorf("audit %s: read manifest %s: %w", t, m.FilePath(), err)
				}
				d, err := newDataFile(e.DataFile())
				if err != nil {
					return nil, fmt.Errorf("audit %s: %w", t, err)
				}
				switch e.Status() {
				case ice.EntryStatusADDED:
					f.Added = append(f.Added, d.File)
				case ice.EntryStatusDELETED:
					f.Removed = append(f.Removed, d.File)
				}
			}
		}
		a.Foreign = append(a.Foreign, f)
	}
	return a, nil
}

// Claims lists the tables that are promised to a type, with the places from
// which on rows belong there (see Claim); those without any belong there whole.
func (l *Lake) Claims() (map[lake.Ident]event.Positions, error) {
	claims, err := readLines[claimText](l, claimsFile)
	if err != nil {
		return nil, fmt.Errorf("read claims of tables: %w", err)
	}
	all := map[lake.Ident]event.Positions{}
	for _, c := range claims {
		all[c.Table] = maps.Clone(c.From)
	}
	return all, nil
}
