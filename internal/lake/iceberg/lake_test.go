package iceberg

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/vfs"
)

var (
	quiet = slog.New(slog.NewTextHandler(io.Discard, nil))
	life  = event.Incarnation{1}
	views = lake.Ident{Namespace: "events", Name: "page_view"}
)

// world is a lake on a disk in memory whose catalog can be made to misbehave.
type world struct {
	t    *testing.T
	fs   *vfs.Memory
	rows *MemoryCatalog
	cat  *badCatalog
	cfg  Config
	lake *Lake
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, fs: vfs.NewMemory(), rows: NewMemoryCatalog(), cfg: DefaultConfig()}
	w.cfg.GCDelay = 0
	w.open()
	return w
}

// open opens the lake, as after a restart.
func (w *world) open() *Lake {
	w.t.Helper()
	w.cat = &badCatalog{Catalog: w.rows}
	l, err := Open(w.t.Context(), w.cfg, w.fs, "/data", quiet, WithCatalog(w.cat))
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = l.lock.Close() })
	w.lake = l
	return l
}

// kill leaves the lake as a dead process does: without its lock.
func (w *world) kill() { require.NoError(w.t, w.lake.lock.Close()) }

// badCatalog calls before and after around every Swap.
type badCatalog struct {
	Catalog
	before, after func() error
}

func (c *badCatalog) Swap(ctx context.Context, t lake.Ident, from, to string) error {
	if c.before != nil {
		if err := c.before(); err != nil {
			return err
		}
	}
	err := c.Catalog.Swap(ctx, t, from, to)
	if err == nil && c.after != nil {
		err = c.after()
	}
	return err
}

func at(offset int64) event.Positions { return event.Positions{life: {0: offset}} }

// file makes a data file; what is in it does not matter to commits.
func file(t *testing.T, h *Table, s *State, rows int64) columnar.DataFile {
	return fileOf(t, h, s, rows)
}

func fileOf(t testing.TB, h *Table, s *State, rows int64) columnar.DataFile {
	t.Helper()
	f := columnar.DataFile{Path: h.DataPath(s, "_time_day=2015-09-12"), Arrangement: columnar.Arrangement{Partition: columnar.DefaultPartition()},
		Partition: []columnar.PartitionValue{{Long: 16690}}, Rows: rows, Bytes: 4, SplitOffsets: []int64{4},
		Stats: map[int]columnar.ColumnStats{columnar.TimeID: {Size: 4, Values: rows, Lower: make([]byte, 8), Upper: make([]byte, 8)}}}
	out, err := h.lake.CreateFile(f.Path)
	require.NoError(t, err)
	_, err = out.Write([]byte("PAR1"))
	require.NoError(t, err)
	require.NoError(t, out.Close())
	f.Path = out.Path()
	return f
}

func load(t *testing.T, h *Table) *State {
	t.Helper()
	s, err := h.Load(t.Context())
	require.NoError(t, err)
	return s
}

// work is a commit of one file that moves the positions to next.
func work(t *testing.T, h *Table, s *State, rows, next int64) Commit {
	t.Helper()
	schema := s.Schema
	if schema == nil {
		schema = columnar.NewSchema()
	}
	return Commit{Base: s, Files: []columnar.DataFile{file(t, h, s, rows)}, Schema: schema, Positions: at(next)}
}

// add commits rows rows and moves the positions as far.
func (w *world) add(rows int64) *State {
	w.t.Helper()
	h := w.lake.Table(views)
	s := load(w.t, h)
	next, _ := s.Positions.Get(life, 0)
	s, err := h.Commit(w.t.Context(), work(w.t, h, s, rows, next+rows))
	require.NoError(w.t, err)
	return s
}

func (w *world) view() *lake.View {
	w.t.Helper()
	v, err := w.lake.View(w.t.Context(), views)
	require.NoError(w.t, err)
	return v
}

// names lists all files below the table, by kind of ending.
func (w *world) names(ending string) (out []string) {
	for _, dir := range []string{"metadata", "data/_time_day=2015-09-12"} {
		for _, n := range w.lake.list(filepath.Join(w.lake.tableFolder(views), dir)) {
			if strings.HasSuffix(n, ending) {
				out = append(out, dir+"/"+n)
			}
		}
	}
	return out
}

// unique fails when a path is in the table twice.
func unique(t *testing.T, v *lake.View) {
	t.Helper()
	seen := map[string]bool{}
	for _, f := range v.Files {
		require.False(t, seen[f.Path], "%s is in the table twice", f.Path)
		seen[f.Path] = true
	}
}

