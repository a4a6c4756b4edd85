package duck

import (
	"math"
	"unsafe"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"naru/internal/jsonscan"
	"naru/internal/lake/columnar"
)

// cells copies the first n values of a vector: as they are where sinks have their type,
// else as JSON (columnar.FrameColumn). errRows: they take more than most bytes.
func (c *column) cells(n, most int) (columnar.Cells, error) {
	out := columnar.Cells{Rows: n, Valid: c.validity(n)}
	switch c.kind {
	case duckdb.TypeBoolean:
		out.Field.Kind, out.Bools = columnar.Bool, make([]byte, (n+7)/8)
		for row := range n {
			if at[bool](c, row) {
				out.Bools[row>>3] |= 1 << (row & 7)
			}
		}
	case duckdb.TypeBigInt:
		out.Field.Kind, out.Longs = columnar.Long, longs[int64](c, n)
	case duckdb.TypeInteger:
		out.Field.Kind, out.Longs = columnar.Long, longs[int32](c, n)
	case duckdb.TypeSmallInt:
		out.Field.Kind, out.Longs = columnar.Long, longs[int16](c, n)
	case duckdb.TypeTinyInt:
		out.Field.Kind, out.Longs = columnar.Long, longs[int8](c, n)
	case duckdb.TypeUInteger:
		out.Field.Kind, out.Longs = columnar.Long, longs[uint32](c, n)
	case duckdb.TypeUSmallInt:
		out.Field.Kind, out.Longs = columnar.Long, longs[uint16](c, n)
	case duckdb.TypeUTinyInt:
		out.Field.Kind, out.Longs = columnar.Long, longs[uint8](c, n)
	case duckdb.TypeDouble, duckdb.TypeFloat:
		out.Field.Kind, out.Doubles = columnar.Double, make([]float64, n)
		for row := range n {
			if c.kind == duckdb.TypeDouble {
				out.Doubles[row] = at[float64](c, row)
			} else {
				out.Doubles[row] = widen(at[float32](c, row))
			}
			if v := out.Doubles[row]; math.IsNaN(v) || math.IsInf(v, 0) {
				out.SetNull(row)
			}
		}
	case duckdb.TypeTimestamp, duckdb.TypeTimestampS, duckdb.TypeTimestampMS, duckdb.TypeTimestampNS, duckdb.TypeTimestampTZ:
		out.Field.Kind, out.Longs = columnar.Timestamp, make([]int64, n)
		for row := range n {
			if c.null(row) {
				continue
			}
			var err error
			if out.Longs[row], err = c.micros(row); err != nil {
				return out, err
			}
		}
	case duckdb.TypeDate:
		out.Field.Kind, out.Ints = columnar.Date, make([]int32, n)
		for row := range n {
			if c.null(row) {
				continue
			}
			if _, err := c.micros(row); err != nil {
				return out, err
			}
			out.Ints[row] = at[int32](c, row)
		}
	case duckdb.TypeVarchar:
		if c.json {
			err := c.asJSON(&out, n, most)
			return out, err
		}
		out.Field.Kind = columnar.String
		size := 0
		for row := range n {
			if !c.null(row) {
				size += len(c.bytes(row))
			}
		}
		if size > most {
			return out, errRows
		}
		out.Text, out.Ends = make([]byte, 0, size), make([]int32, 1, n+1)
		c.copyTexts(&out, func(dst, s []byte) []byte { return append(dst, s...) })
		if !jsonscan.ASCII(out.Text) { // \C of a regexp cuts through characters
			out.Text, out.Ends = out.Text[:0], out.Ends[:1]
			c.copyTexts(&out, jsonscan.AppendValid)
		}
	default:
		err := c.asJSON(&out, n, most) // before out is read: Go leaves open which of the two comes first
		return out, err
	}
	return out, nil
}

// copyTexts copies texts, one behind the other.
func (c *column) copyTexts(out *columnar.Cells, add func(dst, s []byte) []byte) {
	for row := range out.Rows {
		if !c.null(row) {
			out.Text = add(out.Text, c.bytes(row))
		}
		out.Ends = append(out.Ends, int32(len(out.Text)))
	}
}

// asJSON copies values as JSON texts.
func (c *column) asJSON(out *columnar.Cells, n, most int) (err error) {
	out.Ends = make([]int32, 1, n+1)
	for row := range n {
		before := len(out.Text)
		if !c.null(row) {
			if out.Text, err = c.appendJSON(out.Text, row, true); err != nil {
				return err
			}
		}
		if len(out.Text) == before {
			out.SetNull(row)
		}
		if len(out.Text) > most {
			return errRows
		}
		out.Ends = append(out.Ends, int32(len(out.Text)))
	}
	return nil
}

// validity copies which of the first n values are not null; nil: all.
func (c *column) validity(n int) []byte {
	if c.valid == nil || n == 0 {
		return nil
	}
	words := unsafe.Slice((*uint64)(c.valid), (n+63)/64)
	all := true
	for row := range n {
		if words[row>>6]&(1<<(row&63)) == 0 {
			all = false
			break
		}
	}
	if all {
		return nil
	}
	valid := make([]byte, (n+7)/8)
	for i := range valid {
		valid[i] = byte(words[i>>3] >> (8 * (i & 7)))
	}
	return valid
}

// longs copies whole numbers; what stands where a value is null does not matter.
func longs[T int8 | int16 | int32 | int64 | uint8 | uint16 | uint32](c *column, n int) []int64 {
	out := make([]int64, n)
	for row, v := range unsafe.Slice((*T)(c.data), n) {
		out[row] = int64(v)
	}
	return out
}
