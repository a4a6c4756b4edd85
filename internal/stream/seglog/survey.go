package seglog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"naru/internal/event"
	"naru/internal/stream"
	"naru/internal/vfs"
)

// Survey is what the log in a folder holds, as a start would find it. It is
// read without a lock and changes nothing: naru may be running on it.
type Survey struct {
	Incarnation event.Incarnation
	Streams     []stream.Stat // by name
	Readers     map[string]stream.Progress
	Segments    int   // that were read
	Bytes       int64 // of frames that were read
	// Damage is everything that is wrong with the log, each with its file and
	// place. What stands behind it in the same segment was not read.
	Damage []error
}

// Logged is a record batch as the log has it.
type Logged struct {
	event.Batch
	Count       int32
	RefusedFrom string // see stream.Write
}

// SurveyOptions of Walk; the zero value reads everything.
type SurveyOptions struct {
	// Skip leaves out a sealed segment by the offsets that it holds.
	Skip func([]SegmentStream) bool
	// Progress is told how many bytes of how many have been read.
	Progress func(done, all int64)
}

// Peek looks at the end of the log: its last segment knows all streams and
// readers; only where the offsets of a stream begin may be older than true.
// Damage in that segment is an error.
func Peek(fsys vfs.FS, dir string) (*Survey, error) {
	var s *surveyor
	var err error
	for try := 0; try < surveyTries; try++ { // the last segment may have gone meanwhile
		s = &surveyor{fs: fsys, dir: dir, fn: func(*Logged) error { return nil }, starts: map[uint32]int64{}}
		if err = s.list(); err != nil {
			return nil, err
		}
		if err = s.segment(len(s.segments)-1, nil); err == nil || !s.gone(s.segments[len(s.segments)-1]) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return s.report()
}

const surveyTries = 3

// Walk reads the whole log, oldest events first, checks every frame and calls
// fn for each record batch; its bytes are valid until fn returns. Segments that
// retention drops meanwhile are as good as dropped before. Damage does not end
// it: it is in the survey. fn's error ends it and is returned as it is.
func Walk(ctx context.Context, fsys vfs.FS, dir string, o SurveyOptions, fn func(*Logged) error) (*Survey, error) {
	s := &surveyor{fs: fsys, dir: dir, fn: fn, options: o, ctx: ctx}
	if err := s.list(); err != nil {
		return nil, err
	}
	for _, g := range s.segments {
		s.all += g.size
	}
	last := len(s.segments) - 1
	if err := (&Log{fs: fsys, dir: dir}).checkLast(s.mark, s.segments); err != nil {
		s.damage = append(s.damage, err)
	}
	// The last one first: it tells which of the others retention has left.
	final := &surveyor{fs: fsys, dir: dir, fn: func(*Logged) error { return nil }, segments: s.segments, starts: map[uint32]int64{}, mark: s.mark}
	if err := final.segment(last, nil); err != nil && final.state == nil {
		return nil, err
	}
	for len(s.segments) > 1 && s.segments[0].number < final.state.oldest {
		s.segments = s.segments[1:]
	}
	if g := s.segments[0]; g.number > max(final.state.oldest, 1) {
		s.missing(final.state.oldest, g.number)
	}
	for i, g := range s.segments {
		if i > 0 && g.number != s.segments[i-1].number+1 {
			s.missing(s.segments[i-1].number+1, g.number)
			s.state = nil
		}
		before := s.state
		s.state = nil
		err := s.segment(i, before)
		var user userError
		switch {
		case errors.As(err, &user):
			return nil, user.error
		case err != nil && ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil && s.gone(g):
			s.state = nil // retention was faster
		case err != nil:
			s.damage = append(s.damage, err)
			if i < last {
				s.state = nil // the next checkpoint goes on
			}
		}
		s.read += g.size
		s.tell(0)
	}
	if s.state == nil {
		s.state = final.state
	}
	return s.report()
}

// surveyor walks over segments.
type surveyor struct {
	fs       vfs.FS
	dir      string
	segments []*segment
	mark     *lastMark // what the log holds at least; nil: nobody knows
	fn       func(*Logged) error
	options  SurveyOptions
	ctx      context.Context

	state     *state           // at the end of what was read
	starts    map[uint32]int64 // of the dictionary's ids: where the oldest segment begins
	damage    []error
	count     int
	bytes     int64
	read, all int64
}

// userError is one of the caller's own.
type userError struct{ error }

func (s *surveyor) list() error {
	l := &Log{fs: s.fs, dir: s.dir}
	l.pool.init(l)
	// The mark before the segments: what it says is then older than what they are.
	mark, err := readLast(s.fs, s.dir)
	if isCorrupt(err) {
		s.damage = append(s.damage, err)
	} else if err != nil {
		return fmt.Errorf("list log: %w", err)
	}
	s.mark = mark
	found, err := l.list()
	if err != nil {
		return fmt.Errorf("list log: %w", err)
	}
	if len(found.segments) == 0 {
		return fmt.Errorf("list log: %w: no segment in %s", fs.ErrNotExist, s.dir)
	}
	s.segments = found.segments
	return nil
}

// gone tells whether retention has dropped a segment since it was listed.
func (s *surveyor) gone(g *segment) bool {
	_, err := s.fs.Stat(g.path)
	return errors.Is(err, fs.ErrNotExist)
}

func (s *surveyor) missing(from, to uint64) {
	for n := from; n < to; n++ {
		s.damage = append(s.damage, corrupt(s.dir+"/"+segmentName(n), -1, "the segment is missing"))
	}
}

func (s *surveyor) tell(done int64) {
	if s.options.Progress != nil {
		s.options.Progress(min(s.read+done, s.all), s.all)
	}
}

// segment reads the i-th segment. before is the state at the end of the one
// before it, if that was read whole: its checkpoint has to say the same.
func (s *surveyor) segment(i int, before *state) error {
	g := s.segments[i]
	file, err := s.fs.Open(g.path)
	if err != nil {
		return err
	}
	defer file.Close()
	cp, h, err := readCheckpoint(file, g.path, g.number, g.size)
	if err != nil {
		return err
	}
	if s.starts == nil {
		s.starts = map[uint32]int64{}
		for _, p := range cp.parts {
			s.starts[p.id] = p.end
		}
	}
	if before != nil {
		if err := sameCounts(g, before, cp); err != nil {
			s.damage = append(s.damage, err)
		}
	}
	g.nonce, g.begin = h.nonce, h.end()
	w := &segmentWalk{surveyor: s, segment: g, file: file, tail: newTail(g, cp, h), incarnation: cp.incarnation, promised: h.synced, limit: g.size}
	if i == len(s.segments)-1 && s.mark != nil && s.mark.Segment <= g.number {
		w.promised = max(w.promised, s.mark.Sequence)
	}
	sc := &scanner{file: file, size: g.size}
	if first, err := sc.frame(0); err != nil {
		return err // it was one just now
	} else if first.dirty > 0 {
		return g.corrupt(first.dirty, "a byte between frames is not zero")
	}
	sealed := i < len(s.segments)-1 && s.segments[i+1].number == g.number+1
	if sealed {
		pred, next, err := s.successor(s.segments[i+1], g)
		if err != nil {
			sealed = false // the next segment's own damage
		} else if w.pred = pred; s.options.Skip != nil && s.options.Skip(between(cp, next)) {
			s.state = stateOf(next)
			return nil
		}
	}
	if sealed {
		w.limit = w.pred.length
		if w.pred.length > g.size {
			w.limit = g.size
		}
	}
	err = w.run(i == len(s.segments)-1)
	s.count++
	s.bytes += w.tail.end
	s.state = w.tail.state
	if err == nil && sealed && (w.tail.end != w.pred.length || w.tail.promised != w.pred.last || w.tail.chain != w.pred.checksum) {
		err = g.corrupt(w.tail.end, "it ends with frame %d, checksum %08x; the next segment says %d, %08x", w.tail.promised, w.tail.chain, w.pred.last, w.pred.checksum)
	}
	return err
}

// successor reads what the next segment says of this one.
func (s *surveyor) successor(next, g *segment) (predecessor, *checkpoint, error) {
	file, err := s.fs.Open(next.path)
	if err != nil {
		return predecessor{}, nil, err
	}
	defer file.Close()
	cp, _, err := readCheckpoint(file, next.path, next.number, next.size)
	if err != nil {
		return predecessor{}, nil, err
	}
	if cp.predecessor.number != g.number {
		return predecessor{}, nil, next.corrupt(0, "its predecessor is segment %d", cp.predecessor.number)
	}
	return cp.predecessor, cp, nil
}

// between is what a sealed segment holds, by its checkpoint and the next one.
func between(cp, next *checkpoint) []SegmentStream {
	begin := map[uint32]int64{}
	for _, p := range cp.parts {
		begin[p.id] = p.end
	}
	var out []SegmentStream
	for _, p := range next.parts {
		if p.end > begin[p.id] {
			out = append(out, SegmentStream{Stream: p.stream, Partition: p.partition, First: begin[p.id], End: p.end})
		}
	}
	return out
}

// sameCounts holds a checkpoint against the frames before it.
func sameCounts(g *segment, before *state, cp *checkpoint) error {
	counted := before.checkpoint()
	for i, p := range cp.parts {
		if i >= len(counted.parts) {
			return g.corrupt(0, "the checkpoint knows %s/%d, which no frame before it names", p.stream, p.partition)
		}
		if q := counted.parts[i]; q.stream != p.stream || q.partition != p.partition || q.end != p.end {
			return g.corrupt(0, "the checkpoint says that %s/%d ends at %d, the frames before it that %s/%d ends at %d", p.stream, p.partition, p.end, q.stream, q.partition, q.end)
		}
	}
	if len(counted.parts) != len(cp.parts) {
		return g.corrupt(0, "the checkpoint knows %d stream-partitions, the frames before it %d", len(cp.parts), len(counted.parts))
	}
	for _, st := range counted.streams {
		i := slices.IndexFunc(cp.streams, func(c streamState) bool { return c.name == st.name })
		if i < 0 || cp.streams[i] != st {
			var has streamState
			if i >= 0 {
				has = cp.streams[i]
			}
			return g.corrupt(0, "the checkpoint counts %d events acknowledged for %s and %d refused, the frames before it %d and %d",
				has.acknowledged, st.name, has.refused, st.acknowledged, st.refused)
		}
	}
	return nil
}

// segmentWalk reads the frames of one segment.
type segmentWalk struct {
	*surveyor
	segment     *segment
	file        vfs.File
	tail        *tail
	incarnation event.Incarnation
	pred        predecessor
	promised    uint64 // what the frames seen so far promise
	limit       int64
}

func (w *segmentWalk) run(last bool) error {
	t := w.tail
	sc := &scanner{file: w.file, size: w.limit}
	fresh := false
	for t.end < w.limit {
		if w.ctx != nil && w.ctx.Err() != nil {
			return w.ctx.Err()
		}
		pos := t.end
		f, err := sc.frame(pos)
		if err == nil && f.nonce != w.segment.nonce {
			err = badFrame("nonce %016x", f.nonce)
		}
		if err == nil && w.pred.number == 0 && f.kind == kindFooter && f.sequence == t.sequence() {
			return nil // the next segment is not there, or not yet
		}
		if err == nil {
			err = t.add(f)
		}
		if errors.Is(err, errBadFrame) {
			if !last && w.pred.number == 0 {
				return nil // where it ends stands in a segment that is lost
			}
			if !last {
				return w.segment.corrupt(pos, "%v", err)
			}
			t.upTo = w.promised
			if err = t.explain(sc, err); err == nil {
				return nil
			}
			if fresh {
				return err
			}
			// A server may have written it since it was read.
			sc, fresh = &scanner{file: w.file, size: w.limit}, true
			continue
		}
		if err != nil {
			return err
		}
		if last && t.lostAt > 0 {
			return w.segment.corrupt(t.lostAt, "a repair has been here, and has not come to its end")
		}
		fresh = false
		w.promised = max(w.promised, f.synced)
		t.upTo = f.sequence // a start keeps every whole frame, promised or not
		if err := t.promise(); err != nil {
			return err
		}
		if err := w.emit(f); err != nil {
			return err
		}
		w.tell(t.end)
	}
	return nil
}

// emit hands out the batches of a frame that the state has taken in.
func (w *segmentWalk) emit(f frame) error {
	if f.kind != kindAppend && f.kind != kindCommit {
		return nil
	}
	return f.each(func(sec section, at int64) error {
		p := w.tail.state.part(sec.id)
		if sec.typ != sectionWrite || p == nil {
			return nil
		}
		l := &Logged{Count: int32(sec.count), Batch: event.Batch{
			Stream: p.topic.name, Incarnation: w.incarnation, Partition: p.n, From: sec.base, Next: sec.next(),
			Raw: [][]byte{f.raw[at : at+int64(sec.size)]},
		}}
		if from := w.tail.state.part(sec.refused); from != nil {
			l.RefusedFrom = from.topic.name // `rejected`: sent again from there
		}
		if err := w.fn(l); err != nil {
			return userError{err}
		}
		return nil
	})
}

// report is the survey of the state that was reached.
func (s *surveyor) report() (*Survey, error) {
	for _, p := range s.state.parts {
		p.start = min(max(p.start, s.starts[p.id]), p.end)
	}
	l := &Log{fs: s.fs, dir: s.dir}
	l.mu.state = s.state
	out := &Survey{Incarnation: s.state.incarnation, Segments: s.count, Bytes: s.bytes, Damage: s.damage}
	names, err := l.Streams(context.Background())
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		st, err := l.Stat(context.Background(), name)
		if err != nil {
			return nil, err
		}
		out.Streams = append(out.Streams, st)
	}
	out.Readers, err = l.Readers(context.Background())
	return out, err
}
