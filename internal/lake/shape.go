package lake

import (
	"reflect"
	"slices"
)

// Shape is what a contract says of the rows of its events: where they go, of
// which types their columns are, which fields have none, and which rows share a
// file. It never changes: a changed contract has another hash, and with it another
// shape.
type Shape struct {
	// Table is the name of the table that the events go to; empty: TableName of
	// their type.
	Table string `json:"table,omitempty"`
	// Columns in the order of the contract. A path that is not among them becomes
	// a column as data has it.
	Columns []ShapeColumn `json:"columns,omitempty"`
	// Known are the only fields that rows have of their events; nil: all.
	Known *Known `json:"known,omitempty"`
	// Partition and Sort are what files are put together by, from the contract's
	// first event on; none: as before.
	Partition []ShapePartition `json:"partition,omitempty"`
	Sort      []ShapeSort      `json:"sort,omitempty"`
}

// Known is what a contract with naru.unknownFields discard has of an object or an
// array. A nil one has all that is there.
type Known struct {
	// Fields are the members of an object by name; nil: all. In what is no object
	// they say nothing.
	Fields map[string]*Known `json:"fields,omitempty"`
	// Items are those of an array; nil: as they are.
	Items *Known `json:"items,omitempty"`
}

// Limits of what a contract may ask for.
const (
	MaxPartitionFields = 4
	MaxSortFields      = 8
	MaxBuckets         = 256
	MaxPartitionValues = 256 // that an identity can have
)

// None stands alone: as Transform of a partition, or Path of a sort, it takes away
// what there was.
const None = "none"

// ShapePartition is one value that the rows of a file share.
type ShapePartition struct {
	Transform string `json:"t"` // Iceberg's word: identity, year, month, day, hour, bucket; or None
	N         int    `json:"n,omitempty"`
	Path      string `json:"p,omitempty"` // JSON path, or the name of an envelope column
}

// ShapeSort is one column that rows are sorted by.
type ShapeSort struct {
	Path       string `json:"p"` // as in ShapePartition; or None
	Descending bool   `json:"desc,omitempty"`
}

// ShapeColumn is one column that a contract asks for.
type ShapeColumn struct {
	Path string `json:"p"` // JSON path, as columnar.Field has it
	// Kind is a kind of columnar by its name: bool, long, double, string, json,
	// timestamptz, date, or list<...> of the first four but json.
	Kind string `json:"k"`
	// UTC: times without an offset are in UTC.
	UTC bool `json:"utc,omitempty"`
}

// Name is the table that the shape asks for; empty for none, also of a nil shape.
func (s *Shape) Name() string {
	if s == nil {
		return ""
	}
	return s.Table
}

// IsZero tells whether the shape says nothing.
func (s *Shape) IsZero() bool {
	return s.Table == "" && !s.HasColumns() && s.Known == nil && !s.Arranges()
}

// SameRows tells whether both make the same rows of the same events.
func (s *Shape) SameRows(t *Shape) bool {
	return s.Table == t.Table && slices.Equal(s.Columns, t.Columns) && reflect.DeepEqual(s.Known, t.Known)
}

// HasColumns tells whether the shape says anything of columns.
func (s *Shape) HasColumns() bool { return len(s.Columns) > 0 }

// Arranges tells whether the shape says anything of partition or order.
func (s *Shape) Arranges() bool { return len(s.Partition) > 0 || len(s.Sort) > 0 }
