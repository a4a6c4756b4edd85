package columnar

// column is the buffer of one column in one chunk. Values are put at a row
// number; rows in between become null. A list column has the ends of its lists
// in ends and its elements in elem.
type column struct {
	kind  Kind
	n     int    // rows held
	nulls int    // of them null
	valid []byte // bitmap, least significant bit first; nil while nulls is 0

	longs   []int64 // Long, Timestamp
	ints    []int32 // Int, Date
	doubles []float64
	bools   []byte      // bitmap
	text    []byte      // String, JSON, Binary: all values, one behind the other
	ends    []int32     // 0, then where each value of text, or each list, ends
	codes   []int32     // String in dictionary form
	dict    *dictionary // nil when in plain form
	elem    *column
}

// reset makes c an empty column of a kind, keeping its buffers unless the last
// use needed little of them.
func (c *column) reset(kind Kind, dictionary bool) {
	c.kind, c.n, c.nulls, c.valid = kind, 0, 0, keep(c.valid)
	c.longs, c.ints, c.doubles, c.bools = keep(c.longs), keep(c.ints), keep(c.doubles), keep(c.bools)
	c.text, c.ends, c.codes = keep(c.text), append(keep(c.ends), 0), keep(c.codes)
	if !dictionary {
		c.dict = nil
	} else if c.dict == nil {
		c.dict = newDictionary()
	} else {
		c.dict.reset()
	}
	if e := kind.Element(); e == 0 {
		c.elem = nil
	} else {
		if c.elem == nil {
			c.elem = &column{}
		}
		c.elem.reset(e, false)
	}
}

// keep empties a buffer, and lets it go when most of it was not needed.
func keep[T any](b []T) []T {
	if cap(b) > 4096 && len(b) < cap(b)/8 {
		return nil
	}
	return b[:0]
}

// bytes is the memory held.
func (c *column) bytes() int64 {
	n := cap(c.valid) + 8*cap(c.longs) + 4*cap(c.ints) + 8*cap(c.doubles) + cap(c.bools) + cap(c.text) + 4*cap(c.ends) + 4*cap(c.codes)
	if c.dict != nil {
		n += c.dict.bytes()
	}
	if c.elem != nil {
		return int64(n) + c.elem.bytes()
	}
	return int64(n)
}

// need is the memory that rows rows take, those that are still to be padded
// included.
func (c *column) need(rows int) int64 {
	n := rows / 8
	switch c.kind {
	case Bool:
		n += rows / 8
	case Long, Double, Timestamp:
		n += 8 * rows
	case Int, Date:
		n += 4 * rows
	default:
		n += 4*rows + len(c.text)
		if c.dict != nil {
			n += len(c.dict.text) + 12*c.dict.len()
		}
		if c.elem != nil {
			return int64(n) + c.elem.need(c.elem.n)
		}
	}
	return int64(n)
}

// begin makes row the next one, nulls in between. false: row has a value.
func (c *column) begin(row int) bool {
	if c.n < row {
		c.pad(row)
	}
	return c.n == row
}

// pad appends nulls up to rows.
func (c *column) pad(rows int) {
	k := rows - c.n
	if k <= 0 {
		return
	}
	if c.nulls == 0 { // bits up to here were all set
		c.valid = ones8(c.valid[:0], c.n)
	}
	c.valid = zeros(c.valid, (rows+7)/8)
	c.nulls += k
	c.n = rows
	switch c.kind {
	case Bool:
		c.bools = zeros(c.bools, (rows+7)/8)
	case Long, Timestamp:
		c.longs = zeros(c.longs, rows)
	case Int, Date:
		c.ints = zeros(c.ints, rows)
	case Double:
		c.doubles = zeros(c.doubles, rows)
	default:
		if c.dict != nil {
			c.codes = zeros(c.codes, rows)
			return
		}
		c.endNulls(k)
	}
}

func (c *column) endNulls(k int) {
	end := int32(len(c.text))
	if c.elem != nil {
		end = int32(c.elem.n)
	}
	for range k {
		c.ends = append(c.ends, end)
	}
}

// filled counts the value that was just appended at row n.
func (c *column) filled() {
	if c.nulls > 0 {
		if c.n&7 == 0 {
			c.valid = append(c.valid, 1)
		} else {
			c.valid[c.n>>3] |= 1 << (c.n & 7)
		}
	}
	c.n++
}

func (c *column) putLong(v int64) {
	if len(c.longs) == cap(c.longs) {
		c.longs = grow(c.longs, len(c.longs)+1)
	}
	c.longs = append(c.longs, v)
	c.filled()
}

func (c *column) putInt(v int32) {
	c.ints = append(c.ints, v)
	c.filled()
}

func (c *column) putDouble(v float64) {
	c.doubles = append(c.doubles, v)
	c.filled()
}

func (c *column) putBool(v bool) {
	if c.n&7 == 0 {
		c.bools = append(c.bools, 0)
	}
	if v {
		c.bools[c.n>>3] |= 1 << (c.n & 7)
	}
	c.filled()
}

// putText appends a value to a String, JSON or Binary column.
func (c *column) putText(v []byte) {
	if c.dict != nil {
		if code, ok := c.dict.code(v); ok {
			c.putCode(code)
			return
		}
		c.spell()
	}
	if n := len(c.text) + len(v); n > cap(c.text) {
		c.text = grow(c.text, n)
	}
	c.text = append(c.text, v...)
	if len(c.ends) == cap(c.ends) {
		c.ends = grow(c.ends, len(c.ends)+1)
	}
	c.ends = append(c.ends, int32(len(c.text)))
	c.filled()
}

