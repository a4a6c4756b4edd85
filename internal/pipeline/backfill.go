package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/pipeline/definition"
	"naru/internal/sink"
	"naru/internal/stream"
)

// backfill is one of a sink as the state has it. Whatever a crash leaves undone of it is
// done at the next start.
type backfill struct {
	Sink   string `json:"sink"`
	Kind   string `json:"kind"`
	Target string `json:"target"` // of the sink
	// Into is the target that is filled and stays beside; empty: one that replaces Target
	// as soon as it has caught up with the sink.
	Into  string          `json:"into,omitempty"`
	Phase phase           `json:"phase"`
	From  event.Positions `json:"from"`         // the first places that are read
	To    event.Positions `json:"to,omitempty"` // the first ones that are not; only with Into
	// Records is where the stream `rejected` ended when it began.
	Records event.Positions `json:"records,omitempty"`
	// Before are the events that lie before From.
	Before int64     `json:"before"`
	Rate   int64     `json:"rate,omitempty"` // events a second; 0: as fast as it goes
	Since  time.Time `json:"since"`
}

// phase is how far a backfill is.
type phase string

const (
	filling   phase = "fill"   // beside the sink
	swapping  phase = "swap"   // neither runs; target and positions change
	removing  phase = "drop"   // what was replaced goes
	giving    phase = "cancel" // what was filled goes
	finishing phase = "done"   // its reader goes
)

// Backfill is what is asked for.
type Backfill struct {
	From definition.Start `json:"from"`
	// To is `now`, or a time up to which events are read; with Into only.
	To   string `json:"to,omitempty"`
	Into string `json:"into,omitempty"` // see backfill.Into
	Sink string `json:"sink,omitempty"` // empty: all that can be backfilled
	Rate int64  `json:"rate,omitempty"`
}

// backfillReader names the reader that fills a target beside a sink.
func backfillReader(pipeline, sink string) string {
	return stream.BackfillReader + pipeline + "/" + sink
}

// Backfill has the newest steps run over a range of the stream, beside what goes on. It
// returns when that is durable; the work goes on by itself, over restarts too.
func (c *Configured) Backfill(ctx context.Context, name string, ask Backfill) (*Rereading, error) {
	r, err := c.find(name)
	if err != nil {
		return nil, err
	}
	to, err := ask.check()
	if err != nil {
		return nil, err
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	if r.ended {
		return nil, fmt.Errorf("%q: %w", name, ErrNoPipeline)
	}
	if r.stuck {
		return nil, errStuck
	}
	sinks, err := r.fillable(ask)
	if err != nil {
		return nil, err
	}
	r.halt()
	defer r.adjust()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out := &Rereading{Pipeline: name}
	p, err := r.plan(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range sinks {
		n, err := r.planFill(ctx, p, s, ask, to)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			out.Sinks = append(out.Sinks, RereadingOne{Sink: s.Name, Kind: s.Kind.Name, Events: n, Backfill: true})
		}
	}
	if len(out.Sinks) == 0 {
		return nil, refuseAsk("naru pipeline show names where its sinks are", "there is nothing to read again: no event of the range was received at %s or later", startText(ask.From))
	}
	if out.Note, err = r.older(ctx, ask.From); err != nil {
		return nil, err
	}
	if err := r.begin(ctx, p); err != nil {
		return nil, err
	}
	r.flow.logger.Info("backfill begins", slog.String("from", startText(ask.From)), slog.Int("sinks", len(out.Sinks)))
	return out, nil
}

// check reads what can be judged without the pipeline.
func (ask Backfill) check() (to definition.Start, err error) {
	switch {
	case ask.From.Latest:
		return to, refuseAsk("give a time, or earliest", "a backfill begins before latest, where the stream ends")
	case ask.Rate < 0:
		return to, refuseAsk("", "rate: must not be negative")
	case ask.To == "" || ask.To == "now":
		return to, nil
	}
	if err := to.UnmarshalText([]byte(ask.To)); err != nil || to.Latest || to.At.IsZero() {
		return to, refuseAsk("write now, or a time such as 2026-01-31T00:00:00Z", "to: %q is neither now nor a time", ask.To)
	}
	if ask.Into == "" {
		return to, refuseAsk("leave it out, or name a table of its own with into", "to: what replaces the sink's own table has to reach as far as that")
	}
	if !ask.From.At.IsZero() && !ask.From.At.Before(to.At) {
		return to, refuseAsk("", "the range is empty: it ends at %s and begins at %s", ask.To, startText(ask.From))
	}
	return to, nil
}

// fillable are the sinks that are meant and can be filled.
func (r *running) fillable(ask Backfill) (out []*definition.Sink, err error) {
	all, err := r.chosen(ask.Sink)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if _, ok := s.Settings.(sink.Shadower); ok {
			out = append(out, s)
			continue
		}
		if ask.Sink != "" {
			return nil, refuseAsk("naru pipeline rewind sends the rows to it again", "sink %s (%s) cannot be backfilled: only tables are filled anew beside what they have and then replaced", s.Name, s.Kind.Name)
		}
	}
	switch {
	case len(out) == 0:
		return nil, refuseAsk("naru pipeline rewind sends the rows to its sinks again", "pipeline %s has no sink that can be backfilled: only tables are", r.flow.name)
	case len(out) > 1 && ask.Into != "":
		return nil, refuseAsk("choose one with sink", "%d sinks of pipeline %s would write to %s", len(out), r.flow.name, ask.Into)
	}
	return out, nil
}

