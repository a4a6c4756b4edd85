package pipeline

import (
	"context"
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/quantity"
	sinkmemory "naru/internal/sink/memory"
	"naru/internal/stream/memory"
)

// TestRestIsBounded: what readers have handed over before the last commit of a session is
// little, however fast they go on: the sink holds no more than pipelines.commit_bytes and that.
func TestRestIsBounded(t *testing.T) {
	for range 10 {
		l := memory.New()
		target := sinkmemory.NewTarget()
		entered, blocked := make(chan struct{}), make(chan struct{})
		writes, since, most := 0, 0, 0
		target.OnWrite = func(*event.Batch) error {
			if writes++; writes == 1 {
				close(entered)
				<-blocked
			}
			since++
			most = max(most, since)
			time.Sleep(200 * time.Microsecond) // a sink takes time, in which its readers go on
			return nil
		}
		target.OnCommit = func() error { since = 0; return nil }
		cfg := testConfig()
		cfg.CommitInterval, cfg.ReadBytes, cfg.CommitBytes = quantity.Duration(time.Hour), 1, 1
		set := NewSet(cfg, l, target.Open, quiet)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- set.Run(ctx) }()
		const batches = 100
		for i := range batches {
			appendEvents(t, l, "events", i*10, 10)
		}
		<-entered
		l.Trim("events", 0, 20)
		close(blocked)
		newStore(false).until(t, func() bool {
			for _, x := range set.Status() {
				return x.Progress.Counts.Total() == 10*batches
			}
			return false
		})
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if most > 4 {
			t.Fatalf("%d batches without a commit", most)
		}
	}
}
