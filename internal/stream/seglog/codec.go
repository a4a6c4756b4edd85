package seglog

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"

	"naru/internal/event"
	"naru/internal/stream"
)

// Bodies are sequences of unsigned varints, byte strings with their length
// before them, and 16-byte UUIDs.

func appendString[V string | []byte](b []byte, v V) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// parser reads a body. After the first error everything reads as zero.
type parser struct {
	b   []byte
	err error
}

func (p *parser) fail(what string) {
	if p.err == nil {
		p.err = badFrame("%s: body ends early or out of range", what)
	}
	p.b = nil
}

func (p *parser) uvarint() uint64 {
	v, n := binary.Uvarint(p.b)
	if n <= 0 {
		p.fail("number")
		return 0
	}
	p.b = p.b[n:]
	return v
}

// offset reads a number that is not negative as an int64.
func (p *parser) offset() int64 {
	v := p.uvarint()
	if v > math.MaxInt64 {
		p.fail("offset")
		return 0
	}
	return int64(v)
}

func (p *parser) signed() int64 {
	v, n := binary.Varint(p.b)
	if n <= 0 {
		p.fail("number")
		return 0
	}
	p.b = p.b[n:]
	return v
}

// length reads the number of entries that follow, each at least size bytes.
func (p *parser) length(size int) int {
	v := p.uvarint()
	if v > uint64(len(p.b)/size) {
		p.fail("length")
		return 0
	}
	return int(v)
}

func (p *parser) id() uint32 {
	v := p.uvarint()
	if v > math.MaxUint32 {
		p.fail("id")
		return 0
	}
	return uint32(v)
}

func (p *parser) partition() int32 {
	v := p.uvarint()
	if v > math.MaxInt32 {
		p.fail("partition")
		return 0
	}
	return int32(v)
}

func (p *parser) bytes() []byte {
	n := p.length(1)
	v := p.b[:n]
	p.b = p.b[n:]
	return v
}

func (p *parser) incarnation() (inc event.Incarnation) {
	if len(p.b) < len(inc) {
		p.fail("incarnation")
		return inc
	}
	copy(inc[:], p.b)
	p.b = p.b[len(inc):]
	return inc
}

func (p *parser) end() error {
	if p.err == nil && len(p.b) != 0 {
		p.err = badFrame("%d bytes behind the body", len(p.b))
	}
	return p.err
}

func appendProgress(b []byte, reader string, at stream.Progress) []byte {
	b = appendString(b, reader)
	b = appendString(b, at.Stream)
	for _, n := range []int64{at.Counts.Written, at.Counts.Rejections, at.Counts.Duplicates, at.Counts.Filtered} {
		b = binary.AppendVarint(b, n)
	}
	b = binary.AppendUvarint(b, uint64(len(at.Positions)))
	for _, inc := range slices.SortedFunc(maps.Keys(at.Positions), func(a, b event.Incarnation) int {
		return slices.Compare(a[:], b[:])
	}) {
		b = append(b, inc[:]...)
		b = binary.AppendUvarint(b, uint64(len(at.Positions[inc])))
		for _, n := range slices.Sorted(maps.Keys(at.Positions[inc])) {
			b = binary.AppendVarint(b, int64(n))
			b = binary.AppendVarint(b, at.Positions[inc][n])
		}
	}
	b = binary.AppendVarint(b, at.Counts.Dropped)
	b = binary.AppendUvarint(b, uint64(len(at.Events)))
	for _, n := range slices.Sorted(maps.Keys(at.Events)) {
		b = binary.AppendUvarint(b, uint64(n))
		b = binary.AppendVarint(b, at.Events[n])
	}
	return b
}

func (p *parser) progress() (reader string, at stream.Progress) {
	reader = string(p.bytes())
	at.Stream = string(p.bytes())
	at.Counts = stream.Counts{Written: p.signed(), Rejections: p.signed(), Duplicates: p.signed(), Filtered: p.signed()}
	at.Positions = event.Positions{}
	for range p.length(17) {
		inc := p.incarnation()
		m := map[int32]int64{}
		for range p.length(2) {
			n := p.signed()
			if n < math.MinInt32 || n > math.MaxInt32 {
				p.fail("partition")
			}
			m[int32(n)] = p.signed()
		}
		at.Positions[inc] = m
	}
	if reader == "" {
		p.fail("reader name")
	}
	return reader, at
}

// moreProgress reads what format 2 put behind the positions.
func (p *parser) moreProgress(at *stream.Progress) {
	at.Counts.Dropped = p.signed()
	for range p.length(2) {
		n := p.partition()
		if at.Events == nil {
			at.Events = map[int32]int64{}
		}
		at.Events[n] = p.signed()
	}
}

func parseProgress(body []byte) (string, stream.Progress, error) {
	p := parser{b: body}
	reader, at := p.progress()
	if len(p.b) > 0 { // else it was written before format 2
		p.moreProgress(&at)
	}
	if err := p.end(); err != nil {
		return "", stream.Progress{}, fmt.Errorf("progress: %w", err)
	}
	return reader, at, nil
}
