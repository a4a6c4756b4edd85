package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/pipeline/definition"
	"naru/internal/recordbatch"
	"naru/internal/sink"
	"naru/internal/stream"
)

// rewinding is a rewind as the state has it until it is done. Each part of it may be
// done again.
type rewinding struct {
	// Readers are where each one reads again from, with the counts of what lies before.
	Readers map[string]stream.Progress `json:"readers"`
	// Targets are those that go back with their readers, by sink.
	Targets map[string]givesBack `json:"targets,omitempty"`
	// Redo is, by partition, up to where steps count as computed then of what is computed
	// again. It goes on in the events of the reader that says how far steps were computed.
	Redo    map[int32]int64 `json:"redo,omitempty"`
	Again   again           `json:"again"`
	Version version         `json:"version"` // in force for all places from then on
	// From becomes that of a pastRewind.
	From map[string]map[int32]int64 `json:"from,omitempty"`
	// Backfills begin with it.
	Backfills []backfill `json:"backfills,omitempty"`
}

// Rewind is what is asked for.
type Rewind struct {
	To   definition.Start `json:"to"`
	Sink string           `json:"sink,omitempty"` // empty: all
	// Again: a target that cannot give back what it has keeps it, and gets its rows again.
	Again bool `json:"again,omitempty"`
}

// Rereading says what was begun.
type Rereading struct {
	Pipeline string         `json:"pipeline"`
	Sinks    []RereadingOne `json:"sinks"`
	// Note tells of what cannot be read again: the log does not have it any more.
	Note string `json:"note,omitempty"`
}

// RereadingOne is one sink of it.
type RereadingOne struct {
	Sink   string `json:"sink"`
	Kind   string `json:"kind"`
	Events int64  `json:"events"` // to be read again, as far as the sink had got
	// Backfill: a target beside its own is filled with them, and then replaces it.
	Backfill bool `json:"backfill,omitempty"`
	// Again: the target keeps what it has, and gets the rows beside it.
	Again bool `json:"again,omitempty"`
}

// ErrAsk: what is asked of a pipeline cannot be done, for a reason that the error says.
var ErrAsk = errors.New("this cannot be done")

// refuseAsk makes an error of the class ErrAsk.
func refuseAsk(hint, format string, args ...any) error {
	return fault.WithHint(fmt.Errorf("%w: %w", ErrAsk, fmt.Errorf(format, args...)), "%s", hint)
}

// Rewind has sinks of a pipeline read again from the first event that was received at a
// time. It returns when that is durable and the sinks have begun.
func (c *Configured) Rewind(ctx context.Context, name string, ask Rewind) (*Rereading, error) {
	r, err := c.find(name)
	if err != nil {
		return nil, err
	}
	if ask.To.Latest {
		return nil, refuseAsk("give a time, or earliest", "a rewind goes back, and latest is where the stream ends")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)() // a stop does not wait for a target that is asked
	r.changing.Lock()
	defer r.changing.Unlock()
	if r.ended {
		return nil, fmt.Errorf("%q: %w", name, ErrNoPipeline)
	}
	if r.stuck {
		return nil, errStuck
	}
	sinks, err := r.chosen(ask.Sink)
	if err != nil {
		return nil, err
	}
	for _, b := range r.flow.backfills() {
		return nil, errBusy(b)
	}
	// From here on the sinks stand still: their last commits say what there is to read
	// again. They go on in any case.
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
		if _, ok := s.Settings.(sink.Shadower); ok {
			// Readers of its target never see a hole: it is filled anew and then replaced.
			n, err := r.planFill(ctx, p, s, Backfill{From: ask.To}, definition.Start{})
			if err != nil {
				return nil, err
			}
			if n > 0 {
				out.Sinks = append(out.Sinks, RereadingOne{Sink: s.Name, Kind: s.Kind.Name, Events: n, Backfill: true})
			}
			continue
		}
		to, n, err := r.back(ctx, sinkReader(name, s.Name), ask.To)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			continue
		}
		one, err := r.rewindable(ctx, s, ask, p, to, n)
		if err != nil {
			return nil, err
		}
		out.Sinks = append(out.Sinks, one)
	}
	if len(out.Sinks) == 0 {
		return nil, refuseAsk("", "there is nothing to read again: no event that a sink has passed was received at %s or later", startText(ask.To))
	}
	if out.Note, err = r.older(ctx, ask.To); err != nil {
		return nil, err
	}
	if err := r.begin(ctx, p); err != nil {
		return nil, err
	}
	r.flow.logger.Info("rewound", slog.String("to", startText(ask.To)), slog.Int("sinks", len(out.Sinks)))
	return out, nil
}

