package lake

import (
	"encoding/binary"
	"slices"
)

// Bounds are the least and the greatest values of a file's columns as far as they
// are known, in Iceberg's single-value serialization (spec, appendix D). Nulls
// do not count, nor does NaN; a text's bounds may be cut, the lower one down, the
// upper one up. They are packed: a table has thousands of files.
type Bounds string

// mostBounds is how many bytes of bounds a file keeps. Columns with low field ids
// come first: the envelope, and those that a table got first.
const mostBounds = 1 << 10

// PackBounds takes bounds by field id. Where they are too many, those of high ids
// are left out.
func PackBounds(lower, upper map[int][]byte) Bounds {
	ids := make([]int, 0, len(lower)+len(upper))
	for _, m := range []map[int][]byte{lower, upper} {
		for id := range m {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	b := make([]byte, 0, mostBounds)
	for _, id := range slices.Compact(ids) {
		n := len(b)
		b = binary.AppendUvarint(b, uint64(id))
		for _, m := range []map[int][]byte{lower, upper} {
			v, ok := m[id]
			if !ok {
				b = binary.AppendUvarint(b, 0)
				continue
			}
			b = append(binary.AppendUvarint(b, uint64(len(v))+1), v...)
		}
		if len(b) > mostBounds {
			return Bounds(b[:n])
		}
	}
	return Bounds(b)
}

// Bound is one end of a column's values. Known tells it from the empty text.
type Bound struct {
	Value string
	Known bool
}

// Get gives a column's bounds.
func (b Bounds) Get(fieldID int) (lower, upper Bound) {
	for rest := string(b); rest != ""; {
		var id uint64
		id, rest = uvarint(rest)
		lower, rest = bound(rest)
		upper, rest = bound(rest)
		if id == uint64(fieldID) {
			return lower, upper
		}
	}
	return Bound{}, Bound{}
}

func bound(s string) (Bound, string) {
	size, s := uvarint(s)
	if size == 0 {
		return Bound{}, s
	}
	return Bound{s[:size-1], true}, s[size-1:]
}

// uvarint is binary.Uvarint for texts, which need not be copied then.
func uvarint(s string) (n uint64, rest string) {
	for i := 0; i < len(s); i++ {
		n |= uint64(s[i]&0x7f) << (7 * i)
		if s[i] < 0x80 {
			return n, s[i+1:]
		}
	}
	return n, ""
}
