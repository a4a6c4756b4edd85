package table

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/sink/sinktest"
	"naru/internal/stream"
)

var life = sinktest.Lives[0]

func table(name string) lake.Ident { return lake.Ident{Namespace: sinktest.Stream, Name: name} }

// typed makes one event of each of the given types.
func typed(from int, types ...string) []sinktest.Spec {
	var out []sinktest.Spec
	for i, typ := range types {
		out = append(out, sinktest.Spec{ID: fmt.Sprintf("e%d", from+i), Type: typ, Data: fmt.Sprintf(`{"n":%d}`, from+i)})
	}
	return out
}

func numbers(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("e%d", i))
	}
	slices.Sort(out)
	return out
}

func (w *world) requireIDs(want []string) {
	w.t.Helper()
	got := w.ids()
	slices.Sort(got)
	require.Equal(w.t, want, got)
}

func (w *world) at(name string) event.Positions {
	w.t.Helper()
	s, err := w.lake.Table(table(name)).Load(w.t.Context())
	require.NoError(w.t, err)
	return s.Positions
}

func TestRateHoldsTablesAndPositionsBack(t *testing.T) {
	w := newWorld(t)
	w.cfg.CommitRate = 0.4 // two at once
	w.restart()
	now := time.Unix(1e9, 0)
	w.tables.now = func() time.Time { return now }
	s := w.sink()
	for i, typ := range []string{"a", "b", "c", "d"} {
		require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, int64(i), typed(i, typ)...)))
		now = now.Add(time.Millisecond)
	}
	done, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Positions{life: {0: 2}}, done, "c is the first that waits")
	w.requireIDs([]string{"e0", "e1"})
	require.Equal(t, event.Positions{life: {0: 4}}, w.at("a"), "a table covers all that was written")

	// A table that has waited goes before one that gets rows now.
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 4, typed(4, "a")...)))
	now = now.Add(2500 * time.Millisecond) // one more
	done, err = s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Positions{life: {0: 3}}, done)
	w.requireIDs([]string{"e0", "e1", "e2"})

	status := w.tables.Status()
	require.Len(t, status, 4)
	require.EqualValues(t, 1, status[3].Rows)

	// The watermark at 3: reading again from there is exact.
	require.NoError(t, s.Close())
	s = w.sink()
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 3, typed(3, "d", "a")...)))
	done, err = s.(*Sink).Drain(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Positions{life: {0: 5}}, done)
	w.requireIDs(numbers(5))
	require.NoError(t, s.Close())
}

func TestOldLifeHoldsNewOneBack(t *testing.T) {
	w := newWorld(t)
	w.cfg.CommitRate = 0.2 // one
	w.log.stat.Incarnation = event.Incarnation{}
	w.restart()
	now := time.Unix(1e9, 0)
	w.tables.now = func() time.Time { return now }
	s := w.sink()
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, typed(0, "a")...)))
	now = now.Add(time.Millisecond)
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 1, typed(1, "b", "b")...)))
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(sinktest.Lives[1], 0, 0, typed(3, "a")...)))
	done, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Positions{life: {0: 1}}, done)
	require.NoError(t, s.Close())
}

func TestLimitOfTables(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxTables = 2
	w.restart()
	s := w.sink()
	b := sinktest.Batch(life, 0, 0, typed(0, "a", "b", "c", "d", "a")...)
	require.NoError(t, s.Write(t.Context(), b))
	_, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Close())
	list, err := w.lake.List(t.Context())
	require.NoError(t, err)
	require.Equal(t, []lake.Ident{table("_other"), table("a"), table("b")}, list)
	require.Equal(t, []any{"c", "d"}, w.column(table("_other"), "_type"))
	require.Equal(t, []any{`{"n":2}`, `{"n":3}`}, w.column(table("_other"), "data"))

	// The limit is raised, and the watermark was lost: what is in _other stays
	// there, what comes later gets a table.
	w.cfg.MaxTables = 10
	w.restart()
	s = w.sink()
	require.NoError(t, s.Write(t.Context(), b))
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, b.Next, typed(5, "c")...)))
	require.NoError(t, s.Close()) // killed: the claim is all that lasts
	w.restart()
	s = w.sink()
	require.NoError(t, s.Write(t.Context(), b))
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, b.Next, typed(5, "c")...)))
	_, err = s.Commit(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Close())
	w.requireIDs(numbers(6))
	require.Equal(t, []any{"e5"}, w.column(table("c"), "_id"))
}

