package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/sink"
	"naru/internal/stream"
	"naru/internal/stream/memory"
)

// patient never commits by itself: what reaches the target came by the drain.
func patient() Config {
	return Config{CommitInterval: quantity.Duration(time.Hour), CommitBytes: 1 << 30, ReadBytes: 1 << 20,
		DrainTimeout: quantity.Duration(time.Minute), BackoffMin: 1, BackoffMax: 1}
}

// Retention keeps what a registered reader has not read: so a pipeline is
// registered before its sink works for the first time.
func TestReaderIsRegisteredBeforeItsSinkWorks(t *testing.T) {
	l := memory.New()
	s := newStore(true)
	s.fail = func(call string, _ int) error { return errors.New("the sink does not open") }
	appendEvents(t, l, "events", 0, 4)
	set, stop := runSet(t, l, s.open)
	s.until(t, func() bool { return len(set.Status()) == 1 && set.Status()[0].Errors > 0 })
	_ = stop() // it may come back with the sink's error
	at, err := l.Progress(t.Context(), DefaultPrefix+"events")
	if err != nil || at.Stream != "events" || at.Positions == nil || at.Counts.Written != 0 {
		t.Fatalf("the log knows %+v of the reader, %v", at, err)
	}
}

// A stop commits what was written and appends the watermark, without waiting
// for the interval.
func TestStopCommitsWhatWasWritten(t *testing.T) {
	l := memory.New()
	s := newStore(true)
	appendEvents(t, l, "events", 0, 9)
	set := NewSet(patient(), l, s.open, quiet)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- set.Run(ctx) }()
	s.until(t, func() bool { return len(set.Status()) == 1 && set.Status()[0].Held == 9 })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	s.want(t, 9)
	st, err := l.Stat(t.Context(), "events")
	if err != nil {
		t.Fatal(err)
	}
	at, err := l.Progress(t.Context(), DefaultPrefix+"events")
	if off, _ := at.Positions.Get(st.Incarnation, 0); err != nil || off != 9 || at.Counts.Written != 9 {
		t.Fatalf("watermark %+v, %v", at, err)
	}
}

// rewound asks once to be read from an earlier place again, as a table does
// that somebody rolled back.
type rewound struct {
	sink.Sink
	from event.Positions
}

func (r rewound) Resume(context.Context, string) (event.Positions, error) { return r.from, nil }

// What is read again for a rolled-back table was counted before.
func TestRewoundEventsAreCountedOnce(t *testing.T) {
	l := memory.New()
	s := newStore(true)
	for i := range 3 {
		appendEvents(t, l, "events", i*10, 10)
	}
	set, stop := runSet(t, l, s.open)
	s.until(t, func() bool { return writtenBy(set) == 30 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	st, err := l.Stat(t.Context(), "events")
	if err != nil {
		t.Fatal(err)
	}
	// Back to the middle of the second batch.
	s.ids, s.covered = s.ids[:15], event.Positions{st.Incarnation: {0: 15}}
	set, stop = runSet(t, l, func(ctx context.Context, name string) (sink.Sink, error) {
		out, err := s.open(ctx, name)
		return rewound{out, s.covered.Clone()}, err
	})
	s.until(t, func() bool { return s.len() == 30 })
	appendEvents(t, l, "events", 30, 5)
	s.until(t, func() bool { return s.len() == 35 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	s.want(t, 35)
	if n := writtenBy(set); n != 35 {
		t.Fatalf("%d events counted as written, 35 were acknowledged", n)
	}
}

// dying is a log that takes nothing more from some moment on.
type dying struct {
	stream.Log
	err  error
	dead atomic.Bool
}

func (d *dying) Read(ctx context.Context, name string, from event.Position, limit stream.Bytes) (*event.Batch, error) {
	if d.dead.Load() {
		return nil, fmt.Errorf("read: %w", d.err)
	}
	return d.Log.Read(ctx, name, from, limit)
}

func (d *dying) Commit(ctx context.Context, w []stream.Write, reader string, at stream.Progress) error {
	if d.dead.Load() {
		return fmt.Errorf("commit: %w", d.err)
	}
	return d.Log.Commit(ctx, w, reader, at)
}

// A log that is poisoned or closed is not tried again: the process is to end.
// What the tables have by then is right, and the watermark lags.
func TestDeadLogEndsThePipelines(t *testing.T) {
	for _, cause := range []error{fault.ErrPoisoned, stream.ErrClosed} {
		l := &dying{Log: memory.New(), err: cause}
		s := newStore(true)
		s.fail = func(call string, _ int) error {
			if call == "commit" {
				l.dead.Store(true) // between the sink's commit and the watermark
			}
			return nil
		}
		appendEvents(t, l, "events", 0, 6)
		set := NewSet(testConfig(), l, s.open, quiet)
		done := make(chan error, 1)
		go func() { done <- set.Run(t.Context()) }()
		select {
		case err := <-done:
			if !errors.Is(err, cause) {
				t.Fatalf("ended with %v, want %v", err, cause)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("goes on with a log that is dead: %v", cause)
		}
		s.want(t, 6)
		// The next start reads the same events again: counted once, written once.
		l.dead.Store(false)
		s.fail = nil
		set, stop := runSet(t, l, s.open)
		s.until(t, func() bool { return writtenBy(set) == 6 })
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		s.want(t, 6)
	}
}
