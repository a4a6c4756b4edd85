package dedupe

import (
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/quantity"
	"naru/internal/vfs"
)

var (
	quiet    = slog.New(slog.DiscardHandler)
	testLife = event.Incarnation{1}
	testLane = laneID{"events", 0}
)

// model says by the words of the rule what becomes of an event: nothing but a list
// of what was kept.
type model struct {
	shape shape
	kept  []sent
	clock int64
}

func (m *model) judge(k Key, digest uint64, clock int64) Fate {
	m.clock = max(m.clock, clock)
	fate := Fresh
	for i, e := range m.kept {
		newest := int64(len(m.kept)-1) / m.shape.entries
		if e.k != k || e.clock < m.clock-m.shape.window || int64(i)/m.shape.entries <= newest-m.shape.chunks {
			continue
		}
		if e.digest == digest {
			return Duplicate
		}
		fate = Conflict
	}
	m.kept = append(m.kept, sent{k, digest, m.clock})
	return fate
}

// fatesOf judges a history as the model does.
func fatesOf(s shape, all []sent) []Fate {
	m := &model{shape: s}
	fates := make([]Fate, len(all))
	for o, e := range all {
		fates[o] = m.judge(e.k, e.digest, e.clock)
	}
	return fates
}

// sent is one event of a history.
type sent struct {
	k      Key
	digest uint64
	clock  int64
}

// history is events of which many come again, some with other bytes, under a
// clock that mostly goes on.
func history(rng *rand.Rand, n int) []sent {
	out := make([]sent, n)
	clock := int64(1_000_000)
	for i := range out {
		if rng.IntN(3) == 0 {
			clock += rng.Int64N(40)
		}
		if rng.IntN(200) == 0 {
			clock -= 500
		}
		k := Key{Hi: rng.Uint64(), Lo: rng.Uint64()}
		d := rng.Uint64N(2)
		if i > 0 && rng.IntN(2) == 0 {
			back := rng.IntN(min(i, []int{4, 40, 4000}[rng.IntN(3)])) + 1
			k, d = out[i-back].k, out[i-back].digest
			if rng.IntN(10) == 0 {
				d++
			}
		}
		if rng.IntN(20) == 0 {
			k.Lo = 7 // one tag for many
		}
		if rng.IntN(20) == 0 {
			k.Lo &^= 0xffff // the tag that is none
		}
		out[i] = sent{k, d, clock}
	}
	return out
}

func openIndex(t *testing.T, fs vfs.FS, s shape) *index {
	t.Helper()
	x := newIndex(fs, "/ids", s, testLane, testLife, quiet)
	require.NoError(t, fs.MkdirAll("/ids"))
	return x
}

var smallShapes = []shape{
	{entries: perBlock, chunks: 3, window: 1e9},
	{entries: 5 * perBlock, chunks: 2, window: 700},
	{entries: 40 * perBlock, chunks: 4, window: 5000},
	{entries: perBlock, chunks: chunks, window: 300},
}

func TestIndexIsTheModel(t *testing.T) {
	for i, s := range smallShapes {
		rng := rand.New(rand.NewPCG(uint64(i), 1))
		x, m := openIndex(t, vfs.NewMemory(), s), &model{shape: s}
		counts := map[Fate]int{}
		for o, e := range history(rng, 6000) {
			want := m.judge(e.k, e.digest, e.clock)
			got, err := x.judge(e.k, e.digest, int64(o), e.clock)
			require.NoError(t, err)
			require.Equal(t, want, got, "shape %d, event %d", i, o)
			counts[got]++
		}
		stopped(t, x)
		require.Greater(t, counts[Duplicate], 100, "%v", counts)
		require.Greater(t, counts[Conflict], 10, "%v", counts)
	}
}

// again loads an index from a disk and brings it to an offset by what the model
// has found, as a lane does by the verdicts in the log.
func again(t *testing.T, fs vfs.FS, s shape, all []sent, fates []Fate, upTo int) *index {
	t.Helper()
	x := openIndex(t, fs, s)
	ok, err := x.load(t.Context(), int64(upTo), []event.Incarnation{testLife})
	require.NoError(t, err)
	if !ok {
		require.NoError(t, x.reset(0, 0))
	}
	require.LessOrEqual(t, x.next, int64(upTo))
	for o := x.next; o < int64(upTo); o++ {
		require.NoError(t, x.see(o, all[o].clock))
		if fates[o] != Duplicate {
			require.NoError(t, x.register(all[o].k, all[o].digest, o))
		}
	}
	return x
}

