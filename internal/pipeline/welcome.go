package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"naru/internal/event"
	"naru/internal/pipeline/definition"
	"naru/internal/stream"
)

// welcome notes where sinks begin that the log does not know yet, before they run. What
// was refused before they came is refused for them, too, and what was replayed they get
// from there: all as the others, from their beginning on. With changing held.
func (r *running) welcome() error {
	ctx, f, def := r.all.ctx, r.flow, r.def.Load()
	st, err := f.log.Stat(ctx, f.stream)
	if errors.Is(err, stream.ErrNoStream) {
		return nil // they begin with its first event
	}
	if err != nil {
		return err
	}
	fresh := map[string]sinkState{}
	var start map[int32]int64
	for _, s := range def.To {
		at, err := f.log.Progress(ctx, sinkReader(f.name, s.Name))
		if err != nil {
			return fmt.Errorf("load watermark of %s: %w", s.Name, err)
		}
		if at.Positions != nil {
			continue
		}
		if start == nil {
			begin, err := startAt(ctx, f.log, st.Stream, def.From.Start)
			if err != nil {
				return fmt.Errorf("find where sinks of pipeline %s begin: %w", f.name, err)
			}
			start = limits(begin.Positions)
		}
		fresh[s.Name] = sinkState{Start: start, Counts: start}
	}
	if len(fresh) == 0 {
		return nil
	}
	// One of that name that was here before has nothing to do with it.
	if err := r.update(func(next *state) { next.strangers(fresh) }); err != nil {
		return err
	}
	if err := f.relearn(ctx, fresh); err != nil {
		return err
	}
	return r.update(func(next *state) {
		all := maps.Clone(fresh)
		for _, s := range def.To {
			if x, ok := next.Sinks[s.Name]; ok && fresh[s.Name].Start == nil {
				all[s.Name] = x
			}
		}
		next.Sinks = all
	})
}

// relearn loads the verdicts again that sinks need which begin where others have been.
func (f *flow) relearn(ctx context.Context, fresh map[string]sinkState) error {
	f.mu.Lock()
	judged := len(f.mu.judged.Positions) > 0
	f.mu.Unlock()
	if !judged {
		return nil
	}
	// The next start has to load them, too.
	from := stream.Progress{Stream: event.RejectedStream, Positions: event.Positions{}, Events: map[int32]int64{}}
	if err := f.log.Commit(ctx, nil, refusedReader(f.name), from); err != nil {
		return fmt.Errorf("set back where refusals begin: %w", err)
	}
	places, err := f.places(ctx)
	if err != nil {
		return err
	}
	for name, s := range fresh {
		places[name] = s.Start
	}
	_, err = scan(ctx, f.log, f.name, f.stream, nil, stream.Bytes(f.most), func(record event.Position, row refusedRow) error {
		if row.by != "" {
			return nil // another sink's
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.mu.state.Again.former(record) {
			return nil
		}
		if f.anew(record, row.at, places) {
			f.mu.former.add(row)
			f.mu.known.forget(row.at)
			return nil
		}
		for _, s := range fresh {
			if row.at.Offset >= s.Start[row.at.Partition] {
				f.mu.known.add("", row.at, 0)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("load refusals: %w", err)
	}
	return nil
}

// anew tells of a rejection by a step that all sinks which have still to get to its event
// compute it again, as the others have in a rewind; reached are the places of sinks. Before
// the flow runs, or with f.mu held.
func (f *flow) anew(record, at event.Position, reached map[string]map[int32]int64) bool {
	some := false
	for name, places := range reached {
		if at.Offset < places[at.Partition] {
			continue
		}
		if !f.mu.state.recomputed(record, at, name) {
			return false
		}
		some = true
	}
	return some
}

// places is how far the sinks are, by partition.
func (f *flow) places(ctx context.Context) (map[string]map[int32]int64, error) {
	out := map[string]map[int32]int64{}
	for _, name := range f.sinks() {
		at, err := f.log.Progress(ctx, sinkReader(f.name, name))
		if err != nil {
			return nil, fmt.Errorf("load watermark of %s: %w", name, err)
		}
		out[name] = limits(at.Positions)
	}
	return out, nil
}

// first is where a sink begins that the log does not know.
func (r *running) first(ctx context.Context, name string, start definition.Start) (stream.Progress, error) {
	f := r.flow
	f.mu.Lock()
	began := f.mu.state.Sinks[name].Start
	f.mu.Unlock()
	st, err := f.log.Stat(ctx, f.stream)
	if began == nil || err != nil {
		return startAt(ctx, f.log, f.stream, start)
	}
	places := map[int32]int64{}
	for partition := range starts(st, nil, nil) {
		places[partition] = max(began[partition], beginOf(st, partition)) // retention may have come since
	}
	return progressAt(st, places), nil
}
