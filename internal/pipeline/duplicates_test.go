package pipeline

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"naru/internal/dedupe"
	"naru/internal/stream"
	"naru/internal/stream/memory"
	"naru/internal/vfs"
)

// What was sent before is counted and not written, also when a session begins anew
// in the middle, and streams of verdicts have no pipeline.
func TestDuplicatesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memory.New()
		j := dedupe.New(dedupe.DefaultConfig(), dedupe.Deps{FS: vfs.NewMemory(), Dir: "/ids", Log: log, Logger: quiet})
		if err := j.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		s := newStore(true)
		s.fail = func(call string, n int) error {
			if call == "commit" && n%3 == 2 {
				return fmt.Errorf("the %dth commit", n)
			}
			return nil
		}
		set := NewSet(testConfig(), j.Log(), s.open, quiet)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		go func() { ended <- j.Run(ctx) }()
		go func() { ended <- set.Run(ctx) }()
		var want []string
		for i := range 20 {
			appendEvents(t, log, "events", 10*i, 10)
			appendEvents(t, log, "events", 10*i/2, 10)
			time.Sleep(3 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		for i := range 200 {
			want = append(want, fmt.Sprint(i))
		}
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		slices.Sort(want)
		got := slices.Sorted(slices.Values(s.ids))
		if !slices.Equal(got, want) {
			t.Errorf("written %v", got)
		}
		at, err := log.Progress(t.Context(), stream.DefaultReader+"events")
		if err != nil || at.Counts != (stream.Counts{Written: 200, Duplicates: 200}) || at.Events[0] != 400 {
			t.Errorf("%+v, %v", at, err)
		}
		readers, err := log.Readers(t.Context())
		if err != nil || len(readers) != 4 { // the pipeline, the judge, its ids, and that judging began
			t.Errorf("readers %v, %v", readers, err)
		}
	})
}
