package seglog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"naru/internal/vfs"
)

// item is a frame, or a hole where frames were.
type item struct {
	pending
	hole   bool
	end    int64
	first  uint64 // of a hole: sequences first to sequence were in it
	reason string
}

// scan is what a segment file holds, frame by frame, before anybody has asked
// what the frames say.
type scan struct {
	*plan
	file   vfs.File
	sc     *scanner
	cpCRC  uint32
	items  []item
	last   uint64 // sequence at the end
	synced uint64 // what the frames and the mark promise
}

// walk goes over the segment in a file. errNotOurs: it is not this one.
func (a *auditor) walk(p *plan, cp *checkpoint) error {
	file, err := a.log.fs.Open(p.source)
	if err != nil {
		return err
	}
	defer file.Close()
	n := p.seg.number
	next := a.next(n)
	limit := p.size
	if next != nil {
		p.pred, p.chained = next.predecessor, true
		limit = min(limit, p.pred.length)
	}
	s := &scan{plan: p, file: file, sc: &scanner{file: file, size: limit}}
	var bad *Damage
	if cp != nil {
		f, err := s.sc.frame(0)
		if err != nil {
			return err // it was one just now
		}
		p.nonce, p.sequence, p.begin, s.cpCRC, s.synced = f.nonce, f.sequence, f.end(), f.crc, f.synced
		if f.dirty > 0 {
			a.dirty(p, f.dirty)
		}
	} else if bad, err = a.findFrames(s, next); err != nil {
		return err
	}
	if a.mark != nil && a.mark.Segment == n {
		s.synced = max(s.synced, a.mark.Sequence)
	}
	if err := s.read(next != nil, n == a.last); err != nil {
		return err
	}
	if next != nil {
		if err := s.fits(); err != nil && (cp != nil || len(s.items) > 0) {
			return err
		}
	}
	if bad != nil {
		a.report.add(bad)
	}
	return a.fold(s, cp, next, bad)
}

// dirty notes a byte between frames that is not zero.
func (a *auditor) dirty(p *plan, pos int64) {
	p.pads = append(p.pads, pos)
	a.report.add(&Damage{File: p.seg.path, Offset: pos, Bytes: 1, Kind: DamagePadding, Reason: "a byte between frames is not zero"})
}

// findFrames looks for the frames of a segment whose checkpoint is damaged: those
// with a sequence that was its own.
func (a *auditor) findFrames(s *scan, next *checkpoint) (*Damage, error) {
	low, high := uint64(0), uint64(1<<63)
	if p := a.prev(); p != nil {
		low = p.pred.last + 1
	}
	if next != nil {
		high = next.predecessor.last
	}
	found := false
	err := s.sc.find(0, func(h head) bool {
		return h.sequence > low && h.sequence <= high && h.kind != kindCheckpoint && h.kind != kindFooter
	}, func(off int64, h head, valid bool) bool {
		if valid {
			found, s.nonce, s.begin, s.sequence = true, h.nonce, off, h.sequence-1
		}
		return !valid
	})
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, errNotOurs // nothing in it can be told from what stood there before
	}
	_, _, err = a.head(&segment{number: s.seg.number, path: s.source, size: s.size, fs: a.log.fs})
	if err == nil {
		err = errNotOurs
	}
	return &Damage{File: s.seg.path, Offset: 0, Bytes: s.begin, Kind: DamageCheckpoint, Reason: plain(err)}, nil
}

