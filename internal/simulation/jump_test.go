package simulation

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"naru/internal/quantity"
	"naru/internal/stream/seglog"
)

// The clock is set back and far ahead while everything runs and between lives,
// with a retention by age and a delay before files go: nothing is lost, doubled
// or stuck, and no jump makes anything old. Waiting is by the monotonic clock, of
// which hardly any passes here.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	n, deadline := uint64(4), time.Time{}
	if d := soaking(t); d > 0 {
		n, deadline = 1<<40, time.Now().Add(d)
	}
	first := *begin
	if *oneSeed != 0 {
		first, n = *oneSeed, 1
	}
	for seed := first; seed < first+n && (deadline.IsZero() || time.Now().Before(deadline)); seed++ {
		rng := rand.New(rand.NewPCG(seed, 8))
		h := newHistory(t, rng)
		h.jumps = true
		h.cfg.log.Segment, h.cfg.log.RetainBytes, h.cfg.log.RetainAge = 16*quantity.KiB, 0, quantity.Duration(24*time.Hour)
		h.cfg.lake.GCDelay, h.cfg.lake.ExpireEvery, h.cfg.lake.KeepSnapshots = quantity.Duration(time.Hour), 1, 1
		var retired atomic.Int64
		h.cfg.log.Listener.Retired = func(seglog.SegmentRetired) { retired.Add(1) }
		if err := h.run(2 + rng.IntN(3)); err != nil {
			h.report(t.Name(), seed, err)
		}
		if retired.Load() > 0 {
			t.Fatalf("seed %d: %d segments were dropped because the clock jumped", seed, retired.Load())
		}
	}
}
