package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/pipeline/definition"
	"naru/internal/sink"
	"naru/internal/stream"
)

// fillRun is a backfill at work.
type fillRun struct {
	backfill
	pipeline *Pipeline
	cancel   context.CancelFunc
	done     chan struct{}
	began    time.Time
	first    int64 // events that were done then

	mu struct {
		sync.Mutex
		err error // why its target cannot be made for now
	}
}

// adjustFills stops the backfills that are not to run, and starts those that are. What
// the file has not any more is given up. With changing held.
func (r *running) adjustFills() {
	def := r.def.Load()
	still := r.flow.paused() || r.stuck || r.ended
	for _, b := range r.flow.backfills() {
		if b.Phase != filling {
			continue
		}
		i := slices.IndexFunc(def.To, func(s *definition.Sink) bool { return s.Name == b.Sink })
		if i < 0 || !sameTarget(def.To[i], b) {
			r.flow.logger.Warn("backfill is given up: its sink has left the file, or writes to something else", slog.String("sink", b.Sink))
			if err := r.giveUp(b.Sink); err != nil {
				r.flow.logger.Warn("give up backfill", slog.Any("error", err))
			}
			continue
		}
		r.mu.Lock()
		_, runs := r.mu.fills[b.Sink]
		r.mu.Unlock()
		switch {
		case still && runs:
			r.stopFill(b.Sink)
		case !still && !runs:
			r.startFill(def.To[i], b)
		}
	}
}

func sameTarget(s *definition.Sink, b backfill) bool {
	x, ok := s.Settings.(sink.Shadower)
	return ok && s.Kind.Name == b.Kind && x.Target() == b.Target
}

func (r *running) stopFill(name string) {
	r.mu.Lock()
	x := r.mu.fills[name]
	delete(r.mu.fills, name)
	r.mu.Unlock()
	if x != nil {
		x.cancel()
		<-x.done
	}
}

// stopFills stops all of them.
func (r *running) stopFills() {
	r.mu.Lock()
	var all []string
	for name, x := range r.mu.fills {
		x.cancel()
		all = append(all, name)
	}
	r.mu.Unlock()
	for _, name := range all {
		r.stopFill(name)
	}
}

// startFill runs a backfill.
func (r *running) startFill(s *definition.Sink, b backfill) {
	c := r.all
	x, err := r.shadow(b)
	if err != nil {
		r.flow.logger.Error("start backfill", slog.String("sink", b.Sink), slog.Any("error", err))
		return
	}
	env := r.envOf(b.Sink)
	p := New(backfillReader(r.flow.name, b.Sink), r.flow.stream, c.cfg, c.deps.Log,
		func(ctx context.Context, _ string) (sink.Sink, error) { return x.Open(ctx, env) }, c.deps.Logger)
	p.source = &paced{source: ranged{tap{r.flow, s.Name, tabular(s)}, limits(b.To)}, rate: b.Rate}
	ctx, cancel := context.WithCancel(c.ctx)
	run := &fillRun{backfill: b, pipeline: p, cancel: cancel, done: make(chan struct{}), began: r.flow.now(), first: -1}
	r.mu.Lock()
	r.mu.fills[b.Sink] = run
	r.mu.Unlock()
	c.sinks.Add(1)
	go func() {
		defer close(run.done)
		defer c.sinks.Add(-1)
		if r.await(ctx) != nil || !r.make(ctx, run, x, env) {
			return
		}
		if err := p.Run(ctx); err != nil {
			c.fail(fmt.Errorf("backfill of pipeline %s, sink %s: %w", r.flow.name, b.Sink, err))
		}
	}()
}

// make makes the target, and tries again until that has worked; false: ctx has ended.
func (r *running) make(ctx context.Context, run *fillRun, x sink.Shadow, env sink.Env) bool {
	pause := r.all.cfg.BackoffMin.Std()
	for ctx.Err() == nil {
		keep, err := r.keeping(ctx, run.backfill)
		if err == nil {
			err = x.Make(ctx, env, run.From.Clone(), keep)
		}
		run.mu.Lock()
		run.mu.err = err
		run.mu.Unlock()
		if err == nil {
			return true
		}
		r.flow.logger.Warn("make the target of a backfill; trying again", slog.String("sink", run.Sink), slog.Any("error", err), slog.String("hint", fault.HintOf(err)))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, r.all.cfg.BackoffMax.Std())
	}
	return false
}

// keeping tells which rows of the sink's target stay as they are: those of events before
// the first place that is read again, and those of logs that are gone.
func (r *running) keeping(ctx context.Context, b backfill) (func(event.Position) bool, error) {
	st, err := r.flow.log.Stat(ctx, r.flow.stream)
	if err != nil {
		return nil, err
	}
	lives, from := map[event.Incarnation]bool{st.Incarnation: true}, limits(b.From)
	for _, x := range st.Ranges {
		lives[x.Incarnation] = true
	}
	return func(at event.Position) bool {
		first, ok := from[at.Partition]
		return !lives[at.Incarnation] || ok && at.Offset < first
	}, nil
}

