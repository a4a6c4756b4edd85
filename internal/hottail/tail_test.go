package hottail

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/lake"
)

func TestTableThatOnlyTheLogKnows(t *testing.T) {
	w := newWorld(t)
	w.send("events", w.evs(3, "a")...)
	list, err := w.tail.List(t.Context())
	require.NoError(t, err)
	require.Empty(t, list)
	list, err = w.tail.Newest(t.Context())
	require.NoError(t, err)
	require.Equal(t, []lake.Ident{id("a")}, list)
	v := w.requireAll(id("a"))[0]
	require.Zero(t, v.SnapshotID)
	require.Empty(t, v.Files)
	_, err = w.tail.Cut(t.Context(), []lake.Ident{id("a"), id("b")})
	require.ErrorIs(t, err, lake.ErrNoTable)
	var which *lake.CutError
	require.ErrorAs(t, err, &which)
	require.Equal(t, id("b"), which.Table)
}

// Snapshots, watermark and log move one after the other; at every step a query
// sees all there is, once.
func TestEveryStepOfACommit(t *testing.T) {
	w := newWorld(t)
	both := []lake.Ident{id("a"), id("b")}
	for round := range 4 {
		w.send("events", append(w.evs(5, "a"), w.evs(3, "b")...)...)
		w.requireAll(both...)
		l := w.loader("events").write()
		w.requireAll(both...)
		w.send("events", w.evs(2, "b")...)
		l.commit()
		w.requireAll(both...)
		w.send("events", w.evs(2, "a")...)
		w.requireAll(both...)
		if round%2 == 0 { // a session that ends before its watermark
			w.lose("events")
		} else {
			l.appendMark()
		}
		w.requireAll(both...)
	}
	w.load("events")
	for _, v := range w.requireAll(both...) {
		require.Nil(t, v.Hot, "all is committed")
	}
	w.tail.rest(time.Now().Add(idle))
	require.Empty(t, w.files())
	require.Zero(t, w.tail.Bytes())
}

func TestPartitionsAndLives(t *testing.T) {
	w := newWorld(t)
	in := func(p int32, e []ev) []ev {
		for i := range e {
			e[i].partition = p
		}
		return e
	}
	w.send("events", append(in(0, w.evs(3, "a")), in(2, w.evs(4, "a"))...)...)
	w.requireAll(id("a"))
	w.load("events")
	w.send("events", append(in(0, w.evs(1, "a")), in(1, w.evs(2, "a"))...)...)
	w.requireAll(id("a"))
	w.log.Cut()
	w.requireAll(id("a"))
	w.send("events", append(in(0, w.evs(2, "a")), in(2, w.evs(2, "b"))...)...)
	w.requireAll(id("a"), id("b"))
	w.log.Cut()
	w.log.Cut()
	w.requireAll(id("a"), id("b"))
	w.send("events", in(2, w.evs(2, "a"))...)
	w.requireAll(id("a"), id("b"))
	w.load("events")
	w.send("events", in(1, w.evs(2, "a"))...)
	w.requireAll(id("a"), id("b"))
}

// A table that is ahead of the log takes no rows until somebody decides: it shows
// none of what it will not have.
func TestTableThatIsRefusedHasNoTail(t *testing.T) {
	w := newWorld(t)
	w.send("events", append(w.evs(3, "a"), w.evs(3, "b")...)...)
	w.load("events")
	w.send("events", append(w.evs(2, "a"), w.evs(2, "b")...)...)
	ends := w.cut(id("a"))[0].Positions
	require.NoError(t, w.lake.Refuse(id("a"), ends))
	views := w.cut(id("a"), id("b"))
	require.Nil(t, views[0].Hot)
	require.NotNil(t, views[1].Hot)
	require.NoError(t, w.lake.Refuse(id("a"), nil))
	w.requireAll(id("a"), id("b"))
}
