package dedupe

import (
	"context"
	"fmt"
	"slices"
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

// Whatever comes between (stops, kills, power cuts, files that are gone), each
// event gets the verdict that the rule gives it, and every reader finds it.
func TestVerdictsAreTheModels(t *testing.T) {
	for seed := range uint64(3) {
		w := newWorld(t, seed)
		for range 12 {
			j, stop := w.judge()
			for range 5 + w.rng.IntN(20) {
				w.put(1 + w.rng.IntN(60))
			}
			if w.rng.IntN(3) > 0 {
				w.read(j.Log(), w.rng.IntN(len(w.all)))
			}
			image := (*vfs.Memory)(nil)
			switch w.rng.IntN(3) {
			case 0: // what a kill leaves, in the middle of it all
				image = w.disk.KillClone()
			case 1:
				image = w.disk.CrashClone(w.rng.Uint64())
			}
			stop()
			if image == nil {
				image = w.disk.KillClone()
			}
			if w.rng.IntN(4) == 0 {
				require.NoError(t, vfs.RemoveAll(image, "/ids/events"))
			}
			w.restart(image)
		}
		j, stop := w.judge()
		w.read(j.Log(), 0)
		for range 10 {
			w.read(j.Log(), w.rng.IntN(len(w.all)))
		}
		stop()
		counts := map[Fate]int64{}
		for _, e := range w.all {
			if e.own {
				counts[e.fate]++
			}
		}
		at, err := w.log.Progress(t.Context(), readerOf("events"))
		require.NoError(t, err)
		require.Equal(t, stream.Counts{Written: counts[Fresh], Duplicates: counts[Duplicate], Filtered: counts[Conflict]}, at.Counts)
		require.Equal(t, counts[Fresh]+counts[Conflict], at.Events[0])
		require.Greater(t, counts[Duplicate], int64(500))
		require.Greater(t, counts[Conflict], int64(25))
		require.NoError(t, w.log.Close())
	}
}

// Reading the log again from any watermark gives the same verdicts: with the files
// of ids as they are, which are then ahead, and without them.
func TestSameVerdictsFromAnyWatermark(t *testing.T) {
	w := newWorld(t, 77)
	w.cfg.Window = quantity.Duration(time.Hour) // the index is full before that
	w.m.shape = w.cfg.shape(1)
	_, stop := w.judge()
	for range 300 {
		w.put(1 + w.rng.IntN(60))
	}
	stop()
	j, stop := w.judge()
	w.read(j.Log(), 0)
	stop()
	all, _ := w.recorded(0)
	st, err := w.log.Stat(t.Context(), "events")
	require.NoError(t, err)
	require.NoError(t, w.log.Close())
	image := w.disk
	for range 10 {
		w.disk = image.KillClone()
		w.open()
		mark := w.rng.IntN(len(w.all))
		at := begun("events")
		at.Positions.Advance(event.Position{Incarnation: st.Incarnation, Offset: int64(mark)})
		for _, e := range w.all[:mark] {
			if e.own && e.fate != Duplicate {
				at.Events[0]++
			}
		}
		require.NoError(t, w.log.Commit(t.Context(), nil, readerOf("events"), at))
		// The files of that moment are those that a crash may leave: behind it or gone.
		require.NoError(t, vfs.RemoveAll(w.disk, "/ids/events/0"))
		_, before := w.recorded(0)
		j, stop := w.judge()
		w.read(j.Log(), mark)
		stop()
		again, _ := w.recorded(before)
		require.Equal(t, append([]event.Run{}, cutRuns(all, int64(mark), int64(len(w.all)))...), append([]event.Run{}, again...), "from %d", mark)
		require.NoError(t, w.log.Close())
	}
}

// The first start with a judge leaves alone what is there: it may be in tables.
// What comes later is judged from its first event, in new streams too, whether or
// not a judge was at work when it came.
func TestJudgingBegins(t *testing.T) {
	w := newWorld(t, 5)
	for range 20 {
		w.from = 1 << 30
		w.put(20)
	}
	w.from = len(w.all)
	j, stop := w.judge()
	w.put(30)
	w.read(j.Log(), 0)
	stop()
	for range 5 {
		w.put(40)
	}
	put := func(name string) {
		var b recordbatch.Builder
		b.Reset(time.UnixMilli(1))
		for range 2 {
			b.AppendEvent(w.all[0].event())
			e := told{id: "same", own: true}
			b.AppendEvent(e.event())
		}
		_, err := w.log.Append(t.Context(), stream.Write{Stream: name, Batch: b.Finish(nil, recordbatch.None), Count: 4})
		require.NoError(t, err)
	}
	put("orders")
	w.restart(w.disk.KillClone())
	j, stop = w.judge()
	w.read(j.Log(), 0)
	st, err := w.log.Stat(t.Context(), "orders")
	require.NoError(t, err)
	b, err := j.Log().Read(t.Context(), "orders", event.Position{Incarnation: st.Incarnation}, 1<<20)
	require.NoError(t, err)
	require.True(t, slices.ContainsFunc(b.Without, func(r event.Run) bool { return r.From <= 3 && 3 < r.To }), "%v", b.Without)
	stop()

	// Turned off: what is on record holds, and all that comes is kept.
	off := Recorded(w.log)
	w.read(off, 0)
	w.from = 1 << 30
	w.put(50)
	w.put(50)
	w.read(off, 0)
	readers, err := off.Readers(t.Context())
	require.NoError(t, err)
	for name := range readers { // as the pipelines do with readers that left the configuration
		require.NoError(t, off.Forget(t.Context(), name))
	}
	w.from = len(w.all)
	w.m = &model{shape: w.cfg.shape(1)}
	j, stop = w.judge()
	w.put(50)
	w.put(50)
	w.read(j.Log(), 0)
	stop()
	require.NoError(t, w.log.Close())
}

// Events without ids of their own wait for no verdict, and need no judge.
func TestEventsWithoutIDsWaitForNothing(t *testing.T) {
	w := newWorld(t, 1)
	var b recordbatch.Builder
	b.Reset(time.UnixMilli(1))
	e := told{id: "x"}
	b.AppendEvent(e.event())
	_, err := w.log.Append(t.Context(), stream.Write{Stream: "events", Batch: b.Finish(nil, recordbatch.None), Count: 1})
	require.NoError(t, err)
	j := New(w.cfg, Deps{FS: w.disk, Dir: "/ids", Log: w.log, Logger: quiet})
	st, err := w.log.Stat(t.Context(), "events")
	require.NoError(t, err)
	at := event.Position{Incarnation: st.Incarnation}
	_, err = j.Log().Read(t.Context(), "events", at, 1)
	require.NoError(t, err)
	e.own = true
	b.AppendEvent(e.event())
	_, err = w.log.Append(t.Context(), stream.Write{Stream: "events", Batch: b.Finish(nil, recordbatch.None), Count: 2})
	require.NoError(t, err)
	at.Offset = 1
	_, err = j.Log().Impatient(time.Millisecond).Read(t.Context(), "events", at, 1)
	require.ErrorIs(t, err, errSlow)
	require.NoError(t, w.log.Close())
}

// A frame takes a quarter of a segment: a verdict that is larger is written in
// parts.
func TestLargeVerdicts(t *testing.T) {
	w := newWorld(t, 2)
	require.NoError(t, w.log.Close())
	cfg := seglog.DefaultConfig()
	cfg.Segment, cfg.Reserve = 16*quantity.KiB, 0
	var err error
	w.log, err = seglog.Open(w.disk, "/log", cfg, nil)
	require.NoError(t, err)
	w.cfg.Index = quantity.MiB
	require.NoError(t, w.log.Commit(t.Context(), nil, sinceReader, begun(streamPrefix)))
	var b recordbatch.Builder
	const ids = 12_000
	n, conflicts := 0, 0
	for range 2 { // all of the second round is there already, some with other bytes
		for range ids / 100 {
			b.Reset(time.UnixMilli(1))
			for range 100 {
				e := told{id: fmt.Sprint(n % ids), own: true, data: "1"}
				if n >= ids && w.rng.IntN(2) == 0 {
					e.data = "2"
					conflicts++
				}
				b.AppendEvent(e.event())
				n++
			}
			_, err := w.log.Append(t.Context(), stream.Write{Stream: "events", Batch: b.Finish(nil, recordbatch.Snappy), Count: 100})
			require.NoError(t, err)
		}
	}
	j, stop := w.judge()
	st, err := w.log.Stat(t.Context(), "events")
	require.NoError(t, err)
	kept := 0
	var d recordbatch.Decoder
	for at := (event.Position{Incarnation: st.Incarnation}); at.Offset < int64(n); {
		b, err := j.Log().Read(t.Context(), "events", at, 1<<20)
		require.NoError(t, err)
		require.NoError(t, d.EachIn(b, func(*event.Event) error { kept++; return nil }))
		at = b.End()
	}
	require.Equal(t, ids+conflicts, kept)
	require.EqualValues(t, conflicts, j.Status()[0].Conflicts)
	require.EqualValues(t, ids-conflicts, j.Status()[0].Duplicates)
	stop()
	_, end := w.recorded(0)
	require.Greater(t, end, int64(1))
	require.NoError(t, w.log.Close())
}

// A disk that fails under the index costs a pause, not a verdict.
func TestJudgeGoesOnAfterFailures(t *testing.T) {
	for _, op := range []vfs.Op{vfs.OpWrite, vfs.OpCreate, vfs.OpRead, vfs.OpSync, vfs.OpRemove} {
		w := newWorld(t, uint64(op))
		for range 60 {
			w.put(60)
		}
		for _, pattern := range []string{"*" + idsSuffix, "*" + tagsSuffix, "*-tail-*"} {
			w.disk.Inject(vfs.Rule{Ops: op, Pattern: pattern, Skip: w.rng.IntN(3), Times: 2})
		}
		// As if it had come since judging began.
		require.NoError(t, w.log.Commit(t.Context(), nil, sinceReader, begun(streamPrefix)))
		j, stop := w.judge()
		w.judged(j)
		w.read(j.Log(), 0)
		stop()
		require.NoError(t, w.log.Close())
	}
}

// gated is a log whose commits with a verdict wait.
type gated struct {
	stream.Log
	gate chan struct{}
}

func (g *gated) Commit(ctx context.Context, writes []stream.Write, reader string, at stream.Progress) error {
	if len(writes) > 0 || at.Events[0] > 0 {
		select {
		case <-g.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return g.Log.Commit(ctx, writes, reader, at)
}

// A verdict is on record before anybody acts on it: else another one might be given
// after a crash, by other settings.
func TestVerdictIsDurableBeforeItIsTold(t *testing.T) {
	w := newWorld(t, 3)
	log := &gated{w.log, make(chan struct{})}
	j := New(w.cfg, Deps{FS: w.disk, Dir: "/ids", Log: log, Logger: quiet, Pause: time.Millisecond})
	require.NoError(t, j.Open(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	for len(w.all) == 0 || !w.all[0].own {
		w.all, w.m.kept = nil, nil
		w.put(30)
	}
	st, err := w.log.Stat(t.Context(), "events")
	require.NoError(t, err)
	at := event.Position{Incarnation: st.Incarnation, Offset: st.Ranges[0].End - 30}
	_, err = j.Log().Impatient(50*time.Millisecond).Read(t.Context(), "events", at, 1)
	require.ErrorIs(t, err, errSlow)
	close(log.gate)
	_, err = j.Log().Read(t.Context(), "events", at, 1)
	require.NoError(t, err)
	cancel()
	require.NoError(t, <-done)
	require.NoError(t, w.log.Close())
}

// Who waits for a verdict does not wait for a judge that has stopped, whether or
// not its stream was known by then.
func TestNobodyWaitsForAStoppedJudge(t *testing.T) {
	w := newWorld(t, 6)
	w.put(3)
	j := New(w.cfg, Deps{FS: w.disk, Dir: "/ids", Log: w.log, Logger: quiet, Pause: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	waiting := make(chan error)
	go func() { waiting <- j.lane(testLane).wait(t.Context(), 1) }()
	require.NoError(t, j.Run(ctx))
	require.ErrorIs(t, <-waiting, errEnded)
	require.ErrorIs(t, j.lane(laneID{"later", 0}).wait(t.Context(), 1), errEnded)
	require.NoError(t, w.log.Close())
}
