package table

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/lake/iceberg"
	"naru/internal/sink/sinktest"
	"naru/internal/stream"
	"naru/internal/vfs"
)

// session does what the pipeline does with a sink: reads all from the watermark
// or from where the sink asks for it, and commits.
func (w *world) session(watermark int64, all []sinktest.Spec) (done, from int64) {
	w.t.Helper()
	s := w.sink()
	resume, err := s.(*Sink).Resume(w.t.Context(), sinktest.Stream)
	require.NoError(w.t, err)
	from = watermark
	if off, ok := resume.Get(life, 0); ok && off < watermark {
		from = off
	}
	if from < int64(len(all)) {
		require.NoError(w.t, s.Write(w.t.Context(), sinktest.Batch(life, 0, from, all[from:]...)))
	}
	at, err := s.(*Sink).Drain(w.t.Context())
	require.NoError(w.t, err)
	require.NoError(w.t, s.Close())
	off, ok := at.Get(life, 0)
	if !ok {
		off = watermark
	}
	return off, from
}

func (w *world) ends(n int) { w.log.stat.Ranges[0].End = int64(n) }

// Somebody sets the catalog's row back to an older metadata file: that takes the
// property back with it, and only the newer files tell of it.
func TestRowSetBackIsNoticed(t *testing.T) {
	for _, how := range []string{"stopped", "running", "running, newer files removed"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t)
			all := append(append(typed(0, "a", "b"), typed(2, "b", "a")...), typed(4, "a", "b")...)
			w.ends(6)
			w.fill(all[:2])
			old, err := w.rows.Location(t.Context(), table("a"))
			require.NoError(t, err)
			for at := 2; at < 6; at += 2 {
				s := w.sink()
				require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, int64(at), all[at:at+2]...)))
				_, err = s.(*Sink).Drain(t.Context())
				require.NoError(t, err)
				require.NoError(t, s.Close())
			}
			now, err := w.rows.Location(t.Context(), table("a"))
			require.NoError(t, err)
			require.NoError(t, w.rows.Swap(t.Context(), table("a"), now, old))
			switch how {
			case "stopped":
				w.restart()
			case "running, newer files removed":
				require.NoError(t, w.fs.Remove(strings.TrimPrefix(now, "file://")))
			}
			// What is still needed to know of it is not collected.
			_, err = w.lake.CollectOrphans(t.Context())
			require.NoError(t, err)
			w.lake.CollectGarbage()
			done, _ := w.session(6, all)
			require.EqualValues(t, 6, done)
			w.requireIDs(numbers(6))
			w.restart()
			_, from := w.session(6, all)
			require.EqualValues(t, 6, from, "nothing is left to be read again")
			w.requireIDs(numbers(6))
		})
	}
}

// The row is set back, and a crash comes when a part is loaded again.
func TestRowSetBackAndACrashOnTheWay(t *testing.T) {
	w := newWorld(t)
	all := typed(0, "a", "b", "b", "a", "b", "a", "b", "b")
	w.ends(8)
	w.fill(all[:2])
	old, err := w.rows.Location(t.Context(), table("a"))
	require.NoError(t, err)
	w.session(2, all)
	now, err := w.rows.Location(t.Context(), table("a"))
	require.NoError(t, err)
	require.NoError(t, w.rows.Swap(t.Context(), table("a"), now, old))
	w.restart()
	w.session(8, all[:5]) // so far, then the crash
	w.restart()
	_, from := w.session(8, all)
	require.LessOrEqual(t, from, int64(5))
	w.requireIDs(numbers(8))
}

