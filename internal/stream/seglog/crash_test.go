package seglog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/stream"
	"naru/internal/stream/streamtest"
	"naru/internal/vfs"
)

// workload appends from several goroutines and writes down what was
// acknowledged, so that it can be held against any later state of the disk.
type workload struct {
	t    *testing.T
	seed uint64
	cfg  Config
	disk *vfs.Memory
	log  *Log

	mu struct {
		sync.Mutex
		acked
	}
}

// acked is what the log has promised.
type acked struct {
	events   []placed
	progress map[string]int64 // reader → counts.Written of its last commit
	requests int
}

type placed struct {
	stream string
	at     event.Position
	values []string
}

func (a acked) clone() acked {
	a.events, a.progress = slices.Clone(a.events), maps.Clone(a.progress)
	return a
}

const appenders = 5

func newWorkload(t *testing.T, seed uint64) *workload {
	rng := rand.New(rand.NewPCG(seed, 1))
	cfg := testConfig()
	cfg.Segment = []quantity.Bytes{6 << 10, 8 << 10, 32 << 10}[rng.IntN(3)]
	cfg.Recycle = cfg.Segment * quantity.Bytes(rng.IntN(3))
	if rng.IntN(2) == 0 {
		cfg.RetainBytes = 5 * cfg.Segment
	}
	cfg.Promise = quantity.Duration([]time.Duration{100 * time.Microsecond, time.Millisecond, time.Hour}[rng.IntN(3)])
	w := &workload{t: t, seed: seed, cfg: cfg, disk: newDisk(t)}
	w.mu.progress = map[string]int64{}
	return w
}

func (w *workload) open() { w.log = w.mustOpen(w.disk) }

func (w *workload) mustOpen(disk *vfs.Memory) *Log {
	w.t.Helper()
	l, err := Open(disk, testDir, w.cfg, nil)
	if err != nil {
		w.t.Fatalf("seed %d: %v\n%s", w.seed, err, disk)
	}
	return l
}

// run appends n times from every appender; errors end an appender.
func (w *workload) run(round, n int) {
	var wg sync.WaitGroup
	for a := range appenders {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(w.seed, uint64(100*round+a)))
			for i := range n {
				if err := w.append(rng, fmt.Sprintf("%d/%d/%d/", round, a, i), a, int64(1000*round+i)); err != nil {
					if !errors.Is(err, fault.ErrPoisoned) && !errors.Is(err, stream.ErrClosed) {
						w.t.Errorf("seed %d: append: %v", w.seed, err)
					}
					return
				}
			}
		})
	}
	wg.Wait()
}

// append writes one request: four values of the same name that stand or fall together.
func (w *workload) append(rng *rand.Rand, name string, a int, n int64) error {
	pad := strings.Repeat("x", rng.IntN(150))
	values := [][]string{{name + "a" + pad, name + "b"}, {name + "c"}, {name + "d" + pad}}
	writes := []stream.Write{
		streamtest.Write("events", 0, values[0]...),
		streamtest.Write("rejected", 0, values[1]...),
		streamtest.Write("events", 0, values[2]...),
	}
	writes[1].RefusedFrom = "events"
	reader := fmt.Sprintf("r%d", a)
	var at []event.Position
	var err error
	commit := rng.IntN(3) == 0
	if commit {
		err = w.log.Commit(context.Background(), writes[1:2], reader, stream.Progress{
			Stream: "events", Positions: event.Positions{{1}: {0: 1 << 40}}, Counts: stream.Counts{Written: n},
		})
		values, writes = values[1:2], writes[1:2]
	} else {
		at, err = w.log.Append(context.Background(), writes...)
	}
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.requests++
	if commit {
		w.mu.progress[reader] = n
	}
	for i, wr := range writes {
		p := placed{stream: wr.Stream, values: values[i], at: event.Position{Offset: -1}}
		if at != nil {
			p.at = at[i]
		}
		w.mu.events = append(w.mu.events, p)
	}
	return nil
}

func (w *workload) promised() acked {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.acked.clone()
}

// contents is all that a log shows.
type contents struct {
	values   map[string][]string // stream → in order
	start    map[string]int64
	progress map[string]int64
	inc      event.Incarnation
}

