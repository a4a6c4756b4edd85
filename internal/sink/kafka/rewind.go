package kafka

import (
	"context"
	"fmt"

	"naru/internal/event"
	"naru/internal/sink"
)

var _ sink.Rewinder = (*Sink)(nil)

// Rewindable implements sink.Rewinder: records of a topic stay until it drops them.
func (s *Sink) Rewindable(context.Context, event.Positions) (event.Positions, error) {
	return nil, fmt.Errorf("%w: records of a topic cannot be taken back", sink.ErrStays)
}

// Rewind implements sink.Rewinder: the positions alone.
func (s *Sink) Rewind(ctx context.Context, from event.Positions, again bool) error {
	if s.broken {
		return errBroken
	}
	if !again {
		return fmt.Errorf("take kafka back: %w", sink.ErrStays)
	}
	next := sink.Lowered(s.base, from)
	if !s.cfg.Transactional || next.Equal(s.base) {
		return nil
	}
	s.broken = true // it is opened anew
	if err := s.begin(); err != nil {
		return err
	}
	s.client.Produce(ctx, s.positionsRecord(next), s.promise)
	if err := s.flush(ctx); err != nil {
		return err
	}
	return s.endTransaction(ctx)
}