// A table that was rolled back and has no row at the end of what it had covered
// must not be read for again at every start, and stopped once the log has
// dropped that part.
func TestRolledBackTableCatchesUpWithoutRows(t *testing.T) {
	w := newWorld(t)
	all := append(typed(0, "a", "b"), typed(2, "a", "b", "b", "b")...)
	w.ends(6)
	w.fill(all[:2], all[2:])
	require.Equal(t, event.Positions{life: {0: 6}}, w.at("a"))
	w.rollBack("a", 1)
	w.session(6, all[:4]) // the crash comes before the end
	w.restart()
	_, from := w.session(6, all)
	require.EqualValues(t, 4, from)
	w.log.stat.Ranges[0].Start = 6 // retention
	w.restart()
	s := w.sink()
	for _, st := range w.tables.Status() {
		require.Empty(t, st.Error)
	}
	require.NoError(t, s.Close())
	_, from = w.session(6, all)
	require.EqualValues(t, 6, from)
	w.requireIDs(numbers(6))
}

// A crash between a metadata file and its row, of a table that had been idle
// since before what the log still has: nothing is missing, and the table is not
// taken for one that was rolled back.
func TestCrashOfAnIdleTablesCommitIsNoRollBack(t *testing.T) {
	w := newWorld(t)
	all := append(typed(0, "a", "b", "b", "b"), typed(4, "a", "b")...)
	w.ends(6)
	w.fill(all[:1])
	w.session(1, all[:4]) // b alone: a stays at 1
	row, err := w.rows.Location(t.Context(), table("a"))
	require.NoError(t, err)
	w.session(4, all[:5])
	next, err := w.rows.Location(t.Context(), table("a"))
	require.NoError(t, err)
	require.NoError(t, w.rows.Swap(t.Context(), table("a"), next, row)) // as if it had not come that far
	w.log.stat.Ranges[0].Start = 3
	w.restart()
	s := w.sink()
	for _, st := range w.tables.Status() {
		require.Empty(t, st.Error)
	}
	require.NoError(t, s.Close())
	done, from := w.session(4, all)
	require.EqualValues(t, 4, from)
	require.EqualValues(t, 6, done)
	w.requireIDs(numbers(6))
}

// The lake was removed and the log stays: its watermark is of the other lake.
func TestNewLakeIsLoadedFromTheStart(t *testing.T) {
	w := newWorld(t)
	all := typed(0, "a", "b", "a", "c", "b", "a")
	w.ends(6)
	w.fill(all)
	require.NoError(t, w.lake.Close())
	w.fs, w.rows, w.strange = vfs.NewMemory(), iceberg.NewMemoryCatalog(), true
	w.open()
	_, from := w.session(6, all[:4]) // a crash on the way, with c not yet made
	require.Zero(t, from)
	w.restart()
	_, from = w.session(6, all)
	require.Zero(t, from)
	w.requireIDs(numbers(6))
	w.restart()
	_, from = w.session(6, all)
	require.EqualValues(t, 6, from)

	// Of what retention drops meanwhile nobody waits.
	require.NoError(t, w.lake.ReloadStream(sinktest.Stream))
	w.log.stat.Ranges = []stream.Range{{Incarnation: life, Start: 6, End: 6}}
	w.restart()
	_, from = w.session(6, all)
	require.EqualValues(t, 6, from)
}

// The cure of a table that is ahead of the log, followed: the older log comes
// with an older watermark, behind which it has events of the table too.
func TestTableAheadIsDroppedAndLoadedAnew(t *testing.T) {
	for _, cure := range []string{"dropped by another engine", "naru table reload"} {
		t.Run(cure, func(t *testing.T) {
			w := newWorld(t)
			w.cfg.MaxTables = 2
			w.restart()
			all := typed(0, "a", "b", "c", "a", "b", "a", "c", "a")
			w.ends(8)
			w.fill(all) // c in _other
			w.ends(6)   // an older copy of the log, its watermark at 5
			s := w.sink()
			require.Contains(t, w.tables.Status()[1].Error, ErrAhead.Error())
			require.Contains(t, w.tables.Status()[1].Hint, "naru table reload events.a")
			require.NoError(t, s.Close())
			if cure == "naru table reload" {
				for _, name := range []string{"a", "b", lake.OtherTable} {
					require.NoError(t, w.lake.ReloadTable(t.Context(), table(name)))
				}
			} else {
				for _, name := range []string{"a", "b", lake.OtherTable} {
					require.NoError(t, w.rows.Drop(t.Context(), table(name)))
				}
			}
			w.restart()
			_, from := w.session(5, all[:6])
			require.Zero(t, from)
			w.requireIDs(numbers(6))
			require.Equal(t, []any{"e2"}, w.column(table(lake.OtherTable), "_id"))
			w.restart()
			_, from = w.session(6, all[:6])
			require.EqualValues(t, 6, from)
		})
	}
}

