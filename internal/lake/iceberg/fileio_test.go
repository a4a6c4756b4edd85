package iceberg

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/lake"
	"naru/internal/vfs"
)

func TestFilesAreDurableWhenClosed(t *testing.T) {
	m := vfs.NewMemory()
	f := fileIO{m}
	require.NoError(t, f.WriteFile("file:///w/a b/c%20d/1.avro", []byte("one")))
	w, err := f.Create("/w/2.avro")
	require.NoError(t, err)
	n, err := w.ReadFrom(strings.NewReader("two"))
	require.NoError(t, err)
	require.EqualValues(t, 3, n)
	_, err = f.ReadFile("/w/2.avro")
	require.ErrorIs(t, err, fs.ErrNotExist, "a file must not be there before it is whole")
	require.NoError(t, w.Close())
	require.NoError(t, w.Close())

	f = fileIO{m.CrashClone(0)}
	b, err := f.ReadFile("file:///w/a b/c%20d/1.avro")
	require.NoError(t, err)
	require.Equal(t, "one", string(b))
	r, err := f.Open("file:/w/2.avro")
	require.NoError(t, err)
	_, err = r.Seek(1, io.SeekStart)
	require.NoError(t, err)
	b, err = io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, "wo", string(b))
	two := make([]byte, 2)
	_, err = r.ReadAt(two, 0)
	require.NoError(t, err)
	require.Equal(t, "tw", string(two))
	require.NoError(t, r.Close())
	require.NoError(t, f.Remove("/w/2.avro"))
	_, err = f.Open("/w/2.avro")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestFailedFileLeavesNothing(t *testing.T) {
	for _, op := range []vfs.Op{vfs.OpWrite, vfs.OpSync, vfs.OpRename} {
		t.Run(op.String(), func(t *testing.T) {
			m := vfs.NewMemory()
			require.NoError(t, m.MkdirAll("/w"))
			m.Inject(vfs.Rule{Ops: op, Times: 1})
			require.ErrorIs(t, fileIO{m}.WriteFile("/w/1", []byte("x")), syscall.EIO)
			_, err := m.Stat("/w/1")
			require.ErrorIs(t, err, fs.ErrNotExist)
		})
	}
	m := vfs.NewMemory()
	w, err := fileIO{m}.create("/w/1")
	require.NoError(t, err)
	require.NoError(t, w.Abort())
	require.Error(t, w.Close())
	names, err := m.List("/w")
	require.NoError(t, err)
	require.Empty(t, names)
}

func TestOnlyLocalFiles(t *testing.T) {
	for _, name := range []string{"s3://bucket/x", "hdfs://host/x", "relative/x", "file://host/x/../.."} {
		if _, err := (fileIO{vfs.NewMemory()}).Open(name); err == nil {
			t.Errorf("Open(%q) worked", name)
		}
	}
}

// The row of the catalog is the last thing of a commit, and everything that it
// leads to is synced by then: file, then its name, then its folder's entry.
func TestOrderOfCommit(t *testing.T) {
	w := newWorld(t)
	w.add(1)
	var mu sync.Mutex
	var events []string
	w.lake.fs = recorder{w.fs, func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, fmt.Sprintf(format, args...))
	}}
	w.lake.io = fileIO{w.lake.fs}
	var rowAt int
	w.cat.before = func() error { rowAt = len(events); return nil }
	w.add(1)
	files := map[string]int{}
	for _, ending := range []string{".parquet", ".avro", ".metadata.json"} {
		for i, e := range events[:rowAt] {
			name, ok := strings.CutPrefix(e, "rename ")
			if !ok || !strings.HasSuffix(name, ending) {
				continue
			}
			files[ending]++
			temp := name
			if ending == ".parquet" { // its checksum is known when all of it is written
				temp = name[:len(name)-len("-01234567.parquet")] + ending
			}
			require.Equal(t, "sync "+temp+tempSuffix, events[i-1])
			require.Equal(t, "syncdir "+path.Dir(name), events[i+1])
		}
	}
	require.Equal(t, map[string]int{".parquet": 1, ".avro": 2, ".metadata.json": 1}, files)
	require.False(t, slices.ContainsFunc(events[rowAt:], func(e string) bool { return strings.HasPrefix(e, "sync ") }))
}

