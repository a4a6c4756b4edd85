// Package sinktest is the conformance suite for sinks. A driver's test is one
// line:
//
//	func TestSink(t *testing.T) { sinktest.Run(t, newHarness) }
package sinktest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/sink"
)

// Stream is the stream that the suite writes.
const Stream = "events"

// Lives are the incarnations of the log that the suite uses, in order.
var Lives = []event.Incarnation{{0xa1}, {0xa2}}

// Harness is one target, empty at first.
type Harness struct {
	// Open opens the sink anew, as after a restart: what was not committed is
	// forgotten. The suite closes a sink before it opens the next.
	Open func(t *testing.T) sink.Sink
	// IDs lists the ids of all events that the target holds durably, in any
	// order, an event that it holds twice twice.
	IDs func(t *testing.T) []string
	// Tabular: the kind of sink is; so events that come without steps are made rows.
	Tabular bool
	// Exact: the target skips what it has when it is written again.
	Exact bool
	// Rewinds is what the target gives back when it is taken back to a place.
	Rewinds Rewinds
	// Refuse makes the target refuse rows with these ids for good; nil: it cannot.
	Refuse func(ids ...string)
	// Narrow: the target cannot hold values at the ends of their ranges, the character
	// U+0000 or the years 1 and 9999, and refuses rows that have them (each fifth Row).
	Narrow bool
	// Typed: a column of the target keeps the type that it came with; the target
	// refuses rows whose value is of another one.
	Typed bool
}

