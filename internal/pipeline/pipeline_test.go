package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/sink"
	"naru/internal/stream"
	"naru/internal/stream/memory"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func testConfig() Config {
	c := DefaultConfig()
	c.CommitInterval = quantity.Duration(time.Millisecond)
	c.BackoffMin, c.BackoffMax = quantity.Duration(time.Millisecond), quantity.Duration(2*time.Millisecond)
	return c
}

func appendEvents(t *testing.T, l stream.Log, name string, from, n int) {
	t.Helper()
	var b recordbatch.Builder
	b.Reset(time.Now())
	for i := range n {
		b.AppendEvent(&event.Event{ID: fmt.Appendf(nil, "%d", from+i), Source: []byte("/t"), Type: []byte("t"), Data: []byte("{}")})
	}
	if _, err := l.Append(t.Context(), stream.Write{Stream: name, Batch: b.Finish(nil, recordbatch.None), Count: int32(n)}); err != nil {
		t.Fatal(err)
	}
}

// store is what a target keeps: it outlives its sinks. Its sinks fail at the
// calls that the test chooses, and hold back rows when told.
type store struct {
	mu       sync.Mutex
	ids      []string        // committed, in order
	covered  event.Positions // kept with the data
	exact    bool            // skip what is covered, as a table does
	calls    map[string]int
	fail     func(call string, n int) error
	holdBack int64 // Commit reports this much less than written
}

func newStore(exact bool) *store {
	return &store{covered: event.Positions{}, exact: exact, calls: map[string]int{}}
}

func (s *store) open(context.Context, string) (sink.Sink, error) {
	if err := s.called("open"); err != nil {
		return nil, err
	}
	return &fakeSink{s: s, written: event.Positions{}}, nil
}

func (s *store) called(call string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[call]++
	if s.fail != nil {
		return s.fail(call, s.calls[call])
	}
	return nil
}

type fakeSink struct {
	s       *store
	held    []string
	written event.Positions
	dec     recordbatch.Decoder
}

func (f *fakeSink) Write(_ context.Context, b *event.Batch) error {
	if err := f.s.called("write"); err != nil {
		return err
	}
	err := f.dec.EachIn(b, func(e *event.Event) error {
		at := event.Position{Incarnation: b.Incarnation, Partition: b.Partition, Offset: e.Offset}
		f.s.mu.Lock()
		defer f.s.mu.Unlock()
		if !f.s.exact || !f.s.covered.Covers(at) {
			f.held = append(f.held, string(e.ID))
		}
		return nil
	})
	f.written.Advance(b.End())
	return err
}

func (f *fakeSink) Commit(context.Context) (event.Positions, error) {
	if err := f.s.called("commit"); err != nil {
		return nil, err
	}
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.s.ids = append(f.s.ids, f.held...)
	f.held = nil
	for inc, m := range f.written {
		for p, o := range m {
			f.s.covered.Advance(event.Position{Incarnation: inc, Partition: p, Offset: o})
		}
	}
	if f.s.fail != nil {
		f.s.calls["answer"]++
		if err := f.s.fail("answer", f.s.calls["answer"]); err != nil {
			return nil, err // committed, but the answer is lost
		}
	}
	out := f.written.Clone()
	for _, m := range out {
		for p := range m {
			m[p] -= f.s.holdBack
		}
	}
	return out, nil
}

func (f *fakeSink) Close() error { return nil }

// until looks at cond again and again: the states it waits for are set by
// another goroutine without a signal of their own.
func (s *store) until(t *testing.T, cond func() bool) {
	t.Helper()
	look, late := time.NewTicker(time.Millisecond), time.After(time.Minute)
	defer look.Stop()
	for !cond() {
		select {
		case <-look.C:
		case <-late:
			t.Fatal("waited a minute")
		}
	}
}

func (s *store) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ids)
}

func (s *store) want(t *testing.T, n int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ids) != n {
		t.Fatalf("%d events in the target, want %d", len(s.ids), n)
	}
	for i, id := range s.ids {
		if id != fmt.Sprint(i) {
			t.Fatalf("event %d has id %s: order broken", i, id)
		}
	}
}

func runSet(t *testing.T, l stream.Log, open Opener) (*Set, func() error) {
	set := NewSet(testConfig(), l, open, quiet)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- set.Run(ctx) }()
	return set, func() error { cancel(); return <-done }
}

func writtenBy(set *Set) (n int64) {
	for _, st := range set.Status() {
		n += st.Progress.Counts.Written
	}
	return n
}