// errStuck: one at a time.
var errStuck = fault.Transient(errors.New("an earlier rewind is not done yet; it is tried again until it is"))

func startText(s definition.Start) string {
	b, _ := s.MarshalText() // never fails
	return string(b)
}

// chosen are the sinks of the file that a name means; all when it is empty.
func (r *running) chosen(name string) (out []*definition.Sink, err error) {
	def := r.def.Load()
	var known []string
	for _, s := range def.To {
		if known = append(known, s.Name); name == "" || s.Name == name {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return nil, refuseAsk(fmt.Sprintf("its sinks are %v", known), "pipeline %s has no sink %q", def.Name, name)
	}
	return out, nil
}

// back is the progress of a reader that reads again from a time on, and how many events
// that are. It does not go forward.
func (r *running) back(ctx context.Context, reader string, start definition.Start) (to stream.Progress, events int64, err error) {
	log := r.all.deps.Log
	at, err := log.Progress(ctx, reader)
	if err != nil {
		return to, 0, fmt.Errorf("load watermark of %s: %w", reader, err)
	}
	st, err := log.Stat(ctx, r.flow.stream)
	if errors.Is(err, stream.ErrNoStream) || at.Positions == nil {
		return to, 0, nil
	}
	if err != nil {
		return to, 0, err
	}
	want, err := startAt(ctx, log, r.flow.stream, start)
	if err != nil {
		return to, 0, err
	}
	offsets := map[int32]int64{}
	for partition := range starts(st, nil, nil) {
		reached := stream.Reached(st, at.Positions, partition)
		offsets[partition] = max(min(stream.Reached(st, want.Positions, partition), reached), beginOf(st, partition))
		events += max(eventsBefore(st, partition, reached)-eventsBefore(st, partition, offsets[partition]), 0)
	}
	return progressAt(st, offsets), events, nil
}

// older says so when a time lies before all that the log has left.
func (r *running) older(ctx context.Context, start definition.Start) (string, error) {
	st, err := r.all.deps.Log.Stat(ctx, r.flow.stream)
	if err != nil {
		return "", err
	}
	var gone int64
	for partition := range starts(st, nil, nil) {
		if st.Trimmed[partition] == 0 {
			continue
		}
		var dec recordbatch.Decoder
		b, err := r.all.deps.Log.Read(ctx, st.Stream, event.Position{Partition: partition}, 1)
		if err != nil {
			return "", err
		}
		b.Without = nil
		err = dec.EachIn(b, func(e *event.Event) error {
			if start.At.IsZero() || e.ReceivedAt.After(start.At) {
				gone += st.Trimmed[partition]
			}
			return recordbatch.ErrStop
		})
		if err != nil {
			return "", err
		}
	}
	if gone == 0 {
		return "", nil
	}
	return fmt.Sprintf("the log has dropped the oldest %d events of stream %s (log.retain_age, log.retain_bytes): they are not read again, and the rows made of them stay as they are", gone, st.Stream), nil
}

// plan is a rewind that changes no reader yet.
func (r *running) plan(ctx context.Context) (*rewinding, error) {
	f := r.flow
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.mu.state
	p := &rewinding{Readers: map[string]stream.Progress{}, Targets: map[string]givesBack{}, Redo: map[int32]int64{}, Version: s.Versions[len(s.Versions)-1], Again: again{Until: event.Positions{}, Records: event.Positions{}}}
	p.Version.From = event.Positions{}
	judged, err := f.log.Progress(ctx, judgedReader(f.name))
	if err != nil {
		return nil, fmt.Errorf("load how far steps were computed: %w", err)
	}
	p.until(judged.Positions)
	if s.Again != nil {
		p.until(s.Again.Until)
		p.Redo = judged.Clone().Events
	}
	for _, sk := range r.def.Load().To {
		at, err := f.log.Progress(ctx, sinkReader(f.name, sk.Name))
		if err != nil {
			return nil, fmt.Errorf("load watermark of %s: %w", sk.Name, err)
		}
		p.until(at.Positions)
	}
	st, err := f.log.Stat(ctx, event.RejectedStream)
	if errors.Is(err, stream.ErrNoStream) {
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	for _, x := range st.Ranges {
		p.Again.Records.Advance(event.Position{Incarnation: x.Incarnation, Partition: x.Partition, Offset: x.End})
	}
	return p, nil
}

func (p *rewinding) until(at event.Positions) {
	for inc, parts := range at {
		for partition, off := range parts {
			p.Again.Until.Advance(event.Position{Incarnation: inc, Partition: partition, Offset: off})
		}
	}
}

// read has a reader begin anew.
func (p *rewinding) read(reader string, to stream.Progress) { p.Readers[reader] = to }

// keepReplays gives to the places of a reader among the replays; from are those of them
// that it goes back to.
func (r *running) keepReplays(ctx context.Context, to *stream.Progress, reader string, from event.Positions) error {
	at, err := r.flow.log.Progress(ctx, reader)
	if err != nil {
		return fmt.Errorf("load watermark of %s: %w", reader, err)
	}
	for inc, parts := range at.Positions {
		for partition, off := range parts {
			if partition >= replayLane {
				if back, ok := from.Get(inc, partition); ok {
					off = min(off, back)
				}
				to.Positions.Advance(event.Position{Incarnation: inc, Partition: partition, Offset: off})
				to.Events[partition] = at.Events[partition]
			}
		}
	}
	return nil
}

// lasting adds to a plan what has to be known of it for good: from where on each sink gets
// what is computed anew, because it reads again or has not got further.
func (r *running) lasting(ctx context.Context, p *rewinding) error {
	p.From = map[string]map[int32]int64{}
	for _, s := range r.def.Load().To {
		reader := sinkReader(r.flow.name, s.Name)
		at, again := p.Readers[reader]
		if !again {
			var err error
			if at, err = r.flow.log.Progress(ctx, reader); err != nil {
				return fmt.Errorf("load watermark of %s: %w", reader, err)
			}
		}
		p.From[s.Name] = limits(at.Positions)
	}
	return nil
}

// begin makes a plan durable and carries it out. With changing held and all sinks halted.
func (r *running) begin(ctx context.Context, p *rewinding) error {
	f := r.flow
	st, err := f.log.Stat(ctx, f.stream)
	if err != nil {
		return err
	}
	p.lower(st)
	if err := r.lasting(ctx, p); err != nil {
		return err
	}
	if err := r.update(func(next *state) { next.Rewind = p }); err != nil {
		return err
	}
	r.stuck = true
	if err := r.goOn(ctx); err != nil {
		return fault.Transient(fmt.Errorf("rewind pipeline %s; it is tried again until it is done: %w", f.name, err))
	}
	return nil
}

// goOn does what is left of a rewind, and loads anew what the sinks share. Until that
// has worked they stand still. With changing held.
func (r *running) goOn(ctx context.Context) error {
	if !r.stuck {
		return nil
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // who has asked may go
	defer cancel()
	defer context.AfterFunc(r.all.ctx, cancel)() // a stop does not wait for a target: the next start goes on
	if err := r.finish(ctx); err != nil {
		return err
	}
	if err := r.reopen(ctx); err != nil {
		return err
	}
	r.stuck = false
	return nil
}

// lower takes the steps' verdicts back to the first place that is read again, in each
// life of the log.
func (p *rewinding) lower(st stream.Stat) {
	low := map[int32]int64{}
	for _, at := range p.Readers {
		for partition := range starts(st, nil, nil) {
			off := stream.Reached(st, at.Positions, partition)
			if was, ok := low[partition]; !ok || off < was {
				low[partition] = off
			}
		}
	}
	for partition, off := range p.Redo { // an earlier rewind goes on
		if was, ok := low[partition]; !ok || off < was {
			low[partition] = off
		}
	}
	begins := map[lane]int64{}
	for _, r := range st.Ranges {
		begins[lane{r.Incarnation, r.Partition}] = r.Start
	}
	for inc, parts := range p.Again.Until {
		for partition, until := range parts {
			from, ok := low[partition]
			if from = max(from, begins[lane{inc, partition}]); !ok || from >= until {
				delete(parts, partition) // nothing of it is read again
				continue
			}
			if was, ok := p.Redo[partition]; !ok || from < was {
				p.Redo[partition] = from
			}
		}
	}
	maps.DeleteFunc(p.Again.Until, func(_ event.Incarnation, parts map[int32]int64) bool { return len(parts) == 0 })
}

// finish does what is left of a rewind that was begun. No sink runs.
func (r *running) finish(ctx context.Context) error {
	f := r.flow
	f.mu.Lock()
	p := f.mu.state.Rewind
	f.mu.Unlock()
	if p == nil {
		return nil
	}
	// Readers before targets: retention then keeps what these are to get again, however
	// long one of them cannot be reached.
	for _, reader := range slices.Sorted(maps.Keys(p.Readers)) {
		at := p.Readers[reader]
		have, err := f.log.Progress(ctx, reader)
		if err != nil {
			return fmt.Errorf("load watermark of %s: %w", reader, err)
		}
		if have.Positions != nil && have.Positions.Equal(at.Positions) && have.Counts == at.Counts && maps.Equal(have.Events, at.Events) {
			continue // an attempt before this one has done it
		}
		if err := f.log.Commit(ctx, nil, reader, at.Clone()); err != nil {
			return fmt.Errorf("set %s back: %w", reader, err)
		}
	}
	def := r.def.Load()
	for _, s := range def.To {
		if x, ok := p.Targets[s.Name]; ok {
			if err := r.takeBack(ctx, s, x); err != nil {
				return fmt.Errorf("take sink %s back: %w", s.Name, err)
			}
		}
	}
	judged, err := f.log.Progress(ctx, judgedReader(f.name))
	if err != nil {
		return fmt.Errorf("load how far steps were computed: %w", err)
	}
	if judged.Positions != nil {
		judged = judged.Clone()
		judged.Events = maps.Clone(p.Redo)
		if err := f.log.Commit(ctx, nil, judgedReader(f.name), judged); err != nil {
			return fmt.Errorf("set back how far steps were computed: %w", err)
		}
	}
	if len(p.Again.Records) > 0 { // what is on record is looked at from the beginning
		at := stream.Progress{Stream: event.RejectedStream, Positions: event.Positions{}, Events: map[int32]int64{}}
		if err := f.log.Commit(ctx, nil, refusedReader(f.name), at); err != nil {
			return fmt.Errorf("set back where refusals begin: %w", err)
		}
	}
	return r.update(func(next *state) {
		next.Rewind, next.Versions = nil, []version{p.Version}
		next.Again = &p.Again
		next.rewind(pastRewind{Records: p.Again.Records, From: p.From})
		for _, s := range def.To {
			if at, ok := p.Readers[sinkReader(def.Name, s.Name)]; ok {
				next.countFrom(s.Name, limits(at.Positions))
			}
		}
		next.Backfills = append(slices.Clone(next.Backfills), p.Backfills...)
	})
}

// update changes the state, durably. With changing held.
func (r *running) update(change func(next *state)) error {
	r.flow.mu.Lock()
	defer r.flow.mu.Unlock() // across the write: what depends on the state waits for it
	next := *r.flow.mu.state
	change(&next)
	return r.keep(&next)
}

// reopen loads anew what the sinks share.
func (r *running) reopen(ctx context.Context) error {
	f := r.flow
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := r.load(); err != nil {
		return err
	}
	return f.open(ctx)
}
