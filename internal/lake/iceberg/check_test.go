package iceberg

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/quantity"
	"naru/internal/vfs"
)

// check returns the verdicts of all files that Check names, by path.
func (w *world) check(opt CheckOptions) map[string]CheckedFile {
	w.t.Helper()
	all := map[string]CheckedFile{}
	require.NoError(w.t, w.lake.Check(w.t.Context(), opt, func(f CheckedFile) error {
		_, twice := all[f.Path]
		require.False(w.t, twice, "%s was named twice", f.Path)
		all[f.Path] = f
		if f.Bad() {
			require.NotEmpty(w.t, f.Reason, f.Path)
			require.NotEmpty(w.t, f.Cure, f.Path)
		}
		return nil
	}))
	return all
}

func (w *world) bad(opt CheckOptions) (names []string) {
	w.t.Helper()
	for p, f := range w.check(opt) {
		if f.Bad() {
			names = append(names, p)
		}
	}
	slices.Sort(names)
	return names
}

// files lists everything below the warehouse.
func (w *world) files() (all []string) {
	w.t.Helper()
	c := &checker{lake: w.lake}
	require.NoError(w.t, c.files(w.t.Context(), w.lake.root, &all))
	return slices.DeleteFunc(all, func(p string) bool { return filepath.Base(p) == lockFile })
}

func (w *world) read(p string) []byte {
	w.t.Helper()
	f, err := w.fs.Open(p)
	require.NoError(w.t, err)
	b, err := readAll(f)
	require.NoError(w.t, err)
	return b
}

// write puts bytes into a file as damage does: past all naming.
func (w *world) write(p string, b []byte) {
	w.t.Helper()
	f, err := w.fs.Create(p)
	require.NoError(w.t, err)
	_, err = f.Write(b)
	require.NoError(w.t, err)
	require.NoError(w.t, f.Close())
}

// ofEveryKind makes a lake with all kinds of files that naru writes.
func ofEveryKind(t *testing.T) *world {
	w := newWorld(t)
	w.add(1)
	w.add(2)
	_, _, err := w.lake.Claim(t.Context(), lake.Ident{Namespace: "events", Name: "promised"}, at(3))
	require.NoError(t, err)
	require.NoError(t, w.lake.Refuse(lake.Ident{Namespace: "events", Name: "ahead"}, at(5)))
	return w
}

func TestCheckOfAWholeLake(t *testing.T) {
	w := ofEveryKind(t)
	kinds := map[FileKind]int{}
	for _, f := range w.check(CheckOptions{}) {
		require.Equal(t, Whole, f.Verdict, "%+v", f)
		require.EqualValues(t, len(w.read(f.Path)), f.Bytes)
		kinds[f.Kind]++
	}
	require.Equal(t, map[FileKind]int{KindLake: 3, KindMetadata: 1, KindPrevious: 1, KindList: 2, KindManifest: 2, KindData: 2}, kinds)
	require.Len(t, w.check(CheckOptions{Tables: []lake.Ident{views}}), 8)
	require.ErrorIs(t, w.lake.Check(t.Context(), CheckOptions{Tables: []lake.Ident{{Namespace: "no", Name: "table"}}},
		func(CheckedFile) error { return nil }), lake.ErrNoTable)
}

// Every byte of every file, one at a time.
func TestEveryFlippedByteIsFound(t *testing.T) {
	w := ofEveryKind(t)
	stride, seed := 17, rand.Uint64()
	if os.Getenv("NARU_SOAK") != "" {
		stride = 1
	}
	rng := rand.New(rand.NewPCG(seed, 2))
	flips := 0
	for _, p := range w.files() {
		b := w.read(p)
		for i := rng.IntN(min(stride, len(b))); i < len(b); i += stride {
			flipped := slices.Clone(b)
			flipped[i] ^= 1 << rng.IntN(8)
			w.write(p, flipped)
			require.Equal(t, []string{p}, w.bad(CheckOptions{}), "seed %d, byte %d", seed, i)
			flips++
		}
		w.write(p, b)
	}
	require.Empty(t, w.bad(CheckOptions{}))
	require.Greater(t, flips, 200)
}