func TestEventsArriveAndAreCounted(t *testing.T) {
	l := memory.New()
	s := newStore(true)
	set, stop := runSet(t, l, s.open)
	for i := range 20 {
		appendEvents(t, l, "events", i*10, 10)
	}
	s.until(t, func() bool { return writtenBy(set) == 200 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	s.want(t, 200)
	st := set.Status()
	if len(st) != 1 || st[0].Progress.Counts.Written != 200 || st[0].Held != 0 {
		t.Fatalf("status: %+v", st)
	}
	at, err := l.Progress(t.Context(), stream.DefaultReader+"events")
	if err != nil || at.Counts.Written != 200 || at.Stream != "events" {
		t.Fatalf("watermark %+v, %v", at, err)
	}
}

// Every call fails now and then, also after it has done its work: the target
// ends with each event once, and the watermark's counts are right.
func TestFailuresNeitherLoseNorDouble(t *testing.T) {
	for _, call := range []string{"open", "write", "commit", "answer"} {
		t.Run(call, func(t *testing.T) {
			l := memory.New()
			s := newStore(true)
			s.fail = func(c string, n int) error {
				if c == call && n%3 == 1 {
					return errors.New("injected")
				}
				return nil
			}
			set, stop := runSet(t, l, s.open)
			for i := range 30 {
				appendEvents(t, l, "events", i*7, 7)
			}
			s.until(t, func() bool { return writtenBy(set) == 210 })
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			s.want(t, 210)
			if set.Status()[0].Errors == 0 {
				t.Error("the injected errors were not counted")
			}
		})
	}
}

// A watermark never leads: a sink that reports less than it was given moves it
// only over whole batches below that.
func TestWatermarkLags(t *testing.T) {
	l := memory.New()
	s := newStore(true)
	s.holdBack = 3
	set, stop := runSet(t, l, s.open)
	appendEvents(t, l, "events", 0, 10)
	s.until(t, func() bool { return s.len() == 10 })
	appendEvents(t, l, "events", 10, 10)
	s.until(t, func() bool { return s.len() == 20 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	at := set.Status()[0].Progress
	st, err := l.Stat(t.Context(), "events")
	if err != nil {
		t.Fatal(err)
	}
	if off, _ := at.Positions.Get(st.Incarnation, 0); off > 17 || off%10 != 0 || at.Counts.Written != off {
		t.Fatalf("watermark at %d with %d written; the sink covers 17", off, at.Counts.Written)
	}
}

// A stop in the middle commits what was written; what was not is read again.
func TestStopDrainsAndResumes(t *testing.T) {
	l := memory.New()
	s := newStore(false) // a sink without own positions: would show any double
	sent := 0
	for range 5 {
		set := NewSet(Config{CommitInterval: quantity.Duration(time.Hour), CommitBytes: 1 << 30, ReadBytes: 1 << 20,
			DrainTimeout: quantity.Duration(time.Minute), BackoffMin: 1, BackoffMax: 1}, l, s.open, quiet)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- set.Run(ctx) }()
		for range 3 {
			appendEvents(t, l, "events", sent, 5)
			sent += 5
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	_, stop := runSet(t, l, s.open)
	s.until(t, func() bool { return s.len() >= sent })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	s.want(t, sent)
}

func TestEveryStreamGetsItsPipeline(t *testing.T) {
	l := memory.New()
	s := newStore(true)
	set, stop := runSet(t, l, s.open)
	for _, name := range []string{"events", "orders", "rejected"} {
		appendEvents(t, l, name, 0, 4)
	}
	s.until(t, func() bool { return s.len() == 12 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if st := set.Status(); len(st) != 3 || st[0].Stream != "events" || st[2].Stream != "rejected" {
		t.Fatalf("status: %+v", st)
	}
}

func TestStarts(t *testing.T) {
	old, cur := event.Incarnation{1}, event.Incarnation{2}
	st := stream.Stat{Incarnation: cur, Ranges: []stream.Range{
		{Incarnation: old, Partition: 0, Start: 5, End: 50},
		{Incarnation: cur, Partition: 0, Start: 50, End: 90},
		{Incarnation: cur, Partition: 1, Start: 0, End: 9},
	}}
	at := func(i event.Incarnation, p int32, o int64) event.Positions { return event.Positions{i: {p: o}} }
	for _, c := range []struct {
		name         string
		mark, resume event.Positions
		want         event.Position
	}{
		{"nothing known: the oldest", nil, nil, event.Position{}},
		{"in a closed incarnation: finish it", at(old, 0, 20), nil, event.Position{Incarnation: old, Offset: 20}},
		{"beyond where a repair has closed the old one: at its end", at(old, 0, 55), nil, event.Position{Incarnation: old, Offset: 50}},
		{"in both: the later one", event.Positions{old: {0: 50}, cur: {0: 60}}, nil, event.Position{Incarnation: cur, Offset: 60}},
		{"the sink is behind: its word", at(cur, 0, 60), at(cur, 0, 55), event.Position{Incarnation: cur, Offset: 55}},
		{"the sink is ahead: the watermark", at(cur, 0, 60), at(cur, 0, 80), event.Position{Incarnation: cur, Offset: 60}},
		{"no watermark: the oldest, for tables that ask for nothing", nil, at(cur, 0, 70), event.Position{}},
		{"the watermark is in the old one, the sink in the new: the watermark", at(old, 0, 20), at(cur, 0, 55), event.Position{Incarnation: old, Offset: 20}},
		{"the sink is behind in the old one", event.Positions{old: {0: 50}, cur: {0: 60}}, at(old, 0, 30), event.Position{Incarnation: old, Offset: 30}},
	} {
		if got := starts(st, c.mark, c.resume); got[0] != c.want || got[1].Offset != 0 {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestConfigValidates(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	if err := (Config{}).Validate(); err == nil {
		t.Error("the zero Config passed")
	}
}
