package columnar

import (
	"fmt"
	"slices"
	"strings"

	"naru/internal/lake"
)

// Limits of a table (EXACTNESS 5).
const (
	MaxColumns = 1000 // all columns together, envelope included
	MaxName    = 128  // bytes of a column name
	MaxDepth   = 10   // keys in a path
)

// Field is one column.
type Field struct {
	ID        int    // Iceberg field id
	ElementID int    // field id of a list's element, else 0
	Name      string // column name in the table
	// Path is the JSON path that fills the column: keys joined with '.', where
	// '.' and '\' inside a key are escaped with '\'. Empty for envelope columns.
	Path string
	Kind Kind
	// Dropped: somebody dropped the column. The path stays known, so that the
	// column is not made again; its values go to _rescued.
	Dropped bool
}

// Layout says how events of a table become rows.
type Layout uint8

// The layouts.
const (
	// Flat: envelope, _rescued and one column for each JSON path.
	Flat Layout = iota
	// Rejected: the fixed columns of the stream `rejected`.
	Rejected
	// Whole: envelope and `data` with the event's whole JSON; the table _other.
	Whole
)

// Schema is the columns of one table in their order, and the JSON path of
// each. It is a plain value without locks: Clone before sharing.
type Schema struct {
	Fields []Field
	// LastID is the highest field id ever given out, elements included. Ids are
	// never given out twice.
	LastID int
	Layout Layout
}

// Ids of the envelope columns: the same in every table that naru made.
const (
	idID = iota + 1
	idType
	idSource
	idSubject
	idTime
	idReceivedAt
	idLog
	idPartition
	idOffset
	idRescued
)

// Ids of the other columns of the stream `rejected`.
const (
	idReason = iota + idOffset + 1
	idDetail
	idStream
	idEventType
	idEventID
	idItemIndex
	idOriginal
	idContentType
)

// Names of columns that naru fills by itself.
const (
	ColumnID         = "_id"
	ColumnType       = "_type"
	ColumnSource     = "_source"
	ColumnSubject    = "_subject"
	ColumnTime       = "_time"
	ColumnReceivedAt = "_received_at"
	ColumnLog        = "_log"
	ColumnPartition  = "_partition"
	ColumnOffset     = "_offset"
	ColumnRescued    = "_rescued"
	ColumnExtensions = "_extensions"
	ColumnViolations = "_violations"
)

// What a table of the stream `rejected` has besides: columns that came later, so
// they have whatever ids were free.
const (
	columnRule            = "rule"
	columnPath            = "path"
	columnContract        = "contract"
	columnContractVersion = "contract_version"
	columnContractHash    = "contract_hash"
	columnAttributes      = "extensions"
	columnSent            = "sent"
	columnEventTime       = "event_time"
)

var laterRejected = [...]string{columnRule, columnPath, columnContract, columnContractVersion, columnContractHash, columnAttributes, columnSent, columnEventTime}

// addLater adds the columns that a table of the stream `rejected` may be too old
// to have. One that somebody dropped is not made again.
func (s *Schema) addLater() {
	if s.Layout != Rejected {
		return
	}
	for _, name := range laterRejected {
		if !slices.ContainsFunc(s.Fields, func(f Field) bool { return fold(f.Name) == name }) {
			s.add(name, "", String)
		}
	}
}

// isFixed tells whether a column must be there, because naru made it with the
// table.
func (s *Schema) isFixed(f *Field) bool {
	last := idRescued
	if s.Layout == Rejected {
		last = idContentType
	}
	return f.Path == "" && f.Kind != Foreign && f.ID <= last
}

// DayField is the name of the partition field, day(_time).
const DayField = "_time_day"

// TimeID is the field id of _time, the source of the partition field.
const TimeID = idTime

// OffsetID is the field id of _offset.
const OffsetID = idOffset

func envelope() []Field {
	return []Field{
		{ID: idID, Name: ColumnID, Kind: String},
		{ID: idType, Name: ColumnType, Kind: String},
		{ID: idSource, Name: ColumnSource, Kind: String},
		{ID: idSubject, Name: ColumnSubject, Kind: String},
		{ID: idTime, Name: ColumnTime, Kind: Timestamp},
		{ID: idReceivedAt, Name: ColumnReceivedAt, Kind: Timestamp},
		{ID: idLog, Name: ColumnLog, Kind: String},
		{ID: idPartition, Name: ColumnPartition, Kind: Int},
		{ID: idOffset, Name: ColumnOffset, Kind: Long},
	}
}

// NewSchema is the schema of a table before its first event: the envelope
// and _rescued.
func NewSchema() *Schema {
	s := &Schema{Fields: envelope(), LastID: idOffset}
	s.add(ColumnRescued, "", JSON)
	return s
}

// NewRejectedSchema is the fixed schema of the stream `rejected`.
func NewRejectedSchema() *Schema {
	s := &Schema{Fields: envelope(), LastID: idOffset, Layout: Rejected}
	for _, name := range []string{"reason", "detail", "stream", "event_type", "event_id"} {
		s.add(name, "", String)
	}
	s.add("item_index", "", Long)
	s.add("original", "", Binary)
	s.add("content_type", "", String)
	return s
}

