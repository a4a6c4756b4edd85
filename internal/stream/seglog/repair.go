package seglog

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"naru/internal/event"
	"naru/internal/vfs"
)

// Repaired says what Repair has done.
type Repaired struct {
	Cut      bool              `json:"cut"`
	Damage   string            `json:"damage,omitempty"`
	Closed   event.Incarnation `json:"closed"`    // ended at the cut
	Begun    event.Incarnation `json:"begun"`     // goes on from there
	CutFile  string            `json:"cut_file"`  // the bytes from the damage on
	CutBytes int64             `json:"cut_bytes"` // of it
}

// Repair cuts a log whose last segment is damaged at the damage: what stands
// behind it is copied to a torn-<time>.bin file, the incarnation is closed there
// and a new one begins in a new segment. A log that is well is left alone. No
// other naru may have the log open. Damage in an older segment is not repaired:
// it is returned.
func Repair(fs vfs.FS, dir string, cfg Config, log *slog.Logger) (Repaired, error) {
	r, err := repair(fs, dir, cfg, log, false)
	if err != nil {
		return r, fmt.Errorf("repair log: %w", err)
	}
	return r, nil
}

// repair with always cuts a log that is well at its end.
func repair(fs vfs.FS, dir string, cfg Config, log *slog.Logger, always bool) (r Repaired, err error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Log{fs: fs, dir: dir, cfg: cfg, log: log, clock: time.Now}
	l.pool.init(l)
	lock, err := fs.Lock(l.path(lockName))
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	found, err := l.list()
	if err != nil || len(found.segments) == 0 {
		return r, err
	}
	last := found.segments[len(found.segments)-1]
	file, err := fs.OpenReadWrite(last.path)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	t, damage := scanTail(file, last)
	switch {
	case damage == nil && !always:
		return r, nil // a torn tail is the next start's business
	case damage != nil && t == nil:
		return r, damage // of the checkpoint: there is nothing to cut at
	case damage != nil:
		r.Damage = damage.Error()
	}
	// What the frames before the damage hold counts, promised or not: they are
	// whole, and the new segment's checkpoint vouches for them.
	t.upTo = t.sequence()
	if err := t.promise(); err != nil {
		return r, err
	}
	if _, _, err := l.kept(found.segments, t.state.oldest); err != nil {
		return r, err
	}
	r.CutBytes = last.size - t.promisedEnd
	if r.CutFile, err = l.keepTorn(file, t.promisedEnd, last.size); err != nil {
		return r, err
	}
	// The frames that stay may be in the page cache only.
	if err := file.Sync(); err != nil {
		return r, err
	}
	st := t.state
	r.Closed, r.Begun = st.incarnation, newIncarnation()
	ends := map[uint32]int64{}
	for _, p := range st.parts {
		ends[p.id] = p.end
	}
	st.closed = append(st.closed, closedIncarnation{incarnation: st.incarnation, ends: ends})
	st.incarnation = r.Begun
	pred := predecessor{number: last.number, length: t.promisedEnd, last: t.promised, checksum: t.chain, maxTime: t.index.maxTime}
	cp := st.checkpoint()
	cp.segment, cp.created, cp.predecessor = last.number+1, l.clock(), pred
	free, err := l.pool.take(max(int64(cfg.Segment), align(int64(2*headSize+len(cp.append(nil))))), true)
	if err != nil {
		return r, err
	}
	made, err := l.makeSegment(free, cp, t.promised+1, nil, nil)
	if err != nil {
		return r, err
	}
	r.Cut = true
	if err := writeFooter(file, last.nonce, pred, appendFooter(nil, last.number, t.index, st.parts)); err != nil {
		return r, err
	}
	log.Warn("log cut", "file", last.path, "at", t.promisedEnd, "closed", r.Closed, "begun", r.Begun, "kept", r.CutFile)
	return r, made.file.Close()
}