func TestTruncatedMissingSwappedAndOlderFilesAreFound(t *testing.T) {
	w := ofEveryKind(t)
	all := w.files()
	require.NoError(t, w.lake.Reloaded("events")) // of a lake with checksums: see TestNoRefusalsLeft
	for _, p := range all {
		b := w.read(p)
		for _, cut := range []int{0, 1, len(b) / 2, len(b) - 1} {
			w.write(p, b[:cut])
			require.Equal(t, []string{p}, w.bad(CheckOptions{}), "cut to %d bytes", cut)
			if strings.HasSuffix(p, dataSuffix) {
				require.Equal(t, []string{p}, w.bad(CheckOptions{Shallow: true}))
				require.EqualValues(t, cut, w.check(CheckOptions{})[p].Offset)
			}
		}
		w.write(p, append(slices.Clone(b), 0))
		require.Equal(t, []string{p}, w.bad(CheckOptions{}), "longer")
		w.write(p, b)

		if strings.HasSuffix(p, claimsFile) || strings.HasSuffix(p, RefusedFile) {
			continue // such a file need not be
		}
		require.NoError(t, w.fs.Remove(p))
		got := w.check(CheckOptions{})
		require.Equal(t, Missing, got[p].Verdict)
		w.write(p, b)
	}
	for i, p := range all {
		for _, q := range all[:i] {
			if filepath.Ext(p) != filepath.Ext(q) || slices.Equal(w.read(p), w.read(q)) {
				continue // data files of one content are as good as each other
			}
			a, b := w.read(p), w.read(q)
			w.write(p, b)
			w.write(q, a)
			require.Contains(t, w.bad(CheckOptions{}), p)
			w.write(p, a)
			w.write(q, b)
		}
	}
	require.Empty(t, w.bad(CheckOptions{}))
}

// What is behind damage is not called an orphan for sure.
func TestOrphansAreNoDamage(t *testing.T) {
	w := ofEveryKind(t)
	strange := []string{"/data/lake/notes.txt", "/data/lake/events/page_view/data/x.parquet", "/data/lake/events/gone/metadata/00001-x.metadata.json"}
	for _, p := range strange {
		require.NoError(t, w.fs.MkdirAll(filepath.Dir(p)))
		w.write(p, []byte("x"))
	}
	got := w.check(CheckOptions{})
	for _, p := range strange {
		require.Equal(t, Orphan, got[p].Verdict)
		require.Equal(t, "no table needs it", got[p].Reason)
		require.False(t, got[p].Bad())
	}
	require.Empty(t, w.bad(CheckOptions{}))
	loc, err := w.rows.Location(t.Context(), views)
	require.NoError(t, err)
	p, err := localPath(loc)
	require.NoError(t, err)
	w.write(p, []byte("{}"))
	got = w.check(CheckOptions{})
	require.Contains(t, got["/data/lake/events/page_view/data/x.parquet"].Reason, "may")
}

