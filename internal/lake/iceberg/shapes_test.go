package iceberg

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/vfs"
)

func openShapes(t *testing.T, fs vfs.FS, opts ...Option) *Lake {
	t.Helper()
	l, err := Open(context.Background(), DefaultConfig(), fs, "/data", quiet, append(opts, WithCatalog(NewMemoryCatalog()))...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

var (
	shapeA = &lake.Shape{Table: "a", Columns: []lake.ShapeColumn{{Path: "at", Kind: "timestamptz", UTC: true}}}
	shapeB = &lake.Shape{Columns: []lake.ShapeColumn{{Path: "n", Kind: "long"}}}
)

// What KeepShapes has returned for is there after a power cut.
func TestShapesAreDurable(t *testing.T) {
	mem := vfs.NewMemory()
	l := openShapes(t, mem)
	require.NoError(t, l.KeepShapes(map[string]*lake.Shape{"h1": shapeA, "h2": shapeB, "none": nil}))
	require.NoError(t, l.KeepShapes(map[string]*lake.Shape{"h3": shapeA}))
	for seed := range uint64(5) {
		after := openShapes(t, mem.CrashClone(seed))
		for _, x := range []*Lake{l, after} {
			require.Equal(t, shapeA, x.Shape([]byte("h1")))
			require.Equal(t, shapeB, x.Shape([]byte("h2")))
			require.Same(t, x.Shape([]byte("h1")), x.Shape([]byte("h3")), "kept once")
			require.Nil(t, x.Shape([]byte("none")))
			require.Nil(t, x.Shape(nil))
			require.Equal(t, "a", x.TableOf([]byte("T"), []byte("h3")))
			require.Equal(t, "t", x.TableOf([]byte("T"), []byte("h2")))
			require.Equal(t, "t", x.TableOf([]byte("T"), []byte("unknown")))
		}
	}
}

// Rows were made by what a contract said first: another reading of it, as a later
// naru may have, does not change them.
func TestShapesKeepTheFirst(t *testing.T) {
	mem := vfs.NewMemory()
	l := openShapes(t, mem)
	require.NoError(t, l.KeepShapes(map[string]*lake.Shape{"h": shapeA}))
	require.NoError(t, l.KeepShapes(map[string]*lake.Shape{"h": shapeB}))
	require.Equal(t, shapeA, l.Shape([]byte("h")))
}

// A disk that fails leaves what was known.
func TestShapesNotKept(t *testing.T) {
	mem := vfs.NewMemory()
	l := openShapes(t, mem)
	require.NoError(t, l.KeepShapes(map[string]*lake.Shape{"h1": shapeA}))
	mem.Inject(vfs.Rule{Ops: vfs.OpSync, Times: 1})
	require.Error(t, l.KeepShapes(map[string]*lake.Shape{"h2": shapeB}))
	require.Nil(t, l.Shape([]byte("h2")))
	require.NoError(t, l.KeepShapes(map[string]*lake.Shape{"h2": shapeB}))
	require.Equal(t, shapeB, l.Shape([]byte("h2")))
	require.Equal(t, shapeA, l.Shape([]byte("h1")))
}

// Partition and order make no rows. A contract that a naru has kept which did not
// apply them gets them, and nothing else.
func TestShapesGetTheirLayout(t *testing.T) {
	mem := vfs.NewMemory()
	l := openShapes(t, mem)
	columns := []lake.ShapeColumn{{Path: "n", Kind: "long"}}
	old := &lake.Shape{Table: "a", Columns: columns}
	require.NoError(t, l.KeepShapes(map[string]*lake.Shape{"h": old, "i": old, "k": old}))
	laid := &lake.Shape{Table: "a", Columns: columns, Sort: []lake.ShapeSort{{Path: "n"}}}
	other := &lake.Shape{Table: "b", Columns: columns, Sort: []lake.ShapeSort{{Path: "n"}}}
	require.NoError(t, l.KeepShapes(map[string]*lake.Shape{"h": laid, "i": other}))
	for range 2 {
		require.Equal(t, laid, l.Shape([]byte("h")))
		require.Equal(t, old, l.Shape([]byte("i")), "that would be other rows")
		require.Equal(t, old, l.Shape([]byte("k")))
		require.NoError(t, l.KeepShapes(map[string]*lake.Shape{"h": {Table: "a", Columns: columns, Sort: []lake.ShapeSort{{Path: "_id"}}}}), "what it has, it has")
		require.NoError(t, l.Close())
		l = openShapes(t, mem)
	}
}

// Another process that only looks sees contracts that were taken over since.
func TestShapesWhileAnotherLooks(t *testing.T) {
	mem := vfs.NewMemory()
	l := openShapes(t, mem)
	looks := openShapes(t, mem, ReadOnly())
	require.Nil(t, looks.Shape([]byte("older")))
	require.NoError(t, l.KeepShapes(map[string]*lake.Shape{"h": shapeA}))
	require.Equal(t, shapeA, looks.Shape([]byte("h")))
	require.Error(t, looks.KeepShapes(map[string]*lake.Shape{"i": shapeA}))
}

func TestCopyShapes(t *testing.T) {
	mem := vfs.NewMemory()
	l := openShapes(t, mem)
	require.NoError(t, mem.MkdirAll("/copy/lake"))
	n, size, err := l.CopyShapes("/copy")
	require.NoError(t, err)
	require.Zero(t, n+int(size))
	require.NoError(t, l.KeepShapes(map[string]*lake.Shape{"h": shapeA}))
	n, size, err = l.CopyShapes("/copy")
	require.NoError(t, err)
	require.Equal(t, 1, n)
	info, err := mem.Stat(filepath.Join("/copy", lakeFolder, shapesFile))
	require.NoError(t, err)
	require.Equal(t, info.Size(), size)
	_, err = mem.CrashClone(1).Stat(filepath.Join("/copy", lakeFolder, shapesFile))
	require.NoError(t, err, "durable")
}

// A damaged file ends a start, with the cure, and is named by a check; whoever only
// looks still can.
func TestShapesDamaged(t *testing.T) {
	mem := vfs.NewMemory()
	l := openShapes(t, mem)
	require.NoError(t, l.KeepShapes(map[string]*lake.Shape{"h": shapeA}))
	require.NoError(t, l.Close())
	name := filepath.Join("/data", lakeFolder, shapesFile)
	text, err := fileIO{mem}.ReadFile(name)
	require.NoError(t, err)
	text[len(text)-5] ^= 1
	require.NoError(t, fileIO{mem}.WriteFile(name, text))
	_, err = Open(t.Context(), DefaultConfig(), mem, "/data", quiet, WithCatalog(NewMemoryCatalog()))
	require.ErrorContains(t, err, shapesFile)
	require.Contains(t, fault.HintOf(err), "backup")
	looks := openShapes(t, mem, ReadOnly())
	require.Nil(t, looks.Shape([]byte("h")))
	var bad []string
	require.NoError(t, looks.Check(t.Context(), CheckOptions{}, func(f CheckedFile) error {
		if f.Bad() {
			bad = append(bad, filepath.Base(f.Path))
		}
		return nil
	}))
	require.Equal(t, []string{shapesFile}, bad)
}

// Beyond the bound nothing more is taken, what is there stays, and the error names
// the cure. A lake that has more than the bound still opens.
func TestShapesAreBounded(t *testing.T) {
	mem := vfs.NewMemory()
	l := openShapes(t, mem)
	l.cfg.Contracts = 400
	require.NoError(t, l.KeepShapes(map[string]*lake.Shape{"h1": shapeA}))
	size := func() int {
		text, err := fileIO{mem}.ReadFile(filepath.Join("/data", lakeFolder, shapesFile))
		require.NoError(t, err)
		return len(text)
	}
	before := size()
	large := &lake.Shape{Table: strings.Repeat("x", 300)}
	err := l.KeepShapes(map[string]*lake.Shape{"h2": large, "h3": shapeA})
	require.ErrorContains(t, err, "contracts.json would have")
	require.ErrorContains(t, err, "at most 400B are kept")
	require.Contains(t, fault.HintOf(err), "lake.contracts")
	require.Equal(t, before, size())
	require.Nil(t, l.Shape([]byte("h2")))
	require.Nil(t, l.Shape([]byte("h3")), "all or none: they come into force together")
	require.NoError(t, l.KeepShapes(map[string]*lake.Shape{"h3": shapeA}))
	for i := range 20 { // each version takes its hash
		err = l.KeepShapes(map[string]*lake.Shape{fmt.Sprintf("%032d", i): shapeA})
	}
	require.ErrorContains(t, err, "at most 400B are kept")
	require.LessOrEqual(t, size(), 400)
	l.cfg.Contracts = 100
	require.NoError(t, l.KeepShapes(map[string]*lake.Shape{"h1": shapeA, "h3": shapeA}), "what is there is no news")
	require.Equal(t, shapeA, openShapes(t, mem.CrashClone(1)).Shape([]byte("h3")))
}