// A type that had the last place must have it again after a crash, although
// another one is met first.
func TestClaimOutlivesCrash(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxTables = 1
	w.cfg.CommitRate = 0.2 // one commit
	w.log.stat.Ranges = append(w.log.stat.Ranges, stream.Range{Incarnation: life, Partition: 1, End: 1})
	w.restart()
	now := time.Unix(1e9, 0)
	w.tables.now = func() time.Time { now = now.Add(time.Second / 100); return now }
	s := w.sink()
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 1, 0, sinktest.Spec{ID: "own", Type: "own", Data: "{}"})))
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Spec{ID: "late", Type: "late", Data: "{}"})))
	s.(*Sink).names["own"].since = now.Add(time.Hour) // _other goes first
	_, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Close())

	w.restart()
	s = w.sink()
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Spec{ID: "late", Type: "late", Data: "{}"})))
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 1, 0, sinktest.Spec{ID: "own", Type: "own", Data: "{}"})))
	_, err = s.(*Sink).Drain(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Close())
	w.requireIDs([]string{"late", "own"})
	require.Equal(t, []any{"own"}, w.column(table("own"), "_id"))
}

func (w *world) fill(batches ...[]sinktest.Spec) {
	w.t.Helper()
	s := w.sink()
	off := int64(0)
	for _, specs := range batches {
		b := sinktest.Batch(life, 0, off, specs...)
		require.NoError(w.t, s.Write(w.t.Context(), b))
		_, err := s.(*Sink).Drain(w.t.Context())
		require.NoError(w.t, err)
		off = b.Next
	}
	require.NoError(w.t, s.Close())
}

func TestRolledBackTableIsReadAgain(t *testing.T) {
	w := newWorld(t)
	w.fill(typed(0, "a", "b"), typed(2, "a", "b"), typed(4, "a", "b"))
	w.rollBack("a", 2)

	s := w.sink()
	from, err := s.(*Sink).Resume(t.Context(), sinktest.Stream)
	require.NoError(t, err)
	require.Equal(t, event.Positions{life: {0: 2}}, from)
	// The watermark stands at 6; a first part is loaded, then comes a crash.
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 2, typed(2, "a", "b")...)))
	_, err = s.(*Sink).Drain(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Close())
	w.restart()
	s = w.sink()
	from, err = s.(*Sink).Resume(t.Context(), sinktest.Stream)
	require.NoError(t, err)
	require.Equal(t, event.Positions{life: {0: 4}}, from, "the rest would be lost")
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 4, typed(4, "a", "b")...)))
	_, err = s.(*Sink).Drain(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Close())
	w.requireIDs(numbers(6))

	s = w.sink()
	from, err = s.(*Sink).Resume(t.Context(), sinktest.Stream)
	require.NoError(t, err)
	require.Nil(t, from)
	require.NoError(t, s.Close())
}

