package dedupe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"path/filepath"

	"naru/internal/event"
	"naru/internal/fault"
)

// takeOver fills the index from files whose chunks have another size, if these know
// more: somebody has changed how large it may be, or how many share it, and the log may
// have dropped long ago what is in them. They go when all of it is durable here, so
// that a crash before that begins again.
func (x *index) takeOver(ctx context.Context, numbers map[int64][]int64, upTo int64, lives []event.Incarnation, names []string) error {
	// What does not have all that is on record as durable is the beginning of an earlier
	// try, and what has lost its oldest ids is being removed.
	first, best := int64(math.MaxInt64), (*index)(nil)
	if len(x.chunks) > 0 && x.next >= upTo {
		first = x.chunks[0].head.first
	}
	defer func() {
		if best != nil {
			best.close()
		}
	}()
	for size, list := range numbers {
		from := newIndex(x.fs, x.dir, shape{entries: size, chunks: math.MaxInt64, window: x.shape.window}, x.lane, x.life, x.logger)
		ok, err := from.loadChunks(ctx, list, upTo, lives)
		if err != nil || !ok || from.next < upTo || from.chunks[0].head.first >= first {
			from.close()
			if err != nil {
				return err
			}
			continue
		}
		if best != nil {
			best.close()
		}
		best, first = from, from.chunks[0].head.first
	}
	if best == nil {
		return nil
	}
	x.close()
	for _, name := range names {
		if n, _, isIDs := parseName(name); isIDs && n == x.shape.entries || name == x.shape.tailName(0) || name == x.shape.tailName(1) {
			if err := x.fs.Remove(filepath.Join(x.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove ids of an earlier try: %w", err)
			}
		}
	}
	return x.fill(ctx, best)
}

// fill makes the index of the entries of another one.
func (x *index) fill(ctx context.Context, from *index) error {
	ids, _, _ := from.size()
	x.logger.Info("the index of ids has another size: they are taken over", slog.String("stream", x.lane.stream),
		slog.Int("partition", int(x.lane.partition)), slog.Int64("ids", ids), slog.Int64("chunk_before", from.shape.entries), slog.Int64("chunk", x.shape.entries))
	oldest := from.chunks[0].head
	x.ordinal, x.evicted, x.clock, x.tail, x.gone = oldest.first, oldest.evicted, 0, 0, nil
	x.cache = [cached]cachedBlock{}
	err := from.each(func(k Key, digest uint64, offset, clock int64) error {
		if x.ordinal%perBlock == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		x.clock = clock
		return x.register(k, digest, offset)
	})
	if damage := (*fault.Corrupt)(nil); errors.As(err, &damage) {
		x.close() // the log tells
		return nil
	}
	if err != nil {
		return err
	}
	x.next, x.clock = from.next, from.clock
	if err := x.save(); err != nil {
		return err
	}
	x.secured() // the position on record is that of these ids
	return x.settled()
}

// each calls fn for every entry, oldest first.
func (x *index) each(fn func(k Key, digest uint64, offset, clock int64) error) error {
	var b block
	for _, c := range x.chunks {
		for i := range c.blocks {
			if err := c.read(i, &b); err != nil {
				return err
			}
			for j := range b.count() {
				if err := fn(b.at(j)); err != nil {
					return err
				}
			}
		}
		for j := range c.open.count() {
			if err := fn(c.open.at(j)); err != nil {
				return err
			}
		}
	}
	return nil
}
