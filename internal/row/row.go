// Package row reads and writes the rows that steps make of events
// (event.Batch.Rows): as values by column, and as JSON objects.
package row

import (
	"encoding/json"
	"strconv"
	"time"

	"naru/internal/event"
	"naru/internal/jsonscan"
)

// Reader gives the values of rows by column. Not for concurrent use.
type Reader struct {
	columns []event.Column
	at      map[string]int // columns whose value is in the data
	values  []any
	scan    jsonscan.Scanner
}

// NewReader makes a reader of rows with these columns.
func NewReader(columns []event.Column) *Reader {
	r := &Reader{columns: columns, at: map[string]int{}, values: make([]any, len(columns))}
	for i, c := range columns {
		if !event.InEnvelope(c.Name) {
			r.at[c.Name] = i
		}
	}
	return r
}

// Values gives one value for each column: nil for null, else bool, int64, float64,
// string, time.Time (timestamptz, date; in UTC) or json.RawMessage (json). They are
// valid until the next call.
func (r *Reader) Values(e *event.Event, partition int32) []any {
	clear(r.values)
	for i, c := range r.columns {
		if event.InEnvelope(c.Name) {
			r.values[i] = attribute(e, partition, c.Name)
		}
	}
	start := jsonscan.Space(e.Data, 0)
	if len(r.at) == 0 || start >= len(e.Data) || e.Data[start] != '{' || !r.scan.Valid(e.Data) {
		return r.values
	}
	var m jsonscan.Members
	for m.Reset(e.Data, start, end(e.Data)); ; {
		name, v, ok := m.Next(&r.scan)
		if !ok {
			return r.values
		}
		if i, ok := r.at[string(jsonscan.Text(e.Data, name))]; ok {
			r.values[i] = value(e.Data, v, r.columns[i].Type)
		}
	}
}

// end is where the text ends but for space.
func end(text []byte) int {
	n := len(text)
	for n > 0 && (text[n-1] == ' ' || text[n-1] == '\n' || text[n-1] == '\r' || text[n-1] == '\t') {
		n--
	}
	return n
}

// attribute is the value of an envelope column.
func attribute(e *event.Event, partition int32, name string) any {
	text := func(b []byte) any {
		if b == nil {
			return nil
		}
		return string(b)
	}
	switch name {
	case "_id":
		return text(e.ID)
	case "_type":
		return text(e.Type)
	case "_source":
		return text(e.Source)
	case "_subject":
		return text(e.Subject)
	case "_time":
		if e.Time.IsZero() {
			return e.ReceivedAt
		}
		return e.Time
	case "_received_at":
		return e.ReceivedAt
	case "_partition":
		return int64(e.Place(event.Position{Partition: partition}).Partition)
	case "_offset":
		return e.Place(event.Position{Offset: e.Offset}).Offset
	}
	return nil
}

// value reads a JSON value as one of a column; what does not fit is null.
func value(text []byte, v jsonscan.Value, t event.ColumnType) any {
	raw := text[v.Start:v.End]
	switch {
	case v.Kind == jsonscan.Null:
		return nil
	case t == event.JSONColumn:
		return json.RawMessage(raw)
	case v.Kind == jsonscan.True || v.Kind == jsonscan.False:
		if t == event.BoolColumn {
			return v.Kind == jsonscan.True
		}
	case v.Kind == jsonscan.Number:
		if t == event.LongColumn {
			if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
				return n
			}
		}
		if t == event.DoubleColumn {
			if f, err := strconv.ParseFloat(string(raw), 64); err == nil {
				return f
			}
		}
	case v.Kind == jsonscan.String || v.Kind == jsonscan.Escaped:
		s := string(jsonscan.Text(text, v))
		layout := time.RFC3339Nano
		switch t {
		case event.StringColumn:
			return s
		case event.DateColumn:
			layout = time.DateOnly
			fallthrough
		case event.TimestampColumn:
			if at, err := time.Parse(layout, s); err == nil {
				return at.UTC()
			}
		}
	}
	return nil
}

// TimeLayout is how times stand in JSON: RFC 3339 in UTC, microseconds if any.
const TimeLayout = "2006-01-02T15:04:05.999999Z07:00"

// AppendJSON appends a row as a JSON object in one line, with the columns as they are named;
// nulls of the data are left out. Without columns (no steps) it is the whole
// envelope and the members of the data; data that is no JSON object stands
// under "data", as text if it is no JSON either.
func AppendJSON(dst []byte, columns []event.Column, e *event.Event, partition int32) []byte {
	if columns == nil {
		columns = event.Envelope
	}
	dst = append(dst, '{')
	first := true
	comma := func() {
		if !first {
			dst = append(dst, ',')
		}
		first = false
	}
	for _, c := range columns {
		if !event.InEnvelope(c.Name) {
			continue
		}
		v := attribute(e, partition, c.Name)
		if v == nil {
			continue
		}
		comma()
		dst = append(jsonscan.AppendQuoted(dst, c.Name), ':')
		switch v := v.(type) {
		case string:
			dst = jsonscan.AppendQuoted(dst, v)
		case int64:
			dst = strconv.AppendInt(dst, v, 10)
		case time.Time:
			dst = append(v.UTC().AppendFormat(append(dst, '"'), TimeLayout), '"')
		}
	}
	start, n := jsonscan.Space(e.Data, 0), end(e.Data)
	data := len(dst)
	switch {
	case start >= n:
	case e.Data[start] == '{' && e.Data[n-1] == '}' && (e.ContentType == nil || json.Valid(e.Data)):
		if jsonscan.Space(e.Data, start+1) < n-1 {
			comma()
			dst = append(dst, e.Data[start+1:n-1]...)
		}
	default:
		comma()
		dst = append(dst, `"data":`...)
		if json.Valid(e.Data) {
			dst = append(dst, e.Data[start:n]...)
		} else {
			dst = jsonscan.AppendQuoted(dst, e.Data)
		}
	}
	// A line break can only be space: in texts it is escaped.
	for i, c := range dst[data:] {
		if c == '\n' || c == '\r' {
			dst[data+i] = ' '
		}
	}
	return append(dst, '}')
}
