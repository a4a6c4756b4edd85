package hottail

import (
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/lake"
)

// judged is events that were judged by a contract.
func judged(hash string, events []ev) []ev {
	for i := range events {
		events[i].contract = hash
	}
	return events
}

// A type's rows go to another table once its contract asks for one. Queries see
// each of them once, in the table that the loader will put it into, before and
// behind every commit.
func TestTableOfContract(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, w.lake.KeepShapes(map[string]*lake.Shape{"new": {Table: "asked"}, "c": {Columns: []lake.ShapeColumn{{Path: "n", Kind: "double"}}}}))
	w.asked = map[string]string{"new": "asked"}
	w.send("events", w.evs(3, "a")...)
	w.requireAll(id("a"))
	w.send("events", judged("new", w.evs(2, "a"))...)
	w.send("events", w.evs(1, "a")...)
	tables, err := w.tail.Newest(t.Context())
	require.NoError(t, err)
	require.Equal(t, []lake.Ident{id("a"), id("asked")}, tables)
	w.requireAll(id("a"), id("asked"))
	l := w.loader("events").write().commit()
	w.requireAll(id("a"), id("asked"))
	l.appendMark()
	w.send("events", judged("new", w.evs(2, "a"))...)
	w.send("events", judged("c", w.evs(2, "a"))...)
	w.requireAll(id("a"), id("asked"))
	w.load("events")
	w.requireAll(id("a"), id("asked"))
}

// A column has the type of the contract before its first commit and behind it.
func TestColumnsOfContract(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, w.lake.KeepShapes(map[string]*lake.Shape{"c": {Columns: []lake.ShapeColumn{
		{Path: "at", Kind: "timestamptz"}, {Path: "day", Kind: "date"}, {Path: "x", Kind: "double"}, {Path: "never", Kind: "list<string>"}}}}))
	types := func() {
		t.Helper()
		v := w.requireSum(id("a"), "x", 3)
		for name, want := range map[string]string{"at": "timestamptz", "day": "date", "x": "double", "never": "list<string>"} {
			require.Equal(t, want, typeOf(v, name), name)
		}
	}
	w.send("events", judged("c", w.evs(3, "a", `,"x":1,"at":"2026-01-31T09:00:00Z","day":"2026-01-31"`))...)
	types()
	l := w.loader("events").write().commit()
	types()
	l.appendMark()
	types()
	w.send("events", judged("c", w.evs(1, "a", `,"x":0,"at":"2026-01-31T09:00:00Z"`))...)
	types()
}