// rollBack sets main back by so many commits, as another engine's rollback
// does; as far as there are snapshots.
func (w *world) rollBack(name string, commits int) {
	w.t.Helper()
	from, err := w.rows.Location(w.t.Context(), table(name))
	require.NoError(w.t, err)
	f, err := w.fs.Open(strings.TrimPrefix(from, "file://"))
	require.NoError(w.t, err)
	meta := map[string]any{}
	dec := json.NewDecoder(f)
	dec.UseNumber()
	require.NoError(w.t, dec.Decode(&meta))
	require.NoError(w.t, f.Close())
	parents := map[any]any{}
	for _, s := range meta["snapshots"].([]any) {
		parents[s.(map[string]any)["snapshot-id"]] = s.(map[string]any)["parent-snapshot-id"]
	}
	id := meta["current-snapshot-id"]
	for range commits {
		if _, kept := parents[parents[id]]; kept {
			id = parents[id]
		}
	}
	meta["current-snapshot-id"] = id
	meta["refs"].(map[string]any)["main"].(map[string]any)["snapshot-id"] = id
	meta["snapshot-log"] = append(meta["snapshot-log"].([]any), map[string]any{"snapshot-id": id, "timestamp-ms": meta["last-updated-ms"]})
	to := strings.TrimSuffix(from, ".metadata.json") + "-back.metadata.json"
	text, err := json.Marshal(meta)
	require.NoError(w.t, err)
	out, err := w.lake.CreateFile(strings.TrimPrefix(to, "file://"))
	require.NoError(w.t, err)
	_, err = out.Write(text)
	require.NoError(w.t, err)
	require.NoError(w.t, out.Close())
	require.NoError(w.t, w.rows.Swap(w.t.Context(), table(name), from, "file://"+out.Path()))
}

func TestStoppedTableStopsAlone(t *testing.T) {
	for _, c := range []struct {
		name string
		want error
		hurt func(w *world)
	}{
		{"rolled back behind the log", ErrRolledBack, func(w *world) {
			w.rollBack("a", 2)
			w.log.stat.Ranges[0].Start = 4
		}},
		{"ahead of the log", ErrAhead, func(w *world) { w.log.stat.Ranges[0].End = 5 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.fill(typed(0, "a", "b"), typed(2, "a"), typed(3, "a"), typed(4, "b"), typed(5, "a"))
			c.hurt(w)
			before := w.column(table("a"), "_id")
			s := w.sink()
			from, err := s.(*Sink).Resume(t.Context(), sinktest.Stream)
			require.NoError(t, err)
			require.Nil(t, from)
			require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 6, typed(6, "b", "a", "b")...)))
			done, err := s.Commit(t.Context())
			require.NoError(t, err)
			require.Equal(t, event.Positions{life: {0: 7}}, done, "the watermark must not pass the stopped table's event")
			require.Equal(t, before, w.column(table("a"), "_id"))
			require.Len(t, w.column(table("b"), "_id"), 4)

			status := w.tables.Status()
			require.Equal(t, table("a"), status[0].Table)
			require.Contains(t, status[0].Error, c.want.Error())
			require.NotEmpty(t, status[0].Hint)
			require.Empty(t, status[1].Error)

			// Somebody cures it: the session begins anew.
			w.tables.now = func() time.Time { return time.Now().Add(time.Hour) }
			done, err = s.Commit(t.Context())
			require.NoError(t, err)
			require.Equal(t, event.Positions{life: {0: 7}}, done)
			w.tables.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
			require.NoError(t, w.rows.Drop(t.Context(), table("a")))
			w.log.stat.Ranges[0].End = 1 << 40
			_, err = s.Commit(t.Context())
			require.True(t, fault.IsTransient(err), "%v", err)
			require.NoError(t, s.Close())
			s = w.sink()
			require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 7, typed(7, "a", "b")...)))
			done, err = s.Commit(t.Context())
			require.NoError(t, err)
			require.Equal(t, event.Positions{life: {0: 9}}, done)
			require.Equal(t, []any{"e7"}, w.column(table("a"), "_id"))
			require.NoError(t, s.Close())
		})
	}
}

// A table whose metadata is broken, and one that another engine has changed
// beyond use: both stop alone.
func TestUnfitTableStopsAlone(t *testing.T) {
	w := newWorld(t)
	w.fill(typed(0, "a", "b"))
	loc, err := w.rows.Location(t.Context(), table("a"))
	require.NoError(t, err)
	f, err := w.fs.Create(strings.TrimPrefix(loc, "file://"))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	w.restart()
	s := w.sink()
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 2, typed(2, "b", "a")...)))
	done, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Positions{life: {0: 3}}, done)
	require.NotEmpty(t, w.tables.Status()[0].Hint)
	require.NoError(t, s.Close())
	require.Len(t, w.column(table("b"), "_id"), 2)
}

