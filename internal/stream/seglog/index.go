package seglog

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sort"
)

// indexEvery is how much of its data a stream-partition has between two entries
// of the index.
const indexEvery = 64 << 10

// index tells where a segment holds what: per stream-partition one entry for
// every 64 KiB of its data. It grows with the active segment and is written
// behind a sealed one, as its footer.
type index struct {
	parts   map[uint32]*partIndex
	entries int
	maxTime int64
}

type partIndex struct {
	first, end int64 // offsets in the segment: [first, end)
	bytes      int64
	since      int64 // bytes behind the last entry
	entries    []indexEntry
}

// indexEntry: the frame at pos holds the offset.
type indexEntry struct{ offset, pos int64 }

func newIndex() *index { return &index{parts: map[uint32]*partIndex{}} }

func (x *index) add(s section, pos int64) {
	p := x.parts[s.id]
	if p == nil {
		p = &partIndex{first: s.base, since: indexEvery}
		x.parts[s.id] = p
	}
	if p.since >= indexEvery {
		p.entries = append(p.entries, indexEntry{s.base, pos})
		p.since = 0
		x.entries++
	}
	p.end = s.next()
	p.bytes += int64(s.size)
	p.since += int64(s.size)
	x.maxTime = max(x.maxTime, s.maxTime)
}

// find returns the place of a frame at or before that of an offset in [first, end).
func (p *partIndex) find(offset int64) int64 {
	i := sort.Search(len(p.entries), func(i int) bool { return p.entries[i].offset > offset })
	return p.entries[max(i-1, 0)].pos
}

// footer is the index of a sealed segment as it is stored. It names every
// stream-partition that was known then, so that a search among segments knows
// which way to go.
type footer struct {
	segment uint64
	index
}

// footerRoom is the most that a footer of this index takes, padding included.
func (x *index) footerRoom(parts int) int64 {
	return int64(headSize + 64 + 40*parts + 20*x.entries)
}

func appendFooter(b []byte, segment uint64, x *index, parts []*part) []byte {
	b = binary.AppendUvarint(b, footerVersion)
	b = binary.AppendUvarint(b, segment)
	b = binary.AppendVarint(b, x.maxTime)
	b = binary.AppendUvarint(b, uint64(len(parts)))
	for _, p := range parts {
		in := x.parts[p.id]
		if in == nil {
			in = &partIndex{first: p.end, end: p.end}
		}
		b = binary.AppendUvarint(b, uint64(p.id))
		b = binary.AppendUvarint(b, uint64(in.first))
		b = binary.AppendUvarint(b, uint64(in.end-in.first))
		b = binary.AppendUvarint(b, uint64(in.bytes))
		b = binary.AppendUvarint(b, uint64(len(in.entries)))
		last := indexEntry{offset: in.first}
		for _, e := range in.entries {
			b = binary.AppendUvarint(b, uint64(e.offset-last.offset))
			b = binary.AppendUvarint(b, uint64(e.pos-last.pos))
			last = e
		}
	}
	return b
}

func parseFooter(body []byte) (*footer, error) {
	p := parser{b: body}
	if v := p.uvarint(); p.err == nil && v != footerVersion {
		return nil, fmt.Errorf("footer of format %d, this naru reads %d", v, footerVersion)
	}
	f := &footer{segment: p.uvarint(), index: *newIndex()}
	f.maxTime = p.signed()
	for range p.length(5) {
		id, in := p.id(), &partIndex{first: p.offset()}
		in.end, in.bytes = in.first+p.offset(), p.offset()
		last := indexEntry{offset: in.first}
		n := p.length(2)
		in.entries = make([]indexEntry, 0, n)
		for range n {
			last = indexEntry{last.offset + p.offset(), last.pos + p.offset()}
			if last.offset < in.first || last.offset >= in.end || last.pos <= 0 {
				p.fail("index entry")
			}
			in.entries = append(in.entries, last)
		}
		if in.end < in.first || (in.end > in.first) != (len(in.entries) > 0) {
			p.fail("index")
		}
		f.parts[id] = in
		f.entries += len(in.entries)
	}
	if err := p.end(); err != nil {
		return nil, fmt.Errorf("footer: %w", err)
	}
	return f, nil
}

// size is what the footer takes in memory, roughly.
func (f *footer) size() int64 { return int64(64 + 96*len(f.parts) + 16*f.entries) }

// ids lists the stream-partitions, sorted.
func (x *index) ids() []uint32 { return slices.Sorted(maps.Keys(x.parts)) }
