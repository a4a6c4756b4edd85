package seglog

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/stream"
	"naru/internal/stream/streamtest"
	"naru/internal/vfs"
)

func mustAppend(t testing.TB, l *Log, values ...string) event.Position {
	t.Helper()
	at, err := l.Append(testCtx(t), streamtest.Write("events", 0, values...))
	if err != nil {
		t.Fatal(err)
	}
	return at[0]
}

// all reads a stream from its oldest event to its end.
func all(t testing.TB, l *Log, name string) (values []string) {
	t.Helper()
	st, err := l.Stat(testCtx(t), name)
	if err != nil {
		t.Fatal(err)
	}
	from := event.Position{}
	for range st.Ranges {
		for r := st.Ranges[len(st.Ranges)-1]; from.Incarnation != r.Incarnation || from.Offset < r.End; {
			if r.Start == r.End {
				return values
			}
			b, err := l.Read(testCtx(t), name, from, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, streamtest.Values(t, b)...)
			from = b.End()
		}
	}
	return values
}

func quiet() Config {
	cfg := testConfig()
	cfg.Promise = quantity.Duration(time.Hour)
	return cfg
}

// withTornPair makes a log that ends in two frames of one lost group: the first
// is damaged, the second is whole.
func withTornPair(t *testing.T) (*vfs.Memory, FrameInfo) {
	disk := newDisk(t)
	l := openLog(t, disk, testDir, quiet())
	mustAppend(t, l, "a")
	closeLog(t, l)
	l = openLog(t, disk, testDir, quiet())
	mustAppend(t, l, "b")
	mustAppend(t, l, "c")
	killed := disk.KillClone()
	closeLog(t, l)
	var frames []FrameInfo
	name := testDir + "/" + segmentName(1)
	if err := Frames(killed, name, func(f FrameInfo) error {
		frames = append(frames, f)
		return nil
	}); err != nil || len(frames) != 5 {
		t.Fatalf("%d frames, %v", len(frames), err)
	}
	f, err := killed.OpenReadWrite(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := frames[4]
	raw := make([]byte, c.Length)
	if err := readFull(f, raw, c.Pos); err != nil {
		t.Fatal(err)
	}
	h, err := readHead(raw)
	if err != nil {
		t.Fatal(err)
	}
	h.synced = frames[2].Sequence // as if both had been one group
	putHead(raw, h)
	putCRC(raw, checksum(raw[bodyOff:]))
	if _, err := f.WriteAt(raw, c.Pos); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	flip(t, killed, segmentName(1), frames[3].Pos+frames[3].Length-1)
	return killed, frames[3]
}

func TestTornTailIsKeptAside(t *testing.T) {
	disk, torn := withTornPair(t)
	was := make([]byte, torn.Length)
	f, err := disk.Open(testDir + "/" + segmentName(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := readFull(f, was, torn.Pos); err != nil {
		t.Fatal(err)
	}
	var report Recovery
	cfg := quiet()
	cfg.Listener.Recovered = func(r Recovery) { report = r }
	l := openLog(t, disk, testDir, cfg)
	if report.Torn < torn.Length || report.TornFile == "" || report.Copied != 0 || l.Stats().TornFiles != 1 {
		t.Fatalf("recovery %+v, stats %+v", report, l.Stats())
	}
	kept, err := disk.CrashClone(0).Open(report.TornFile)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, torn.Length)
	if err := readFull(kept, b, 0); err != nil || !bytes.Equal(b, was) {
		t.Fatalf("the torn bytes are not in %s: %v", report.TornFile, err)
	}
	if got := all(t, l, "events"); fmt.Sprint(got) != "[a]" {
		t.Fatalf("log %q", got)
	}
	closeLog(t, l)
	l = openLog(t, disk, testDir, cfg)
	defer closeLog(t, l)
	if report.Torn != 0 || l.Stats().TornFiles != 1 {
		t.Fatalf("second start: %+v, %+v", report, l.Stats())
	}
}

// What was lost must not come back behind a new frame that ends just where it
// begins.
func TestLostFrameDoesNotComeBack(t *testing.T) {
	disk, _ := withTornPair(t)
	l := openLog(t, disk, testDir, quiet())
	mustAppend(t, l, "B") // as large as the damaged one
	killed := disk.KillClone()
	closeLog(t, l)
	l = openLog(t, killed, testDir, quiet())
	defer closeLog(t, l)
	if got := all(t, l, "events"); fmt.Sprint(got) != "[a B]" {
		t.Fatalf("log %q", got)
	}
}

// What a kill leaves unpromised is durable before anybody reads it.
func TestUnpromisedTailIsCopied(t *testing.T) {
	disk := newDisk(t)
	l := openLog(t, disk, testDir, quiet())
	mustAppend(t, l, "a")
	disk.Inject(vfs.Rule{Ops: vfs.OpSync, Pattern: "*.seg"})
	if _, err := l.Append(testCtx(t), streamtest.Write("events", 0, "b")); !errors.Is(err, fault.ErrPoisoned) {
		t.Fatal(err)
	}
	_ = l.Close() // says again that it is poisoned
	disk = disk.KillClone()
	var report Recovery
	cfg := quiet()
	cfg.Listener.Recovered = func(r Recovery) { report = r }
	l = openLog(t, disk, testDir, cfg)
	if got := all(t, l, "events"); fmt.Sprint(got) != "[a b]" || report.Copied != 1 {
		t.Fatalf("log %q, %+v", got, report)
	}
	after := disk.CrashClone(0)
	closeLog(t, l)
	l = openLog(t, after, testDir, cfg)
	defer closeLog(t, l)
	if got := all(t, l, "events"); fmt.Sprint(got) != "[a b]" || report.Copied != 0 {
		t.Fatalf("after the power cut: log %q, %+v", got, report)
	}
}

// A kill between a new segment's name and the sync of the folder: the next
// process goes on in that segment, whose name must be durable by then.
func TestNameOfASegmentIsDurable(t *testing.T) {
	cfg := quiet()
	cfg.Segment = 8 << 10
	disk := newDisk(t)
	l := openLog(t, disk, testDir, cfg)
	var killed *vfs.Memory
	disk.OnSync(func(_ int, op vfs.Op, _ string) {
		if op == vfs.OpSyncDir && killed == nil {
			killed = disk.KillClone()
		}
	})
	fillSegments(t, l, &wall{}, 1)
	closeLog(t, l)
	l = openLog(t, killed, testDir, cfg)
	if n := l.Stats().Segments; n != 2 {
		t.Fatalf("%d segments: not killed where it should be", n)
	}
	mustAppend(t, l, "acknowledged")
	cut := killed.CrashClone(0)
	closeLog(t, l)
	l = openLog(t, cut, testDir, cfg)
	defer closeLog(t, l)
	if got := all(t, l, "events"); got[len(got)-1] != "acknowledged" {
		t.Fatalf("the log ends in %.20q", got[len(got)-1])
	}
}

func TestPromiseFollowsABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		disk := newDisk(t)
		l := openLog(t, disk, testDir, cfg)
		defer closeLog(t, l)
		for range 3 {
			mustAppend(t, l, "a")
			time.Sleep(cfg.Promise.Std() / 2)
		}
		kinds := func() (s string) {
			if err := Frames(disk.CrashClone(0), testDir+"/"+segmentName(1), func(f FrameInfo) error {
				s += f.Kind[:1]
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			return s
		}
		if got := kinds(); got != "caaa" {
			t.Fatalf("in the burst: %s", got)
		}
		time.Sleep(cfg.Promise.Std())
		synctest.Wait()
		if got := kinds(); got != "caaap" {
			t.Fatalf("after the burst: %s", got)
		}
		time.Sleep(10 * cfg.Promise.Std())
		synctest.Wait()
		if got := kinds(); got != "caaap" {
			t.Fatalf("at rest: %s", got)
		}
	})
}

func TestOneProcessPerFolder(t *testing.T) {
	disk := newDisk(t)
	l := openLog(t, disk, testDir, testConfig())
	if _, err := Open(disk, testDir, testConfig(), nil); !errors.Is(err, vfs.ErrLocked) || fault.HintOf(err) == "" {
		t.Fatalf("second open: %v", err)
	}
	if _, err := Repair(disk, testDir, testConfig(), nil); !errors.Is(err, vfs.ErrLocked) {
		t.Fatalf("repair: %v", err)
	}
	closeLog(t, l)
	closeLog(t, openLog(t, disk, testDir, testConfig()))
}

func TestLaterFormatIsRefused(t *testing.T) {
	disk := newDisk(t)
	closeLog(t, openLog(t, disk, testDir, testConfig()))
	f, err := disk.OpenReadWrite(testDir + "/" + segmentName(1))
	if err != nil {
		t.Fatal(err)
	}
	sc := scanner{file: f, size: 4096}
	fr, err := sc.frame(0)
	if err != nil {
		t.Fatal(err)
	}
	fr.raw[headSize] = formatVersion + 1
	putCRC(fr.raw, checksum(fr.raw[bodyOff:]))
	if _, err := f.WriteAt(fr.raw, 0); err != nil {
		t.Fatal(err)
	}
	var damage *fault.Corrupt
	if _, err := Open(disk, testDir, testConfig(), nil); err == nil || errors.As(err, &damage) || !strings.Contains(err.Error(), fmt.Sprint("format ", formatVersion+1)) {
		t.Fatalf("open: %v", err)
	}
}

func TestFrameLimit(t *testing.T) {
	cfg := testConfig()
	disk := newDisk(t)
	l := openLog(t, disk, testDir, cfg)
	defer closeLog(t, l)
	before := l.Stats()
	big := streamtest.Write("events", 0, strings.Repeat("x", int(cfg.Segment)/10))
	_, err := l.Append(testCtx(t), big, big, big)
	if !errors.Is(err, fault.ErrLimit) || l.Stats() != before {
		t.Fatalf("append: %v", err)
	}
	if _, err := l.Append(testCtx(t), big); err != nil {
		t.Fatal(err)
	}
	if err := l.Commit(testCtx(t), []stream.Write{big, big, big}, "r", stream.Progress{}); !errors.Is(err, fault.ErrLimit) {
		t.Fatalf("commit: %v", err)
	}
}
