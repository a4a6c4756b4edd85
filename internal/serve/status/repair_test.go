package status

import (
	"testing"

	"naru/internal/event"
	"naru/internal/quantity"
	"naru/internal/stream"
	"naru/internal/stream/seglog"
	"naru/internal/vfs"
)

// A repair that gave something up leaves an equation that holds: what it lost
// unread is a term, what it cut off although it was written is not.
func TestEquationAfterRepair(t *testing.T) {
	const dir = "/log"
	cfg := seglog.DefaultConfig()
	cfg.Segment, cfg.Reserve = 64*quantity.KiB, 0
	open := func(t *testing.T, disk *vfs.Memory) *seglog.Log {
		t.Helper()
		l, err := seglog.Open(disk, dir, cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	marked := func(t *testing.T, l *seglog.Log, counted, offset int64) {
		t.Helper()
		st, err := l.Stat(t.Context(), "events")
		if err != nil {
			t.Fatal(err)
		}
		p, err := l.Progress(t.Context(), "default/events")
		if err != nil {
			t.Fatal(err)
		}
		p = p.Clone()
		p.Positions.Advance(event.Position{Incarnation: st.Incarnation, Offset: offset})
		p.Stream, p.Counts, p.Events = "events", stream.Counts{Written: counted}, map[int32]int64{0: counted}
		if err := l.Commit(t.Context(), nil, "default/events", p); err != nil {
			t.Fatal(err)
		}
	}
	appends := func(n int) func(*testing.T, *seglog.Log) {
		return func(t *testing.T, l *seglog.Log) { put(t, l, "events", "", n) }
	}
	mark := func(counted, offset int64) func(*testing.T, *seglog.Log) {
		return func(t *testing.T, l *seglog.Log) { marked(t, l, counted, offset) }
	}
	type steps []func(*testing.T, *seglog.Log)
	for name, c := range map[string]struct {
		before steps // one frame each, behind the checkpoint
		damage int   // of these
		want   Stream
		after  steps // in the repaired log
		then   Stream
	}{
		"cut, and written before": {
			steps{appends(20), appends(10), mark(30, 30)}, 1,
			Stream{Acknowledged: 20, Written: 20, Cut: 10},
			steps{appends(5), mark(35, 25)},
			Stream{Acknowledged: 25, Written: 25, Cut: 10},
		},
		"lost, and never read": {
			steps{appends(20), mark(20, 20), appends(10), appends(3)}, 2,
			Stream{Acknowledged: 33, Written: 20, NotYetWritten: 3, Lost: 10},
			steps{mark(23, 33)},
			Stream{Acknowledged: 33, Written: 23, Lost: 10},
		},
		"lost, and written before": {
			steps{appends(20), appends(10), mark(30, 30), appends(3)}, 1,
			Stream{Acknowledged: 33, Written: 30, NotYetWritten: 3},
			steps{mark(33, 33)},
			Stream{Acknowledged: 33, Written: 33},
		},
		"lost, and no pipeline yet": {
			steps{appends(20), appends(10), appends(3)}, 1,
			Stream{Acknowledged: 33, NotYetWritten: 23, Lost: 10},
			steps{mark(23, 33)},
			Stream{Acknowledged: 33, Written: 23, Lost: 10},
		},
	} {
		t.Run(name, func(t *testing.T) {
			disk := vfs.NewMemory()
			if err := disk.MkdirAll(dir); err != nil {
				t.Fatal(err)
			}
			l := open(t, disk)
			for _, step := range c.before {
				step(t, l)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			harm(t, disk, dir+"/0000000000000001.seg", 1+c.damage)
			if _, err := seglog.Repair(disk, dir, cfg, nil); err != nil {
				t.Fatal(err)
			}
			l = open(t, disk)
			defer l.Close()
			look := func(want Stream) {
				t.Helper()
				all, err := source(l, &fakeLake{}).Streams(t.Context())
				if err != nil || len(all) != 1 {
					t.Fatalf("%+v, %v", all, err)
				}
				got := all[0]
				if got.Acknowledged != want.Acknowledged || got.Written != want.Written || got.NotYetWritten != want.NotYetWritten ||
					got.Lost != want.Lost || got.Cut != want.Cut || !got.Balanced {
					t.Errorf("%+v, want %+v", got, want)
				}
			}
			look(c.want)
			for _, step := range c.after {
				step(t, l)
			}
			look(c.then)
		})
	}
}

// harm changes a byte of the n-th frame that is not a promise.
func harm(t *testing.T, disk *vfs.Memory, path string, n int) {
	t.Helper()
	var at []int64
	if err := seglog.Frames(disk, path, func(f seglog.FrameInfo) error {
		if f.Kind != "promise" {
			at = append(at, f.Pos)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	f, err := disk.OpenReadWrite(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at[n]+60); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b, at[n]+60); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}
