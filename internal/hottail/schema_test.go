package hottail

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
)

// typeOf is the type that a view gives a column: the hot tail's where it has one.
func typeOf(v *lake.View, name string) string {
	typ := ""
	list := v.Columns
	if v.Hot != nil {
		list = append(append([]lake.Column{}, list...), v.Hot.Columns...)
	}
	for _, c := range list {
		if c.Name == name {
			typ = c.Type
		}
	}
	return typ
}

// A whole number's column becomes double: among rows that are in no file yet, or
// in one that is written anew, or in files that are finished.
func TestPromotionOfWhatIsNotCommitted(t *testing.T) {
	for _, rows := range []int{1, sealing + 1} {
		for _, committed := range []bool{false, true} {
			t.Run(fmt.Sprint(rows, committed), func(t *testing.T) {
				w := newWorld(t)
				if committed {
					w.send("events", w.evs(2, "a", `,"x":1`)...)
					w.load("events")
				}
				w.send("events", w.big(rows, "a", `,"x":7`)...)
				v := w.requireAll(id("a"))[0]
				require.Equal(t, "long", typeOf(v, "x"))
				w.send("events", w.evs(2, "a", `,"x":2.5,"late":"yes"`)...)
				w.requireSum(id("a"), "x", 7*float64(rows)+5+2*count(committed))
				w.send("events", w.big(rows, "a", `,"x":7`)...)
				w.requireSum(id("a"), "x", 14*float64(rows)+5+2*count(committed))
				l := w.loader("events").write().commit()
				w.requireSum(id("a"), "x", 14*float64(rows)+5+2*count(committed))
				w.send("events", w.evs(1, "a", `,"x":0.5`)...)
				l.appendMark()
				v = w.requireSum(id("a"), "x", 14*float64(rows)+5.5+2*count(committed))
				require.Equal(t, "double", typeOf(v, "x"))
			})
		}
	}
}

// The same while one query reads it all: the column did not exist when it began.
func TestPromotionWithinOneQuery(t *testing.T) {
	w := newWorld(t)
	for _, x := range []string{`,"x":1`, `,"x":2.5`, `,"y":1`, `,"y":2.5`, `,"x":3`} {
		w.send("events", w.big(sealing, "a", x)...)
	}
	w.requireSum(id("a"), "x", sealing*6.5)
	w.requireSum(id("a"), "y", sealing*3.5)
	require.Len(t, w.files(), 5)
	require.Equal(t, int64(2*5*sealing), w.tail.Counts().Rows.Load(), "read twice")
}

