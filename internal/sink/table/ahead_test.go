package table

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake/iceberg"
	"naru/internal/sink/sinktest"
	"naru/internal/stream"
)

// An older copy of the log is brought back, and new events get offsets that the
// table covers. The table stays refused when the log has grown past it, also
// after a restart: it would take the new events for those that it has.
func TestTableAheadStaysRefusedWhileTheLogGrows(t *testing.T) {
	w := newWorld(t)
	w.fill(typed(0, "a", "b", "a", "a", "a", "a")) // a and b stand at 6
	w.log.stat.Ranges[0].End = 3
	s := w.sink()
	w.log.stat.Ranges[0].End = 9 // new events 3 to 8
	fresh := sinktest.Batch(life, 0, 3, typed(100, "c", "a", "c", "a", "c", "a")...)
	require.NoError(t, s.Write(t.Context(), fresh))
	done, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Positions{life: {0: 4}}, done, "the first event that the table does not take")
	w.tables.now = func() time.Time { return time.Now().Add(time.Hour) }
	_, err = s.Commit(t.Context())
	require.NoError(t, err, "looked at again, the table is still ahead of what the log had")
	require.NoError(t, s.Close())

	w.restart()
	s = w.sink()
	require.NoError(t, s.Write(t.Context(), fresh))
	done, err = s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Positions{life: {0: 4}}, done)
	require.Contains(t, w.tables.Status()[0].Error, ErrAhead.Error())
	require.Contains(t, w.tables.Status()[0].Hint, iceberg.RefusedFile)

	// The table is dropped: it takes all that the log has.
	require.NoError(t, w.rows.Drop(t.Context(), table("a")))
	w.tables.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	_, err = s.Commit(t.Context())
	require.True(t, fault.IsTransient(err), "%v", err)
	require.NoError(t, s.Close())
	w.restart()
	s = w.sink()
	require.NoError(t, s.Write(t.Context(), fresh))
	done, err = s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Positions{life: {0: 9}}, done)
	require.NoError(t, s.Close())
	require.Equal(t, []any{"e101", "e103", "e105"}, w.column(table("a"), "_id"))
}

// What is appended before the tables are looked at does not hide that they are
// ahead: the log's end when it was opened counts, once.
func TestTableAheadIsSeenAlthoughTheLogGrew(t *testing.T) {
	w := newWorld(t)
	w.fill(typed(0, "a", "b", "a", "a", "a", "a")) // a and b stand at 6
	w.restart()
	w.log.stat.Ranges[0].End = 3
	require.NoError(t, w.tables.Begin(t.Context(), []string{"events"}))
	w.log.stat.Ranges = slices.Clone(w.log.stat.Ranges)
	w.log.stat.Ranges[0].End = 9 // new events 3 to 8
	require.NoError(t, w.sink().Close())
	for _, id := range []string{"a", "b"} {
		refused, err := w.lake.Refusal(table(id))
		require.NoError(t, err)
		require.Equal(t, event.Positions{life: {0: 3}}, refused, id)
	}

	// Without a fault, a sink that is opened again has what came since.
	w = newWorld(t)
	w.log.stat.Ranges[0].End = 0
	require.NoError(t, w.tables.Begin(t.Context(), []string{"events"}))
	w.log.stat.Ranges = slices.Clone(w.log.stat.Ranges)
	w.log.stat.Ranges[0].End = 9
	w.fill(typed(0, "a", "b"))
	require.NoError(t, w.sink().Close())
	for _, st := range w.tables.Status() {
		require.Empty(t, st.Error)
	}
}

// The right log is brought back: the operator says so by removing the file.
func TestRefusalIsTakenBackByHand(t *testing.T) {
	w := newWorld(t)
	w.fill(typed(0, "a", "b", "a"))
	w.log.stat.Ranges[0].End = 1
	require.NoError(t, w.sink().Close())
	w.log.stat.Ranges[0].End = 9
	require.NoError(t, w.fs.Remove("/data/lake/"+iceberg.RefusedFile))
	w.restart()
	s := w.sink()
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 3, typed(3, "a")...)))
	done, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Positions{life: {0: 4}}, done)
	require.NoError(t, s.Close())
	w.requireIDs(numbers(4))
}

// The log's life is closed, as in a backup: a table that was refused before stays
// so, one that nobody refused is only cut there.
func TestRefusalHoldsForAClosedLife(t *testing.T) {
	w := newWorld(t)
	w.fill(typed(0, "a", "b", "a", "b"))
	require.NoError(t, w.lake.Refuse(table("a"), event.Positions{life: {0: 2}}))
	next := event.Incarnation{9}
	w.log.stat.Incarnation = next
	w.log.stat.Ranges[0].End = 6
	w.log.stat.Ranges = append(w.log.stat.Ranges, stream.Range{Incarnation: next, Start: 6, End: 6})
	w.restart()
	s := w.sink()
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 4, typed(4, "a", "b")...)))
	done, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Positions{life: {0: 4}}, done, "the first event that the refused table does not take")
	require.NoError(t, s.Close())
	for _, st := range w.tables.Status() {
		require.Equal(t, st.Table == table("a"), st.Error != "", "%+v", st)
	}
}
