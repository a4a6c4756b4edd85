package columnar

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"slices"
)

// sortable tells whether rows can be sorted by a column of the kind.
func sortable(k Kind) bool {
	switch k {
	case Bool, Long, Int, Double, String, Timestamp, Date:
		return true
	}
	return false
}

// order compares rows of a chunk by the columns of an arrangement.
type order struct {
	by    []SortField
	cols  []*column
	ranks [][]int32  // of texts in dictionary form: the place of each word among the sorted ones
	heads [][]uint64 // of other texts: the first eight bytes, which mostly decide
}

func newOrder(by []SortField, s *Schema, cols []*column) *order {
	o := &order{by: by, cols: make([]*column, len(by)), ranks: make([][]int32, len(by)), heads: make([][]uint64, len(by))}
	for i, f := range by {
		at := slices.IndexFunc(s.Fields, func(x Field) bool { return x.ID == f.Source })
		o.cols[i] = cols[at]
		if cols[at].kind == String && cols[at].dict == nil {
			o.heads[i] = heads(cols[at])
		}
		if d := cols[at].dict; d != nil {
			codes := make([]int32, d.len())
			for c := range codes {
				codes[c] = int32(c)
			}
			slices.SortFunc(codes, func(a, b int32) int { return cmp.Compare(view(d.value(a)), view(d.value(b))) })
			o.ranks[i] = make([]int32, len(codes))
			for rank, c := range codes {
				o.ranks[i][c] = int32(rank)
			}
		}
	}
	return o
}

// heads are the first bytes of each row's text as numbers that compare as they do.
func heads(c *column) []uint64 {
	out := make([]uint64, c.n)
	for row := range out {
		if c.isNull(row) {
			continue
		}
		var b [8]byte
		copy(b[:], c.textAt(row))
		out[row] = binary.BigEndian.Uint64(b[:])
	}
	return out
}

// compare tells whether row a comes before row b.
func (o *order) compare(a, b int32) int {
	for i, col := range o.cols {
		n := 0
		switch an, bn := col.isNull(int(a)), col.isNull(int(b)); {
		case an && bn:
		case an:
			n = -1
		case bn:
			n = 1
		case o.ranks[i] != nil:
			n = cmp.Compare(o.ranks[i][col.codes[a]], o.ranks[i][col.codes[b]])
		case col.kind == String:
			if n = cmp.Compare(o.heads[i][a], o.heads[i][b]); n == 0 {
				n = bytes.Compare(col.textAt(int(a)), col.textAt(int(b)))
			}
		default:
			n = cmp.Compare(col.rank(int(a)), col.rank(int(b)))
		}
		if n != 0 {
			if o.by[i].Descending {
				return -n
			}
			return n
		}
	}
	return 0
}

// rank is a number that stands as the value does among those of its column.
// -0 is less than 0, as Iceberg has it; NaN is in no JSON.
func (c *column) rank(row int) int64 {
	if c.kind == Double {
		bits := int64(math.Float64bits(c.doubles[row]))
		if bits < 0 {
			bits ^= math.MaxInt64
		}
		return bits
	}
	return c.whole(row)
}

// permute brings rows, which are given as they came, into the order; nil means all n
// rows. The answer is nil when they all stand as they should. Equal rows stay as
// they came.
func (o *order) permute(rows []int32, n int) []int32 {
	if rows == nil {
		rows = make([]int32, n)
		for i := range rows {
			rows[i] = int32(i)
		}
		if slices.IsSortedFunc(rows, o.compare) {
			return nil
		}
	}
	slices.SortFunc(rows, func(a, b int32) int { return cmp.Or(o.compare(a, b), cmp.Compare(a, b)) })
	return rows
}

// sortKey is the place of a row in an order, kept beyond its chunk.
type sortKey []sortCell

type sortCell struct {
	null bool
	long int64
	text string
}

// key is the place of a row.
func (o *order) key(row int32) sortKey {
	k := make(sortKey, len(o.cols))
	for i, col := range o.cols {
		switch {
		case col.isNull(int(row)):
			k[i].null = true
		case col.kind == String:
			k[i].text = string(col.textAt(int(row)))
		default:
			k[i].long = col.rank(int(row))
		}
	}
	return k
}

// compare is order.compare for keys.
func (k sortKey) compare(by []SortField, other sortKey) int {
	for i, a := range k {
		b, n := other[i], 0
		switch {
		case a.null && b.null:
		case a.null:
			n = -1
		case b.null:
			n = 1
		default:
			n = cmp.Or(cmp.Compare(a.long, b.long), cmp.Compare(a.text, b.text))
		}
		if n != 0 {
			if by[i].Descending {
				return -n
			}
			return n
		}
	}
	return 0
}

// run is rows that stand in order: from the first to the last. broken: not all do.
type run struct {
	first, last sortKey
	broken      bool
}

// follow adds a run behind.
func (r *run) follow(by []SortField, next run) {
	if r.first == nil {
		*r = next
		return
	}
	r.broken = r.broken || next.broken || r.last.compare(by, next.first) > 0
	r.last = next.last
}
