package relational

import (
	"context"
	"errors"
	"fmt"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/sink"
)

var _ sink.Rewinder = (*Sink)(nil)

// errTried: a transaction of Rewindable is open, which is not to be committed.
var errTried = errors.New("it was only asked whether it can be taken back")

// Rewindable implements sink.Rewinder: the rows are found by the column row_key, and
// that they may be deleted is tried.
func (s *Sink) Rewindable(ctx context.Context, from event.Positions) (event.Positions, error) {
	if err := s.findable(ctx); err != nil {
		return nil, err
	}
	if err := s.replaced(from); err != nil {
		return nil, err
	}
	s.broken = errTried
	if _, err := s.db.Begin(ctx, event.Positions{}); err != nil {
		return nil, err
	}
	err := s.db.Delete(ctx, s.cfg.RowKey, from)
	if bad := (*RowError)(nil); errors.As(err, &bad) {
		return nil, fmt.Errorf("%w: the database does not let rows of %s go: %w", sink.ErrStays, s.cfg.Target, bad)
	}
	return from, err
}

// findable tells whether the rows of an event can be found.
func (s *Sink) findable(ctx context.Context) error {
	if s.cfg.RowKey == "" {
		return fmt.Errorf("%w: without row_key nothing in %s says which event a row is of", sink.ErrStays, s.cfg.Target)
	}
	keyed, err := s.db.Keyed(ctx, s.cfg.RowKey)
	if err == nil && !keyed {
		err = fault.WithHint(fmt.Errorf("%w: %s has rows without a value in %s, which may be of any event", sink.ErrStays, s.cfg.Target, s.cfg.RowKey),
			"delete those that this sink has written before row_key was set, and set %s = '' in those of others", s.cfg.RowKey)
	}
	return err
}

// replaced tells whether rows that go may have replaced some of events that are not
// read again.
func (s *Sink) replaced(from event.Positions) error {
	if len(s.cfg.Key) == 0 {
		return nil
	}
	for inc, parts := range s.base {
		for partition := range parts {
			if partition >= sink.ReplayLane {
				continue // rows of a replay have the place of its event, which is read again
			}
			if off, ok := from.Get(inc, partition); !ok || off > 0 {
				return fmt.Errorf("%w: rows of %s have replaced older ones, which only a run over all events brings back", sink.ErrStays, s.cfg.Target)
			}
		}
	}
	return nil
}

// Rewind implements sink.Rewinder: rows go and positions change in one transaction.
func (s *Sink) Rewind(ctx context.Context, from event.Positions, again bool) error {
	if s.broken != nil {
		return fmt.Errorf("take %s back after a failure: %w", s.cfg.Target, s.broken)
	}
	if !again { // the settings may be others than when that was asked: rows that stay would come twice
		err := s.findable(ctx)
		if errors.Is(err, sink.ErrStays) {
			return fault.WithHint(err, "set row_key as it was until the rewind is done")
		}
		if err != nil {
			return err
		}
	}
	at := event.Positions{}
	for inc, parts := range sink.Lowered(s.base, from) {
		for partition, off := range parts {
			if _, some := from.Get(inc, partition); some {
				at.Advance(event.Position{Incarnation: inc, Partition: partition, Offset: off})
			}
		}
	}
	s.broken = errors.New("it was taken back: open it anew")
	have, err := s.db.Begin(ctx, at)
	if err != nil {
		return err
	}
	if err := s.alone(have, at); err != nil {
		return err
	}
	if !again {
		if err := s.db.Delete(ctx, s.cfg.RowKey, from); err != nil {
			return err
		}
	}
	return s.db.Commit(ctx, at)
}