// read goes from the first frame to the end.
func (s *scan) read(sealed, last bool) error {
	pos, seq := s.begin, s.sequence
	for pos < s.sc.size {
		f, err := s.sc.frame(pos)
		if err == nil && f.nonce != s.nonce {
			err = badFrame("nonce %016x", f.nonce)
		}
		if err == nil && f.kind == kindFooter && f.sequence == seq && !sealed {
			s.sealed = true
			break
		}
		if err == nil && (f.kind == kindCheckpoint || f.kind == kindFooter || f.kind != kindLost && f.sequence != seq+1 || f.sequence < seq) {
			err = badFrame("%s with sequence %d behind %d", f.kind, f.sequence, seq)
		}
		if err != nil && !errors.Is(err, errBadFrame) {
			return err
		}
		if err == nil {
			it := item{end: pos + f.end(), pending: pending{
				kind: f.kind, pos: pos, length: f.length, sequence: f.sequence, crc: f.crc,
				table: slices.Clone(f.raw[headSize : headSize+f.table]), sections: f.sections,
			}}
			if f.dirty > 0 {
				it.dirty = pos + f.dirty
			}
			s.items = append(s.items, it)
			s.synced = max(s.synced, f.synced)
			pos, seq = it.end, f.sequence
			continue
		}
		hole := item{hole: true, first: seq + 1, reason: plain(err), pending: pending{pos: pos}}
		ferr := s.sc.search(pos+headSize, s.nonce, func(off int64, h head, valid bool) bool {
			if valid && h.sequence > seq && h.kind != kindCheckpoint && h.kind != kindFooter {
				hole.end, hole.sequence = off, h.sequence-1
			}
			if valid && h.kind == kindFooter && h.sequence >= seq && !sealed {
				hole.end, hole.sequence = off, h.sequence
			}
			return hole.end == 0
		})
		if ferr != nil {
			return ferr
		}
		if hole.end == 0 {
			if sealed {
				hole.end, hole.sequence = s.pred.length, s.pred.last
				s.items = append(s.items, hole)
				pos, seq = hole.end, hole.sequence
			} else if !last {
				// Where it ended nobody knows, so there is room for all that may be missing.
				hole.end, hole.sequence = pos+standInRoom, max(seq+1, s.synced)
				s.items = append(s.items, hole)
				pos, seq = hole.end, hole.sequence
			} else if seq < s.synced {
				// Frames that were on disk are not there, and nothing behind them.
				s.tail = pos
				hole.end, hole.sequence = 0, s.synced
				s.items = append(s.items, hole)
			}
			break
		}
		s.items = append(s.items, hole)
		pos, seq = hole.end, hole.sequence
	}
	s.end, s.last = pos, seq
	return nil
}

// fits holds what was read against what the successor knows.
func (s *scan) fits() error {
	if s.size < s.pred.length && s.end <= s.size { // shortened, perhaps at a border of frames
		if s.end < s.pred.length && (len(s.items) == 0 || !s.items[len(s.items)-1].hole) {
			s.items = append(s.items, item{hole: true, first: s.last + 1, end: s.pred.length, reason: "the file ends here", pending: pending{pos: s.end, sequence: s.pred.last}})
			s.end, s.last = s.pred.length, s.pred.last
		}
	}
	holes := s.cpCRC == 0
	chain := nextChain(0, s.cpCRC)
	for _, it := range s.items {
		holes = holes || it.hole
		chain = nextChain(chain, it.crc)
	}
	switch {
	case s.end != s.pred.length || s.last != s.pred.last:
		return fmt.Errorf("%w: it ends with frame %d at %d, the next segment says %d at %d", errNotOurs, s.last, s.end, s.pred.last, s.pred.length)
	case !holes && chain != s.pred.checksum:
		return fmt.Errorf("%w: the checksum of its frames is %08x, the next segment says %08x", errNotOurs, chain, s.pred.checksum)
	}
	return nil
}

// fold takes the frames into the sum.
func (a *auditor) fold(s *scan, cp, next *checkpoint, bad *Damage) error {
	p, n := s.plan, s.seg.number
	if cp != nil {
		if a.st != nil {
			a.resolve(cp, s)
		}
		a.st = stateOf(cp)
		a.slots, a.since, a.named = nil, map[uint32]int{}, 0
	} else {
		a.makeCheckpoint(s, next, bad)
	}
	p.index, p.inc, a.now = newIndex(), a.st.incarnation, p
	for i := range s.items {
		it := &s.items[i]
		if it.dirty > 0 {
			a.dirty(p, it.dirty)
		}
		if !it.hole {
			err := a.admit(p, it)
			if err == nil {
				continue
			}
			*it = item{hole: true, first: it.sequence, end: it.end, reason: plain(err), pending: pending{pos: it.pos, sequence: it.sequence}}
		}
		a.hole(s, it)
	}
	a.report.Bytes += s.end
	p.synced, p.promised = s.last, min(s.synced, s.last)
	for _, q := range a.st.parts {
		p.parts = append(p.parts, &part{id: q.id, topic: q.topic, n: q.n, end: q.end})
	}
	if next == nil {
		p.pred = predecessor{number: n, length: s.end, last: s.last, maxTime: p.index.maxTime}
		if len(p.slots) == 0 && p.made == nil {
			p.pred.checksum = s.chain()
		}
	} else {
		p.want = p.pred.checksum
		for i := len(s.items) - 1; i >= 0 && !s.items[i].hole; i-- {
			p.want = prevChain(p.want, s.items[i].crc)
		}
	}
	a.plans, a.now = append(a.plans, p), nil
	if n == a.last {
		return a.ending(s)
	}
	return a.checkIndex(s)
}

