package seglog

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"naru/internal/event"
	"naru/internal/fault"
)

// auditor goes over a log from its oldest segment to its end, sums up the frames
// as a start would, and plans what a repair has to do to each segment. What is
// missing shows where the sum and the next good checkpoint differ.
type auditor struct {
	log    *Log
	report Report
	mark   *lastMark
	blind  bool // there is a mark, and it cannot be read

	files    map[uint64]*segment // by the number of their names
	heads    map[uint64]*checkpoint
	kept     map[uint64][]string // files put aside that begin like the segment of that number
	wrong    []*segment          // files that are not what their names say
	oldest   uint64
	last     uint64
	newest   *checkpoint // the last one that reads well: it knows all names and lives but the newest
	recorded lostRanges
	found    lostRanges // what is on record as lost, and can be read

	st    *state
	all   []*slot        // all holes
	slots []*slot        // holes since the last good checkpoint: what is missing now was in one of them
	since map[uint32]int // by dictionary id: slots before this one lie before a write that was read
	named int            // slots before this one are before a name
	stuck error          // what no repair can deal with
	plans []*plan
	now   *plan // of the segment that is being gone over
	cut   bool  // the end of the log is not known: offsets could be given twice
}

// slot is a hole in a segment: bytes that are no frames, in whose place a lost
// frame is to come.
type slot struct {
	plan        *plan
	damage      *Damage
	pos, end    int64
	first, last uint64 // sequences of the frames that were there
	room        int64  // left for sections
	names       []section
	gaps        []slotGap
	counts      map[uint32]counts // by the id of a partition of the stream
	kept        string            // file with the bytes
	promise     bool              // all that was there is a promise, which is made again
}

type slotGap struct {
	id uint32
	gap
}

// plan is what a repair does to one segment.
type plan struct {
	seg      *segment
	source   string // file to read; empty: there is none
	size     int64  // of that file
	nonce    uint64
	sequence uint64
	begin    int64       // first frame or hole behind the checkpoint
	made     *checkpoint // to be written in the place of a damaged one
	exact    bool        // made says the same as the damaged one did
	slots    []*slot
	pads     []int64 // bytes to be zeroed
	index    *index
	reindex  bool // the footer is to be written anew
	pred     predecessor
	chained  bool // pred.checksum is known to the successor: keep it
	want     uint32
	synced   uint64
	promised uint64 // by a frame
	inc      event.Incarnation
	parts    []*part // at its end
	end      int64
	sealed   bool
	tail     int64 // of the last segment: what stands behind its last frame, up to here, is kept
}

// rewrite tells whether the segment has to be written anew.
func (p *plan) rewrite() bool { return p.made != nil || len(p.slots) > 0 || p.source != p.seg.path }

func audit(l *Log) (*auditor, error) {
	a := &auditor{log: l, files: map[uint64]*segment{}, heads: map[uint64]*checkpoint{}, kept: map[uint64][]string{}}
	if err := a.survey(); err != nil {
		return nil, err
	}
	if a.last == 0 {
		return a, nil // no log
	}
	for n := a.oldest; n <= a.last; n++ {
		if err := a.segment(n); err != nil {
			return nil, err
		}
	}
	a.settle()
	if a.mark != nil && !a.st.knows(a.mark.Incarnation) && !a.cut {
		a.report.add(&Damage{File: l.path(lastName), Offset: -1, Kind: DamageLast,
			Reason: fmt.Sprintf("it names incarnation %s, which the log has never had", a.mark.Incarnation)})
		a.mark = nil
	}
	return a, nil
}

// survey looks at what files there are and at their checkpoints.
func (a *auditor) survey() error {
	l := a.log
	var err error
	if a.mark, err = readLast(l.fs, l.dir); isCorrupt(err) {
		a.blind = true
		a.report.add(&Damage{File: l.path(lastName), Offset: 0, Kind: DamageLast, Reason: plain(err)})
	} else if err != nil {
		return err
	}
	if a.report.Losses, err = Losses(l.fs, l.dir); isCorrupt(err) {
		a.report.add(&Damage{File: l.path(lossesName), Offset: 0, Kind: DamageLosses, Reason: plain(err)})
	} else if err != nil {
		return err
	}
	a.recorded = rangesOf(a.report.Losses)
	found, err := l.list()
	if err != nil {
		return err
	}
	a.report.Segments = len(found.segments)
	for _, s := range found.segments {
		a.files[s.number] = s
		if a.heads[s.number], _, err = a.head(s); err != nil && !isCorrupt(err) {
			return err
		}
	}
	if err := a.keepsakes(); err != nil {
		return err
	}
	for _, s := range found.segments {
		for n, files := range a.kept {
			if n != s.number && slices.Contains(files, s.path) {
				a.notOurs(s, fmt.Sprintf("its checkpoint is that of segment %d", n))
			}
		}
		switch {
		case a.heads[s.number] != nil || a.mark != nil && s.number <= a.mark.Segment || a.mark == nil && a.files[s.number] != nil:
			a.last = max(a.last, s.number)
		case a.mark != nil:
			a.notOurs(s, "the log has no such segment")
		}
	}
	if a.mark != nil {
		a.last = max(a.last, a.mark.Segment)
	}
	a.findNewest()
	return a.findOldest()
}

