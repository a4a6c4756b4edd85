package seglog

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"naru/internal/event"
	"naru/internal/vfs"
)

// recover brings the log into the state of the last synced frame. Until it
// returns nobody reads, and a crash anywhere in it leads to the same recovery.
func (l *Log) recover() error {
	start := time.Now()
	found, err := l.list()
	if err != nil {
		return err
	}
	// After a kill in the middle of a roll the last segment's name may be known to
	// the running system only.
	if err := l.fs.SyncDir(l.dir); err != nil {
		return err
	}
	mark, err := readLast(l.fs, l.dir)
	if err != nil {
		return err
	}
	if err := l.checkLast(mark, found.segments); err != nil {
		return err
	}
	lost, err := Losses(l.fs, l.dir)
	if err != nil {
		return err
	}
	for _, name := range found.unfinished {
		if err := l.fs.Remove(l.path(name)); err != nil {
			return err
		}
	}
	report := Recovery{New: len(found.segments) == 0}
	if report.New {
		err = l.create()
	} else {
		err = l.resume(found, mark, &report)
	}
	if err != nil {
		return err
	}
	l.mu.lost = rangesOf(lost)
	if err := l.writeMark(); err != nil {
		return err
	}
	if err := l.pool.trim(); err != nil {
		return err
	}
	l.stats.opened(found.torn, report)
	report.Segment, report.Took = l.w.seg.number, time.Since(start)
	if fn := l.cfg.Listener.Recovered; fn != nil {
		fn(report)
	}
	l.log.Info("log open", "dir", l.dir, "new", report.New, "incarnation", l.mu.incarnation, "segment", report.Segment,
		"frames", report.Frames, "bytes", report.Bytes, "copied", report.Copied, "torn_bytes", report.Torn, "took", report.Took)
	if report.Torn > 0 {
		l.log.Warn("the log ended in a write that was never acknowledged: its bytes are kept", "file", report.TornFile, "bytes", report.Torn)
	}
	return nil
}

// folder is what the log's folder holds.
type folder struct {
	segments   []*segment // by number
	torn       int
	unfinished []string // files that were to become free ones
}

func (l *Log) list() (folder, error) {
	var found folder
	names, err := l.fs.List(l.dir)
	if err != nil {
		return found, err
	}
	for _, name := range names {
		n, isSegment := segmentNumber(name)
		_, isFree := freeNumber(name)
		switch {
		case isSegment || isFree:
			info, err := l.fs.Stat(l.path(name))
			if err != nil {
				return found, err
			}
			if isFree {
				l.pool.found(name, info.Size())
				continue
			}
			found.segments = append(found.segments, &segment{number: n, path: l.path(name), size: info.Size(), fs: l.fs})
		case strings.HasPrefix(name, newPrefix) && strings.HasSuffix(name, freeExt):
			found.unfinished = append(found.unfinished, name)
		case strings.HasPrefix(name, tornPrefix):
			found.torn++
		}
	}
	slices.SortFunc(found.segments, func(a, b *segment) int { return int(int64(a.number) - int64(b.number)) })
	return found, nil
}

// create makes a new log.
func (l *Log) create() error {
	st := newState()
	st.incarnation, st.oldest = newIncarnation(), 1
	free, err := l.pool.take(int64(l.cfg.Segment), true)
	if err != nil {
		return fmt.Errorf("make first segment: %w", err)
	}
	cp := st.checkpoint()
	cp.segment, cp.created = 1, l.clock()
	made, err := l.makeSegment(free, cp, 1, nil, nil)
	if err != nil {
		return fmt.Errorf("make first segment: %w", err)
	}
	l.begin(st, []*segment{made.seg}, newIndex(), made)
	return nil
}

func newIncarnation() (inc event.Incarnation) {
	_, _ = rand.Read(inc[:]) // never fails: it ends the process instead
	inc[6], inc[8] = inc[6]&0x0f|0x40, inc[8]&0x3f|0x80
	return inc
}

// begin sets up the log and its writer at the end of a state.
func (l *Log) begin(st *state, segments []*segment, idx *index, m *madeSegment) {
	st.sequence = m.sequence
	l.mu.state, l.mu.segments, l.mu.index, l.mu.limit = st, segments, idx, m.pos
	l.w = &writer{log: l, next: map[partKey]*partNext{}, ids: uint32(len(st.parts)), incarnation: st.incarnation}
	l.w.use(m)
	for _, s := range segments {
		s.knows = st.knows // which incarnations there are changes at a start only
	}
	for _, p := range st.parts {
		l.w.next[partKey{p.topic.name, p.n}] = &partNext{id: p.id, next: p.end}
	}
}

