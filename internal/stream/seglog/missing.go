package seglog

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// know makes sure that the dictionary has an id: a name that stood in a hole is
// known to later checkpoints.
func (a *auditor) know(id uint32) error {
	for uint32(len(a.st.parts)) < id {
		i := len(a.st.parts)
		if a.newest == nil || i >= len(a.newest.parts) {
			return badFrame("dictionary id %d has no name", i+1)
		}
		p := a.newest.parts[i]
		at := a.roomiest(a.named, nameSectionSize(p.stream))
		if at < 0 {
			return badFrame("dictionary id %d has no name yet", i+1)
		}
		sl := a.slots[at]
		sl.names = append(sl.names, section{typ: sectionName, id: p.id, partition: p.partition, name: []byte(p.stream)})
		sl.room -= int64(nameSectionSize(p.stream))
		a.named, a.since[p.id] = at, at
		a.st.addPart(p.id, p.partition, p.stream)
		a.amend(sl, p.id)
	}
	return nil
}

// gap says that offsets up to a place were in a hole.
func (a *auditor) gap(p *part, to int64) error {
	// With the gap goes the count of its events: each was acknowledged. Where a
	// checkpoint follows, it corrects that.
	at, counted := a.roomiest(a.since[p.id], gapSectionSize+countsSectionSize), true
	if at < 0 {
		at, counted = a.roomiest(a.since[p.id], gapSectionSize), false
	}
	if at < 0 {
		return badFrame("%s/%d goes on at offset %d, want %d", p.topic.name, p.n, to, p.end)
	}
	sl := a.slots[at]
	sl.gaps = append(sl.gaps, slotGap{id: p.id, gap: gap{first: p.end, end: to, events: to - p.end}})
	sl.room -= gapSectionSize
	p.events += to - p.end // our own writers leave no gaps; a checkpoint will tell
	if counted {
		sl.count(p.id, counts{acknowledged: to - p.end})
		p.topic.acknowledged += to - p.end
	}
	p.end = to
	a.amend(sl, p.id)
	return nil
}

// count says what was counted in the hole for the stream of a dictionary id.
func (sl *slot) count(id uint32, c counts) {
	had, ok := sl.counts[id]
	if !ok {
		sl.room -= countsSectionSize
	}
	sl.counts[id] = counts{had.acknowledged + c.acknowledged, had.refused + c.refused}
}

// roomiest is the slot with the most room in the last segment that has some, from
// a slot on; -1: none has enough. The last one, because the checkpoints made for
// segments in between then need not know.
func (a *auditor) roomiest(from, size int) int {
	best := -1
	for i := len(a.slots) - 1; i >= from; i-- {
		if best >= 0 && a.slots[i].plan != a.slots[best].plan {
			break
		}
		if a.slots[i].room >= int64(size) && (best < 0 || a.slots[i].room > a.slots[best].room) {
			best = i
		}
	}
	return best
}

// amend tells the checkpoints made since a slot what has been put into it.
func (a *auditor) amend(sl *slot, id uint32) {
	for _, p := range slices.Backward(append(slices.Clone(a.plans), a.now)) {
		if p == nil {
			continue
		}
		if p == sl.plan {
			return
		}
		if p.made == nil {
			continue
		}
		q := a.st.part(id)
		if p.made.readers != nil { // else it has no room for counts
			now := streamState{name: q.topic.name, acknowledged: q.topic.acknowledged, refused: q.topic.refused}
			i, known := slices.BinarySearchFunc(p.made.streams, now.name, func(s streamState, name string) int { return strings.Compare(s.name, name) })
			if known {
				p.made.streams[i] = now
			} else {
				p.made.streams = slices.Insert(p.made.streams, i, now)
			}
		}
		part := partState{id: id, stream: q.topic.name, partition: q.n, start: q.start, end: q.end, bytes: q.bytes, events: q.events}
		if int(id) > len(p.made.parts) {
			p.made.parts = append(p.made.parts, part)
		} else {
			p.made.parts[id-1] = part
		}
	}
}