// Files of naru before it had checksums are looked at as others' are.
func TestFilesWithoutChecksums(t *testing.T) {
	w := newWorld(t)
	b := columnar.NewBuilder(w.fs, columnar.NewSchema(), columnar.Options{Writers: w.lake.Writers,
		Path:   func(string) string { return "/data/lake/events/page_view/data/_time_day=2015-09-12/old.parquet" },
		Create: func(p string) (columnar.Output, error) { return w.lake.io.create(p) }})
	for i := range 200 {
		require.NoError(t, b.Append(&event.Event{Offset: int64(i), Data: fmt.Appendf(nil, `{"n":%d,"text":"some text %d"}`, i, i*i)}, life, 0))
	}
	files, err := b.Finish(t.Context())
	require.NoError(t, err)
	h := w.lake.Table(views)
	_, err = h.Commit(t.Context(), Commit{Base: load(t, h), Files: files, Schema: b.Schema(), Positions: at(200)})
	require.NoError(t, err)
	p := files[0].Path
	got := w.check(CheckOptions{})[p]
	require.Equal(t, Unsummed, got.Verdict, "%+v", got)
	require.Equal(t, []int64{200, 0, 199}, []int64{got.Rows, got.FirstOffset, got.LastOffset})

	whole := w.read(p)
	found, tried := 0, 0
	for i := 0; i < len(whole); i += 13 {
		flipped := slices.Clone(whole)
		flipped[i] ^= 0x10
		w.write(p, flipped)
		tried++
		if f := w.check(CheckOptions{})[p]; f.Bad() {
			found++
		}
	}
	// zstd checks what it unpacks, so nearly all of the file is covered.
	require.Greater(t, found*10, tried*5, "%d of %d", found, tried)
	w.write(p, whole[:len(whole)-7])
	require.Equal(t, []string{p}, w.bad(CheckOptions{Shallow: true}))
}

// A server goes on committing and expiring while its files are checked.
func TestCheckBesideCommits(t *testing.T) {
	w := newWorld(t)
	w.cfg.ExpireEvery, w.cfg.KeepSnapshots = 1, 1
	w.kill()
	w.open()
	w.add(1)
	w.add(1)
	looker, err := Open(t.Context(), w.cfg, w.fs, "/data", quiet, ReadOnly(), WithCatalog(w.rows))
	require.NoError(t, err)
	calls, commits := 0, 0
	for round := range 20 {
		require.NoError(t, looker.Check(t.Context(), CheckOptions{}, func(f CheckedFile) error {
			require.False(t, f.Bad(), "%+v", f)
			if calls++; calls%3 == 0 && commits < 4*round {
				w.add(1)
				w.lake.CollectGarbage()
				commits++
			}
			return nil
		}))
	}
	require.Equal(t, 4*19, commits)
}

// What naru reads of a table, it holds against its name.
func TestDamagedMetadataIsNotRead(t *testing.T) {
	for _, kind := range []FileKind{KindMetadata, KindList, KindManifest} {
		t.Run(string(kind), func(t *testing.T) {
			w := newWorld(t)
			w.add(1)
			w.add(1)
			var p string
			for _, f := range w.check(CheckOptions{}) {
				if f.Kind == kind && f.Current {
					p = f.Path
				}
			}
			b := w.read(p)
			// A change that every parser swallows.
			i := strings.Index(string(b), "naru.commit-id")
			if i < 0 {
				i = strings.Index(string(b), "_time_day=2015")
			}
			if i < 0 {
				i = len(b) / 2
			}
			b[i+1] ^= 1
			w.write(p, b)
			w.kill()
			w.open()
			_, err := w.lake.View(t.Context(), views)
			require.ErrorContains(t, err, p)
			require.ErrorContains(t, err, "CRC-32C")
			require.Contains(t, fault.HintOf(err), "naru table reload events.page_view")
			if kind == KindManifest {
				return
			}
			_, err = w.lake.Table(views).Load(t.Context())
			require.ErrorIs(t, err, ErrUnfit)
		})
	}
}

// A manifest that cannot be read is not merged, and rows are taken on.
func TestDamagedManifestDoesNotStopCommits(t *testing.T) {
	w := newWorld(t)
	w.add(1)
	var p string
	for _, f := range w.check(CheckOptions{}) {
		if f.Kind == KindManifest {
			p = f.Path
		}
	}
	b := w.read(p)
	w.write(p, b[:len(b)-1])
	w.kill()
	w.open()
	for range 60 {
		w.add(1)
	}
	require.Equal(t, []string{p}, w.bad(CheckOptions{}))
	w.write(p, b) // brought back
	w.kill()
	w.open()
	w.requireRows(61, 61)
}

