package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/pipeline/definition"
	"naru/internal/recordbatch"
	"naru/internal/sink"
	"naru/internal/stream"
	"naru/internal/transform"
)

// Replay computes events again that a pipeline has refused, by its steps of now, and
// makes records of them that its sinks read. Until Release nothing changes the pipeline.
// Not for concurrent use.
type Replay struct {
	running *running // nil: there is none, see absent
	absent  *event.Rejection
	compute func(rejected *event.Event) (*event.Rejection, error) // nil, nil: it is in b

	b      recordbatch.Builder
	writes []stream.Write
	taken  int // events
}

// Replay begins one; the caller releases it. Where there is no such pipeline, all that it
// is given stays refused.
func (c *Configured) Replay(ctx context.Context, name string) (*Replay, error) {
	p := &Replay{}
	r, err := c.find(name)
	if err == nil {
		if err = r.hold(ctx); err != nil {
			return nil, fmt.Errorf("replay to pipeline %s: %w", name, err)
		}
		if r.ended {
			r.changing.Unlock()
			err = fault.WithHint(fmt.Errorf("%q: %w", name, ErrNoPipeline), "naru pipeline ls lists them")
		}
	}
	if err != nil {
		p.absent = &event.Rejection{Reason: event.NoPipeline, Detail: fmt.Sprintf("pipeline %s: %s; bring pipelines/%s.yaml back and replay again, or discard it", name, fault.Sentence(err), name)}
		return p, nil
	}
	p.running = r
	p.b.Reset(r.flow.now())
	p.compute = func(rejected *event.Event) (*event.Rejection, error) { return p.again(ctx, rejected) }
	if r.stuck {
		p.Release()
		return nil, fmt.Errorf("replay to pipeline %s: %w", name, errStuck)
	}
	if err := r.flow.keepReplays(ctx); err != nil {
		p.Release()
		return nil, fmt.Errorf("replay to pipeline %s: %w", name, err)
	}
	return p, nil
}

