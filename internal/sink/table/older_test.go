package table

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/lake/iceberg"
	"naru/internal/sink/sinktest"
	"naru/internal/vfs"
)

// lakeCopy is the lake's folder with its catalog.
type lakeCopy struct {
	fs   *vfs.Memory
	rows *iceberg.MemoryCatalog
}

// copyLake takes what is on disk for sure.
func (w *world) copyLake() lakeCopy {
	return lakeCopy{w.fs.(*vfs.Memory).CrashClone(0), w.rows.Clone()}
}

// putBack replaces the lake and its catalog by the copy.
func (w *world) putBack(c lakeCopy) {
	w.t.Helper()
	require.NoError(w.t, w.lake.Close())
	w.fs, w.rows = c.fs, c.rows
	w.open()
}

// run is a session, after which the log has the watermark.
func (w *world) run(all []sinktest.Spec) (from int64) {
	w.t.Helper()
	mark, _ := w.log.mark.Get(life, 0)
	done, from := w.session(mark, all)
	w.log.mark = event.Positions{life: {0: max(mark, done)}}
	return from
}

// All of the lake is set back to a copy of earlier, with its catalog, while the
// log goes on: what came since is read again, once, from where the copy ends.
func TestOlderLakeIsPutBack(t *testing.T) {
	w := newWorld(t)
	all := append(typed(0, "a", "b", "a", "b"), typed(4, "c", "a", "c", "a", "a", "b")...)
	w.ends(10)
	w.run(all[:4])
	old := w.copyLake()
	require.EqualValues(t, 4, w.run(all[:8]))
	w.putBack(old)
	require.EqualValues(t, 4, w.run(all[:6])) // a crash on the way
	w.restart()
	require.EqualValues(t, 6, w.run(all))
	w.requireIDs(numbers(10))
	w.restart()
	require.EqualValues(t, 10, w.run(all), "nothing is left to be read again")
	w.requireIDs(numbers(10))
}

// The log no longer has all that the copy lacks: its tables stop, at every start.
// Who accepts the gap gets all the rest.
func TestOlderLakeBehindTheLog(t *testing.T) {
	w := newWorld(t)
	all := typed(0, "a", "b", "a", "b", "a", "a", "b", "a", "c")
	w.ends(9)
	w.run(all[:3])
	old := w.copyLake()
	w.run(all[:7])
	w.strange = true // what is to be loaded again stays so
	w.putBack(old)
	w.log.stat.Ranges[0].Start = 5
	for range 2 {
		require.EqualValues(t, 5, w.run(all))
		require.Equal(t, event.Positions{life: {0: 3}}, w.at("a"))
		require.Equal(t, []any{"e8"}, w.column(table("c"), "_id"), "a new table goes on")
		w.restart()
		s := w.sink()
		for _, st := range w.tables.Status()[:2] {
			require.Contains(t, st.Error, ErrOlder.Error())
			require.Contains(t, st.Error, "events 3 to 5")
			require.Contains(t, st.Hint, "lake/"+iceberg.MarksFile)
		}
		require.NoError(t, s.Close())
	}
	require.NoError(t, w.fs.Remove("/data/lake/"+iceberg.MarksFile))
	w.restart()
	w.run(all)
	w.requireIDs(slices.Delete(numbers(9), 3, 5))
	w.restart()
	require.EqualValues(t, 9, w.run(all))
	for _, st := range w.tables.Status() {
		require.Empty(t, st.Error)
	}
	require.Equal(t, []any{"e8"}, w.column(table("c"), "_id"))
}

// The mark is on disk before the sink says what is durable: a power cut after
// that must not let the lake look older than the watermark.
func TestMarkIsDurableBeforeTheWatermark(t *testing.T) {
	w := newWorld(t)
	all := typed(0, "a", "b", "a")
	w.ends(3)
	w.run(all[:1])
	w.run(all)
	for seed := range uint64(4) {
		c := w.copyLake()
		c.fs = w.fs.(*vfs.Memory).CrashClone(seed)
		after := &world{t: t, fs: c.fs, rows: c.rows, cfg: w.cfg, log: w.log}
		after.open()
		require.EqualValues(t, 3, after.run(all))
		require.NoError(t, after.lake.Close())
	}
}