func (c *column) putCode(code int32) {
	if len(c.codes) == cap(c.codes) {
		c.codes = grow(c.codes, len(c.codes)+1)
	}
	c.codes = append(c.codes, code)
	c.filled()
}

// repeat puts the text of the row before once more, if v is it; false: put it.
func (c *column) repeat(row int, v []byte) bool {
	if c.dict == nil || c.n != row || !c.dict.again(v) {
		return false
	}
	c.dict.used++
	c.putCode(c.dict.last)
	return true
}

// spell turns the dictionary form into the plain one.
func (c *column) spell() {
	size := 0
	for i, code := range c.codes {
		if !c.isNull(i) {
			size += len(c.dict.value(code))
		}
	}
	c.text = grow(c.text[:0], size+size/2)
	c.ends = append(grow(c.ends[:0], len(c.codes)+len(c.codes)/2+1), 0)
	for i, code := range c.codes {
		if !c.isNull(i) {
			c.text = append(c.text, c.dict.value(code)...)
		}
		c.ends = append(c.ends, int32(len(c.text)))
	}
	c.codes, c.dict = nil, nil
}

// putList ends the list whose elements were appended to elem.
func (c *column) putList() {
	c.ends = append(c.ends, int32(c.elem.n))
	c.filled()
}

func (c *column) isNull(row int) bool {
	return c.nulls > 0 && c.valid[row>>3]&(1<<(row&7)) == 0
}

// truncate forgets the rows from row on.
func (c *column) truncate(row int) {
	if c.n <= row {
		return
	}
	for i := row; i < c.n; i++ {
		if c.isNull(i) {
			c.nulls--
		}
	}
	c.n = row
	c.valid = cutBits(c.valid, row)
	switch c.kind {
	case Bool:
		c.bools = cutBits(c.bools, row)
	case Long, Timestamp:
		c.longs = c.longs[:row]
	case Int, Date:
		c.ints = c.ints[:row]
	case Double:
		c.doubles = c.doubles[:row]
	default:
		if c.dict != nil {
			c.codes = c.codes[:row]
			return
		}
		c.ends = c.ends[:row+1]
		end := c.ends[row]
		if c.elem != nil {
			c.elem.truncate(int(end))
		} else {
			c.text = c.text[:end]
		}
	}
}

// textAt is the value of a text column at a row that is not null.
func (c *column) textAt(row int) []byte {
	if c.dict != nil {
		return c.dict.value(c.codes[row])
	}
	return c.text[c.ends[row]:c.ends[row+1]]
}

// pick appends the given rows of src, in that order, to c, which is empty and
// of the same kind. Where src has a dictionary, c shares it if that is worth it.
func (c *column) pick(src *column, rows []int32) {
	shared := src.dict != nil && src.dict.len() <= 2*len(rows)
	if shared {
		c.dict = src.dict
	}
	for _, r := range rows {
		row := int(r)
		if src.isNull(row) {
			c.pad(c.n + 1)
			continue
		}
		switch c.kind {
		case Bool:
			c.putBool(src.bools[row>>3]&(1<<(row&7)) != 0)
		case Long, Timestamp:
			c.putLong(src.longs[row])
		case Int, Date:
			c.putInt(src.ints[row])
		case Double:
			c.putDouble(src.doubles[row])
		default:
			switch {
			case c.elem != nil:
				for at := src.ends[row]; at < src.ends[row+1]; at++ {
					c.elem.pick(src.elem, []int32{at})
				}
				c.putList()
			case shared:
				c.codes = append(c.codes, src.codes[row])
				c.filled()
			default:
				c.putText(src.textAt(row))
			}
		}
	}
}

// zeros extends b to n elements; the new ones are zero.
func zeros[T any](b []T, n int) []T {
	if n <= len(b) {
		return b
	}
	b = grow(b, n)
	old := len(b)
	b = b[:n]
	clear(b[old:])
	return b
}

// grow makes room for n elements in all, more when b must move anyway: half as
// many again, because append's quarter moves a long column twice as often, and
// each time into memory that the system has yet to provide.
func grow[T any](b []T, n int) []T {
	if n <= cap(b) {
		return b
	}
	moved := make([]T, len(b), max(n, cap(b)+cap(b)/2, growFirst))
	copy(moved, b)
	return moved
}

const growFirst = 16

// room gives an empty buffer that held nothing so far as much room as another
// one has used.
func room[T any](b, used []T) []T {
	if cap(b) >= len(used) {
		return b
	}
	return append(make([]T, 0, len(used)+len(used)/16), b...)
}

// expect makes room for as much as c is about to hold when it is filled as like
// was.
func (c *column) expect(like *column) {
	c.longs, c.ints, c.doubles = room(c.longs, like.longs), room(c.ints, like.ints), room(c.doubles, like.doubles)
	switch {
	case c.dict != nil:
		c.codes = room(c.codes, like.codes)
	case like.dict == nil:
		c.text, c.ends = room(c.text, like.text), room(c.ends, like.ends)
	}
	if c.elem != nil && like.elem != nil {
		c.elem.expect(like.elem)
	}
}

// ones8 makes b a bitmap of n set bits.
func ones8(b []byte, n int) []byte {
	for len(b) < n/8 {
		b = append(b, 0xff)
	}
	if n&7 != 0 {
		b = append(b, 1<<(n&7)-1)
	}
	return b
}

// cutBits shortens a bitmap to n bits and clears what is left of its last byte.
func cutBits(b []byte, n int) []byte {
	if len(b) > (n+7)/8 {
		b = b[:(n+7)/8]
	}
	if n&7 != 0 && len(b) > n>>3 {
		b[n>>3] &= 1<<(n&7) - 1
	}
	return b
}