type recorder struct {
	vfs.FS
	note func(string, ...any)
}

func (r recorder) Create(name string) (vfs.File, error) {
	f, err := r.FS.Create(name)
	return recordedFile{f, r.note}, err
}

func (r recorder) Rename(from, to string) error {
	r.note("rename %s", to)
	return r.FS.Rename(from, to)
}
func (r recorder) SyncDir(dir string) error { r.note("syncdir %s", dir); return r.FS.SyncDir(dir) }

type recordedFile struct {
	vfs.File
	note func(string, ...any)
}

func (f recordedFile) Sync() error { f.note("sync %s", f.Name()); return f.File.Sync() }

// A failed sync anywhere in a commit: no row, no trace in the table.
func TestFailedSyncCommitsNothing(t *testing.T) {
	for skip := 0; ; skip++ {
		w := newWorld(t)
		w.add(1)
		h := w.lake.Table(views)
		s := load(t, h)
		c := work(t, h, s, 2, 3)
		rule := w.fs.Inject(vfs.Rule{Ops: vfs.OpSync | vfs.OpSyncDir, Skip: skip, Times: 1})
		_, err := h.Commit(t.Context(), c)
		w.fs.Heal()
		_ = rule
		if err == nil {
			require.Greater(t, skip, 4)
			w.requireRows(3, 2)
			return
		}
		require.ErrorIs(t, err, syscall.EIO)
		require.Equal(t, at(1), load(t, h).Positions)
		w.requireRows(1, 1)
		w.add(2) // and the next commit works
		w.requireRows(3, 2)
	}
}

func catalogs(t *testing.T) map[string]Catalog {
	dir := filepath.Join(t.TempDir(), "a blank?, #hash & 50%25")
	require.NoError(t, vfs.OS().MkdirAll(dir))
	c, err := OpenSQLite(t.Context(), filepath.Join(dir, "catalog.db"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	_, err = vfs.OS().Stat(filepath.Join(dir, "catalog.db"))
	require.NoError(t, err, "the catalog is elsewhere")
	return map[string]Catalog{"sqlite": c, "memory": NewMemoryCatalog()}
}

func TestCatalogs(t *testing.T) {
	for name, c := range catalogs(t) {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			a := lake.Ident{Namespace: "events", Name: "a'b \"c"}
			b := lake.Ident{Namespace: "events", Name: "페이지"}
			_, err := c.Location(ctx, a)
			require.ErrorIs(t, err, lake.ErrNoTable)
			require.ErrorIs(t, c.Swap(ctx, a, "one", "two"), ErrConflict)
			require.NoError(t, c.Swap(ctx, a, "", "one"))
			require.ErrorIs(t, c.Swap(ctx, a, "", "uno"), ErrConflict)
			require.NoError(t, c.Swap(ctx, a, "one", "two"))
			require.ErrorIs(t, c.Swap(ctx, a, "one", "three"), ErrConflict)
			require.NoError(t, c.Swap(ctx, b, "", "x"))
			loc, err := c.Location(ctx, a)
			require.NoError(t, err)
			require.Equal(t, "two", loc)
			list, err := c.List(ctx)
			require.NoError(t, err)
			require.Equal(t, []lake.Ident{a, b}, list)
			require.NoError(t, c.Drop(ctx, b))
			require.ErrorIs(t, c.Drop(ctx, b), lake.ErrNoTable)

			var wins sync.Map
			var running sync.WaitGroup
			for i := range 8 {
				running.Go(func() {
					err := c.Swap(ctx, a, "two", fmt.Sprint("n", i))
					if err == nil {
						wins.Store(i, true)
					} else if !errors.Is(err, ErrConflict) {
						t.Error(err)
					}
				})
			}
			running.Wait()
			n := 0
			wins.Range(func(any, any) bool { n++; return true })
			require.Equal(t, 1, n)
		})
	}
}