// findNewest chooses the checkpoint that is believed about names and lives: the
// last one, unless it is of another log than the others.
func (a *auditor) findNewest() {
	best := 0
	for n := a.last; n > 0; n-- {
		cp := a.heads[n]
		if cp == nil {
			continue
		}
		st, known := stateOf(cp), 1
		for _, other := range a.heads {
			if other != nil && st.knows(other.incarnation) {
				known += 2
			}
		}
		if a.mark != nil && st.knows(a.mark.Incarnation) {
			known += 3
		}
		if known > best {
			best, a.newest = known, cp
		}
	}
}

func (a *auditor) head(s *segment) (*checkpoint, head, error) {
	file, err := a.log.fs.Open(s.path)
	if err != nil {
		return nil, head{}, err
	}
	defer file.Close()
	return readCheckpoint(file, s.path, s.number, s.size)
}

func isCorrupt(err error) bool {
	var c *fault.Corrupt
	return errors.As(err, &c)
}

// keepsakes looks for segments among the files that repairs have put aside, and
// among those whose names are wrong.
func (a *auditor) keepsakes() error {
	l := a.log
	names, err := l.fs.List(l.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		n, isSegment := segmentNumber(name)
		if !(isSegment && a.heads[n] == nil) && !strings.HasPrefix(name, tornPrefix) {
			continue
		}
		file, err := l.fs.Open(l.path(name))
		if err != nil {
			return err
		}
		info, err := file.Stat()
		if err == nil {
			sc := scanner{file: file, size: info.Size()}
			var f frame
			if f, err = sc.frame(0); err == nil && f.kind == kindCheckpoint {
				if cp, perr := parseCheckpoint(f.body()); perr == nil {
					a.kept[cp.segment] = append(a.kept[cp.segment], l.path(name))
				}
			}
		}
		if cerr := file.Close(); cerr != nil {
			return cerr
		}
		if err != nil && !errors.Is(err, errBadFrame) {
			return err
		}
	}
	return nil
}

// notOurs notes a file that is not what its name says.
func (a *auditor) notOurs(s *segment, reason string) *Damage {
	if !slices.Contains(a.wrong, s) {
		a.wrong = append(a.wrong, s)
	}
	delete(a.files, s.number)
	return a.report.add(&Damage{File: s.path, Offset: -1, Bytes: s.size, Kind: DamageExchanged, Reason: reason})
}

