package hottail

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/quantity"
)

// small is a hot tail that holds little; the data is large.
func small(w *world) { w.hot.Memory = 8 * quantity.MiB }

// large is n events of some 40 KB.
func (w *world) large(n int, typ string) (out []ev) {
	for range n {
		out = append(out, w.evs(1, typ, fmt.Sprintf(`,"pad":"%d%s"`, w.next, strings.Repeat("x", 40_000)))...)
	}
	return out
}

// sendEach appends events one by one, so that a read takes a part of them.
func (w *world) sendEach(name string, events []ev) {
	w.t.Helper()
	for _, e := range events {
		w.send(name, e)
	}
}

// What the memory does not hold is committed first, and then all is seen.
func TestFullMemoryAsksForACommit(t *testing.T) {
	w := newWorld(t, small)
	w.sendEach("events", w.large(300, "a"))
	w.flush = func(context.Context, string) error { w.load("events"); return nil }
	w.requireAll(id("a"))
	require.Equal(t, int64(1), w.tail.Counts().Flushes.Load())
	require.Zero(t, w.tail.Counts().Behind.Load())
	// And it has room again, time after time.
	for range 3 {
		w.sendEach("events", w.large(30, "a"))
		w.requireAll(id("a"))
	}
	require.Equal(t, int64(1), w.tail.Counts().Flushes.Load())
	require.Zero(t, w.tail.Counts().Behind.Load())
	w.sendEach("events", w.large(300, "a"))
	w.requireAll(id("a"))
	require.Equal(t, int64(2), w.tail.Counts().Flushes.Load())
	require.Zero(t, w.tail.Counts().Behind.Load())
}

// requireOnePlace demands that tables of a stream end at one place: what the
// furthest one has of events, the others have, too. It gives that place.
func (w *world) requireOnePlace(views []*lake.View) map[int32]int64 {
	w.t.Helper()
	furthest := map[int32]int64{}
	rows := make([]map[spot][]cells, len(views))
	for i, v := range views {
		rows[i] = w.read(v)
		for s := range rows[i] {
			furthest[s.partition] = max(furthest[s.partition], s.offset+1)
		}
	}
	for i, v := range views {
		for s, typ := range w.types[v.Ident.Namespace] {
			n := 0
			if owner(v.Ident.Namespace, typ) == v.Ident.Name && s.offset < furthest[s.partition] {
				n = 1
			}
			require.Len(w.t, rows[i][s], n, "%s at %v, the furthest table is at %v", v.Ident, s, furthest)
		}
	}
	return furthest
}

// When a commit does not help, all tables of the stream are cut at one place,
// whichever of them is asked for first, and whether they have rows there or not.
func TestFullMemoryCutsAllTablesAtOnePlace(t *testing.T) {
	for _, order := range [][]string{{"a", "b", "c"}, {"c", "b", "a"}, {"b", "a", "c"}} {
		w := newWorld(t, small)
		w.send("events", append(w.evs(1, "a"), append(w.evs(1, "b"), w.evs(1, "c")...)...)...)
		w.load("events")
		var tables []lake.Ident
		for _, n := range order {
			tables = append(tables, id(n))
		}
		for range 3 {
			for range 40 {
				w.sendEach("events", append(w.large(3, "a"), w.evs(1, "b")...))
			}
			w.sendEach("events", w.evs(1, "c"))
			w.requireOnePlace(w.cut(tables...)) // a slow query holds its files
		}
		require.Positive(t, w.tail.Counts().Flushes.Load())
		require.Positive(t, w.tail.Counts().Behind.Load())
	}
}

// Where the loader is far behind, queries see what is committed.
func TestLimitOfEvents(t *testing.T) {
	w := newWorld(t, func(w *world) { w.hot.Events = 10 })
	w.send("events", w.evs(5, "a")...)
	w.load("events")
	w.send("events", w.evs(10, "a")...)
	w.requireAll(id("a"))
	w.send("events", w.evs(1, "b")...)
	v := w.cut(id("a"))[0]
	require.Nil(t, v.Hot, "only what is committed")
	w.requireRows(v, func(s spot) bool { return s.offset < 5 })
	require.Equal(t, int64(1), w.tail.Counts().Behind.Load())
	_, err := w.tail.Cut(t.Context(), []lake.Ident{id("b")})
	require.True(t, fault.IsTransient(err), "%v", err)
	require.NotErrorIs(t, err, lake.ErrNoTable)
	list, err := w.tail.Newest(t.Context())
	require.NoError(t, err)
	require.Equal(t, []lake.Ident{id("a")}, list, "types beyond the limit are not looked for")
	w.load("events")
	w.requireAll(id("a"), id("b"))
}

