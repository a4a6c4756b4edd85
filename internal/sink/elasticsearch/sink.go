package elasticsearch

import (
	"context"
	"errors"
	"net/http"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/sink"
)

// Sink sends bulk requests, one at a time: when one is full, and at Commit.
type Sink struct {
	cfg    *Settings
	client *http.Client
	header http.Header
	dec    recordbatch.Decoder

	end    event.Positions
	buf    []byte // lines of the rows that wait
	rows   []one
	broken bool

	waiting []sink.Refusal // of what was written since the last commit
	refused []sink.Refusal // not yet told to the pipeline
}

// one is a row of a request.
type one struct {
	at    event.Position
	row   int32
	lines []byte // in the buffer
	size  int
}

var (
	_ sink.Sink    = (*Sink)(nil)
	_ sink.Pending = (*Sink)(nil)
	_ sink.Refuser = (*Sink)(nil)
)

var errBroken = errors.New("write to elasticsearch: the sink has failed before")

// Write implements sink.Sink.
func (s *Sink) Write(ctx context.Context, b *event.Batch) error {
	if s.broken {
		return errBroken
	}
	if err := s.write(ctx, b); err != nil {
		s.broken = true
		return err
	}
	s.end.Advance(b.End())
	return nil
}

func (s *Sink) write(ctx context.Context, b *event.Batch) error {
	enc, err := newEncoder(s.cfg, b)
	if err != nil {
		return err
	}
	return s.dec.EachIn(b, func(e *event.Event) error {
		at := event.Position{Incarnation: b.Incarnation, Partition: b.Partition, Offset: e.Offset}
		before := len(s.buf)
		buf, why := enc.append(s.buf, e.Place(at), e)
		s.buf = buf
		if why != "" {
			s.waiting = append(s.waiting, sink.Refusal{At: at, Row: e.Row, Detail: why})
			return nil
		}
		r := one{at: at, row: e.Row, size: len(buf) - before}
		if before > 0 && len(buf) > int(s.cfg.BatchBytes) { // it begins the next request
			s.buf = buf[:before]
			last := append([]byte(nil), buf[before:]...)
			if err := s.flush(ctx); err != nil {
				return err
			}
			s.buf = append(s.buf, last...)
		}
		if s.rows = append(s.rows, r); len(s.rows) < s.cfg.Batch {
			return nil
		}
		return s.flush(ctx)
	})
}

// flush sends what waits.
func (s *Sink) flush(ctx context.Context) error {
	if len(s.rows) == 0 {
		return nil
	}
	from := 0
	for i := range s.rows {
		r := &s.rows[i]
		r.lines = s.buf[from : from+r.size]
		from += r.size
	}
	if err := s.send(ctx, s.rows); err != nil {
		return err
	}
	s.rows, s.buf = s.rows[:0], s.buf[:0]
	if cap(s.buf) > 2*int(s.cfg.BatchBytes) {
		s.buf = nil // of a row that was larger than a request
	}
	return nil
}

// Commit implements sink.Sink.
func (s *Sink) Commit(ctx context.Context) (event.Positions, error) {
	if s.broken {
		return nil, errBroken
	}
	if err := s.flush(ctx); err != nil {
		s.broken = true
		return nil, err
	}
	s.refused, s.waiting = append(s.refused, s.waiting...), nil
	return s.end.Clone(), nil
}

// PendingBytes implements sink.Pending.
func (s *Sink) PendingBytes() int64 { return int64(len(s.buf)) }

// Refused implements sink.Refuser.
func (s *Sink) Refused() []sink.Refusal {
	r := s.refused
	s.refused = nil
	return r
}

// Close implements sink.Sink.
func (s *Sink) Close() error {
	s.rows, s.buf = nil, nil
	s.client.CloseIdleConnections()
	return nil
}