// hold takes changing, as long as ctx allows: a change may wait for a sink that hangs.
func (r *running) hold(ctx context.Context) error {
	tick := time.NewTicker(patience)
	defer tick.Stop()
	for !r.changing.TryLock() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// keepReplays registers the reader that keeps replays from retention, before there are any.
func (f *flow) keepReplays(ctx context.Context) error {
	at, err := f.log.Progress(ctx, replayReader(f.name))
	if err != nil || at.Positions != nil {
		return err
	}
	return f.log.Commit(ctx, nil, replayReader(f.name), stream.Progress{Stream: replayStream(f.name), Positions: event.Positions{}, Events: map[int32]int64{}})
}

// Judge computes the event of a rejection again. A nil refusal: it is the number-th event
// in Writes. The rejection is not needed any more when Judge returns.
func (p *Replay) Judge(rejected *event.Event) (refusal *event.Rejection, partition int32, number int, err error) {
	if p.running == nil {
		no := *p.absent
		no.Rule, no.Path = rejected.Refusal.Rule, rejected.Refusal.Path
		return &no, 0, 0, nil
	}
	refusal, err = p.compute(rejected)
	if refusal != nil || err != nil {
		return refusal, 0, 0, err
	}
	p.taken++
	return nil, 0, p.taken - 1, nil
}

// Writes are all that were accepted, until Release.
func (p *Replay) Writes() []stream.Write {
	if p.running != nil {
		p.cut()
	}
	return p.writes
}

func (p *Replay) cut() {
	n := p.b.Count()
	if n == 0 {
		return
	}
	p.writes = append(p.writes, stream.Write{Stream: replayStream(p.running.flow.name), Batch: p.b.Finish(nil, recordbatch.Snappy), Count: n})
	p.b.Reset(p.running.flow.now())
}

// Release lets the pipeline go on with its changes.
func (p *Replay) Release() {
	if p.running != nil {
		p.running.changing.Unlock()
		p.running = nil
	}
	p.writes = nil
}

// refusedAt is what a rejection says of the place of its event. In the table it stands at
// the end of the rejection's own id.
func refusedAt(rejected *event.Event) (at event.Position, row int32, err error) {
	key := rejected.Refusal.At
	if key == "" {
		parts := strings.Split(string(rejected.ID), "/")
		key = strings.Join(parts[max(len(parts)-4, 0):], "/")
	}
	return sink.ParseKey(key)
}

// again computes one event, and adds it to what is to be appended. With changing held.
func (p *Replay) again(ctx context.Context, rejected *event.Event) (*event.Rejection, error) {
	r, old := p.running, rejected.Refusal
	f, def := r.flow, r.def.Load()
	no := func(reason event.Reason, format string, args ...any) (*event.Rejection, error) {
		return &event.Rejection{Reason: reason, Rule: old.Rule, Path: old.Path, Detail: fmt.Sprintf(format, args...)}, nil
	}
	place, row, err := refusedAt(rejected)
	if err != nil || rejected.Origin == nil {
		return no(event.EventGone, "the rejection does not say where its event stands")
	}
	if old.Stream != f.stream {
		return no(event.NoPipeline, "pipeline %s reads stream %s now, and the event stands in %s; discard it", f.name, f.stream, old.Stream)
	}
	h := &replayHead{Stream: f.stream, Rejection: *rejected.Origin, Of: place, Row: row, Step: old.Path, Further: old.Index > 0}
	sinks := def.To
	if old.Reason == event.SinkRefused {
		h.Sink = old.Path
		sinks = slices.DeleteFunc(slices.Clone(sinks), func(s *definition.Sink) bool { return s.Name != old.Path })
		if len(sinks) == 0 {
			return no(event.NoPipeline, "pipeline %s has no sink %s any more; bring it back and replay again, or discard it", f.name, old.Path)
		}
	}
	e, _, err := f.refusedEvent(ctx, place)
	if errors.Is(err, errGone) {
		return no(event.EventGone, "the log has the event at %s no more (log.retain_age, log.retain_bytes); naru rejected show has its bytes, to be sent as a new event, or discard it", place)
	}
	if err != nil {
		return nil, err
	}
	h.At = *e.Origin
	for _, s := range sinks {
		if f.recomputed(h.Rejection, h.At, s.Name) {
			return no(event.Recomputed, "the pipeline was rewound over the event since, for sink %s: what came of it then holds; discard it, or mend the steps and rewind again", s.Name)
		}
	}
	if h.Sink == "" && f.allHad(h.Rejection, h.At, sinks) {
		return no(event.Recomputed, "the steps have refused the event in a rewind or a backfill of what is not there any more, and all sinks have had it before; discard it")
	}
	done, columnless, err := r.rows(ctx, def, &e, sinks)
	if err != nil {
		return nil, err
	}
	h.Plain, h.Columns = columnless, done.Batch.Columns
	for _, r := range routesOf(def, sinks) {
		h.Routes = append(h.Routes, r.To)
	}
	h.All = []string{}
	for _, s := range def.To {
		if !slices.Contains(h.Routes, s.Name) {
			h.All = append(h.All, s.Name)
		}
	}
	if len(done.Refused) > 0 {
		x := done.Refused[0]
		return &event.Rejection{Reason: event.StepFailed, Rule: stream.PipelineReader + f.name, Path: x.Step, Detail: x.Detail}, nil
	}
	rows := done.Batch.Rows
	if h.Sink != "" { // the others are in the target
		rows = rows.Only(func(r *event.Row) bool { return r.Number == row })
	}
	data, err := appendReplay(nil, h, &e, rows)
	if err != nil {
		return nil, err
	}
	p.b.AppendEvent(&event.Event{ID: []byte(h.Rejection.String()), GeneratedID: true, Source: []byte("naru/pipeline/" + f.name), Type: []byte("naru.replay"),
		ContentType: []byte("application/octet-stream"), Data: data})
	if p.b.Size() >= recordbatch.CutSize {
		p.cut()
	}
	return nil, nil
}

// rows computes the steps of now on one event. columnless: there are none, so sinks that
// need no columns get the event as it is.
func (r *running) rows(ctx context.Context, def *definition.Definition, e *event.Event, sinks []*definition.Sink) (done *transform.Applied, columnless bool, err error) {
	f := r.flow
	f.mu.Lock()
	hash := f.mu.state.Versions[len(f.mu.state.Versions)-1].Hash
	f.mu.Unlock()
	x := program{key: hash, types: def.From.Types, steps: def.Steps}
	if columnless = len(def.Steps) == 0; columnless {
		x.key, x.steps = x.key+"+", transform.Everything
	}
	if len(sinks) < len(def.To) {
		x.key += " for " + sinks[0].Name
	}
	x.steps = slices.Concat(x.steps, routesOf(def, sinks))
	if done, err = f.one(ctx, x, e, *e.Origin); err != nil {
		return nil, false, err
	}
	if len(def.From.Types) > 0 && !slices.Contains(def.From.Types, string(e.Type)) {
		columnless = false // left out
	}
	if columnless && !slices.ContainsFunc(sinks, func(s *definition.Sink) bool { return tabular(s) }) {
		done.Refused = slices.DeleteFunc(done.Refused, func(r transform.Refused) bool { return r.To == "" }) // nobody needs the columns
	}
	return done, columnless, nil
}

// routesOf are the routes to some sinks: what that of another cannot be computed on is no
// matter of theirs.
func routesOf(def *definition.Definition, sinks []*definition.Sink) []transform.Step {
	return slices.DeleteFunc(slices.Clone(def.Routes()), func(r transform.Step) bool {
		return !slices.ContainsFunc(sinks, func(s *definition.Sink) bool { return s.Name == r.To })
	})
}

// tabular tells whether a sink needs columns.
func tabular(s *definition.Sink) bool {
	return s.Kind.Tabular != nil && s.Kind.Tabular(s.Settings)
}

// recomputed is state.recomputed, with what is being computed again for a target that is
// to replace the sink's.
func (f *flow) recomputed(rejection, at event.Position, sink string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.state.recomputed(rejection, at, sink) {
		return true
	}
	return slices.ContainsFunc(f.mu.state.Backfills, func(b backfill) bool {
		return b.Sink == sink && b.Into == "" && (b.Phase == filling || b.Phase == swapping) &&
			rejection.Offset < limits(b.Records)[rejection.Partition] && at.Offset >= limits(b.From)[at.Partition]
	})
}

// allHad tells whether state.had holds for all sinks.
func (f *flow) allHad(rejection, at event.Position, sinks []*definition.Sink) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !slices.ContainsFunc(sinks, func(s *definition.Sink) bool { return !f.mu.state.had(rejection, at, s.Name) })
}

