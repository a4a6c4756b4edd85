package columnar

import "naru/internal/event"

// Cells are the values of one column of the rows that a stage holds. They are the
// stage's own: valid until the next Append or Clear.
type Cells struct {
	Field Field
	Rows  int
	Valid []byte // bitmap, least significant bit first; nil: none is null

	Longs   []int64 // Long, Timestamp
	Ints    []int32 // Int, Date
	Doubles []float64
	Bools   []byte // bitmap
	// Of String, JSON, Binary: all texts one behind the other, and 0 and where each
	// ends. With Codes, the texts are words, and a row has the one of its code.
	// Of lists, Ends are those of the lists in Elements.
	Text     []byte
	Ends     []int32
	Codes    []int32
	Elements *Cells
}

// Null tells whether a row has no value.
func (c *Cells) Null(row int) bool {
	return c.Valid != nil && c.Valid[row>>3]&(1<<(row&7)) == 0
}

// TextAt is the text of a row that is not null.
func (c *Cells) TextAt(row int) []byte {
	if c.Codes != nil {
		row = int(c.Codes[row])
	}
	return c.Text[c.Ends[row]:c.Ends[row+1]]
}

// Cells gives the values of the column at a place of Schema().Fields; false when
// it holds none: somebody dropped it, or another writer fills it.
func (b *Builder) Cells(at int) (Cells, bool) {
	if at >= len(b.cur.cols) || b.cur.cols[at] == nil {
		return Cells{}, false
	}
	col := b.cur.cols[at]
	col.pad(b.cur.rows)
	return cellsIn(b.schema.Fields[at], col), true
}

func cellsIn(f Field, c *column) Cells {
	cells := Cells{Field: f, Rows: c.n, Longs: c.longs, Ints: c.ints, Doubles: c.doubles, Bools: c.bools, Text: c.text, Ends: c.ends}
	if c.nulls > 0 {
		cells.Valid = c.valid
	}
	if c.dict != nil {
		cells.Text, cells.Ends, cells.Codes = c.dict.text, c.dict.ends, c.codes
		if cells.Codes == nil {
			cells.Codes = []int32{}
		}
	}
	if c.elem != nil {
		elements := cellsIn(Field{ID: f.ElementID, Kind: f.Kind.Element()}, c.elem)
		cells.Elements = &elements
	}
	return cells
}

// Drop forgets the last row of a stage.
func (b *Builder) Drop() {
	if b.cur.rows == 0 {
		return
	}
	b.cur.rows--
	b.rows--
	for _, col := range b.cur.cols {
		if col != nil {
			col.truncate(b.cur.rows)
		}
	}
}

// Join adds the columns of another flat schema that s has not, under new ids: a
// stage of several types begins so. Where one has whole numbers and the other
// fractions it is fractions; else the kind of the first counts.
func (s *Schema) Join(o *Schema) {
	p := newPaths(s)
	byPath := make(map[string]int, len(s.Fields))
	for i, f := range s.Fields {
		byPath[f.Path] = i
	}
	for _, f := range o.Fields {
		if f.Path == "" || f.Dropped || f.Kind == Foreign || !f.Kind.fromJSON() {
			continue
		}
		at, known := byPath[f.Path]
		switch {
		case known && s.Fields[at].Kind == Long && f.Kind == Double:
			s.Fields[at].Kind = Double
		case known || p.full() || p.names[fold(f.Name)]:
		default:
			byPath[f.Path] = len(s.Fields)
			s.add(f.Name, f.Path, f.Kind)
			p.take(f.Name, f.Kind)
		}
	}
}

// RowTime is the value of _time in the row of an event, in microseconds.
func RowTime(e *event.Event) int64 {
	micros, _ := rowTime(e)
	return micros
}
