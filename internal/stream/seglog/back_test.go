package seglog

import "testing"

// A segment that a repair has mended is brought back whole, from a copy: the
// record of losses is wrong then, which is found and mended, and nothing that can
// be read is passed over.
func TestSegmentBroughtBack(t *testing.T) {
	cfg := tiny()
	disk, l, want := lockstep(t, 40, cfg)
	closeLog(t, l)
	infos, err := List(disk, testDir)
	if err != nil {
		t.Fatal(err)
	}
	name := infos[1].Name
	whole := fileOf(t, disk, name)
	at := framesAt(t, disk, name)
	flip(t, disk, name, at[len(at)/2]+60)
	if r, err := Repair(disk, testDir, cfg, nil); err != nil || len(r.Lost) == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	putFile(t, disk, name, whole)
	r, err := Check(disk, testDir)
	if err != nil || len(r.Damage) != 1 || r.Damage[0].Kind != DamageLosses {
		t.Fatalf("%+v, %v", r, err)
	}
	t.Log(r.Damage[0].Reason)
	if m, err := Repair(disk, testDir, cfg, nil); err != nil || m.Cut || len(m.Lost) > 0 || len(m.Segments) > 0 {
		t.Fatalf("%+v, %v", m, err)
	}
	if all, err := Losses(disk, testDir); err != nil || len(all) > 0 {
		t.Errorf("%v, %v", all, err)
	}
	l = openLog(t, disk, testDir, cfg)
	defer closeLog(t, l)
	got, failed := readAll(t, "brought back", l, want)
	if failed != nil || !sameWritten(got, want) {
		t.Errorf("%v, %v", got, failed)
	}
}

// Behind a cut offsets are given again. What a repair that was broken off has put
// on record of them must not hide the new events.
func TestCutTakesLossesBehindItBack(t *testing.T) {
	disk := newDisk(t)
	l := openLog(t, disk, testDir, quiet())
	at := mustAppend(t, l, "a", "b")
	closeLog(t, l)
	if err := writeLosses(disk, testDir, []Loss{{Stream: "events", Incarnation: at.Incarnation, First: 1, End: 4, Events: 3, Segment: segmentName(1)}}); err != nil {
		t.Fatal(err)
	}
	if r, err := repair(disk, testDir, quiet(), nil, true); err != nil || !r.Cut {
		t.Fatalf("%+v, %v", r, err)
	}
	l = openLog(t, disk, testDir, quiet())
	defer closeLog(t, l)
	mustAppend(t, l, "c", "d", "e")
	if got := all(t, l, "events"); len(got) != 5 {
		t.Errorf("%q, want five events", got)
	}
}

func TestLossWithout(t *testing.T) {
	l := Loss{Stream: "events", First: 10, End: 20, Events: 10}
	for _, c := range []struct {
		found []lostRange
		want  []lostRange
	}{
		{nil, []lostRange{{10, 20}}},
		{[]lostRange{{0, 10}, {20, 30}}, []lostRange{{10, 20}}},
		{[]lostRange{{12, 14}}, []lostRange{{10, 12}, {14, 20}}},
		{[]lostRange{{5, 12}, {18, 25}}, []lostRange{{12, 18}}},
		{[]lostRange{{10, 15}, {15, 20}}, nil},
	} {
		var got []lostRange
		for _, x := range l.without(lostRanges{{"events", 0}: c.found, {"other", 0}: {{0, 99}}}) {
			if got = append(got, lostRange{x.First, x.End}); x.Events != x.End-x.First {
				t.Errorf("%v: %d events", c.found, x.Events)
			}
		}
		if len(got) != len(c.want) {
			t.Fatalf("%v: %v, want %v", c.found, got, c.want)
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%v: %v, want %v", c.found, got, c.want)
			}
		}
	}
}
