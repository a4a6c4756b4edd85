package seglog

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/stream"
	"naru/internal/vfs"
)

const copyDir = "/copy"

func unpaced(int) error { return nil }

// copyOf copies the log at testDir to a fresh folder.
func copyOf(t *testing.T, disk *vfs.Memory, m *Marks) (Copied, error) {
	t.Helper()
	clearFolder(t, disk, copyDir)
	return Copy(testCtx(t), disk, testDir, copyDir, m, unpaced)
}

func clearFolder(t *testing.T, disk *vfs.Memory, dir string) {
	t.Helper()
	if err := disk.MkdirAll(dir); err != nil {
		t.Fatal(err)
	}
	names, err := disk.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := disk.Remove(dir + "/" + name); err != nil {
			t.Fatal(err)
		}
	}
}

func marksOf(t *testing.T, disk *vfs.Memory) *Marks {
	t.Helper()
	m, err := ReadMarks(disk, testDir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// countFrom reads a stream from a position to its end, checks that no offset is
// missing, and returns the offset behind the last event.
func countFrom(t *testing.T, l *Log, at event.Position) int64 {
	t.Helper()
	st, err := l.Stat(testCtx(t), "events")
	if err != nil {
		t.Fatal(err)
	}
	end := st.Ranges[len(st.Ranges)-1].End
	for at.Offset < end {
		b, err := l.Read(testCtx(t), "events", at, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if b.From != at.Offset {
			t.Fatalf("read from %d gave %d", at.Offset, b.From)
		}
		at = b.End()
	}
	return at.Offset
}

// statFS calls a hook before it says whether a file is there.
type statFS struct {
	*vfs.Memory
	before func(path string)
}

func (s statFS) Stat(path string) (fs.FileInfo, error) {
	s.before(path)
	return s.Memory.Stat(path)
}

// A segment is sealed just behind the frame that a copy has read last, of which no
// promise has come yet.
func TestCopyMeetsTheSeal(t *testing.T) {
	disk := newDisk(t)
	cfg := testConfig()
	cfg.Promise = quantity.Duration(time.Hour)
	l := openLog(t, disk, testDir, cfg)
	defer closeLog(t, l)
	clock := &wall{}
	for range 4 { // the next one does not fit
		if _, err := l.Append(testCtx(t), writeNow(clock, "events", strings.Repeat("x", 7000))); err != nil {
			t.Fatal(err)
		}
	}
	looks := 0
	next := testDir + "/" + segmentName(2)
	beside := statFS{disk, func(path string) {
		if path != next {
			return
		}
		if looks++; looks == 2 { // it found none before, and has come to the end of what is written
			if _, err := l.Append(testCtx(t), writeNow(clock, "events", strings.Repeat("y", 7000))); err != nil {
				t.Error(err)
			}
		}
	}}
	if err := disk.MkdirAll(copyDir); err != nil {
		t.Fatal(err)
	}
	m := marksOf(t, disk)
	made, err := Copy(testCtx(t), beside, testDir, copyDir, m, unpaced)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.mu.segments) != 2 || looks < 2 {
		t.Fatalf("%d segments, looked %d times: the segment was not sealed beside the copy", len(l.mu.segments), looks)
	}
	if len(made.Streams) != 1 || made.Streams[0].End < 4 {
		t.Errorf("copied %+v", made.Streams)
	}
	if _, _, err := Verify(disk, copyDir); err != nil {
		t.Error(err)
	}
}

// TestCopyBesideWriter copies again and again while events come in, a reader
// moves on and retention drops and recycles segments.
func TestCopyBesideWriter(t *testing.T) {
	disk := newDisk(t)
	cfg := testConfig()
	cfg.RetainBytes, cfg.Promise = 128*quantity.KiB, quantity.Duration(5*time.Millisecond)
	l := openLog(t, disk, testDir, cfg)
	defer closeLog(t, l)
	clock := &wall{}
	var acked, read atomic.Int64
	var inc event.Incarnation
	positions := func(offset int64) event.Positions {
		return event.Positions{inc: {0: offset}}
	}
	append1 := func() {
		at, err := l.Append(context.Background(), writeNow(clock, "events", strings.Repeat("x", 700)))
		if err != nil {
			t.Error(err)
			return
		}
		acked.Store(at[0].Offset + 1)
	}
	append1()
	inc = l.mu.incarnation
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				for range 10 {
					append1()
				}
			}
		}
	})
	running.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
			to := acked.Load()
			p := stream.Progress{Stream: "events", Positions: positions(to), Counts: stream.Counts{Written: to}}
			if err := l.Commit(context.Background(), nil, "default/events", p); err != nil {
				t.Error(err)
				return
			}
			read.Store(to)
			l.wakeKeeper()
		}
	})
	stop := sync.OnceFunc(func() {
		close(done)
		running.Wait()
	})
	defer stop()
	overtaken := 0
	for range 15 {
		before := read.Load()
		m := marksOf(t, disk)
		want := acked.Load()
		made, err := copyOf(t, disk, m)
		if errors.Is(err, ErrOvertaken) {
			overtaken++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := Verify(disk, copyDir); err != nil {
			t.Fatal(err)
		}
		c := openLog(t, disk, copyDir, testConfig())
		at, err := c.Progress(testCtx(t), "default/events")
		if err != nil {
			t.Fatal(err)
		}
		from, _ := at.Positions.Get(inc, 0)
		if at.Counts.Written != from {
			t.Errorf("the reader stands at %d with %d written", from, at.Counts.Written)
		}
		if from > want || from == 0 && before > 1000 {
			t.Errorf("the reader stands at %d; it was at %d before and all was at %d", from, before, want)
		}
		if end := countFrom(t, c, event.Position{Incarnation: inc, Offset: from}); end < want {
			t.Errorf("the copy ends at %d, %d were acknowledged before", end, want)
		}
		if made.Closed != inc || made.Begun == inc || c.mu.incarnation != made.Begun {
			t.Errorf("incarnations: %+v, the copy goes on in %s", made, c.mu.incarnation)
		}
		pos, err := c.Append(testCtx(t), writeNow(clock, "events", "more"))
		if err != nil || pos[0].Incarnation != made.Begun {
			t.Errorf("append to the copy: %v, %v", pos, err)
		}
		closeLog(t, c)
		closeLog(t, openLog(t, disk, copyDir, testConfig()))
	}
	stop()
	t.Logf("%d events, %d segments dropped, %d copies overtaken", acked.Load(), l.stats.retired.Load(), overtaken)
	if overtaken == 15 || l.stats.retired.Load() < 5 {
		t.Error("nothing was proved")
	}
}

