package pipeline

import (
	"context"
	"fmt"

	"naru/internal/event"
)

// settle implements source: what the steps have refused below done, and what the sink
// has, becomes durable together with the place up to which steps were computed.
func (t tap) settle(ctx context.Context, done event.Positions, told refused) error {
	records, err := t.records(ctx, told)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock() // across the append: verdicts go in order, and nobody may commit before
	ahead := len(records) > 0
	next := t.mu.judged.Clone()
	next.Stream, next.Events = t.stream, map[int32]int64{} // see rewinding.Redo
	var events []event.Event
	for k, l := range t.mu.lanes {
		if l.front == 0 {
			continue
		}
		if upTo, ok := done.Get(k.inc, k.partition); ok {
			have, _ := next.Positions.Get(k.inc, k.partition)
			redone, again := t.mu.judged.Events[k.partition]
			ahead = ahead || (upTo > have || again && upTo > redone) && t.steps()
		}
		for _, r := range l.pending {
			if !r.former {
				events = append(events, r.record)
			}
		}
		next.Positions.Advance(event.Position{Incarnation: k.inc, Partition: k.partition, Offset: l.front})
		if was, ok := next.Events[k.partition]; l.until > 0 && (!ok || l.redo < was) {
			next.Events[k.partition] = l.redo
		}
	}
	if !ahead && len(events) == 0 {
		return nil
	}
	if err := t.log.Commit(ctx, writesOf(event.RejectedStream, append(events, records...), t.now()), judgedReader(t.name), next); err != nil {
		return fmt.Errorf("append rejections of pipeline %s: %w", t.name, err)
	}
	t.mu.judged = next
	for k, l := range t.mu.lanes {
		for _, r := range l.pending {
			t.mu.known.add("", event.Position{Incarnation: k.inc, Partition: k.partition, Offset: r.offset}, 0)
		}
		l.pending = nil
	}
	for _, r := range told {
		if !r.Dropped {
			t.mu.known.add(t.sink, r.At, r.Row)
		}
	}
	return nil
}

// steps tells whether there are any: without, nothing can be refused. With f.mu held.
func (f *flow) steps() bool {
	for _, def := range f.mu.defs {
		if len(def.Program()) > 0 {
			return true
		}
	}
	return false
}

// wasRefused tells whether a run before a rewind has it on record.
func (t tap) wasRefused(r refusedRow) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.former.has(r)
}

// records are the rejections of what a sink has refused: the events are read again.
func (t tap) records(ctx context.Context, told refused) (out []event.Event, err error) {
	before := map[event.Position]int{} // refused rows of an event
	t.mu.Lock()
	for _, r := range told {
		if v := t.mu.known.lanes[lane{r.At.Incarnation, r.At.Partition}]; v != nil {
			before[r.At] = len(v.rows[t.sink][r.At.Offset])
		}
	}
	t.mu.Unlock()
	for _, r := range told {
		if r.Dropped || t.wasRefused(refusedRow{by: t.sink, step: t.sink, at: r.At, row: r.Row}) {
			continue
		}
		e, further, err := t.refusedEvent(ctx, r.At)
		if err != nil {
			return nil, fmt.Errorf("sink %s has refused a row: %w", t.sink, err)
		}
		record := rejection(&e, t.name, t.stream, t.sink, event.SinkRefused, r.Detail, r.At, r.Row)
		// Its event is one rejection in the counts, whichever rows of it are refused.
		record.Refusal.Index = before[r.At]
		if further {
			record.Refusal.Index++
		}
		before[r.At]++
		out = append(out, record)
	}
	return out, nil
}
