package seglog

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"naru/internal/event"
	"naru/internal/quantity"
	"naru/internal/stream"
	"naru/internal/stream/streamtest"
	"naru/internal/vfs"
)

// At the moment of each sync of an append, nothing of it may be seen: a table
// would get ahead of a log that then loses it.
func TestNothingUnsyncedIsVisible(t *testing.T) {
	disk := newDisk(t)
	l := openLog(t, disk, testDir, testConfig())
	defer closeLog(t, l)
	ctx := testCtx(t)
	done, cancel := context.WithCancel(ctx)
	cancel()
	answered, looked := int64(0), 0
	disk.OnSync(func(_ int, _ vfs.Op, path string) {
		looked++
		st, err := l.Stat(ctx, "events")
		if err != nil && answered > 0 {
			t.Errorf("sync of %s: %v", path, err)
			return
		}
		for _, r := range st.Ranges {
			if r.End > answered {
				t.Errorf("sync of %s: %d events are visible, %d are answered", path, r.End, answered)
			}
		}
		at := event.Position{Incarnation: st.Incarnation, Offset: answered}
		if b, err := l.Read(done, "events", at, 1<<20); err == nil && b.Next > answered {
			t.Errorf("sync of %s: read up to %d, %d are answered", path, b.Next, answered)
		}
	})
	const n = 40
	for range n {
		if _, err := l.Append(ctx, streamtest.Write("events", 0, "x")); err != nil {
			t.Fatal(err)
		}
		answered++
	}
	disk.OnSync(nil)
	if looked < n {
		t.Fatalf("looked at %d syncs of %d appends", looked, n)
	}
}

// What retention has dropped is not missing at the next start, whatever a power
// cut leaves.
func TestDroppedSegmentsAreNotMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newDisk(t)
		cfg := testConfig()
		cfg.Segment = 8 * quantity.KiB
		cfg.RetainBytes, cfg.RetainAge = 40*quantity.KiB, 0
		l := openLog(t, disk, testDir, cfg)
		fillSegments(t, l, &wall{}, 12)
		synctest.Wait()
		retired := l.Stats().Retired
		if retired == 0 {
			t.Fatal("nothing was dropped")
		}
		st, err := l.Stat(context.Background(), "events")
		if err != nil {
			t.Fatal(err)
		}
		for seed := range uint64(20) {
			after, err := open(disk.CrashClone(seed), testDir, cfg, nil, time.Now)
			if err != nil {
				t.Errorf("seed %d: %v", seed, err)
				continue
			}
			got, err := after.Stat(context.Background(), "events")
			if err != nil || end(got) != end(st) {
				t.Errorf("seed %d: %+v, %v; it was %+v", seed, got, err, st)
			}
			closeLog(t, after)
		}
		closeLog(t, l)
	})
}

func end(st stream.Stat) int64 { return st.Ranges[len(st.Ranges)-1].End }