// errGone: the log has the event no more.
var errGone = errors.New("the log does not have the event")

// refusedEvent reads an event that was refused, from the stream or, when place is that of
// a replay, from there. Its Origin is where it stands in the stream. further is what the
// replay says of itself.
func (f *flow) refusedEvent(ctx context.Context, place event.Position) (e event.Event, further bool, err error) {
	name, from := f.stream, place
	if from.Partition >= replayLane {
		name = replayStream(f.name)
		from.Partition -= replayLane
	}
	st, err := f.log.Stat(ctx, name)
	if errors.Is(err, stream.ErrNoStream) {
		return e, false, errGone
	}
	if err != nil {
		return e, false, err
	}
	if !slices.ContainsFunc(st.Ranges, func(r stream.Range) bool {
		return r.Incarnation == from.Incarnation && r.Partition == from.Partition && from.Offset >= r.Start && from.Offset < r.End
	}) {
		return e, false, errGone
	}
	b, err := f.log.Read(ctx, name, from, 1)
	if errors.Is(err, stream.ErrTrimmed) {
		return e, false, errGone
	}
	if err != nil {
		return e, false, fmt.Errorf("read the event at %s: %w", place, err)
	}
	origin, found := from, false
	var dec recordbatch.Decoder
	err = dec.EachIn(b, func(x *event.Event) error {
		if found = x.Offset == from.Offset; !found {
			return recordbatch.ErrStop
		}
		if name == f.stream {
			e = clone(x)
			return recordbatch.ErrStop
		}
		h, batch, err := readHead(x.Data)
		if err == nil {
			e, _, err = readRows(h, batch)
			origin, further = h.At, h.Further
		}
		if err != nil {
			return err
		}
		return recordbatch.ErrStop
	})
	if err == nil && !found {
		err = errGone
	}
	if err != nil {
		return e, false, fmt.Errorf("read the event at %s: %w", place, err)
	}
	e.Origin = &origin
	return e, further, nil
}

// replayedBefore gives what rejections were replayed, as far as the log has it.
func (f *flow) replayedBefore(ctx context.Context, fn func(h *replayHead)) error {
	st, err := f.log.Stat(ctx, replayStream(f.name))
	if errors.Is(err, stream.ErrNoStream) {
		return nil
	}
	if err != nil {
		return err
	}
	var dec recordbatch.Decoder
	for partition, at := range starts(st, nil, nil) {
		for upTo := endOf(st, partition); max(at.Offset, beginOf(st, partition)) < upTo.Offset; {
			b, err := f.log.Read(ctx, st.Stream, at, stream.Bytes(f.most))
			if err != nil {
				return fmt.Errorf("read %s: %w", st.Stream, err)
			}
			if err := dec.EachIn(b, func(e *event.Event) error {
				h, _, err := readHead(e.Data)
				if err == nil {
					fn(h)
				}
				return err
			}); err != nil {
				return err
			}
			at = b.End()
		}
	}
	return nil
}

// releaseReplays lets retention drop the replays that all sinks have passed. With f.mu
// held.
func (f *flow) releaseReplays(ctx context.Context) error {
	was, err := f.log.Progress(ctx, replayReader(f.name))
	if err != nil || was.Positions == nil {
		return err
	}
	st, err := f.log.Stat(ctx, replayStream(f.name))
	if errors.Is(err, stream.ErrNoStream) {
		return nil
	}
	if err != nil {
		return err
	}
	next := event.Positions{}
	for _, r := range st.Ranges { // up to the end of a life at most: a sink in a later one has passed it
		low := f.mu.passed(lane{r.Incarnation, r.Partition + replayLane})
		if low > 0 {
			next.Advance(event.Position{Incarnation: r.Incarnation, Partition: r.Partition, Offset: low})
		}
	}
	if len(next) == 0 || next.Equal(was.Positions) {
		return nil
	}
	f.logger.Debug("all sinks have the replays", slog.String("up to", next.String()))
	return f.log.Commit(ctx, nil, replayReader(f.name), stream.Progress{Stream: st.Stream, Positions: next, Events: map[int32]int64{}})
}
