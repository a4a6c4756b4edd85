package dedupe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/recordbatch"
	"naru/internal/stream"
)

// lane judges one partition of a stream.
type lane struct {
	judge *Judge
	id    laneID

	// Of the goroutine that judges.
	court *court
	index *index
	dec   recordbatch.Decoder
	hash  digester
	asks  []ask
	at    event.Position
	dirty bool  // the position in the log is behind at
	ahead bool  // the index has ids of events behind at
	loose int64 // bytes of events whose ids may not be durable

	mu struct {
		sync.Mutex
		judged int64     // all events below this offset have a verdict; -1: not known yet
		err    error     // why there are none
		recent []Verdict // with something in them, in order
		runs   int       // in recent
		from   int64     // recent has all verdicts from this offset on
		news   chan struct{}
		status Status
	}
	hint struct {
		sync.Mutex
		offset int64 // in the stream of verdicts, of the one that was found last
	}
}

func newLane(j *Judge, id laneID) *lane {
	l := &lane{judge: j, id: id}
	l.mu.judged, l.mu.news = -1, make(chan struct{})
	return l
}

const (
	// readBytes is how much is read from the log at once.
	readBytes = stream.Bytes(4 << 20)
	// syncBytes is after how many bytes of events their ids are made durable.
	syncBytes = 16 << 20
	// rest is how long the position in the log may be behind when there is nothing
	// that has to be written down.
	rest = time.Second
	// maxVerdict bounds the bytes of one record of verdicts.
	maxVerdict = 32 << 10
	// maxRuns bounds what is kept of verdicts in memory, 16 bytes each.
	maxRuns = 1 << 16
	// stopTime bounds the last commit.
	stopTime = 10 * time.Second
)

// run judges from where the log says until ctx ends.
func (l *lane) run(ctx context.Context, c *court, st stream.Stat) (err error) {
	at, durable, ordinal := c.position(st, l.id.partition)
	l.court, l.at, l.dirty, l.ahead, l.loose = c, at, false, false, 0
	var lives []event.Incarnation
	for _, r := range st.Ranges {
		lives = append(lives, r.Incarnation)
	}
	partitions := map[int32]bool{}
	for _, r := range st.Ranges {
		partitions[r.Partition] = true
	}
	l.index = newIndex(l.judge.fs, l.judge.folderOf(l.id), l.judge.cfg.shape(max(len(partitions), l.judge.parts)), l.id, st.Incarnation, l.judge.logger)
	defer func() { l.index.close() }()
	l.forget(at.Offset)
	if err := l.restore(ctx, st, lives, ordinal, min(durable.Offset, at.Offset)); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("restore ids of %s/%d: %w", l.id.stream, l.id.partition, err)
	}
	l.publish(l.at.Offset, nil)
	for {
		if err := l.step(ctx); err != nil {
			stopped := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
			if ctx.Err() == nil || !stopped {
				return err // a stop does not make good what failed: a sync done again succeeds and does nothing
			}
			return l.finish()
		}
	}
}

// step reads and judges once.
func (l *lane) step(ctx context.Context) error {
	short, cancel := ctx, context.CancelFunc(func() {})
	if l.dirty || l.loose > 0 {
		short, cancel = context.WithTimeout(ctx, rest)
	}
	b, err := l.judge.log.Read(short, l.id.stream, l.at, readBytes)
	cancel()
	if err != nil && (l.dirty || l.loose > 0) && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return l.settle(ctx)
	}
	if errors.Is(err, stream.ErrTrimmed) && ctx.Err() == nil {
		// Retention has overtaken (log.drop_unread): what is gone needs no verdict.
		l.at.Incarnation = event.Incarnation{}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", l.id.stream, err)
	}
	return l.take(ctx, b)
}

// settle writes the position down, and then the ids before it.
func (l *lane) settle(ctx context.Context) error {
	if err := l.court.commit(ctx, l.at, 0, stream.Counts{}, nil); err != nil {
		return err
	}
	l.dirty = false
	return errors.Join(l.index.settled(), l.secure(ctx))
}

// secure makes the ids durable, and lets retention take the events that they are of.
func (l *lane) secure(ctx context.Context) error {
	if err := l.index.save(); err != nil {
		return err
	}
	if err := l.court.durable(ctx, l.at); err != nil {
		return err
	}
	l.index.secured()
	l.loose = 0
	return nil
}

