package pipeline

import (
	"context"
	"slices"

	"naru/internal/event"
	"naru/internal/stream"
)

// source is where a pipeline's batches come from: the log, or steps before the log.
type source interface {
	// next gives what stands at from, and blocks until there is something. It may be
	// called concurrently for different partitions.
	next(ctx context.Context, from event.Position) (*portion, error)
	// settle makes durable what has to be so before the sink commits up to done, and
	// what the sink has told to refuse by then.
	settle(ctx context.Context, done event.Positions, told refused) error
}

// portion is a batch of the log and what the sink gets of it.
type portion struct {
	in, out *event.Batch
	refused []int64 // offsets that a step, or the sink before, has refused; in order, each once
	before  []int64 // those of them that the sink itself has refused a row of before, in order
	moved   []moved // of replays, those that count; nil: these are none
	by      string  // the key of the program that made it
	routes  []string
}

// counts says what becomes of the events of a portion at or behind an offset.
func (x *portion) counts(from int64) (stream.Counts, error) {
	if x.moved != nil {
		return x.countMoved(from), nil
	}
	n, err := countBatch(x.in, from)
	if err != nil {
		return stream.Counts{}, err
	}
	c := stream.Counts{Duplicates: event.CountRuns(x.in.Without, from)}
	if x.out == x.in {
		c.Written = n - c.Duplicates
		return c, nil
	}
	last := int64(-1)
	for i := range x.out.Rows.Len() {
		if at := x.out.Rows.List[i].Offset; at >= from && at != last {
			last = at
			if _, no := slices.BinarySearch(x.refused, at); !no {
				c.Written++
			}
		}
	}
	for _, at := range x.refused {
		if at >= from {
			c.Rejections++
		}
	}
	c.Filtered = n - c.Duplicates - c.Written - c.Rejections
	return c, nil
}

// plain is the log itself.
type plain struct {
	log    stream.Log
	stream string
	most   stream.Bytes
}

func (p plain) next(ctx context.Context, from event.Position) (*portion, error) {
	b, err := p.log.Read(ctx, p.stream, from, p.most)
	if err != nil {
		return nil, err
	}
	return &portion{in: b, out: b}, nil
}

func (plain) settle(context.Context, event.Positions, refused) error { return nil }
