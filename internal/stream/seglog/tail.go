package seglog

import (
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
}

type pending struct {
	kind     kind
	pos      int64
	length   int64
	sequence uint64
	crc      uint32
	table    []byte
	sections int
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

// scanTail reads the last segment of a log up to its end. With damage behind the
// checkpoint it returns both the error and what stands before.
func scanTail(file vfs.File, s *segment) (*tail, error) {
	cp, h, err := readCheckpoint(file, s.path, s.number, s.size)
	if err != nil {
		return nil, err
	}
	s.nonce, s.begin = h.nonce, h.end()
	t := newTail(s, cp, h)
	t.upTo = h.synced
	sc := &scanner{file: file, size: s.size}
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
		t.upTo = max(t.upTo, f.synced)
		if err := t.promise(); err != nil {
			return nil, err
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
func (t *tail) sequence() uint64 { return t.promised + uint64(len(t.pending)) }

func (t *tail) add(f frame) error {
	if f.sequence != t.sequence()+1 || f.kind == kindCheckpoint || f.kind == kindFooter {
		return badFrame("%s with sequence %d behind %d", f.kind, f.sequence, t.sequence())
	}
	t.pending = append(t.pending, pending{
		kind: f.kind, pos: t.end, length: f.length, sequence: f.sequence, crc: f.crc,
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
	err := sc.search(t.end, t.segment.nonce, func(off int64, h head, valid bool) bool {
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
