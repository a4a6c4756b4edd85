package iceberg

import (
	"context"
	"errors"
	"strings"
	"testing"

	ice "github.com/apache/iceberg-go"
	"github.com/stretchr/testify/require"

	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/vfs"
)

// copyTo copies the lake to /copy as the data folder root.
func (w *world) copyTo(root string, pace func(int) error) (CopiedLake, *MemoryCatalog, error) {
	w.t.Helper()
	w.lake.catalog = w.rows
	if pace == nil {
		pace = func(int) error { return nil }
	}
	made, err := w.lake.Copy(w.t.Context(), CopyOptions{To: "/copy", Root: root, Pace: pace, Room: func(int64) error { return nil }})
	return made, w.rows.Copied("/copy/" + catalogFile), err
}

// restore opens the copy at root, where nothing else may be.
func (w *world) restore(root string, rows *MemoryCatalog) *Lake {
	w.t.Helper()
	require.NoError(w.t, w.fs.Rename("/copy", root))
	l, err := Open(w.t.Context(), w.cfg, w.fs, root, quiet, WithCatalog(rows))
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = l.lock.Close() })
	return l
}

// sound checks that the lake has everything and nothing else.
func sound(t *testing.T, l *Lake) {
	t.Helper()
	files := 0
	require.NoError(t, l.Check(t.Context(), CheckOptions{Shallow: true}, func(f CheckedFile) error {
		files++
		if f.Bad() || f.Verdict == Orphan {
			t.Errorf("%s %s is %s: %s", f.Kind, f.Path, f.Verdict, f.Reason)
		}
		if !strings.HasPrefix(f.Path, l.root) && f.Kind != KindCatalog {
			t.Errorf("%s lies outside", f.Path)
		}
		return nil
	}))
	require.NotZero(t, files)
}

func (w *world) fill(commits int) {
	for range commits {
		w.add(2)
	}
}

func TestCopy(t *testing.T) {
	for name, root := range map[string]string{"in place": "/data", "to another place": "/elsewhere/data"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.fill(75) // with merged manifests and expired snapshots
			_, _, err := w.lake.Claim(t.Context(), lake.Ident{Namespace: "events", Name: "promised"}, nil)
			require.NoError(t, err)
			require.NoError(t, w.lake.Refuse(views, at(7)))
			want := load(t, w.lake.Table(views))
			made, rows, err := w.copyTo(root, nil)
			require.NoError(t, err)
			require.Len(t, made.Tables, 1)
			require.Equal(t, want.Positions, made.Tables[0].Positions)
			require.Equal(t, at(7), made.Refused[views])
			w.fill(3) // the original goes on
			require.NoError(t, w.fs.MkdirAll("/elsewhere"))
			if root == "/data" {
				w.kill()
				require.NoError(t, w.fs.Rename("/data", "/lost"))
			}
			l := w.restore(root, rows)
			sound(t, l)
			got := load(t, l.Table(views))
			require.Equal(t, want.Positions, got.Positions)
			require.Equal(t, want.Rows, got.Rows)
			require.Equal(t, want.Bytes, got.Bytes)
			refused, err := l.Refusal(views)
			require.NoError(t, err)
			require.Equal(t, at(7), refused)
			claimed, _, err := l.Claim(t.Context(), lake.Ident{Namespace: "events", Name: "promised"}, nil)
			require.NoError(t, err)
			require.True(t, claimed)
			v, err := l.View(t.Context(), views)
			require.NoError(t, err)
			require.EqualValues(t, want.Rows, v.Rows)
			for _, f := range v.Files {
				require.True(t, strings.HasPrefix(f.Path, root+"/lake/"), f.Path)
			}
			v.Release()
			// It goes on as any lake does.
			next, err := l.Table(views).Commit(t.Context(), work(t, l.Table(views), got, 1, 100_000))
			require.NoError(t, err)
			require.Equal(t, want.Rows+1, next.Rows)
			sound(t, l)
			require.NoError(t, l.lock.Close())
			_, err = Open(t.Context(), w.cfg, w.fs, root, quiet, WithCatalog(rows))
			require.NoError(t, err)
		})
	}
}

