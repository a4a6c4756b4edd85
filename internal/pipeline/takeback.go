package pipeline

import (
	"context"
	"errors"
	"fmt"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/pipeline/definition"
	"naru/internal/sink"
	"naru/internal/stream"
)

// givesBack says how the target of a sink goes back.
type givesBack struct {
	From  event.Positions `json:"from"` // the first places that go
	Again bool            `json:"again,omitempty"`
}

// rewindable adds a sink to a plan whose reader would go back to a place and read n
// events again, or tells why it cannot be taken back: its target is asked.
func (r *running) rewindable(ctx context.Context, s *definition.Sink, ask Rewind, p *rewinding, to stream.Progress, n int64) (out RereadingOne, err error) {
	out = RereadingOne{Sink: s.Name, Kind: s.Kind.Name, Events: n}
	st, err := r.flow.log.Stat(ctx, r.flow.stream)
	if err != nil {
		return out, err
	}
	k, err := r.opener(s)(ctx, r.flow.stream)
	if err != nil {
		return out, fmt.Errorf("open sink %s: %w", s.Name, err)
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	from := gone(st, to.Positions)
	why := sink.ErrStays
	back, ok := k.(sink.Rewinder)
	if ok {
		var got event.Positions
		if got, why = back.Rewindable(ctx, from); why == nil {
			from = got
			if to, why = r.earlier(st, to, from); why == nil {
				why = r.hasReplays(ctx, from)
			}
		}
		if why != nil && !errors.Is(why, sink.ErrStays) {
			return out, fmt.Errorf("ask sink %s whether it can be taken back: %w", s.Name, why)
		}
	} else if _, exact := k.(sink.Resumer); exact {
		return out, refuseAsk("take a new target, or leave it out: --sink names the one that is meant",
			"sink %s (%s) keeps positions beside its rows and cannot be taken back: it would skip all that it has", s.Name, s.Kind.Name)
	}
	if why != nil {
		if !ask.Again {
			hint := "--again sends it the rows again, beside what it has; --sink names one that is meant"
			if cure := fault.HintOf(why); cure != "" {
				hint = cure + "; or " + hint
			}
			return out, refuseAsk(hint,
				"sink %s (%s) cannot be taken back: %w", s.Name, s.Kind.Name, why)
		}
		out.Again = true
	}
	at, err := r.flow.log.Progress(ctx, sinkReader(r.flow.name, s.Name))
	if err != nil {
		return out, err
	}
	out.Events = behind(st, at.Positions, to.Positions)
	// Replays that the target keeps do not come again; those that go with others do, but
	// for what is computed anew.
	if err := r.keepReplays(ctx, &to, sinkReader(r.flow.name, s.Name), from); err != nil {
		return out, err
	}
	if ok {
		p.Targets[s.Name] = givesBack{From: from, Again: out.Again}
	}
	p.read(sinkReader(r.flow.name, s.Name), to)
	return out, nil
}

// gone is a place as a target is told of it: the first offsets that go, in each life of
// the log that has some (sink.Rewinder).
func gone(st stream.Stat, to event.Positions) event.Positions {
	out := event.Positions{}
	for partition := range starts(st, nil, nil) {
		at := max(stream.Reached(st, to, partition), beginOf(st, partition))
		for _, r := range st.Ranges {
			off := at
			if r.Start > at {
				off = 0 // all of that life
			}
			if r.Partition == partition && r.End > at {
				out.Advance(event.Position{Incarnation: r.Incarnation, Partition: partition, Offset: off})
			}
		}
	}
	return out
}

// earlier is a reader's place when its target goes back farther than was asked for, as
// to where a file begins. The log must have all from there on.
func (r *running) earlier(st stream.Stat, to stream.Progress, from event.Positions) (stream.Progress, error) {
	for inc, parts := range from {
		for partition, off := range parts {
			if partition < replayLane && !has(st, event.Position{Incarnation: inc, Partition: partition, Offset: off}) {
				return to, errGoesToo
			}
		}
	}
	offsets := map[int32]int64{}
	for partition := range starts(st, nil, nil) {
		offsets[partition] = stream.Reached(st, to.Positions, partition)
		for _, x := range st.Ranges {
			if off, ok := from.Get(x.Incarnation, partition); ok && x.Partition == partition {
				offsets[partition] = min(offsets[partition], max(off, x.Start))
			}
		}
	}
	return progressAt(st, offsets), nil
}

// errGoesToo: a target cannot go back without more than the log can bring again.
var errGoesToo = fmt.Errorf("%w: with what is to go would go rows of events that the log does not have any more", sink.ErrStays)

// hasReplays tells whether the log has all replays from a place on that go with others.
func (r *running) hasReplays(ctx context.Context, from event.Positions) error {
	st, err := r.flow.log.Stat(ctx, replayStream(r.flow.name))
	if err != nil && !errors.Is(err, stream.ErrNoStream) {
		return err
	}
	st = inReplayLane(st)
	for inc, parts := range from {
		for partition, off := range parts {
			if partition >= replayLane && !has(st, event.Position{Incarnation: inc, Partition: partition, Offset: off}) {
				return errGoesToo
			}
		}
	}
	return nil
}

// has tells whether the log has all of a life from a place on.
func has(st stream.Stat, at event.Position) bool {
	first := true
	for _, r := range st.Ranges {
		if r.Partition != at.Partition {
			continue
		}
		if r.Incarnation == at.Incarnation {
			// A life begins where the one before it has ended; the oldest may have been longer.
			return !first || at.Offset >= r.Start || st.Trimmed[at.Partition] == 0
		}
		first = false
	}
	return false
}

// takeBack takes the target of a sink back; it may be done again.
func (r *running) takeBack(ctx context.Context, s *definition.Sink, x givesBack) (err error) {
	k, err := r.opener(s)(ctx, r.flow.stream)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	if back, ok := k.(sink.Rewinder); ok {
		return back.Rewind(ctx, x.From, x.Again)
	}
	return nil
}
