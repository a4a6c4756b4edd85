package seglog

import (
	"maps"
	"slices"

	"naru/internal/event"
	"naru/internal/stream"
)

// state is what the log holds, as far as it is synced: the sum of a checkpoint
// and the frames behind it.
type state struct {
	incarnation event.Incarnation
	closed      []closedIncarnation
	parts       []*part // by dictionary id, from 1
	topics      map[string]*topic
	readers     map[string]stream.Progress
	oldest      uint64
	sequence    uint64 // of the last frame
	lost        lostRanges
}

type topic struct {
	name                  string
	parts                 map[int32]*part
	acknowledged, refused int64
	wake                  chan struct{} // made by a waiting reader, closed by the next append
}

// part is a stream-partition. Offsets run on through all incarnations.
type part struct {
	id    uint32
	topic *topic
	n     int32

	start, end int64 // synced
	bytes      int64 // of batches ever appended
	startBytes int64 // of those that retention has dropped
	// The same of events.
	events, startEvents int64
	hints               hints
}

// place is where a frame begins.
type place struct {
	segment *segment
	pos     int64
}

func newState() *state {
	return &state{topics: map[string]*topic{}, readers: map[string]stream.Progress{}}
}

func stateOf(c *checkpoint) *state {
	s := newState()
	s.incarnation, s.closed, s.oldest = c.incarnation, c.closed, c.oldest
	for _, p := range c.parts {
		added := s.addPart(p.id, p.partition, p.stream)
		added.start, added.end, added.bytes, added.events = p.start, p.end, p.bytes, p.events
	}
	for _, st := range c.streams {
		t := s.topic(st.name)
		t.acknowledged, t.refused = st.acknowledged, st.refused
	}
	maps.Copy(s.readers, c.readers)
	return s
}

func (s *state) checkpoint() *checkpoint {
	c := &checkpoint{incarnation: s.incarnation, closed: s.closed, oldest: s.oldest, readers: s.readers}
	for _, p := range s.parts {
		c.parts = append(c.parts, partState{id: p.id, stream: p.topic.name, partition: p.n, start: p.start, end: p.end, bytes: p.bytes, events: p.events})
	}
	for _, name := range slices.Sorted(maps.Keys(s.topics)) {
		t := s.topics[name]
		c.streams = append(c.streams, streamState{name: name, acknowledged: t.acknowledged, refused: t.refused})
	}
	return c
}

func (s *state) topic(name string) *topic {
	t := s.topics[name]
	if t == nil {
		t = &topic{name: name, parts: map[int32]*part{}}
		s.topics[name] = t
	}
	return t
}

func (s *state) addPart(id uint32, n int32, name string) *part {
	t := s.topic(name)
	p := &part{id: id, topic: t, n: n}
	t.parts[n] = p
	s.parts = append(s.parts, p)
	return p
}

func (s *state) part(id uint32) *part {
	if id == 0 || int(id) > len(s.parts) {
		return nil
	}
	return s.parts[id-1]
}

// apply takes in a data frame that stands at at. Live appends and recovery come
// through here, so that a restart cannot count otherwise.
func (s *state) apply(table []byte, sections int, length int64, at place, idx *index) error {
	err := eachSection(table, sections, int64(headSize+len(table)), length, func(sec section, _ int64) error {
		switch sec.typ {
		case sectionName:
			if int(sec.id) != len(s.parts)+1 {
				return badFrame("dictionary id %d, want %d", sec.id, len(s.parts)+1)
			}
			s.addPart(sec.id, sec.partition, string(sec.name))
		case sectionWrite:
			p := s.part(sec.id)
			if p == nil || sec.base != p.end || (sec.refused != 0 && s.part(sec.refused) == nil) {
				return badFrame("a write at offset %d of dictionary id %d", sec.base, sec.id)
			}
			p.end = sec.next()
			p.bytes += int64(sec.size)
			p.events += int64(sec.count)
			p.hints.add(sec.base, at)
			idx.add(sec, at.pos)
			p.topic.count(int64(sec.count), s.part(sec.refused))
			p.topic.wakeReaders()
		case sectionProgress:
			reader, progress, err := parseProgress(sec.body)
			if err != nil {
				return err
			}
			s.readers[reader] = progress
		case sectionForget:
			delete(s.readers, string(sec.name))
		case sectionTrim:
			s.oldest = max(s.oldest, sec.oldest)
		case sectionGap:
			p := s.part(sec.id)
			if p == nil || sec.gap.first != p.end {
				return badFrame("a gap at offset %d of dictionary id %d", sec.gap.first, sec.id)
			}
			p.end = sec.gap.end
			p.bytes += sec.gap.bytes
			p.events += sec.gap.events
		case sectionCounts:
			p := s.part(sec.id)
			if p == nil {
				return badFrame("counts of dictionary id %d", sec.id)
			}
			p.topic.acknowledged += sec.counts.acknowledged
			p.topic.refused += sec.counts.refused
		}
		return nil
	})
	return err
}

// count takes in n events appended; from is what the section calls refused-for.
func (t *topic) count(n int64, from *part) {
	switch {
	case from == nil:
		t.acknowledged += n
	case from.topic.name == event.RejectedStream: // sent again from there
		moved, fresh := stream.Resend(t.refused, n)
		t.acknowledged += fresh
		t.refused -= moved
		from.topic.refused += moved
	default:
		t.acknowledged += n
		from.topic.acknowledged += n
		from.topic.refused += n
	}
}

func (t *topic) wakeReaders() {
	if t.wake != nil {
		close(t.wake)
		t.wake = nil
	}
}

// life is one incarnation of a stream-partition: offsets in [start, end).
type life struct {
	incarnation event.Incarnation
	start, end  int64
}

// lives lists all incarnations of p, oldest first; the last is the current one.
func (s *state) lives(p *part) []life {
	all := make([]life, 0, len(s.closed)+1)
	begin := int64(0)
	for _, c := range s.closed {
		end := c.ends[p.id]
		all = append(all, life{incarnation: c.incarnation, start: min(max(begin, p.start), end), end: end})
		begin = end
	}
	return append(all, life{incarnation: s.incarnation, start: max(begin, p.start), end: p.end})
}

// hints remember where a few offsets of a stream-partition stand exactly: those
// appended last, for readers close to the end, and those where reads ended.
type hints struct {
	ring [8]hint
	next int
}

type hint struct {
	offset int64
	at     place
}

func (h *hints) add(offset int64, at place) {
	h.ring[h.next%len(h.ring)] = hint{offset, at}
	h.next++
}

func (h *hints) find(offset int64) (place, bool) {
	for _, x := range h.ring {
		if x.at.segment != nil && x.offset == offset {
			return x.at, true
		}
	}
	return place{}, false
}
