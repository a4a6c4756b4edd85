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
	"naru/internal/recordbatch"
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
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	at, err := l.Progress(t.Context(), stream.DefaultReader+"events")
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
	at, err := l.Progress(t.Context(), stream.DefaultReader+"events")
	if off, _ := at.Positions.Get(st.Incarnation, 0); err != nil || off != 9 || at.Counts.Written != 9 {
		t.Fatalf("watermark %+v, %v", at, err)
	}
}

// A stop while the target is down is a clean one: the watermark lags, and the
// next start reads again.
func TestStopWhileTheSinkIsDown(t *testing.T) {
	l := memory.New()
	s := newStore(true)
	s.fail = func(call string, _ int) error {
		if call == "commit" {
			return errors.New("the catalog is down")
		}
		return nil
	}
	appendEvents(t, l, "events", 0, 5)
	set := NewSet(patient(), l, s.open, quiet)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- set.Run(ctx) }()
	s.until(t, func() bool { return len(set.Status()) == 1 && set.Status()[0].Held == 5 })
	cancel()
	if err := <-done; err != nil {
		t.Fatalf("the stop failed: %v", err)
	}
	s.fail = nil
	set, stop := runSet(t, l, s.open)
	s.until(t, func() bool { return writtenBy(set) == 5 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	s.want(t, 5)
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
		case <-time.After(time.Minute):
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

// Two partitions, each in its own order, with every call failing now and then:
// each event once, and the watermark knows both.
func TestPartitionsFailIndependentlyOfEachOther(t *testing.T) {
	l := memory.New()
	s := newStore(true)
	s.fail = func(call string, n int) error {
		if call != "open" && n%4 == 1 {
			return errors.New("injected")
		}
		return nil
	}
	set, stop := runSet(t, l, s.open)
	const each = 60
	for i := range each {
		for p := range int32(2) {
			var b recordbatch.Builder
			b.Reset(time.Now())
			b.AppendEvent(&event.Event{ID: fmt.Appendf(nil, "%d/%d", p, i), Source: []byte("/t"), Type: []byte("t"), Data: []byte("{}")})
			if _, err := l.Append(t.Context(), stream.Write{Stream: "events", Partition: p, Batch: b.Finish(nil, recordbatch.None), Count: 1}); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.until(t, func() bool { return writtenBy(set) == 2*each })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	next := [2]int{}
	for _, id := range s.ids {
		var p, i int
		if _, err := fmt.Sscanf(id, "%d/%d", &p, &i); err != nil {
			t.Fatal(err)
		}
		if i != next[p] {
			t.Fatalf("event %d of partition %d where %d was due", i, p, next[p])
		}
		next[p]++
	}
	at := set.Status()[0].Progress
	st, err := l.Stat(t.Context(), "events")
	if err != nil || next != [2]int{each, each} || !at.Positions.Equal(event.Positions{st.Incarnation: {0: each, 1: each}}) {
		t.Fatalf("%v events, watermark %v, %v", next, at, err)
	}
}