// errBusy: one at a time.
func errBusy(b backfill) error {
	return refuseAsk("wait for it, or give it up with naru pipeline backfill NAME --cancel", "a backfill of sink %s is going on", b.Sink)
}

// backfills are those of the state.
func (f *flow) backfills() []backfill {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.mu.state.Backfills)
}

// fills tells whether a reader is that of a backfill which goes on, or begins.
func (f *flow) fills(reader string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.mu.state.Rewind; p != nil {
		if _, ok := p.Readers[reader]; ok {
			return true
		}
	}
	return slices.ContainsFunc(f.mu.state.Backfills, func(b backfill) bool { return backfillReader(f.name, b.Sink) == reader })
}

// planFill adds the backfill of one sink to a plan, and tells how many events it reads
// of those that are there.
func (r *running) planFill(ctx context.Context, p *rewinding, s *definition.Sink, ask Backfill, to definition.Start) (int64, error) {
	for _, b := range r.flow.backfills() {
		if b.Sink == s.Name {
			return 0, errBusy(b)
		}
	}
	settings := s.Settings.(sink.Shadower)
	b := backfill{Sink: s.Name, Kind: s.Kind.Name, Target: settings.Target(), Into: ask.Into, Phase: filling, Rate: ask.Rate, Since: r.flow.now().UTC().Truncate(time.Second)}
	x, err := settings.Shadow(b.Target, b.Into)
	if err != nil {
		return 0, refuseAsk("", "into: %w", err)
	}
	reader := backfillReader(r.flow.name, s.Name)
	var at stream.Progress
	var n int64
	if b.Into == "" {
		at, n, err = r.back(ctx, sinkReader(r.flow.name, s.Name), ask.From)
	} else {
		at, b.To, n, err = r.span(ctx, ask.From, to)
	}
	if err != nil || n == 0 {
		return 0, err
	}
	env := r.envOf(s.Name)
	there, err := x.Exists(ctx, env)
	switch {
	case err != nil:
		return 0, err
	case there && b.Into != "":
		return 0, refuseAsk("take another name, or drop it first", "into: there is a table %s already", b.Into)
	}
	// What a pipeline of that name has left, whose state is gone.
	if b.Into == "" {
		if err := x.Drop(ctx, env); err != nil {
			return 0, err
		}
	}
	b.From, b.Before, b.Records = at.Positions.Clone(), at.Counts.Total(), p.Again.Records.Clone()
	p.read(reader, at)
	p.Backfills = append(p.Backfills, b)
	return n, nil
}

// span is where a range begins and ends, and how many events it has.
func (r *running) span(ctx context.Context, from, to definition.Start) (at stream.Progress, end event.Positions, n int64, err error) {
	log := r.all.deps.Log
	at, err = startAt(ctx, log, r.flow.stream, from)
	if err != nil {
		return at, nil, 0, err
	}
	if to.At.IsZero() {
		to.Latest = true
	}
	until, err := startAt(ctx, log, r.flow.stream, to)
	if err != nil {
		return at, nil, 0, err
	}
	return at, until.Positions, until.Counts.Total() - at.Counts.Total(), nil
}