// stopped saves and closes an index, as a server that stops does.
func stopped(t testing.TB, x *index) {
	t.Helper()
	require.NoError(t, x.save())
	x.secured()
	x.close()
}

// Whatever is left of the files, the index goes on as if nothing had happened:
// after a stop, a kill and a power cut at any sync, at any offset that the log may
// have on record.
func TestIndexAfterEveryCut(t *testing.T) {
	for i, s := range smallShapes {
		rng := rand.New(rand.NewPCG(uint64(i), 2))
		const n = 1200
		all := history(rng, n)
		fates := fatesOf(s, all)
		disk := vfs.NewMemory()
		type cut struct {
			disk *vfs.Memory
			at   int
			low  int // the position on record is not below
		}
		var cuts []cut
		o, floor := 0, 0
		cutHere := func(n int, _ vfs.Op, _ string) {
			for seed := range uint64(3) {
				cuts = append(cuts, cut{disk.CrashClone(seed + 10*uint64(n)*(seed/2)), o, floor})
			}
		}
		disk.OnSync(cutHere)
		x := openIndex(t, disk, s)
		for ; o < n; o++ {
			got, err := x.judge(all[o].k, all[o].digest, int64(o), all[o].clock)
			require.NoError(t, err)
			require.Equal(t, fates[o], got)
			switch rng.IntN(150) {
			case 0:
				require.NoError(t, x.save())
				x.secured()
			case 1:
				cuts = append(cuts, cut{disk.KillClone(), o + 1, floor})
			case 2: // a stop, and the next start, whose position may be behind
				stopped(t, x)
				disk = disk.KillClone()
				disk.OnSync(cutHere)
				o = floor + rng.IntN(o+2-floor) - 1
				x = again(t, disk, s, all, fates, o+1)
			case 3, 4:
				floor = o + 1
				require.NoError(t, x.settled())
			}
		}
		x.close()
		require.Greater(t, len(cuts), 5)
		for j, c := range cuts {
			for _, upTo := range []int{c.at, c.low + (c.at-c.low)/2, c.low} {
				disk := c.disk.KillClone()
				x := again(t, disk, s, all, fates, upTo)
				for o := upTo; o < min(upTo+400, n); o++ {
					got, err := x.judge(all[o].k, all[o].digest, int64(o), all[o].clock)
					require.NoError(t, err)
					require.Equal(t, fates[o], got, "shape %d, cut %d up to %d, event %d", i, j, upTo, o)
				}
				stopped(t, x)
			}
		}
	}
}

// A byte that changes anywhere in the files is noticed before it decides anything:
// at the start, where reading again cures it, or at the read that meets it.
func TestIndexNoticesEveryFlip(t *testing.T) {
	s := shape{entries: 2 * perBlock, chunks: 3, window: 1e9}
	all := history(rand.New(rand.NewPCG(5, 5)), 1200)
	fates := fatesOf(s, all)
	disk := vfs.NewMemory()
	x := again(t, disk, s, all, fates, 1000)
	stopped(t, x)
	names, err := disk.List("/ids")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(names), 6)
	rng := rand.New(rand.NewPCG(6, 6))
	for _, name := range names {
		for range 60 {
			fs := disk.KillClone()
			f, err := fs.OpenReadWrite("/ids/" + name)
			require.NoError(t, err)
			info, err := f.Stat()
			require.NoError(t, err)
			at, b := rng.Int64N(info.Size()), make([]byte, 1)
			_, err = f.ReadAt(b, at)
			require.NoError(t, err)
			b[0] ^= 1 << rng.IntN(8)
			_, err = f.WriteAt(b, at)
			require.NoError(t, err)
			require.NoError(t, f.Close())
			x := newIndex(fs, "/ids", s, testLane, testLife, quiet)
			ok, err := x.load(t.Context(), 1000, []event.Incarnation{testLife})
			require.NoError(t, err)
			if !ok {
				x.close()
				continue // read again from the log
			}
			for o := x.next; o < 1000; o++ {
				require.NoError(t, x.see(o, all[o].clock))
				if fates[o] != Duplicate {
					require.NoError(t, x.register(all[o].k, all[o].digest, o))
				}
			}
			for o := 1000; o < len(all); o++ {
				got, err := x.judge(all[o].k, all[o].digest, int64(o), all[o].clock)
				if err != nil {
					break // a damaged block: the session ends, the next one makes the index anew
				}
				require.Equal(t, fates[o], got, "%s at %d, event %d", name, at, o)
			}
			x.close()
		}
	}
}