// Types beyond the limit of tables are in _other, before their commit as after it.
func TestTypesBeyondTheLimitOfTables(t *testing.T) {
	w := newWorld(t, func(w *world) { w.cfg.MaxTables = 2 })
	w.send("events", append(w.evs(2, "a"), w.evs(2, "b")...)...)
	w.load("events")
	w.send("events", append(w.evs(3, "c"), w.evs(2, "a")...)...)
	check := func() {
		t.Helper()
		views := w.cut(id("a"), id("b"), id(lake.OtherTable))
		for _, v := range views {
			w.requireRows(v, func(s spot) bool {
				table := w.types["events"][s]
				if table != "a" && table != "b" {
					table = lake.OtherTable
				}
				return table == v.Ident.Name
			})
		}
	}
	list, err := w.tail.Newest(t.Context())
	require.NoError(t, err)
	require.Contains(t, list, id(lake.OtherTable))
	require.NotContains(t, list, id("c"))
	check()
	l := w.loader("events").write()
	check()
	w.send("events", w.evs(1, "d")...)
	l.commit()
	check()
	w.send("events", append(w.evs(1, "c"), w.evs(1, "a")...)...)
	check()
	l.appendMark()
	check()
	w.load("events")
	check()
}

// A limit that is raised: what _other has of a type stays there, what comes
// later is in the type's own table.
func TestLimitOfTablesIsRaised(t *testing.T) {
	w := newWorld(t, func(w *world) { w.cfg.MaxTables = 1 })
	w.send("events", append(w.evs(2, "a"), w.evs(2, "c")...)...)
	w.loader("events").write().commit() // its watermark is lost
	w.cfg.MaxTables = 10
	w.restart()
	w.send("events", append(w.evs(2, "c"), w.evs(1, "a")...)...)
	check := func() {
		t.Helper()
		for _, v := range w.cut(id("a"), id(lake.OtherTable), id("c")) {
			w.requireRows(v, func(s spot) bool {
				table := w.types["events"][s]
				if table == "c" && s.offset < 4 {
					table = lake.OtherTable
				}
				return table == v.Ident.Name
			})
		}
	}
	check()
	l := w.loader("events").write()
	check()
	w.send("events", w.evs(2, "c")...)
	check()
	l.commit()
	check()
	l.appendMark()
	check()
}

// Two types want the last place: the query guessed for both, and is right again
// as soon as the loader has decided.
func TestGuessOfAPlaceHeals(t *testing.T) {
	w := newWorld(t, func(w *world) { w.cfg.MaxTables = 1 })
	w.send("events", append(w.evs(2, "a"), w.evs(2, "b")...)...)
	views := w.cut(id("a"), id("b"))
	require.Len(t, w.read(views[0]), 2)
	require.Len(t, w.read(views[1]), 2)
	letGo(views)
	l := w.loader("events").write() // a has got it
	views, err := w.tail.Cut(t.Context(), []lake.Ident{id("a"), id(lake.OtherTable)})
	require.NoError(t, err)
	require.Len(t, w.read(views[0]), 2)
	require.Len(t, w.read(views[1]), 2)
	letGo(views)
	_, err = w.tail.Cut(t.Context(), []lake.Ident{id("b")})
	require.ErrorIs(t, err, lake.ErrNoTable)
	l.commit()
	views, err = w.tail.Cut(t.Context(), []lake.Ident{id("a"), id(lake.OtherTable)})
	require.NoError(t, err)
	require.Len(t, w.read(views[1]), 2)
	letGo(views)
	_, err = w.tail.Cut(t.Context(), []lake.Ident{id("b")})
	require.ErrorIs(t, err, lake.ErrNoTable)
	_ = event.DefaultStream
}
