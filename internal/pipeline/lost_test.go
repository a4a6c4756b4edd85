package pipeline

import (
	"context"
	"testing"

	"naru/internal/quantity"
	"naru/internal/sink"
	"naru/internal/stream/seglog"
	"naru/internal/vfs"
)

// A table was ahead of the watermark when a repair of the log lost events: what
// it has of them is counted as written, once.
func TestLostButWritten(t *testing.T) {
	cfg := seglog.DefaultConfig()
	cfg.Segment, cfg.Reserve = 64*quantity.KiB, 0
	disk := vfs.NewMemory()
	if err := disk.MkdirAll("/log"); err != nil {
		t.Fatal(err)
	}
	open := func() *seglog.Log {
		t.Helper()
		l, err := seglog.Open(disk, "/log", cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
	for i := range 3 {
		appendEvents(t, l, "events", i*10, 10)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	const segment = "/log/0000000000000001.seg"
	var at []int64
	if err := seglog.Frames(disk, segment, func(f seglog.FrameInfo) error {
		if f.Kind == "append" {
			at = append(at, f.Pos)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	f, err := disk.OpenReadWrite(segment)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("damage"), at[1]+60); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := seglog.Repair(disk, "/log", cfg, nil); err != nil || len(r.Lost) == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	l = open()
	defer l.Close()
	s := newStore(false)
	h := &holding{n: 4}
	for range 2 {
		set, stop := runSet(t, l, func(ctx context.Context, name string) (sink.Sink, error) {
			out, err := s.open(ctx, name)
			h.Sink = out
			return h, err
		})
		s.until(t, func() bool { return writtenBy(set) >= 24 })
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if n := writtenBy(set); n != 24 {
			t.Fatalf("%d written, want 20 and the 4 that the sink held", n)
		}
	}
	if len(h.asked) != 1 || h.asked[0].From != 10 || h.asked[0].To != 20 {
		t.Errorf("asked for %+v", h.asked)
	}
}
