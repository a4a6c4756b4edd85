package lake

// Shape is what a contract says of the rows of its events: where they go, of
// which types their columns are, and which fields have none. It never changes: a changed contract has
// another hash, and with it another shape.
type Shape struct {
	// Table is the name of the table that the events go to; empty: TableName of
	// their type.
	Table string `json:"table,omitempty"`
	// Columns in the order of the contract. A path that is not among them becomes
	// a column as data has it.
	Columns []ShapeColumn `json:"columns,omitempty"`
	// Known are the only fields that rows have of their events; nil: all.
	Known *Known `json:"known,omitempty"`
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
func (s *Shape) IsZero() bool { return s.Table == "" && len(s.Columns) == 0 && s.Known == nil }
