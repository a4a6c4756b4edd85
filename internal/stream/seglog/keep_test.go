package seglog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/stream"
	"naru/internal/stream/streamtest"
	"naru/internal/vfs"
)

// wall is a clock that a test sets.
type wall struct {
	mu     sync.Mutex
	offset time.Duration
}

func (w *wall) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.offset)
}

func (w *wall) jump(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offset += d
}

// write is a write of one event received now.
func writeNow(clock *wall, name, value string) stream.Write {
	var b recordbatch.Builder
	b.Reset(clock.now())
	b.AppendEvent(&event.Event{ID: []byte("i"), Source: []byte("/s"), Type: []byte("t"), Data: []byte(value)})
	return stream.Write{Stream: name, Batch: b.Finish(nil, recordbatch.None), Count: 1}
}

// fillSegments appends until n more segments have been begun.
func fillSegments(t *testing.T, l *Log, clock *wall, n int) {
	t.Helper()
	for rolls := l.Stats().Rolls + int64(n); l.Stats().Rolls < rolls; {
		if _, err := l.Append(testCtx(t), writeNow(clock, "events", strings.Repeat("x", 1000))); err != nil {
			t.Fatal(err)
		}
	}
}

// dropped collects what retention drops.
type dropped struct {
	mu  sync.Mutex
	all []SegmentRetired
}

func (d *dropped) add(r SegmentRetired) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, r)
}

func (d *dropped) list() []SegmentRetired {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.all)
}

// retained runs a log in a bubble of fake time.
func retained(t *testing.T, change func(*Config), fn func(t *testing.T, l *Log, clock *wall, gone *dropped)) {
	synctest.Test(t, func(t *testing.T) {
		gone := &dropped{}
		cfg := testConfig()
		cfg.Segment = 8 << 10
		cfg.Recycle = 16 << 10
		cfg.RetainAge = quantity.Duration(24 * time.Hour)
		cfg.Listener.Retired = gone.add
		change(&cfg)
		clock := &wall{}
		l, err := open(newDisk(t), testDir, cfg, nil, clock.now)
		if err != nil {
			t.Fatal(err)
		}
		defer closeLog(t, l)
		fn(t, l, clock, gone)
	})
}

func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestRetentionByAge(t *testing.T) {
	retained(t, func(*Config) {}, func(t *testing.T, l *Log, clock *wall, gone *dropped) {
		fillSegments(t, l, clock, 2)
		sleep(23 * time.Hour)
		if len(gone.list()) != 0 {
			t.Fatalf("too early: %+v", gone.list())
		}
		changed := l.Changed()
		sleep(90 * time.Minute) // too old now, but no two checks an hour apart say so
		if len(gone.list()) != 0 {
			t.Fatalf("one check was enough: %+v", gone.list())
		}
		sleep(2 * time.Hour)
		if len(gone.list()) != 2 || gone.list()[0].Reason != "age" || gone.list()[0].Segment != 1 || !gone.list()[0].Recycled {
			t.Fatalf("gone: %+v", gone.list())
		}
		select {
		case <-changed:
		default:
			t.Fatal("readers were not told")
		}
		st, err := l.Stat(testCtx(t), "events")
		if err != nil || st.Ranges[0].Start == 0 || st.Acknowledged < st.Ranges[0].End {
			t.Fatalf("stat %+v, %v", st, err)
		}
		if s := l.Stats(); s.Segments != 1 || s.Retired != 2 {
			t.Fatalf("stats %+v", s)
		}
	})
}

func TestJumpingClockDeletesNothing(t *testing.T) {
	retained(t, func(*Config) {}, func(t *testing.T, l *Log, clock *wall, gone *dropped) {
		fillSegments(t, l, clock, 2)
		clock.jump(10 * 365 * 24 * time.Hour)
		sleep(50 * time.Minute)
		clock.jump(-10 * 365 * 24 * time.Hour)
		sleep(20 * time.Hour)
		if len(gone.list()) != 0 {
			t.Fatalf("gone: %+v", gone.list())
		}
	})
}

