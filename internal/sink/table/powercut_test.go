package table

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/lake/iceberg"
	"naru/internal/sink/sinktest"
	"naru/internal/vfs"
)

// Power is cut at every sync of loading; afterwards everything is read again
// from the start, and every event must be there once.
func TestPowerCutAtEverySync(t *testing.T) {
	batches := [][]sinktest.Spec{typed(0, "a", "b"), typed(2, "a"), typed(3, "b", "a", "c"), typed(6, "a", "c")}
	load := func(w *world) error {
		s, err := w.tables.Open(context.Background(), sinktest.Stream)
		if err != nil {
			return err
		}
		off := int64(0)
		for _, specs := range batches {
			b := sinktest.Batch(life, 0, off, specs...)
			err = errors.Join(err, s.Write(context.Background(), b))
			if err == nil {
				_, err = s.(*Sink).Drain(context.Background())
			}
			off = b.Next
		}
		return errors.Join(err, s.Close())
	}
	type cut struct {
		fs   *vfs.Memory
		rows *iceberg.MemoryCatalog
	}
	var mu sync.Mutex // tables are committed side by side
	var cuts []cut
	w := newWorld(t)
	w.fs.(*vfs.Memory).OnSync(func(n int, _ vfs.Op, _ string) {
		mu.Lock()
		defer mu.Unlock()
		for seed := range uint64(3) {
			if seed == 2 {
				seed += uint64(n)
			}
			// The catalog first: a row that is there has its files on disk already.
			rows := w.rows.Clone()
			cuts = append(cuts, cut{w.fs.(*vfs.Memory).CrashClone(seed), rows})
		}
	})
	require.NoError(t, load(w))
	w.fs.(*vfs.Memory).OnSync(nil)
	w.requireIDs(numbers(8))
	require.Greater(t, len(cuts), 3*40)
	for i, c := range cuts {
		after := &world{t: t, fs: c.fs, rows: c.rows, cfg: w.cfg, log: w.log}
		after.open()
		require.NoError(t, load(after), "cut %d", i)
		after.requireIDs(numbers(8))
		if i%7 == 0 { // what the crash left is found and removed, and nothing that is needed
			require.NoError(t, after.lake.Close())
			after.open()
			_, err := after.lake.CollectOrphans(t.Context())
			require.NoError(t, err)
			after.lake.CollectGarbage()
			after.requireIDs(numbers(8))
		}
		require.NoError(t, after.lake.Close())
	}
}
