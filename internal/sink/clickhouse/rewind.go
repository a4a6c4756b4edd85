package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"naru/internal/event"
	"naru/internal/sink"
)

var _ sink.Rewinder = (*Sink)(nil)

// Rewindable implements sink.Rewinder: rows cannot go in one step with the marks that
// say which are there.
func (s *Sink) Rewindable(context.Context, event.Positions) (event.Positions, error) {
	return nil, fmt.Errorf("%w: ClickHouse does not delete rows and change positions in one step", sink.ErrStays)
}

// Rewind implements sink.Rewinder: the marks alone. The blocks that come then have
// other names, else the table would pass over those that it remembers.
func (s *Sink) Rewind(ctx context.Context, from event.Positions, again bool) error {
	switch {
	case s.broken != nil:
		return fmt.Errorf("take table %s back after a failure: %w", s.set.Table, s.broken)
	case !again:
		return fmt.Errorf("take table %s back: %w", s.set.Table, sink.ErrStays)
	}
	var lives []life
	marks := map[life]mark{}
	for l, m := range s.marks {
		off, ok := from.Get(l.inc, l.partition)
		if ok && off < m.to {
			off = min(off, m.base())
			lives, marks[l] = append(lives, l), mark{from: off, to: off, done: true, seq: m.seq + 1}
		}
	}
	if len(lives) == 0 {
		return nil
	}
	s.broken = errTakenBack
	if err := s.alone(ctx, lives, s.marks, ""); err != nil {
		return err
	}
	// In one insert with the marks: a block is there as a whole or not at all.
	count := life{}
	lives, marks[count] = append(lives, count), mark{from: s.rewinds + 1, to: s.rewinds + 1, done: true, seq: uint64(s.rewinds + 1)}
	return s.writeMarks(ctx, lives, marks)
}

var errTakenBack = errors.New("it was taken back: open it anew")

// blockName names what is inserted of a life: read again, the offsets are the same.
func (s *Sink) blockName(l life, m mark) string {
	name := fmt.Sprintf("%s/%s/%d/%d-%d", s.env.Reader, l.inc, l.partition, m.from, m.to)
	if s.rewinds > 0 {
		name += "/r" + strconv.FormatInt(s.rewinds, 10)
	}
	return name
}