// Run runs the suite; each test gets a harness of its own.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Harness)
	}{
		{"CommitMakesDurable", testDurable},
		{"CloseForgets", testCloseForgets},
		{"CommitOfNothing", testNothing},
		{"ReadAgain", testReadAgain},
		{"ReadAgainInOtherBatches", testOtherBatches},
		{"FromTheMiddleOfABatch", testMiddle},
		{"GapsInOffsets", testGaps},
		{"BatchWithoutEvents", testNoEvents},
		{"Holds", testHolds},
		{"Partitions", testPartitions},
		{"Lives", testLives},
		{"Types", testTypes},
		{"DataOfAllKinds", testKinds},
		{"Resume", testResume},
		{"Pending", testPending},
		{"CancelledCommit", testCancelled},
		{"Rows", testRows},
		{"RowsOfOtherColumns", testOtherColumns},
		{"Refused", testRefused},
		{"AnyCuts", testAnyCuts},
		{"Rewind", testRewind},
		{"RewindAll", testRewindAll},
		{"RewindIntoALife", testRewindIntoALife},
		{"RewindSendsAgain", testRewindSendsAgain},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// Spec is an event of a batch.
type Spec struct {
	ID, Type, Data string
	Gap            int64  // offsets left out before it
	Contract       string // hash of the contract that it was judged by; empty: none
}

// Batch makes a batch whose first event has the offset base, in record batches
// of at most three events.
func Batch(life event.Incarnation, partition int32, base int64, specs ...Spec) *event.Batch {
	b := &event.Batch{Stream: Stream, Incarnation: life, Partition: partition, From: base, Next: base}
	var rb recordbatch.Builder
	received := time.Date(2015, 9, 12, 10, 0, 0, 0, time.UTC)
	for len(specs) > 0 {
		n := 1
		for n < min(3, len(specs)) && specs[n].Gap == 0 {
			n++
		}
		rb.Reset(received)
		for _, s := range specs[:n] {
			e := &event.Event{ID: []byte(s.ID), Source: []byte("/test"), Type: []byte(s.Type), Data: []byte(s.Data),
				Time: received.Add(-time.Minute), ReceivedAt: received}
			if s.Contract != "" {
				e.Contract = event.Contract{ID: []byte("c"), Version: []byte("1"), Hash: []byte(s.Contract)}
			}
			rb.AppendEvent(e)
		}
		raw := rb.Finish(nil, recordbatch.Snappy)
		b.Next += specs[0].Gap
		recordbatch.SetBaseOffset(raw, b.Next)
		b.Raw = append(b.Raw, raw)
		b.Next += int64(n)
		specs = specs[n:]
	}
	return b
}

// Events are n plain events with ids prefix-0 ....
func Events(prefix string, n int) []Spec {
	out := make([]Spec, n)
	for i := range out {
		out[i] = Spec{ID: fmt.Sprintf("%s-%d", prefix, i), Type: "page_view", Data: fmt.Sprintf(`{"n":%d}`, i)}
	}
	return out
}

func ids(specs ...[]Spec) (out []string) {
	for _, list := range specs {
		for _, s := range list {
			out = append(out, s.ID)
		}
	}
	return out
}

func (h Harness) write(t *testing.T, s sink.Sink, b *event.Batch) {
	t.Helper()
	if h.Tabular {
		b = AsRows(b)
	}
	if err := s.Write(t.Context(), b); err != nil {
		t.Fatalf("Write: %v", err)
	}
}

// commit commits everything and checks that what was written is covered.
func commit(t *testing.T, s sink.Sink, written ...*event.Batch) event.Positions {
	t.Helper()
	done, err := s.Commit(t.Context())
	if err != nil {
		t.Fatalf("Commit: %v", err)
	}
	if d, ok := s.(sink.Drainer); ok {
		if done, err = d.Drain(t.Context()); err != nil {
			t.Fatalf("Drain: %v", err)
		}
	}
	for _, b := range written {
		if got, ok := done.Get(b.Incarnation, b.Partition); !ok || got != b.Next {
			t.Errorf("Commit covers %s, want %s", done, b.End())
		}
	}
	return done
}

func closeSink(t *testing.T, s sink.Sink) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

// holds checks what is durable; twice tells that the given events may be there
// once more when the target is not exact.
func holds(t *testing.T, h Harness, want []string, twice ...string) {
	t.Helper()
	got := h.IDs(t)
	slices.Sort(got)
	want = slices.Clone(want)
	if !h.Exact {
		got, want = slices.Compact(got), append(want, twice...)
	}
	slices.Sort(want)
	if !h.Exact {
		want = slices.Compact(want)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the target holds %q, want %q", got, want)
	}
}

func testDurable(t *testing.T, h Harness) {
	s := h.Open(t)
	a, b := Events("a", 5), Events("b", 4)
	first := Batch(Lives[0], 0, 10, a...)
	h.write(t, s, first)
	commit(t, s, first)
	holds(t, h, ids(a))
	second := Batch(Lives[0], 0, first.Next, b...)
	h.write(t, s, second)
	commit(t, s, second)
	closeSink(t, s)
	holds(t, h, ids(a, b))
}

func testCloseForgets(t *testing.T, h Harness) {
	s := h.Open(t)
	a, b := Events("a", 5), Events("b", 4)
	first := Batch(Lives[0], 0, 0, a...)
	h.write(t, s, first)
	commit(t, s, first)
	second := Batch(Lives[0], 0, first.Next, b...)
	h.write(t, s, second)
	closeSink(t, s)
	if h.Exact {
		holds(t, h, ids(a))
	}
	s = h.Open(t)
	h.write(t, s, second)
	commit(t, s, second)
	closeSink(t, s)
	holds(t, h, ids(a, b))
}

func testNothing(t *testing.T, h Harness) {
	s := h.Open(t)
	for range 2 {
		if done, err := s.Commit(t.Context()); err != nil || len(done) > 0 {
			t.Errorf("Commit of nothing: %v, %v", done, err)
		}
	}
	a := Events("a", 1)
	b := Batch(Lives[0], 0, 0, a...)
	h.write(t, s, b)
	commit(t, s, b)
	commit(t, s, b) // and once more with nothing new
	closeSink(t, s)
	holds(t, h, ids(a))
}

func testReadAgain(t *testing.T, h Harness) {
	s := h.Open(t)
	a, b := Events("a", 7), Events("b", 3)
	first := Batch(Lives[0], 0, 0, a...)
	h.write(t, s, first)
	commit(t, s, first)
	closeSink(t, s)
	s = h.Open(t)
	h.write(t, s, first) // the watermark was lost
	second := Batch(Lives[0], 0, first.Next, b...)
	h.write(t, s, second)
	commit(t, s, second)
	closeSink(t, s)
	holds(t, h, ids(a, b))
}

func testOtherBatches(t *testing.T, h Harness) {
	all := Events("a", 12)
	s := h.Open(t)
	first := Batch(Lives[0], 0, 0, all[:5]...)
	h.write(t, s, first)
	commit(t, s, first)
	closeSink(t, s)
	s = h.Open(t)
	b := Batch(Lives[0], 0, 2, all[2:9]...)
	h.write(t, s, b)
	commit(t, s, b)
	closeSink(t, s)
	s = h.Open(t)
	b = Batch(Lives[0], 0, 0, all...)
	h.write(t, s, b)
	commit(t, s, b)
	closeSink(t, s)
	holds(t, h, ids(all))
}

func testMiddle(t *testing.T, h Harness) {
	all := Events("a", 9)
	b := Batch(Lives[0], 0, 0, all...)
	b.From = 4 // inside a record batch
	s := h.Open(t)
	h.write(t, s, b)
	commit(t, s, b)
	closeSink(t, s)
	holds(t, h, ids(all[4:]))
}

func testGaps(t *testing.T, h Harness) {
	all := Events("a", 6)
	all[2].Gap, all[4].Gap = 100, 1
	b := Batch(Lives[0], 0, 0, all...)
	b.Next += 5 // control records at the end
	s := h.Open(t)
	h.write(t, s, b)
	commit(t, s, b)
	next := Batch(Lives[0], 0, b.Next, Events("b", 1)...)
	h.write(t, s, next)
	commit(t, s, next)
	closeSink(t, s)
	holds(t, h, append(ids(all), "b-0"))
}

// Retention has overtaken the reader: an empty batch moves the positions.
func testNoEvents(t *testing.T, h Harness) {
	a, b := Events("a", 3), Events("b", 3)
	s := h.Open(t)
	first, none, last := Batch(Lives[0], 0, 0, a...), Batch(Lives[0], 0, 3), Batch(Lives[0], 0, 50, b...)
	none.Next = 50
	h.write(t, s, first)
	commit(t, s, first)
	h.write(t, s, none)
	commit(t, s, none)
	h.write(t, s, last)
	commit(t, s, last)
	closeSink(t, s)
	holds(t, h, ids(a, b))
}

func testHolds(t *testing.T, h Harness) {
	s := h.Open(t)
	if _, ok := s.(sink.Holder); !ok {
		t.Skip("the sink is no Holder")
	}
	count := func(want int64, spans ...event.Span) {
		t.Helper()
		if got, err := s.(sink.Holder).Holds(t.Context(), spans); err != nil || got != want {
			t.Fatalf("holds %d of %+v, %v; want %d", got, spans, err, want)
		}
	}
	all := Events("a", 6)
	all[2].Gap, all[4].Type = 100, "click"
	first, other := Batch(Lives[0], 0, 10, all...), Batch(Lives[1], 0, 10, Events("b", 4)...)
	h.write(t, s, first)
	count(0, event.Span{Incarnation: Lives[0], To: 1000}) // not committed
	commit(t, s, first)
	h.write(t, s, other)
	commit(t, s, first, other)
	closeSink(t, s)
	s = h.Open(t)
	count(6, event.Span{Incarnation: Lives[0], To: 1000})
	count(3, event.Span{Incarnation: Lives[0], From: 11, To: 114})
	count(2, event.Span{Incarnation: Lives[0], From: 11, To: 12}, event.Span{Incarnation: Lives[1], From: 13, To: 14})
	count(0, event.Span{Incarnation: Lives[0], From: 12, To: 112}, event.Span{Incarnation: Lives[0], Partition: 1, To: 1000}, event.Span{Incarnation: Lives[0], From: 116, To: 200})
	closeSink(t, s)
}

func testPartitions(t *testing.T, h Harness) {
	a, b := Events("a", 5), Events("b", 5)
	s := h.Open(t)
	first, second := Batch(Lives[0], 0, 0, a...), Batch(Lives[0], 1, 3, b...)
	h.write(t, s, first)
	commit(t, s, first)
	h.write(t, s, second)
	commit(t, s, first, second)
	closeSink(t, s)
	s = h.Open(t)
	h.write(t, s, second)
	h.write(t, s, first)
	commit(t, s, first, second)
	closeSink(t, s)
	holds(t, h, ids(a, b))
}

func testLives(t *testing.T, h Harness) {
	a, b := Events("a", 5), Events("b", 5)
	s := h.Open(t)
	first, second := Batch(Lives[0], 0, 90, a...), Batch(Lives[1], 0, 0, b...)
	h.write(t, s, first)
	h.write(t, s, second) // lower offsets, another life
	commit(t, s, first, second)
	closeSink(t, s)
	holds(t, h, ids(a, b))
	s = h.Open(t)
	h.write(t, s, second)
	commit(t, s, second)
	closeSink(t, s)
	holds(t, h, ids(a, b))
}

func testTypes(t *testing.T, h Harness) {
	var all []Spec
	for i := range 30 {
		all = append(all, Spec{ID: fmt.Sprint("e", i), Type: fmt.Sprintf("type_%d", i%7), Data: `{"a":1}`})
	}
	s := h.Open(t)
	b := Batch(Lives[0], 0, 0, all...)
	h.write(t, s, b)
	commit(t, s, b)
	closeSink(t, s)
	holds(t, h, ids(all))
}

func testKinds(t *testing.T, h Harness) {
	all := []Spec{
		{ID: "empty", Type: "x", Data: ""}, {ID: "object", Type: "x", Data: `{"a":{"b":[1,2]},"c":null}`},
		{ID: "array", Type: "x", Data: `[1]`}, {ID: "text", Type: "x", Data: "no JSON \xff"},
		{ID: "long", Type: "x", Data: `{"a":"` + longText() + `"}`},
	}
	s := h.Open(t)
	b := Batch(Lives[0], 0, 0, all...)
	h.write(t, s, b)
	commit(t, s, b)
	closeSink(t, s)
	holds(t, h, ids(all))
}

func longText() string {
	b := make([]byte, 200_000)
	for i := range b {
		b[i] = 'a' + byte(i%26)
	}
	return string(b)
}

func testResume(t *testing.T, h Harness) {
	s := h.Open(t)
	r, ok := s.(sink.Resumer)
	if !ok {
		closeSink(t, s)
		t.Skip("no Resumer")
	}
	if at, err := r.Resume(t.Context(), Stream); err != nil || at != nil {
		t.Errorf("Resume of nothing: %v, %v; want nil", at, err)
	}
	a := Events("a", 5)
	b := Batch(Lives[0], 0, 0, a...)
	h.write(t, s, b)
	commit(t, s, b)
	closeSink(t, s)
	s = h.Open(t)
	at, err := s.(sink.Resumer).Resume(t.Context(), Stream)
	if err != nil {
		t.Fatalf("Resume: %v", err)
	}
	for inc, parts := range at {
		for p, off := range parts {
			if inc != Lives[0] || p != 0 || off > b.Next {
				t.Errorf("Resume says %s: reading from there would leave out events", at)
			}
		}
	}
	closeSink(t, s)
}

func testPending(t *testing.T, h Harness) {
	s := h.Open(t)
	p, ok := s.(sink.Pending)
	if !ok {
		closeSink(t, s)
		t.Skip("no Pending")
	}
	if n := p.PendingBytes(); n != 0 {
		t.Errorf("PendingBytes = %d before the first Write", n)
	}
	b := Batch(Lives[0], 0, 0, Events("a", 5)...)
	h.write(t, s, b)
	if n := p.PendingBytes(); n <= 0 {
		t.Errorf("PendingBytes = %d after Write", n)
	}
	commit(t, s, b)
	if n := p.PendingBytes(); n != 0 {
		t.Errorf("PendingBytes = %d after Commit", n)
	}
	closeSink(t, s)
}

func testCancelled(t *testing.T, h Harness) {
	s := h.Open(t)
	a := Events("a", 5)
	b := Batch(Lives[0], 0, 0, a...)
	h.write(t, s, b)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if done, err := s.Commit(ctx); err == nil {
		if off, _ := done.Get(Lives[0], 0); off == b.Next {
			holds(t, h, ids(a)) // it was quick enough
		}
	}
	closeSink(t, s)
	s = h.Open(t)
	h.write(t, s, b)
	commit(t, s, b)
	closeSink(t, s)
	holds(t, h, ids(a))
}
