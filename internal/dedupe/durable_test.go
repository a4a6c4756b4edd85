package dedupe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/stream"
	"naru/internal/stream/seglog"
	"naru/internal/vfs"
)

// What is on record as durable is in the files, though syncs fail, reads go on to
// show what they lost, and the power goes: nothing before it is ever taken from the
// log again, which may have dropped it.
func TestDurableIDsAreInTheFiles(t *testing.T) {
	reopened, failed := 0, 0
	for i, s := range smallShapes {
		for seed := range uint64(12) {
			rng := rand.New(rand.NewPCG(uint64(i), 100+seed))
			all := history(rng, 2500)
			fates := fatesOf(s, all)
			disk := vfs.NewMemory()
			x := openIndex(t, disk, s)
			durable, gone := 0, 0 // by the log, which has dropped what is before gone
			fresh := func(upTo int) (n int64) {
				for _, f := range fates[:upTo] {
					if f != Duplicate {
						n++
					}
				}
				return n
			}
			load := func(upTo int) {
				x.close()
				x = openIndex(t, disk, s)
				ok, err := x.load(t.Context(), int64(durable), []event.Incarnation{testLife})
				require.NoError(t, err)
				if !ok { // what they had has left the window since, or the log has it all
					require.NoError(t, x.reset(fresh(gone), int64(gone)))
				}
				reopened++
				for o := max(x.next, int64(gone)); o < int64(upTo); o++ {
					require.NoError(t, x.see(o, all[o].clock))
					if fates[o] != Duplicate {
						require.NoError(t, x.register(all[o].k, all[o].digest, o))
					}
				}
				require.Equal(t, fresh(upTo), x.ordinal, "shape %d, seed %d: ids before %d, durable up to %d, from %d on in the log", i, seed, upTo, durable, gone)
			}
			settled := 0 // the position on record: not before durable
			for o := 0; o < len(all); o++ {
				if rng.IntN(100) == 0 {
					op := []vfs.Op{vfs.OpSync, vfs.OpSync, vfs.OpWrite, vfs.OpCreate, vfs.OpSyncDir, vfs.OpTruncate}[rng.IntN(6)]
					disk.Inject(vfs.Rule{Ops: op, Skip: rng.IntN(3), Times: 1})
				}
				got, err := x.judge(all[o].k, all[o].digest, int64(o), all[o].clock)
				if err == nil {
					require.Equal(t, fates[o], got, "shape %d, seed %d, event %d", i, seed, o)
					settled = o + 1
					err = x.settled()
				}
				if err == nil && rng.IntN(60) == 0 {
					if err = x.save(); err == nil && rng.IntN(4) > 0 { // else that is not on record any more
						durable = o + 1
						x.secured()
						gone = durable - rng.IntN(min(durable-gone, 50)+1)
					} else if err == nil {
						err = errors.New("the log does not take it")
					}
				}
				if errors.Is(err, vfs.ErrInjected) {
					failed++
				}
				switch {
				case rng.IntN(300) == 0:
					disk = disk.CrashClone(rng.Uint64())
				case rng.IntN(300) == 0:
					disk = disk.KillClone()
				case err == nil:
					continue
				}
				disk.Heal()
				load(settled)
				o = settled - 1
			}
			x.close()
		}
	}
	require.Greater(t, reopened, 1000)
	require.Greater(t, failed, 300)
}

// A log that is kept for less than the window has no events any more of which the
// ids are not durable: whatever its disk does, what is sent again is found.
func TestShortLogs(t *testing.T) {
	dropped := int64(0)
	for seed := range uint64(6) {
		w := newWorld(t, seed)
		w.retain = 2 * segment
		w.cfg.Index = quantity.MiB
		w.m.shape = w.cfg.shape(1)
		w.restart(w.disk)
		for range 12 {
			j, stop := w.judgeEvery(4 << 10)
			for range 20 {
				if w.rng.IntN(3) == 0 {
					pattern := []string{"*" + idsSuffix, "*" + tagsSuffix, "*-tail-*"}[w.rng.IntN(3)]
					w.disk.Inject(vfs.Rule{Ops: []vfs.Op{vfs.OpSync, vfs.OpWrite}[w.rng.IntN(2)], Pattern: pattern, Skip: w.rng.IntN(3), Times: 1})
				}
				for range 4 {
					w.put(1 + w.rng.IntN(60))
				}
				w.judged(j)
			}
			w.disk.Heal()
			st, err := w.log.Stat(t.Context(), "events")
			require.NoError(t, err)
			w.read(j.Log(), int(st.Ranges[0].Start))
			dropped = max(dropped, st.Ranges[0].Start)
			image := w.disk.CrashClone(w.rng.Uint64())
			if w.rng.IntN(4) == 0 {
				image = nil
			}
			stop()
			if image == nil {
				image = w.disk.KillClone()
			}
			w.restart(image)
		}
		require.NoError(t, w.log.Close())
	}
	require.Greater(t, dropped, int64(5000), "retention has had nothing to do")
}

// halting is a log that takes no verdicts until the end of who writes them.
type halting struct {
	stream.Log
	met chan struct{}
}

