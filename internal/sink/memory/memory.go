// Package memory is a sink that keeps events in memory: for tests of what
// stands before a sink. Positions live with the events, so it is exact.
package memory

import (
	"context"
	"fmt"
	"sync"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/sink"
)

// Target is where the events are; it outlives its sinks. Safe for concurrent
// use.
type Target struct {
	// OnWrite and OnCommit may make calls fail. AfterCommit fails a Commit that
	// has been made: a lost answer. Set them before the target is used.
	OnWrite     func(*event.Batch) error
	OnCommit    func() error
	AfterCommit func() error

	mu struct {
		sync.Mutex
		events    map[string][]Event // by stream, in the order of arrival
		positions map[string]event.Positions
	}
}

// Event is an event at its place, with bytes of its own.
type Event struct {
	At               event.Position
	ID, Source, Type string
	Data             []byte
}

// NewTarget returns an empty target.
func NewTarget() *Target {
	t := &Target{}
	t.mu.events = map[string][]Event{}
	t.mu.positions = map[string]event.Positions{}
	return t
}

// Events returns what is committed of a stream.
func (t *Target) Events(stream string) []Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Event(nil), t.mu.events[stream]...)
}

// Positions returns what is covered of a stream.
func (t *Target) Positions(stream string) event.Positions {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.positions[stream].Clone()
}

// Open opens a sink for a stream.
func (t *Target) Open(_ context.Context, stream string) (sink.Sink, error) {
	return &Sink{target: t, stream: stream, base: t.Positions(stream), end: event.Positions{}}, nil
}

// Sink writes into a Target.
type Sink struct {
	target *Target
	stream string
	dec    recordbatch.Decoder
	base   event.Positions // the target's, when last known
	end    event.Positions
	held   []Event
	bytes  int64
}

var (
	_ sink.Sink    = (*Sink)(nil)
	_ sink.Resumer = (*Sink)(nil)
	_ sink.Drainer = (*Sink)(nil)
	_ sink.Pending = (*Sink)(nil)
)

// Write implements sink.Sink.
func (s *Sink) Write(_ context.Context, b *event.Batch) error {
	if s.target.OnWrite != nil {
		if err := s.target.OnWrite(b); err != nil {
			return err
		}
	}
	err := s.dec.EachIn(b, func(e *event.Event) error {
		at := event.Position{Incarnation: b.Incarnation, Partition: b.Partition, Offset: e.Offset}
		if s.base.Covers(at) || s.end.Covers(at) {
			return nil
		}
		s.held = append(s.held, Event{At: at, ID: string(e.ID), Source: string(e.Source), Type: string(e.Type),
			Data: append([]byte(nil), e.Data...)})
		s.bytes += int64(len(e.Data)) + 1
		return nil
	})
	if err != nil {
		return err
	}
	s.end.Advance(b.End())
	return nil
}

// Commit implements sink.Sink: all or nothing.
func (s *Sink) Commit(ctx context.Context) (event.Positions, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.target.OnCommit != nil {
		if err := s.target.OnCommit(); err != nil {
			return nil, err
		}
	}
	if err := s.store(); err != nil {
		return nil, err
	}
	if s.target.AfterCommit != nil {
		if err := s.target.AfterCommit(); err != nil {
			return nil, err
		}
	}
	return s.end.Clone(), nil
}

func (s *Sink) store() error {
	t := s.target
	t.mu.Lock()
	defer t.mu.Unlock()
	if have := t.mu.positions[s.stream]; !have.Equal(s.base) && len(have)+len(s.base) > 0 {
		return fmt.Errorf("commit %s: the target is at %s, this sink continues %s", s.stream, have, s.base)
	}
	for inc, parts := range s.end {
		for p, off := range parts {
			s.base.Advance(event.Position{Incarnation: inc, Partition: p, Offset: off})
		}
	}
	t.mu.events[s.stream] = append(t.mu.events[s.stream], s.held...)
	t.mu.positions[s.stream] = s.base.Clone()
	s.held, s.bytes = nil, 0
	return nil
}

// Drain implements sink.Drainer.
func (s *Sink) Drain(ctx context.Context) (event.Positions, error) { return s.Commit(ctx) }

// PendingBytes implements sink.Pending.
func (s *Sink) PendingBytes() int64 { return s.bytes }

// Resume implements sink.Resumer.
func (s *Sink) Resume(_ context.Context, stream string) (event.Positions, error) {
	if at := s.target.Positions(stream); len(at) > 0 {
		return at, nil
	}
	return nil, nil
}

// Close implements sink.Sink.
func (s *Sink) Close() error {
	s.held, s.bytes = nil, 0
	return nil
}
