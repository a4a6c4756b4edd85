package seglog

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/stream"
	"naru/internal/stream/streamtest"
	"naru/internal/vfs"
)

func fileOf(t testing.TB, d *vfs.Memory, name string) []byte {
	t.Helper()
	f, err := d.Open(testDir + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func putFile(t testing.TB, d *vfs.Memory, name string, b []byte) {
	t.Helper()
	f, err := d.Create(testDir + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err = f.WriteAt(b, 0); err == nil {
		err = errors.Join(f.Sync(), d.SyncDir(testDir))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func removeFile(t testing.TB, d *vfs.Memory, name string) {
	t.Helper()
	if err := errors.Join(d.Remove(testDir+"/"+name), d.SyncDir(testDir)); err != nil {
		t.Fatal(err)
	}
}

func cutFile(t testing.TB, d *vfs.Memory, name string, size int64) {
	t.Helper()
	b := fileOf(t, d, name)
	putFile(t, d, name, b[:min(size, int64(len(b)))])
}

func swapFiles(t testing.TB, d *vfs.Memory, one, two string) {
	t.Helper()
	a, b := fileOf(t, d, one), fileOf(t, d, two)
	putFile(t, d, one, b)
	putFile(t, d, two, a)
}

// What can happen to whole files: each is found, named and mended, and what the
// rest of the log tells about the loss is on record.
func TestSegmentsMissingShortenedExchanged(t *testing.T) {
	cfg := tiny()
	disk, l, want := lockstep(t, 50, cfg)
	infos, err := List(disk, testDir)
	if err != nil || len(infos) < 6 {
		t.Fatalf("%d segments, %v", len(infos), err)
	}
	older := disk.KillClone()
	for range 3 {
		at := mustAppend(t, l, "newer")
		want.add("events", 0, at.Offset, "newer")
	}
	closeLog(t, l)
	foreign, fl, _ := lockstep(t, 50, cfg)
	closeLog(t, fl)
	all := func() (names []string) {
		infos, err := List(disk, testDir)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range infos {
			names = append(names, i.Name)
		}
		return names
	}()
	first, second, third, fourth, last := all[0], all[1], all[2], all[3], all[len(all)-1]
	before := all[len(all)-2]
	none, some := 0, -1
	for name, c := range map[string]struct {
		harm  func(d *vfs.Memory)
		named []string
		opens bool // the start does not read that far
		lost  int
		cut   bool
	}{
		"middle missing":       {func(d *vfs.Memory) { removeFile(t, d, third) }, []string{third}, false, some, false},
		"two in a row missing": {func(d *vfs.Memory) { removeFile(t, d, third); removeFile(t, d, fourth) }, []string{third, fourth}, false, some, false},
		"oldest missing":       {func(d *vfs.Memory) { removeFile(t, d, first) }, []string{first}, false, some, false},
		"last missing":         {func(d *vfs.Memory) { removeFile(t, d, last) }, []string{last}, false, some, true},
		"last two missing":     {func(d *vfs.Memory) { removeFile(t, d, last); removeFile(t, d, before) }, []string{last, before}, false, some, true},
		"all missing": {func(d *vfs.Memory) {
			for _, n := range all {
				removeFile(t, d, n)
			}
		}, []string{last}, false, some, true},
		"middle shortened":                 {func(d *vfs.Memory) { cutFile(t, d, second, 1500) }, []string{second}, true, some, false},
		"middle shortened to a head":       {func(d *vfs.Memory) { cutFile(t, d, second, 20) }, []string{second}, true, some, false},
		"middle empty":                     {func(d *vfs.Memory) { cutFile(t, d, second, 0) }, []string{second}, true, some, false},
		"before the last shortened":        {func(d *vfs.Memory) { cutFile(t, d, before, 2000) }, []string{before}, false, some, false},
		"footer cut off":                   {func(d *vfs.Memory) { cutFile(t, d, second, infos[1].Used) }, []string{second}, true, none, false},
		"last shortened":                   {func(d *vfs.Memory) { cutFile(t, d, last, 600) }, []string{last}, false, some, true},
		"last empty":                       {func(d *vfs.Memory) { cutFile(t, d, last, 0) }, []string{last}, false, some, true},
		"last shortened where nothing was": {func(d *vfs.Memory) { cutFile(t, d, last, int64(MinSegment)-8) }, []string{last}, false, none, false},
		"two exchanged":                    {func(d *vfs.Memory) { swapFiles(t, d, second, fourth) }, []string{second, fourth}, true, none, false},
		"one instead of another":           {func(d *vfs.Memory) { putFile(t, d, third, fileOf(t, d, second)) }, []string{third}, true, some, false},
		"a copy behind the last":           {func(d *vfs.Memory) { putFile(t, d, segmentName(99), fileOf(t, d, second)) }, []string{segmentName(99)}, false, none, false},
		"one of another log":               {func(d *vfs.Memory) { putFile(t, d, third, fileOf(t, foreign, third)) }, []string{third}, true, some, false},
		"the last of another log":          {func(d *vfs.Memory) { putFile(t, d, last, fileOf(t, foreign, last)) }, []string{last}, false, some, true},
		"an older copy of the last":        {func(d *vfs.Memory) { putFile(t, d, last, fileOf(t, older, last)) }, []string{last}, false, some, true},
		"mark missing":                     {func(d *vfs.Memory) { removeFile(t, d, lastName) }, nil, true, none, false},
		"mark of another log":              {func(d *vfs.Memory) { putFile(t, d, lastName, fileOf(t, foreign, lastName)) }, []string{lastName}, false, none, false},
		"mark damaged":                     {func(d *vfs.Memory) { flip(t, d, lastName, 30) }, []string{lastName}, false, none, false},
		"mark damaged, last shortened":     {func(d *vfs.Memory) { flip(t, d, lastName, 30); cutFile(t, d, last, 600) }, []string{lastName, last}, false, some, true},
		"mark damaged, last missing":       {func(d *vfs.Memory) { flip(t, d, lastName, 30); removeFile(t, d, last) }, []string{lastName, before}, false, some, true},
		"checkpoint of the first":          {func(d *vfs.Memory) { flip(t, d, first, 60) }, []string{first}, false, none, false},
		"checkpoint in the middle":         {func(d *vfs.Memory) { flip(t, d, third, 70) }, []string{third}, true, none, false},
		"checkpoint of the last":           {func(d *vfs.Memory) { flip(t, d, last, 70) }, []string{last}, false, none, false},
		"all checkpoints": {func(d *vfs.Memory) {
			for _, n := range all {
				flip(t, d, n, 70)
			}
		}, all, false, none, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := disk.KillClone()
			c.harm(d)
			r, err := Check(d, testDir)
			if err != nil {
				t.Fatal(err)
			}
			var named []string
			for _, x := range r.Damage {
				named = append(named, x.File)
			}
			for _, n := range c.named {
				if !slices.Contains(named, testDir+"/"+n) {
					t.Errorf("fsck names %q, not %s", named, n)
				}
			}
			if len(c.named) == 0 && len(named) > 0 {
				t.Errorf("fsck names %q", named)
			}
			o := d.KillClone()
			l, err := Open(o, testDir, cfg, nil)
			var damage *fault.Corrupt
			if err != nil && (c.opens || !errors.As(err, &damage) || !slices.Contains(c.named, strings.TrimPrefix(damage.Path, testDir+"/"))) {
				t.Errorf("open: %v", err)
			}
			if err == nil {
				if !c.opens {
					t.Error("it opens")
				}
				if _, failed := readAll(t, name, l, want); failed == nil && c.lost != none {
					t.Error("nobody notices")
				}
				closeLog(t, l)
			}
			m := mended(t, name, d, cfg, want)
			if c.lost != some && len(m.Lost) != c.lost || c.lost == some && len(m.Lost) == 0 || m.Cut != c.cut {
				t.Errorf("lost %v, cut %t", m.Lost, m.Cut)
			}
		})
	}
}

// harmAtRandom does to a log what disks and people do, and says what it was.
func harmAtRandom(t testing.TB, rng *rand.Rand, d *vfs.Memory, foreign *vfs.Memory) string {
	names, err := d.List(testDir)
	if err != nil {
		t.Fatal(err)
	}
	var segs []string
	for _, n := range names {
		if _, ok := segmentNumber(n); ok {
			segs = append(segs, n)
		}
	}
	if len(segs) < 3 {
		return "nothing"
	}
	name := segs[rng.IntN(len(segs))]
	b := fileOf(t, d, name)
	used := max(int64(len(b)), 1)
	switch rng.IntN(12) {
	case 0, 1, 2:
		off := rng.Int64N(used)
		if len(b) > 0 {
			flip(t, d, name, off)
		}
		return fmt.Sprintf("a flip in %s at %d", name, off)
	case 3, 4:
		off, n := rng.Int64N(used), 1+rng.Int64N(900)
		clear(b[min(off, int64(len(b))):min(off+n, int64(len(b)))])
		putFile(t, d, name, b)
		return fmt.Sprintf("%d zeros in %s at %d", n, name, off)
	case 5, 6:
		off, n := rng.Int64N(used), 1+rng.Int64N(900)
		for i := off; i < min(off+n, int64(len(b))); i++ {
			b[i] = byte(rng.Uint32())
		}
		putFile(t, d, name, b)
		return fmt.Sprintf("%d bytes of noise in %s at %d", n, name, off)
	case 7:
		size := rng.Int64N(used)
		putFile(t, d, name, b[:min(size, int64(len(b)))])
		return fmt.Sprintf("%s cut to %d", name, size)
	case 8:
		removeFile(t, d, name)
		return name + " removed"
	case 9:
		other := segs[rng.IntN(len(segs))]
		swapFiles(t, d, name, other)
		return name + " and " + other + " exchanged"
	case 10:
		if f := segs[rng.IntN(len(segs))]; rng.IntN(2) == 0 {
			putFile(t, d, name, fileOf(t, d, f))
			return f + " over " + name
		}
		if _, err := foreign.Stat(testDir + "/" + name); err == nil {
			putFile(t, d, name, fileOf(t, foreign, name))
		}
		return "another log's " + name
	default:
		if _, err := d.Stat(testDir + "/" + lastName); err == nil && rng.IntN(2) == 0 {
			flip(t, d, lastName, rng.Int64N(lastSize))
			return "a flip in " + lastName
		}
		if _, err := d.Stat(testDir + "/" + lossesName); err == nil {
			flip(t, d, lossesName, 1+rng.Int64N(int64(len(fileOf(t, d, lossesName))-1)))
			return "a flip in " + lossesName
		}
		return "nothing"
	}
}

// Damage of any kind, several at once, is repaired: what is left is what was
// written, in its place, once; what is not there is on record. A repair that is
// broken off anywhere is made again. Damage to a repaired log is repaired too.
func TestRandomDamageIsRepaired(t *testing.T) {
	cfg := tiny()
	disk, l, want := lockstep(t, 50, cfg)
	closeLog(t, l)
	foreign, fl, _ := lockstep(t, 50, cfg)
	closeLog(t, fl)
	randomly(t, 30, func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 1))
		d := disk.KillClone()
		what := fmt.Sprintf("seed %d", seed)
		want := want
		for round := range 1 + rng.IntN(2) {
			for range 1 + rng.IntN(4) {
				what += ", " + harmAtRandom(t, rng, d, foreign)
			}
			type broken struct {
				n    int
				disk *vfs.Memory
			}
			var inside []broken
			d.OnSync(func(n int, _ vfs.Op, _ string) {
				inside = append(inside, broken{n, d.CrashClone(rng.Uint64())}, broken{n, d.KillClone()})
			})
			r, err := Repair(d, testDir, cfg, nil)
			d.OnSync(nil)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			straight, err := Losses(d, testDir)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			for _, b := range inside {
				if rng.IntN(4) > 0 && soak(t) == 0 {
					continue
				}
				again := fmt.Sprintf("%s, broken off at sync %d", what, b.n)
				if rng.IntN(3) == 0 { // somebody starts it in between
					if l, err := Open(b.disk, testDir, cfg, nil); err == nil {
						at := mustAppend(t, l, "between")
						closeLog(t, l)
						mended(t, again+", started", b.disk, cfg, with(want, "events/0", at.Offset, "between"))
						continue
					}
				}
				mended(t, again, b.disk, cfg, want)
				more, err := Losses(b.disk, testDir)
				if err != nil {
					t.Fatalf("%s: %v", again, err)
				}
				for _, x := range more {
					if x.Known() && rangesOf(straight).skip(x.Stream, x.Partition, x.First) < x.End {
						t.Fatalf("%s: %s is lost, and is not when it is not broken off", again, x)
					}
				}
			}
			after := d.KillClone()
			isMended(t, what, after, cfg, want)
			if again, err := Repair(d, testDir, cfg, nil); err != nil || len(again.Damage) > 0 {
				t.Fatalf("%s: a second repair: %+v, %v", what, again, err)
			}
			if round == 0 && !r.Cut {
				l := openLog(t, d, testDir, cfg)
				for i := range 20 {
					v := fmt.Sprint("more", i, strings.Repeat("y", 100))
					at := mustAppend(t, l, v)
					want = with(want, "events/0", at.Offset, v)
				}
				closeLog(t, l)
				what += " | then"
			} else {
				break
			}
		}
	})
}

// randomly runs fn for some seeds, or for as long as NARU_SOAK says.
func randomly(t *testing.T, n int, fn func(t *testing.T, seed uint64)) {
	t.Helper()
	if testing.Short() {
		n = max(n/10, 3)
	}
	first := uint64(time.Now().UnixNano())
	start, limit := time.Now(), soak(t)
	done := 0
	for i := 0; i < n || time.Since(start) < limit; i++ {
		seed := uint64(i) + 10 // half of the short run is the same every time
		if i%2 == 1 || i >= n {
			seed = first + uint64(i)
		}
		if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { fn(t, seed) }) {
			break
		}
		done++
	}
	t.Logf("%d runs", done)
}

