package seglog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"sync"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/stream"
	"naru/internal/vfs"
)

// Read implements stream.Log.
func (l *Log) Read(ctx context.Context, name string, from event.Position, limit stream.Bytes) (*event.Batch, error) {
	for {
		b, wait, err := l.read(name, from, int64(limit))
		if errors.Is(err, errGone) {
			continue // retention came between: what is left now decides
		}
		if err == nil && b == nil {
			select {
			case <-ctx.Done():
				err = ctx.Err()
			case <-wait:
				continue
			}
		}
		if err != nil {
			return nil, fmt.Errorf("read %s at %s: %w", name, from, err)
		}
		return b, nil
	}
}

// target is what a read looks for: offsets [offset, end) of one incarnation,
// and what was synced when it began. A later append changes none of it.
type target struct {
	part        *part
	incarnation event.Incarnation
	offset, end int64
	max         int64
	lost        lostRanges

	segments []*segment
	limit    int64  // of the active segment, the last one
	hint     *place // the frame of the offset, or one before it without a frame of the part between
	active   int64  // place in the active segment to look from; -1: the offset is not there
}

// read returns a batch, or a channel that closes when it is worth trying again.
func (l *Log) read(name string, from event.Position, limit int64) (*event.Batch, <-chan struct{}, error) {
	t, wait, err := l.target(name, from)
	if err != nil || t == nil {
		return nil, wait, err
	}
	t.max = limit
	b, err := l.fetch(t)
	if err != nil {
		return nil, nil, err
	}
	b.Stream, b.Partition, b.Incarnation = name, from.Partition, t.incarnation
	return b, nil, nil
}

func (l *Log) target(name string, from event.Position) (*target, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usableLocked(); err != nil {
		return nil, nil, err
	}
	topic := l.mu.topics[name]
	if topic == nil {
		return nil, nil, stream.ErrNoStream
	}
	p := topic.parts[from.Partition]
	if p == nil {
		p = &part{} // never written to: empty in all incarnations
	}
	lives := l.mu.lives(p)
	i, offset := 0, from.Offset
	if from.Incarnation.IsZero() {
		offset = lives[0].start
	} else if i = slices.IndexFunc(lives, func(in life) bool { return in.incarnation == from.Incarnation }); i < 0 {
		return nil, nil, stream.ErrUnknownIncarnation
	}
	if offset > lives[i].end {
		return nil, nil, stream.ErrBeyondEnd
	}
	if offset < lives[i].start {
		return nil, nil, stream.ErrTrimmed
	}
	for {
		// What a repair has lost is passed over.
		if offset = min(l.mu.lost.skip(name, from.Partition, offset), lives[i].end); offset < lives[i].end {
			break
		}
		if i++; i == len(lives) {
			if topic.wake == nil {
				topic.wake = make(chan struct{})
			}
			return nil, topic.wake, nil
		}
		offset = lives[i].start // go on with the next one at its first offset
	}
	t := &target{
		lost: l.mu.lost, part: p, incarnation: lives[i].incarnation, offset: offset, end: lives[i].end,
		segments: l.mu.segments, limit: l.mu.limit, active: -1,
	}
	if at, ok := p.hints.find(offset); ok {
		t.hint = &at
	}
	if x := l.mu.index.parts[p.id]; x != nil && offset >= x.first {
		t.active = x.find(offset)
	}
	return t, nil, nil
}

// fetch reads what the target says from the segment that holds it.
func (l *Log) fetch(t *target) (*event.Batch, error) {
	last := len(t.segments) - 1
	if t.hint != nil {
		if i := slices.Index(t.segments, t.hint.segment); i >= 0 {
			// Nothing found: the part went on in a later segment.
			if b, err := l.collect(t, i, t.hint.pos); b != nil || err != nil {
				return b, err
			}
		}
	}
	i, pos := last, t.active
	if t.active < 0 {
		var err error
		if i, pos, err = l.locate(t); err != nil {
			return nil, err
		}
	}
	b, err := l.collect(t, i, pos)
	if b == nil && err == nil {
		err = t.segments[i].corrupt(pos, "stream %s/%d: offset %d is not in the segment", t.part.topic.name, t.part.n, t.offset)
	}
	return b, err
}