// resolve compares the sum with a checkpoint that reads well: what differs was in
// the holes before it.
func (a *auditor) resolve(cp *checkpoint, s *scan) {
	wrong := func(format string, args ...any) {
		d := a.report.add(&Damage{File: s.seg.path, Offset: 0, Kind: DamageCheckpoint, Reason: "it does not go with the frames before it: " + fmt.Sprintf(format, args...)})
		if a.stuck == nil {
			a.stuck = d.corrupt()
		}
	}
	if len(cp.parts) < len(a.st.parts) {
		wrong("it knows %d stream-partitions of %d", len(cp.parts), len(a.st.parts))
		return
	}
	if len(cp.parts) > 0 {
		if err := a.know(uint32(len(cp.parts))); err != nil {
			wrong("%s", plain(err))
			return
		}
	}
	for _, want := range cp.parts {
		p := a.st.part(want.id)
		if want.end < p.end || want.stream != p.topic.name || want.partition != p.n {
			wrong("%s/%d ends at %d, it says %s/%d at %d", p.topic.name, p.n, p.end, want.stream, want.partition, want.end)
			continue
		}
		if want.end > p.end {
			if err := a.gap(p, want.end); err != nil {
				wrong("%s", plain(err))
				continue
			}
		}
		a.even(p.id, want.events-p.events, want.bytes-p.bytes)
	}
	for _, want := range cp.streams {
		t := a.st.topic(want.name)
		c := counts{want.acknowledged - t.acknowledged, want.refused - t.refused}
		if c == (counts{}) || len(a.slots) == 0 {
			continue
		}
		id := uint32(0)
		for _, p := range t.parts {
			if id == 0 || p.id < id {
				id = p.id
			}
		}
		if at := a.roomiest(a.named, countsSectionSize); at >= 0 && id > 0 {
			a.slots[at].count(id, c)
		}
	}
}

// even puts the events and bytes that a checkpoint counts, and the frames before
// it do not have, into the last gap of a stream-partition.
func (a *auditor) even(id uint32, events, bytes int64) {
	for _, sl := range slices.Backward(a.slots) {
		for i := range sl.gaps {
			if g := &sl.gaps[i]; g.id == id {
				g.events, g.bytes = max(g.events+events, 0), max(bytes, 0)
				return
			}
		}
	}
}

// makeCheckpoint makes the checkpoint of a segment again from what came before.
func (a *auditor) makeCheckpoint(s *scan, next *checkpoint, bad *Damage) {
	p, n := s.plan, s.seg.number
	known := a.st != nil
	if !known {
		a.st = a.begins(n)
		a.cutDictionary(s)
		a.since = map[uint32]int{}
	}
	a.enter(s)
	p.exact = known && len(a.slots) == 0
	p.made = a.checkpointOf(n, next)
	need := p.made.room()
	if need > s.begin {
		p.made.readers, p.made.streams, p.exact = nil, nil, false
		need = p.made.room()
	}
	for need > s.begin && len(s.items) > 0 {
		it := &s.items[0]
		s.begin, s.sequence, s.items, p.exact = max(it.end, it.pos), it.sequence, s.items[1:], false
	}
	from := s.sequence // of the last frame before those that are left
	if prev := a.prev(); prev != nil {
		from = prev.pred.last + 1
	} else if from > 1 && n > 1 {
		from--
	}
	if from < s.sequence && s.begin-need >= headSize {
		hole := item{hole: true, first: from + 1, end: s.begin, reason: "damaged like the checkpoint", pending: pending{pos: need, sequence: s.sequence}}
		s.items = slices.Insert(s.items, 0, hole)
		s.begin, s.sequence, p.exact = need, from, false
	} else if !known {
		a.takeStarts(s)
	}
	p.begin = s.begin
	if bad != nil {
		bad.Bytes = s.begin
	}
}

// room is what a checkpoint frame takes.
func (c *checkpoint) room() int64 { return align(int64(headSize + len(c.append(nil)))) }

// checkpointOf is the checkpoint of segment n, made from the sum.
func (a *auditor) checkpointOf(n uint64, next *checkpoint) *checkpoint {
	cp := a.st.checkpoint()
	cp.segment, cp.created, cp.oldest = n, time.Unix(0, 0).UTC(), min(a.st.oldest, n)
	cp.readers = maps.Clone(cp.readers) // the sum goes on
	if next != nil {
		cp.created = next.created
	}
	if n > 1 {
		cp.predecessor.number = n - 1
	}
	if p := a.prev(); p != nil {
		cp.predecessor = p.pred
		if !p.chained && (p.made != nil || len(p.slots) > 0) {
			cp.predecessor.checksum = math.MaxUint32 // known when that one is mended; no larger than this
		}
	}
	return cp
}

// cutDictionary leaves out the names that come later.
func (a *auditor) cutDictionary(s *scan) {
	for _, it := range s.items {
		_ = eachSection(it.table, it.sections, 0, it.length, func(sec section, _ int64) error {
			if sec.typ == sectionName && int(sec.id) <= len(a.st.parts) {
				for _, p := range a.st.parts[sec.id-1:] {
					delete(p.topic.parts, p.n)
				}
				a.st.parts = a.st.parts[:sec.id-1]
			}
			return nil
		})
	}
}

// takeStarts lets stream-partitions begin where their first write in the segment
// does: nothing tells that there was one before.
func (a *auditor) takeStarts(s *scan) {
	seen := map[uint32]bool{}
	for _, it := range s.items {
		if it.hole {
			return
		}
		_ = eachSection(it.table, it.sections, 0, it.length, func(sec section, _ int64) error {
			if p := a.st.part(sec.id); sec.typ == sectionWrite && p != nil && !seen[sec.id] {
				seen[sec.id] = true
				p.events += sec.base - p.end
				p.end = sec.base
			}
			return nil
		})
	}
}