// A reader that stands in what is lost goes on behind it, wherever that is.
func TestReadFromWithinALoss(t *testing.T) {
	cfg := tiny()
	disk, l, want := lockstep(t, 50, cfg)
	inc := l.mu.incarnation
	closeLog(t, l)
	removeFile(t, disk, segmentName(3))
	if _, err := Repair(disk, testDir, cfg, nil); err != nil {
		t.Fatal(err)
	}
	losses, err := Losses(disk, testDir)
	if err != nil || len(losses) < 3 {
		t.Fatalf("%v, %v", losses, err)
	}
	l = openLog(t, disk, testDir, cfg)
	defer closeLog(t, l)
	for _, x := range losses {
		for at := x.First; at < x.End; at++ {
			b, err := l.Read(testCtx(t), x.Stream, event.Position{Incarnation: inc, Partition: x.Partition, Offset: at}, 1)
			if err != nil || b.From != x.End || len(b.Raw) == 0 {
				t.Fatalf("%s from %d: %+v, %v", x, at, b, err)
			}
			if v := streamtest.Values(t, b)[0]; v != want[fmt.Sprintf("%s/%d", x.Stream, x.Partition)][x.End] {
				t.Fatalf("%s from %d: %q", x, at, v)
			}
		}
	}
}

// What a repair takes out of a segment is kept beside it, byte for byte.
func TestRepairKeepsTheBytes(t *testing.T) {
	cfg := tiny()
	disk, l, _ := lockstep(t, 50, cfg)
	closeLog(t, l)
	was := fileOf(t, disk, segmentName(2))
	var frames []FrameInfo
	if err := Frames(disk, testDir+"/"+segmentName(2), func(f FrameInfo) error { frames = append(frames, f); return nil }); err != nil {
		t.Fatal(err)
	}
	f := frames[slices.IndexFunc(frames, func(f FrameInfo) bool { return f.Kind == "append" })]
	flip(t, disk, segmentName(2), f.Pos+60)
	was[f.Pos+60] ^= 0x10
	r, err := Repair(disk, testDir, cfg, nil)
	if err != nil || len(r.Lost) == 0 || r.Cut {
		t.Fatalf("%+v, %v", r, err)
	}
	x := r.Lost[0]
	if x.Segment != segmentName(2) || x.Pos != f.Pos || x.Kept == "" || x.Events != x.End-x.First || x.Repaired.IsZero() {
		t.Fatalf("%#v, the frame is at %d", x, f.Pos)
	}
	kept := fileOf(t, disk.CrashClone(0), x.Kept)
	if string(kept) != string(was[f.Pos:f.Pos+x.Bytes]) {
		t.Fatalf("%d bytes in %s are not those of the segment", len(kept), x.Kept)
	}
	now := fileOf(t, disk, segmentName(2))
	end := frames[len(frames)-1].Pos
	if string(now[:f.Pos]) != string(was[:f.Pos]) || string(now[f.Pos+x.Bytes:end]) != string(was[f.Pos+x.Bytes:end]) {
		t.Fatal("what was well has changed")
	}
}

