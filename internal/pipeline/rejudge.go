package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/recordbatch"
	"naru/internal/stream"
	"naru/internal/transform"
)

// again is what a rewind leaves in the state until all sinks have passed it.
type again struct {
	// Until is up to where the steps had been computed: below, they are computed anew.
	Until event.Positions `json:"until"`
	// Records is where the stream `rejected` ended: what stands before it are
	// rejections of former runs.
	Records event.Positions `json:"records"`
}

func (a *again) until(inc event.Incarnation, partition int32) (int64, bool) {
	if a == nil {
		return 0, false
	}
	return a.Until.Get(inc, partition)
}

// former tells whether a record in `rejected` is one of an earlier run.
func (a *again) former(record event.Position) bool { return a != nil && a.Records.Covers(record) }

// former are the rejections of runs before a rewind. They are no verdicts any more;
// but what is refused by the same step again is on record already.
type former map[refusedRow]struct{}

// add keeps at most maxVerdicts: beyond, a second run may reject an event twice.
func (f former) add(r refusedRow) {
	if len(f) < maxVerdicts {
		f[r] = struct{}{}
	}
}

// prune forgets what all sinks have passed.
func (f former) prune(passed func(lane) int64) {
	low := map[lane]int64{}
	for r := range f {
		k := lane{r.at.Incarnation, r.at.Partition}
		if _, ok := low[k]; !ok {
			low[k] = passed(k)
		}
		if r.at.Offset < low[k] {
			delete(f, r)
		}
	}
}

func (f former) has(r refusedRow) bool {
	_, ok := f[r]
	return ok
}

// judged tells whether the steps' verdict on an offset stands.
func (l *flowLane) judged(offset int64) bool {
	return offset < l.redo || offset >= l.until && offset < l.front
}

// computed notes that steps were computed for [from, next). What lies apart from the
// rest, because a sink that was not rewound is ahead, is not counted as done.
func (l *flowLane) computed(from, next int64) {
	if l.until > 0 && from <= l.redo {
		if l.redo = max(l.redo, next); l.redo >= l.until {
			l.redo, l.until = 0, 0
		}
	}
	l.front = max(l.front, next)
}

// refuse notes what steps have just refused. With f.mu held.
func (f *flow) refuse(k lane, l *flowLane, in *event.Batch, fresh []transform.Refused, x *portion, floor int64) error {
	if len(fresh) == 0 {
		return nil
	}
	at := map[int64]transform.Refused{}
	row := func(r transform.Refused) refusedRow {
		return refusedRow{step: r.Step, at: event.Position{Incarnation: k.inc, Partition: k.partition, Offset: r.Offset}}
	}
	waiting := map[int64]bool{}
	for _, p := range l.pending {
		waiting[p.offset] = true
	}
	for _, r := range fresh {
		// What an earlier run had refused too is not written down a second time, so it
		// is computed again where others are only looked up; so is what is not durable yet,
		// when a sink begins anew.
		if l.judged(r.Offset) && r.Offset >= floor && !f.mu.former.has(row(r)) && !waiting[r.Offset] {
			return fault.Transient(fmt.Errorf("%s refuses the event at %s, which it had let pass before: %s", r.By(), row(r).at, r.Detail))
		}
		at[r.Offset] = r
		x.refused = append(x.refused, r.Offset)
	}
	slices.Sort(x.refused)
	x.refused = slices.Compact(x.refused)
	var dec recordbatch.Decoder
	return dec.EachIn(in, func(e *event.Event) error {
		r, ok := at[e.Offset]
		if !ok || l.judged(e.Offset) || waiting[e.Offset] {
			return nil
		}
		p := rejectedAt{offset: e.Offset, former: f.mu.former.has(row(r))}
		if !p.former {
			record := rejection(e, f.name, f.stream, r.Step, event.StepFailed, r.Detail, row(r).at, 0)
			p.record = clone(&record)
		}
		l.pending = append(l.pending, p)
		return nil
	})
}

// judgedAgain forgets a rewind that all sinks have passed. With changing of its
// pipeline held, because it writes the state.
func (f *flow) judgedAgain() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.state.Again == nil {
		return nil
	}
	for inc, parts := range f.mu.state.Again.Until {
		for partition, off := range parts {
			if f.mu.passed(lane{inc, partition}) < off {
				return nil
			}
		}
	}
	next := *f.mu.state
	next.Again = nil
	if err := f.save(&next); err != nil {
		return err
	}
	f.mu.former.prune(f.mu.passed)
	for _, l := range f.mu.lanes {
		l.redo, l.until = 0, 0
	}
	return nil
}

// tidy forgets what all sinks have passed.
func (f *flow) tidy(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.mu.known.empty() {
		f.mu.known.prune(f.mu.passed)
	}
	if !f.mu.state.rewound() {
		f.mu.former.prune(f.mu.passed)
	}
	if f.now().Sub(f.mu.released) >= time.Minute {
		f.mu.released = f.now()
		if err := f.releaseReplays(ctx); err != nil {
			return err
		}
	}
	if f.mu.state.rewound() || f.now().Sub(f.mu.looked) < time.Minute || !f.mu.known.empty() || len(f.mu.former) > 0 {
		return nil
	}
	st, err := f.log.Stat(ctx, event.RejectedStream)
	if errors.Is(err, stream.ErrNoStream) {
		return nil
	}
	if err != nil {
		return err
	}
	end := event.Positions{}
	for _, r := range st.Ranges {
		end.Advance(event.Position{Incarnation: r.Incarnation, Partition: r.Partition, Offset: r.End})
	}
	for _, l := range f.mu.lanes {
		if len(l.pending) > 0 {
			return nil
		}
	}
	if end.Equal(f.mu.scanned) {
		return nil
	}
	f.mu.scanned = end
	return f.moved(ctx)
}

// rewound tells whether there is a rewind that some sink has not passed: until then all
// that is on record of the pipeline is read at a start.
func (s *state) rewound() bool { return s.Again != nil || s.Rewind != nil }
