package seglog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"naru/internal/event"
	"naru/internal/vfs"
)

// ErrOvertaken: retention dropped a segment that a copy needs before it was
// copied. With new Marks it may succeed.
var ErrOvertaken = errors.New("retention dropped log segments before they were copied")

// promiseWait is how long a copy waits for the promise of what it saw. None comes
// when nobody writes, as after a kill.
const promiseWait, promisePoll = 5 * time.Second, 10 * time.Millisecond

// Copied says what Copy has made.
type Copied struct {
	Segments int   `json:"segments"`
	Bytes    int64 `json:"bytes"`
	Files    int   `json:"files"`
	// Closed ends in the copy where it ends; Begun goes on from there.
	Closed  event.Incarnation `json:"closed"`
	Begun   event.Incarnation `json:"begun"`
	Streams []CopiedStream    `json:"streams"`
}

// CopiedStream is what a copy holds of a stream-partition: offsets in
// [Start, End), over all incarnations.
type CopiedStream struct {
	Stream    string `json:"stream"`
	Partition int32  `json:"partition"`
	Start     int64  `json:"start"`
	End       int64  `json:"end"`
}

// Copy makes a log in the folder to, which must be empty, from the one in from,
// which naru may be writing to. It holds all that was acknowledged before the
// call, and of what comes during it nothing or a part. Frames are verified one
// by one, and only what is synced is taken, so the copy of a log that is damaged
// fails with the place.
//
// In the copy all readers stand at m, as it was before the tables were copied:
// so they read again what those may lack. Its incarnation is closed at the end
// and a new one begun, since both logs may go on. pace is called for every so
// many bytes before they are written; it may wait, and its error ends the copy.
// The files are durable, the folder's entries too.
//
// ErrOvertaken: what is between m and the copy's first segment is gone.
func Copy(ctx context.Context, fsys vfs.FS, from, to string, m *Marks, pace func(n int) error) (Copied, error) {
	out, err := (&copier{ctx: ctx, fs: fsys, from: from, to: to, marks: m, pace: pace}).copy()
	if err != nil {
		return out, fmt.Errorf("copy log: %w", err)
	}
	return out, nil
}

// copier copies a log.
type copier struct {
	ctx      context.Context // of the one call of Copy
	fs       vfs.FS
	from, to string
	marks    *Marks
	pace     func(n int) error
	goal     uint64 // the frame up to which everything must be in the copy
	out      Copied
}

func (c *copier) copy() (Copied, error) {
	_, t, err := look(c.fs, c.from)
	if err != nil {
		return c.out, err
	}
	c.goal = t.promised
	for _, p := range t.pending {
		if p.kind != kindPromise { // a promise holds nothing, and nothing may come to promise it
			c.goal = p.sequence
		}
	}
	for range lookTries {
		var v *viewer
		if v, _, err = look(c.fs, c.from); err != nil {
			return c.out, err
		}
		if err = c.segments(v); !errors.Is(err, errGone) {
			if err == nil {
				err = c.keepsakes()
			}
			return c.out, err
		}
		if err := c.clear(); err != nil {
			return c.out, err
		}
	}
	return c.out, fmt.Errorf("%w: %w", ErrOvertaken, err)
}

// clear removes what an attempt has made.
func (c *copier) clear() error {
	c.out = Copied{}
	names, err := c.fs.List(c.to)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.fs.Remove(c.to + "/" + name); err != nil {
			return err
		}
	}
	return nil
}

// segments copies from the oldest segment to the one that holds the goal, and
// closes the log there. errGone: retention was faster.
func (c *copier) segments(v *viewer) error {
	first, _, err := v.checkpoint(v.segments[0])
	if errors.Is(err, fs.ErrNotExist) {
		return errGone
	}
	if err != nil {
		return err
	}
	if err := c.marks.reach(first, nil); err != nil {
		return err
	}
	for n := first.segment; ; n++ {
		t, err := c.segment(n)
		if err != nil {
			return err
		}
		c.out.Segments++
		if t.promised >= c.goal {
			if err := c.marks.reach(first, t.state); err != nil {
				return err
			}
			return c.close(t, first)
		}
	}
}

// segment copies one segment: whole if it is sealed, else up to a promised frame
// at or behind the goal.
func (c *copier) segment(n uint64) (*tail, error) {
	s := &segment{number: n, path: c.from + "/" + segmentName(n), fs: c.fs}
	file, err := c.fs.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errGone
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	t, err := c.frames(s, file)
	if err == nil {
		return t, nil
	}
	// A segment loses its name before its file is written again. So with the name
	// still there, what was read is what the segment holds.
	if _, serr := c.fs.Stat(s.path); errors.Is(serr, fs.ErrNotExist) {
		return nil, errGone
	}
	return nil, err
}

