package seglog

import (
	"fmt"
	"strings"
	"testing"

	"naru/internal/event"
	"naru/internal/quantity"
	"naru/internal/stream"
	"naru/internal/stream/streamtest"
)

// Frames larger than what a read takes at once, with a second stream between:
// every limit gives the same events, from every offset.
func TestReadOfLargeFrames(t *testing.T) {
	cfg := testConfig()
	cfg.Segment = 16 * quantity.MiB
	disk := newDisk(t)
	l := openLog(t, disk, testDir, cfg)
	defer closeLog(t, l)
	var want []string
	pad := strings.Repeat("x", 30_000)
	for frame := range 3 {
		var writes []stream.Write
		for i := range 60 {
			v := fmt.Sprintf("%d/%d %s", frame, i, pad)
			writes = append(writes, streamtest.Write("events", 0, v), streamtest.Write("other", 0, v[:20]))
			want = append(want, v)
		}
		if _, err := l.Append(testCtx(t), writes...); err != nil {
			t.Fatal(err)
		}
	}
	for _, limit := range []stream.Bytes{0, 100_000, 1 << 20, 16 << 20} {
		for _, first := range []int64{0, 1, 59, 61, 179} {
			from := event.Position{Incarnation: l.mu.incarnation, Offset: first}
			for from.Offset < 180 {
				b, err := l.Read(testCtx(t), "events", from, limit)
				if err != nil {
					t.Fatal(err)
				}
				if len(b.Raw) > 1 && b.Size() > int(limit) {
					t.Fatalf("limit %d: %d bytes", limit, b.Size())
				}
				for i, v := range streamtest.Values(t, b) {
					if v != want[int(from.Offset)+i] {
						t.Fatalf("limit %d: event %d reads %.10q", limit, int(from.Offset)+i, v)
					}
				}
				from = b.End()
			}
		}
	}
	if got := all(t, l, "other"); len(got) != 180 || got[179] != want[179][:20] {
		t.Fatalf("%d events of the other stream", len(got))
	}
}
