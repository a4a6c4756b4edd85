package seglog

import (
	"bytes"
	"testing"

	"naru/internal/stream"
	"naru/internal/stream/streamtest"
	"naru/internal/vfs"
)

// framesAt lists where the frames of a segment begin.
func framesAt(t testing.TB, disk *vfs.Memory, name string) (at []int64) {
	t.Helper()
	if err := Frames(disk, testDir+"/"+name, func(f FrameInfo) error { at = append(at, f.Pos); return nil }); err != nil {
		t.Fatal(err)
	}
	return at
}

// Events whose offsets are known to have been given count as acknowledged, also
// where no checkpoint follows that says so: what was written of them before must
// not be more than there were.
func TestLostEventsStayAcknowledged(t *testing.T) {
	disk := newDisk(t)
	l := openLog(t, disk, testDir, quiet())
	mustAppend(t, l, "a", "b")
	mustAppend(t, l, "c", "d", "e")
	if _, err := l.Append(testCtx(t), streamtest.Write("other", 0, "x")); err != nil { // a stream that only the hole names
		t.Fatal(err)
	}
	mustAppend(t, l, "f")
	closeLog(t, l)
	flip(t, disk, segmentName(1), framesAt(t, disk, segmentName(1))[2]+60)
	r, err := Repair(disk, testDir, quiet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Cut || len(r.Lost) == 0 {
		t.Errorf("%+v", r)
	}
	for range 2 {
		l = openLog(t, disk, testDir, quiet())
		st, err := l.Stat(testCtx(t), "events")
		if err != nil {
			t.Fatal(err)
		}
		if st.Acknowledged != 6 || len(st.Lost) != 1 || st.Lost[0].From != 2 || st.Lost[0].To != 5 || st.Lost[0].Incarnation != r.Closed {
			t.Errorf("%+v, want 6 acknowledged and [2,5) lost", st)
		}
		closeLog(t, l)
	}
	s, err := Walk(testCtx(t), disk, testDir, SurveyOptions{}, func(*Logged) error { return nil })
	if err != nil || len(s.Damage) > 0 {
		t.Errorf("%v, %v", s.Damage, err)
	}
}

// Holes with names, in several segments whose checkpoints are made again: all
// checkpoints count the same as the frames before them.
func TestMadeCheckpointsCountWhatHolesHeld(t *testing.T) {
	cfg := tiny()
	for stride := range 4 {
		disk, l, _ := lockstep(t, 60, cfg)
		closeLog(t, l)
		infos, err := List(disk, testDir)
		if err != nil {
			t.Fatal(err)
		}
		for i, info := range infos {
			if i == 0 || i%(stride+1) != 0 {
				continue
			}
			at := framesAt(t, disk, info.Name)
			flip(t, disk, info.Name, at[len(at)/2]+60)
			flip(t, disk, info.Name, 70)
		}
		if _, err := Repair(disk, testDir, cfg, nil); err != nil {
			t.Fatal(err)
		}
		s, err := Walk(testCtx(t), disk, testDir, SurveyOptions{}, func(*Logged) error { return nil })
		if err != nil || len(s.Damage) > 0 {
			t.Errorf("every %d: %v, %v", stride+1, s.Damage, err)
		}
	}
}

// A disk without a byte left does not keep a log from opening, closing and going
// on in a file that it has: the mark stays behind, and is true still.
func TestFullDiskLeavesTheMarkBehind(t *testing.T) {
	disk := newDisk(t)
	cfg := testConfig()
	l := openLog(t, disk, testDir, cfg)
	mustAppend(t, l, "a")
	if err := l.pool.prepare(); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	disk.SetCapacity(1)
	l = openLog(t, disk, testDir, cfg)
	segments := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.mu.segments)
	}
	for segments() == 1 {
		if err := l.Commit(testCtx(t), nil, "reader", stream.Progress{Stream: "events"}); err != nil {
			t.Fatal(err)
		}
	}
	closeLog(t, l)
	disk.SetCapacity(1 << 30)
	l = openLog(t, disk, testDir, cfg)
	closeLog(t, l)
	if m, err := readLast(disk, testDir); err != nil || m.Segment != 2 {
		t.Errorf("%+v, %v", m, err)
	}
}

// The checkpoint that is made again in place of a damaged one, between segments
// without damage, is the one that was there, byte for byte but for its time: so it
// has room, whatever the checksum that it holds.
func TestMadeCheckpointIsTheOneThatWas(t *testing.T) {
	disk, l, _ := lockstep(t, 60, tiny())
	closeLog(t, l)
	infos, err := List(disk, testDir)
	if err != nil {
		t.Fatal(err)
	}
	was := map[uint64]*checkpoint{}
	for i, info := range infos {
		if i%2 == 0 {
			continue
		}
		f, err := disk.Open(testDir + "/" + info.Name)
		if err != nil {
			t.Fatal(err)
		}
		cp, _, err := readCheckpoint(f, info.Name, uint64(i+1), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		was[uint64(i+1)] = cp
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		flip(t, disk, info.Name, 70)
	}
	a, err := audit(newMender(disk, testDir))
	if err != nil {
		t.Fatal(err)
	}
	made := 0
	for _, p := range a.plans {
		cp := was[p.seg.number]
		if cp == nil {
			continue
		}
		made++
		cp.created = p.made.created
		if got, want := p.made.append(nil), cp.append(nil); !bytes.Equal(got, want) {
			t.Errorf("segment %d: made again\n%+v\nwas\n%+v", p.seg.number, *p.made, *cp)
		}
	}
	if made < 3 {
		t.Errorf("only %d checkpoints were made again", made)
	}
}