// One table of several is loaded anew beside _other, which has not its rows.
func TestReloadedTableBesideOther(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxTables = 1
	w.restart()
	all := typed(0, "a", "b", "a", "c", "a")
	w.ends(5)
	w.fill(all)
	require.NoError(t, w.lake.ReloadTable(t.Context(), table("a")))
	w.restart()
	w.session(5, all)
	w.requireIDs(numbers(5))
	require.Equal(t, []any{"e0", "e2", "e4"}, w.column(table("a"), "_id"))
}

// A table is dropped, and _other has got beyond the watermark: rows in between
// must not be taken for rows of _other.
func TestDroppedTableBehindOther(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxTables = 2
	w.restart()
	all := typed(0, "a", "b", "a", "b", "a")
	w.ends(5)
	w.fill(all[:1])
	// Another claim, after which the file of claims names the first no more.
	_, _, err := w.lake.Claim(t.Context(), table("c"), nil)
	require.NoError(t, err)
	w.session(1, all)
	require.NoError(t, w.rows.Drop(t.Context(), table("a")))
	w.restart()
	w.session(2, all) // the watermark was held back at 2
	require.Equal(t, []any{"e2", "e4"}, w.column(table("a"), "_id"), "from the first event that is read")
	require.Equal(t, []any{"e1", "e3"}, w.column(table(lake.OtherTable), "_id"))
}

// A data file is lost, or its bytes are wrong, and the log still has the events:
// the table is loaded anew.
func TestLostDataFileIsLoadedAgain(t *testing.T) {
	w := newWorld(t)
	all := typed(0, "a", "b", "a", "a", "b", "a")
	w.ends(6)
	w.fill(all[:3], all[3:])
	v, err := w.lake.View(t.Context(), table("a"))
	require.NoError(t, err)
	lost := v.Files[0].Path
	v.Release()
	require.NoError(t, w.fs.Remove(lost))
	var bad []iceberg.CheckedFile
	require.NoError(t, w.lake.Check(t.Context(), iceberg.CheckOptions{}, func(f iceberg.CheckedFile) error {
		if f.Bad() {
			bad = append(bad, f)
		}
		return nil
	}))
	require.Len(t, bad, 1)
	require.Equal(t, lost, bad[0].Path)
	require.Contains(t, bad[0].Cure, "naru table reload events.a")
	require.NoError(t, w.lake.ReloadTable(t.Context(), table("a")))
	w.restart()
	w.session(6, all)
	w.requireIDs(numbers(6))
	require.True(t, slices.IsSortedFunc(w.tables.Status(), func(a, b Status) int { return strings.Compare(a.Table.Name, b.Table.Name) }))
	_, err = w.fs.Stat(filepath.Dir(lost))
	require.NoError(t, err, "the old files stay")
}

// A stopped table that is loaded anew beside a running sink: the session begins
// again, and others go on.
func TestDroppedWhileRunning(t *testing.T) {
	w := newWorld(t)
	all := typed(0, "a", "b", "a", "b")
	w.ends(4)
	w.fill(all)
	w.ends(3)
	s := w.sink()
	w.ends(4)
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 3, typed(3, "b")...)))
	require.NoError(t, w.rows.Drop(t.Context(), table("a")))
	require.NoError(t, w.rows.Drop(t.Context(), table("b")))
	w.tables.now = func() time.Time { return time.Now().Add(time.Hour) }
	_, err := s.Commit(t.Context())
	require.True(t, fault.IsTransient(err), "%v", err)
	require.NoError(t, s.Close())
	done, from := w.session(2, all)
	require.Zero(t, from)
	require.EqualValues(t, 4, done)
	w.requireIDs(numbers(4))
}
