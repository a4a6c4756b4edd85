package event

import "strings"

// Column is a column of the rows that steps have made. One whose name begins with
// '_' and is an attribute of events (Envelope) has its value there; all others have
// theirs in Event.Data, a JSON object with the column's name as its key. A key that
// is absent is null.
type Column struct {
	Name string     `json:"name"`
	Type ColumnType `json:"type"`
}

// ColumnType says what a column's values are, and how they stand in JSON.
type ColumnType string

// The types of columns.
const (
	BoolColumn      ColumnType = "bool"        // true, false
	LongColumn      ColumnType = "long"        // a whole number of 64 bits
	DoubleColumn    ColumnType = "double"      // a number; NaN and infinities are null
	StringColumn    ColumnType = "string"      // a text
	TimestampColumn ColumnType = "timestamptz" // a text, RFC 3339 in UTC with up to six digits of a second
	DateColumn      ColumnType = "date"        // a text, 2006-01-02
	JSONColumn      ColumnType = "json"        // any JSON: objects, lists, what has no type of its own
)

// Envelope are the attributes of an event that are columns of every table and of
// what steps read, with their types. Where an event stands in the log is
// _partition and _offset.
var Envelope = []Column{
	{"_id", StringColumn}, {"_type", StringColumn}, {"_source", StringColumn}, {"_subject", StringColumn},
	{"_time", TimestampColumn}, {"_received_at", TimestampColumn},
	{"_partition", LongColumn}, {"_offset", LongColumn},
}

// InEnvelope tells whether a column is one of the Envelope.
func InEnvelope(name string) bool {
	if !strings.HasPrefix(name, "_") {
		return false
	}
	for _, c := range Envelope {
		if c.Name == name {
			return true
		}
	}
	return false
}
