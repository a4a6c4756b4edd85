package seglog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"naru/internal/stream"
)

const (
	diskEvery      = time.Second
	retentionEvery = time.Minute
	// agreeAfter: age counts only when two checks that far apart, by the
	// monotonic clock, agree. So a wall clock that jumps deletes nothing.
	agreeAfter = time.Hour
)

// keep is the keeper's goroutine: free files ahead, retention, disk space.
func (l *Log) keep() {
	disk := time.NewTicker(diskEvery)
	defer disk.Stop()
	retention := time.NewTicker(retentionEvery)
	defer retention.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-l.poison:
			return
		case <-disk.C:
			l.checkDisk()
			continue
		case <-retention.C:
		case <-l.nudge:
		}
		l.retain()
		l.prepare()
	}
}

func (l *Log) wakeKeeper() {
	select {
	case l.nudge <- struct{}{}:
	default:
	}
}

// prepare makes the next segment's file ahead once half of the active one is
// written.
func (l *Log) prepare() {
	l.mu.Lock()
	due := l.mu.limit >= l.mu.segments[len(l.mu.segments)-1].size/2
	l.mu.Unlock()
	if !due || l.full.Load() {
		return
	}
	if err := l.pool.prepare(); err != nil && !errors.Is(err, errNoSpace) {
		l.log.Warn("prepare log segment", "error", err) // the writer tries again when it needs it
	}
}

// checkDisk refuses appends while the disk has less than the reserve left.
func (l *Log) checkDisk() {
	free, err := l.fs.Free(l.dir)
	if err != nil {
		l.log.Warn("ask for free disk space", "error", err)
		return
	}
	l.setFull(free < int64(l.cfg.Reserve), free)
}

// setFull remembers whether the disk is full; free is -1 when not known.
func (l *Log) setFull(full bool, free int64) {
	if l.full.Swap(full) == full {
		return
	}
	if full {
		l.log.Error("the disk is nearly full: appends are refused until there is room", "dir", l.dir, "free", free, "reserve", int64(l.cfg.Reserve))
	} else {
		l.log.Info("the disk has room again: appends go on", "dir", l.dir, "free", free)
	}
	if fn := l.cfg.Listener.Full; fn != nil {
		fn(full, free)
	}
}

// retain drops the segments that retention no longer keeps, oldest first.
func (l *Log) retain() {
	l.retention.Lock()
	defer l.retention.Unlock()
	for {
		dropped, err := l.retainOne()
		if err != nil {
			// Deleting late is no harm; a poisoned log says so itself.
			if l.Err() == nil && !errors.Is(err, stream.ErrClosed) {
				l.log.Warn("drop log segment", "error", err)
			}
			return
		}
		if !dropped {
			return
		}
	}
}

// retainOne drops the oldest segment if it is due.
func (l *Log) retainOne() (bool, error) {
	l.mu.Lock()
	segments := l.mu.segments
	l.mu.Unlock()
	l.waits.Store(nil)
	if len(segments) < 2 {
		return false, nil
	}
	oldest := segments[0]
	next, err := l.checkpointOf(segments[1])
	if err != nil {
		return false, err
	}
	reason := l.due(segments, next)
	if reason == "" {
		return false, nil
	}
	unread := l.unread(next)
	if len(unread) > 0 && !l.cfg.DropUnread {
		l.waits.Store(&waiting{readers: unread, reason: reason})
		if l.retention.waits != oldest.number { // once for each segment
			l.retention.waits = oldest.number
			l.log.Warn("retention waits: the log grows beyond its limit until these readers have read on",
				"segment", oldest.number, "reason", reason, "readers", unread)
		}
		return false, nil
	}
	if err := l.trimTo(segments[1].number); err != nil {
		return false, err
	}
	l.mu.Lock()
	l.mu.segments = slices.Clone(l.mu.segments[1:])
	l.mu.setStart(next)
	l.changeLocked()
	l.mu.Unlock()
	delete(l.retention.since, oldest.number)
	l.cache.drop(oldest.number)
	oldest.retire()
	recycled, err := l.pool.give(oldest.path, oldest.size, oldest)
	if err != nil {
		return false, err
	}
	l.stats.retired.Add(1)
	if len(unread) > 0 {
		l.log.Warn("retention dropped what readers had not read (log.drop_unread)", "segment", oldest.number, "readers", unread)
	}
	l.log.Info("log segment dropped", "segment", oldest.number, "bytes", oldest.size, "reason", reason, "recycled", recycled)
	if fn := l.cfg.Listener.Retired; fn != nil {
		fn(SegmentRetired{Segment: oldest.number, Bytes: oldest.size, Reason: reason, Recycled: recycled, Unread: unread})
	}
	return true, nil
}

