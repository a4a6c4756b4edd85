package seglog

import (
	"testing"
	"time"

	"naru/internal/event"
)

// Footers of sealed segments stay in memory while somebody uses them, not for as long
// as there is room.
func TestFootersInMemory(t *testing.T) {
	disk := newDisk(t)
	l := openLog(t, disk, testDir, testConfig())
	clock := &wall{}
	fillSegments(t, l, clock, 40)
	closeLog(t, l)
	l = openLog(t, disk, testDir, testConfig()) // without places in memory
	defer closeLog(t, l)
	l.cache.now = clock.now
	segments := l.mu.segments
	if len(segments) < 40 {
		t.Fatalf("%d segments", len(segments))
	}
	last, err := l.footer(segments, len(segments)-2)
	if err != nil {
		t.Fatal(err)
	}
	l.cache.drop(last.segment)
	var sealed int64 // where the newest sealed segment ends
	for _, in := range last.parts {
		sealed = max(sealed, in.end)
	}
	read := func(offset int64) {
		t.Helper()
		b, err := l.Read(testCtx(t), "events", event.Position{Incarnation: l.mu.lives(&part{})[0].incarnation, Offset: offset}, 1)
		if err != nil || b.From != offset {
			t.Fatalf("read at %d: %v", offset, err)
		}
	}
	read(sealed - 1)
	if n := len(l.cache.mu.all); n > 2 {
		t.Errorf("a read near the end left %d footers in memory", n)
	}
	most := 0
	for offset := range sealed {
		l.mu.topics["events"].parts[0].hints = hints{}
		read(offset)
		clock.jump(footerUnused / 4)
		most = max(most, len(l.cache.mu.all))
	}
	if most > 16 {
		t.Errorf("%d footers in memory at once, of which most were not used any more", most)
	}
	clock.jump(2 * time.Minute)
	l.cache.put(&footer{segment: 1 << 40})
	if n := len(l.cache.mu.all); n != 1 {
		t.Errorf("%d footers are left that nobody uses", n)
	}
}