// Sinks of several streams share the lake; each is used by one goroutine.
func TestStreamsShareTheLake(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxTables = 9
	w.cfg.Memory = quantity.MiB
	w.log.stat = stream.Stat{}
	w.restart()
	var running sync.WaitGroup
	for n := range 4 {
		running.Go(func() {
			name := fmt.Sprint("stream", n)
			s, err := w.tables.Open(context.Background(), name)
			if err != nil {
				t.Error(err)
				return
			}
			off := int64(0)
			for round := range 12 {
				b := sinktest.Batch(life, 0, off, typed(round, "a", "b", "c")...)
				b.Stream = name
				off = b.Next
				if err := s.Write(context.Background(), b); err != nil {
					t.Error(err)
				}
				if _, err := s.Commit(context.Background()); err != nil {
					t.Error(err)
				}
				w.tables.Status()
			}
			if done, err := s.(*Sink).Drain(context.Background()); err != nil || !done.Equal(event.Positions{life: {0: off}}) {
				t.Error(done, err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	list, err := w.lake.List(t.Context())
	require.NoError(t, err)
	own := 0
	rows := int64(0)
	for _, id := range list {
		if id.Name != lake.OtherTable {
			own++
		}
		v, err := w.lake.View(t.Context(), id)
		require.NoError(t, err)
		rows += v.Rows
		v.Release()
	}
	require.Equal(t, 9, own)
	require.EqualValues(t, 4*36, rows)
	require.Zero(t, w.lake.HoldMemory(0))
}

func TestTableDroppedWhileWriting(t *testing.T) {
	w := newWorld(t)
	s := w.sink()
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, typed(0, "a")...)))
	_, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 1, typed(1, "a", "b")...)))
	require.NoError(t, w.rows.Drop(t.Context(), table("a")))
	_, err = s.Commit(t.Context())
	require.True(t, fault.IsTransient(err), "%v", err)
	require.NoError(t, s.Close())
	// The pipeline opens the sink anew and reads from its watermark.
	s = w.sink()
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 1, typed(1, "a", "b")...)))
	_, err = s.Commit(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Close())
	w.requireIDs([]string{"e1", "e2"})
}

func TestRejected(t *testing.T) {
	w := newWorld(t)
	w.log.stat = stream.Stat{}
	s, err := w.tables.Open(t.Context(), event.RejectedStream)
	require.NoError(t, err)
	var rb recordbatch.Builder
	rb.Reset(time.Unix(1e9, 0))
	for i, r := range []event.Reason{event.NotJSON, event.TooLarge} {
		rb.AppendEvent(&event.Event{ID: []byte(fmt.Sprint("r", i)), Source: []byte("/v1/events"), Type: []byte(recordbatch.RejectionType),
			Refusal: &event.Rejection{Index: i, ID: "x", Type: "page_view", Stream: "events", Reason: r, Detail: "why", Original: []byte("{\xff")}})
	}
	raw := rb.Finish(nil, recordbatch.None)
	require.NoError(t, s.Write(t.Context(), &event.Batch{Stream: event.RejectedStream, Incarnation: life, Next: 2, Raw: [][]byte{raw}}))
	done, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Positions{life: {0: 2}}, done)
	require.NoError(t, s.Close())
	id := lake.Ident{Namespace: "rejected", Name: "rejected"}
	require.Equal(t, []any{"not_json", "too_large"}, w.column(id, "reason"))
	require.Equal(t, []any{"events", "events"}, w.column(id, "stream"))
	require.Equal(t, []any{int64(0), int64(1)}, w.column(id, "item_index"))
}

func TestBadNamesOfStreams(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"", "a.b", "a/b", `a\b`} {
		_, err := w.tables.Open(t.Context(), name)
		require.Error(t, err)
		require.NotEmpty(t, fault.HintOf(err))
	}
}