func (w *workload) read(l *Log) contents {
	w.t.Helper()
	c := contents{values: map[string][]string{}, start: map[string]int64{}, progress: map[string]int64{}}
	ctx := testCtx(w.t)
	names, err := l.Streams(ctx)
	if err != nil {
		w.t.Fatalf("seed %d: %v", w.seed, err)
	}
	for _, name := range names {
		st, err := l.Stat(ctx, name)
		if err != nil {
			w.t.Fatalf("seed %d: %v", w.seed, err)
		}
		r := st.Ranges[0]
		c.start[name], c.inc = r.Start, st.Incarnation
		from := event.Position{Incarnation: r.Incarnation, Offset: r.Start}
		for from.Offset < r.End {
			b, err := l.Read(ctx, name, from, 1<<12)
			if err != nil {
				w.t.Fatalf("seed %d: %v\n%s", w.seed, err, l.fs)
			}
			c.values[name] = append(c.values[name], streamtest.Values(w.t, b)...)
			from = b.End()
		}
		if got := r.Start + int64(len(c.values[name])); from.Offset != r.End || got != r.End {
			w.t.Fatalf("seed %d: %s holds %d events in [%d,%d)", w.seed, name, len(c.values[name]), r.Start, r.End)
		}
		if name == "events" && r.Start == 0 && st.Acknowledged != int64(len(c.values["events"]))+st.Refused {
			w.t.Fatalf("seed %d: acknowledged %d, refused %d, in the log %d", w.seed, st.Acknowledged, st.Refused, len(c.values["events"]))
		}
	}
	readers, err := l.Readers(ctx)
	if err != nil {
		w.t.Fatalf("seed %d: %v", w.seed, err)
	}
	for name, p := range readers {
		c.progress[name] = p.Counts.Written
	}
	return c
}

// check holds what a log shows against what was promised: every acknowledged
// event exactly once and at its place, requests whole, order kept.
func (w *workload) check(what string, c contents, a acked) {
	w.t.Helper()
	bad := func(format string, args ...any) {
		w.t.Helper()
		w.t.Fatalf("seed %d, %s: %s", w.seed, what, fmt.Sprintf(format, args...))
	}
	place := map[string]int64{}
	parts := map[string]string{} // request → letters seen
	for name, values := range c.values {
		for i, v := range values {
			if at, twice := place[v]; twice {
				bad("%.20q stands at %d and at %d of %s", v, at, c.start[name]+int64(i), name)
			}
			place[v] = c.start[name] + int64(i)
			cut := strings.LastIndexByte(v, '/') + 1
			parts[v[:cut]] += v[cut : cut+1]
		}
	}
	for _, p := range a.events {
		for i, v := range p.values {
			at, there := place[v]
			switch {
			case !there && c.start[p.stream] > 0 && (p.at.Offset < 0 || p.at.Offset+int64(i) < c.start[p.stream]):
				// dropped by retention
			case !there:
				bad("acknowledged event %.20q of %s at %d is gone", v, p.stream, p.at.Offset+int64(i))
			case p.at.Offset >= 0 && at != p.at.Offset+int64(i):
				bad("event %.20q was acknowledged at %d and stands at %d", v, p.at.Offset+int64(i), at)
			}
		}
	}
	if c.start["events"] == 0 && c.start["rejected"] == 0 {
		for name, letters := range parts {
			if s := []byte(letters); len(s) > 1 {
				slices.Sort(s)
				letters = string(s)
			}
			if letters != "abcd" && letters != "c" { // an append; a commit
				bad("of request %s there is only %q", name, letters)
			}
		}
	}
	for reader, n := range a.progress {
		if c.progress[reader] < n {
			bad("reader %s had committed %d, the log says %d", reader, n, c.progress[reader])
		}
	}
	for a := range appenders { // order of each appender
		last := [2]int{-1, -1}
		for _, v := range c.values["events"] {
			var round, who, i int
			if _, err := fmt.Sscanf(strings.ReplaceAll(v, "/", " "), "%d %d %d", &round, &who, &i); err != nil {
				bad("%.20q: %v", v, err)
			}
			if now := [2]int{round, i}; who == a {
				if slices.Compare(now[:], last[:]) < 0 {
					bad("%v stands behind %v of appender %d", now, last, a)
				}
				last = now
			}
		}
	}
}

