package columnar

import (
	"bytes"
	"strconv"

	"naru/internal/contract"
	"naru/internal/event"
	"naru/internal/lake"
)

// shape is what a contract says of columns, as a builder uses it. Which one an
// event has is told by the event itself (the hash of the contract that it was
// judged by), so that every reading of the log gives the same columns.
type shape struct {
	of    *lake.Shape
	kinds map[string]Kind // by path
	utc   map[string]bool // paths of times that may lack an offset
	// done: all of its columns are there, as far as they can be.
	done bool

	bound       bool // what follows was looked up
	partition   []PartitionField
	partitionOK bool
	sort        []SortField
	sortOK      bool
	arranged    *Arrangement // what came of it the last time
}

// follow takes over the shape of an event. Events mostly have that of the one
// before.
func (b *Builder) follow(e *event.Event) {
	if bytes.Equal(e.Contract.Hash, b.contract) {
		return
	}
	b.contract = append(b.contract[:0], e.Contract.Hash...)
	b.shape = nil
	if len(b.contract) == 0 || b.opt.Shape == nil {
		return
	}
	of := b.opt.Shape(b.contract)
	if of == nil || !of.HasColumns() && of.Known == nil && !of.Arranges() {
		return
	}
	if b.shape = b.shapes[of]; b.shape != nil {
		return
	}
	s := &shape{of: of, kinds: make(map[string]Kind, len(of.Columns)), utc: map[string]bool{}}
	for _, c := range of.Columns {
		if kind, ok := parseKind(c.Kind); ok && kind.fromJSON() {
			s.kinds[c.Path] = kind
		}
		if c.UTC {
			s.utc[c.Path] = true
		}
	}
	if b.shapes == nil || len(b.shapes) >= maxShapes {
		b.shapes = map[*lake.Shape]*shape{}
	}
	b.shapes[of], b.shape = s, s
}

// maxShapes bounds what a builder remembers of contracts that came by.
const maxShapes = 100

// fromJSON tells whether values of JSON can fill a column of the kind.
func (k Kind) fromJSON() bool {
	switch k {
	case Bool, Long, Double, String, JSON, Timestamp, Date:
		return true
	}
	return k.IsList()
}

// agreed is the kind that the event's contract wants for a key; 0 for none.
func (b *Builder) agreed(o *object, key []byte) Kind {
	if b.shape == nil {
		return 0
	}
	b.path = o.appendPath(b.path[:0], key)
	return b.shape.kinds[string(b.path)]
}

// settle makes the columns of the event's contract that no event has had so far.
// It comes behind the contract's first event, so that keys are expected in the
// order in which they are sent.
func (b *Builder) settle() {
	s := b.shape
	if s == nil {
		return
	}
	if s.done {
		b.arrange()
		return
	}
	s.done = true
	defer b.arrange()
	for _, c := range s.of.Columns {
		kind, keys := s.kinds[c.Path], splitPath(c.Path)
		if kind == 0 || len(keys) > MaxDepth {
			continue
		}
		o := b.paths.root
		for _, key := range keys[:len(keys)-1] {
			n := o.find([]byte(key))
			if n == nil {
				n = o.add(key)
			}
			if n.obj == nil {
				n.obj = o.child(key)
			}
			o = n.obj
		}
		key := []byte(keys[len(keys)-1])
		if n := o.find(key); n == nil || n.col < 0 && !n.refused {
			b.admit(o, n, key, kind)
		}
	}
}

// isAgreed tells whether the event's contract wants a column as it is.
func (b *Builder) isAgreed(at int) bool {
	f := &b.schema.Fields[at]
	return b.shape != nil && b.shape.kinds[f.Path] == f.Kind
}

// putTime appends a time or a date that stands in JSON as a string.
func (b *Builder) putTime(at int, raw []byte) bool {
	text := raw[1 : len(raw)-1]
	if bytes.IndexByte(text, '\\') >= 0 {
		b.text = appendDecoded(b.text[:0], text)
		text = b.text
	}
	col := b.cur.cols[at]
	if col.kind == Date {
		days, ok := contract.Days(text)
		if ok {
			col.putInt(days)
		}
		return ok
	}
	micros, ok := contract.Micros(text, b.shape != nil && b.shape.utc[b.schema.Fields[at].Path])
	if ok {
		col.putLong(micros)
	}
	return ok
}

// wholeOf reads a number with fraction or exponent that is whole all the same, as
// 7.0 and 1e3; false when it is not, or not surely.
func wholeOf(raw []byte) (int64, bool) {
	digits := 0
	for _, c := range raw {
		if c|0x20 == 'e' {
			break
		}
		if c-'0' < 10 {
			digits++
		}
	}
	if digits > 15 { // as many as a double keeps apart
		return 0, false
	}
	f, err := strconv.ParseFloat(view(raw), 64)
	if err != nil || f < -1<<53 || f > 1<<53 || f != float64(int64(f)) {
		return 0, false
	}
	if f == 0 && !isZero(raw) {
		return 0, false
	}
	return int64(f), true
}

// isZero tells whether a number has no digit but 0 before its exponent.
func isZero(raw []byte) bool {
	for _, c := range raw {
		if c|0x20 == 'e' {
			break
		}
		if c >= '1' && c <= '9' {
			return false
		}
	}
	return true
}