// enter goes on to the incarnation in which the segment's first event was given
// its offset.
func (a *auditor) enter(s *scan) {
	for _, it := range s.items {
		found := false
		_ = eachSection(it.table, it.sections, 0, it.length, func(sec section, _ int64) error {
			if sec.typ != sectionWrite || found {
				return nil
			}
			if inc, ok := a.lifeOf(sec.id, sec.base); ok {
				found = true
				if inc != a.st.incarnation {
					a.st.incarnation = inc
					for i, c := range a.newest.closed {
						if c.incarnation == inc {
							a.st.closed = a.newest.closed[:i]
							return nil
						}
					}
					a.st.closed = a.newest.closed
				}
			}
			return nil
		})
		if found {
			return
		}
	}
}

// standInRoom is what a stand-in has for sections when nobody knows its length.
const standInRoom = 64 << 10

// standIn plans a segment in the place of one of which nothing is left, so that
// the others remain a chain.
func (a *auditor) standIn(n uint64, d *Damage) error {
	if a.since == nil {
		a.since = map[uint32]int{}
	}
	if a.st == nil {
		a.st = a.begins(n)
	}
	p := &plan{seg: &segment{number: n, path: a.log.path(segmentName(n)), fs: a.log.fs}, index: newIndex()}
	sl := &slot{plan: p, damage: d, counts: map[uint32]counts{}}
	if n == a.last {
		// Nothing behind it: a new segment comes in its place.
		a.slots, a.all = append(a.slots, sl), append(a.all, sl)
		a.cut = true
		return nil
	}
	next := a.next(n)
	p.made = a.checkpointOf(n, next)
	p.begin = p.made.room()
	if prev := a.prev(); prev != nil {
		p.sequence = prev.pred.last + 1
	} else if next != nil {
		p.sequence = next.predecessor.last - 1
	}
	p.pred = predecessor{number: n, length: p.begin + standInRoom, last: p.sequence + 1}
	if next != nil {
		p.pred, p.chained, p.want = next.predecessor, true, next.predecessor.checksum
		if p.begin+headSize > p.pred.length {
			p.made.readers, p.made.streams = nil, nil
			p.begin = p.made.room()
		}
	}
	if p.begin+headSize > p.pred.length {
		return fmt.Errorf("%s: no room for a stand-in of %d bytes", p.seg.path, p.pred.length)
	}
	p.end, p.inc = p.pred.length, a.st.incarnation
	sl.pos, sl.end, sl.first, sl.last = p.begin, p.end, p.sequence+1, p.pred.last
	sl.room = sl.end - sl.pos - headSize
	p.slots = []*slot{sl}
	for _, q := range a.st.parts {
		p.parts = append(p.parts, &part{id: q.id, topic: q.topic, n: q.n, end: q.end})
	}
	a.slots, a.all = append(a.slots, sl), append(a.all, sl)
	a.plans = append(a.plans, p)
	return nil
}

// there notes events that are on record as lost and can be read: readers pass
// over them for nothing. Somebody has brought a segment back.
func (a *auditor) there(p *plan, it *item, part *part, sec section) {
	k := partKey{part.topic.name, part.n}
	for _, x := range a.recorded[k] {
		first, end := max(x.first, sec.base), min(x.end, sec.next())
		if first >= end {
			continue
		}
		if a.found == nil {
			a.found = lostRanges{}
		}
		a.found[k] = append(a.found[k], lostRange{first, end})
		a.report.add(&Damage{File: a.log.path(lossesName), Offset: -1, Kind: DamageLosses,
			Reason: fmt.Sprintf("offset %d of %s/%d is said to be lost and can be read, at byte %d of %s; tables that have passed it take it by `naru table reload`",
				first, part.topic.name, part.n, it.pos, p.seg.path)})
	}
}

// settle says of each damage what is lost by it.
func (a *auditor) settle() {
	for _, sl := range a.all {
		for _, g := range sl.gaps {
			p := a.st.part(g.id)
			inc, ok := a.lifeOf(g.id, g.first)
			if !ok {
				inc = a.st.incarnation
			}
			sl.damage.Lost = append(sl.damage.Lost, Loss{Stream: p.topic.name, Partition: p.n, Incarnation: inc, First: g.first, End: g.end, Events: g.events,
				Segment: segmentName(sl.plan.seg.number), Pos: sl.pos, Bytes: sl.end - sl.pos})
		}
	}
	for _, sl := range a.slots { // no checkpoint behind them says that this was all
		a.cut = true
		sl.damage.Lost = append(sl.damage.Lost, Loss{Incarnation: a.st.incarnation, Events: -1,
			Segment: segmentName(sl.plan.seg.number), Pos: sl.damage.Offset, Bytes: max(sl.damage.Bytes, 0)})
	}
}