// TestCopyUnpromised: after a kill nobody promises what stands at the end; the
// copy has it all the same, whole and synced.
func TestCopyUnpromised(t *testing.T) { synctest.Test(t, copyUnpromised) }

func copyUnpromised(t *testing.T) {
	disk := newDisk(t)
	cfg := testConfig()
	cfg.Promise = quantity.Duration(time.Hour)
	l := openLog(t, disk, testDir, cfg)
	for range 10 {
		if _, err := l.Append(testCtx(t), writeNow(&wall{}, "events", "x")); err != nil {
			t.Fatal(err)
		}
	}
	killed := disk.KillClone()
	closeLog(t, l)
	if _, err := copyOf(t, killed, marksOf(t, killed)); err != nil {
		t.Fatal(err)
	}
	cut := killed.CrashClone(0)
	c := openLog(t, cut, copyDir, testConfig())
	defer closeLog(t, c)
	if end := countFrom(t, c, event.Position{}); end != 10 {
		t.Errorf("the copy has %d events", end)
	}
}

// TestCopyLag: events that were appended behind the marks, read by the running
// reader and dropped by retention are not missing silently.
func TestCopyLag(t *testing.T) {
	for name, early := range map[string]bool{"known reader": true, "reader that came later": false} {
		t.Run(name, func(t *testing.T) {
			disk := newDisk(t)
			cfg := testConfig()
			l := openLog(t, disk, testDir, cfg)
			defer closeLog(t, l)
			clock := &wall{}
			commit := func(offset int64) {
				p := stream.Progress{Stream: "events", Positions: event.Positions{}}
				if offset > 0 {
					p.Positions.Advance(event.Position{Incarnation: l.mu.incarnation, Offset: offset})
				}
				if err := l.Commit(testCtx(t), nil, "default/events", p); err != nil {
					t.Fatal(err)
				}
			}
			if early {
				commit(0)
			} else if _, err := l.Append(testCtx(t), writeNow(clock, "others", "x")); err != nil {
				t.Fatal(err)
			}
			waitPromised(t, disk)
			m := marksOf(t, disk)
			fillSegments(t, l, clock, 8)
			commit(l.mu.topics["events"].parts[0].end)
			l.retention.Lock()
			l.cfg.RetainBytes = 64 * quantity.KiB
			l.retention.Unlock()
			l.retain()
			if _, err := copyOf(t, disk, m); !errors.Is(err, ErrOvertaken) {
				t.Fatalf("copy: %v", err)
			}
			if _, err := copyOf(t, disk, marksOf(t, disk)); err != nil {
				t.Fatalf("copy with new marks: %v", err)
			}
		})
	}
}

