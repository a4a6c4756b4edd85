package table

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/iceberg"
	"naru/internal/sink/sinktest"
	"naru/internal/stream"
	"naru/internal/vfs"
)

var seeds = flag.Int("seeds", 40, "random histories to try")

// moody is a catalog that answers as a bad network would.
type moody struct {
	*iceberg.MemoryCatalog
	mu   sync.Mutex // of rng
	rng  *rand.Rand
	mood float64 // how often it misbehaves
}

var errNoAnswer = errors.New("no answer")

func (c *moody) Swap(ctx context.Context, t lake.Ident, from, to string) error {
	c.mu.Lock()
	x := c.rng.Float64()
	c.mu.Unlock()
	switch {
	case x < c.mood/3:
		return errNoAnswer
	case x < 2*c.mood/3:
		if err := c.MemoryCatalog.Swap(ctx, t, from, to); err != nil {
			return err
		}
		return errNoAnswer
	case x < c.mood:
		return iceberg.ErrConflict
	}
	return c.MemoryCatalog.Swap(ctx, t, from, to)
}

// Whatever happens (restarts, kills, lost answers, failing disks, roll-backs by
// others), whatever the sizes of batches and the times of commits: in the end
// every event is in a table exactly once.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(*seeds) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { history(t, seed) })
	}
}

func history(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	const total = 120
	specs := make([]sinktest.Spec, total)
	for i := range specs {
		specs[i] = sinktest.Spec{ID: fmt.Sprintf("e%d", i), Type: fmt.Sprintf("t%d", rng.IntN(6)), Data: fmt.Sprintf(`{"n":%d,"c%d":1}`, i, rng.IntN(9))}
		if rng.IntN(30) == 0 {
			specs[i].Data = `{"n":1.5}`
		}
		if rng.IntN(2) == 0 {
			specs[i].Contract = fmt.Sprintf("h%d", rng.IntN(5))
		}
	}
	w := &world{t: t, fs: vfs.NewMemory(), rows: iceberg.NewMemoryCatalog(), cfg: iceberg.DefaultConfig(), log: &fakeLog{}}
	w.cfg.GCDelay, w.cfg.MaxTables, w.cfg.ExpireEvery, w.cfg.KeepSnapshots = 0, 2+rng.IntN(6), 1+rng.IntN(4), 3
	w.cfg.MaxPartitions = 1 + rng.IntN(4)
	w.cfg.CommitRate = []float64{0.3, 1000}[rng.IntN(2)]
	w.log.stat = stream.Stat{Incarnation: life, Ranges: []stream.Range{{Incarnation: life, End: total}}}
	cat := &moody{MemoryCatalog: w.rows, rng: rng}
	start := func() {
		l, err := iceberg.Open(t.Context(), w.cfg, w.fs, "/data", quiet, iceberg.WithCatalog(cat))
		require.NoError(t, err)
		require.NoError(t, l.KeepShapes(askedShapes))
		w.lake, w.tables = l, New(l, w.log, quiet)
	}
	start()
	mem := w.fs.(*vfs.Memory)

	restless := 2 + rng.IntN(5)
	watermark := int64(0)
	for session := 0; watermark < total; session++ {
		require.Less(t, session, 400, "it does not come to an end")
		calm := session > 40
		s, err := w.tables.Open(t.Context(), sinktest.Stream)
		require.NoError(t, err)
		from, err := s.(*Sink).Resume(t.Context(), sinktest.Stream)
		require.NoError(t, err)
		at := watermark
		if off, ok := from.Get(life, 0); ok {
			at = min(at, off)
		}
		cat.mood = []float64{0, 0.5}[rng.IntN(2)]
		if calm {
			cat.mood = 0
		}
		for at < total || watermark < total {
			if n := min(int64(1+rng.IntN(25)), total-at); n > 0 {
				b := sinktest.Batch(life, 0, at, specs[at:at+n]...)
				if err = s.Write(t.Context(), b); err != nil {
					break
				}
				at = b.Next
			}
			if rng.IntN(3) > 0 {
				continue
			}
			if !calm && rng.IntN(8) == 0 {
				mem.Inject(vfs.Rule{Ops: vfs.OpSync | vfs.OpSyncDir | vfs.OpWrite, Skip: rng.IntN(12), Times: 1})
			}
			var done event.Positions
			if rng.IntN(3) == 0 || calm {
				done, err = s.(*Sink).Drain(t.Context())
			} else {
				done, err = s.Commit(t.Context())
			}
			mem.Heal()
			if err != nil {
				break
			}
			off, ok := done.Get(life, 0)
			require.True(t, ok)
			watermark = max(watermark, off)
			if !calm && rng.IntN(restless) == 0 {
				break
			}
		}
		mem.Heal()
		cat.mood = 0
		if !calm && rng.IntN(restless) == 0 {
			w.randomRollBack(rng)
		}
		if rng.IntN(3) == 0 { // killed: nobody closes anything
			w.fs = mem.CrashClone(rng.Uint64())
			mem = w.fs.(*vfs.Memory)
			w.cfg.MaxTables = 1 + rng.IntN(7)
			start()
			if rng.IntN(2) == 0 {
				_, err := w.lake.CollectOrphans(t.Context())
				require.NoError(t, err)
			}
		} else {
			require.NoError(t, s.Close())
		}
		w.lake.CollectGarbage()
	}
	// A roll-back of the last session is still to be made good.
	for range 2 {
		s, err := w.tables.Open(t.Context(), sinktest.Stream)
		require.NoError(t, err)
		from, err := s.(*Sink).Resume(t.Context(), sinktest.Stream)
		require.NoError(t, err)
		if off, ok := from.Get(life, 0); ok {
			require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, off, specs[off:]...)))
		}
		_, err = s.(*Sink).Drain(t.Context())
		require.NoError(t, err)
		for _, st := range w.tables.Status() {
			require.Empty(t, st.Error)
		}
		require.NoError(t, s.Close())
	}
	w.requireIDs(numbers(total))
}

// askedShapes are what contracts say of random histories: tables of their own, some
// of which are those of other types, and columns of types that do not fit.
var askedShapes = map[string]*lake.Shape{
	"h0": {Table: "asked", Columns: []lake.ShapeColumn{{Path: "n", Kind: "double"}}, Sort: []lake.ShapeSort{{Path: "n", Descending: true}}},
	"h1": {Table: "t1", Partition: []lake.ShapePartition{{Transform: "bucket", N: 3, Path: "_id"}, {Transform: "hour", Path: "_time"}}},
	"h2": {Columns: []lake.ShapeColumn{{Path: "n", Kind: "long"}, {Path: "c1", Kind: "timestamptz"}, {Path: "never", Kind: "date"}},
		Partition: []lake.ShapePartition{{Transform: "bucket", N: 2, Path: "n"}}, Sort: []lake.ShapeSort{{Path: "never"}, {Path: "n", Descending: true}}},
	"h3": {Table: "also_asked", Partition: []lake.ShapePartition{{Transform: lake.None}}},
}

// randomRollBack sets some table back by a commit or two, if it has them.
func (w *world) randomRollBack(rng *rand.Rand) {
	w.t.Helper()
	list, err := w.rows.List(w.t.Context())
	require.NoError(w.t, err)
	if len(list) > 0 {
		w.rollBack(list[rng.IntN(len(list))].Name, 1+rng.IntN(2))
	}
}