// waiting is what holds retention back.
type waiting struct {
	readers []string
	reason  string
}

// Waits implements stream.Retainer, as of the last time retention looked.
func (l *Log) Waits() (readers []string, reason string) {
	if w := l.waits.Load(); w != nil {
		return slices.Clone(w.readers), w.reason
	}
	return nil, ""
}

// due returns why the oldest segment is to go, or "". next is the checkpoint
// behind it.
func (l *Log) due(segments []*segment, next *checkpoint) string {
	total := int64(0)
	for _, s := range segments {
		total += s.size
	}
	if l.cfg.RetainBytes > 0 && total > int64(l.cfg.RetainBytes) {
		return "bytes"
	}
	oldest, now := segments[0].number, l.clock()
	if l.cfg.RetainAge == 0 || now.Sub(l.received(segments, next, now)) <= l.cfg.RetainAge.Std() {
		delete(l.retention.since, oldest)
		return ""
	}
	since, seen := l.retention.since[oldest]
	if !seen {
		l.retention.since[oldest] = time.Now()
		return ""
	}
	if time.Since(since) < agreeAfter { // monotonic
		return ""
	}
	return "age"
}

// received is the time of the latest receipt in the oldest segment. One that is
// still to come was stamped by a clock that has been set back since: what came
// behind it, the first that is not of the future, says how old it is at least.
// Without that, a moment of a wrong clock would keep the log for years.
func (l *Log) received(segments []*segment, next *checkpoint, now time.Time) time.Time {
	latest := next.received()
	for _, s := range segments[2:] {
		if !latest.After(now) {
			break
		}
		later, err := l.checkpointOf(s)
		if err != nil {
			break // a reader meets it too, and says so
		}
		latest = later.received()
	}
	return latest
}

// received is the time of the latest receipt in the segment before; one without
// records has its sealing.
func (c *checkpoint) received() time.Time {
	if t := c.predecessor.maxTime; t > 0 {
		return time.UnixMilli(t)
	}
	return c.created
}

// unread names the readers that have not read everything before a checkpoint,
// those that are only expected among them.
func (l *Log) unread(next *checkpoint) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var names []string
	look := func(name string, at stream.Progress) {
		for _, p := range next.parts {
			if p.stream == at.Stream && l.mu.reached(at, p.id) < p.end {
				names = append(names, name)
				break
			}
		}
	}
	for name, at := range l.mu.readers {
		look(name, at)
	}
	for topic := range l.mu.topics {
		if l.cfg.Expect == nil {
			break
		}
		// A pipeline registers itself some time behind the first event.
		if name := l.cfg.Expect(topic); name != "" {
			if _, ok := l.mu.readers[name]; !ok {
				look(name, stream.Progress{Stream: topic})
			}
		}
	}
	slices.Sort(names)
	return names
}

// reached is the first offset of a stream-partition that a reader has not
// covered. Offsets run on through incarnations, so the newest one known decides.
// What a repair has lost needs no reading.
func (s *state) reached(at stream.Progress, id uint32) int64 {
	p := s.part(id)
	if p == nil {
		return 0
	}
	offset := p.start
	if off, ok := at.Positions.Get(s.incarnation, p.n); ok {
		return s.lost.skip(p.topic.name, p.n, max(offset, off))
	}
	for _, c := range slices.Backward(s.closed) {
		if off, ok := at.Positions.Get(c.incarnation, p.n); ok {
			return s.lost.skip(p.topic.name, p.n, max(offset, min(off, c.ends[id])))
		}
	}
	return s.lost.skip(p.topic.name, p.n, offset)
}

// trimTo writes down which segment is the oldest from now on: so a missing one
// is told from a dropped one.
func (l *Log) trimTo(oldest uint64) error {
	r := l.requests.get(kindCommit)
	defer l.requests.put(r)
	r.extra = appendTrimSection(r.extra, oldest)
	r.extras++
	if err := l.do(context.Background(), r); err != nil {
		return fmt.Errorf("trim to segment %d: %w", oldest, err)
	}
	return nil
}