// waitPromised waits until all that was written is promised.
func waitPromised(t *testing.T, disk *vfs.Memory) {
	t.Helper()
	for {
		_, tail, err := look(disk, testDir)
		if err != nil {
			t.Fatal(err)
		}
		if tail.promised >= tail.sequence()-1 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// TestCopyDamaged: damage in a segment that is copied is named, not copied.
func TestCopyDamaged(t *testing.T) {
	for _, n := range []uint64{1, 3} {
		disk := newDisk(t)
		l := openLog(t, disk, testDir, testConfig())
		fillSegments(t, l, &wall{}, 2)
		for range 5 {
			if _, err := l.Append(testCtx(t), writeNow(&wall{}, "events", strings.Repeat("y", 1000))); err != nil {
				t.Fatal(err)
			}
		}
		closeLog(t, l)
		path := testDir + "/" + segmentName(n)
		f, err := disk.OpenReadWrite(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{'?'}, 3000); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		m, err := ReadMarks(disk, testDir)
		if err == nil {
			_, err = copyOf(t, disk, m)
		}
		var damage *fault.Corrupt
		if !errors.As(err, &damage) || damage.Path != path {
			t.Errorf("segment %d: %v", n, err)
		}
	}
}

// TestCopyReadsRecycled: a file that is written again while it is being copied
// is noticed.
func TestCopyReadsRecycled(t *testing.T) {
	disk := newDisk(t)
	l := openLog(t, disk, testDir, testConfig())
	fillSegments(t, l, &wall{}, 6)
	closeLog(t, l)
	m := marksOf(t, disk)
	if err := disk.MkdirAll(copyDir); err != nil {
		t.Fatal(err)
	}
	made := 0
	_, err := Copy(testCtx(t), disk, testDir, copyDir, m, func(int) error {
		if made++; made > 1 {
			return nil
		}
		// The first segment goes, and its file becomes another one's.
		one := openLog(t, disk, testDir, testConfig())
		defer closeLog(t, one)
		one.cfg.RetainBytes = 64 * quantity.KiB
		one.retain()
		fillSegments(t, one, &wall{}, 8)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Verify(disk, copyDir); err != nil {
		t.Error(err)
	}
	info, err := List(disk, copyDir)
	if err != nil || info[0].Number == 1 {
		t.Errorf("the copy begins at %+v, %v", info[0], err)
	}
}
