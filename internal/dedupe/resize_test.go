package dedupe

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/quantity"
	"naru/internal/vfs"
)

// An index that somebody makes larger or smaller knows what it knew, as far as there
// is room, and cuts at every sync of the change, also to yet another size, take
// nothing: the log may have dropped it all.
func TestIndexOfAnotherSize(t *testing.T) {
	const n = 1500
	for i, sizes := range [][2]int64{{perBlock, 5 * perBlock}, {5 * perBlock, perBlock}, {40 * perBlock, 3 * perBlock}, {3 * perBlock, 2 * perBlock}} {
		before := shape{entries: sizes[0], chunks: 1 << 20, window: 1e9} // all fits
		after := shape{entries: sizes[1], chunks: 4, window: 1e9}
		third := shape{entries: 7 * perBlock, chunks: 4, window: 1e9}
		rng := rand.New(rand.NewPCG(uint64(i), 31))
		all := history(rng, n)
		half := 900 + rng.IntN(100)
		m := &model{shape: before}
		for _, e := range all[:half] {
			m.judge(e.k, e.digest, e.clock)
		}
		disk := vfs.NewMemory()
		x := openIndex(t, disk, before)
		for o, e := range all[:half] {
			_, err := x.judge(e.k, e.digest, int64(o), e.clock)
			require.NoError(t, err)
		}
		stopped(t, x)

		goesOn := func(disk *vfs.Memory, s shape) *index {
			t.Helper()
			x := openIndex(t, disk, s)
			ok, err := x.load(t.Context(), int64(half), []event.Incarnation{testLife})
			require.NoError(t, err)
			require.True(t, ok)
			require.EqualValues(t, half, x.next)
			require.EqualValues(t, len(m.kept), x.ordinal)
			require.Equal(t, m.clock, x.clock)
			return x
		}
		verdicts := func(x *index, s shape, kept int64) {
			t.Helper()
			now := &model{shape: s, kept: append([]sent{}, m.kept...), clock: m.clock}
			for j := range now.kept { // what went before for want of room does not come back
				if int64(j) < kept {
					now.kept[j].k = Key{}
				}
			}
			for o, e := range all[half:] {
				got, err := x.judge(e.k, e.digest, int64(half+o), e.clock)
				require.NoError(t, err)
				require.Equal(t, now.judge(e.k, e.digest, e.clock), got, "sizes %d, event %d", i, half+o)
			}
			stopped(t, x)
		}
		var cuts []*vfs.Memory
		image := disk.KillClone()
		image.OnSync(func(n int, _ vfs.Op, _ string) {
			for seed := range uint64(3) {
				cuts = append(cuts, image.CrashClone(seed+10*uint64(n)*(seed/2)))
			}
		})
		x = goesOn(image, after)
		first := x.chunks[0].head.first
		for _, name := range list(t, image) {
			size, _, ok := parseName(name)
			require.True(t, !ok || size == after.entries, "%s is left", name)
		}
		for seed := range uint64(6) { // some of the files that were removed are there again
			cuts = append(cuts, image.CrashClone(seed))
		}
		verdicts(x, after, 0)
		require.Greater(t, len(cuts), 5)
		for _, c := range cuts {
			verdicts(goesOn(c.KillClone(), after), after, 0)
			x := goesOn(c.KillClone(), third)
			require.LessOrEqual(t, x.chunks[0].head.first, first, "the other one's at least")
			verdicts(x, third, x.chunks[0].head.first)
			x = goesOn(c.KillClone(), before)
			require.LessOrEqual(t, x.chunks[0].head.first, first)
			verdicts(x, before, x.chunks[0].head.first)
		}
	}
}

func list(t *testing.T, fs vfs.FS) []string {
	t.Helper()
	names, err := fs.List("/ids")
	require.NoError(t, err)
	return names
}

// A file of the former size that is damaged is no reason to stop: the log tells.
func TestDamageInAnotherSize(t *testing.T) {
	before := shape{entries: perBlock, chunks: 100, window: 1e9}
	disk := vfs.NewMemory()
	x := openIndex(t, disk, before)
	for o := range int64(1000) {
		_, err := x.judge(Key{Hi: uint64(o) << 40, Lo: uint64(o)}, 1, o, 1)
		require.NoError(t, err)
	}
	stopped(t, x)
	f, err := disk.OpenReadWrite("/ids/" + before.chunkName(3) + idsSuffix)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{1, 2, 3}, blockSize+100)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	x = openIndex(t, disk, shape{entries: 2 * perBlock, chunks: 100, window: 1e9})
	ok, err := x.load(t.Context(), 1000, []event.Incarnation{testLife})
	require.NoError(t, err)
	require.False(t, ok)
	x.close()
}

// The size of the index and the number of partitions that share it change between
// starts, while the log is kept for less than the window: what is sent again is found.
func TestSizesChangeUnderShortLogs(t *testing.T) {
	w := newWorld(t, 12)
	w.retain = 2 * segment
	w.m.shape = shape{entries: 1 << 40, chunks: 1, window: w.m.shape.window}
	w.restart(w.disk)
	start := int64(0)
	for range 10 {
		w.cfg.Index = []quantity.Bytes{quantity.MiB, 2 * quantity.MiB, 3 * quantity.MiB}[w.rng.IntN(3)]
		ctx, cancel := context.WithCancel(t.Context())
		j := New(w.cfg, Deps{FS: w.disk, Dir: "/ids", Log: w.log, Logger: quiet, Pause: time.Millisecond, Sync: 4 << 10, Partitions: int32(1 + w.rng.IntN(3))})
		require.NoError(t, j.Open(ctx))
		done := make(chan error, 1)
		go func() { done <- j.Run(ctx) }()
		for range 80 {
			w.put(1 + w.rng.IntN(60))
		}
		w.judged(j)
		st, err := w.log.Stat(ctx, "events")
		require.NoError(t, err)
		start = st.Ranges[0].Start
		w.read(j.Log(), int(start))
		image := w.disk.KillClone()
		if w.rng.IntN(2) == 0 {
			image = w.disk.CrashClone(w.rng.Uint64())
		}
		cancel()
		require.NoError(t, <-done)
		w.restart(image)
	}
	require.Greater(t, start, int64(1000), "the log keeps too much")
	require.NoError(t, w.log.Close())
}