// resume recovers an existing log from its last segment.
func (l *Log) resume(found folder, mark *lastMark, report *Recovery) error {
	last := found.segments[len(found.segments)-1]
	file, err := l.fs.OpenReadWrite(last.path)
	if err != nil {
		return err
	}
	keep := false
	defer func() {
		if !keep {
			_ = file.Close() // nothing was written through it, or the copy is synced
		}
	}()
	synced := uint64(0)
	if mark != nil {
		synced = mark.Sequence
	}
	t, err := scanTailUpTo(file, last, synced)
	if err != nil {
		return err
	}
	st := t.state
	if mark != nil && !st.knows(mark.Incarnation) {
		return corrupt(l.path(lastName), -1, "it names incarnation %s, which the log has never had", mark.Incarnation)
	}
	segments, dropped, err := l.kept(found.segments, t.oldest())
	if err != nil {
		return err
	}
	if len(segments) > 1 {
		if err := l.checkPredecessor(segments[len(segments)-2], t.checkpoint.predecessor); err != nil {
			return err
		}
	}
	report.Frames, report.Bytes = t.frames, t.end
	if t.clean() {
		keep = true
		promised := t.promised // the promise itself holds nothing
		if err := t.settle(file); err != nil {
			return err
		}
		l.begin(st, segments, t.index, &madeSegment{seg: last, file: file, pos: t.promisedEnd, chain: t.chain, sequence: t.promised})
		l.w.vouched = promised
	} else if err := l.moveOn(file, t, segments, report); err != nil {
		return err
	}
	for _, s := range dropped {
		// Retention had decided so, and its frame is synced; the last process
		// did not get to it.
		if _, err := l.pool.give(s.path, s.size, nil); err != nil {
			return err
		}
	}
	return l.loadStart()
}

// kept splits the segments into those that retention has left and those it has
// not; all of the former must be there.
func (l *Log) kept(all []*segment, oldest uint64) (kept, dropped []*segment, err error) {
	i := 0
	for i < len(all)-1 && all[i].number < oldest {
		i++
	}
	kept, dropped = all[i:], all[:i]
	want := oldest
	for _, s := range kept {
		if s.number != want {
			return nil, nil, corrupt(l.path(segmentName(want)), -1, "the segment is missing, %s is there", segmentName(s.number))
		}
		want++
	}
	return kept, dropped, nil
}

// checkPredecessor verifies that the segment before the last one is as long as
// it was and ends as it did. Its index is made again when a crash came between
// the new segment's name and the old one's footer.
func (l *Log) checkPredecessor(s *segment, pred predecessor) error {
	file, err := l.fs.OpenReadWrite(s.path)
	if err != nil {
		return err
	}
	defer file.Close()
	if pred.number != s.number {
		return s.corrupt(-1, "the next segment's predecessor is %d", pred.number)
	}
	if s.size < pred.length {
		return s.corrupt(s.size, "the segment is shortened: it had %d bytes", pred.length)
	}
	cp, h, err := readCheckpoint(file, s.path, s.number, s.size)
	if err != nil {
		return err
	}
	s.nonce, s.begin = h.nonce, h.end()
	s.setLength(pred.length)
	if _, err := s.readFooter(file); err == nil || !errors.Is(err, errBadFrame) {
		return err
	}
	t, err := scanSegment(file, s, cp, h, pred)
	if err != nil {
		return err
	}
	return writeFooter(file, s.nonce, pred, appendFooter(nil, s.number, t.index, t.state.parts))
}

