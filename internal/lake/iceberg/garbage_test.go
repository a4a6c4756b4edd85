package iceberg

import (
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/lake"
	"naru/internal/quantity"
)

func (w *world) exists(p string) bool {
	_, err := w.fs.Stat(p)
	if err != nil {
		require.ErrorIs(w.t, err, fs.ErrNotExist)
	}
	return err == nil
}

func TestLeaseProtectsFiles(t *testing.T) {
	w := newWorld(t)
	w.cfg.ExpireEvery, w.cfg.KeepSnapshots = 2, 1
	w.kill()
	w.open()
	first := w.add(1)
	list := first.head.snap.ManifestList
	p, err := localPath(list)
	require.NoError(t, err)
	v := w.view()
	for range 4 {
		w.add(1)
	}
	require.Nil(t, load(t, w.lake.Table(views)).head.meta.SnapshotByID(first.head.snap.SnapshotID), "not expired")
	w.lake.CollectGarbage()
	require.True(t, w.exists(p), "removed under a lease")

	later := w.view() // it came after, and does not need the file
	v.Release()
	v.Release()
	w.lake.CollectGarbage()
	require.False(t, w.exists(p))
	later.Release()
	w.requireRows(5, 5)
}

func TestGarbageWaits(t *testing.T) {
	w := newWorld(t)
	w.cfg.ExpireEvery, w.cfg.KeepSnapshots, w.cfg.GCDelay = 2, 1, quantity.Duration(time.Hour)
	w.kill()
	w.open()
	now := time.Now()
	w.lake.now = func() time.Time { return now }
	first := w.add(1)
	p, err := localPath(first.head.snap.ManifestList)
	require.NoError(t, err)
	w.add(1)
	w.add(1)
	require.Zero(t, w.lake.CollectGarbage())
	require.True(t, w.exists(p))
	now = now.Add(time.Hour)
	require.NotZero(t, w.lake.CollectGarbage())
	require.False(t, w.exists(p))
	w.requireRows(3, 3)
}

func TestOrphansOfACrashAreCollected(t *testing.T) {
	w := newWorld(t)
	w.add(1)
	h := w.lake.Table(views)
	s := load(t, h)
	// Killed between files and commit: of a table, and of one not yet made.
	lost := file(t, h, s, 3)
	other := w.lake.Table(lake.Ident{Namespace: "events", Name: "never_made"})
	lostToo := file(t, other, load(t, other), 3)
	// Not ours: other names, other folders, and a table that the catalog does not know.
	foreign := []string{
		filepath.Dir(lost.Path) + "/00000-0-1234.parquet",
		"/data/lake/events/page_view/metadata/snap-1-2-3.avro",
		"/data/lake/events/page_view/metadata/00007-2f3c9c1e-8d1e-4c1f-9a43-0123456789ab.metadata.json",
		"/data/lake/events/dropped/metadata/00001-2f3c9c1e-8d1e-4c1f-9a43-0123456789ab.metadata.json",
		"/data/lake/events/dropped/data/_time_day=2015-09-12/naru-0123456789ab-000001.parquet",
		"/data/naru-0123456789ab-000001.parquet",
		"/data/lake/naru-0123456789ab-000001.parquet",
	}
	for _, f := range foreign {
		require.NoError(t, w.lake.io.WriteFile(f, []byte("x")))
	}
	w.kill()
	w.open()
	alive := file(t, w.lake.Table(views), s, 1) // of the running process
	n, err := w.lake.CollectOrphans(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, n)
	w.lake.CollectGarbage()
	require.False(t, w.exists(lost.Path))
	require.False(t, w.exists(lostToo.Path))
	require.True(t, w.exists(alive.Path))
	for _, f := range foreign {
		require.True(t, w.exists(f), "%s was removed", f)
	}
	w.requireRows(1, 1)
}

func TestNothingOutsideTheWarehouseIsRemoved(t *testing.T) {
	w := newWorld(t)
	w.add(1)
	for _, p := range []string{"/data/catalog.db", "/data/lake/events/other/data/x.parquet", "/etc/x",
		"/data/lake/events/page_view/../other/y", "/data/lake/events/page_viewer/z"} {
		require.NoError(t, w.lake.io.WriteFile(p, []byte("x")))
		w.lake.removeBelow("file:///data/lake/events/page_view", p)
		w.lake.removeBelow("file:///", p)
		require.True(t, w.exists(filepath.Clean(p)), p)
	}
}

func TestTagsKeepTheirSnapshots(t *testing.T) {
	w := newWorld(t)
	w.cfg.ExpireEvery, w.cfg.KeepSnapshots = 2, 1
	w.kill()
	w.open()
	first := w.add(1)
	w.tag("audit", first.head.snap.SnapshotID)
	for range 6 {
		w.add(1)
	}
	w.lake.CollectGarbage()
	h := load(t, w.lake.Table(views)).head
	tagged := h.meta.SnapshotByName("audit")
	require.NotNil(t, tagged)
	manifests, err := tagged.Manifests(w.lake.io)
	require.NoError(t, err)
	for _, m := range manifests {
		for _, err := range m.Entries(w.lake.io, true) {
			require.NoError(t, err)
		}
	}
}

func TestFileNames(t *testing.T) {
	w := newWorld(t)
	for _, p := range []string{w.lake.dataPath("/t", "_time_day=2015-09-12"), w.lake.manifestPath("/t", nil), w.lake.metadataPath("/t", 12, nil), w.lake.metadataPath("/t", 123456, nil)} {
		require.Equal(t, w.lake.writer, writerOf(filepath.Base(p)), p)
		require.Equal(t, w.lake.writer, writerOf(filepath.Base(p)+tempSuffix), p)
	}
	require.Contains(t, w.lake.dataPath("/t", "_time_day=2015-09-12"), "/t/data/_time_day=2015-09-12/naru-")
	require.Contains(t, w.lake.dataPath("/t", ""), "/t/data/naru-")
	require.Equal(t, 12, metadataVersion(w.lake.metadataPath("/t", 12, nil)))
	require.Equal(t, 7, metadataVersion("file:///x/v7.metadata.json"))
	require.Equal(t, 0, metadataVersion("file:///x/metadata.json"))
}

func TestRateIsFair(t *testing.T) {
	r := NewRate(1)
	id := func(n string) lake.Ident { return lake.Ident{Namespace: "s", Name: n} }
	t0 := time.Unix(1e9, 0)
	for range rateWindow {
		require.True(t, r.Take(id("big"), t0, t0))
	}
	require.False(t, r.Take(id("old"), t0, t0))
	require.False(t, r.Take(id("older"), t0.Add(-time.Second), t0))
	t1 := t0.Add(time.Second)
	require.False(t, r.Take(id("big"), t1, t1), "two wait longer")
	require.False(t, r.Take(id("old"), t0, t1), "one waits longer")
	require.True(t, r.Take(id("older"), t0.Add(-time.Second), t1))
	t2 := t1.Add(time.Second)
	require.False(t, r.Take(id("big"), t1, t2))
	r.Forget(id("old"))
	require.True(t, r.Take(id("big"), t1, t2))

	r.Force(id("x"), t2)
	require.False(t, r.Take(id("x"), t2, t2.Add(time.Second)), "a forced commit is paid back")
	require.True(t, r.Take(id("x"), t2, t2.Add(2*time.Second)))
}