func (h *halting) Commit(ctx context.Context, writes []stream.Write, reader string, at stream.Progress) error {
	if len(writes) == 0 {
		return h.Log.Commit(ctx, writes, reader, at)
	}
	close(h.met)
	<-ctx.Done()
	return ctx.Err()
}

// A stop between judging and writing down leaves the files to the position that is
// on record: ids that went for those of events behind it are still needed.
func TestStopBeforeTheVerdict(t *testing.T) {
	w := newWorld(t, 4)
	w.cfg.Window = quantity.Duration(time.Hour)
	s := w.cfg.shape(1)
	send := func(ids ...string) {
		var b recordbatch.Builder
		b.Reset(time.UnixMilli(1))
		for _, id := range ids {
			e := told{id: id, own: true, clock: 1}
			ev := e.event()
			var d digester
			e.fate = w.m.judge(d.key(ev), d.digest(ev), 1)
			b.AppendEvent(ev)
			w.all = append(w.all, e)
		}
		_, err := w.log.Append(t.Context(), stream.Write{Stream: "events", Batch: b.Finish(nil, recordbatch.None), Count: int32(len(ids))})
		require.NoError(t, err)
	}
	w.m.shape = s
	require.NoError(t, w.log.Commit(t.Context(), nil, sinceReader, begun(streamPrefix)))
	for o := range s.entries * s.chunks {
		send(fmt.Sprint("e", o))
	}
	j, stop := w.judge()
	w.read(j.Log(), 0)
	stop()

	// The first id is a duplicate; the second one takes the place of its chunk.
	send("e0", "new")
	log := &halting{w.log, make(chan struct{})}
	j = New(w.cfg, Deps{FS: w.disk, Dir: "/ids", Log: log, Logger: quiet, Pause: time.Millisecond})
	require.NoError(t, j.Open(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	<-log.met
	cancel()
	require.NoError(t, <-done)

	w.restart(w.disk.KillClone())
	j, stop = w.judge()
	w.read(j.Log(), 0)
	stop()
	require.NoError(t, w.log.Close())
}

// A repair of the log that cuts gives offsets to other events: nothing of the files
// that speaks of the ones before is met among theirs.
func TestCutEventsLeaveNoIDs(t *testing.T) {
	s := shape{entries: 2 * perBlock, chunks: 4, window: 1e9}
	all := history(rand.New(rand.NewPCG(9, 9)), 900)
	other := append(append([]sent{}, all[:300]...), history(rand.New(rand.NewPCG(10, 9)), 900)...)
	disk := vfs.NewMemory()
	stopped(t, again(t, disk, s, all, fatesOf(s, all), 900))
	fates := fatesOf(s, other)
	x := again(t, disk, s, other, fates, 300)
	for upTo := 300; upTo < len(other); upTo += 40 {
		// As a kill leaves it, with none of the later entries in a block.
		killed := again(t, disk.KillClone(), s, other, fates, upTo)
		for o := upTo; o < min(upTo+100, len(other)); o++ {
			got, err := killed.judge(other[o].k, other[o].digest, int64(o), other[o].clock)
			require.NoError(t, err)
			require.Equal(t, fates[o], got, "up to %d, event %d", upTo, o)
		}
		killed.close()
	}
	x.close()
}

// identified appends a batch of events with ids that are numbered.
func (w *world) identified(first, n int) (offset int64) {
	w.t.Helper()
	var b recordbatch.Builder
	b.Reset(time.UnixMilli(1e12))
	pad := rand.New(rand.NewPCG(uint64(first), 11))
	for i := range n {
		e := told{id: fmt.Sprint("e", first+i), own: true, data: fmt.Sprintf("%x%x%x%x", pad.Uint64(), pad.Uint64(), pad.Uint64(), pad.Uint64())}
		b.AppendEvent(e.event())
	}
	at, err := w.log.Append(w.t.Context(), stream.Write{Stream: "events", Batch: b.Finish(nil, recordbatch.Snappy), Count: int32(n)})
	require.NoError(w.t, err)
	return at[0].Offset
}

// A block that is full when the ids are saved is written behind that: it has no id that
// is not on record as durable, and yet a sync that fails loses it.
func TestFullBlockIsLost(t *testing.T) {
	for _, entries := range []int64{perBlock, 3 * perBlock} { // at the end of a chunk, too
		s := shape{entries: entries, chunks: 8, window: 1e9}
		all := history(rand.New(rand.NewPCG(13, 13)), 1000)
		fates := fatesOf(s, all)
		disk := vfs.NewMemory()
		at, kept := 0, 0
		for ; kept < perBlock; at++ {
			if fates[at] != Duplicate {
				kept++
			}
		}
		stopped(t, again(t, disk, s, all, fates, at))
		x := again(t, disk, s, all, fates, at)
		disk.Inject(vfs.Rule{Ops: vfs.OpSync, Pattern: "*" + idsSuffix, Times: 1})
		o := at
		for ; o < at+200 && !errors.Is(failing(x, all, o), vfs.ErrInjected); o++ {
		}
		_ = x.save() // it fails here if it has not before
		x.close()
		x = again(t, disk, s, all, fates, o)
		stopped(t, x)

		x = openIndex(t, disk.CrashClone(0), s)
		ok, err := x.load(t.Context(), int64(o), []event.Incarnation{testLife})
		require.NoError(t, err)
		require.True(t, ok)
		require.EqualValues(t, o, x.next, "what is on record as durable is in the files")
		for ; o < len(all); o++ {
			got, err := x.judge(all[o].k, all[o].digest, int64(o), all[o].clock)
			require.NoError(t, err)
			require.Equal(t, fates[o], got, "event %d", o)
		}
		x.close()
	}
}

// failing judges one event that may meet a fault.
func failing(x *index, all []sent, o int) error {
	_, err := x.judge(all[o].k, all[o].digest, int64(o), all[o].clock)
	return err
}

// A stop just when a sync fails does not sync again, which would succeed and do
// nothing: retention must not take these events.
func TestStopAtAFailedSync(t *testing.T) {
	w := newWorld(t, 12)
	w.cfg.Index = quantity.MiB
	j := New(w.cfg, Deps{FS: w.disk, Dir: "/ids", Log: w.log, Logger: quiet, Pause: time.Millisecond, Sync: 1})
	require.NoError(t, j.Open(t.Context()))
	w.identified(0, 200)
	ctx, stop := context.WithCancel(t.Context())
	w.disk.Inject(vfs.Rule{Ops: vfs.OpSync, Pattern: "*" + idsSuffix, Times: 1})
	w.disk.OnSync(func(_ int, _ vfs.Op, path string) {
		if strings.HasSuffix(path, idsSuffix) {
			stop()
		}
	})
	require.NoError(t, j.Run(ctx))
	require.Error(t, ctx.Err())
	w.disk.OnSync(nil)
	at, err := w.log.Progress(t.Context(), idsReaderOf("events"))
	require.NoError(t, err)
	require.NotNil(t, at.Positions)
	for _, partitions := range at.Positions {
		require.Zero(t, partitions[0], "ids that were lost count as durable")
	}

	w.restart(w.disk.CrashClone(0))
	j, end := w.judge()
	again := w.identified(0, 200)
	require.NoError(t, j.lane(testLane).wait(t.Context(), again+200))
	end()
	runs, _ := w.recorded(0)
	require.Equal(t, []event.Run{{From: again, To: again + 200}}, runs)
	require.NoError(t, w.log.Close())
}

// Ids of events that a repair of the log has lost are forgotten, so that these may be
// sent again; all others are still known.
func TestLostEventsMayBeSentAgain(t *testing.T) {
	const batch, n = 20, 60 * 20
	w := newWorld(t, 11)
	w.cfg.Index = quantity.MiB
	all := func() (offsets []int64) {
		for first := 0; first < n; first += batch {
			offsets = append(offsets, w.identified(first, batch))
		}
		return offsets
	}
	j, stop := w.judge()
	first := all()
	require.NoError(t, j.lane(testLane).wait(t.Context(), n))
	stop()
	require.NoError(t, w.log.Close())

	names, err := w.disk.List("/log")
	require.NoError(t, err)
	path := filepath.Join("/log", names[slices.IndexFunc(names, func(s string) bool { return strings.HasSuffix(s, ".seg") })])
	var frames []seglog.FrameInfo
	require.NoError(t, seglog.Frames(w.disk, path, func(f seglog.FrameInfo) error {
		if f.Kind == "append" {
			frames = append(frames, f)
		}
		return nil
	}))
	require.Greater(t, len(frames), 10)
	f, err := w.disk.OpenReadWrite(path)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{0xff}, frames[len(frames)/2].Pos+100)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	r, err := seglog.Repair(w.disk, "/log", w.settings(), quiet)
	require.NoError(t, err)
	require.Len(t, r.Lost, 1)
	require.EqualValues(t, batch, r.Lost[0].Events)

	w.open()
	j, stop = w.judge()
	second := all()
	require.NoError(t, j.lane(testLane).wait(t.Context(), second[len(second)-1]+batch))
	stop()
	runs, _ := w.recorded(0)
	for i, at := range second {
		want := int64(batch)
		if first[i] == r.Lost[0].First {
			want = 0
		}
		require.Equal(t, want, event.CountRuns(cutRuns(runs, at, at+batch), 0), "the %dth batch, which was at %d", i, first[i])
	}
	require.NoError(t, w.log.Close())
}

const segment = 64 * quantity.KiB

// judgeEvery starts a judge that makes ids durable after so many bytes.
func (w *world) judgeEvery(bytes int64) (*Judge, func()) {
	return w.start(Deps{FS: w.disk, Dir: "/ids", Log: w.log, Logger: quiet, Pause: time.Millisecond, Sync: bytes})
}

func (w *world) settings() seglog.Config {
	cfg := seglog.DefaultConfig()
	cfg.Segment, cfg.Reserve, cfg.RetainAge, cfg.RetainBytes = segment, 0, 0, w.retain
	return cfg
}