// A promotion writes old rows into new files with checksums of their own: what
// was damaged must not pass for whole afterwards.
func TestPromotionRefusesDamagedFiles(t *testing.T) {
	w := newWorld(t)
	h := w.lake.Table(views)
	build := func(s *State, data string) Commit {
		schema := s.Schema
		if schema == nil {
			schema = columnar.NewSchema()
		}
		b := columnar.NewBuilder(w.fs, schema, columnar.Options{Writers: w.lake.Writers, Create: w.lake.CreateFile,
			Path: func(folder string) string { return h.DataPath(s, folder) }, AllowPromotion: func(int) bool { return true }})
		off, _ := s.Positions.Get(life, 0)
		require.NoError(t, b.Append(&event.Event{Offset: off, Data: []byte(data)}, life, 0))
		files, err := b.Finish(t.Context())
		require.NoError(t, err)
		return Commit{Base: s, Files: files, Schema: b.Schema(), Positions: at(off + 1)}
	}
	first := build(load(t, h), `{"n":1}`)
	s, err := h.Commit(t.Context(), first)
	require.NoError(t, err)
	p := first.Files[0].Path
	b := w.read(p)
	b[len(b)/2] ^= 4
	w.write(p, b)
	_, err = h.Commit(t.Context(), build(s, `{"n":1.5}`))
	require.ErrorIs(t, err, ErrUnfit)
	require.ErrorContains(t, err, p)
	b[len(b)/2] ^= 4
	w.write(p, b)
	_, err = h.Commit(t.Context(), build(load(t, h), `{"n":1.5}`))
	require.NoError(t, err)
}

func TestCheckOfTheCatalog(t *testing.T) {
	dir := t.TempDir()
	cfg := DefaultConfig()
	cfg.GCDelay = quantity.Duration(0)
	l, err := Open(t.Context(), cfg, vfs.OS(), dir, quiet)
	require.NoError(t, err)
	h := l.Table(views)
	_, err = h.Commit(t.Context(), work(t, h, load(t, h), 1, 1))
	require.NoError(t, err)
	require.NoError(t, l.Close())
	catalog := filepath.Join(dir, catalogFile)

	look := func() (bad []CheckedFile, err error) {
		l, err := Open(t.Context(), cfg, vfs.OS(), dir, quiet, ReadOnly())
		if err != nil {
			return nil, err
		}
		err = l.Check(t.Context(), CheckOptions{}, func(f CheckedFile) error {
			if f.Bad() {
				bad = append(bad, f)
			}
			return nil
		})
		return bad, errors.Join(err, l.Close())
	}
	bad, err := look()
	require.NoError(t, err)
	require.Empty(t, bad)

	b, err := os.ReadFile(catalog)
	require.NoError(t, err)
	row := strings.Index(string(b), ".metadata.json")
	require.Positive(t, row)
	for _, at := range []int{0, row - 20, row + 3} { // its head, and what a row says
		broken := slices.Clone(b)
		broken[at] ^= 1
		require.NoError(t, os.WriteFile(catalog, broken, 0o644))
		bad, err := look()
		if err != nil {
			require.ErrorContains(t, err, catalog)
			continue
		}
		require.NotEmpty(t, bad, "byte %d", at)
	}
	require.NoError(t, os.WriteFile(catalog, b[:len(b)-4096], 0o644))
	bad, err = look()
	require.True(t, err != nil || len(bad) > 0)

	// Without its catalog a lake with tables is not opened, and none is made.
	require.NoError(t, os.Remove(catalog))
	for _, opts := range [][]Option{nil, {ReadOnly()}} {
		_, err = Open(context.Background(), cfg, vfs.OS(), dir, quiet, opts...)
		require.ErrorIs(t, err, ErrNoCatalog)
		_, err = os.Stat(catalog)
		require.ErrorIs(t, err, os.ErrNotExist)
	}
	require.NoError(t, os.WriteFile(catalog, b, 0o644))
	bad, err = look()
	require.NoError(t, err)
	require.Empty(t, bad)
}