// TestCopyKeepsEntries: a manifest at another place says of its files what it
// said before.
func TestCopyKeepsEntries(t *testing.T) {
	w := newWorld(t)
	w.fill(5)
	_, rows, err := w.copyTo("/new", nil)
	require.NoError(t, err)
	before, err := w.lake.load(t.Context(), views, nil)
	require.NoError(t, err)
	l := w.restore("/new", rows)
	after, err := l.load(t.Context(), views, nil)
	require.NoError(t, err)
	require.Equal(t, len(before.meta.Snapshots()), len(after.meta.Snapshots()))
	compared := 0
	for i, s := range before.meta.Snapshots() {
		a, err := s.Manifests(w.lake.io)
		require.NoError(t, err)
		moved := after.meta.Snapshots()[i]
		require.Equal(t, s.Summary, moved.Summary)
		b, err := moved.Manifests(l.io)
		require.NoError(t, err)
		require.Equal(t, len(a), len(b))
		for j := range a {
			require.Equal(t, a[j].SequenceNum(), b[j].SequenceNum())
			require.Equal(t, a[j].SnapshotID(), b[j].SnapshotID())
			require.Equal(t, a[j].AddedRows(), b[j].AddedRows())
			require.Equal(t, a[j].Partitions(), b[j].Partitions())
			var want, got []ice.ManifestEntry
			for e, err := range a[j].Entries(w.lake.io, false) {
				require.NoError(t, err)
				want = append(want, e)
			}
			for e, err := range b[j].Entries(l.io, false) {
				require.NoError(t, err)
				got = append(got, e)
			}
			require.Equal(t, len(want), len(got))
			for k := range want {
				x, y := want[k], got[k]
				require.Equal(t, x.Status(), y.Status())
				require.Equal(t, x.SnapshotID(), y.SnapshotID())
				require.Equal(t, x.SequenceNum(), y.SequenceNum())
				require.Equal(t, x.FileSequenceNum(), y.FileSequenceNum())
				f, g := x.DataFile(), y.DataFile()
				require.Equal(t, strings.Replace(f.FilePath(), "/data/lake", "/new/lake", 1), g.FilePath())
				require.Equal(t, f.Partition(), g.Partition())
				require.Equal(t, f.Count(), g.Count())
				require.Equal(t, f.FileSizeBytes(), g.FileSizeBytes())
				require.Equal(t, f.ColumnSizes(), g.ColumnSizes())
				require.Equal(t, f.ValueCounts(), g.ValueCounts())
				require.Equal(t, f.NullValueCounts(), g.NullValueCounts())
				require.Equal(t, f.LowerBoundValues(), g.LowerBoundValues())
				require.Equal(t, f.UpperBoundValues(), g.UpperBoundValues())
				require.Equal(t, f.SplitOffsets(), g.SplitOffsets())
				compared++
			}
		}
	}
	require.NotZero(t, compared)
}

// TestCopyBesideCommits: the table moves on, its old files go, and new claims
// come, at every step of the copy in turn.
func TestCopyBesideCommits(t *testing.T) {
	steps := 0
	for step := 1; steps == 0 || step <= steps; step += max(1, steps/6) {
		w := newWorld(t)
		w.cfg.KeepSnapshots, w.cfg.ExpireEvery = 2, 1
		w.open2(t)
		w.fill(10)
		other := lake.Ident{Namespace: "events", Name: "other"}
		h := w.lake.Table(other)
		_, err := h.Commit(t.Context(), work(t, h, load(t, h), 1, 1))
		require.NoError(t, err)
		n := 0
		made, rows, err := w.copyTo("/data", func(int) error {
			if n++; n == step {
				w.fill(25)
				w.lake.CollectGarbage()
			}
			return nil
		})
		require.NoError(t, err)
		if steps == 0 {
			steps = n
		}
		w.kill()
		require.NoError(t, w.fs.Rename("/data", "/lost"))
		l := w.restore("/data", rows)
		require.NoError(t, l.Check(t.Context(), CheckOptions{Shallow: true}, func(f CheckedFile) error {
			if f.Bad() {
				t.Errorf("step %d: %s %s is %s: %s", step, f.Kind, f.Path, f.Verdict, f.Reason)
			}
			return nil
		}))
		for _, one := range made.Tables {
			require.Equal(t, one.Positions, load(t, l.Table(one.Table)).Positions)
		}
	}
}

// open2 opens the lake again with other settings.
func (w *world) open2(t *testing.T) {
	t.Helper()
	require.NoError(t, w.lake.lock.Close())
	w.open()
}

// TestCopyDamaged: a file that is missing, short or changed is named.
func TestCopyDamaged(t *testing.T) {
	damage := map[string]func(w *world, path string){
		"missing": func(w *world, path string) { require.NoError(w.t, w.fs.Remove(path)) },
		"short":   func(w *world, path string) { edit(w.t, w.fs, path, func(f vfs.File) error { return f.Truncate(2) }) },
		"changed": func(w *world, path string) {
			edit(w.t, w.fs, path, func(f vfs.File) error { _, err := f.WriteAt([]byte("?"), 1); return err })
		},
	}
	for name, spoil := range damage {
		for _, kind := range []FileKind{KindMetadata, KindPrevious, KindList, KindManifest, KindData} {
			t.Run(name+" "+string(kind), func(t *testing.T) {
				w := newWorld(t)
				w.fill(3)
				var path string
				require.NoError(t, w.lake.Check(t.Context(), CheckOptions{Shallow: true}, func(f CheckedFile) error {
					if f.Kind == kind {
						path = f.Path
					}
					return nil
				}))
				spoil(w, path)
				_, _, err := w.copyTo("/data", nil)
				var bad *fault.Corrupt
				if !errors.As(err, &bad) || bad.Path != path {
					t.Errorf("copy without %s: %v", path, err)
				}
			})
		}
	}
}