func TestCommitMakesTableAndAppends(t *testing.T) {
	w := newWorld(t)
	_, err := w.lake.View(t.Context(), views)
	require.ErrorIs(t, err, lake.ErrNoTable)

	w.add(5)
	s := w.add(7)
	require.True(t, s.Exists)
	require.Equal(t, at(12), s.Positions)
	require.Nil(t, s.RolledBack)
	require.EqualValues(t, 12, s.Rows)
	require.EqualValues(t, 8, s.Bytes)

	// Another process sees the same by reading everything from disk.
	w.kill()
	w.open()
	v := w.view()
	defer v.Release()
	require.Len(t, v.Files, 2)
	require.EqualValues(t, 12, v.Rows)
	require.Equal(t, at(12), v.Positions)
	require.Equal(t, columnar.NewSchema().Columns(), v.Columns)
	unique(t, v)

	info, err := w.lake.Info(t.Context(), views)
	require.NoError(t, err)
	require.EqualValues(t, 12, info.Rows)
	require.Equal(t, 2, info.Files)
	require.EqualValues(t, 8, info.Bytes)
	require.Equal(t, "/data/lake/events/page_view", info.Location)
	require.WithinDuration(t, time.Now(), info.LastCommit, time.Minute)

	list, err := w.lake.List(t.Context())
	require.NoError(t, err)
	require.Equal(t, []lake.Ident{views}, list)
}

func TestPositionsStandInSummaryAndProperty(t *testing.T) {
	w := newWorld(t)
	s := w.add(5)
	sum := s.head.snap.Summary.Properties
	require.JSONEq(t, at(5).String(), sum[keyPositions])
	require.Equal(t, w.lake.writer, sum[keyWriter])
	require.JSONEq(t, at(5).String(), s.head.meta.Properties()[keyPositions])
	require.Equal(t, sum[keyCommitID], s.head.meta.Properties()[keyCommitID])
}

func TestNewColumnsKeepTheirIDs(t *testing.T) {
	w := newWorld(t)
	w.add(1)
	h := w.lake.Table(views)
	s := load(t, h)
	wider := s.Schema.Clone()
	wider.LastID += 3
	wider.Fields = append(wider.Fields,
		columnar.Field{ID: wider.LastID - 2, Name: "user", Path: "user", Kind: columnar.String},
		columnar.Field{ID: wider.LastID - 1, ElementID: wider.LastID, Name: "tags", Path: "tags", Kind: columnar.ListString})
	c := work(t, h, s, 1, 2)
	c.Schema = wider
	before := len(s.head.meta.Snapshots())
	s, err := h.Commit(t.Context(), c)
	require.NoError(t, err)
	require.Len(t, s.head.meta.Snapshots(), before+1)
	require.True(t, s.Schema.Equal(wider))
	require.Equal(t, wider.Columns(), columns(s.head.meta.CurrentSchema()))
	require.Equal(t, wider.LastID, s.head.meta.LastColumnID())
}

func TestMovedFolderIsRefused(t *testing.T) {
	fs := vfs.OS()
	dir := t.TempDir()
	l, err := Open(t.Context(), DefaultConfig(), fs, dir, quiet, WithCatalog(NewMemoryCatalog()))
	require.NoError(t, err)
	_, err = Open(t.Context(), DefaultConfig(), fs, dir, quiet, WithCatalog(NewMemoryCatalog()))
	require.ErrorIs(t, err, vfs.ErrLocked)
	require.NoError(t, l.Close())
	moved := filepath.Join(t.TempDir(), "moved")
	require.NoError(t, fs.Rename(dir, moved))
	_, err = Open(t.Context(), DefaultConfig(), fs, moved, quiet, WithCatalog(NewMemoryCatalog()))
	require.ErrorIs(t, err, ErrElsewhere)
}

