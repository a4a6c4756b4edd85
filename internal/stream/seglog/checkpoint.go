package seglog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"naru/internal/event"
	"naru/internal/stream"
)

// formatVersion is the first number of a checkpoint. A reader refuses a later
// one; a change that old readers could misread raises it.
// Format 1 had no events in a stream-partition, and in a reader neither what was
// dropped nor events by partition.
const formatVersion = 2

// footerVersion is the first number of a footer.
const footerVersion = 1

// checkpoint is the first frame of a segment: all that a start needs of the
// segments before it.
type checkpoint struct {
	segment     uint64
	created     time.Time
	incarnation event.Incarnation
	closed      []closedIncarnation // oldest first
	oldest      uint64              // the oldest segment that was kept then
	predecessor predecessor
	parts       []partState
	streams     []streamState
	readers     map[string]stream.Progress
}

// predecessor is what is known of the segment before; number 0: there is none.
type predecessor struct {
	number   uint64
	length   int64  // its frames end here; a footer may stand behind
	last     uint64 // sequence of its last frame
	checksum uint32 // see segment.chain
	maxTime  int64  // latest time of receipt in it, ms; 0 when it holds no batch
}

// closedIncarnation ended at the given offsets, by dictionary id. It began
// where the one before it ended.
type closedIncarnation struct {
	incarnation event.Incarnation
	ends        map[uint32]int64
}

// partState is a stream-partition at the start of a segment.
type partState struct {
	id         uint32
	stream     string
	partition  int32
	start, end int64
	bytes      int64 // of batches ever appended
	events     int64 // ever appended
}

type streamState struct {
	name                  string
	acknowledged, refused int64
}

// append encodes the checkpoint behind b.
func (c *checkpoint) append(b []byte) []byte {
	b = binary.AppendUvarint(b, formatVersion)
	b = binary.AppendUvarint(b, c.segment)
	b = binary.AppendVarint(b, c.created.UnixMilli())
	b = append(b, c.incarnation[:]...)
	b = binary.AppendUvarint(b, c.oldest)
	b = binary.AppendUvarint(b, c.predecessor.number)
	b = binary.AppendUvarint(b, uint64(c.predecessor.length))
	b = binary.AppendUvarint(b, c.predecessor.last)
	b = binary.AppendUvarint(b, uint64(c.predecessor.checksum))
	b = binary.AppendVarint(b, c.predecessor.maxTime)
	b = binary.AppendUvarint(b, uint64(len(c.closed)))
	for _, inc := range c.closed {
		b = append(b, inc.incarnation[:]...)
		b = binary.AppendUvarint(b, uint64(len(inc.ends)))
		for _, id := range slices.Sorted(maps.Keys(inc.ends)) {
			b = binary.AppendUvarint(b, uint64(id))
			b = binary.AppendUvarint(b, uint64(inc.ends[id]))
		}
	}
	b = binary.AppendUvarint(b, uint64(len(c.parts)))
	for _, p := range c.parts {
		b = binary.AppendUvarint(b, uint64(p.id))
		b = appendString(b, p.stream)
		b = binary.AppendUvarint(b, uint64(p.partition))
		b = binary.AppendUvarint(b, uint64(p.start))
		b = binary.AppendUvarint(b, uint64(p.end))
		b = binary.AppendUvarint(b, uint64(p.bytes))
		b = binary.AppendUvarint(b, uint64(p.events))
	}
	b = binary.AppendUvarint(b, uint64(len(c.streams)))
	for _, s := range c.streams {
		b = appendString(b, s.name)
		b = binary.AppendUvarint(b, uint64(s.acknowledged))
		b = binary.AppendUvarint(b, uint64(s.refused))
	}
	b = binary.AppendUvarint(b, uint64(len(c.readers)))
	for _, name := range slices.Sorted(maps.Keys(c.readers)) {
		b = appendProgress(b, name, c.readers[name])
	}
	return b
}

func parseCheckpoint(body []byte) (*checkpoint, error) {
	p := parser{b: body}
	version := p.uvarint()
	if p.err == nil && (version < 1 || version > formatVersion) {
		return nil, fmt.Errorf("checkpoint of format %d, this naru reads 1 to %d", version, formatVersion)
	}
	c := &checkpoint{
		segment:     p.uvarint(),
		created:     time.UnixMilli(p.signed()).UTC(),
		incarnation: p.incarnation(),
		oldest:      p.uvarint(),
		predecessor: predecessor{
			number: p.uvarint(), length: p.offset(), last: p.uvarint(),
			checksum: p.id(), maxTime: p.signed(),
		},
		readers: map[string]stream.Progress{},
	}
	for range p.length(17) {
		inc := closedIncarnation{incarnation: p.incarnation(), ends: map[uint32]int64{}}
		for range p.length(2) {
			id := p.id()
			inc.ends[id] = p.offset()
		}
		c.closed = append(c.closed, inc)
	}
	for range p.length(6) {
		part := partState{id: p.id(), stream: string(p.bytes()), partition: p.partition(), start: p.offset(), end: p.offset(), bytes: p.offset()}
		if int(part.id) != len(c.parts)+1 || part.stream == "" || part.start > part.end {
			p.fail("stream-partition")
		}
		if part.events = part.end; version > 1 { // format 1 had no writer that left gaps
			part.events = p.offset()
		}
		c.parts = append(c.parts, part)
	}
	for range p.length(3) {
		s := streamState{name: string(p.bytes()), acknowledged: p.offset(), refused: p.offset()}
		c.streams = append(c.streams, s)
	}
	for range p.length(7) {
		reader, at := p.progress()
		if version > 1 {
			p.moreProgress(&at)
		}
		c.readers[reader] = at
	}
	p.b = bytes.TrimLeft(p.b, "\x00") // one that was made again fills the room of the old one
	if c.incarnation.IsZero() || c.segment == 0 {
		p.fail("incarnation or segment")
	}
	if err := p.end(); err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	return c, nil
}