func edit(t *testing.T, fs vfs.FS, path string, change func(vfs.File) error) {
	t.Helper()
	f, err := fs.OpenReadWrite(path)
	require.NoError(t, err)
	require.NoError(t, change(f))
	require.NoError(t, f.Close())
}

// TestCopyOutside: what lies elsewhere cannot be in the copy, and is named.
func TestCopyOutside(t *testing.T) {
	w := newWorld(t)
	h := w.lake.Table(views)
	s := load(t, h)
	f := file(t, h, s, 1)
	require.NoError(t, w.fs.MkdirAll("/far"))
	require.NoError(t, w.fs.Rename(f.Path, "/far/x.parquet"))
	f.Path = "/far/x.parquet"
	_, err := h.Commit(t.Context(), Commit{Base: s, Files: []columnar.DataFile{f}, Schema: columnar.NewSchema(), Positions: at(1)})
	require.NoError(t, err)
	_, _, err = w.copyTo("/data", nil)
	require.ErrorContains(t, err, "/far/x.parquet lies outside")
}

// meanwhile runs fn once, when the catalog has been copied.
type meanwhile struct {
	*MemoryCatalog
	fn func()
}

func (m *meanwhile) CopyTo(ctx context.Context, path string) (catalogCopy, error) {
	c, err := m.MemoryCatalog.CopyTo(ctx, path)
	if fn := m.fn; fn != nil {
		m.fn = nil
		fn()
	}
	return c, err
}

// TestCopyFreezes: a table that was promised when the catalog was copied is made
// right after, so that the promise is no longer on record when claims are read
// again. In the copy one of the two must be there: else its first rows could go
// to _other, which has positions behind them.
func TestCopyFreezes(t *testing.T) {
	w := newWorld(t)
	w.fill(2)
	promised, later := lake.Ident{Namespace: "events", Name: "promised"}, lake.Ident{Namespace: "events", Name: "later"}
	_, _, err := w.lake.Claim(t.Context(), promised, nil)
	require.NoError(t, err)
	require.NoError(t, w.lake.MoveMark("events", at(4)))
	w.lake.catalog = &meanwhile{w.rows, func() {
		h := w.lake.Table(promised)
		_, err := h.Commit(t.Context(), work(t, h, load(t, h), 1, 9))
		require.NoError(t, err)
		_, _, err = w.lake.Claim(t.Context(), later, nil)
		require.NoError(t, err)
		require.NoError(t, w.lake.ReloadStream("events"))
		require.NoError(t, w.lake.MoveMark("events", at(9)))
	}}
	_, err = w.lake.Copy(t.Context(), CopyOptions{To: "/copy", Root: "/data", Pace: func(int) error { return nil }, Room: func(int64) error { return nil }})
	require.NoError(t, err)
	rows := w.rows.Copied("/copy/" + catalogFile)
	_, err = rows.Location(t.Context(), promised)
	made := err == nil
	claims, err := w.lake.io.ReadFile("/copy/lake/" + claimsFile)
	require.NoError(t, err)
	require.True(t, made || strings.Contains(string(claims), `"promised"`), "%s", claims)
	_, err = w.lake.io.ReadFile("/copy/lake/" + streamsFile)
	require.NoError(t, err)
	marks, err := w.lake.io.ReadFile("/copy/lake/" + MarksFile)
	require.NoError(t, err)
	require.Contains(t, string(marks), at(4).String(), "of before the copied catalog")
}

// TestCopyOfSetBackTable: what tells that a table's row was set back is in the
// copy too.
func TestCopyOfSetBackTable(t *testing.T) {
	for _, root := range []string{"/data", "/new"} {
		w := newWorld(t)
		w.fill(3)
		older, err := w.rows.Location(t.Context(), views)
		require.NoError(t, err)
		w.fill(2)
		newest, err := w.rows.Location(t.Context(), views)
		require.NoError(t, err)
		require.NoError(t, w.rows.Swap(t.Context(), views, newest, older))
		w.kill()
		w.open()
		want := load(t, w.lake.Table(views))
		require.Equal(t, at(10), want.RolledBack)
		_, rows, err := w.copyTo(root, nil)
		require.NoError(t, err)
		w.kill()
		require.NoError(t, w.fs.Rename("/data", "/lost"))
		got := load(t, w.restore(root, rows).Table(views))
		require.Equal(t, want.Positions, got.Positions)
		require.Equal(t, want.RolledBack, got.RolledBack)
	}
}
