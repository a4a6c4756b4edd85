package dedupe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

// told is one event of a world: what was sent, and what is to become of it.
type told struct {
	id, data string
	own      bool // the id is the client's
	clock    int64
	fate     Fate
}

// world is a log on a simulated disk, with what is to be found in it.
type world struct {
	t    *testing.T
	disk *vfs.Memory
	log  *seglog.Log
	cfg  Config
	rng  *rand.Rand
	all  []told
	m    *model
	from int // the first event that is judged
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, disk: vfs.NewMemory(), rng: rand.New(rand.NewPCG(seed, 3)),
		cfg: Config{Enabled: true, Window: quantity.Duration(3 * time.Second), Index: 80 * quantity.KiB}}
	w.m = &model{shape: w.cfg.shape(1)}
	require.NoError(t, w.disk.MkdirAll("/log"))
	w.open()
	return w
}

func (w *world) open() {
	cfg := seglog.DefaultConfig()
	cfg.Segment, cfg.Reserve, cfg.RetainAge, cfg.RetainBytes = 64*quantity.KiB, 0, 0, 0
	l, err := seglog.Open(w.disk, "/log", cfg, nil)
	require.NoError(w.t, err)
	w.log = l
}

// restart stops the log and starts it again on what a kill leaves.
func (w *world) restart(image *vfs.Memory) {
	_ = w.log.Close()
	w.disk = image
	w.open()
}

// put appends a batch of events, many of which were sent before.
func (w *world) put(n int) {
	var b recordbatch.Builder
	own := w.rng.IntN(4) > 0
	clock := int64(1_000_000_000) + int64(len(w.all))*5 - int64(w.rng.IntN(2)*w.rng.IntN(2000))
	b.Reset(time.UnixMilli(clock))
	for range n {
		e := told{id: fmt.Sprint("e", len(w.all)), data: fmt.Sprintf(`{"n":%d}`, len(w.all)), own: own && w.rng.IntN(8) > 0, clock: clock}
		if i := len(w.all); i > 0 && w.rng.IntN(2) == 0 {
			was := w.all[i-1-w.rng.IntN(min(i, []int{5, 50, 3000}[w.rng.IntN(3)]))]
			e.id, e.data = was.id, was.data
			if w.rng.IntN(10) == 0 {
				e.data += " "
			}
		}
		if e.own && len(w.all) >= w.from {
			ev := e.event()
			var d digester
			e.fate = w.m.judge(d.key(ev), d.digest(ev), clock)
		}
		b.AppendEvent(e.event())
		w.all = append(w.all, e)
	}
	_, err := w.log.Append(w.t.Context(), stream.Write{Stream: "events", Batch: b.Finish(nil, recordbatch.Snappy), Count: int32(n)})
	require.NoError(w.t, err)
}

func (e *told) event() *event.Event {
	return &event.Event{ID: []byte(e.id), GeneratedID: !e.own, Source: []byte("/s"), Type: []byte("t"), ContentType: []byte("application/json"), Data: []byte(e.data)}
}

// judge starts a judge. stop waits for its end.
func (w *world) judge() (j *Judge, stop func()) {
	w.t.Helper()
	j = New(w.cfg, Deps{FS: w.disk, Dir: "/ids", Log: w.log, Logger: quiet, Pause: time.Millisecond})
	require.NoError(w.t, j.Open(w.t.Context()))
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	return j, func() {
		w.t.Helper()
		cancel()
		require.NoError(w.t, <-done)
	}
}

// read reads all from an offset on, and compares what is passed over with what is to
// be found.
func (w *world) read(log stream.Log, from int) {
	w.t.Helper()
	st, err := w.log.Stat(w.t.Context(), "events")
	require.NoError(w.t, err)
	at := event.Position{Incarnation: st.Incarnation, Offset: int64(from)}
	var d recordbatch.Decoder
	var met []int64
	for at.Offset < int64(len(w.all)) {
		b, err := log.Read(w.t.Context(), "events", at, stream.Bytes(1+w.rng.IntN(3000)))
		if errors.Is(err, vfs.ErrInjected) { // the judge tries again, and so do readers
			time.Sleep(time.Millisecond)
			continue
		}
		require.NoError(w.t, err)
		require.NoError(w.t, d.EachIn(b, func(e *event.Event) error {
			met = append(met, e.Offset)
			return nil
		}))
		at = b.End()
	}
	var want []int64
	for o := from; o < len(w.all); o++ {
		if w.all[o].fate != Duplicate {
			want = append(want, int64(o))
		}
	}
	require.Equal(w.t, want, met, "from %d", from)
}

// recorded is the duplicates that are on record from an offset of the verdicts on,
// and the end of these.
func (w *world) recorded(from int64) (runs []event.Run, end int64) {
	w.t.Helper()
	st, err := w.log.Stat(w.t.Context(), StreamOf("events"))
	if errors.Is(err, stream.ErrNoStream) {
		return nil, 0
	}
	require.NoError(w.t, err)
	var d recordbatch.Decoder
	for at := (event.Position{Incarnation: st.Incarnation, Offset: from}); at.Offset < st.Ranges[0].End; {
		b, err := w.log.Read(w.t.Context(), StreamOf("events"), at, 1<<20)
		require.NoError(w.t, err)
		for _, raw := range b.Raw {
			require.NoError(w.t, EachVerdict(&d, raw, func(o int64, v Verdict) error {
				if o >= from {
					for _, r := range v.Duplicates {
						runs = merge(runs, r)
					}
				}
				return nil
			}))
		}
		at = b.End()
	}
	return runs, st.Ranges[0].End
}

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
		for _, pattern := range []string{"*" + idsSuffix, "*" + tagsSuffix, tailFile + "*"} {
			w.disk.Inject(vfs.Rule{Ops: op, Pattern: pattern, Skip: w.rng.IntN(3), Times: 2})
		}
		// As if it had come since judging began.
		require.NoError(t, w.log.Commit(t.Context(), nil, sinceReader, begun(streamPrefix)))
		j, stop := w.judge()
		w.readAll(j)
		stop()
		require.NoError(t, w.log.Close())
	}
}