func (c *copier) frames(s *segment, file vfs.File) (*tail, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	s.size = info.Size()
	cp, h, err := readCheckpoint(file, s.path, s.number, s.size)
	if err != nil {
		return nil, err
	}
	s.nonce, s.begin = h.nonce, h.end()
	out, err := c.fs.Create(c.to + "/" + segmentName(s.number))
	if err != nil {
		return nil, err
	}
	w := &frameWriter{copier: c, file: out}
	t, err := c.follow(s, file, newTail(s, cp, h), w)
	if err == nil {
		err = w.seal(t)
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return t, err
}

// follow copies the frames of a segment that may be growing.
func (c *copier) follow(s *segment, file vfs.File, t *tail, w *frameWriter) (*tail, error) {
	sc := &scanner{file: file, size: s.size}
	f, err := sc.frame(0)
	if err == nil && f.nonce != s.nonce {
		err = badFrame("nonce %016x", f.nonce)
	}
	if err == nil {
		err = w.add(f)
	}
	if err != nil {
		return nil, s.corrupt(0, "%v", err)
	}
	t.upTo = f.synced
	pred, sealed, err := c.sealing(s)
	if err != nil {
		return nil, err
	}
	sc.buf = sc.buf[:0] // read before we knew
	for waited := time.Duration(0); ; {
		switch {
		case sealed && t.end >= pred.length:
			if t.promised != pred.last || t.chain != pred.checksum || t.end != pred.length {
				return nil, s.corrupt(t.end, "it ends with frame %d, checksum %08x; the next segment says %d, %08x", t.promised, t.chain, pred.last, pred.checksum)
			}
			return t, nil
		case !sealed && t.promised >= c.goal:
			return t, nil
		}
		f, err := sc.frame(t.end)
		if err == nil && f.nonce != s.nonce {
			err = badFrame("nonce %016x", f.nonce)
		}
		if err == nil && f.kind == kindFooter && f.sequence == t.sequence() {
			t.upTo = max(t.upTo, f.synced)
			if err := t.promise(); err != nil {
				return nil, err
			}
			err = badFrame("the footer")
		} else if err == nil {
			err = c.take(t, f, sealed, w)
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, errBadFrame) {
			return nil, err
		}
		if sealed || t.sequence() < t.upTo {
			return nil, s.corrupt(t.end, "%v", err)
		}
		if t.promised >= c.goal {
			continue
		}
		// The end of what is written so far.
		if pred, sealed, err = c.sealing(s); err != nil {
			return nil, err
		}
		sc.buf = sc.buf[:0]
		if sealed {
			// A segment is sealed when its last frame is synced, whether a promise of it
			// was read or not.
			t.upTo = pred.last
			if err := t.promise(); err != nil {
				return nil, err
			}
			continue
		}
		if waited >= promiseWait {
			// Nobody is writing. What stands here is whole, and is synced in the copy
			// before anybody reads it: as a start would do it.
			t.upTo = t.sequence()
			if err := t.promise(); err != nil {
				return nil, err
			}
			if t.promised < c.goal {
				return nil, s.corrupt(t.end, "frame %d was there, and is not any more", c.goal)
			}
			continue
		}
		select {
		case <-time.After(promisePoll):
			waited += promisePoll
		case <-c.ctx.Done():
			return nil, c.ctx.Err()
		}
	}
}

// take adds a frame to the tail and to the copy.
func (c *copier) take(t *tail, f frame, sealed bool, w *frameWriter) error {
	if err := t.add(f); err != nil {
		return err
	}
	if err := w.add(f); err != nil {
		return err
	}
	t.upTo = max(t.upTo, f.synced)
	if sealed {
		t.upTo = f.sequence
	}
	return t.promise()
}

// sealing reads what the next segment says of this one, if there is a next one.
func (c *copier) sealing(s *segment) (p predecessor, sealed bool, err error) {
	next := &segment{number: s.number + 1, path: c.from + "/" + segmentName(s.number+1), fs: c.fs}
	info, err := c.fs.Stat(next.path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, false, nil
	}
	if err != nil {
		return p, false, err
	}
	next.size = info.Size()
	cp, _, err := (&viewer{fs: c.fs}).checkpoint(next)
	if err != nil {
		if _, serr := c.fs.Stat(next.path); errors.Is(serr, fs.ErrNotExist) {
			return p, false, errGone
		}
		return p, false, err
	}
	if cp.predecessor.number != s.number {
		return p, false, next.corrupt(0, "its predecessor is segment %d", cp.predecessor.number)
	}
	return cp.predecessor, true, nil
}