// limits are offsets by partition of a stream: they run on through the lives of a log.
func limits(at event.Positions) map[int32]int64 {
	out := map[int32]int64{}
	for _, parts := range at {
		for partition, off := range parts {
			if partition < replayLane {
				out[partition] = max(out[partition], off)
			}
		}
	}
	return out
}

// ranged ends at an offset of each partition.
type ranged struct {
	tap
	to map[int32]int64 // empty: it does not end
}

// next implements source.
func (s ranged) next(ctx context.Context, from event.Position) (*portion, error) {
	if len(s.to) == 0 {
		return s.tap.next(ctx, from)
	}
	to := s.to[from.Partition] // 0: the partition came later
	if from.Offset >= to {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	x, err := s.tap.next(ctx, from)
	if err != nil || x.in.Next <= to {
		return x, err
	}
	cut := *x.in
	cut.Next = to
	out, err := x.out, error(nil)
	if out.Rows != nil {
		c := *out
		c.Rows = c.Rows.Only(func(r *event.Row) bool { return r.Offset < to })
		out = &c
	} else if out, err = taken(x.in, func(e *event.Event) bool { return e.Offset < to }); err != nil {
		return nil, err
	}
	c := *out
	c.Next = to
	n, _ := slices.BinarySearch(x.refused, to)
	return &portion{in: &cut, out: &c, refused: x.refused[:n:n]}, nil
}

// paced gives at most so many events a second.
type paced struct {
	source
	rate int64

	mu   sync.Mutex
	free time.Time // when the next one may go
}

// next implements source.
func (s *paced) next(ctx context.Context, from event.Position) (*portion, error) {
	x, err := s.source.next(ctx, from)
	if err != nil || s.rate <= 0 {
		return x, err
	}
	n, err := countBatch(x.in, x.in.From)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	now := time.Now()
	if s.free.Before(now) {
		s.free = now
	}
	s.free = s.free.Add(time.Duration(float64(n) / float64(s.rate) * float64(time.Second)))
	wait := s.free.Sub(now)
	s.mu.Unlock()
	select {
	case <-time.After(wait):
		return x, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// How near a backfill has to be before its sink stands still for it, in events, and how
// long that may take then.
const (
	nearEvents   = 50_000
	swapPatience = 30 * time.Second
)

// watchFills looks how far backfills are, and finishes those that are done. With
// changing held, which is passed on: what it returns has to be called, and ends it.
func (r *running) watchFills(ctx context.Context) (finish func()) {
	r.mu.Lock()
	var all []*fillRun
	for _, x := range r.mu.fills {
		all = append(all, x)
	}
	r.mu.Unlock()
	for _, x := range all {
		at, err := r.flow.log.Progress(ctx, backfillReader(r.flow.name, x.Sink))
		if err != nil || at.Positions == nil {
			continue
		}
		st, err := r.flow.log.Stat(ctx, r.flow.stream)
		if err != nil {
			continue
		}
		if at.Counts.Dropped > 0 {
			r.flow.logger.Error("backfill is given up: retention has dropped events that it had still to read (log.drop_unread)", slog.String("sink", x.Sink), slog.Int64("events", at.Counts.Dropped))
			if err := r.giveUp(x.Sink); err != nil {
				r.flow.logger.Warn("give up backfill", slog.Any("error", err))
			}
			continue
		}
		if x.Into != "" {
			if behind(st, x.To, at.Positions) == 0 {
				r.stopFill(x.Sink)
				if err := r.setPhase(x.Sink, finishing); err != nil {
					r.flow.logger.Warn("finish backfill", slog.Any("error", err))
					r.adjust() // it goes on, and is looked at again
					continue
				}
				r.flow.logger.Info("backfill is done", slog.String("sink", x.Sink), slog.String("into", x.Into), slog.Int64("events", at.Counts.Total()-x.Before))
			}
			continue
		}
		live, err := r.flow.log.Progress(ctx, sinkReader(r.flow.name, x.Sink))
		near := int64(nearEvents)
		if x.Rate > 0 {
			near = min(near, 10*x.Rate)
		}
		if err != nil || behind(st, live.Positions, at.Positions) > near {
			continue
		}
		return func() { r.swap(ctx, x) }
	}
	return nil
}

// behind is how many events lie between two places of a reader, 0 when at is not before
// the other.
func behind(st stream.Stat, to, at event.Positions) (n int64) {
	for partition := range starts(st, nil, nil) {
		a, b := stream.Reached(st, at, partition), stream.Reached(st, to, partition)
		if a < b {
			n += max(eventsBefore(st, partition, b)-eventsBefore(st, partition, a), 1)
		}
	}
	return n
}

// swap puts what was filled in the place of the sink's target. The sink stands still
// meanwhile; when that takes too long, or fails, it goes on. With changing held.
func (r *running) swap(ctx context.Context, x *fillRun) {
	defer r.adjust()
	err := r.meet(ctx, x)
	if err == nil {
		r.stopFill(x.Sink)
		err = r.caughtUp(ctx, x.Sink) // and that is durable
	}
	if err == nil {
		// From here on it is going to be done, by the next start if need be.
		err = r.setPhase(x.Sink, swapping)
	}
	if err == nil {
		_, err = r.swapAll(context.WithoutCancel(ctx))
	}
	if err != nil && ctx.Err() == nil {
		r.flow.logger.Warn("replace the target of a sink by its backfill; trying again", slog.String("sink", x.Sink), slog.Any("error", err), slog.String("hint", fault.HintOf(err)))
	}
}

// errBehind: the backfill has not got as far as its sink.
var errBehind = errors.New("the backfill has not caught up with the sink")

// caughtUp tells whether a backfill has durably got as far as its sink: else rows would
// vanish from the target for a while.
func (r *running) caughtUp(ctx context.Context, name string) error {
	st, err := r.flow.log.Stat(ctx, r.flow.stream)
	if err != nil {
		return err
	}
	live, err := r.flow.log.Progress(ctx, sinkReader(r.flow.name, name))
	if err != nil {
		return err
	}
	at, err := r.flow.log.Progress(ctx, backfillReader(r.flow.name, name))
	if err != nil {
		return err
	}
	if behind(st, live.Positions, at.Positions) > 0 {
		return errBehind
	}
	return nil
}

// meet stops the sink and waits until its backfill has got as far.
func (r *running) meet(ctx context.Context, x *fillRun) error {
	r.mu.Lock()
	s := r.mu.sinks[x.Sink]
	delete(r.mu.sinks, x.Sink)
	r.mu.Unlock()
	if s != nil {
		s.cancel()
		<-s.done
	}
	ctx, cancel := context.WithTimeoutCause(ctx, swapPatience, errBehind)
	defer cancel()
	for {
		err := r.caughtUp(ctx, x.Sink)
		if !errors.Is(err, errBehind) {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond): // it reads meanwhile
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := x.pipeline.Flush(ctx); err != nil {
			return err
		}
	}
}

// BackfillReport is what a backfill shows of itself.
type BackfillReport struct {
	Sink  string `json:"sink"`
	Table string `json:"table"` // that is filled, or replaced
	Into  bool   `json:"into"`  // it stays beside the sink's own
	Phase string `json:"phase"` // fill, swap, drop, cancel or done
	// Done of Of events are read, PerSecond since this server has begun with it.
	Done      int64     `json:"done"`
	Of        int64     `json:"of"`
	PerSecond float64   `json:"per_second"`
	Seconds   float64   `json:"seconds_left,omitempty"` // 0: not known
	Since     time.Time `json:"since"`
	LastError string    `json:"last_error,omitempty"`
	Hint      string    `json:"hint,omitempty"`
}

// Backfills shows those of a pipeline that go on.
func (c *Configured) Backfills(ctx context.Context, name string) ([]BackfillReport, error) {
	r, err := c.find(name)
	if err != nil {
		return nil, err
	}
	out := []BackfillReport{}
	for _, b := range r.flow.backfills() {
		x, err := r.report(ctx, b)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b BackfillReport) int { return strings.Compare(a.Sink, b.Sink) })
	return out, nil
}

func (r *running) report(ctx context.Context, b backfill) (BackfillReport, error) {
	out := BackfillReport{Sink: b.Sink, Table: b.Target, Phase: string(b.Phase), Since: b.Since}
	if b.Into != "" {
		out.Table, out.Into = b.Into, true
	}
	log := r.flow.log
	st, err := log.Stat(ctx, r.flow.stream)
	if err != nil {
		return out, err
	}
	at, err := log.Progress(ctx, backfillReader(r.flow.name, b.Sink))
	if err != nil {
		return out, err
	}
	out.Done = max(at.Counts.Total()-b.Before, 0)
	to := b.To
	if b.Into == "" {
		to = event.Positions{}
		for partition := range starts(st, nil, nil) {
			to.Advance(endOf(st, partition))
		}
	}
	out.Of = out.Done + behind(st, to, at.Positions)
	r.mu.Lock()
	run := r.mu.fills[b.Sink]
	r.mu.Unlock()
	if run == nil {
		return out, nil
	}
	status := run.pipeline.Status()
	out.LastError, out.Hint = status.LastError, status.Hint
	run.mu.Lock()
	defer run.mu.Unlock()
	if run.mu.err != nil {
		out.LastError, out.Hint = run.mu.err.Error(), fault.HintOf(run.mu.err)
	}
	if run.first < 0 {
		run.first = out.Done
	}
	if took := r.flow.now().Sub(run.began).Seconds(); took > 0 {
		out.PerSecond = float64(out.Done-run.first) / took
	}
	if out.PerSecond > 0 {
		out.Seconds = float64(out.Of-out.Done) / out.PerSecond
	}
	return out, nil
}