func TestRetentionByBytes(t *testing.T) {
	retained(t, func(c *Config) { c.RetainBytes = 40 << 10; c.RetainAge = 0 }, func(t *testing.T, l *Log, clock *wall, gone *dropped) {
		fillSegments(t, l, clock, 20)
		synctest.Wait()
		if len(gone.list()) != 16 || gone.list()[0].Reason != "bytes" {
			t.Fatalf("gone: %+v", gone.list())
		}
		if s := l.Stats(); s.DiskBytes > 40<<10+16<<10 {
			t.Fatalf("stats %+v", s)
		}
	})
}

func TestUnreadIsKept(t *testing.T) {
	retained(t, func(c *Config) { c.RetainBytes = 40 << 10 }, func(t *testing.T, l *Log, clock *wall, gone *dropped) {
		ctx := context.Background() // hours pass
		commit := func(reader string, at stream.Progress) {
			t.Helper()
			if err := l.Commit(ctx, nil, reader, at); err != nil {
				t.Fatal(err)
			}
		}
		fillSegments(t, l, clock, 1)
		inc := l.mu.incarnation
		commit("new", stream.Progress{Stream: "events"}) // registered, nothing read
		commit("elsewhere", stream.Progress{Stream: "other"})
		fillSegments(t, l, clock, 10)
		sleep(2 * time.Minute)
		if len(gone.list()) != 0 {
			t.Fatalf("gone although unread: %+v", gone.list())
		}
		third := l.mu.segments[2]
		cp, err := l.checkpointOf(third)
		if err != nil {
			t.Fatal(err)
		}
		commit("new", stream.Progress{Stream: "events", Positions: event.Positions{inc: {0: cp.parts[0].end}}})
		sleep(2 * time.Minute)
		if len(gone.list()) != 2 {
			t.Fatalf("the reader is in segment 3; gone: %+v", gone.list())
		}
		if err := l.Forget(ctx, "new"); err != nil {
			t.Fatal(err)
		}
		sleep(2 * time.Minute)
		if len(gone.list()) != 7 {
			t.Fatalf("the reader is forgotten; gone: %+v", gone.list())
		}
	})
	retained(t, func(c *Config) { c.RetainBytes = 40 << 10; c.DropUnread = true }, func(t *testing.T, l *Log, clock *wall, gone *dropped) {
		if err := l.Commit(testCtx(t), nil, "slow", stream.Progress{Stream: "events"}); err != nil {
			t.Fatal(err)
		}
		fillSegments(t, l, clock, 10)
		synctest.Wait()
		if len(gone.list()) == 0 || !slices.Equal(gone.list()[0].Unread, []string{"slow"}) {
			t.Fatalf("gone: %+v", gone.list())
		}
	})
}

func TestFullDiskRefusesAndHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newDisk(t)
		disk.SetCapacity(200 << 10)
		cfg := testConfig()
		cfg.Segment = 16 << 10
		cfg.Reserve = 64 << 10
		var told []bool
		cfg.Listener.Full = func(full bool, _ int64) { told = append(told, full) }
		l := openLog(t, disk, testDir, cfg)
		defer closeLog(t, l)
		ctx := context.Background()
		var err error
		n := 0
		for ; err == nil && n < 1000; n++ {
			_, err = l.Append(ctx, streamtest.Write("events", 0, fmt.Sprint(n, strings.Repeat("x", 500))))
		}
		n-- // the last one was refused
		var retry *fault.RetryAfter
		if !errors.Is(err, stream.ErrFull) || !errors.As(err, &retry) || retry.After <= 0 || fault.HintOf(err) == "" || errors.Is(err, fault.ErrPoisoned) {
			t.Fatalf("append %d: %v", n, err)
		}
		if free, _ := disk.Free(testDir); free < int64(cfg.Reserve) {
			t.Fatalf("%d bytes are free, the reserve is %d", free, cfg.Reserve)
		}
		if l.Err() != nil || !l.Stats().Full || !slices.Equal(told, []bool{true}) {
			t.Fatalf("err %v, told %v", l.Err(), told)
		}
		if got := all(t, l, "events"); len(got) != n {
			t.Fatalf("readers see %d of %d", len(got), n)
		}
		_ = l.Commit(ctx, nil, "r", stream.Progress{Stream: "events"}) // may find room or not; it must not break anything
		if l.Err() != nil {
			t.Fatal(l.Err())
		}
		disk.SetCapacity(1 << 20)
		sleep(2 * diskEvery)
		if _, err := l.Append(ctx, streamtest.Write("events", 0, "healed")); err != nil {
			t.Fatal(err)
		}
		if got := all(t, l, "events"); len(got) != n+1 || got[n] != "healed" {
			t.Fatalf("%d events", len(got))
		}
		if !slices.Equal(told, []bool{true, false}) {
			t.Fatalf("told %v", told)
		}
	})
}