// locate finds the sealed segment that holds the offset, by the footers: the
// first one in which the part reaches beyond it. It looks from the newest on, in
// growing steps: most reads are near the end, and footers in the middle of a long log
// would stay in memory for nothing but the search.
func (l *Log) locate(t *target) (i int, pos int64, err error) {
	reaches := func(i int) bool {
		if err != nil {
			return true
		}
		var foot *footer
		if foot, err = l.footer(t.segments, i); err != nil {
			return true
		}
		in := foot.parts[t.part.id]
		return in != nil && in.end > t.offset
	}
	sealed := len(t.segments) - 1
	low, high := sealed-1, sealed // high reaches; low is the next to be looked at
	for step := 1; low >= 0 && reaches(low); step *= 2 {
		low, high = low-step, low
	}
	low = max(low+1, 0)
	i = low + sort.Search(high-low, func(n int) bool { return reaches(low + n) })
	if err != nil {
		return 0, 0, err
	}
	if i < len(t.segments)-1 {
		foot, err := l.footer(t.segments, i)
		if err != nil {
			return 0, 0, err
		}
		if in := foot.parts[t.part.id]; t.offset >= in.first && len(in.entries) > 0 {
			return i, in.find(t.offset), nil
		}
	}
	return 0, 0, corrupt(l.dir+"/", -1, "stream %s/%d: offset %d is in no segment's index", t.part.topic.name, t.part.n, t.offset)
}

// collect reads from a place in a segment on. It returns nil when the segment
// holds nothing of the target there.
func (l *Log) collect(t *target, i int, pos int64) (*event.Batch, error) {
	s := t.segments[i]
	file, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release()
	limit := t.limit
	if i < len(t.segments)-1 {
		// A sealed segment ends at its own length, not where the active one does.
		if limit, err = l.length(t.segments, i); err != nil {
			return nil, err
		}
	}
	c := collector{target: t, log: l, file: file, seg: s, limit: limit}
	end, err := c.run(pos)
	if err != nil || len(c.raws) == 0 {
		c.free()
		return nil, err
	}
	if c.next < t.end && end < limit {
		l.mu.Lock()
		t.part.hints.add(c.next, place{s, end})
		l.mu.Unlock()
	}
	return c.batch(), nil
}

// chunk is how much a read takes from the file at once, unless a frame is larger.
const chunk = 1 << 20

var chunks = sync.Pool{New: func() any {
	b := make([]byte, chunk)
	return &b
}}

// collector gathers the record batches of a target from the frames of one segment.
type collector struct {
	*target
	log   *Log
	file  vfs.File
	seg   *segment
	limit int64 // nothing behind it is synced

	buf   *[]byte  // the chunk
	own   []byte   // part of one large frame, instead
	raws  [][]byte // in buf or own
	total int64
	next  int64 // offset behind the last one
}

// run scans frames from pos on, until it has enough, the chunk in which it found
// some ends, or the segment does. It returns the place to go on from.
func (c *collector) run(pos int64) (int64, error) {
	c.next = c.offset
	c.buf = chunks.Get().(*[]byte)
	want := min(max(c.max+4<<10, 16<<10), chunk)
	for pos < c.limit {
		n := min(c.limit-pos, want)
		if n > int64(len(*c.buf)) {
			big := make([]byte, n)
			c.buf = &big
		}
		b := (*c.buf)[:n]
		if err := readFull(c.file, b, pos); err != nil {
			return 0, err
		}
		used, need, done, err := c.chunk(b, pos)
		if err != nil {
			return 0, err
		}
		pos += used
		if done || len(c.raws) > 0 {
			return pos, nil
		}
		if used == 0 {
			if need > c.limit-pos || need <= n {
				return 0, c.seg.corrupt(pos, "the segment ends inside a frame")
			}
			want = need
		}
	}
	return pos, nil
}

// chunk takes what is wanted from the frames in b, which stands at pos. used is
// the place of the first frame that it has not dealt with; need is how many
// bytes of that one must be there.
func (c *collector) chunk(b []byte, pos int64) (used, need int64, done bool, err error) {
	for used < int64(len(b)) {
		rest := b[used:]
		if len(rest) < headSize {
			return used, headSize, false, nil
		}
		h, err := readHead(rest)
		if err == nil && h.nonce != c.seg.nonce {
			err = badFrame("nonce %016x", h.nonce)
		}
		if err == nil && h.end() > c.limit-pos-used {
			err = badFrame("length %d", h.length)
		}
		if err != nil {
			return 0, 0, false, c.seg.corrupt(pos+used, "%v", err)
		}
		if h.kind == kindAppend || h.kind == kindCommit {
			table := int64(headSize + h.table)
			if int64(len(rest)) < table {
				return used, table, false, nil
			}
			enough, err := c.frame(rest, h, pos+used)
			if errors.Is(err, errWhole) {
				return used, h.length, len(c.raws) > 0, nil
			}
			if errors.Is(err, errBadFrame) {
				err = c.seg.corrupt(pos+used, "%v", err)
			}
			if err != nil {
				return 0, 0, false, err
			}
			if enough {
				return used, 0, true, nil
			}
		}
		used += h.end()
	}
	return used, 0, false, nil
}

var (
	// errEnough ends the walk over a frame's sections.
	errEnough = errors.New("enough")
	// errWhole: the frame is to be read as a whole, to verify it.
	errWhole = errors.New("whole frame wanted")
)