func TestCommitsStayFlat(t *testing.T) {
	w := newWorld(t)
	var after100 int64
	for i := range 300 {
		w.add(1)
		w.lake.CollectGarbage()
		if i == 99 {
			after100 = w.metadataSize()
		}
	}
	h := load(t, w.lake.Table(views)).head
	require.LessOrEqual(t, len(h.meta.Snapshots()), w.cfg.KeepSnapshots+w.cfg.ExpireEvery)
	manifests, err := w.lake.manifests(h)
	require.NoError(t, err)
	require.LessOrEqual(t, len(manifests), 55)
	// 21 metadata files, at most 70 manifest lists and the manifests they need.
	require.LessOrEqual(t, len(w.names(".metadata.json")), 21)
	require.LessOrEqual(t, len(w.names(".avro")), 70+130)
	require.Less(t, w.metadataSize(), 2*after100)
	v := w.view()
	defer v.Release()
	require.Len(t, v.Files, 300)
	unique(t, v)
	require.EqualValues(t, 300, v.Rows)

	// What is kept can be read: nothing that is needed was removed.
	needed := map[string]bool{}
	require.NoError(t, w.lake.markNeeded(h, needed))
	for p := range needed {
		_, err := w.fs.Stat(p)
		require.NoError(t, err)
	}
	// And nothing else is left.
	for _, ending := range []string{".avro", ".metadata.json", ".parquet", ".tmp"} {
		for _, n := range w.names(ending) {
			require.True(t, needed[w.lake.tableFolder(views)+"/"+n], "%s is garbage", n)
		}
	}
}

func (w *world) metadataSize() int64 {
	h := load(w.t, w.lake.Table(views)).head
	p, _ := localPath(h.location)
	info, err := w.fs.Stat(p)
	require.NoError(w.t, err)
	return info.Size()
}

func TestManyTables(t *testing.T) {
	w := newWorld(t)
	for i := range 100 {
		h := w.lake.Table(lake.Ident{Namespace: fmt.Sprintf("s%d", i%3), Name: fmt.Sprintf("t%02d", i)})
		s := load(t, h)
		_, err := h.Commit(t.Context(), work(t, h, s, 1, 1))
		require.NoError(t, err)
	}
	list, err := w.lake.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 100)
	require.Equal(t, lake.Ident{Namespace: "s0", Name: "t00"}, list[0])
}

// wide is a schema of thirty columns.
func wide() *columnar.Schema {
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("column_%02d", i))
	}
	return withColumns(columnar.NewSchema(), names...)
}

// withColumns is a schema with further string columns.
func withColumns(s *columnar.Schema, names ...string) *columnar.Schema {
	s = s.Clone()
	for _, n := range names {
		s.LastID++
		s.Fields = append(s.Fields, columnar.Field{ID: s.LastID, Name: n, Path: n, Kind: columnar.String})
	}
	return s
}

func TestOtherPathToTheSameFolder(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(t.Context(), DefaultConfig(), vfs.OS(), dir, quiet, WithCatalog(NewMemoryCatalog()))
	require.NoError(t, err)
	require.NoError(t, l.Close())
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	l, err = Open(t.Context(), DefaultConfig(), vfs.OS(), link, quiet, WithCatalog(NewMemoryCatalog()))
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "lake"), l.root)
	require.NoError(t, l.Close())
}

func TestReadOnly(t *testing.T) {
	w := newWorld(t)
	w.add(2)
	l, err := Open(t.Context(), w.cfg, w.fs, "/data", quiet, WithCatalog(w.rows), ReadOnly())
	require.NoError(t, err, "it must not need the lock")
	v, err := l.View(t.Context(), views)
	require.NoError(t, err)
	require.EqualValues(t, 2, v.Rows)
	v.Release()
	h := l.Table(views)
	_, err = h.Commit(t.Context(), Commit{Base: load(t, h)})
	require.Error(t, err)
	require.NoError(t, l.Close())
}

func TestBrokenMetadataConcernsItsTableAlone(t *testing.T) {
	w := newWorld(t)
	s := w.add(2)
	p, err := localPath(s.head.location)
	require.NoError(t, err)
	for _, hurt := range []func(){
		func() { require.NoError(t, w.lake.io.WriteFile(p, []byte("{"))) },
		func() { require.NoError(t, w.fs.Remove(p)) },
	} {
		hurt()
		w.kill()
		w.open()
		_, err = w.lake.Table(views).Load(t.Context())
		require.ErrorIs(t, err, ErrUnfit)
		require.NotEmpty(t, fault.HintOf(err))
	}
	w.fs.Inject(vfs.Rule{Ops: vfs.OpOpen})
	_, err = w.lake.Table(views).Load(t.Context())
	require.NotErrorIs(t, err, ErrUnfit, "an I/O error may pass")
}

func TestConfig(t *testing.T) {
	require.NoError(t, DefaultConfig().Validate())
	err := Config{GCDelay: -1, PromoteLimit: -1}.Validate()
	for _, key := range []string{"commit_rate", "max_tables", "open_writers", "memory", "expire_every", "keep_snapshots", "gc_delay", "promote_limit"} {
		require.ErrorContains(t, err, key+":")
	}
}
