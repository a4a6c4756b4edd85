package hottail

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/recordbatch"
	"naru/internal/stream"
)

// types are the types of a stream's events that are not yet committed.
type types struct {
	sem  chan struct{}
	dec  recordbatch.Decoder
	upto event.Positions
	last map[home]event.Position // where such an event was last seen
}

// Newest implements lake.Tables: the tables of the lake, and those that the
// loader will make of what the log has.
func (h *Tail) Newest(ctx context.Context) ([]lake.Ident, error) {
	var tables []lake.Ident
	streams, err := h.log.Streams(ctx)
	if err != nil {
		return nil, fmt.Errorf("list streams: %w", err)
	}
	for _, name := range streams {
		if event.Internal(name) {
			continue
		}
		found, err := h.scan(ctx, name)
		for try := 0; errors.Is(err, stream.ErrTrimmed) && try < maxTrimmed; try++ {
			found, err = h.scan(ctx, name)
		}
		if err != nil {
			if err := h.cold(ctx, name, err); err != nil {
				return nil, err
			}
			continue
		}
		tables = append(tables, found...)
	}
	// Last, for what the log has no more was committed before.
	list, err := h.lake.List(ctx)
	if err != nil {
		return nil, err
	}
	tables = append(tables, list...)
	sortIdents(tables)
	return slices.Compact(tables), nil
}

// scan finds the tables of what a stream has behind its watermark.
func (h *Tail) scan(ctx context.Context, name string) ([]lake.Ident, error) {
	p, err := h.log.Progress(ctx, h.reader(name))
	if err != nil {
		return nil, fmt.Errorf("load watermark of %s: %w", name, err)
	}
	st, err := h.log.Stat(ctx, name)
	if errors.Is(err, stream.ErrNoStream) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("stat %s: %w", name, err)
	}
	wanted, _ := spans(st, p.Positions, nil)
	if length(wanted) == 0 {
		return nil, nil
	}
	if length(wanted) > h.cfg.Events {
		h.counts.Behind.Add(1)
		return nil, nil
	}
	if name == event.RejectedStream {
		return []lake.Ident{{Namespace: name, Name: event.RejectedStream}}, nil
	}
	h.mu.Lock()
	ts := h.mu.types[name]
	if ts == nil {
		ts = &types{sem: make(chan struct{}, 1), upto: event.Positions{}, last: map[home]event.Position{}}
		h.mu.types[name] = ts
	}
	h.mu.Unlock()
	select {
	case ts.sem <- struct{}{}:
		defer func() { <-ts.sem }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	for typ, at := range ts.last {
		if !slices.ContainsFunc(wanted, func(s event.Span) bool {
			return s.Incarnation == at.Incarnation && s.Partition == at.Partition && s.From <= at.Offset
		}) {
			delete(ts.last, typ) // committed
		}
	}
	for _, s := range wanted {
		if err := h.read(ctx, ts, name, s); err != nil {
			return nil, err
		}
	}
	return h.named(ctx, name, ts)
}

// read notes the types of a span, from where the last scan has got to.
func (h *Tail) read(ctx context.Context, ts *types, name string, s event.Span) error {
	at := event.Position{Incarnation: s.Incarnation, Partition: s.Partition, Offset: s.From}
	ts.upto.Advance(at)
	for {
		at.Offset, _ = ts.upto.Get(s.Incarnation, s.Partition)
		if at.Offset >= s.To {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b, err := h.log.Read(ctx, name, at, readBytes)
		if err != nil {
			return fmt.Errorf("read %s at %s: %w", name, at, err)
		}
		if b.Incarnation != s.Incarnation {
			at.Offset = s.To
			ts.upto.Advance(at)
			return nil
		}
		err = ts.dec.EachIn(b, func(e *event.Event) error {
			at.Offset = e.Offset
			asked := h.lake.Shape(e.Contract.Hash).Name()
			if _, ok := ts.last[home{string(e.Type), asked}]; ok || len(ts.last) < maxTypes {
				ts.last[home{string(e.Type), asked}] = at
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read types of %s: %w", name, err)
		}
		ts.upto.Advance(b.End())
	}
}

// named turns types into tables.
func (h *Tail) named(ctx context.Context, name string, ts *types) ([]lake.Ident, error) {
	var tables []lake.Ident
	for typ := range ts.last {
		id := lake.Ident{Namespace: name, Name: typ.table()}
		own, _, _, err := h.lake.Owns(ctx, id)
		if err != nil {
			return nil, err
		}
		if !own {
			id.Name = lake.OtherTable
		}
		tables = append(tables, id)
	}
	return tables, nil
}
