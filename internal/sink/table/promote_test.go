package table

import (
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/quantity"
	"naru/internal/sink/sinktest"
)

func prices(from int, values ...string) (out []sinktest.Spec) {
	for i, v := range values {
		out = append(out, sinktest.Spec{ID: numbers(from + i + 1)[from+i], Type: "sale", Data: `{"price":` + v + `}`})
	}
	return out
}

// The first fraction makes the column double under a new field id, and the old
// files are rewritten in the same commit.
func TestPromotionRewritesInOneCommit(t *testing.T) {
	w := newWorld(t)
	w.fill(prices(0, "1", "2"), prices(2, "3"))
	before, err := w.lake.Info(t.Context(), table("sale"))
	require.NoError(t, err)
	s := w.sink()
	b := sinktest.Batch(life, 0, 3, prices(3, "4", "5.5", "9007199254740993")...)
	require.NoError(t, s.Write(t.Context(), b))
	_, err = s.Commit(t.Context())
	require.NoError(t, err)

	after, err := w.lake.Info(t.Context(), table("sale"))
	require.NoError(t, err)
	require.EqualValues(t, 6, after.Rows)
	require.Equal(t, 3, after.Files)
	require.ElementsMatch(t, []any{1.0, 2.0, 3.0, 4.0, 5.5, nil}, w.column(table("sale"), "price"))
	require.Contains(t, w.column(table("sale"), "_rescued"), any(`{"price":9007199254740993}`))
	v, err := w.lake.View(t.Context(), table("sale"))
	require.NoError(t, err)
	for _, f := range v.Files {
		require.Contains(t, f.Path, "/data/_time_day=2015-09-12/")
	}
	v.Release()
	was, is := before.Columns[len(before.Columns)-1], after.Columns[len(after.Columns)-1]
	require.Equal(t, "long", was.Type)
	require.Equal(t, "double", is.Type)
	require.Equal(t, was.Name, is.Name)
	require.NotEqual(t, was.FieldID, is.FieldID)
	require.Len(t, after.Columns, len(before.Columns))

	// A reader of the old snapshot still finds its files; the next rows go on.
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, b.Next, prices(6, "7")...)))
	_, err = s.Commit(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Close())
	w.restart()
	w.requireIDs(numbers(7))
	require.Len(t, w.column(table("sale"), "price"), 7)
	n, err := w.lake.CollectOrphans(t.Context())
	require.NoError(t, err)
	require.Zero(t, n, "the old files belong to older snapshots")
}

// Beyond the limit the column stays as it is, and the fraction goes to _rescued.
func TestPromotionOfLargeTableIsRefused(t *testing.T) {
	w := newWorld(t)
	w.fill(prices(0, "1", "2"))
	w.cfg.PromoteLimit = quantity.Bytes(1)
	w.restart()
	s := w.sink()
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 2, prices(2, "3.5")...)))
	_, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, w.tables.Status()[0].Unpromoted)
	require.NoError(t, s.Close())
	require.ElementsMatch(t, []any{int64(1), int64(2), nil}, w.column(table("sale"), "price"))
	require.Contains(t, w.column(table("sale"), "_rescued"), any(`{"price":3.5}`))
	info, err := w.lake.Info(t.Context(), table("sale"))
	require.NoError(t, err)
	require.Equal(t, "price", info.Rescued[0].Path)
	require.EqualValues(t, 1, info.Rescued[0].Count)
}

// After a promotion and the expiry of the old snapshots the old files go, and
// only they.
func TestOldFilesOfPromotionGoWithTheirSnapshots(t *testing.T) {
	w := newWorld(t)
	w.cfg.ExpireEvery, w.cfg.KeepSnapshots = 2, 2
	w.restart()
	s := w.sink()
	off := int64(0)
	put := func(v string) {
		b := sinktest.Batch(life, 0, off, prices(int(off), v)...)
		off = b.Next
		require.NoError(t, s.Write(t.Context(), b))
		_, err := s.(*Sink).Drain(t.Context())
		require.NoError(t, err)
	}
	put("1")
	old, err := w.lake.View(t.Context(), table("sale"))
	require.NoError(t, err)
	put("1.5")
	for range 6 {
		put("2")
	}
	w.lake.CollectGarbage()
	_, err = w.fs.Stat(old.Files[0].Path)
	require.NoError(t, err, "removed under a lease")
	old.Release()
	w.lake.CollectGarbage()
	_, err = w.fs.Stat(old.Files[0].Path)
	require.Error(t, err)
	require.NoError(t, s.Close())
	w.restart()
	w.requireIDs(numbers(8))
	n, err := w.lake.CollectOrphans(t.Context())
	require.NoError(t, err)
	require.Zero(t, n)
}

// A snapshot that a roll-back has left beside main is kept for some days, so
// that the roll-back can be undone: with all files that it has.
func TestRolledBackSnapshotKeepsItsFiles(t *testing.T) {
	w := newWorld(t)
	w.cfg.ExpireEvery, w.cfg.KeepSnapshots = 2, 2
	w.restart()
	w.fill(prices(0, "1"), prices(1, "2"))
	beside, err := w.lake.View(t.Context(), table("sale"))
	require.NoError(t, err)
	beside.Release()
	w.rollBack("sale", 1)
	w.restart()
	s := w.sink()
	for off, v := range []string{"", "1.5", "2", "3", "4", "5", "6"} {
		if v == "" {
			continue
		}
		require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, int64(off), prices(off, v)...)))
		_, err := s.(*Sink).Drain(t.Context())
		require.NoError(t, err)
	}
	w.lake.CollectGarbage()
	for _, f := range beside.Files {
		_, err := w.fs.Stat(f.Path)
		require.NoError(t, err)
	}
	require.NoError(t, s.Close())
	w.requireIDs(numbers(7))
}