func sameContents(a, b contents) bool {
	return maps.EqualFunc(a.values, b.values, slices.Equal) && maps.Equal(a.progress, b.progress) && maps.Equal(a.start, b.start)
}

// survive opens what a crash has left and checks it; then it crashes again
// during and after that recovery: what had been readable stays.
func (w *workload) survive(what string, disk *vfs.Memory, a acked, seed uint64) {
	w.t.Helper()
	type again struct {
		n    int
		disk *vfs.Memory
	}
	var mu sync.Mutex // the keeper syncs too
	var inside []again
	disk.OnSync(func(n int, _ vfs.Op, _ string) {
		mu.Lock()
		defer mu.Unlock()
		inside = append(inside, again{n, disk.CrashClone(seed + uint64(n))})
	})
	l := w.mustOpen(disk)
	disk.OnSync(nil)
	mu.Lock()
	during := inside
	mu.Unlock()
	shown := w.read(l)
	w.check(what, shown, a)
	after := disk.CrashClone(seed) // nothing closed
	killed := disk.KillClone()
	closeLog(w.t, l)

	for _, c := range during {
		l := w.mustOpen(c.disk)
		w.check(fmt.Sprintf("%s, again at sync %d of the recovery", what, c.n), w.read(l), a)
		closeLog(w.t, l)
	}
	for name, d := range map[string]*vfs.Memory{"power cut after the recovery": after, "clean restart": disk, "kill, then power cut": killed.CrashClone(0)} {
		var report Recovery
		cfg := w.cfg
		cfg.Listener.Recovered = func(r Recovery) { report = r }
		l, err := Open(d, testDir, cfg, nil)
		if err != nil {
			w.t.Fatalf("seed %d, %s, %s: %v", w.seed, what, name, err)
		}
		if got := w.read(l); !sameContents(got, shown) {
			w.t.Fatalf("seed %d, %s, %s: what could be read has changed", w.seed, what, name)
		}
		if report.Torn > 0 || report.Copied > 0 {
			w.t.Fatalf("seed %d, %s, %s: the second start repairs again: %+v", w.seed, what, name, report)
		}
		closeLog(w.t, l)
	}
}

// seeds runs fn for some seeds, few in a short run.
func seeds(t *testing.T, n int, fn func(t *testing.T, seed uint64)) {
	if testing.Short() {
		n = min(n, 3)
	}
	first := uint64(time.Now().UnixNano())
	for i := range n {
		seed := uint64(i) + 10 // half of the runs are the same every time
		if i%2 == 1 {
			seed = first + uint64(i)
		}
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { fn(t, seed) })
	}
}

// The power is cut at every sync point of a workload, with several disks each.
func TestPowerCutAtEverySync(t *testing.T) {
	groups := 0 // frames that shared a sync with others
	defer func() {
		if groups == 0 && !t.Failed() {
			t.Error("no group had more than one frame")
		}
	}()
	seeds(t, 6, func(t *testing.T, seed uint64) {
		w := newWorkload(t, seed)
		type cut struct {
			what string
			disk *vfs.Memory
			a    acked
		}
		var mu sync.Mutex // the keeper syncs too
		var cuts []cut
		w.disk.OnSync(func(n int, op vfs.Op, path string) {
			for range 50 {
				runtime.Gosched() // let others queue up: groups of several frames
			}
			mu.Lock()
			defer mu.Unlock()
			a := w.promised() // before the clone: what is acknowledged later may be lost
			for s := range uint64(3) {
				cuts = append(cuts, cut{fmt.Sprintf("sync %d (%s %s), disk %d", n, op, path, s), w.disk.CrashClone(s * seed), a})
			}
		})
		w.open()
		w.run(0, 12)
		w.disk.OnSync(nil)
		st := w.log.Stats()
		t.Logf("%d frames in %d groups", st.Frames, st.Syncs)
		groups += int(st.Frames - st.Syncs)
		closeLog(t, w.log)
		for i, c := range cuts {
			w.survive(c.what, c.disk, c.a, seed+uint64(i))
		}
		w.survive("clean stop", w.disk.CrashClone(0), w.promised(), seed)
		if w.promised().requests != appenders*12 {
			t.Fatalf("%d requests were acknowledged", w.promised().requests)
		}
	})
}

