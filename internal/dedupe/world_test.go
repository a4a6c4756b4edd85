package dedupe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
	// retain bounds the log; 0: it keeps all.
	retain quantity.Bytes
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
	l, err := seglog.Open(w.disk, "/log", w.settings(), nil)
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
	return w.start(Deps{FS: w.disk, Dir: "/ids", Log: w.log, Logger: quiet, Pause: time.Millisecond})
}

func (w *world) start(d Deps) (j *Judge, stop func()) {
	w.t.Helper()
	j = New(w.cfg, d)
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
		var b *event.Batch
		size := stream.Bytes(1 + w.rng.IntN(3000))
		err := w.patiently(log, func() (err error) {
			b, err = log.Read(w.t.Context(), "events", at, size)
			return err
		})
		if errors.Is(err, stream.ErrTrimmed) && w.retain > 0 { // retention was faster
			st, err := w.log.Stat(w.t.Context(), "events")
			require.NoError(w.t, err)
			require.Greater(w.t, st.Ranges[0].Start, at.Offset)
			from, met = int(st.Ranges[0].Start), nil
			at.Offset = int64(from)
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

// judged waits until all is judged.
func (w *world) judged(j *Judge) {
	w.t.Helper()
	require.NoError(w.t, w.patiently(j.Log(), func() error { return j.lane(testLane).wait(w.t.Context(), int64(len(w.all))) }))
}

// patiently does again what there were no verdicts for, each time that the judge,
// which tries again, has something to tell.
func (w *world) patiently(log stream.Log, do func() error) error {
	for {
		l := log.(*Log).judge.lane(testLane)
		l.mu.Lock()
		news := l.mu.news
		l.mu.Unlock()
		err := do()
		if !errors.Is(err, vfs.ErrInjected) {
			return err
		}
		select {
		case <-news:
		case <-w.t.Context().Done():
			return err
		}
	}
}