// readAll reads all, again where there are no verdicts for now.
func (w *world) readAll(j *Judge) {
	for {
		err := j.lane(testLane).wait(w.t.Context(), int64(len(w.all)))
		if err == nil {
			break
		}
		require.ErrorIs(w.t, err, vfs.ErrInjected)
		time.Sleep(time.Millisecond) // the judge pauses as long
	}
	w.read(j.Log(), 0)
}

func TestSentIsWhatWasSent(t *testing.T) {
	e := &event.Event{ID: []byte("1"), Source: []byte("/s"), Type: []byte("t"), Data: []byte(`{"mail":"a@b"}`), ContentType: []byte("application/json")}
	var d digester
	want := d.digest(e)
	e.Sent = fmt.Appendf(nil, "%016x", want)
	e.Data = []byte(`{}`)
	require.Equal(t, want, d.digest(e))
	var b recordbatch.Builder
	b.Reset(time.UnixMilli(1))
	b.AppendEvent(e)
	var dec recordbatch.Decoder
	require.NoError(t, dec.Each(b.Finish(nil, recordbatch.None), func(got *event.Event) error {
		require.Equal(t, want, d.digest(got))
		require.Equal(t, d.key(e), d.key(got))
		return nil
	}))
	// Whatever else an event says makes it another one.
	base := event.Event{ID: []byte("1"), Source: []byte("/s"), Type: []byte("t"), Data: []byte("1"), ContentType: []byte("x")}
	seen := map[uint64]bool{d.digest(&base): true}
	for _, change := range []func(*event.Event){
		func(e *event.Event) { e.Type = []byte("u") }, func(e *event.Event) { e.Data = []byte("2") },
		func(e *event.Event) { e.Subject = []byte("s") }, func(e *event.Event) { e.ContentType = []byte("y") },
		func(e *event.Event) { e.Time = time.Unix(1, 0) }, func(e *event.Event) { e.Extensions = []event.Attr{{Name: []byte("a"), Value: []byte("b")}} },
	} {
		other := base
		change(&other)
		require.False(t, seen[d.digest(&other)])
		seen[d.digest(&other)] = true
	}
	a, c := base, base
	a.Source, a.ID = []byte("ab"), []byte("c")
	c.Source, c.ID = []byte("a"), []byte("bc")
	require.NotEqual(t, d.key(&a), d.key(&c))
}

func FuzzVerdict(f *testing.F) {
	v := Verdict{From: 5, Next: 900, Duplicates: []event.Run{{From: 5, To: 7}, {From: 100, To: 900}}, Conflicts: []event.Run{{From: 8, To: 9}}}
	f.Add(v.appendTo(nil))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := parseVerdict(b)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		again, err := parseVerdict(v.appendTo(nil))
		require.NoError(t, err)
		require.Equal(t, v, again)
		for _, runs := range [][]event.Run{v.Duplicates, v.Conflicts} {
			for i, r := range runs {
				require.Less(t, r.From, r.To)
				require.GreaterOrEqual(t, r.From, v.From)
				require.LessOrEqual(t, r.To, v.Next)
				if i > 0 {
					require.GreaterOrEqual(t, r.From, runs[i-1].To)
				}
			}
		}
	})
}

// BenchmarkJudge is one event with an id of its own, from the log to its verdict.
func BenchmarkJudge(b *testing.B) {
	for name, share := range map[string]int{"new": 0, "all sent twice": 2} {
		b.Run(name, func(b *testing.B) {
			l := &lane{id: testLane, judge: New(DefaultConfig(), Deps{})}
			l.index = newIndex(vfs.OS(), b.TempDir(), DefaultConfig().shape(1), testLane, testLife, quiet)
			var raws [][]byte
			const events, batches = 500, 400
			var bld recordbatch.Builder
			for i := range batches {
				bld.Reset(time.UnixMilli(1))
				for j := range events {
					bld.AppendEvent(&event.Event{ID: fmt.Appendf(nil, "0198c0de-0000-7000-8000-%012d", i*events+j), Source: []byte("/shop"), Type: []byte("page"),
						ContentType: []byte("application/json"), Data: fmt.Appendf(nil, `{"user":"u%d","url":"https://example.org/page/%d","ms":%d,"agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36","country":"KR","ok":true,"text":"abcdefghijklmnopqrstuvwxyz"}`, i, j, i*j)})
				}
				raws = append(raws, bld.Finish(nil, recordbatch.Snappy))
			}
			b.ReportAllocs()
			n, round, offset := 0, 0, int64(0)
			for b.Loop() {
				raw := raws[n%batches]
				recordbatch.SetBaseOffset(raw, offset)
				v := finding{}
				l.asks = l.asks[:0]
				err := l.dec.Each(raw, func(e *event.Event) error {
					k := l.hash.key(e)
					if share == 0 {
						k.Hi += uint64(round) << 32 // another id each time
						k.Lo += uint64(round)
					}
					l.asks = append(l.asks, ask{k, l.hash.digest(e), e.Offset, 1})
					if len(l.asks) < atOnce {
						return nil
					}
					return l.judgeAll(&v)
				})
				if err == nil {
					err = l.judgeAll(&v)
				}
				if err != nil {
					b.Fatal(err)
				}
				offset += events
				if n++; n%batches == 0 {
					round++
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(offset), "ns/event")
			l.index.abandon()
		})
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