// Crashes at any time, one after the other on the same disk.
func TestPowerCutsInARow(t *testing.T) {
	seeds(t, 10, func(t *testing.T, seed uint64) {
		w := newWorkload(t, seed)
		w.cfg.RetainBytes = 0
		rng := rand.New(rand.NewPCG(seed, 2))
		for round := range 8 {
			w.open()
			before := w.read(w.log)
			w.check("start", before, w.promised())
			type state struct {
				disk *vfs.Memory
				a    acked
			}
			var st state
			at := w.disk.Syncs() + 1 + rng.IntN(60)
			kill := rng.IntN(3) == 0
			var once sync.Once
			cut := func() {
				once.Do(func() {
					a := w.promised()
					if kill {
						st = state{w.disk.KillClone(), a}
					} else {
						st = state{w.disk.CrashClone(rng.Uint64()), a}
					}
				})
			}
			w.disk.OnSync(func(n int, _ vfs.Op, _ string) {
				if n >= at {
					cut()
				}
			})
			w.run(round, 20)
			cut()
			w.disk.OnSync(nil)
			closeLog(t, w.log)
			w.disk = st.disk
			w.mu.Lock()
			w.mu.acked = st.a
			w.mu.Unlock()
		}
		w.survive("the end", w.disk, w.promised(), seed)
	})
}

func TestFailedSyncPoisons(t *testing.T) {
	for _, op := range []vfs.Op{vfs.OpSync, vfs.OpWrite, vfs.OpSyncDir, vfs.OpRename} {
		t.Run(op.String(), func(t *testing.T) {
			w := newWorkload(t, 10)
			w.cfg.Segment = 8 << 10
			w.cfg.RetainBytes = 0
			var told error
			w.cfg.Listener.Poisoned = func(err error) { told = err }
			w.open()
			w.run(0, 5)
			end := event.Position{Incarnation: w.read(w.log).inc, Offset: int64(len(w.read(w.log).values["events"]))}
			waiting := make(chan error, 1)
			ctx := testCtx(t)
			go func() {
				_, err := w.log.Read(ctx, "events", end, 1)
				waiting <- err
			}()
			pattern := "*.seg"
			switch op {
			case vfs.OpSyncDir:
				pattern = ""
			case vfs.OpRename:
				pattern = "free-*"
			}
			w.disk.Inject(vfs.Rule{Ops: op, Pattern: pattern, Skip: 2, Times: 1})
			w.run(1, 100)
			select {
			case <-w.log.Poisoned():
			default:
				t.Fatal("the log is not poisoned")
			}
			if err := w.log.Err(); !errors.Is(err, fault.ErrPoisoned) || !errors.Is(err, vfs.ErrInjected) || told == nil {
				t.Fatalf("err %v, told %v", err, told)
			}
			// The disk is well again; the log does not try.
			for name, call := range map[string]func() error{
				"append":   func() error { _, err := w.log.Append(ctx, streamtest.Write("events", 0, "x")); return err },
				"commit":   func() error { return w.log.Commit(ctx, nil, "r", stream.Progress{}) },
				"read":     func() error { _, err := w.log.Read(ctx, "events", event.Position{}, 1); return err },
				"progress": func() error { _, err := w.log.Progress(ctx, "r"); return err },
				"stat":     func() error { _, err := w.log.Stat(ctx, "events"); return err },
				"streams":  func() error { _, err := w.log.Streams(ctx); return err },
				"readers":  func() error { _, err := w.log.Readers(ctx); return err },
				"forget":   func() error { return w.log.Forget(ctx, "r0") },
			} {
				if err := call(); !errors.Is(err, fault.ErrPoisoned) {
					t.Errorf("%s: %v", name, err)
				}
			}
			// The waiting reader either saw the first group or was told.
			<-waiting
			if err := w.log.Close(); !errors.Is(err, fault.ErrPoisoned) {
				t.Errorf("close: %v", err)
			}
			// The page cache shows more than the disk holds: a start makes it
			// durable before anybody reads it.
			w.survive("restart after poison", w.disk.KillClone(), w.promised(), 77)
			w.survive("power cut after poison", w.disk.CrashClone(0), w.promised(), 78)
		})
	}
}