// CancelBackfill gives up what is being filled; an empty sink: of all. What has been
// swapped already stays.
func (c *Configured) CancelBackfill(ctx context.Context, name, only string) error {
	r, err := c.find(name)
	if err != nil {
		return err
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	if r.ended {
		return fmt.Errorf("%q: %w", name, ErrNoPipeline)
	}
	found := false
	for _, b := range r.flow.backfills() {
		if only != "" && b.Sink != only || b.Phase != filling {
			continue
		}
		found = true
		if err := r.giveUp(b.Sink); err != nil {
			return fault.Transient(err)
		}
	}
	if !found {
		return refuseAsk("naru pipeline show names what goes on", "pipeline %s has no backfill to give up", name)
	}
	return r.clearFills(ctx)
}

// giveUp notes that a backfill is not to go on, and stops it. With changing held.
func (r *running) giveUp(name string) error {
	if err := r.setPhase(name, giving); err != nil {
		return err
	}
	r.stopFill(name)
	return nil
}

// setPhase makes a phase durable; an empty one removes the backfill. With changing held.
func (r *running) setPhase(name string, to phase) error {
	f := r.flow
	f.mu.Lock()
	defer f.mu.Unlock() // across the write: passed asks for the backfills
	next := *f.mu.state
	next.Backfills = slices.Clone(next.Backfills)
	i := slices.IndexFunc(next.Backfills, func(b backfill) bool { return b.Sink == name })
	if i < 0 {
		return nil
	}
	if next.Backfills[i].Phase = to; to == "" {
		next.Backfills = slices.Delete(next.Backfills, i, i+1)
	}
	return f.save(&next)
}

// shadow is the target of a backfill, also when its sink is not in the file any more.
func (r *running) shadow(b backfill) (sink.Shadow, error) {
	for _, k := range r.all.deps.Kinds {
		if k.Name != b.Kind {
			continue
		}
		if s, ok := k.Settings().(sink.Shadower); ok {
			return s.Shadow(b.Target, b.Into)
		}
	}
	return nil, fmt.Errorf("there is no kind of sink %s that can be backfilled", b.Kind)
}

// swapAll finishes the swaps that were begun. Until then their sinks stand still. With
// changing held.
func (r *running) swapAll(ctx context.Context) (some bool, err error) {
	for _, b := range r.flow.backfills() {
		if b.Phase != swapping {
			continue
		}
		some = true
		// The state may say so although it could not be written for sure, and both have
		// gone on.
		err := r.caughtUp(ctx, b.Sink)
		if errors.Is(err, errBehind) {
			err = r.setPhase(b.Sink, filling)
		} else if err == nil {
			err = r.finishSwap(ctx, b)
		}
		if err != nil {
			return some, fmt.Errorf("replace the target of sink %s: %w", b.Sink, err)
		}
	}
	return some, nil
}

func (r *running) finishSwap(ctx context.Context, b backfill) error {
	x, err := r.shadow(b)
	if err != nil {
		return err
	}
	// The target first: until the watermark has moved it lags, and the target skips what
	// it has.
	if err := x.Swap(ctx, r.envOf(b.Sink)); err != nil {
		return err
	}
	at, err := r.flow.log.Progress(ctx, backfillReader(r.flow.name, b.Sink))
	if err != nil {
		return err
	}
	at = at.Clone()
	if err := r.keepReplays(ctx, &at, sinkReader(r.flow.name, b.Sink), nil); err != nil {
		return err
	}
	if err := r.flow.log.Commit(ctx, nil, sinkReader(r.flow.name, b.Sink), at); err != nil {
		return fmt.Errorf("move the watermark: %w", err)
	}
	r.flow.logger.Info("backfill has replaced the target", slog.String("sink", b.Sink), slog.String("target", b.Target), slog.String("at", at.Positions.String()))
	return r.setSwapped(b)
}

// setSwapped makes it durable that a backfill has replaced the target of its sink. With
// changing held.
func (r *running) setSwapped(b backfill) error {
	return r.update(func(next *state) {
		next.Backfills = slices.Clone(next.Backfills)
		for i := range next.Backfills {
			if next.Backfills[i].Sink == b.Sink {
				next.Backfills[i].Phase = removing
			}
		}
		past := pastRewind{Records: b.Records, From: map[string]map[int32]int64{b.Sink: limits(b.From)}}
		for _, s := range r.def.Load().To {
			if s.Name != b.Sink {
				past.Apart = append(past.Apart, s.Name)
			}
		}
		next.rewind(past)
		next.countFrom(b.Sink, limits(b.From))
	})
}

// clearFills removes what backfills leave behind that are over. With changing held.
func (r *running) clearFills(ctx context.Context) error {
	var errs []error
	for _, b := range r.flow.backfills() {
		if b.Phase == filling || b.Phase == swapping {
			continue
		}
		errs = append(errs, r.clearFill(ctx, b))
	}
	return errors.Join(errs...)
}

func (r *running) clearFill(ctx context.Context, b backfill) error {
	if b.Phase != finishing {
		x, err := r.shadow(b)
		if err == nil {
			err = x.Drop(ctx, r.envOf(b.Sink))
		}
		if err != nil {
			return fmt.Errorf("remove what a backfill of sink %s leaves: %w", b.Sink, err)
		}
	}
	if f, ok := r.flow.log.(stream.Forgetter); ok {
		if err := f.Forget(ctx, backfillReader(r.flow.name, b.Sink)); err != nil {
			return err
		}
	}
	return r.setPhase(b.Sink, "")
}

// abandon gives up all backfills of a pipeline that is gone.
func (r *running) abandon(ctx context.Context) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	for _, b := range r.flow.backfills() {
		if b.Phase == filling {
			if err := r.setPhase(b.Sink, giving); err != nil {
				return err
			}
		}
	}
	return r.clearFills(ctx)
}
