package redis

import (
	"context"
	"fmt"

	"naru/internal/event"
	"naru/internal/sink"
)

var _ sink.Rewinder = (*Sink)(nil)

// Rewindable implements sink.Rewinder: nothing in the server says which event a value
// is of, and what a later one has replaced is gone.
func (s *Sink) Rewindable(context.Context, event.Positions) (event.Positions, error) {
	return nil, fmt.Errorf("%w: nothing in redis says which event a value is of", sink.ErrStays)
}

// Rewind implements sink.Rewinder: the positions alone.
func (s *Sink) Rewind(ctx context.Context, from event.Positions, again bool) error {
	switch {
	case s.broken:
		return errBroken
	case !again:
		return fmt.Errorf("take redis back: %w", sink.ErrStays)
	}
	lowered, moved := sink.Lowered(s.base, from), event.Positions{}
	for inc, parts := range lowered {
		for p, off := range parts {
			if have, _ := s.base.Get(inc, p); have != off {
				moved.Advance(event.Position{Incarnation: inc, Partition: p, Offset: off})
			}
		}
	}
	if len(moved) == 0 {
		return nil
	}
	s.broken = true // it is opened anew
	if err := s.prepare(ctx); err != nil {
		return err
	}
	return s.transact(ctx, moved)
}
