package duck

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"naru/internal/event"
	"naru/internal/jsonscan"
	"naru/internal/lake/columnar"
	"naru/internal/query"
)

// micros of a time in UTC; times that no calendar of the sinks has are an error.
func (c *column) micros(row int) (int64, error) {
	var micros int64
	switch c.kind {
	case duckdb.TypeDate:
		days := at[int32](c, row)
		if days == math.MaxInt32 || days == -math.MaxInt32 {
			return 0, errInfinite
		}
		micros = int64(days) * 86_400_000_000
	case duckdb.TypeTimestampS, duckdb.TypeTimestampMS, duckdb.TypeTimestampNS, duckdb.TypeTimestamp, duckdb.TypeTimestampTZ:
		v := at[int64](c, row)
		if infinite(v) != "" {
			return 0, errInfinite
		}
		switch c.kind {
		case duckdb.TypeTimestampS:
			if v > math.MaxInt64/1_000_000 || v < math.MinInt64/1_000_000 {
				return 0, errYears
			}
			micros = v * 1_000_000
		case duckdb.TypeTimestampMS:
			if v > math.MaxInt64/1000 || v < math.MinInt64/1000 {
				return 0, errYears
			}
			micros = v * 1000
		case duckdb.TypeTimestampNS:
			micros = floorDiv(v, 1000)
		default:
			micros = v
		}
	}
	if micros < firstMicro || micros > lastMicro {
		return 0, errYears
	}
	return micros, nil
}

func floorDiv(v, by int64) int64 {
	q := v / by
	if v%by < 0 {
		q--
	}
	return q
}

// Years 1 to 9999 in microseconds.
const (
	firstMicro = -62_135_596_800_000_000
	lastMicro  = 253_402_300_799_999_999
)

var (
	errInfinite = errors.New("an infinite time cannot be kept")
	errYears    = errors.New("times are kept of the years 1 to 9999")
)

// appendJSON appends a value as JSON; nothing for what a sink would take for null.
// top says that it is a column's own, and not in a list or an object.
func (c *column) appendJSON(dst []byte, row int, top bool) ([]byte, error) {
	if c.kind == duckdb.TypeSQLNull || c.null(row) {
		if top {
			return dst, nil
		}
		return append(dst, "null"...), nil
	}
	switch c.kind {
	case duckdb.TypeVarchar:
		b := c.bytes(row)
		if c.json {
			var scan jsonscan.Scanner
			if scan.Valid(b) {
				b = bytes.TrimSpace(b)
				if top && string(b) == "null" {
					return dst, nil
				}
				return append(dst, b...), nil
			}
		}
		return jsonscan.AppendQuoted(dst, b), nil
	case duckdb.TypeBigInt:
		return strconv.AppendInt(dst, at[int64](c, row), 10), nil
	case duckdb.TypeInteger:
		return strconv.AppendInt(dst, int64(at[int32](c, row)), 10), nil
	case duckdb.TypeDouble, duckdb.TypeFloat:
		f := 0.0
		if c.kind == duckdb.TypeDouble {
			f = at[float64](c, row)
		} else {
			f = widen(at[float32](c, row))
		}
		if top && (math.IsNaN(f) || math.IsInf(f, 0)) {
			return dst, nil
		}
		return query.AppendJSON(dst, f), nil
	case duckdb.TypeDate:
		micros, err := c.micros(row)
		if err != nil {
			return dst, err
		}
		return columnar.AppendDate(dst, int32(floorDiv(micros, 86_400_000_000))), nil
	case duckdb.TypeTimestamp, duckdb.TypeTimestampS, duckdb.TypeTimestampMS, duckdb.TypeTimestampNS, duckdb.TypeTimestampTZ:
		micros, err := c.micros(row)
		if err != nil {
			return dst, err
		}
		return columnar.AppendTimestamp(dst, micros), nil
	case duckdb.TypeList:
		e := at[listEntry](c, row)
		return c.appendItems(dst, int(e.offset), int(e.length))
	case duckdb.TypeArray:
		return c.appendItems(dst, row*c.size, c.size)
	case duckdb.TypeMap:
		e := at[listEntry](c, row)
		var size int64
		return c.appendMembers(dst, int(e.length), func(i int) (string, *column, int) {
			return query.Text(c.kids[0].value(int(e.offset)+i, &size)), &c.kids[1], int(e.offset) + i
		})
	case duckdb.TypeStruct:
		if c.plain {
			return c.appendTuple(dst, row)
		}
		return c.appendMembers(dst, len(c.kids), func(i int) (string, *column, int) { return c.names[i], &c.kids[i], row })
	case duckdb.TypeUnion:
		return c.kids[at[uint8](c, row)].appendJSON(dst, row, top)
	}
	var size int64
	v := c.value(row, &size)
	if top {
		switch c.kind {
		case duckdb.TypeUBigInt, duckdb.TypeHugeInt, duckdb.TypeUHugeInt:
			text := query.Text(v)
			if _, err := strconv.ParseInt(text, 10, 64); err != nil {
				return dst, fmt.Errorf("%s does not fit a whole number of 64 bits: cast it to DOUBLE or VARCHAR", text)
			}
			return append(dst, text...), nil
		case duckdb.TypeDecimal:
			if c.eventType() == event.StringColumn {
				return jsonscan.AppendQuoted(dst, query.Text(v)), nil
			}
			text := query.Text(v)
			if dst = append(dst, text...); !strings.Contains(text, ".") {
				dst = append(dst, ".0"...) // a double, as others are written
			}
			return dst, nil
		case duckdb.TypeBigNum:
			return jsonscan.AppendQuoted(dst, query.Text(v)), nil
		}
	}
	return query.AppendJSON(dst, v), nil
}

func (c *column) appendItems(dst []byte, from, n int) (_ []byte, err error) {
	dst = append(dst, '[')
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = c.kids[0].appendJSON(dst, from+i, false); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

func (c *column) appendTuple(dst []byte, row int) (_ []byte, err error) {
	dst = append(dst, '[')
	for i := range c.kids {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = c.kids[i].appendJSON(dst, row, false); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

func (c *column) appendMembers(dst []byte, n int, member func(i int) (string, *column, int)) (_ []byte, err error) {
	dst = append(dst, '{')
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		name, of, row := member(i)
		dst = append(jsonscan.AppendQuoted(dst, name), ':')
		if dst, err = of.appendJSON(dst, row, false); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}
