package pipeline

import (
	"bytes"
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/sink"
	sinkmemory "naru/internal/sink/memory"
	"naru/internal/stream"
	"naru/internal/stream/memory"
)

// Where a full disk has no room for all that waits, it is asked to take less at a
// time, until it does.
func TestFullDiskTakesLess(t *testing.T) {
	const room = 5 << 19 // of one commit; smaller ones leave no room either, until retention makes some
	l := memory.New()
	data := append(append([]byte{'"'}, bytes.Repeat([]byte("x"), 100_000)...), '"')
	const events = 80
	for i := range events {
		var b recordbatch.Builder
		b.Reset(time.Now())
		b.AppendEvent(&event.Event{ID: fmt.Append(nil, i), Source: []byte("/t"), Type: []byte("t"), Data: data})
		if _, err := l.Append(t.Context(), stream.Write{Stream: "events", Batch: b.Finish(nil, recordbatch.None), Count: 1}); err != nil {
			t.Fatal(err)
		}
	}
	target := sinkmemory.NewTarget()
	var open sink.Pending // of the one session at a time
	refused := 0
	target.OnCommit = func() error {
		if open.PendingBytes() > room {
			refused++
			return fmt.Errorf("write rows: %w", syscall.ENOSPC)
		}
		return nil
	}
	set := NewSet(Config{CommitInterval: quantity.Duration(time.Hour), CommitBytes: 4 << 20, ReadBytes: 64 << 10,
		DrainTimeout: quantity.Duration(time.Minute), BackoffMin: 1, BackoffMax: 1}, l, func(ctx context.Context, name string) (sink.Sink, error) {
		s, err := target.Open(ctx, name)
		if err == nil {
			open = s.(sink.Pending)
		}
		return s, err
	}, quiet)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- set.Run(ctx) }()
	look, late := time.NewTicker(time.Millisecond), time.After(time.Minute)
	defer look.Stop()
	for len(target.Events("events")) < events/2 { // the others may wait for the next commit
		select {
		case <-look.C:
		case <-late:
			t.Fatalf("%d of %d events are written", len(target.Events("events")), events)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for i, e := range target.Events("events") {
		if e.ID != fmt.Sprint(i) {
			t.Fatalf("event %d has id %s", i, e.ID)
		}
	}
	if refused == 0 {
		t.Fatal("the disk was never full")
	}
}
