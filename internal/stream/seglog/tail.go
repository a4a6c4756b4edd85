package seglog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"naru/internal/vfs"
)

// tail is what the scan of a log's last segment finds.
type tail struct {
	segment    *segment
	checkpoint *checkpoint
	state      *state // up to the last promised frame, as are index and chain
	index      *index
	chain      uint32
	frames     int

	upTo        uint64 // what the frames seen so far promise
	promised    uint64 // sequence of the last promised frame
	promisedEnd int64
	pending     []pending // valid frames beyond the promise
	footer      bool      // behind the last frame
	end         int64     // of the last valid frame
	tornEnd     int64     // end of what looks like a torn write; 0: there is none
	lostAt      int64     // place of the first lost frame; 0: there is none
}

type pending struct {
	kind     kind
	pos      int64
	length   int64
	sequence uint64
	crc      uint32
	table    []byte
	sections int
	dirty    int64 // place in the file of a byte of its padding that is not zero; 0: there is none
}

// clean tells whether the writer may go on behind the last promised frame:
// nothing stands there but one promise frame or the footer.
func (t *tail) clean() bool {
	return t.tornEnd == 0 && (len(t.pending) == 0 || len(t.pending) == 1 && t.pending[0].kind == kindPromise)
}

// settle writes the promise or footer that ends a clean segment again, as a
// promise: after a kill or a failed fsync it may be in the page cache only, and
// the frames before are not to lose what vouches for them.
func (t *tail) settle(file vfs.File) error {
	if len(t.pending) == 0 && !t.footer {
		return nil // the checkpoint vouches
	}
	b, crc := sealFrame(make([]byte, headSize), head{kind: kindPromise, nonce: t.segment.nonce, sequence: t.promised + 1, synced: t.promised})
	if _, err := file.WriteAt(b, t.promisedEnd); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	t.promised++
	t.promisedEnd += int64(len(b))
	t.chain = nextChain(t.chain, crc)
	t.pending = nil
	return nil
}

// scanTailUpTo reads the last segment of a log up to its end; all frames up to a
// sequence are known to have been on disk. With damage behind the checkpoint it
// returns both the error and what stands before.
func scanTailUpTo(file vfs.File, s *segment, synced uint64) (*tail, error) {
	cp, h, err := readCheckpoint(file, s.path, s.number, s.size)
	if err != nil {
		return nil, err
	}
	s.nonce, s.begin = h.nonce, h.end()
	t := newTail(s, cp, h)
	t.upTo = max(h.synced, synced)
	sc := &scanner{file: file, size: s.size}
	first, err := sc.frame(0)
	if err != nil {
		return nil, err // it was one just now
	}
	if first.dirty > 0 {
		return t, s.corrupt(first.dirty, "a byte between frames is not zero")
	}
	for {
		f, err := sc.frame(t.end)
		if err == nil && f.nonce != s.nonce {
			err = badFrame("nonce %016x", f.nonce)
		}
		if errors.Is(err, errBadFrame) {
			return t, t.explain(sc, err)
		}
		if err != nil {
			return nil, err
		}
		if f.kind == kindFooter && f.sequence == t.sequence() {
			// Sealed, but its successor was not made: all before it is synced.
			t.upTo, t.footer = max(t.upTo, f.synced), true
			return t, t.promise()
		}
		if err := t.add(f); err != nil {
			return t, t.explain(sc, err)
		}
		if t.lostAt > 0 {
			return t, s.corrupt(t.lostAt, "a repair has been here, and has not come to its end")
		}
		t.upTo = max(t.upTo, f.synced)
		if err := t.promise(); err != nil {
			return t, err
		}
	}
}

func newTail(s *segment, cp *checkpoint, h head) *tail {
	return &tail{
		segment: s, checkpoint: cp, state: stateOf(cp), index: newIndex(), chain: nextChain(0, h.crc),
		promised: h.sequence, promisedEnd: h.end(), end: h.end(),
	}
}

// oldest is the oldest segment that retention has left. It counts frames that
// nothing promises: the files went as soon as the frame that says so was synced,
// a power cut in the 50 ms before the next promise finds them gone.
func (t *tail) oldest() uint64 {
	oldest := t.state.oldest
	for _, p := range t.pending {
		if p.kind != kindCommit {
			continue
		}
		// Malformed sections are found when the frame is applied.
		_ = eachSection(p.table, p.sections, 0, p.length, func(s section, _ int64) error {
			oldest = max(oldest, s.oldest)
			return nil
		})
	}
	return oldest
}

// sequence is that of the last valid frame.
func (t *tail) sequence() uint64 {
	if n := len(t.pending); n > 0 {
		return t.pending[n-1].sequence
	}
	return t.promised
}