// A reader that stands still makes the log grow beyond its limit, which must not
// go unseen: a warning for each segment that is due, and no more.
func TestRetentionSaysForWhomItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.Segment = 8 << 10
		cfg.RetainBytes = 16 << 10
		var said bytes.Buffer // written by the keeper; read when the log is closed
		clock := &wall{}
		l, err := open(newDisk(t), testDir, cfg, slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelWarn})), clock.now)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Commit(context.Background(), nil, "slow", stream.Progress{Stream: "events", Positions: event.Positions{}}); err != nil {
			t.Fatal(err)
		}
		fillSegments(t, l, clock, 4)
		sleep(10 * retentionEvery)
		closeLog(t, l)
		if n := strings.Count(said.String(), "retention waits"); n != 1 || !strings.Contains(said.String(), "slow") {
			t.Fatalf("%d warnings: %s", n, said.String())
		}
	})
}

// The disk has run down to the reserve, and watermarks have filled the active
// segment to its end. Retention, which needs a frame of its own to drop a
// segment, must still be able to make room.
func TestRetentionMakesRoomOnAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newDisk(t)
		disk.SetCapacity(200 << 10)
		cfg := testConfig()
		cfg.Segment = 16 << 10
		cfg.Recycle = 0
		cfg.Reserve = 64 << 10
		cfg.RetainAge = quantity.Duration(time.Hour)
		clock := &wall{}
		l, err := open(disk, testDir, cfg, nil, clock.now)
		if err != nil {
			t.Fatal(err)
		}
		defer closeLog(t, l)
		ctx := context.Background()
		for err == nil {
			_, err = l.Append(ctx, writeNow(clock, "events", strings.Repeat("x", 500)))
		}
		if !errors.Is(err, stream.ErrFull) {
			t.Fatal(err)
		}
		for range 300 {
			if err := l.Commit(ctx, nil, "r", stream.Progress{Stream: "other"}); err != nil {
				t.Fatalf("the watermark of a reader: %v", err)
			}
			if _, err := l.Append(ctx, writeNow(clock, "events", "x")); !errors.Is(err, stream.ErrFull) {
				t.Fatalf("append on a full disk: %v", err)
			}
		}
		if err := l.Forget(ctx, "r"); err != nil {
			t.Fatal(err)
		}
		sleep(4 * time.Hour)
		if l.Stats().Retired == 0 {
			t.Fatal("retention has dropped nothing")
		}
		if _, err := l.Append(ctx, writeNow(clock, "events", "healed")); err != nil {
			t.Fatal(err)
		}
	})
}

