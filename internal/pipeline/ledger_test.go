package pipeline

import (
	"testing"

	"naru/internal/event"
	"naru/internal/stream"
)

// A table that takes no rows holds the watermark for days, while the others go
// on: the ledger stays small, and its counts stay those of the events below the
// watermark.
func TestLedgerStaysSmallBehindAHeldWatermark(t *testing.T) {
	inc := event.Incarnation{1}
	l := newLedger(stream.Progress{Stream: "events"})
	const batches, size = 50_000, 3
	for i := range int64(batches) {
		l.wrote(&event.Batch{Incarnation: inc, From: i * size, Next: (i + 1) * size}, stream.Counts{Written: 2, Filtered: 1}, nil)
		if l.settle(event.Positions{inc: {0: 1}}) {
			t.Fatal("the watermark moved past an event that is held back")
		}
	}
	if n := len(l.pending[lane{inc: inc}]); n > maxSpans {
		t.Fatalf("%d spans, want at most %d", n, maxSpans)
	}
	if l.events != batches*size {
		t.Fatalf("%d events held, want %d", l.events, batches*size)
	}
	// Wherever the sink gets to, the watermark does not lead, and its counts fit.
	for _, upTo := range []int64{2, 100, 7_777, 100_000, batches * size} {
		l.settle(event.Positions{inc: {0: upTo}})
		at, _ := l.at.Positions.Get(inc, 0)
		c := l.at.Counts
		if at > upTo || at%size != 0 || c.Written != at/size*2 || c.Filtered != at/size {
			t.Fatalf("covered up to %d: watermark %d with counts %+v", upTo, at, c)
		}
	}
	if at, _ := l.at.Positions.Get(inc, 0); at != batches*size || len(l.pending) != 0 || l.events != 0 {
		t.Fatalf("watermark %d, %d lanes and %d events left", at, len(l.pending), l.events)
	}
}
