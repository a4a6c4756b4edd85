// Package stream is the sink whose rows become events of another stream: raw →
// enriched → ... They are appended in one atomic step with the positions read, so
// each row is there once.
package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/sink"
	"naru/internal/stream"
)

// Kind is `stream: NAME` in `to:`.
func Kind() sink.Kind {
	return sink.Kind{Name: "stream", Short: "stream", Settings: func() sink.Settings { return &Settings{} },
		Guarantee: "exactly once: rows are appended in one atomic step with the positions read"}
}

// Settings of the sink.
type Settings struct {
	Stream string `yaml:"stream"`
	Type   string `yaml:"type"` // of the events; empty: that of the row
}

// Validate implements sink.Settings.
func (s *Settings) Validate() error {
	switch {
	case s.Stream == "":
		return errors.New("stream: is missing")
	case event.Internal(s.Stream) || s.Stream == event.RejectedStream || s.Stream == event.RejectedStates:
		return fmt.Errorf("stream: %s is naru's own", s.Stream)
	case strings.ContainsAny(s.Stream, "./\\ "):
		return fmt.Errorf("stream: %q is no name of a stream: letters, digits, - and _", s.Stream)
	}
	return nil
}

// Feeds is the stream that the rows go to.
func (s *Settings) Feeds() string { return s.Stream }

// Open implements sink.Settings.
func (s *Settings) Open(_ context.Context, env sink.Env) (sink.Sink, error) {
	if s.Stream == env.Stream {
		return nil, fmt.Errorf("open sink %s of pipeline %s: it would read what it appends to stream %s, for ever", env.Name, env.Pipeline, s.Stream)
	}
	k := &Sink{to: *s, end: event.Positions{}}
	k.b.Reset(time.Now())
	return k, nil
}

// Sink gathers rows until they are appended.
type Sink struct {
	to    Settings
	dec   recordbatch.Decoder
	b     recordbatch.Builder
	done  []stream.Write // whole batches
	bytes int64
	end   event.Positions
	ready []stream.Write
}

var (
	_ sink.Sink    = (*Sink)(nil)
	_ sink.Pending = (*Sink)(nil)
)

// Write implements sink.Sink.
func (s *Sink) Write(_ context.Context, b *event.Batch) error {
	err := s.dec.EachIn(b, func(e *event.Event) error {
		out := *e
		// What it was before the door is told of the event that it was made of; as an
		// event of this stream it is new, and never a duplicate.
		out.GeneratedID, out.Sent, out.Contract, out.Violations, out.JSONStrings, out.Refusal = true, nil, event.Contract{}, nil, nil, nil
		if e.Row > 0 {
			out.ID = fmt.Appendf(nil, "%s-%d", e.ID, e.Row)
		}
		if s.to.Type != "" {
			out.Type = []byte(s.to.Type)
		}
		s.b.AppendEvent(&out)
		if s.b.Size() >= recordbatch.CutSize {
			s.cut()
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.end.Advance(b.End())
	return nil
}

func (s *Sink) cut() {
	n := s.b.Count()
	if n == 0 {
		return
	}
	w := stream.Write{Stream: s.to.Stream, Batch: s.b.Finish(nil, recordbatch.Snappy), Count: n}
	s.done = append(s.done, w)
	s.bytes += int64(len(w.Batch))
	s.b.Reset(time.Now())
}

// most is how many bytes are gathered before a commit is asked for: a frame of the
// log holds a quarter of a segment at most.
const most = 4 << 20

// PendingBytes implements sink.Pending.
func (s *Sink) PendingBytes() int64 {
	held := s.bytes + int64(s.b.Size())
	if held >= most {
		return 1 << 62
	}
	return held
}

// Commit implements sink.Sink: what it returns is durable once Appends has been
// appended with it.
func (s *Sink) Commit(ctx context.Context) (event.Positions, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.cut()
	s.ready, s.done, s.bytes = s.done, nil, 0
	return s.end.Clone(), nil
}

// Appends gives what the last Commit covers, once (pipeline.Appender).
func (s *Sink) Appends() []stream.Write {
	out := s.ready
	s.ready = nil
	return out
}

// Close implements sink.Sink.
func (s *Sink) Close() error { return nil }
