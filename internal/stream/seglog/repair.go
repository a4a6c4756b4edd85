package seglog

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"path"
	"slices"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/vfs"
)

// Repaired says what Repair has done.
type Repaired struct {
	Damage   []*Damage `json:"damage"`   // what was found
	Lost     []Loss    `json:"lost"`     // what could not be saved; it is on record (Losses)
	Segments []string  `json:"segments"` // written anew
	Kept     []string  `json:"kept"`     // files with the damaged bytes
	// Cut: the end of the log was not known, so Closed ends there and Begun goes on.
	Cut    bool              `json:"cut"`
	Closed event.Incarnation `json:"closed"`
	Begun  event.Incarnation `json:"begun"`
}

// Repair makes a damaged log one that opens, and saves all that can be read: of
// a damaged segment just the damaged frames are lost. Damaged bytes are copied
// aside first, what is lost is put on record, and each segment is replaced as a
// whole. A crash in the middle leaves a log that is repaired by calling it again.
//
// Where the damage reaches the end of the log, so that offsets could be given
// twice, the incarnation is closed and a new one begins in a new segment. A log
// that is well is left alone. No other naru may have the log open.
func Repair(fs vfs.FS, dir string, cfg Config, log *slog.Logger) (Repaired, error) {
	r, err := repair(fs, dir, cfg, log, false)
	if err != nil {
		return r, fmt.Errorf("repair log: %w", err)
	}
	return r, nil
}

// repair with always cuts a log that is well at its end.
func repair(fs vfs.FS, dir string, cfg Config, log *slog.Logger, always bool) (out Repaired, err error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Log{fs: fs, dir: dir, cfg: cfg, log: log, clock: time.Now}
	if cfg.Clock != nil {
		l.clock = cfg.Clock
	}
	l.pool.init(l)
	lock, err := fs.Lock(l.path(lockName))
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	a, err := audit(l)
	if err != nil || a.last == 0 || len(a.report.Damage) == 0 && !always {
		return out, err
	}
	r := &mender{auditor: a, out: &out, log: l, logger: log, always: always, aside: map[uint64]string{}}
	out.Damage = a.report.Damage
	if err := r.run(); err != nil {
		return out, err
	}
	again, err := audit(newMender(fs, dir))
	if err != nil {
		return out, err
	}
	return out, again.report.Err()
}

// mender carries out the plans of an audit.
type mender struct {
	*auditor
	log    *Log
	logger *slog.Logger
	out    *Repaired
	always bool
	aside  map[uint64]string // by the number of a file that was put aside as a whole
}

func (r *mender) run() error {
	// First of all files whose names are wrong, and segments that are found whole
	// under another name: what they say counts for those before them.
	for {
		moved, err := r.restore()
		if err != nil {
			return err
		}
		if !moved {
			break
		}
		a, err := audit(newMender(r.log.fs, r.log.dir))
		if err != nil {
			return err
		}
		r.auditor = a
	}
	if r.stuck != nil {
		return fault.WithHint(r.stuck, "this cannot be mended by itself: restore the folder from a backup")
	}
	if err := r.keep(); err != nil {
		return fmt.Errorf("keep damaged bytes: %w", err)
	}
	if err := r.record(); err != nil {
		return err
	}
	cut := r.cut || r.always
	for i, p := range r.plans {
		if i > 0 && p.made != nil {
			p.made.predecessor = r.plans[i-1].pred
		}
		last := p.seg.number == r.last
		if err := r.mend(p, last, cut); err != nil {
			return fmt.Errorf("mend %s: %w", p.seg.path, err)
		}
	}
	mark := lastMark{Incarnation: r.st.incarnation}
	if cut {
		made, err := r.goOn()
		if err != nil {
			return fmt.Errorf("begin a new incarnation: %w", err)
		}
		mark = lastMark{Segment: made.seg.number, Size: made.seg.size, Sequence: made.sequence, Incarnation: r.out.Begun}
	} else {
		p := r.prev()
		info, err := r.log.fs.Stat(p.seg.path)
		if err != nil {
			return err
		}
		mark.Segment, mark.Size, mark.Sequence = p.seg.number, info.Size(), p.vouched()
	}
	return writeLast(r.log.fs, r.log.dir, mark)
}

// vouched is the sequence up to which a mended last segment is promised.
func (p *plan) vouched() uint64 {
	if p.rewrite() {
		return p.synced
	}
	return p.promised
}

// restore puts files where they belong; moved tells whether there were any.
func (r *mender) restore() (moved bool, err error) {
	if len(r.wrong) > 0 {
		return true, r.setAside()
	}
	for _, p := range r.plans {
		if p.source != "" && p.source != p.seg.path {
			moved = true
			if err := r.mend(p, false, false); err != nil {
				return moved, err
			}
		}
	}
	return moved, nil
}

// setAside gives files whose names are wrong other names.
func (r *mender) setAside() error {
	for _, s := range r.wrong {
		name, err := r.log.tornPath(s, 0)
		if err != nil {
			return err
		}
		if err := r.log.fs.Rename(s.path, name); err != nil {
			return err
		}
		r.aside[s.number] = path.Base(name)
		r.out.Kept = append(r.out.Kept, name)
		r.logger.Warn("log segment put aside", "file", s.path, "as", name)
	}
	return r.log.fs.SyncDir(r.log.dir)
}