// moveOn goes on in a new segment: the last one ends in frames that nothing
// promises, which are copied, or in a torn write, which is kept aside.
func (l *Log) moveOn(file vfs.File, t *tail, segments []*segment, report *Recovery) error {
	if t.tornEnd > 0 {
		name, err := l.keepTorn(file, t.segment, t.end, t.tornEnd)
		if err != nil {
			return fmt.Errorf("keep torn tail: %w", err)
		}
		report.Torn, report.TornFile = t.tornEnd-t.end, name
	}
	var frames []int64
	need := int64(0)
	for _, p := range t.pending {
		if p.dirty > 0 {
			// The frame is whole, and its copy begins anew: nothing is lost.
			l.log.Warn("a byte between frames was not zero: the disk may be failing", "error", t.segment.corrupt(p.dirty, "not zero"))
		}
		if p.kind == kindAppend || p.kind == kindCommit {
			frames = append(frames, p.pos)
			need += align(p.length)
		}
	}
	report.Copied = len(frames)
	pred := predecessor{number: t.segment.number, length: t.promisedEnd, last: t.promised, checksum: t.chain, maxTime: t.index.maxTime}
	foot := appendFooter(nil, t.segment.number, t.index, t.state.parts)
	cp := t.state.checkpoint()
	cp.segment, cp.created, cp.predecessor = t.segment.number+1, l.clock(), pred
	size := max(int64(l.cfg.Segment), align(int64(2*headSize+len(cp.append(nil))))+need+2*newIndex().footerRoom(len(cp.parts)+len(frames)))
	free, err := l.pool.take(size, true)
	if err != nil {
		return fmt.Errorf("make segment %d: %w", cp.segment, err)
	}
	sc := &scanner{file: file, size: t.segment.size}
	made, err := l.makeSegment(free, cp, t.promised+1, sc, frames)
	if err != nil {
		return fmt.Errorf("make segment %d: %w", cp.segment, err)
	}
	// From here on a start finds the new segment; the old one's end is settled.
	if err := writeFooter(file, t.segment.nonce, pred, foot); err != nil {
		return err
	}
	t.segment.setLength(t.promisedEnd)
	idx := newIndex()
	at := place{segment: made.seg, pos: made.seg.begin}
	for _, p := range t.pending {
		if p.kind != kindAppend && p.kind != kindCommit {
			continue
		}
		if err := t.state.apply(p.table, p.sections, p.length, at, idx); err != nil {
			return t.segment.corrupt(p.pos, "%v", err)
		}
		at.pos += align(p.length)
	}
	l.begin(t.state, append(slices.Clone(segments), made.seg), idx, made)
	return nil
}

// keepTorn copies bytes of a segment that look like a torn write, or are
// damaged, to a file of their own.
func (l *Log) keepTorn(file vfs.File, s *segment, from, to int64) (string, error) {
	name, err := l.tornPath(s, from)
	if err != nil {
		return "", err
	}
	out, err := l.fs.Create(name)
	if err != nil {
		return "", err
	}
	defer out.Close()
	buf := make([]byte, scanChunk)
	for at := from; at < to; {
		n := min(int64(len(buf)), to-at)
		if _, err := file.ReadAt(buf[:n], at); err != nil {
			return "", err
		}
		if _, err := out.WriteAt(buf[:n], at-from); err != nil {
			return "", err
		}
		at += n
	}
	if err := out.Sync(); err != nil {
		return "", err
	}
	return name, l.fs.SyncDir(l.dir)
}

// tornPath is a name that nothing has: what is kept is never overwritten.
func (l *Log) tornPath(s *segment, from int64) (string, error) {
	name := fmt.Sprintf("%s%s-%d-%d", tornPrefix, l.clock().UTC().Format("20060102T150405.000Z"), s.number, from)
	for n := 1; ; n++ {
		path := l.path(name + tornExt)
		if n > 1 {
			path = l.path(fmt.Sprintf("%s-%d%s", name, n, tornExt))
		}
		if _, err := l.fs.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return path, nil
		} else if err != nil {
			return "", err
		}
	}
}

// loadStart sets what the oldest segment says about where streams begin.
func (l *Log) loadStart() error {
	first := l.mu.segments[0]
	file, err := first.acquire()
	if err != nil {
		return err
	}
	defer first.release()
	cp, h, err := readCheckpoint(file, first.path, first.number, first.size)
	if err != nil {
		return err
	}
	first.nonce, first.begin = h.nonce, h.end()
	l.mu.setStart(cp)
	return nil
}

// setStart makes the segment with that checkpoint the oldest.
func (s *state) setStart(cp *checkpoint) {
	for _, p := range cp.parts {
		if q := s.part(p.id); q != nil {
			q.start, q.startBytes, q.startEvents = p.end, p.bytes, p.events
		}
	}
}