// A call that fails ends the session and not more: what is there afterwards can be
// loaded.
func TestIndexFailures(t *testing.T) {
	s := shape{entries: 2 * perBlock, chunks: 3, window: 1e9}
	all := history(rand.New(rand.NewPCG(8, 8)), 1500)
	fates := fatesOf(s, all)
	for _, op := range []vfs.Op{vfs.OpCreate, vfs.OpWrite, vfs.OpSync, vfs.OpSyncDir, vfs.OpRemove, vfs.OpRead, vfs.OpRename} {
		for skip := range 12 {
			disk := vfs.NewMemory()
			x := again(t, disk, s, all, fates, 0)
			rule := disk.Inject(vfs.Rule{Ops: op, Skip: skip, Times: 1})
			failedAt := -1
			for o, e := range all {
				if _, err := x.judge(e.k, e.digest, int64(o), e.clock); err != nil {
					failedAt = o
					break
				}
				if o%100 == 99 && x.save() != nil {
					failedAt = o
					break
				}
			}
			x.close()
			disk.Heal()
			if failedAt < 0 {
				require.Zero(t, disk.Hits(rule), "%s", op)
				continue
			}
			x = again(t, disk, s, all, fates, failedAt)
			for o := failedAt; o < len(all); o++ {
				got, err := x.judge(all[o].k, all[o].digest, int64(o), all[o].clock)
				require.NoError(t, err)
				require.Equal(t, fates[o], got, "%s, the %dth, event %d", op, skip, o)
			}
			stopped(t, x)
		}
	}
}

// The true window is shorter than the configured one from the moment on that ids
// within it have gone.
func TestTrueWindow(t *testing.T) {
	s := shape{entries: perBlock, chunks: 2, window: 10_000}
	x := openIndex(t, vfs.NewMemory(), s)
	put := func(n int, clock int64) {
		for range n {
			_, err := x.judge(Key{Hi: uint64(x.next)}, 1, x.next, clock)
			require.NoError(t, err)
		}
	}
	put(perBlock, 1000)
	put(perBlock, 2000)
	require.EqualValues(t, 10_000, x.window())
	put(1, 3000)
	require.EqualValues(t, 1000, x.window(), "ids of 1000 are gone")
	stopped(t, x)
	x2 := openIndex(t, x.fs, s)
	ok, err := x2.load(t.Context(), x.next, []event.Incarnation{testLife})
	require.NoError(t, err)
	require.True(t, ok)
	require.EqualValues(t, 1000, x2.window(), "after a restart")
	require.NoError(t, x2.tick(13_500))
	require.EqualValues(t, 10_000, x2.window(), "what went for want of room would be gone by now")
	stopped(t, x2)
}