// findOldest asks the checkpoints and the frames of the last segment which
// segments retention has left.
func (a *auditor) findOldest() error {
	lowest := a.last
	for n, s := range a.files {
		lowest = min(lowest, n)
		if cp := a.heads[n]; cp != nil {
			a.oldest = max(a.oldest, cp.oldest)
		}
		if n+1 < a.last { // the checkpoints behind it know
			continue
		}
		file, err := a.log.fs.Open(s.path)
		if err != nil {
			return err
		}
		err = eachTrim(&scanner{file: file, size: s.size}, n, func(to uint64) { a.oldest = max(a.oldest, to) })
		if cerr := file.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	if a.oldest == 0 || a.oldest > a.last {
		a.oldest = lowest
	}
	return nil
}

// eachTrim calls fn for every trim section in the valid frames of a segment,
// wherever they stand.
func eachTrim(sc *scanner, n uint64, fn func(uint64)) error {
	var f frame
	var err error
	return sc.find(0, func(h head) bool { return h.kind == kindCommit }, func(off int64, _ head, valid bool) bool {
		if !valid {
			return true
		}
		if f, err = sc.frame(off); err != nil {
			return true
		}
		_ = f.each(func(s section, _ int64) error { // it was verified
			// A stale frame of an earlier segment names an older one than there is.
			if s.typ == sectionTrim && s.oldest <= n {
				fn(s.oldest)
			}
			return nil
		})
		return true
	})
}

// next is what the following segment says, if it can be asked.
func (a *auditor) next(n uint64) *checkpoint {
	if cp := a.heads[n+1]; cp != nil && n < a.last && cp.predecessor.number == n && a.files[n+1] != nil {
		return cp
	}
	return nil
}

func (a *auditor) prev() *plan {
	if len(a.plans) == 0 {
		return nil
	}
	return a.plans[len(a.plans)-1]
}

// lifeOf is the incarnation in which an offset of a dictionary id was given.
func (a *auditor) lifeOf(id uint32, offset int64) (event.Incarnation, bool) {
	if a.newest == nil {
		return event.Incarnation{}, false
	}
	for _, c := range a.newest.closed {
		if offset < c.ends[id] {
			return c.incarnation, true
		}
	}
	return a.newest.incarnation, true
}

// begins is the sum before the oldest segment, when its checkpoint does not say.
// Where a stream began then is known to the newest checkpoint, unless retention
// has gone on since.
func (a *auditor) begins(n uint64) *state {
	st := newState()
	st.oldest = a.oldest
	var from *checkpoint
	for k := n; k <= a.last && from == nil; k++ {
		from = a.heads[k]
	}
	if a.mark != nil {
		st.incarnation = a.mark.Incarnation
	}
	if from == nil || n == 1 {
		if from != nil {
			st.incarnation = from.incarnation
			if len(from.closed) > 0 {
				st.incarnation = from.closed[0].incarnation
			}
		}
		return st
	}
	st = stateOf(from)
	for i, p := range st.parts {
		if i < len(a.newest.parts) && a.newest.oldest == a.oldest {
			if start := a.newest.parts[i].start; start < p.end {
				p.events -= p.end - start
				p.end = start
			}
		}
		if inc, ok := a.lifeOf(p.id, p.end); ok {
			st.incarnation = inc
		}
	}
	return st
}

// segment goes over one segment.
func (a *auditor) segment(n uint64) error {
	s, cp := a.files[n], a.heads[n]
	if s != nil && cp != nil {
		if why := a.foreign(n, cp); why != "" {
			a.notOurs(s, why)
			a.heads[n] = nil
			s, cp = nil, nil
		}
	}
	if s != nil {
		err := a.walk(&plan{seg: s, source: s.path, size: s.size}, cp)
		if errors.Is(err, errNotOurs) && a.next(n) != nil && a.next(n+1) != nil && a.strange(n+1) {
			// Who says so is the wrong one: its own successor does not know it.
			a.notOurs(a.files[n+1], "it is not the segment that the next one knows")
			a.heads[n+1] = nil
			err = a.walk(&plan{seg: s, source: s.path, size: s.size}, cp)
		}
		if !errors.Is(err, errNotOurs) {
			return err
		}
		a.notOurs(s, plain(err))
		a.heads[n] = nil
	}
	var d *Damage
	if i := slices.IndexFunc(a.wrong, func(w *segment) bool { return w.number == n }); i >= 0 {
		d = a.notOurs(a.wrong[i], "")
	} else {
		d = a.report.add(&Damage{File: a.log.path(segmentName(n)), Offset: -1, Kind: DamageMissing, Reason: "the segment is missing"})
	}
	for _, path := range a.kept[n] {
		if a.next(n) == nil || !a.sound(n, path) {
			continue
		}
		d.Reason += "; " + path + " holds what it held"
		info, err := a.log.fs.Stat(path)
		if err != nil {
			return err
		}
		p := &plan{seg: &segment{number: n, path: a.log.path(segmentName(n)), fs: a.log.fs}, source: path, size: info.Size()}
		cp, _, err := a.head(&segment{number: n, path: path, size: p.size})
		if err != nil {
			return err
		}
		return a.walk(p, cp)
	}
	return a.standIn(n, d)
}

// strange tells whether a segment that has a good checkpoint, damaged or not, is
// another than its successor knows.
func (a *auditor) strange(n uint64) bool {
	s, next := a.files[n], a.next(n)
	file, err := a.log.fs.Open(s.path)
	if err != nil {
		return false
	}
	defer file.Close()
	p := &plan{seg: s, source: s.path, size: s.size, pred: next.predecessor, chained: true}
	sc := &scan{plan: p, file: file, sc: &scanner{file: file, size: min(p.size, p.pred.length)}}
	f, err := sc.sc.frame(0)
	if err != nil {
		return false
	}
	p.nonce, p.sequence, p.begin, sc.cpCRC = f.nonce, f.sequence, f.end(), f.crc
	if err := sc.read(true, false); err != nil {
		return false
	}
	return errors.Is(sc.fits(), errNotOurs)
}

// sound tells whether a file holds a segment just as its successor knows it.
func (a *auditor) sound(n uint64, path string) bool {
	file, err := a.log.fs.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return false
	}
	cp, h, err := readCheckpoint(file, path, n, info.Size())
	if err != nil || a.foreign(n, cp) != "" {
		return false
	}
	g := &segment{number: n, path: path, nonce: h.nonce, size: info.Size()}
	_, err = scanSegment(file, g, cp, h, a.next(n).predecessor)
	return err == nil
}

// errNotOurs: the file is well in itself, but not what the log knows of it.
var errNotOurs = fmt.Errorf("%w: not the segment that the log knows", errBadFrame)

// foreign tells why a checkpoint is not one of this log, in this place.
func (a *auditor) foreign(n uint64, cp *checkpoint) string {
	if a.newest != nil && !stateOf(a.newest).knows(cp.incarnation) {
		return fmt.Sprintf("it is of another log: incarnation %s", cp.incarnation)
	}
	if cp.predecessor.number != n-1 && n > a.oldest {
		return fmt.Sprintf("its checkpoint knows segment %d as its predecessor", cp.predecessor.number)
	}
	return ""
}
