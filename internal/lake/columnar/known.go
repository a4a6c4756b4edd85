package columnar

import (
	"naru/internal/lake"
)

// known leaves out of an event's data what its contract does not know, where that
// is to have no column (naru.unknownFields discard). The log has all of it: which
// fields a row has is said by the contract that the event was judged by, as types of
// columns are.
type known struct {
	d    []byte
	from int // d up to here is in out, or cut away
	out  []byte
}

// onlyKnown is data without what the event's contract does not know: data itself
// when there is nothing of that kind, and when it is no JSON object.
func (b *Builder) onlyKnown(data []byte) []byte {
	if b.shape == nil || b.shape.of.Known == nil {
		return data
	}
	i := skipSpace(data, 0)
	if i >= len(data) || data[i] != '{' {
		return data
	}
	k := &b.known
	k.d, k.from, k.out = data, 0, k.out[:0]
	defer func() { k.d = nil }()
	if b.keepObject(i, b.shape.of.Known) < 0 || k.from == 0 {
		return data
	}
	k.out = append(k.out, data[k.from:]...)
	return k.out
}

// cut leaves out d[from:to].
func (k *known) cut(from, to int) {
	k.out = append(k.out, k.d[k.from:from]...)
	k.from = to
}

// keepValue goes through the value at d[i] and returns the place behind it; -1: that
// is not JSON.
func (b *Builder) keepValue(i int, k *lake.Known) int {
	d := b.known.d
	switch {
	case i >= len(d):
		return -1
	case k != nil && d[i] == '{' && k.Fields != nil:
		return b.keepObject(i, k)
	case k != nil && d[i] == '[' && k.Items != nil:
		return b.keepArray(i, k.Items)
	}
	return b.scan.skip(d, i)
}

// keepObject cuts what k does not have out of the object at d[i], each with one
// comma. A name that stands twice is kept, or cut, twice.
func (b *Builder) keepObject(i int, k *lake.Known) int {
	d := b.known.d
	begin := i + 1 // of what may be cut: behind the brace, or behind the last member that stays
	some, gap := false, false
	comma := -1
	i = skipSpace(d, begin)
	for i < len(d) && d[i] == '"' {
		start := i
		end, escaped, wide := scanString(d, i+1)
		if end < 0 {
			return -1
		}
		key := d[i+1 : end]
		if escaped || wide {
			key = appendDecoded(nil, key)
		}
		if i = skipSpace(d, end+1); i >= len(d) || d[i] != ':' {
			return -1
		}
		i = skipSpace(d, i+1)
		if field, ok := k.Fields[string(key)]; !ok {
			gap = true
			if i = b.scan.skip(d, i); i < 0 {
				return -1
			}
		} else {
			if gap && some {
				b.known.cut(begin, comma)
			} else if gap {
				b.known.cut(begin, start)
			}
			if i = b.keepValue(i, field); i < 0 {
				return -1
			}
			begin, some, gap = i, true, false
		}
		if i = skipSpace(d, i); i >= len(d) || d[i] != ',' {
			break
		}
		comma = i
		if i = skipSpace(d, i+1); i < len(d) && d[i] == '}' {
			return -1
		}
	}
	if i >= len(d) || d[i] != '}' {
		return -1
	}
	if gap {
		b.known.cut(begin, i)
	}
	return i + 1
}

// keepArray does the same for all items of the array at d[i].
func (b *Builder) keepArray(i int, items *lake.Known) int {
	d := b.known.d
	i = skipSpace(d, i+1)
	if i < len(d) && d[i] == ']' {
		return i + 1
	}
	for {
		if i = b.keepValue(i, items); i < 0 {
			return -1
		}
		if i = skipSpace(d, i); i < len(d) && d[i] == ']' {
			return i + 1
		}
		if i >= len(d) || d[i] != ',' {
			return -1
		}
		i = skipSpace(d, i+1)
	}
}