// The disk runs full without a reserve: ENOSPC where a segment is made refuses
// appends, and nothing breaks.
func TestNoSpaceForASegment(t *testing.T) {
	disk := newDisk(t)
	l := openLog(t, disk, testDir, testConfig())
	defer closeLog(t, l)
	disk.SetCapacity(40 << 10)
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		_, err = l.Append(testCtx(t), streamtest.Write("events", 0, strings.Repeat("x", 500)))
	}
	if !errors.Is(err, stream.ErrFull) || l.Err() != nil {
		t.Fatalf("append: %v, log: %v", err, l.Err())
	}
	if got := all(t, l, "events"); len(got) != n-1 {
		t.Fatalf("%d of %d events", len(got), n-1)
	}
	if names, err := disk.List(testDir); err != nil || len(names) != 3 { // with LAST and LOCK
		t.Fatalf("a half-made segment stays: %q, %v", names, err)
	}
}

func TestFullQueueWaitsAndGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newDisk(t)
		cfg := testConfig()
		cfg.Queue = 4 << 10
		l := openLog(t, disk, testDir, cfg)
		hold, held := make(chan struct{}), make(chan struct{}, 100)
		disk.OnSync(func(int, vfs.Op, string) {
			held <- struct{}{}
			<-hold
		})
		w := func() stream.Write { return streamtest.Write("events", 0, strings.Repeat("x", 1500)) }
		results := make(chan error, 10)
		for range 2 { // as much as the queue holds
			go func() {
				_, err := l.Append(context.Background(), w())
				results <- err
			}()
		}
		<-held
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err := l.Append(ctx, w())
		var retry *fault.RetryAfter
		if !errors.As(err, &retry) || !fault.IsTransient(err) || retry.After <= 0 || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("append to a full queue: %v", err)
		}
		go func() { // this one waits for room and gets it
			_, err := l.Append(context.Background(), w())
			results <- err
		}()
		synctest.Wait()
		if q := l.Stats().QueueBytes; q > int64(cfg.Queue) {
			t.Fatalf("%d bytes in a queue of %d", q, cfg.Queue)
		}
		close(hold)
		for range 3 {
			if err := <-results; err != nil {
				t.Fatal(err)
			}
		}
		if got := all(t, l, "events"); len(got) != 3 || l.Stats().QueueBytes != 0 {
			t.Fatalf("%d events, %+v", len(got), l.Stats())
		}
		closeLog(t, l)
	})
}

// A caller whose context ends waits for the write in flight, since the log
// still has its bytes.
func TestAppendInFlightOutlivesItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newDisk(t)
		l := openLog(t, disk, testDir, testConfig())
		hold := make(chan struct{})
		disk.OnSync(func(int, vfs.Op, string) { <-hold })
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() {
			_, err := l.Append(ctx, streamtest.Write("events", 0, "a"))
			done <- err
		}()
		synctest.Wait()
		cancel()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("append returned before its sync: %v", err)
		default:
		}
		close(hold)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		closeLog(t, l)
	})
}

// A segment's file is not written again while a reader has it open.
func TestReaderHoldsItsSegment(t *testing.T) {
	disk := newDisk(t)
	cfg := testConfig()
	cfg.Segment = 8 << 10
	cfg.Recycle = 64 << 10
	l := openLog(t, disk, testDir, cfg)
	defer closeLog(t, l)
	clock := &wall{}
	fillSegments(t, l, clock, 3)
	first := l.mu.segments[0]
	file, err := first.acquire()
	if err != nil {
		t.Fatal(err)
	}
	was := make([]byte, first.size)
	if err := readFull(file, was, 0); err != nil {
		t.Fatal(err)
	}
	l.retention.Lock()
	l.cfg.RetainBytes = 16 << 10
	l.retention.Unlock()
	l.retain()
	fillSegments(t, l, clock, 12) // recycles all there is to recycle
	now := make([]byte, first.size)
	if err := readFull(file, now, 0); err != nil || string(now) != string(was) {
		t.Fatalf("the file changed under its reader: %v", err)
	}
	if _, err := first.acquire(); !errors.Is(err, errGone) {
		t.Fatalf("a retired segment is opened again: %v", err)
	}
	first.release()
}
