package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/recordbatch"
	"naru/internal/stream"
)

// handed is a portion and the offset that was asked for: what lies between that and
// the batch is on record as lost by a repair of the log.
type handed struct {
	*portion
	sought int64
}

// read hands the batches of one partition to out, in order, until ctx ends or
// the log gives an error. A reader holds one batch while the sink works on another,
// and one more waits, so that readers go on while the sink commits: that is the whole
// queue.
func (p *Pipeline) read(ctx context.Context, from event.Position, out chan<- handed) error {
	for {
		x, err := p.source.next(ctx, from)
		if errors.Is(err, stream.ErrTrimmed) {
			return errOvertaken // only a retention that may overtake readers does this
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", p.stream, err)
		}
		select {
		case out <- handed{portion: x, sought: from.Offset}:
			from = x.in.End()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// starts says where to begin in each partition: at the watermark, or before it
// where the sink asks for it.
func starts(st stream.Stat, watermark, resume event.Positions) map[int32]event.Position {
	from := map[int32]event.Position{}
	for _, r := range st.Ranges { // closed incarnations first, so the last known one wins
		if _, ok := from[r.Partition]; !ok {
			from[r.Partition] = event.Position{Partition: r.Partition} // the oldest that is left
		}
		if off, ok := watermark.Get(r.Incarnation, r.Partition); ok {
			if r.Incarnation != st.Incarnation {
				off = min(off, r.End) // a repair may have cut off what was read before
			}
			from[r.Partition] = event.Position{Incarnation: r.Incarnation, Partition: r.Partition, Offset: off}
		}
	}
	if resume == nil {
		return from
	}
	// The sink's own positions count only where they lie before that. A partition
	// without a watermark is read from its oldest event in any case: what one
	// table asks for says nothing of the others.
	age := map[event.Incarnation]int{}
	for i, r := range st.Ranges {
		if _, ok := age[r.Incarnation]; !ok {
			age[r.Incarnation] = i
		}
	}
	for _, r := range st.Ranges {
		off, ok := resume.Get(r.Incarnation, r.Partition)
		at := from[r.Partition]
		if !ok || at.Incarnation.IsZero() || age[at.Incarnation] < age[r.Incarnation] ||
			at.Incarnation == r.Incarnation && at.Offset <= off {
			continue
		}
		from[r.Partition] = event.Position{Incarnation: r.Incarnation, Partition: r.Partition, Offset: off}
	}
	return from
}

// beside is an optional power of a source: it has partitions besides those of the stream.
type beside interface {
	beside(ctx context.Context) ([]stream.Range, error)
}

// starts says where to begin in each partition, those among them that the source has
// beside the stream.
func (p *Pipeline) starts(ctx context.Context, st stream.Stat, watermark, resume event.Positions) (map[int32]event.Position, error) {
	src, ok := p.source.(beside)
	if !ok {
		return starts(st, watermark, resume), nil
	}
	more, err := src.beside(ctx)
	if err != nil || len(more) == 0 {
		return starts(st, watermark, resume), err
	}
	// A target that lies behind the watermark was lost or rolled back: what it does not
	// know of these partitions, it has not.
	if resume != nil && !maps.Equal(starts(st, watermark, resume), starts(st, watermark, nil)) {
		known := map[int32]bool{}
		for _, r := range more {
			_, ok := resume.Get(r.Incarnation, r.Partition)
			known[r.Partition] = known[r.Partition] || ok
		}
		resume = resume.Clone()
		for _, r := range more {
			if !known[r.Partition] {
				known[r.Partition] = true
				resume.Advance(event.Position{Incarnation: r.Incarnation, Partition: r.Partition, Offset: r.Start})
			}
		}
	}
	st.Ranges = append(slices.Clip(st.Ranges), more...)
	return starts(st, watermark, resume), nil
}

// countBatch counts the events of b at or behind offset from, and before b.Next: the
// last record batch may hold later ones, too.
func countBatch(b *event.Batch, from int64) (int64, error) {
	total, err := countFrom(b, from)
	if err != nil || total == 0 {
		return 0, err
	}
	behind, err := countFrom(b, b.Next)
	return total - behind, err
}

func countFrom(b *event.Batch, from int64) (int64, error) {
	var total int64
	for _, raw := range b.Raw {
		n, ok, err := recordbatch.CountFrom(raw, from)
		if err != nil {
			return 0, &fault.Corrupt{Path: b.Stream, Offset: -1, Reason: err.Error()}
		}
		if !ok {
			var d recordbatch.Decoder
			err := d.Each(raw, func(e *event.Event) error {
				if e.Offset >= from {
					n++
				}
				return nil
			})
			if err != nil {
				return 0, fmt.Errorf("count events: %w", err)
			}
		}
		total += int64(n)
	}
	return total, nil
}