// NewWholeSchema is the schema of _other, the table of the types beyond the
// limit of tables: the envelope, _rescued and `data` with the whole JSON.
func NewWholeSchema() *Schema {
	s := &Schema{Fields: envelope(), LastID: idOffset, Layout: Whole}
	s.add(ColumnRescued, "", JSON)
	s.add("data", "data", JSON)
	return s
}

// add appends a column under new ids.
func (s *Schema) add(name, path string, kind Kind) *Field {
	s.LastID++
	f := Field{ID: s.LastID, Name: name, Path: path, Kind: kind}
	if kind.IsList() {
		s.LastID++
		f.ElementID = s.LastID
	}
	s.Fields = append(s.Fields, f)
	return &s.Fields[len(s.Fields)-1]
}

// Clone returns a deep copy.
func (s *Schema) Clone() *Schema {
	c := *s
	c.Fields = slices.Clone(s.Fields)
	return &c
}

// Equal tells whether both have the same columns in the same order.
func (s *Schema) Equal(t *Schema) bool {
	return s.LastID == t.LastID && s.Layout == t.Layout && slices.Equal(s.Fields, t.Fields)
}

// ByPath finds the column that a JSON path fills, dropped ones included.
func (s *Schema) ByPath(path string) (Field, bool) {
	if path == "" {
		return Field{}, false
	}
	for _, f := range s.Fields {
		if f.Path == path {
			return f, true
		}
	}
	return Field{}, false
}

// ByID finds a column by its field id, dropped ones included.
func (s *Schema) ByID(id int) (Field, bool) {
	for _, f := range s.Fields {
		if f.ID == id {
			return f, true
		}
	}
	return Field{}, false
}

// byName finds a living column, upper and lower case alike.
func (s *Schema) byName(name string) (Field, bool) {
	folded := fold(name)
	for _, f := range s.Fields {
		if !f.Dropped && fold(f.Name) == folded {
			return f, true
		}
	}
	return Field{}, false
}

// Columns lists the living columns as the lake's readers know them.
func (s *Schema) Columns() []lake.Column {
	cols := make([]lake.Column, 0, len(s.Fields))
	for _, f := range s.Fields {
		if !f.Dropped && f.Kind != Foreign {
			cols = append(cols, lake.Column{FieldID: f.ID, Name: f.Name, Type: f.Kind.Iceberg(), ElementID: f.ElementID})
		}
	}
	return cols
}

// Promotion is a column that became another one under the same name.
type Promotion struct{ From, To Field }

// Change is what leads from one schema to a later one.
type Change struct {
	Added    []Field     // new columns, in order
	Promoted []Promotion // long columns that became double under a new id
}

// Empty tells whether nothing changed.
func (c Change) Empty() bool { return len(c.Added) == 0 && len(c.Promoted) == 0 }

// Diff tells what a builder did to s until it became to. Both must have the
// same origin: to is s, or grew from a Clone of s.
func (s *Schema) Diff(to *Schema) Change {
	var c Change
	old := make(map[int]bool, len(s.Fields))
	byPath := make(map[string]Field, len(s.Fields))
	for _, f := range s.Fields {
		old[f.ID] = true
		if f.Path != "" {
			byPath[f.Path] = f
		}
	}
	for _, f := range to.Fields {
		if old[f.ID] {
			continue
		}
		if was, ok := byPath[f.Path]; ok && was.Kind == Long && f.Kind == Double {
			c.Promoted = append(c.Promoted, Promotion{From: was, To: f})
			continue
		}
		c.Added = append(c.Added, f)
	}
	return c
}

// Adopt takes over what others did to the table since the property was
// written: columns that were renamed, dropped, or added by hand. columns are
// all columns of the table's current schema, lastID its last column id. A
// column that was added by hand keeps its name and id for itself; naru does
// not fill it.
func (s *Schema) Adopt(columns []lake.Column, lastID int) error {
	known := make(map[int]int, len(s.Fields))
	for i := range s.Fields {
		known[s.Fields[i].ID] = i
	}
	seen := make(map[int]bool, len(columns))
	for _, c := range columns {
		seen[c.FieldID] = true
		i, ok := known[c.FieldID]
		if !ok {
			s.Fields = append(s.Fields, Field{ID: c.FieldID, ElementID: c.ElementID, Name: c.Name, Kind: Foreign})
			continue
		}
		f := &s.Fields[i]
		if f.Kind != Foreign && f.Kind.Iceberg() != c.Type {
			return fmt.Errorf("adopt column %q: the table has type %s, its property %s says %s", c.Name, c.Type, Property, f.Kind.Iceberg())
		}
		f.Name = c.Name
		f.Dropped = false
	}
	for i := range s.Fields {
		f := &s.Fields[i]
		if seen[f.ID] {
			continue
		}
		if s.isFixed(f) {
			return fmt.Errorf("adopt columns: the table has lost %s, which naru needs", f.Name)
		}
		f.Dropped = true
	}
	s.LastID = max(s.LastID, lastID)
	return nil
}

// fold makes names comparable as engines compare them: case does not count.
func fold(name string) string { return strings.ToLower(name) }