// An index that is full takes no more than dedupe.index on disk, and a tenth of it in
// memory but for the blocks that are kept there.
func TestIndexIsBounded(t *testing.T) {
	for _, size := range []quantity.Bytes{quantity.MiB, 3 * quantity.MiB} {
		s := Config{Window: quantity.Duration(time.Hour), Index: size}.shape(1)
		x := openIndex(t, vfs.NewMemory(), s)
		rng := rand.New(rand.NewPCG(12, 12))
		most := int64(0)
		for o := range (s.chunks + 2) * s.entries {
			_, err := x.judge(Key{Hi: rng.Uint64(), Lo: rng.Uint64()}, 1, o, 1000)
			require.NoError(t, err)
			if (o+1)%s.entries != 0 && o%perBlock != 0 {
				continue
			}
			_, _, memory := x.size()
			require.LessOrEqual(t, memory-cached*blockSize, int64(size)/10)
			names, err := x.fs.List(x.dir)
			require.NoError(t, err)
			disk := int64(0)
			for _, name := range names {
				if slices.Contains(x.gone, filepath.Join(x.dir, name)) {
					continue // until the position behind is on record
				}
				info, err := x.fs.Stat(filepath.Join(x.dir, name))
				require.NoError(t, err)
				disk += info.Size()
			}
			most = max(most, disk)
		}
		require.LessOrEqual(t, most, int64(size))
		require.Greater(t, most, int64(size)*85/100, "room is left unused")
		stopped(t, x)
	}
}

// Another log's files, and those of another lane, are not used.
func TestStrangeFilesAreNotUsed(t *testing.T) {
	s := smallShapes[0]
	disk := vfs.NewMemory()
	x := openIndex(t, disk, s)
	for o := range int64(200) {
		_, err := x.judge(Key{Hi: uint64(o)}, 1, o, 1)
		require.NoError(t, err)
	}
	stopped(t, x)
	load := func(lane laneID, s shape, lives ...event.Incarnation) bool {
		x := newIndex(disk, "/ids", s, lane, testLife, quiet)
		ok, err := x.load(t.Context(), 200, lives)
		require.NoError(t, err)
		x.close()
		return ok
	}
	require.True(t, load(testLane, s, event.Incarnation{9}, testLife))
	require.False(t, load(testLane, s, event.Incarnation{9}))
	require.False(t, load(laneID{"other", 0}, s, testLife))
	require.False(t, load(laneID{"events", 1}, s, testLife))
}

func FuzzLoad(f *testing.F) {
	s := smallShapes[0]
	disk := vfs.NewMemory()
	x := newIndex(disk, "/ids", s, testLane, testLife, quiet)
	if err := disk.MkdirAll("/ids"); err != nil {
		f.Fatal(err)
	}
	for o := range int64(200) {
		if _, err := x.judge(Key{Hi: uint64(o), Lo: uint64(o)}, 1, o, o); err != nil {
			f.Fatal(err)
		}
	}
	stopped(f, x)
	read := func(name string) []byte {
		h, err := disk.Open("/ids/" + name)
		if err != nil {
			f.Fatal(err)
		}
		defer h.Close()
		info, err := h.Stat()
		if err != nil {
			f.Fatal(err)
		}
		b := make([]byte, info.Size())
		if _, err := h.ReadAt(b, 0); err != nil {
			f.Fatal(err)
		}
		return b
	}
	f.Add(read(s.chunkName(0)+idsSuffix), read(s.chunkName(0)+tagsSuffix), read(s.tailName(1)))
	f.Add(read(s.chunkName(1)+idsSuffix), []byte{}, read(s.tailName(1)))
	f.Fuzz(func(t *testing.T, ids, tags, tail []byte) {
		fs := vfs.NewMemory()
		require.NoError(t, fs.MkdirAll("/ids"))
		for name, b := range map[string][]byte{s.chunkName(0) + idsSuffix: mend(ids), s.chunkName(0) + tagsSuffix: tags, s.tailName(0): tail} {
			h, err := fs.Create("/ids/" + name)
			require.NoError(t, err)
			_, err = h.WriteAt(b, 0)
			require.NoError(t, err)
			require.NoError(t, h.Close())
		}
		x := newIndex(fs, "/ids", s, testLane, testLife, quiet)
		ok, err := x.load(t.Context(), 1<<40, []event.Incarnation{testLife})
		if err == nil && ok {
			_, _ = x.judge(Key{Hi: 5, Lo: 5}, 1, x.next, 5)
		}
		x.close()
	})
}

// mend makes the checksums of blocks right, so that what is behind them is met.
func mend(b []byte) []byte {
	b = append([]byte(nil), b...)
	for i := 0; i+blockSize <= len(b); i += blockSize {
		if i == 0 {
			continue
		}
		c := block(b[i : i+blockSize])
		c.seal(c.before())
		copy(b[i:], c[:])
	}
	return b
}
