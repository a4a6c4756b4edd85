package columnar

import (
	"slices"
	"strconv"
	"time"

	"naru/internal/event"
	"naru/internal/jsonscan"
)

// Frame is the data of rows that steps have made, by column: what else would be the
// members of a JSON object for each row. A row has no member for a null.
type Frame struct {
	Columns []FrameColumn
	Rows    int
}

// FrameColumn is one column of a Frame. Its Field has a name and a kind: Bool, Long,
// Double without NaN and infinities, String in UTF-8, Timestamp or Date within the years 1 to
// 9999; or 0: its texts are JSON of any kind, each valid and not null.
type FrameColumn struct {
	Cells
	key []byte // `"name":`
}

// Framed is an event.Frame whose data are columns.
type Framed interface {
	event.Frame
	Cells() *Frame
}

// Add appends a column.
func (f *Frame) Add(c Cells) {
	f.Columns = append(f.Columns, FrameColumn{Cells: c, key: append(jsonscan.AppendQuoted(nil, []byte(c.Field.Name)), ':')})
}

// Last is the column that was added last.
func (f *Frame) Last() *FrameColumn { return &f.Columns[len(f.Columns)-1] }

// Size is the number of bytes that the column takes.
func (c *FrameColumn) Size() int {
	return len(c.key) + cap(c.Valid) + 8*cap(c.Longs) + 4*cap(c.Ints) + 8*cap(c.Doubles) + cap(c.Bools) + cap(c.Text) + 4*cap(c.Ends)
}

// Size is the number of bytes that the frame takes.
func (f *Frame) Size() (n int) {
	for i := range f.Columns {
		n += f.Columns[i].Size()
	}
	return n
}

// AppendData appends a row as a JSON object (event.Column says how values stand in it).
func (f *Frame) AppendData(dst []byte, row int) []byte {
	dst = append(dst, '{')
	first := true
	for i := range f.Columns {
		c := &f.Columns[i]
		if c.Null(row) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = c.appendJSON(append(dst, c.key...), row)
	}
	return append(dst, '}')
}

// appendJSON appends the value of a row that is not null.
func (c *FrameColumn) appendJSON(dst []byte, row int) []byte {
	switch c.Field.Kind {
	case Bool:
		return strconv.AppendBool(dst, c.Bools[row>>3]&(1<<(row&7)) != 0)
	case Long:
		return strconv.AppendInt(dst, c.Longs[row], 10)
	case Double:
		return jsonscan.AppendDouble(dst, c.Doubles[row])
	case String:
		return jsonscan.AppendQuoted(dst, c.TextAt(row))
	case Timestamp:
		return AppendTimestamp(dst, c.Longs[row])
	case Date:
		return AppendDate(dst, c.Ints[row])
	}
	return append(dst, c.TextAt(row)...)
}

// AppendTimestamp appends microseconds since 1970 as JSON (event.TimestampColumn).
func AppendTimestamp(dst []byte, micros int64) []byte {
	return append(time.UnixMicro(micros).UTC().AppendFormat(append(dst, '"'), "2006-01-02T15:04:05.999999Z"), '"')
}

// AppendDate appends days since 1970 as JSON (event.DateColumn).
func AppendDate(dst []byte, days int32) []byte {
	return append(time.Unix(int64(days)*86_400, 0).UTC().AppendFormat(append(dst, '"'), time.DateOnly), '"')
}

// framing is what a builder knows of the frame that it reads.
type framing struct {
	of    *Frame
	nodes []*node // by column; nil: the key has not come up
	keys  [][]byte
}

// AppendCells adds one row as Append does, with the data of a row of a frame in place
// of e.Data. What comes out is the same as if they were JSON. The table is a flat one.
// It returns the number of bytes of the values.
func (b *Builder) AppendCells(e *event.Event, f *Frame, row int, inc event.Incarnation, partition int32) (size int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	b.partition = partition
	b.envelope(e, inc, partition)
	b.follow(e)
	b.rescued.reset()
	b.checked, b.broken = true, false
	if b.frame.of != f {
		b.frame.begin(f, b.paths.root)
	}
	for i := range f.Columns {
		if c := &f.Columns[i]; !c.Null(row) {
			size += b.cell(c, i, row)
		}
	}
	b.settle()
	b.extensions(e)
	b.violations(e)
	b.endRescued()
	return size, b.added()
}

func (x *framing) begin(f *Frame, root *object) {
	x.of, x.nodes, x.keys = f, slices.Grow(x.nodes[:0], len(f.Columns)), slices.Grow(x.keys[:0], len(f.Columns))
	for i := range f.Columns {
		key := []byte(f.Columns[i].Field.Name)
		x.nodes, x.keys = append(x.nodes, root.find(key)), append(x.keys, key)
	}
}

// cell puts a value that is not null into its column: at once where the two are of one
// kind, else by the rules for JSON. It returns the number of its bytes.
func (b *Builder) cell(c *FrameColumn, i, row int) int {
	o, n, key := b.paths.root, b.frame.nodes[i], b.frame.keys[i]
	if n == nil {
		n = o.find(key)
	}
	kind := c.Field.Kind
	if kind != 0 && (n == nil || n.col < 0 && !n.refused) && b.agreed(o, key) == kind {
		n = b.admit(o, n, key, kind)
	}
	b.frame.nodes[i] = n
	if n != nil && n.col >= 0 {
		if col := b.cur.cols[n.col]; col.kind == kind && kind != 0 && col.begin(b.cur.rows) {
			return b.putCell(col, c, row)
		}
	}
	b.spelled = c.appendJSON(b.spelled[:0], row)
	b.cur.since += int64(len(b.spelled))
	b.value(b.spelled, 0, o, n, key)
	return len(b.spelled)
}

// putCell appends a value to a column of the same kind.
func (b *Builder) putCell(col *column, c *FrameColumn, row int) int {
	switch c.Field.Kind {
	case Bool:
		col.putBool(c.Bools[row>>3]&(1<<(row&7)) != 0)
	case Long, Timestamp:
		col.putLong(c.Longs[row])
	case Double:
		col.putDouble(c.Doubles[row])
	case Date:
		col.putInt(c.Ints[row])
	default:
		text := c.TextAt(row)
		b.cur.since += int64(len(text))
		col.putText(text)
		return len(text)
	}
	return 8
}

// Any tells whether there is a value that is not null.
func (c *Cells) Any() bool {
	for row := range c.Rows {
		if !c.Null(row) {
			return true
		}
	}
	return false
}

// SetNull takes a value away.
func (c *Cells) SetNull(row int) {
	if c.Valid == nil {
		c.Valid = ones8(make([]byte, 0, (c.Rows+7)/8), c.Rows)
	}
	c.Valid[row>>3] &^= 1 << (row & 7)
}
