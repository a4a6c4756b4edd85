package seglog

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
)

func someLosses() []Loss {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return []Loss{
		{Stream: "events", Incarnation: event.Incarnation{1}, First: 10, End: 12, Events: 2, Segment: segmentName(2), Pos: 480, Bytes: 300, Kept: "torn-a.bin", Repaired: at},
		{Stream: "events", Incarnation: event.Incarnation{1}, First: 12, End: 15, Events: 3, Segment: segmentName(2), Pos: 900, Bytes: 300, Kept: "torn-a.bin", Repaired: at},
		{Stream: "events", Partition: 3, Incarnation: event.Incarnation{2}, First: 0, End: 1, Events: -1, Segment: segmentName(3), Pos: -1, Bytes: 300, Repaired: at},
		{Incarnation: event.Incarnation{2}, Segment: segmentName(3), Pos: 48, Bytes: 77, Events: -1, Kept: "torn-b.bin", Repaired: at},
	}
}

func TestLossesAreKept(t *testing.T) {
	disk := newDisk(t)
	if all, err := Losses(disk, testDir); err != nil || all != nil {
		t.Fatalf("a log without losses: %v, %v", all, err)
	}
	want := someLosses()
	if err := writeLosses(disk, testDir, want[:1]); err != nil {
		t.Fatal(err)
	}
	var cuts []func() ([]Loss, error)
	disk.OnSync(nil)
	for seed := range uint64(20) {
		d := disk.CrashClone(seed)
		cuts = append(cuts, func() ([]Loss, error) { return Losses(d, testDir) })
	}
	if err := writeLosses(disk, testDir, want); err != nil {
		t.Fatal(err)
	}
	for _, read := range cuts {
		if got, err := read(); err != nil || len(got) != 1 {
			t.Fatalf("after a power cut: %v, %v", got, err)
		}
	}
	got, err := Losses(disk.CrashClone(0), testDir)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v, %v", got, err)
	}
	r := rangesOf(got)
	for _, c := range []struct{ n, from, to int64 }{{0, 9, 9}, {0, 10, 15}, {0, 14, 15}, {0, 15, 15}, {3, 0, 1}, {1, 0, 0}} {
		if to := r.skip("events", int32(c.n), c.from); to != c.to {
			t.Errorf("partition %d: behind %d comes %d, want %d", c.n, c.from, to, c.to)
		}
	}
}

// Every byte of the record is vouched for.
func TestDamagedLossesAreNoticed(t *testing.T) {
	disk := newDisk(t)
	if err := writeLosses(disk, testDir, someLosses()); err != nil {
		t.Fatal(err)
	}
	info, err := disk.Stat(testDir + "/" + lossesName)
	if err != nil {
		t.Fatal(err)
	}
	for off := range info.Size() {
		for _, bit := range []byte{0x01, 0x10, 0x20, 0x80} {
			d := disk.KillClone()
			change(t, d, lossesName, off, func(b byte) byte { return b ^ bit })
			var c *fault.Corrupt
			if got, err := Losses(d, testDir); !errors.As(err, &c) || c.Path != testDir+"/"+lossesName {
				t.Fatalf("byte %d ^ %02x: %v, %v", off, bit, got, err)
			}
		}
	}
}