func count(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// requireSum is requireAll with the sum of a column.
func (w *world) requireSum(table lake.Ident, name string, want float64) *lake.View {
	w.t.Helper()
	v := w.requireAll(table)[0]
	views, err := w.tail.Cut(w.t.Context(), []lake.Ident{table})
	require.NoError(w.t, err)
	defer letGo(views)
	sum := 0.0
	for _, rows := range w.read(views[0]) {
		for _, r := range rows {
			if x := r[name]; x.Field.Kind == columnar.Long {
				sum += float64(x.Long)
			} else {
				sum += x.Double
			}
		}
	}
	require.InDelta(w.t, want, sum, 1e-6, "sum of %s", name)
	return v
}

// A query whose snapshot is older than that of the one before.
func TestOlderViewThanTheLastQuery(t *testing.T) {
	w := newWorld(t)
	w.send("events", w.evs(3, "a", `,"x":1`)...)
	w.load("events")
	w.send("events", w.evs(3, "a", `,"x":1,"y":"new"`)...)
	l := w.loader("events").write()
	var newer []*lake.View
	again := func() { // between the snapshots and the end of the log
		w.view.onStat = nil
		l.commit()
		w.send("events", w.evs(2, "a", `,"x":2,"z":true`)...)
		var err error
		newer, err = w.tail.Cut(t.Context(), []lake.Ident{id("a")})
		require.NoError(t, err)
	}
	w.view.onStat = again
	older := w.requireAll(id("a"))
	w.requireRows(newer[0], func(s spot) bool { return true })
	require.NotEqual(t, older[0].SnapshotID, newer[0].SnapshotID)
	letGo(newer)
	w.requireAll(id("a"))
	l.appendMark()
	w.requireAll(id("a"))
}

// What is committed is let go, and the rest is kept and not read again.
func TestTrim(t *testing.T) {
	w := newWorld(t)
	const files = 3
	for range files {
		w.send("events", w.big(sealing, "a")...)
	}
	w.send("events", w.evs(5, "a")...)
	w.requireAll(id("a"))
	require.Len(t, w.files(), files+1)
	rows := w.tail.Counts().Rows.Load()
	// The loader gets as far as into the second file.
	l := w.loader("events")
	st, err := w.log.Stat(t.Context(), "events")
	require.NoError(t, err)
	b, err := w.log.Read(t.Context(), "events", event.Position{Incarnation: st.Incarnation}, 1)
	require.NoError(t, err)
	require.NoError(t, l.sink.Write(t.Context(), b))
	l.at.Advance(b.End())
	b, err = w.log.Read(t.Context(), "events", b.End(), 1)
	require.NoError(t, err)
	require.NoError(t, l.sink.Write(t.Context(), b))
	l.at.Advance(b.End())
	l.commit()
	w.requireAll(id("a"))
	require.Len(t, w.files(), files-2+1)
	w.send("events", w.evs(5, "a")...)
	w.requireAll(id("a"))
	require.Equal(t, rows+5, w.tail.Counts().Rows.Load(), "read again")
	w.load("events")
	w.send("events", w.evs(1, "a")...)
	w.requireAll(id("a"))
	require.Len(t, w.files(), 1)
	require.Equal(t, rows+6, w.tail.Counts().Rows.Load(), "read again")
	// Ahead over what nobody asked for.
	w.send("events", w.evs(50, "a")...)
	w.load("events")
	w.send("events", w.evs(1, "a")...)
	w.requireAll(id("a"))
	require.Equal(t, rows+7, w.tail.Counts().Rows.Load(), "what is committed was read")
}

// Another engine renames and drops columns: the hot tail's rows follow.
func TestColumnsRenamedAndDroppedByAnother(t *testing.T) {
	w := newWorld(t)
	w.send("events", w.evs(2, "a", `,"x":1,"y":1`)...)
	w.load("events")
	w.send("events", w.evs(2, "a", `,"x":2,"y":2`)...)
	w.requireAll(id("a"))
	w.columns(id("a"), func(fields []any) (out []any) {
		for _, f := range fields {
			f := f.(map[string]any)
			if f["name"] == "y" {
				continue
			}
			if f["name"] == "x" {
				f = map[string]any{"id": f["id"], "name": "price", "required": false, "type": f["type"]}
			}
			out = append(out, f)
		}
		return out
	})
	v := w.requireSum(id("a"), "price", 6)
	require.Empty(t, typeOf(v, "x"))
	require.Empty(t, typeOf(v, "y"))
	w.send("events", w.evs(1, "a", `,"x":2.5,"y":2,"w":3`)...)
	v = w.requireSum(id("a"), "price", 8.5)
	require.Empty(t, typeOf(v, "y"))
	require.Equal(t, "long", typeOf(v, "w"))
	w.lose("events") // the loader begins anew with the other columns, too
	w.load("events")
	w.requireSum(id("a"), "price", 8.5)
}

// A column that naru cannot write makes the table read-only to it: queries see
// what is committed.
func TestTableThatNaruCannotWriteTo(t *testing.T) {
	w := newWorld(t)
	w.send("events", append(w.evs(2, "a"), w.evs(1, "b")...)...)
	w.load("events")
	w.change(id("a"), func(meta map[string]any) { delete(meta["properties"].(map[string]any), "naru.columns") })
	w.send("events", append(w.evs(2, "a"), w.evs(1, "b")...)...)
	views := w.cut(id("a"), id("b"))
	w.requireRows(views[1], func(s spot) bool { return w.types["events"][s] == "b" })
	require.GreaterOrEqual(t, len(w.read(views[0])), 2)
}

// A table is dropped while rows are not committed: those behind the watermark
// are there, the others when the loader has read them again.
func TestTableIsDropped(t *testing.T) {
	w := newWorld(t)
	w.send("events", w.evs(2, "a", `,"x":1`)...)
	w.load("events")
	w.send("events", w.evs(3, "a", `,"x":1`)...)
	w.requireAll(id("a"))
	require.NoError(t, w.rows.Drop(t.Context(), id("a")))
	v := w.cut(id("a"))[0]
	require.Zero(t, v.SnapshotID)
	w.requireRows(v, func(s spot) bool { return s.offset >= 2 })
	list, err := w.tail.Newest(t.Context())
	require.NoError(t, err)
	require.Equal(t, []lake.Ident{id("a")}, list)
	w.send("events", w.evs(1, "a", `,"x":1`)...)
	w.requireRows(w.cut(id("a"))[0], func(s spot) bool { return s.offset >= 2 })
	w.lose("events")
	w.load("events")
	w.requireRows(w.cut(id("a"))[0], func(s spot) bool { return s.offset >= 2 })
}

func TestRejected(t *testing.T) {
	w := newWorld(t)
	rejected := lake.Ident{Namespace: event.RejectedStream, Name: event.RejectedStream}
	w.send("rejected", w.evs(3, "a")...)
	list, err := w.tail.Newest(t.Context())
	require.NoError(t, err)
	require.Equal(t, []lake.Ident{rejected}, list)
	w.requireAll(rejected)
	w.load("rejected")
	w.send("rejected", w.evs(2, "b")...)
	w.requireAll(rejected)
	w.send("events", w.evs(2, "rejected")...)
	w.requireAll(rejected, id("type_rejected"))
}

// Streams have nothing to do with each other but the cut.
func TestTwoStreamsInOneCut(t *testing.T) {
	w := newWorld(t)
	orders := lake.Ident{Namespace: "orders", Name: "a"}
	w.send("events", w.evs(3, "a")...)
	w.send("orders", w.evs(3, "a")...)
	w.load("orders")
	w.send("orders", w.evs(1, "a")...)
	w.requireAll(id("a"), orders)
}
