package seglog

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/stream"
	"naru/internal/stream/streamtest"
	"naru/internal/vfs"
)

// soak is how long a test may go on: NARU_SOAK, 0 for the short form.
func soak(t testing.TB) time.Duration {
	t.Helper()
	v := os.Getenv("NARU_SOAK")
	if v == "" {
		return 0
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		t.Fatalf("NARU_SOAK: %v", err)
	}
	return d
}

// written is what a log was given: stream/partition → offset → value.
type written map[string]map[int64]string

func (w written) add(name string, partition int32, at int64, values ...string) {
	k := fmt.Sprintf("%s/%d", name, partition)
	if w[k] == nil {
		w[k] = map[int64]string{}
	}
	for i, v := range values {
		w[k][at+int64(i)] = v
	}
}

func tiny() Config {
	cfg := quiet()
	cfg.Segment = MinSegment
	cfg.Recycle = 4 * MinSegment
	return cfg
}

// lockstep makes a log of several small segments whose streams grow side by side:
// one's events would fit in the place of another's.
func lockstep(t testing.TB, frames int, cfg Config) (*vfs.Memory, *Log, written) {
	t.Helper()
	disk, want := newDisk(t), written{}
	l := openLog(t, disk, testDir, cfg)
	rng := rand.New(rand.NewPCG(7, 7))
	for i := range frames {
		var writes []stream.Write
		var values []string
		for n, name := range []string{"a", "b", "a", "late"}[:3+i/(frames/2)] {
			if rng.IntN(6) == 0 && n < 2 {
				continue
			}
			v := fmt.Sprintf("%s%d-%d%s", name, n, i, strings.Repeat("x", rng.IntN(9)))
			w := streamtest.Write(name, int32(n/2%2), v)
			if n == 1 {
				w.RefusedFrom = "a"
			}
			writes, values = append(writes, w), append(values, v)
		}
		at, err := l.Append(testCtx(t), writes...)
		if err != nil {
			t.Fatal(err)
		}
		for n, p := range at {
			want.add(writes[n].Stream, p.Partition, p.Offset, values[n])
		}
		if i%5 == 3 {
			if err := l.Commit(testCtx(t), nil, "reader", stream.Progress{Stream: "a", Positions: event.Positions{at[0].Incarnation: {0: at[0].Offset}}}); err != nil {
				t.Fatal(err)
			}
		}
		if i%7 == 6 { // promises between, as after bursts
			closeLog(t, l)
			l = openLog(t, disk, testDir, cfg)
		}
	}
	return disk, l, want
}

