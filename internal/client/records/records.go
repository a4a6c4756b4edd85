// Package records reads a file of events as a run of one-line JSON records,
// whatever the file is: NDJSON, a JSON array, JSON objects one behind the
// other, CSV or TSV, plain or compressed. It holds one record at a time, so a
// file may be of any size.
package records

import (
	"errors"
	"fmt"
)

// MaxRecord is the largest record that is read, in bytes. The server's own
// limit for an event is far below; this one bounds the client's memory.
const MaxRecord = 16 << 20

// Format is how records stand in a file.
type Format string

// The formats. Auto looks at the name, then at the first bytes.
const (
	Auto   Format = ""
	NDJSON Format = "ndjson" // one JSON value a line
	JSON   Format = "json"   // one array of values, or values one behind the other
	CSV    Format = "csv"    // with a header
	TSV    Format = "tsv"    // the same, separated by tabs
)

// ParseFormat reads the value of --format.
func ParseFormat(s string) (Format, error) {
	switch f := Format(s); f {
	case Auto, NDJSON, JSON, CSV, TSV:
		return f, nil
	}
	return Auto, fmt.Errorf("%q is not a format: take ndjson, json, csv or tsv", s)
}

// Record is one record as a line for the door.
type Record struct {
	// Line is the record's bytes without a line break, valid until the next
	// call of Next. It is JSON unless the input was not: the door judges that.
	Line []byte
	// At is the line of the input on which the record begins, from 1.
	At int64
	// Misfit says why a row does not fit its header, else "". Such a row is
	// passed on as a JSON array of two texts, the row as it stands in the file and
	// Misfit: the door refuses and keeps it, and whoever looks at the refused
	// events sees what is wrong.
	Misfit string
	// Repaired says that text in a row was not UTF-8 and U+FFFD stands in for it.
	Repaired bool
}

// ErrTooLarge: a record is larger than MaxRecord.
var ErrTooLarge = errors.New("record too large")

// decoder gives the records of one format; Next ends with io.EOF.
type decoder interface {
	next(*Record) error
}
