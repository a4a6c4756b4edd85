package seglog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/stream"
	"naru/internal/stream/streamtest"
	"naru/internal/vfs"
)

// filled makes a log of several segments with n events in `events`, a few in
// others and a reader.
func filled(t testing.TB, disk *vfs.Memory, n int) *Log {
	t.Helper()
	cfg := testConfig()
	cfg.Segment = 8 << 10
	l := openLog(t, disk, testDir, cfg)
	for i := range n {
		writes := []stream.Write{streamtest.Write("events", 0, fmt.Sprintf("%d %s", i, strings.Repeat("x", 100)))}
		if i%10 == 0 {
			w := streamtest.Write("rejected", 0, fmt.Sprintf("r%d", i))
			w.RefusedFrom = "events"
			writes = append(writes, w)
		}
		at, err := l.Append(testCtx(t), writes...)
		if err != nil {
			t.Fatal(err)
		}
		if i%25 == 0 {
			if err := l.Commit(testCtx(t), nil, "loader", stream.Progress{Stream: "events", Positions: event.Positions{at[0].Incarnation: {0: at[0].Offset}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return l
}

func TestInspectBesideTheWriter(t *testing.T) {
	disk := newDisk(t)
	l := filled(t, disk, 200) // open: inspection takes no lock
	infos, err := List(disk, testDir)
	if err != nil || len(infos) < 4 {
		t.Fatalf("%d segments, %v", len(infos), err)
	}
	next := int64(0)
	for i, info := range infos {
		if info.Err != "" || info.Number != uint64(i+1) || info.Sealed != (i < len(infos)-1) || info.Used <= 0 || info.Used > info.Bytes ||
			(i > 0 && info.First != infos[i-1].Last+1) || info.Incarnation != l.mu.incarnation {
			t.Fatalf("segment %d: %+v", i, info)
		}
		for _, s := range info.Streams {
			if s.Stream == "events" {
				if s.First != next {
					t.Fatalf("segment %d begins at offset %d, want %d", i, s.First, next)
				}
				next = s.End
			}
		}
	}
	if next != 200 {
		t.Fatalf("the segments end at offset %d", next)
	}
	var got []string
	if err := Records(disk, testDir, "events", func(b *event.Batch) error {
		got = append(got, streamtest.Values(t, b)...)
		return nil
	}); err != nil || len(got) != 200 || !strings.HasPrefix(got[199], "199 ") {
		t.Fatalf("%d records, %v", len(got), err)
	}
	if err := Records(disk, testDir, "none", nil); !errors.Is(err, stream.ErrNoStream) {
		t.Fatal(err)
	}
	closeLog(t, l)
	var kinds []string
	var text strings.Builder
	for _, info := range infos[:2] {
		if err := Frames(disk, testDir+"/"+info.Name, func(f FrameInfo) error {
			kinds = append(kinds, f.Kind)
			fmt.Fprintln(&text, f)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, kind := range []string{"checkpoint", "append", "commit", "footer"} {
		if !slices.Contains(kinds, kind) {
			t.Errorf("no %s frame is shown", kind)
		}
	}
	for _, words := range []string{"dictionary 1 = events/0", "refused for events/0", "reader loader of events", "oldest kept 1"} {
		if !strings.Contains(text.String(), words) {
			t.Errorf("the frames do not tell %q", words)
		}
	}
	if n, bytes, err := Verify(disk, testDir); err != nil || n != len(infos) || bytes <= 0 {
		t.Fatalf("verify: %d segments, %d bytes, %v", n, bytes, err)
	}
}

// flip changes one byte of a file, durably.
func flip(t testing.TB, disk *vfs.Memory, name string, off int64) {
	t.Helper()
	f, err := disk.OpenReadWrite(testDir + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// Damage below the promise refuses the start, names the place and is cut by a
// repair that begins a new incarnation. Any flipped byte is noticed by Verify.
func TestDamageInTheLastSegment(t *testing.T) {
	disk := newDisk(t)
	closeLog(t, filled(t, disk, 60))
	cfg := testConfig()
	cfg.Segment = 8 << 10
	infos, err := List(disk, testDir)
	if err != nil {
		t.Fatal(err)
	}
	last := infos[len(infos)-1]
	var second FrameInfo
	n := 0
	if err := Frames(disk, testDir+"/"+last.Name, func(f FrameInfo) error {
		if n++; n == 2 {
			second = f
		}
		return nil
	}); err != nil || n < 4 {
		t.Fatalf("%d frames, %v", n, err)
	}
	for off := second.Pos; off < second.Pos+second.Length; off++ {
		d := disk.KillClone()
		if off%2 == 0 { // else the mark knows; behind it only later frames do
			removeFile(t, d, lastName)
		}
		flip(t, d, last.Name, off)
		_, err := Open(d, testDir, cfg, nil)
		var c *fault.Corrupt
		if !errors.As(err, &c) || c.Path != testDir+"/"+last.Name || c.Offset != second.Pos || !strings.Contains(fault.HintOf(err), "naru log fsck") {
			t.Fatalf("flip at %d: %v", off, err)
		}
		if _, _, err := Verify(d, testDir); !errors.As(err, &c) {
			t.Fatalf("flip at %d: verify: %v", off, err)
		}
	}
	d := disk.KillClone()
	flip(t, d, last.Name, second.Pos+20)
	r, err := Repair(d, testDir, cfg, nil)
	if err != nil || !r.Cut || len(r.Damage) != 1 || r.Damage[0].Offset != second.Pos || len(r.Kept) == 0 || len(r.Lost) == 0 {
		t.Fatalf("repair: %+v, %v", r, err)
	}
	l := openLog(t, d, testDir, cfg)
	defer closeLog(t, l)
	st, err := l.Stat(testCtx(t), "events")
	if err != nil || len(st.Ranges) != 2 || st.Ranges[0].Incarnation != r.Closed || st.Incarnation != r.Begun || st.Ranges[0].End != 60 {
		t.Fatalf("stat %+v, %v", st, err)
	}
	at, err := l.Append(testCtx(t), streamtest.Write("events", 0, "after"))
	if err != nil || at[0].Incarnation != r.Begun || at[0].Offset != st.Ranges[0].End {
		t.Fatalf("append at %v, %v", at, err)
	}
	if again, err := Repair(disk, testDir, cfg, nil); err != nil || again.Cut {
		t.Fatalf("a log that is well: %+v, %v", again, err)
	}
}

func TestDamageElsewhere(t *testing.T) {
	cfg := testConfig()
	cfg.Segment = 8 << 10
	whole := newDisk(t)
	closeLog(t, filled(t, whole, 150))
	infos, err := List(whole, testDir)
	if err != nil || len(infos) < 4 {
		t.Fatal(len(infos), err)
	}
	last, before := infos[len(infos)-1], infos[len(infos)-2]
	for name, c := range map[string]struct {
		harm func(d *vfs.Memory)
		path string
	}{
		"a segment in the middle is missing": {func(d *vfs.Memory) { _ = d.Remove(testDir + "/" + infos[1].Name) }, infos[1].Name},
		"the oldest segment is missing":      {func(d *vfs.Memory) { _ = d.Remove(testDir + "/" + infos[0].Name) }, infos[0].Name},
		"the one before the last is shortened": {func(d *vfs.Memory) {
			f, _ := d.OpenReadWrite(testDir + "/" + before.Name)
			_ = f.Truncate(before.Used - 1)
		}, before.Name},
		"the last checkpoint is damaged": {func(d *vfs.Memory) { flip(t, d, last.Name, 60) }, last.Name},
		"the last checkpoint is empty": {func(d *vfs.Memory) {
			f, _ := d.OpenReadWrite(testDir + "/" + last.Name)
			_ = f.Truncate(0)
		}, last.Name},
	} {
		d := whole.KillClone()
		c.harm(d)
		_, err := Open(d, testDir, cfg, nil)
		var damage *fault.Corrupt
		if !errors.As(err, &damage) || damage.Path != testDir+"/"+c.path {
			t.Errorf("%s: %v", name, err)
		}
	}

	// A damaged index is made again; damaged frames are told to who reads them.
	d := whole.KillClone()
	flip(t, d, infos[1].Name, infos[1].Used+30)
	flip(t, d, before.Name, before.Used+30)
	l := openLog(t, d, testDir, cfg)
	got, err := l.Read(testCtx(t), "events", event.Position{Incarnation: l.mu.incarnation, Offset: infos[1].Streams[0].First + 2}, 1)
	if err != nil || !strings.HasPrefix(streamtest.Values(t, got)[0], fmt.Sprint(infos[1].Streams[0].First+2, " ")) {
		t.Fatalf("read past a damaged index: %v, %v", got, err)
	}
	closeLog(t, l)
	for off := infos[1].Used / 2; off < infos[1].Used/2+600; off += 3 {
		d := whole.KillClone()
		flip(t, d, infos[1].Name, off)
		l := openLog(t, d, testDir, cfg)
		pos, want := event.Position{Incarnation: l.mu.incarnation}, int64(0)
		var err error
		for err == nil && want < 150 {
			var b *event.Batch
			if b, err = l.Read(testCtx(t), "events", pos, 1<<10); err == nil {
				for _, v := range streamtest.Values(t, b) {
					if !strings.HasPrefix(v, fmt.Sprint(want, " ")) {
						t.Fatalf("flip at %d: got %.10q, want %d", off, v, want)
					}
					want++
				}
				pos = b.End()
			}
		}
		var damage *fault.Corrupt
		if err != nil && (!errors.As(err, &damage) || damage.Path != testDir+"/"+infos[1].Name) {
			t.Fatalf("flip at %d: %v", off, err)
		}
		if _, _, verr := Verify(d, testDir); !errors.As(verr, &damage) && inFrame(t, whole, infos[1].Name, off) {
			t.Fatalf("flip at %d passes Verify", off)
		}
		closeLog(t, l)
	}
}

// inFrame tells whether a byte belongs to a frame, not to the padding behind one.
func inFrame(t testing.TB, disk *vfs.Memory, name string, off int64) (in bool) {
	if err := Frames(disk, testDir+"/"+name, func(f FrameInfo) error {
		in = in || off >= f.Pos && off < f.Pos+f.Length
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return in
}
