package iceberg

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/lake"
)

var (
	shadow = lake.Ident{Namespace: "events", Name: "page_view__backfill"}
	former = lake.Ident{Namespace: "events", Name: "page_view__old"}
)

func TestCatalogsReplace(t *testing.T) {
	file, err := OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "catalog.db"))
	require.NoError(t, err)
	defer file.Close()
	for name, c := range map[string]Catalog{"memory": NewMemoryCatalog(), "sqlite": file} {
		ctx := t.Context()
		at := func(want map[lake.Ident]string) {
			t.Helper()
			list, err := c.List(ctx)
			require.NoError(t, err)
			got := map[lake.Ident]string{}
			for _, id := range list {
				got[id], err = c.Location(ctx, id)
				require.NoError(t, err)
			}
			require.Equal(t, want, got, name)
		}
		require.ErrorIs(t, c.Replace(ctx, views, shadow, former), ErrConflict, name)
		require.NoError(t, c.Swap(ctx, shadow, "", "/s1"))
		require.NoError(t, c.Replace(ctx, views, shadow, former), name)
		at(map[lake.Ident]string{views: "/s1"})
		require.ErrorIs(t, c.Replace(ctx, views, shadow, former), ErrConflict, name)
		at(map[lake.Ident]string{views: "/s1"})
		require.NoError(t, c.Swap(ctx, shadow, "", "/s2"))
		require.NoError(t, c.Replace(ctx, views, shadow, former), name)
		at(map[lake.Ident]string{views: "/s2", former: "/s1"})
		require.NoError(t, c.Swap(ctx, views, "/s2", "/s3"), "it goes on as the table")
		// Not while the old one is there: nothing is overwritten.
		require.NoError(t, c.Swap(ctx, shadow, "", "/s4"))
		require.ErrorIs(t, c.Replace(ctx, views, shadow, former), ErrConflict, name)
		at(map[lake.Ident]string{views: "/s3", former: "/s1", shadow: "/s4"})
	}
}

// lostAnswer replaces, or does not, and says neither.
type lostAnswer struct {
	Catalog
	before, after int // so many times
}

func (c *lostAnswer) Replace(ctx context.Context, t, by, old lake.Ident) error {
	if c.before > 0 {
		c.before--
		return errors.New("no answer")
	}
	err := c.Catalog.Replace(ctx, t, by, old)
	if err == nil && c.after > 0 {
		c.after--
		return errors.New("no answer")
	}
	return err
}

func TestReplace(t *testing.T) {
	for _, c := range []*lostAnswer{{}, {before: 1}, {after: 1}, {before: 2, after: 1}} {
		w := newWorld(t)
		c.Catalog = w.cat.Catalog
		w.cat.Catalog = c
		w.add(3)
		one := load(t, w.lake.Table(views))
		require.NoError(t, w.lake.Begin(t.Context(), shadow, Beginning{From: views, Positions: at(1), Schema: one.Schema, Stream: "others"}))
		require.NoError(t, w.lake.Begin(t.Context(), shadow, Beginning{From: views, Positions: at(2), Schema: one.Schema}), "it is there")
		next := load(t, w.lake.Table(shadow))
		require.Equal(t, at(1), next.Positions)
		_, err := w.lake.Table(shadow).Commit(t.Context(), work(t, w.lake.Table(shadow), next, 5, 9))
		require.NoError(t, err)

		old := w.view() // a reader that began before
		require.NoError(t, w.lake.Replace(t.Context(), views, shadow, former))
		require.NoError(t, w.lake.Replace(t.Context(), views, shadow, former), "done already")
		v := w.view()
		require.EqualValues(t, 5, v.Rows)
		v.Release()
		require.Equal(t, at(9), load(t, w.lake.Table(views)).Positions)

		// A writer that has not noticed changes nothing.
		_, err = w.lake.Table(views).Commit(t.Context(), Commit{Base: one, Schema: one.Schema, Positions: at(40)})
		var moved *MovedError
		require.ErrorAs(t, err, &moved)

		// The old one goes when nobody reads it any more.
		require.NoError(t, w.lake.Discard(t.Context(), former))
		require.NoError(t, w.lake.Discard(t.Context(), former))
		w.lake.CollectGarbage()
		require.True(t, w.exists(old.Files[0].Path), "removed under a lease")
		old.Release()
		w.lake.CollectGarbage()
		for _, f := range old.Files {
			require.False(t, w.exists(f.Path))
		}
		require.Empty(t, w.lake.ownFiles(w.lake.tableFolder(views)), "also of its metadata nothing stays")
		w.requireRows(5, 1)
	}
}

// A crash comes before the files of a dropped table are removed: the next start does it,
// and touches no other table.
func TestDiscardOutlivesACrash(t *testing.T) {
	w := newWorld(t)
	w.add(3)
	one := load(t, w.lake.Table(views))
	require.NoError(t, w.lake.Begin(t.Context(), shadow, Beginning{Positions: at(9), Schema: one.Schema}))
	require.NoError(t, w.lake.Replace(t.Context(), views, shadow, former))
	require.NoError(t, w.lake.Discard(t.Context(), former))
	w.kill()
	w.fs = w.fs.CrashClone(1)
	w.open()
	folder := w.lake.tableFolder(views)
	require.NotEmpty(t, w.lake.ownFiles(folder))
	_, err := w.lake.CollectOrphans(t.Context())
	require.NoError(t, err)
	w.lake.CollectGarbage()
	require.Empty(t, w.lake.ownFiles(folder))
	require.NotEmpty(t, w.lake.ownFiles(w.lake.tableFolder(shadow)), "the table's own folder")
	w.requireRows(0, 0)

	// The folder is free again, and what lies in it next is not touched.
	require.NoError(t, w.lake.Begin(t.Context(), former, Beginning{Positions: at(9), Schema: one.Schema}))
	w.kill()
	w.open()
	_, err = w.lake.CollectOrphans(t.Context())
	require.NoError(t, err)
	w.lake.CollectGarbage()
	require.True(t, load(t, w.lake.Table(views)).Exists)
	require.True(t, load(t, w.lake.Table(former)).Exists)
}

// A table knows how many rows naru has committed, if it ever knew all of them.
func TestRowsAreCounted(t *testing.T) {
	w := newWorld(t)
	h := w.lake.Table(shadow)
	counted := func() *lake.Tally {
		t.Helper()
		a, err := w.lake.Audit(t.Context(), shadow)
		require.NoError(t, err)
		a.Release()
		return a.Committed
	}
	commit := func(next int64, rows *lake.Tally) {
		t.Helper()
		s := load(t, h)
		c := work(t, h, s, 1, next)
		c.Rows = rows
		if next == 0 {
			c.Files, c.Positions = nil, s.Positions
		}
		_, err := h.Commit(t.Context(), c)
		require.NoError(t, err)
	}
	commit(1, &lake.Tally{Rows: 1, Places: 1 << 63})
	commit(2, &lake.Tally{Rows: 1, Places: 1<<63 + 5})
	require.Equal(t, &lake.Tally{Rows: 2, Places: 5}, counted())
	commit(0, nil) // of no rows
	require.Equal(t, &lake.Tally{Rows: 2, Places: 5}, counted())
	w.kill()
	w.lake = w.open()
	h = w.lake.Table(shadow)
	commit(3, &lake.Tally{Rows: 1, Places: 7})
	require.Equal(t, &lake.Tally{Rows: 3, Places: 12}, counted())
	commit(4, nil) // an older naru does not count
	require.Nil(t, counted())
	commit(5, &lake.Tally{Rows: 1, Places: 7})
	require.Nil(t, counted(), "some are not known")
}
