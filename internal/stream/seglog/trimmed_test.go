package seglog

import (
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"testing"
	"testing/synctest"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/stream"
)

// sparse makes the last delta of a write larger than its events are many.
func sparse(w stream.Write, gap int32) stream.Write {
	binary.BigEndian.PutUint32(w.Batch[23:], uint32(w.Count-1+gap))
	binary.BigEndian.PutUint32(w.Batch[17:], update(0, w.Batch[21:]))
	return w
}

// The log counts what retention drops in events, not in offsets; a start, and a
// segment's checkpoint, know it as well.
func TestTrimmedCountsEvents(t *testing.T) {
	retained(t, func(c *Config) { c.RetainBytes = 40 << 10; c.DropUnread = true }, func(t *testing.T, l *Log, clock *wall, _ *dropped) {
		events := 0
		for rolls := l.Stats().Rolls + 10; l.Stats().Rolls < rolls; events++ {
			if _, err := l.Append(testCtx(t), sparse(writeNow(clock, "events", string(make([]byte, 1000))), 6)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		check := func(l *Log) {
			t.Helper()
			st, err := l.Stat(testCtx(t), "events")
			if err != nil {
				t.Fatal(err)
			}
			left := int64(0)
			for at := (event.Position{Offset: st.Ranges[0].Start, Incarnation: st.Incarnation}); at.Offset < st.Ranges[0].End; {
				b, err := l.Read(testCtx(t), "events", at, 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				for _, raw := range b.Raw {
					h, err := recordbatch.Check(raw)
					if err != nil {
						t.Fatal(err)
					}
					left += int64(h.Count)
				}
				at = b.End()
			}
			if st.Trimmed[0] == 0 || st.Trimmed[0]+left != int64(events) || len(st.Trimmed) != 1 {
				t.Fatalf("%v dropped and %d left of %d events", st.Trimmed, left, events)
			}
			g := stream.Gaps(st, stream.Progress{Stream: "events"})
			if len(g) != 1 || g[0].Events != st.Trimmed[0] || g[0].To.Offset != st.Ranges[0].Start || len(g[0].Spans) != 1 {
				t.Fatalf("gaps %+v", g)
			}
		}
		check(l)
		closeLog(t, l)
		again, err := open(l.fs, testDir, l.cfg, nil, clock.now)
		if err != nil {
			t.Fatal(err)
		}
		check(again)
		closeLog(t, again)
	})
}

// What a reader's counts have is kept through rolls and restarts.
func TestProgressKeepsEvents(t *testing.T) {
	retained(t, func(*Config) {}, func(t *testing.T, l *Log, clock *wall, _ *dropped) {
		want := stream.Progress{Stream: "events", Positions: event.Positions{{1}: {0: 7, 3: 9}}, Counts: stream.Counts{Written: 5, Dropped: 6},
			Events: map[int32]int64{0: 4, 3: 7}}
		same := func(l *Log) {
			t.Helper()
			if got, err := l.Progress(testCtx(t), "r"); err != nil || got.Counts != want.Counts || !maps.Equal(got.Events, want.Events) || !got.Positions.Equal(want.Positions) {
				t.Fatalf("%+v, %v", got, err)
			}
		}
		if err := l.Commit(context.Background(), nil, "r", want); err != nil {
			t.Fatal(err)
		}
		same(l)
		fillSegments(t, l, clock, 2) // now it stands in checkpoints
		closeLog(t, l)
		again, err := open(l.fs, testDir, l.cfg, nil, clock.now)
		if err != nil {
			t.Fatal(err)
		}
		same(again)
		closeLog(t, again)
	})
}

// Logs of format 1 are read: there, events are as many as offsets.
func TestCheckpointOfFormat1(t *testing.T) {
	c := sampleCheckpoint()
	b := []byte{1}
	b = binary.AppendUvarint(b, c.segment)
	b = binary.AppendVarint(b, c.created.UnixMilli())
	b = append(b, c.incarnation[:]...)
	for _, n := range []uint64{c.oldest, 0, 0, 0, 0} {
		b = binary.AppendUvarint(b, n)
	}
	b = binary.AppendVarint(b, 0)
	b = binary.AppendUvarint(b, 0)
	b = binary.AppendUvarint(b, 1)
	b = appendString(binary.AppendUvarint(b, 1), "events")
	for _, n := range []uint64{0, 3, 500, 70_000} {
		b = binary.AppendUvarint(b, n)
	}
	b = binary.AppendUvarint(b, 0)
	b = binary.AppendUvarint(b, 1)
	full := appendProgress(nil, "loader", c.readers["loader"])
	b = append(b, full[:len(full)-2]...) // format 1 ends with the positions
	got, err := parseCheckpoint(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.parts[0].events != 500 || got.readers["loader"].Counts != c.readers["loader"].Counts || got.readers["loader"].Events != nil {
		t.Fatalf("%+v", got)
	}
	reader, at, err := parseProgress(full[:len(full)-2])
	if err != nil || reader != "loader" || at.Counts.Written != 398 || at.Events != nil {
		t.Fatalf("%s %+v %v", reader, at, err)
	}
}

// Status shows for whom retention waits, until it no longer does.
func TestWaits(t *testing.T) {
	retained(t, func(c *Config) { c.RetainBytes = 16 << 10 }, func(t *testing.T, l *Log, clock *wall, _ *dropped) {
		if err := l.Commit(context.Background(), nil, "slow", stream.Progress{Stream: "events"}); err != nil {
			t.Fatal(err)
		}
		if readers, _ := l.Waits(); readers != nil {
			t.Fatalf("waits for %v in an empty log", readers)
		}
		fillSegments(t, l, clock, 4)
		sleep(2 * retentionEvery)
		if readers, reason := l.Waits(); !slices.Equal(readers, []string{"slow"}) || reason != "bytes" {
			t.Fatalf("waits for %v because of %q", readers, reason)
		}
		if err := l.Forget(context.Background(), "slow"); err != nil {
			t.Fatal(err)
		}
		sleep(2 * retentionEvery)
		if readers, _ := l.Waits(); readers != nil {
			t.Fatalf("still waits for %v", readers)
		}
	})
}