func (s *scan) chain() uint32 {
	chain := nextChain(0, s.cpCRC)
	for _, it := range s.items {
		if !it.hole { // one at the end of the log
			chain = nextChain(chain, it.crc)
		}
	}
	return chain
}

// hole makes a slot of a hole.
func (a *auditor) hole(s *scan, it *item) {
	p := s.plan
	end := it.end
	if end == 0 {
		end = it.pos // the end of the log: nothing is put in its place
	}
	d := a.report.add(&Damage{File: p.seg.path, Offset: it.pos, Bytes: end - it.pos, Kind: DamageFrames,
		Reason: fmt.Sprintf("frame %d is not there: %s", it.first, it.reason)})
	if p.size < end {
		d.Kind = DamageShortened
	}
	sl := &slot{plan: p, damage: d, pos: it.pos, end: end, first: it.first, last: it.sequence, room: end - it.pos - headSize, counts: map[uint32]counts{}}
	sl.promise = p.seg.number == a.last && sl.room == 0 && sl.first == sl.last
	if it.end > 0 {
		p.slots = append(p.slots, sl)
	}
	if !sl.promise {
		a.slots, a.all = append(a.slots, sl), append(a.all, sl)
	}
}

// admit takes a frame in. errBadFrame: it does not go with what is known.
func (a *auditor) admit(p *plan, it *item) error {
	if a.since == nil {
		a.since = map[uint32]int{}
	}
	if !it.kind.data() && it.kind != kindLost {
		return nil
	}
	named, ends := uint32(0), map[uint32]int64{}
	err := eachSection(it.table, it.sections, int64(headSize+len(it.table)), it.length, func(sec section, _ int64) error {
		switch sec.typ {
		case sectionName:
			if err := a.know(sec.id - 1 - named); err != nil {
				return err
			}
			named++
		case sectionWrite, sectionGap:
			first, next := sec.base, sec.next()
			if sec.typ == sectionGap {
				first, next = sec.gap.first, sec.gap.end
			}
			have, more := ends[sec.id]
			ends[sec.id] = next
			if more && first != have {
				return badFrame("a write at offset %d of dictionary id %d, want %d", first, sec.id, have)
			}
			if more || int(sec.id) > len(a.st.parts) && int(sec.id) <= len(a.st.parts)+int(named) {
				return nil // or named in this frame
			}
			if err := a.know(sec.id); err != nil {
				return err
			}
			if part := a.st.part(sec.id); first > part.end {
				return a.gap(part, first)
			} else if first < part.end {
				return badFrame("a write at offset %d of %s/%d, which was at %d", first, part.topic.name, part.n, part.end)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := a.st.apply(it.table, it.sections, it.length, place{p.seg, it.pos}, p.index); err != nil {
		return err
	}
	return eachSection(it.table, it.sections, int64(headSize+len(it.table)), it.length, func(sec section, _ int64) error {
		switch part := a.st.part(sec.id); sec.typ {
		case sectionWrite:
			a.since[sec.id] = len(a.slots)
			a.there(p, it, part, sec)
		case sectionGap:
			a.since[sec.id] = len(a.slots)
			if g := sec.gap; a.recorded.skip(part.topic.name, part.n, g.first) < g.end {
				d := a.report.add(&Damage{File: p.seg.path, Offset: it.pos, Bytes: it.length, Kind: DamageLosses, Reason: "a repair has lost events that are not on record"})
				d.Lost = append(d.Lost, Loss{Stream: part.topic.name, Partition: part.n, Incarnation: p.inc, First: g.first, End: g.end, Events: g.events,
					Segment: segmentName(p.seg.number), Pos: it.pos, Bytes: it.length})
			}
		}
		return nil
	})
}

// checkIndex holds the footer against the frames.
func (a *auditor) checkIndex(s *scan) error {
	p := s.plan
	p.reindex = true
	if p.rewrite() {
		return nil // it is made anew anyway
	}
	g := &segment{number: p.seg.number, path: p.source, size: p.size, nonce: p.nonce}
	g.setLength(p.pred.length)
	foot, err := g.readFooter(s.file)
	if err != nil && !errors.Is(err, errBadFrame) {
		return err
	}
	if err == nil {
		same := foot.maxTime == p.index.maxTime
		for id, in := range p.index.parts {
			got := foot.parts[id]
			same = same && got != nil && got.first == in.first && got.end == in.end && got.bytes == in.bytes && slices.Equal(got.entries, in.entries)
		}
		if p.reindex = !same; !same {
			err = badFrame("it is not that of the frames")
		}
	}
	if err != nil {
		a.report.add(&Damage{File: p.seg.path, Offset: p.pred.length, Kind: DamageIndex, Reason: plain(err)})
	}
	return nil
}

// ending looks at what stands behind the last frame of the log.
func (a *auditor) ending(s *scan) error {
	p := s.plan
	for _, it := range s.items {
		if it.kind == kindLost && !it.hole {
			a.cut = true
			a.report.add(&Damage{File: p.seg.path, Offset: it.pos, Bytes: it.length, Kind: DamageUnfinished, Reason: "a repair has been here, and has not come to its end"})
			break
		}
	}
	if a.mark != nil && a.mark.Segment == p.seg.number && p.size < a.mark.Size {
		a.report.add(&Damage{File: p.seg.path, Offset: p.size, Bytes: a.mark.Size - p.size, Kind: DamageShortened, Reason: fmt.Sprintf("the segment had %d bytes", a.mark.Size)})
	}
	t := &tail{segment: &segment{nonce: p.nonce, path: p.seg.path}, promised: s.last, upTo: s.last, end: s.end}
	// Without the mark nothing tells whether what is not there was acknowledged.
	gone := item{hole: true, first: s.last + 1, pending: pending{pos: s.end, sequence: s.last + 1}}
	if s.sealed {
		if a.blind {
			gone.reason = "the segment is closed, none follows, and " + lastName + " is damaged"
			a.hole(s, &gone)
		}
		return nil
	}
	sc := &scanner{file: s.file, size: p.size}
	if err := t.explain(sc, errBadFrame); err != nil {
		return err
	}
	if p.tail > 0 { // damage: keep whatever stands there
		b, err := sc.need(s.end, p.size-s.end)
		if err != nil {
			return err
		}
		p.tail = s.end + int64(len(bytes.TrimRight(b, "\x00")))
	} else if t.tornEnd > 0 {
		p.tail = t.tornEnd
		if a.blind {
			gone.reason = "these bytes are none, and " + lastName + ", which tells whether one was acknowledged, is damaged"
			a.hole(s, &gone)
			return nil
		}
		a.report.Notes = append(a.report.Notes, fmt.Sprintf("%s at byte %d: a write that was never acknowledged; the next start keeps its %d bytes aside", p.seg.path, s.end, t.tornEnd-s.end))
	}
	return nil
}

// encodeCheckpoint makes a checkpoint frame, filled up to a size.
func encodeCheckpoint(cp *checkpoint, h head, size int64) []byte {
	h.kind = kindCheckpoint
	b := cp.append(make([]byte, headSize, 4<<10))
	if n := size - int64(len(b)); n > 0 {
		b = append(b, make([]byte, n)...)
	}
	h.table = len(b) - headSize
	b, _ = sealFrame(b, h)
	return b
}

// balanced gives a frame the checksum that leads the chain to want.
func balanced(b []byte, off int, chain, want uint32) []byte {
	balance(b, off, linkOf(chain, want))
	return b
}

func crcOf(b []byte) uint32 { return binary.LittleEndian.Uint32(b[crcOff:]) }