// frame takes what is wanted from the frame at pos, of which b holds the table
// and what of the batches the chunk happens to have. enough: the next record
// batch in this very frame is for the next read.
func (c *collector) frame(b []byte, h head, pos int64) (enough bool, err error) {
	window, start := b, int64(0) // bytes of the frame, and where in it they begin
	verified, whole := false, int64(len(b)) >= h.length
	err = eachSection(b[headSize:headSize+h.table], h.sections, int64(headSize+h.table), h.length, func(s section, at int64) error {
		if s.typ != sectionWrite || s.id != c.part.id || s.next() <= c.next {
			return nil
		}
		// The table is believed only when the frame's checksum holds: a changed id
		// would make one stream's events another's.
		if !verified {
			if err := c.verify(b, h, pos); err != nil {
				return err
			}
			verified = true
		}
		if s.base > c.next {
			if len(c.raws) > 0 && c.lost.skip(c.part.topic.name, c.part.n, c.next) >= s.base {
				return errEnough // the next read goes on behind what a repair has lost
			}
			return badFrame("stream %s/%d goes on at offset %d, want %d", c.part.topic.name, c.part.n, s.base, c.next)
		}
		size := int64(s.size)
		if len(c.raws) > 0 && c.total+size > c.max || s.base >= c.end {
			return errEnough
		}
		if at+size > start+int64(len(window)) {
			if len(c.raws) > 0 {
				return errEnough
			}
			// A frame larger than the chunk: take from it what is wanted and no
			// more, since the next read comes to the same frame.
			own := make([]byte, max(size, min(c.max, h.length-at)))
			if err := readFull(c.file, own, pos+at); err != nil {
				return err
			}
			window, start = own, at
			c.own = own
		}
		raw := window[at-start : at-start+size : at-start+size]
		look := recordbatch.Check
		if whole {
			look = recordbatch.ReadHead // the frame's checksum covers the rest
		}
		rh, err := look(raw)
		if err != nil || rh.Size != int(s.size) || rh.BaseOffset != s.base || rh.NextOffset() != s.next() {
			return badFrame("record batch at offset %d: %v", s.base, err)
		}
		c.raws = append(c.raws, raw)
		c.next, c.total = s.next(), c.total+size
		return nil
	})
	if errors.Is(err, errEnough) {
		return true, nil
	}
	return false, err
}

// verify checks the frame at pos against its checksum. One that is larger than
// what is read at once is checked without its batches, whose own checksums stand
// for them: each batch is verified when it is taken.
func (c *collector) verify(b []byte, h head, pos int64) error {
	if int64(len(b)) >= h.length {
		if got := checksum(b[bodyOff:h.length]); got != h.crc {
			return badFrame("checksum %08x, stored %08x", got, h.crc)
		}
		return nil
	}
	if h.length <= chunk {
		return errWhole
	}
	crc := checksum(b[bodyOff : headSize+h.table])
	this := verifiedFrame{place{c.seg, pos}, crc, h.crc}
	if last := c.log.verified.Load(); last != nil && *last == this {
		return nil // the next reads come to the same frame
	}
	var none [batchHeadSize]byte
	end := int64(headSize + h.table)
	err := eachSection(b[headSize:end], h.sections, end, h.length, func(s section, at int64) error {
		if s.typ != sectionWrite {
			return nil
		}
		if s.size > maxCombined {
			return badFrame("a batch of %d bytes", s.size)
		}
		first := none[:]
		if at+batchHeadSize <= int64(len(b)) {
			first = b[at : at+batchHeadSize]
		} else if err := readFull(c.file, first, pos+at); err != nil {
			return err
		}
		crc = combine(update(crc, first), batchCRC(first), shiftOf(int(s.size)-batchHeadSize))
		end = at + int64(s.size)
		return nil
	})
	if err == nil && (end != h.length || crc != h.crc) {
		err = badFrame("checksum %08x of %d bytes, stored %08x of %d", crc, end, h.crc, h.length)
	}
	if err == nil {
		c.log.verified.Store(&this)
	}
	return err
}

// verifiedFrame is a large frame whose checksum held, with that of its table.
type verifiedFrame struct {
	at         place
	table, crc uint32
}

// batch hands out what was gathered. A large chunk that is mostly the target's
// goes with it; else the batches are copied and the chunk is used again.
func (c *collector) batch() *event.Batch {
	b := &event.Batch{From: c.offset, Next: c.next, Raw: c.raws}
	switch {
	case c.own != nil:
		c.free()
		return b
	case c.total >= int64(len(*c.buf))/2:
		return b
	}
	own := make([]byte, 0, c.total)
	for i, raw := range c.raws {
		start := len(own)
		own = append(own, raw...)
		b.Raw[i] = own[start:len(own):len(own)]
	}
	c.free()
	return b
}

// free gives the chunk back.
func (c *collector) free() {
	if len(*c.buf) == chunk {
		chunks.Put(c.buf)
	}
	c.buf = nil
}

func readFull(file vfs.File, b []byte, off int64) error {
	n, err := file.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %s at %d: %w", file.Name(), off, err)
}
