package tail

import (
	"context"
	"fmt"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/stream"
)

// part reads one partition of a stream as it stood when the request came.
type part struct {
	log    stream.Log
	stream string
	number int32
	max    stream.Bytes
	stat   stream.Stat

	dec     recordbatch.Decoder
	reading event.Incarnation // of the event that is being given
}

// ranges are the partition's, closed incarnations first.
func (p *part) ranges() (out []stream.Range) {
	for _, r := range p.stat.Ranges {
		if r.Partition == p.number {
			out = append(out, r)
		}
	}
	return out
}

func start(r stream.Range) event.Position {
	return event.Position{Incarnation: r.Incarnation, Partition: r.Partition, Offset: r.Start}
}

// begin finds the place to start at, and how many events to pass over there.
// The zero position means that the partition has nothing.
func (p *part) begin(ctx context.Context, q query) (from event.Position, skip int64, err error) {
	ranges := p.ranges()
	if len(ranges) == 0 {
		if p.number != 0 {
			return from, 0, fmt.Errorf("%w partition: %s has no partition %d", errQuery, p.stream, p.number)
		}
		return event.Position{Partition: p.number}, 0, nil
	}
	last := ranges[len(ranges)-1]
	end := event.Position{Incarnation: last.Incarnation, Partition: p.number, Offset: last.End}
	switch {
	case q.last >= 0:
		return p.back(ctx, ranges, int64(q.last))
	case q.from == "start":
		for _, r := range ranges {
			if r.End > r.Start {
				return start(r), 0, nil
			}
		}
		return end, 0, nil
	case q.from == "end":
		return end, 0, nil
	}
	from = q.at
	if from.Partition = p.number; from.Incarnation.IsZero() {
		from.Incarnation = last.Incarnation
	}
	for _, r := range ranges {
		if r.Incarnation != from.Incarnation {
			continue
		}
		switch {
		case from.Offset < r.Start:
			return from, 0, fmt.Errorf("read %s at %s: %w: the oldest is %d", p.stream, from, stream.ErrTrimmed, r.Start)
		case from.Offset > r.End:
			return from, 0, fmt.Errorf("read %s at %s: %w, which is %d", p.stream, from, stream.ErrBeyondEnd, r.End)
		}
		return from, 0, nil
	}
	return from, 0, fmt.Errorf("read %s at %s: %w", p.stream, from, stream.ErrUnknownIncarnation)
}

// back finds the place n events before the end. Offsets may have gaps, so the
// events are counted; when a stretch held too few, one twice as long is tried.
func (p *part) back(ctx context.Context, ranges []stream.Range, n int64) (from event.Position, skip int64, err error) {
	for span := n; ; span *= 2 {
		from, whole := stretch(ranges, span)
		if n == 0 {
			return from, 0, nil
		}
		var found int64
		_, err := p.until(ctx, from, func(*event.Event) error { found++; return nil }, nil, nil)
		if err != nil {
			return from, 0, err
		}
		if found >= n || whole {
			return from, max(found-n, 0), nil
		}
	}
}

// stretch is the place so many offsets before the end; whole says that it is
// the very beginning.
func stretch(ranges []stream.Range, span int64) (from event.Position, whole bool) {
	for i := len(ranges) - 1; i >= 0; i-- {
		r := ranges[i]
		if held := r.End - r.Start; span <= held {
			from = start(r)
			from.Offset = r.End - span
			return from, false
		} else {
			span -= held
		}
	}
	return start(ranges[0]), true
}

// until gives every event from a position to the ends that the ranges had, and
// returns where it stands then. It never waits for new events. After each
// batch it calls done, and goes on while more says so; both may be nil.
func (p *part) until(ctx context.Context, from event.Position, fn func(*event.Event) error, done func() error, more func() bool) (event.Position, error) {
	passed := false
	for _, r := range p.ranges() {
		if r.Incarnation == from.Incarnation {
			passed = true
		} else if passed {
			from = start(r)
		}
		for passed && from.Offset < r.End && (more == nil || more()) {
			next, err := p.next(ctx, from, func(e *event.Event) error {
				if e.Offset >= r.End {
					return recordbatch.ErrStop // came after the request: follow gives it
				}
				return fn(e)
			})
			if err != nil {
				return from, err
			}
			from = next
			if next.Incarnation != r.Incarnation || next.Offset > r.End {
				from = event.Position{Incarnation: r.Incarnation, Partition: r.Partition, Offset: r.End}
			}
			if done != nil {
				if err := done(); err != nil {
					return from, err
				}
			}
		}
	}
	return from, nil
}

// next reads one batch at from, waiting for it if need be.
func (p *part) next(ctx context.Context, from event.Position, fn func(*event.Event) error) (event.Position, error) {
	b, err := p.log.Read(ctx, p.stream, from, p.max)
	if err != nil {
		return from, err
	}
	p.reading = b.Incarnation
	if err := p.dec.EachIn(b, fn); err != nil {
		return from, err
	}
	return b.End(), nil
}