// readAll reads everything that a log shows and holds each event against what was
// written. The error is the first one of a read. gone counts what was passed over.
func readAll(t testing.TB, what string, l *Log, want written) (got written, failed error) {
	t.Helper()
	got = written{}
	ctx := testCtx(t)
	names, err := l.Streams(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		st, err := l.Stat(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range st.Ranges {
			k := fmt.Sprintf("%s/%d", name, r.Partition)
			last := r.Start - 1
			for from := (event.Position{Incarnation: r.Incarnation, Partition: r.Partition, Offset: r.Start}); from.Offset < r.End; {
				done, cancel := expired()
				b, err := l.Read(done, name, from, 300)
				cancel()
				if errors.Is(err, done.Err()) {
					break // nothing more up to the end
				}
				if err != nil {
					if failed == nil {
						failed = err
					}
					break
				}
				if b.Incarnation != r.Incarnation {
					break // the rest of this one is lost
				}
				i := 0
				eachAt(t, b, func(at int64, v string) {
					i++
					if at <= last {
						t.Fatalf("%s: offset %d of %s comes behind %d", what, at, k, last)
					}
					last = at
					if want[k][at] != v {
						t.Fatalf("%s: %s at %d reads %.30q, want %.30q", what, k, at, v, want[k][at])
					}
					got.add(name, r.Partition, at, v)
				})
				if i == 0 || b.Next <= from.Offset {
					t.Fatalf("%s: a read of %s at %s gave nothing", what, k, from)
				}
				from = b.End()
			}
		}
	}
	return got, failed
}

// Each byte of a small log is changed, one at a time: the log's own frames, its
// footers, the padding, the mark. Zeros and stale bytes behind them are not used.
// In the segment that recovery reads, the start refuses; in an older one, a reader
// that needs the frame stops; and fsck names the place of each. A repair loses
// what it says and nothing else.
func TestEveryByteFlipped(t *testing.T) {
	cfg := tiny()
	disk, l, want := lockstep(t, 42, cfg)
	closeLog(t, l)
	infos, err := List(disk, testDir)
	if err != nil || len(infos) < 4 {
		t.Fatalf("%d segments, %v", len(infos), err)
	}
	stride, mendEvery := int64(11), 11 // all of them take a minute
	if soak(t) > 0 {
		stride, mendEvery = 1, 5
	}
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d, every %d, a repair of every %d", seed, stride, mendEvery)
	n := 0
	try := func(name string, off int64, class string) {
		n++
		x := byte(1) << rng.IntN(8)
		if rng.IntN(4) == 0 {
			x = byte(1 + rng.IntN(255))
		}
		what := fmt.Sprintf("seed %d: %s at %d ^ %02x (%s)", seed, name, off, x, class)
		flipped(t, what, disk, name, off, x, class, cfg, want, n%mendEvery == 0)
	}
	for i, info := range infos {
		path := testDir + "/" + info.Name
		var frames []FrameInfo
		if err := Frames(disk, path, func(f FrameInfo) error { frames = append(frames, f); return nil }); err != nil {
			t.Fatal(err)
		}
		for j, f := range frames {
			if f.Pos != 0 && f.Pos != align(frames[j-1].Pos+frames[j-1].Length) {
				t.Fatalf("%s: a byte before %d is in no frame", info.Name, f.Pos)
			}
			end := align(f.Length)
			class := f.Kind
			if f.Kind == "footer" {
				end = f.Length // what pads it is never read
			}
			if i == len(infos)-1 {
				class = "last " + class
				if j == len(frames)-1 {
					class = "final " + f.Kind
				}
			}
			for off := f.Pos + n0(rng, stride); off < f.Pos+end; off += stride {
				try(info.Name, off, class)
			}
		}
	}
	for off := n0(rng, stride); off < lastSize; off += stride {
		try(lastName, off, "mark")
	}
	t.Logf("%d bytes", n)
}

func n0(rng *rand.Rand, stride int64) int64 { return rng.Int64N(stride) }

func flipped(t *testing.T, what string, disk *vfs.Memory, name string, off int64, x byte, class string, cfg Config, want written, mend bool) {
	t.Helper()
	d := disk.KillClone()
	change(t, d, name, off, func(b byte) byte { return b ^ x })
	r, err := Check(d, testDir)
	if err != nil {
		t.Fatalf("%s: check: %v", what, err)
	}
	path := testDir + "/" + name
	named := false
	for _, dmg := range r.Damage {
		named = named || dmg.File == path && (dmg.Offset < 0 || dmg.Offset <= off && (off < dmg.Offset+dmg.Bytes || dmg.Bytes == 0 || class == "checkpoint" || class == "last checkpoint"))
	}
	if class == "final promise" {
		// It holds nothing, and all before it is vouched for by the mark.
		named = len(r.Notes) == 1 && strings.HasPrefix(r.Notes[0], path+" at byte ")
	}
	if !named {
		t.Fatalf("%s: fsck names %+v, %q", what, r.Damage, r.Notes)
	}
	var report Recovery
	cfg.Listener.Recovered = func(r Recovery) { report = r }
	o := d.KillClone()
	l, err := Open(o, testDir, cfg, nil)
	var c *fault.Corrupt
	switch {
	case err != nil && !errors.As(err, &c):
		t.Fatalf("%s: open: %v", what, err)
	case err != nil && (c.Path != path || c.Offset > off):
		t.Fatalf("%s: open names %v", what, err)
	case err == nil && (strings.HasPrefix(class, "last ") || class == "mark"):
		t.Fatalf("%s: opens", what)
	case err == nil:
		got, failed := readAll(t, what, l, want)
		if failed != nil && (!errors.As(failed, &c) || c.Path != path) {
			t.Fatalf("%s: read: %v", what, failed)
		}
		if failed == nil && !sameWritten(got, want) {
			t.Fatalf("%s: events are passed over without a word", what)
		}
		if class == "final promise" {
			if failed != nil || report.Torn == 0 || !holds(t, o, report.TornFile, d, path, off) {
				t.Fatalf("%s: %v, %+v", what, failed, report)
			}
		}
		closeLog(t, l)
	}
	if mend {
		mended(t, what, d, cfg, want)
	}
}

// mended repairs a disk and checks what is left.
func mended(t *testing.T, what string, d *vfs.Memory, cfg Config, want written) Repaired {
	t.Helper()
	r, err := Repair(d, testDir, cfg, nil)
	if err != nil {
		t.Fatalf("%s: repair: %v\n%s", what, err, d)
	}
	isMended(t, what, d, cfg, want)
	return r
}

func isMended(t *testing.T, what string, d *vfs.Memory, cfg Config, want written) {
	t.Helper()
	again, err := Check(d, testDir)
	if err != nil || len(again.Damage) > 0 {
		t.Fatalf("%s: after the repair: %+v, %v", what, again.Damage, err)
	}
	losses, err := Losses(d, testDir)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for start := range 2 {
		var report Recovery
		cfg.Listener.Recovered = func(r Recovery) { report = r }
		l, err := Open(d, testDir, cfg, nil)
		if err != nil {
			t.Fatalf("%s: start after the repair: %v", what, err)
		}
		if start == 1 && (report.Torn > 0 || report.Copied > 0) {
			t.Fatalf("%s: the second start repairs: %+v", what, report)
		}
		got, failed := readAll(t, what, l, want)
		if failed != nil {
			t.Fatalf("%s: after the repair: %v", what, failed)
		}
		unknown := false
		for _, x := range losses {
			unknown = unknown || !x.Known()
		}
		for k, all := range want {
			for at, v := range all {
				lost := false
				for _, x := range losses {
					lost = lost || x.Known() && fmt.Sprintf("%s/%d", x.Stream, x.Partition) == k && x.First <= at && at < x.End
				}
				_, there := got[k][at]
				if there && lost {
					t.Fatalf("%s: %s at %d (%.20q) is said to be lost and is there", what, k, at, v)
				}
				if !there && !lost && !unknown {
					t.Fatalf("%s: %s at %d (%.20q) is gone and not on record: %v", what, k, at, v, losses)
				}
			}
		}
		at, err := l.Append(testCtx(t), streamtest.Write("a", 0, "after"))
		if err != nil {
			t.Fatalf("%s: append after the repair: %v", what, err)
		}
		want = with(want, "a/0", at[0].Offset, "after")
		closeLog(t, l)
	}
	// All behind holes is still a chain that fsck can verify.
	if _, _, err := Verify(d, testDir); err != nil {
		t.Fatalf("%s: fsck after two starts: %v", what, err)
	}
}

func with(w written, k string, at int64, v string) written {
	c := written{}
	for name, all := range w {
		c[name] = map[int64]string{}
		for o, x := range all {
			c[name][o] = x
		}
	}
	if c[k] == nil {
		c[k] = map[int64]string{}
	}
	c[k][at] = v
	return c
}

func sameWritten(a, b written) bool {
	n := func(w written) (n int) {
		for _, all := range w {
			n += len(all)
		}
		return n
	}
	return n(a) == n(b) // each was compared when it was read
}

// holds tells whether a kept file has the byte that stands at off in another.
func holds(t *testing.T, d *vfs.Memory, kept string, was *vfs.Memory, path string, off int64) bool {
	t.Helper()
	var bytes [2][]byte
	for i, f := range []struct {
		fs   *vfs.Memory
		name string
	}{{d, kept}, {was, path}} {
		file, err := f.fs.Open(f.name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes[i], err = io.ReadAll(file); err != nil {
			t.Fatal(err)
		}
		_ = file.Close()
	}
	var n, from int64
	if _, err := fmt.Sscanf(kept[strings.Index(kept, "Z-"):], "Z-%d-%d", &n, &from); err != nil {
		t.Fatal(err)
	}
	return off >= from && off < from+int64(len(bytes[0])) && bytes[0][off-from] == bytes[1][off]
}

// A frame's table says whose its batches are. When that changes on disk, one
// stream's events would pass for another's with good checksums of their own.
func TestTableOfAFrameIsVerified(t *testing.T) {
	cfg := tiny()
	disk := newDisk(t)
	l := openLog(t, disk, testDir, cfg)
	for i := range 40 {
		for _, name := range []string{"a", "b"} {
			if _, err := l.Append(testCtx(t), streamtest.Write(name, 0, fmt.Sprint(name, i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	inc := l.mu.incarnation
	closeLog(t, l)
	var third FrameInfo // a's second event
	n := 0
	if err := Frames(disk, testDir+"/"+segmentName(1), func(f FrameInfo) error {
		if n++; n == 4 {
			third = f
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	change(t, disk, segmentName(1), third.Pos+headSize+1, func(b byte) byte { // the id in its only section
		if b != 1 {
			t.Fatalf("id %d", b)
		}
		return 2
	})
	l = openLog(t, disk, testDir, cfg)
	defer closeLog(t, l)
	b, err := l.Read(testCtx(t), "b", event.Position{Incarnation: inc, Offset: 1}, 1)
	var c *fault.Corrupt
	if !errors.As(err, &c) || c.Offset != third.Pos {
		t.Fatalf("%v, %v", b, err)
	}
}
