package pipeline

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/sink"
	"naru/internal/stream"
	"naru/internal/stream/memory"
)

// appendSparse appends n events whose offsets have a gap behind them.
func appendSparse(t *testing.T, l stream.Log, partition int32, from, n, gap int) {
	t.Helper()
	var b recordbatch.Builder
	b.Reset(time.Now())
	for i := range n {
		b.AppendEvent(&event.Event{ID: fmt.Appendf(nil, "%d", from+i), Source: []byte("/t"), Type: []byte("t"), Data: []byte("{}")})
	}
	raw := b.Finish(nil, recordbatch.None)
	binary.BigEndian.PutUint32(raw[23:], uint32(n-1+gap)) // the last delta
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	if _, err := l.Append(t.Context(), stream.Write{Stream: "events", Partition: partition, Batch: raw, Count: int32(n)}); err != nil {
		t.Fatal(err)
	}
}

// settled waits until all events that the log has ever taken have met their fate.
func settled(t *testing.T, s *store, l stream.Log, set *Set) stream.Counts {
	t.Helper()
	st, err := l.Stat(t.Context(), "events")
	if err != nil {
		t.Fatal(err)
	}
	var c stream.Counts
	s.until(t, func() bool {
		for _, x := range set.Status() {
			c = x.Progress.Counts
		}
		return c.Total() >= st.Acknowledged
	})
	if c.Total() != st.Acknowledged {
		t.Fatalf("%+v of %d events", c, st.Acknowledged)
	}
	return c
}

// holding is a sink that has some of the events that its watermark does not cover.
type holding struct {
	sink.Sink
	n     int64
	asked []event.Span
}

func (h *holding) Holds(_ context.Context, spans []event.Span) (int64, error) {
	h.asked = append(h.asked, spans...)
	return h.n, nil
}

// Retention has dropped what was not read: it is counted by events, although
// offsets have gaps, once, in several partitions, and across restarts.
func TestDroppedUnreadIsCounted(t *testing.T) {
	l := memory.New()
	s := newStore(false)
	run := func() stream.Counts {
		t.Helper()
		set, stop := runSet(t, l, s.open)
		c := settled(t, s, l, set)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	appendSparse(t, l, 0, 0, 10, 100) // [0,110)
	if c := run(); c.Written != 10 {
		t.Fatalf("%+v", c)
	}
	appendSparse(t, l, 0, 10, 7, 50)  // [110,167)
	appendSparse(t, l, 0, 17, 3, 1)   // [167,171)
	appendSparse(t, l, 1, 100, 5, 30) // [0,35)
	appendSparse(t, l, 1, 105, 2, 0)
	l.Trim("events", 0, 167)
	l.Trim("events", 1, 35)
	if c := run(); c.Written != 10+3+2 || c.Dropped != 7+5 {
		t.Fatalf("%+v, want 15 written and 12 dropped", c)
	}
	if c := run(); c.Dropped != 12 {
		t.Fatalf("after one more start: %+v", c)
	}
	appendSparse(t, l, 0, 20, 4, 9)
	appendSparse(t, l, 0, 24, 1, 0)
	l.Trim("events", 0, 184)
	if c := run(); c.Written != 16 || c.Dropped != 16 {
		t.Fatalf("%+v, want 16 written and 16 dropped", c)
	}
}

// What the sink has committed beyond the watermark was not dropped.
func TestDroppedButWritten(t *testing.T) {
	l := memory.New()
	s := newStore(true)
	for i := range 6 {
		appendEvents(t, l, "events", i*10, 10)
	}
	l.Trim("events", 0, 40)
	h := &holding{n: 15}
	set, stop := runSet(t, l, func(ctx context.Context, name string) (sink.Sink, error) {
		out, err := s.open(ctx, name)
		h.Sink = out
		return h, err
	})
	c := settled(t, s, l, set)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if c.Written != 20+15 || c.Dropped != 25 {
		t.Fatalf("%+v, want 35 written and 25 dropped", c)
	}
	if len(h.asked) != 1 || h.asked[0].From != 0 || h.asked[0].To != 40 {
		t.Fatalf("asked for %+v", h.asked)
	}
}

// Retention overtakes a reader that works: what the sink has taken is committed,
// and only what was never read is dropped.
func TestOvertakenWhileWorking(t *testing.T) {
	l := memory.New()
	s := newStore(false)
	entered, blocked := make(chan struct{}, 10), make(chan struct{})
	s.fail = func(call string, n int) error {
		if call == "write" && n == 1 {
			entered <- struct{}{}
			<-blocked
		}
		return nil
	}
	cfg := testConfig()
	cfg.CommitInterval, cfg.ReadBytes = quantity.Duration(time.Hour), 1 // one batch at a time
	set := NewSet(cfg, l, s.open, quiet)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- set.Run(ctx) }()
	for i := range 10 {
		appendEvents(t, l, "events", i*10, 10)
	}
	<-entered
	l.Trim("events", 0, 80)
	close(blocked)
	s.until(t, func() bool {
		for _, x := range set.Status() {
			return x.Progress.Counts.Total()+x.Held == 100 && x.Errors == 0
		}
		return false
	})
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c := set.Status()[0].Progress.Counts
	// The reader had up to two batches on their way while the sink worked on another.
	if c.Total() != 100 || c.Written < 30 || c.Written > 50 || c.Dropped != 100-c.Written || s.len() != int(c.Written) {
		t.Fatalf("%+v with %d in the target", c, s.len())
	}
}

// A watermark from before events were counted by partition stands for as many
// events as offsets.
func TestDroppedBehindAnOldWatermark(t *testing.T) {
	l := memory.New()
	s := newStore(false)
	for i := range 5 {
		appendEvents(t, l, "events", i*10, 10)
	}
	st, err := l.Stat(t.Context(), "events")
	if err != nil {
		t.Fatal(err)
	}
	old := stream.Progress{Stream: "events", Positions: event.Positions{st.Incarnation: {0: 20}}, Counts: stream.Counts{Written: 20}}
	if err := l.Commit(t.Context(), nil, stream.DefaultReader+"events", old); err != nil {
		t.Fatal(err)
	}
	l.Trim("events", 0, 30)
	set, stop := runSet(t, l, s.open)
	c := settled(t, s, l, set)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if c.Dropped != 10 || c.Written != 40 {
		t.Fatalf("%+v", c)
	}
}

// Pipelines that do not run hold retention back as well, for every stream.
func TestHoldRegistersReaders(t *testing.T) {
	l := memory.New()
	set := NewSet(testConfig(), l, nil, quiet)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- set.Hold(ctx) }()
	s := newStore(true)
	for _, name := range []string{"events", "shop"} {
		appendEvents(t, l, name, 0, 3)
		s.until(t, func() bool {
			at, err := l.Progress(t.Context(), stream.DefaultReader+name)
			return err == nil && at.Positions != nil && at.Stream == name && at.Counts.Total() == 0
		})
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