// A reader that has read all there is does not hold retention back because of
// what nobody can read.
func TestRetentionPassesOverLosses(t *testing.T) {
	cfg := tiny()
	cfg.Segment = 8 << 10
	disk := newDisk(t)
	l := openLog(t, disk, testDir, cfg)
	clock := &wall{}
	at := mustAppend(t, l, "first")
	if _, err := l.Append(testCtx(t), streamtest.Write("rare", 0, "read")); err != nil {
		t.Fatal(err)
	}
	fillSegments(t, l, clock, 1)
	if _, err := l.Append(testCtx(t), streamtest.Write("rare", 0, "lost")); err != nil {
		t.Fatal(err)
	}
	lost := l.w.seg
	fillSegments(t, l, clock, 2)
	if err := l.Commit(testCtx(t), nil, "reader", stream.Progress{Stream: "rare", Positions: event.Positions{at.Incarnation: {0: 1}}}); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	removeFile(t, disk, segmentName(lost.number))
	if r, err := Repair(disk, testDir, cfg, nil); err != nil || r.Cut {
		t.Fatalf("%+v, %v", r, err)
	}
	cfg.RetainBytes = 2 * cfg.Segment
	l = openLog(t, disk, testDir, cfg)
	l.retain()
	if n := l.mu.segments[0].number; n <= lost.number {
		t.Fatalf("segment %d is the oldest: retention waits for what is lost", n)
	}
	closeLog(t, l)
	if _, _, err := Verify(disk, testDir); err != nil {
		t.Fatal(err)
	}
}

// A free file whose size did not reach the disk is not used by the next process.
func TestFreeFilesAreOnDisk(t *testing.T) {
	cfg := tiny()
	disk := newDisk(t)
	disk.Inject(vfs.Rule{Ops: vfs.OpSync, Pattern: "*-*.tmp", Times: 1})
	disk.Inject(vfs.Rule{Ops: vfs.OpRemove})
	if _, err := Open(disk, testDir, cfg, nil); !errors.Is(err, vfs.ErrInjected) {
		t.Fatal(err)
	}
	disk = disk.KillClone()
	closeLog(t, openLog(t, disk, testDir, cfg))
	closeLog(t, openLog(t, disk.CrashClone(0), testDir, cfg))
	names, err := disk.List(testDir)
	if err != nil || slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, newPrefix) }) {
		t.Fatalf("%q, %v", names, err)
	}
}
