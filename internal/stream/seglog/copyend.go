package seglog

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"naru/internal/vfs"
)

// close ends the copy's incarnation behind its last segment and begins a new one
// in a segment of its own. That has no room but for its footer: the first append
// begins the next one, so a backup takes no more than it holds.
func (c *copier) close(t *tail, first *checkpoint) error {
	l := &Log{fs: c.fs, dir: c.to, cfg: DefaultConfig(), clock: time.Now}
	l.pool.init(l)
	st := t.state
	st.oldest = first.segment
	st.setStart(first)
	c.out.Closed, c.out.Begun = st.incarnation, newIncarnation()
	ends := map[uint32]int64{}
	for _, p := range st.parts {
		ends[p.id] = p.end
		c.out.Streams = append(c.out.Streams, CopiedStream{Stream: p.topic.name, Partition: p.n, Start: p.start, End: p.end})
	}
	slices.SortFunc(c.out.Streams, func(a, b CopiedStream) int {
		if d := strings.Compare(a.Stream, b.Stream); d != 0 {
			return d
		}
		return int(a.Partition) - int(b.Partition)
	})
	st.closed = append(slices.Clone(st.closed), closedIncarnation{incarnation: st.incarnation, ends: ends})
	st.incarnation = c.out.Begun
	st.readers = maps.Clone(c.marks.state.readers)
	cp := st.checkpoint()
	cp.segment, cp.created, cp.predecessor = t.segment.number+1, l.clock(), t.asPredecessor()
	size := align(int64(2*headSize+len(cp.append(nil)))) + newIndex().footerRoom(len(cp.parts)+2)
	free := &freeFile{path: l.pool.newPath(), size: size}
	file, err := c.fs.Create(free.path)
	if err == nil {
		err = errors.Join(file.Truncate(size), file.Close())
	}
	if err != nil {
		return err
	}
	made, err := l.makeSegment(free, cp, t.promised+1, nil, nil)
	if err != nil {
		return err
	}
	// With a promise in it the segment is not an empty one, which takes anything.
	b, _ := sealFrame(make([]byte, headSize), head{kind: kindPromise, nonce: made.seg.nonce, sequence: made.sequence + 1, synced: made.sequence})
	if _, err = made.file.WriteAt(b, made.pos); err == nil {
		err = made.file.Sync()
	}
	c.out.Segments++
	c.out.Files += c.out.Segments + 1
	c.out.Bytes += size + lastSize
	if err = errors.Join(err, made.file.Close()); err != nil {
		return err
	}
	return writeLast(c.fs, c.to, lastMark{Segment: cp.segment, Size: size, Sequence: made.sequence, Incarnation: c.out.Begun})
}

// asPredecessor is what the next segment says of this one, cut at its last
// promised frame.
func (t *tail) asPredecessor() predecessor {
	return predecessor{number: t.segment.number, length: t.promisedEnd, last: t.promised, checksum: t.chain, maxTime: t.index.maxTime}
}

// keepsakes copies what recoveries and repairs have put aside and on record.
func (c *copier) keepsakes() error {
	names, err := c.fs.List(c.from)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, tornPrefix) && name != lossesName {
			continue
		}
		n, err := vfs.Copy(c.fs, c.from+"/"+name, c.to+"/"+name, c.pace)
		if errors.Is(err, fs.ErrNotExist) {
			continue // somebody has tidied up
		}
		if err != nil {
			return err
		}
		c.out.Files++
		c.out.Bytes += n
	}
	return c.fs.SyncDir(c.to)
}

// frameWriter gathers frames into larger writes.
type frameWriter struct {
	*copier
	file vfs.File
	buf  []byte
	pos  int64 // of buf
}

func (w *frameWriter) add(f frame) error {
	w.buf = append(w.buf, f.raw...)
	w.buf = append(w.buf, padding[:f.end()-f.length]...)
	if len(w.buf) < scanChunk {
		return nil
	}
	return w.flush()
}

func (w *frameWriter) flush() error {
	if len(w.buf) == 0 {
		return w.ctx.Err()
	}
	if err := errors.Join(w.ctx.Err(), w.pace(len(w.buf))); err != nil {
		return err
	}
	if _, err := w.file.WriteAt(w.buf, w.pos); err != nil {
		return err
	}
	w.pos += int64(len(w.buf))
	w.out.Bytes += int64(len(w.buf))
	w.buf = w.buf[:0]
	return nil
}

// seal cuts the segment behind its last promised frame and writes its footer.
func (w *frameWriter) seal(t *tail) error {
	if err := w.flush(); err != nil {
		return err
	}
	if err := w.file.Truncate(t.promisedEnd); err != nil {
		return err
	}
	w.out.Bytes += t.promisedEnd - w.pos
	pred := t.asPredecessor()
	return writeFooter(w.file, t.segment.nonce, pred, appendFooter(nil, t.segment.number, t.index, t.state.parts))
}