// keep copies what is damaged to files of its own.
func (r *mender) keep() error {
	for _, p := range r.plans {
		if p.source != p.seg.path {
			continue
		}
		file, err := r.log.fs.Open(p.source)
		if err != nil {
			return err
		}
		err = r.keepFrom(p, file)
		if cerr := file.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *mender) keepFrom(p *plan, file vfs.File) error {
	one := func(from, to int64) (string, error) {
		if to = min(to, p.size); from >= to {
			return "", nil
		}
		name, err := r.log.keepTorn(file, p.seg, from, to)
		if err == nil {
			r.out.Kept = append(r.out.Kept, name)
			name = path.Base(name)
		}
		return name, err
	}
	if p.made != nil {
		if _, err := one(0, p.begin); err != nil {
			return err
		}
	}
	for _, sl := range p.slots {
		var err error
		if sl.kept, err = one(sl.pos, sl.end); err != nil {
			return err
		}
	}
	if p.seg.number == r.last && (p.rewrite() || r.cut || r.always) {
		kept, err := one(p.end, p.tail)
		for _, sl := range r.slots {
			if sl.plan == p && sl.kept == "" {
				sl.kept = kept
			}
		}
		return err
	}
	return nil
}

// record adds what is lost to the record of losses.
func (r *mender) record() error {
	known := len(r.report.Losses)
	gone := lostRanges{}
	maps.Copy(gone, r.found)
	if r.cut || r.always {
		// A repair that was broken off knew of offsets that are given again behind
		// this cut: readers must not pass over those.
		for _, p := range r.st.parts {
			k := partKey{p.topic.name, p.n}
			gone[k] = append(slices.Clone(gone[k]), lostRange{p.end, math.MaxInt64})
		}
	}
	var all []Loss
	for _, l := range r.report.Losses {
		rest := l.without(gone)
		if len(rest) != 1 || rest[0] != l {
			known = -1 // write it anew
		}
		all = append(all, rest...)
	}
	name := r.log.path(lossesName)
	for _, d := range r.report.Damage {
		if d.File == name && d.Kind == DamageLosses {
			known = -1 // write it anew, after keeping what is there
			if err := r.keepWhole(name); err != nil {
				return err
			}
		}
		for _, l := range d.Lost {
			l.Repaired, l.Kept = r.log.clock().UTC().Truncate(time.Millisecond), r.keptOf(d, l)
			if !slices.ContainsFunc(all, l.same) {
				all = append(all, l)
				r.out.Lost = append(r.out.Lost, l)
			}
		}
	}
	if len(all) == known {
		return nil
	}
	return writeLosses(r.log.fs, r.log.dir, all)
}

func (r *mender) keptOf(d *Damage, l Loss) string {
	for _, sl := range r.all {
		if sl.damage == d && sl.kept != "" {
			return sl.kept
		}
	}
	n, _ := segmentNumber(l.Segment)
	return r.aside[n]
}

// keepWhole copies a small file aside.
func (r *mender) keepWhole(name string) error {
	file, err := r.log.fs.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	raw, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	to, err := r.log.tornPath(&segment{}, 0)
	if err != nil {
		return err
	}
	r.out.Kept = append(r.out.Kept, to)
	return replaceFile(r.log.fs, r.log.dir, lossesTemp, path.Base(to), raw)
}

// goOn closes the incarnation behind the last segment and begins a new one.
func (r *mender) goOn() (*madeSegment, error) {
	l, st, p := r.log, r.st, r.prev()
	r.out.Cut, r.out.Closed, r.out.Begun = true, st.incarnation, newIncarnation()
	ends := map[uint32]int64{}
	for _, q := range st.parts {
		ends[q.id] = q.end
	}
	st.closed = append(slices.Clone(st.closed), closedIncarnation{incarnation: st.incarnation, ends: ends})
	st.incarnation = r.out.Begun
	cp := st.checkpoint()
	cp.segment, cp.created, cp.oldest = max(r.last, 1), l.clock(), min(cp.oldest, r.last)
	sequence := uint64(1)
	if p != nil {
		cp.segment, cp.predecessor, sequence = p.seg.number+1, p.pred, p.pred.last+1
	}
	if r.mark != nil {
		sequence = max(sequence, r.mark.Sequence+1) // what the mark says is never taken back
	}
	free, err := l.pool.take(max(int64(l.cfg.Segment), cp.room()+headSize), true)
	if err != nil {
		return nil, err
	}
	made, err := l.makeSegment(free, cp, sequence, nil, nil)
	if err != nil {
		return nil, err
	}
	if err := made.file.Close(); err != nil {
		return nil, err
	}
	if p != nil && !p.rewrite() {
		err = r.footer(p)
	}
	r.logger.Warn("log cut", "closed", r.out.Closed, "begun", r.out.Begun, "segment", made.seg.path)
	return made, err
}