// finish leaves as little as can be to be read again by the next start.
func (l *lane) finish() error {
	if !l.dirty && l.loose == 0 || l.ahead {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	return l.settle(ctx)
}

// identified tells whether any event of a batch may have an id of its own.
func identified(b *event.Batch) bool {
	for _, raw := range b.Raw {
		h, err := recordbatch.ReadHead(raw)
		if err != nil || h.Identified {
			return true // who decodes it says what is wrong
		}
	}
	return false
}

// finding is a verdict with what was remembered.
type finding struct {
	Verdict
	kept []event.Run // remembered, conflicts too
}

// take judges a batch.
func (l *lane) take(ctx context.Context, b *event.Batch) error {
	for _, raw := range b.Raw {
		l.loose += int64(len(raw))
	}
	if err := l.judgeBatch(ctx, b); err != nil || l.loose < l.judge.sync {
		return err
	}
	return l.settle(ctx)
}

func (l *lane) judgeBatch(ctx context.Context, b *event.Batch) error {
	if !identified(b) {
		l.at, l.dirty = b.End(), true
		l.index.next = b.Next
		l.publish(b.Next, nil)
		return nil
	}
	v := finding{Verdict: Verdict{From: b.From, Next: b.Next}}
	l.ahead = true
	for _, raw := range b.Raw {
		if h, err := recordbatch.ReadHead(raw); err == nil && !h.Identified {
			continue
		}
		l.asks = l.asks[:0]
		err := l.dec.Each(raw, func(e *event.Event) error {
			if e.Offset < b.From || e.GeneratedID || len(e.ID) == 0 {
				return nil
			}
			l.asks = append(l.asks, ask{l.hash.key(e), l.hash.digest(e), e.Offset, e.ReceivedAt.UnixMilli()})
			if len(l.asks) < atOnce {
				return nil
			}
			return l.judgeAll(&v)
		})
		if err == nil {
			err = l.judgeAll(&v)
		}
		if err != nil {
			return fmt.Errorf("judge %s/%d at offset %d: %w", l.id.stream, l.id.partition, b.From, err)
		}
	}
	l.index.next = b.Next
	if err := l.decide(ctx, b.Incarnation, v); err != nil {
		return err
	}
	l.ahead = false
	return l.index.settled()
}

// judgeAll judges the events that were gathered.
func (l *lane) judgeAll(v *finding) error {
	l.index.warm(l.asks)
	for i := range l.asks {
		a := &l.asks[i]
		fate, err := l.index.judge(a.k, a.digest, a.offset, a.clock)
		switch {
		case err != nil:
			return err
		case fate == Duplicate:
			v.Duplicates = addRun(v.Duplicates, a.offset)
			continue
		case fate == Conflict:
			v.Conflicts = addRun(v.Conflicts, a.offset)
		}
		v.kept = addRun(v.kept, a.offset)
	}
	l.asks = l.asks[:0]
	return nil
}

// decide writes a verdict down and then tells it. One that is too large for a
// frame of the log is written in halves.
func (l *lane) decide(ctx context.Context, life event.Incarnation, v finding) error {
	at := event.Position{Incarnation: life, Partition: l.id.partition, Offset: v.Next}
	runs := len(v.Duplicates) + len(v.Conflicts)
	if 2*runs <= maxVerdict { // a run takes at least two bytes
		var record *Verdict
		if runs > 0 {
			record = &v.Verdict
		}
		kept, conflicts := event.CountRuns(v.kept, 0), event.CountRuns(v.Conflicts, 0)
		counts := stream.Counts{Written: kept - conflicts, Duplicates: event.CountRuns(v.Duplicates, 0), Filtered: conflicts}
		err := l.court.commit(ctx, at, kept, counts, record)
		if err == nil {
			l.at, l.dirty = at, false
			l.publish(v.Next, record)
			return nil
		}
		if !errors.Is(err, fault.ErrLimit) || runs < 2 {
			return err
		}
	}
	middle := v.From + (v.Next-v.From)/2
	for _, half := range []finding{v.cut(v.From, middle), v.cut(middle, v.Next)} {
		if err := l.decide(ctx, life, half); err != nil {
			return err
		}
	}
	return nil
}

func (v *finding) cut(from, to int64) finding {
	return finding{kept: cutRuns(v.kept, from, to), Verdict: Verdict{From: from, Next: to,
		Duplicates: cutRuns(v.Duplicates, from, to), Conflicts: cutRuns(v.Conflicts, from, to)}}
}

// forget begins anew with what is known of verdicts.
func (l *lane) forget(from int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.judged, l.mu.recent, l.mu.runs, l.mu.from = -1, nil, 0, from
}

// publish tells that all events below next are judged.
func (l *lane) publish(next int64, v *Verdict) {
	ids, disk, memory := l.index.size()
	window := float64(l.index.window()) / 1000
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.judged, l.mu.err = next, nil
	l.mu.status = Status{IDs: ids, Disk: disk, Memory: memory, Window: window}
	if v != nil {
		l.mu.recent = append(l.mu.recent, Verdict{From: v.From, Next: v.Next, Duplicates: v.Duplicates})
		l.mu.runs += len(v.Duplicates)
		for len(l.mu.recent) > 1 && l.mu.runs > maxRuns {
			l.mu.runs -= len(l.mu.recent[0].Duplicates)
			l.mu.from = l.mu.recent[0].Next
			l.mu.recent = slices.Delete(l.mu.recent, 0, 1)
		}
	}
	close(l.mu.news)
	l.mu.news = make(chan struct{})
}

// fail tells that no verdicts come until the judge goes on.
func (l *lane) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.err = err
	close(l.mu.news)
	l.mu.news = make(chan struct{})
}

func (l *lane) show(s *Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.IDs += l.mu.status.IDs
	s.Disk += l.mu.status.Disk
	s.Memory += l.mu.status.Memory
	if l.mu.judged >= 0 {
		s.Window = min(s.Window, l.mu.status.Window)
	}
}

// wait waits until all events below an offset are judged.
func (l *lane) wait(ctx context.Context, next int64) error {
	for {
		l.mu.Lock()
		judged, err, news := l.mu.judged, l.mu.err, l.mu.news
		l.mu.Unlock()
		if judged >= next {
			return nil
		}
		if err != nil {
			return fmt.Errorf("duplicates of %s are not known: %w", l.id.stream, err)
		}
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// logged says what was not said of an index that had to be made again.
func (l *lane) logged(why string, from int64) {
	l.judge.logger.Info("ids are read from the log again: "+why, slog.String("stream", l.id.stream),
		slog.Int("partition", int(l.id.partition)), slog.Int64("from_offset", from), slog.Int64("to_offset", l.at.Offset))
}