func (t *tail) add(f frame) error {
	// A lost frame stands for all frames up to its sequence, if for any.
	follows := f.sequence == t.sequence()+1 || f.kind == kindLost && f.sequence >= t.sequence()
	if !follows || f.kind == kindCheckpoint || f.kind == kindFooter {
		return badFrame("%s with sequence %d behind %d", f.kind, f.sequence, t.sequence())
	}
	if f.kind == kindLost && t.lostAt == 0 {
		t.lostAt = t.end
	}
	dirty := int64(0)
	if f.dirty > 0 {
		dirty = t.end + f.dirty
	}
	t.pending = append(t.pending, pending{
		dirty: dirty, kind: f.kind, pos: t.end, length: f.length, sequence: f.sequence, crc: f.crc,
		table: slices.Clone(f.raw[headSize : headSize+f.table]), sections: f.sections,
	})
	t.end += f.end()
	t.frames++
	return nil
}

// promise takes in the pending frames that are promised.
func (t *tail) promise() error {
	n := 0
	for _, p := range t.pending {
		if p.sequence > t.upTo {
			break
		}
		if p.dirty > 0 {
			return t.segment.corrupt(p.dirty, "a byte between frames is not zero")
		}
		if p.kind != kindPromise {
			if err := t.state.apply(p.table, p.sections, p.length, place{t.segment, p.pos}, t.index); err != nil {
				return t.segment.corrupt(p.pos, "%v", err)
			}
		}
		t.chain = nextChain(t.chain, p.crc)
		t.promised, t.promisedEnd = p.sequence, p.pos+align(p.length)
		n++
	}
	t.pending = t.pending[n:]
	return nil
}

// explain decides what the first bad frame is: the end, a torn write, or, when
// a later frame says that it had been synced, damage.
func (t *tail) explain(sc *scanner, bad error) error {
	lost := t.sequence() + 1
	if lost <= t.upTo {
		return t.segment.corrupt(t.end, "frame %d was synced, and is not there: %v", lost, bad)
	}
	var promisedBy uint64
	var err error
	if t.tornEnd, err = t.remains(sc); err != nil {
		return err
	}
	err = sc.search(t.end, t.segment.nonce, func(off int64, h head, valid bool) bool {
		t.tornEnd = max(t.tornEnd, min(off+max(h.end(), headSize), sc.size))
		if valid && h.synced >= lost {
			promisedBy = h.sequence
			return false
		}
		return true
	})
	if err != nil {
		return err
	}
	if promisedBy > 0 {
		return t.segment.corrupt(t.end, "frame %d was synced, frame %d says so, and is not there: %v", lost, promisedBy, bad)
	}
	return nil
}

// remains tells how far a damaged frame behind the last valid one may reach; 0
// when what stands there does not look like one. Of the three things that make a
// frame one of this segment, in this place, two are enough: stale bytes have at
// most the magic, and one that was flipped in its head must not pass for stale.
func (t *tail) remains(sc *scanner) (int64, error) {
	b, err := sc.need(t.end, headSize)
	if err != nil || len(b) < headSize {
		return 0, err
	}
	alike := 0
	if string(b[:len(magic)]) == magic {
		alike++
	}
	if binary.LittleEndian.Uint64(b[16:]) == t.segment.nonce {
		alike++
	}
	if n := binary.LittleEndian.Uint64(b[24:]); n == t.sequence() || n == t.sequence()+1 {
		alike++
	}
	if alike < 2 {
		return 0, nil
	}
	length := int64(binary.LittleEndian.Uint32(b[4:]))
	table := int64(binary.LittleEndian.Uint32(b[44:]))
	if length >= headSize && length <= sc.size-t.end && table <= length-headSize {
		if b, err = sc.need(t.end, headSize+table); err != nil || int64(len(b)) < headSize+table {
			return 0, err
		}
		size := headSize + table
		err := eachSection(b[headSize:size], int(binary.LittleEndian.Uint32(b[40:])), size, length, func(s section, _ int64) error {
			size += int64(s.size)
			return nil
		})
		if err == nil && size == length {
			return t.end + align(length), nil
		}
	}
	// The length itself may be wrong: no frame is larger than this.
	end := t.end + min(align(sc.size/4), sc.size-t.end)
	if b, err = sc.need(t.end, end-t.end); err != nil {
		return 0, err
	}
	b = bytes.TrimRight(b[:min(int64(len(b)), end-t.end)], "\x00")
	return min(t.end+max(align(int64(len(b))), headSize), sc.size), nil
}

// scanSegment reads a sealed segment from end to end.
func scanSegment(file vfs.File, s *segment, cp *checkpoint, h head, pred predecessor) (*tail, error) {
	t := newTail(s, cp, h)
	sc := &scanner{file: file, size: pred.length}
	for t.end < pred.length {
		f, err := sc.frame(t.end)
		if err == nil && f.nonce != s.nonce {
			err = badFrame("nonce %016x", f.nonce)
		}
		if err == nil {
			err = t.add(f)
		}
		if errors.Is(err, errBadFrame) {
			return nil, s.corrupt(t.end, "%v", err)
		}
		if err != nil {
			return nil, err
		}
		t.upTo = f.sequence
		if err := t.promise(); err != nil {
			return nil, err
		}
	}
	if t.promised != pred.last || t.chain != pred.checksum || t.end != pred.length {
		return nil, s.corrupt(t.end, "it ends with frame %d, checksum %08x; the next segment says %d, %08x", t.promised, t.chain, pred.last, pred.checksum)
	}
	return t, nil
}
