package rowfile

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"naru/internal/event"
	"naru/internal/row"
)

// ndjson: a JSON object a line; nulls are left out.
type ndjson struct{ columns []event.Column }

func (*ndjson) header(dst []byte) []byte { return dst }

func (f *ndjson) line(dst []byte, e *event.Event, partition int32, _ []any) []byte {
	return append(row.AppendJSON(dst, f.columns, e, partition), '\n')
}

// csv is RFC 4180 in UTF-8 with a header. Null is an empty field, an empty text is
// "", as PostgreSQL's COPY has it.
type csv struct{ columns []event.Column }

func (f *csv) header(dst []byte) []byte {
	for i, c := range f.columns {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendCSV(dst, c.Name)
	}
	return append(dst, "\r\n"...)
}

func (f *csv) line(dst []byte, _ *event.Event, _ int32, values []any) []byte {
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		switch v := v.(type) {
		case nil:
			if len(values) == 1 {
				dst = append(dst, `""`...) // an empty line would be no row
			}
		case string:
			dst = appendCSV(dst, v)
		case json.RawMessage:
			dst = appendCSV(dst, string(v))
		default:
			dst = appendValue(dst, v)
		}
	}
	return append(dst, "\r\n"...)
}

func appendCSV(dst []byte, s string) []byte {
	if s != "" && !strings.ContainsAny(s, ",\"\r\n") {
		return append(dst, s...)
	}
	dst = append(dst, '"')
	for {
		before, after, more := strings.Cut(s, `"`)
		dst = append(dst, before...)
		if !more {
			return append(dst, '"')
		}
		dst, s = append(dst, `""`...), after
	}
}

// tsv: fields between tabs, with a header. Backslash, tab and line breaks are
// escaped as \\, \t, \n and \r, null is \N: what COPY of PostgreSQL and
// TabSeparatedWithNames of ClickHouse read.
type tsv struct{ columns []event.Column }

func (f *tsv) header(dst []byte) []byte {
	for i, c := range f.columns {
		if i > 0 {
			dst = append(dst, '\t')
		}
		dst = appendTSV(dst, c.Name)
	}
	return append(dst, '\n')
}

func (f *tsv) line(dst []byte, _ *event.Event, _ int32, values []any) []byte {
	for i, v := range values {
		if i > 0 {
			dst = append(dst, '\t')
		}
		switch v := v.(type) {
		case nil:
			dst = append(dst, `\N`...)
		case string:
			dst = appendTSV(dst, v)
		case json.RawMessage:
			dst = appendTSV(dst, string(v))
		default:
			dst = appendValue(dst, v)
		}
	}
	return append(dst, '\n')
}

func appendTSV(dst []byte, s string) []byte {
	for i := range len(s) {
		switch s[i] {
		case '\\':
			dst = append(dst, `\\`...)
		case '\t':
			dst = append(dst, `\t`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		default:
			dst = append(dst, s[i])
		}
	}
	return dst
}

// appendValue appends a value as plain text: numbers as in JSON, times as
// row.TimeLayout has them, dates as 2006-01-02; nothing for null.
func appendValue(dst []byte, v any) []byte {
	switch v := v.(type) {
	case bool:
		return strconv.AppendBool(dst, v)
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case float64:
		return strconv.AppendFloat(dst, v, 'g', -1, 64)
	case string:
		return append(dst, v...)
	case json.RawMessage:
		return append(dst, v...)
	case day:
		return v.time().AppendFormat(dst, time.DateOnly)
	case time.Time:
		return v.UTC().AppendFormat(dst, row.TimeLayout)
	}
	return dst
}
