package seglog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/stream"
	"naru/internal/stream/streamtest"
	"naru/internal/vfs"
)

// ledger is what the log has said: what it acknowledged, and what readers saw.
type ledger struct {
	acked, seen map[string]map[int64]string // stream → offset → value
	unsure      map[string]bool             // values of requests without an answer
	sizes       map[string]int              // request → events that stand or fall together
	marks       map[string]int64            // reader → offset that it had committed
	trimmed     map[string]int64            // stream → offset below which retention may have been
}

func newLedger() *ledger {
	return &ledger{acked: map[string]map[int64]string{}, seen: map[string]map[int64]string{}, unsure: map[string]bool{}, sizes: map[string]int{}, marks: map[string]int64{}, trimmed: map[string]int64{}}
}

func note(m map[string]map[int64]string, name string, at int64, v string) {
	if m[name] == nil {
		m[name] = map[int64]string{}
	}
	m[name][at] = v
}

func (g *ledger) clone() *ledger {
	c := newLedger()
	for _, p := range [][2]map[string]map[int64]string{{c.acked, g.acked}, {c.seen, g.seen}} {
		for name, all := range p[1] {
			for at, v := range all {
				note(p[0], name, at, v)
			}
		}
	}
	for k := range g.unsure {
		c.unsure[k] = true
	}
	for k, v := range g.sizes {
		c.sizes[k] = v
	}
	for k, v := range g.marks {
		c.marks[k] = v
	}
	for k, v := range g.trimmed {
		c.trimmed[k] = v
	}
	return c
}

// history is a random life of a log.
type history struct {
	t    *testing.T
	seed uint64
	cfg  Config
	disk *vfs.Memory
	tap  func(vfs.Op, string)
	mu   struct {
		sync.Mutex
		*ledger
	}
}

func newHistory(t *testing.T, seed uint64) *history {
	rng := rand.New(rand.NewPCG(seed, 1))
	h := &history{t: t, seed: seed, disk: newDisk(t), cfg: testConfig()}
	h.cfg.Segment = []quantity.Bytes{4 << 10, 6 << 10, 16 << 10}[rng.IntN(3)]
	h.cfg.Recycle = h.cfg.Segment * quantity.Bytes(rng.IntN(3))
	if rng.IntN(2) == 0 {
		h.cfg.RetainBytes = 5 * h.cfg.Segment
	}
	h.cfg.DropUnread = rng.IntN(2) == 0
	h.cfg.Promise = quantity.Duration([]time.Duration{50 * time.Microsecond, time.Millisecond, time.Hour}[rng.IntN(3)])
	h.mu.ledger = newLedger()
	return h
}

func (h *history) fs() vfs.FS {
	return &tapFS{h.disk, func(op vfs.Op, path string) {
		if h.tap != nil {
			h.tap(op, path)
		}
	}}
}

// live runs writers and readers for a while on an open log; errors end them.
func (h *history) live(l *Log, round, n int) {
	var writers, readers sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	for r := range 2 {
		readers.Go(func() { h.reader(ctx, l, fmt.Sprintf("s%d", r)) })
	}
	for w := range 3 {
		writers.Go(func() {
			rng := rand.New(rand.NewPCG(h.seed, uint64(1000*round+w)))
			for i := range n {
				if !h.append(rng, l, fmt.Sprintf("%d/%d/%d/", round, w, i)) {
					return
				}
			}
		})
	}
	writers.Wait()
	stop()
	readers.Wait()
}

// append writes one request over two streams. false: the log is gone.
func (h *history) append(rng *rand.Rand, l *Log, name string) bool {
	var writes []stream.Write
	var values [][]string
	total := 0
	for i := range 1 + rng.IntN(3) {
		var vs []string
		for j := range 1 + rng.IntN(3) {
			vs = append(vs, fmt.Sprintf("%s%d.%d%s", name, i, j, strings.Repeat("x", rng.IntN(200))))
		}
		total += len(vs)
		values = append(values, vs)
		writes = append(writes, streamtest.Write(fmt.Sprintf("s%d", rng.IntN(2)), 0, vs...))
	}
	h.mu.Lock()
	h.mu.unsure[name] = true
	h.mu.sizes[name] = total
	h.mu.Unlock()
	at, err := l.Append(context.Background(), writes...)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		if errors.Is(err, stream.ErrFull) || errors.Is(err, fault.ErrLimit) { // stores nothing
			delete(h.mu.unsure, name)
			delete(h.mu.sizes, name)
			return true
		}
		if !errors.Is(err, fault.ErrPoisoned) && !errors.Is(err, stream.ErrClosed) {
			h.t.Errorf("seed %d: append: %v", h.seed, err)
		}
		return false
	}
	delete(h.mu.unsure, name)
	for i, vs := range values {
		for j, v := range vs {
			note(h.mu.acked, writes[i].Stream, at[i].Offset+int64(j), v)
		}
	}
	return true
}

// reader reads a stream from where it has got to and commits that.
func (h *history) reader(ctx context.Context, l *Log, name string) {
	from := event.Position{}
	if at, err := l.Progress(ctx, "r-"+name); err == nil {
		for inc, parts := range at.Positions {
			from = event.Position{Incarnation: inc, Offset: parts[0]}
		}
	}
	for n := 0; ; n++ {
		b, err := l.Read(ctx, name, from, 1<<10)
		if errors.Is(err, stream.ErrTrimmed) {
			from = event.Position{}
			continue
		}
		if errors.Is(err, stream.ErrNoStream) {
			select {
			case <-ctx.Done():
				return
			case <-l.Changed():
				continue
			case <-l.Poisoned():
				return
			}
		}
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, vfs.ErrInjected) && !errors.Is(err, fault.ErrPoisoned) && !errors.Is(err, stream.ErrClosed) {
				h.t.Errorf("seed %d: read %s: %v", h.seed, name, err)
			}
			return
		}
		h.mu.Lock()
		eachAt(h.t, b, func(at int64, v string) { note(h.mu.seen, name, at, v) })
		h.mu.Unlock()
		from = b.End()
		if n%3 == 0 {
			if l.Commit(ctx, nil, "r-"+name, stream.Progress{Stream: name, Positions: event.Positions{b.Incarnation: {0: b.Next}}}) == nil {
				h.mu.Lock()
				h.mu.marks["r-"+name] = b.Next
				h.mu.Unlock()
			}
		}
	}
}

// check holds what a log shows against what it had said before the crash.
func (h *history) check(what string, l *Log, g *ledger) {
	h.t.Helper()
	ctx := testCtx(h.t)
	bad := func(format string, args ...any) {
		h.t.Helper()
		h.t.Fatalf("seed %d, %s: %s\n%s", h.seed, what, fmt.Sprintf(format, args...), h.disk)
	}
	seen := map[string]string{} // value → place
	whole := map[string]int{}
	trimmed := false
	for _, name := range []string{"s0", "s1"} {
		st, err := l.Stat(ctx, name)
		if errors.Is(err, stream.ErrNoStream) {
			if len(g.acked[name]) > 0 || len(g.seen[name]) > 0 {
				bad("stream %s is gone", name)
			}
			continue
		}
		if err != nil {
			bad("%v", err)
		}
		if len(st.Ranges) != 1 {
			bad("%+v", st)
		}
		r := st.Ranges[0]
		trimmed = trimmed || r.Start > 0
		got := map[int64]string{}
		next := r.Start
		for from := (event.Position{Incarnation: r.Incarnation, Offset: r.Start}); from.Offset < r.End; {
			b, err := l.Read(ctx, name, from, 1<<12)
			if err != nil {
				bad("%v", err)
			}
			eachAt(h.t, b, func(at int64, v string) {
				if at != next {
					bad("%s goes on at %d behind %d", name, at, next-1)
				}
				next++
				got[at] = v
				if p, twice := seen[v]; twice {
					bad("%.20q stands at %s and at %d of %s", v, p, at, name)
				}
				seen[v] = fmt.Sprint(at, " of ", name)
				whole[v[:strings.LastIndexByte(v, '/')+1]]++
			})
			from = b.End()
		}
		for kind, m := range map[string]map[int64]string{"acknowledged": g.acked[name], "seen": g.seen[name]} {
			for at, v := range m {
				if at >= r.Start && got[at] != v {
					bad("%s event %.20q of %s at %d reads %.20q", kind, v, name, at, got[at])
				}
			}
		}
		at, err := l.Progress(ctx, "r-"+name)
		if err != nil {
			bad("%v", err)
		}
		mark, _ := at.Positions.Get(r.Incarnation, 0)
		if mark > r.End {
			bad("the watermark of %s is at %d, the log ends at %d", name, mark, r.End)
		}
		if mark < g.marks["r-"+name] {
			bad("the watermark of %s went back from %d to %d", name, g.marks["r-"+name], mark)
		}
	}
	if !trimmed {
		for name, n := range whole {
			if n != g.sizes[name] {
				bad("of request %s there are %d of %d events", name, n, g.sizes[name])
			}
		}
	}
}

// recovered opens a disk that a crash has left, checks it, crashes again at some
// point of the recovery, and starts a second time.
func (h *history) recovered(what string, disk *vfs.Memory, g *ledger, rng *rand.Rand) {
	h.t.Helper()
	h.disk = disk
	var inside *vfs.Memory
	at, n := rng.IntN(12), 0
	var once sync.Mutex // the keeper writes too
	fs := &tapFS{disk, func(vfs.Op, string) {
		once.Lock()
		defer once.Unlock()
		if n++; n == at {
			inside = disk.CrashClone(rng.Uint64())
		}
	}}
	l, err := Open(fs, testDir, h.cfg, nil)
	if err != nil {
		h.t.Fatalf("seed %d, %s: %v\n%s", h.seed, what, err, disk)
	}
	h.check(what, l, g)
	once.Lock()
	again := inside
	at = -1
	once.Unlock()
	clone := disk.CrashClone(rng.Uint64())
	closeLog(h.t, l)
	for name, d := range map[string]*vfs.Memory{"cut in the recovery": again, "cut after the recovery": clone, "clean restart": disk} {
		if d == nil {
			continue
		}
		var report Recovery
		cfg := h.cfg
		cfg.Listener.Recovered = func(r Recovery) { report = r }
		l, err := Open(d, testDir, cfg, nil)
		if err != nil {
			h.t.Fatalf("seed %d, %s, %s: %v\n%s", h.seed, what, name, err, d)
		}
		h.check(what+", "+name, l, g)
		if name != "cut in the recovery" && (report.Torn > 0 || report.Copied > 0) {
			h.t.Fatalf("seed %d, %s, %s: the second start repairs: %+v", h.seed, what, name, report)
		}
		closeLog(h.t, l)
		if _, _, err := Verify(d, testDir); err != nil {
			h.t.Fatalf("seed %d, %s, %s: fsck: %v", h.seed, what, name, err)
		}
	}
}

type powerCut struct {
	what string
	disk *vfs.Memory
	g    *ledger
}

// Random lives of logs, with power cuts at random moments of each: before any
// write, sync, rename or removal. Disks fail and run full in some of them.
func TestPowerCutAtRandom(t *testing.T) {
	const perLife = 6
	points := 0
	lives := 60
	if soak(t) > 0 {
		lives = 10_000 / perLife
	}
	randomly(t, lives, func(t *testing.T, seed uint64) {
		h := newHistory(t, seed)
		rng := rand.New(rand.NewPCG(seed, 2))
		var mu sync.Mutex
		var cuts []powerCut
		ops, wanted := 0, map[int]bool{}
		for range perLife {
			wanted[rng.IntN(400)] = true
		}
		h.tap = func(op vfs.Op, path string) {
			mu.Lock()
			defer mu.Unlock()
			if ops++; !wanted[ops] {
				return
			}
			h.mu.Lock()
			g := h.mu.clone() // before the clone: what is said later may be lost
			h.mu.Unlock()
			c := powerCut{what: fmt.Sprintf("cut before operation %d (%s %s)", ops, op, path), g: g}
			if rng.IntN(5) == 0 {
				c.disk, c.what = h.disk.KillClone(), c.what+", killed"
			} else {
				c.disk = h.disk.CrashClone(rng.Uint64())
			}
			cuts = append(cuts, c)
		}
		for round := range 3 {
			var l *Log
			l, err := Open(h.fs(), testDir, h.cfg, nil)
			if err != nil {
				if !errors.Is(err, vfs.ErrInjected) && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, io.ErrShortWrite) {
					t.Fatalf("seed %d: %v", seed, err)
				}
				h.disk.Heal()
				continue
			}
			switch rng.IntN(5) { // the disk of this round
			case 0:
				h.disk.Inject(vfs.Rule{Ops: []vfs.Op{vfs.OpSync, vfs.OpWrite, vfs.OpRename, vfs.OpSyncDir, vfs.OpRemove, vfs.OpRead}[rng.IntN(6)], Skip: rng.IntN(60), Times: 1})
			case 1:
				h.disk.Inject(vfs.Rule{Ops: vfs.OpWrite, Skip: rng.IntN(60), Times: 1, Err: []error{syscall.ENOSPC, io.ErrShortWrite}[rng.IntN(2)]})
			case 2:
				h.disk.Inject(vfs.Rule{Ops: vfs.OpAllocate, Skip: rng.IntN(3), Times: 1 + rng.IntN(5), Err: syscall.ENOSPC})
			}
			h.live(l, round, 20)
			_ = l.Close() // it may be poisoned
			h.disk.Heal()
			mu.Lock()
			if l.Err() != nil { // the process is gone; what it left is on the disk, or in the page cache
				if h.disk = h.disk.KillClone(); rng.IntN(2) == 0 {
					h.disk = h.disk.CrashClone(rng.Uint64())
				}
			}
			mu.Unlock()
		}
		h.mu.Lock()
		g := h.mu.clone()
		h.mu.Unlock()
		cuts = append(cuts, powerCut{"the end", h.disk.CrashClone(rng.Uint64()), g})
		h.tap = nil
		for _, c := range cuts {
			h.recovered(c.what, c.disk, c.g, rng)
		}
		points += len(cuts)
	})
	t.Logf("%d power cuts", points)
}

// Every write and every sync of a history fails once, one at a time, in each of
// the ways in which they fail: the log is poisoned and says so, and the next
// start has all that was acknowledged; what was in flight is there as a whole or
// not at all.
func TestEveryFailure(t *testing.T) {
	kinds := []struct {
		op  vfs.Op
		err error
	}{{vfs.OpSync, nil}, {vfs.OpWrite, nil}, {vfs.OpWrite, syscall.ENOSPC}, {vfs.OpWrite, io.ErrShortWrite}, {vfs.OpRename, nil}, {vfs.OpSyncDir, nil}}
	for _, k := range kinds {
		name := k.op.String()
		if k.err != nil {
			name += " " + k.err.Error()
		}
		t.Run(name, func(t *testing.T) {
			poisoned := 0
			step := 1
			if testing.Short() {
				step = 7
			}
			for skip := 0; ; skip += step {
				h := newHistory(t, uint64(skip%5)+1)
				h.cfg.RetainBytes, h.cfg.Promise = 5*h.cfg.Segment, quantity.Duration(time.Millisecond)
				rule := h.disk.Inject(vfs.Rule{Ops: k.op, Skip: skip, Times: 1, Err: k.err})
				l, err := Open(h.fs(), testDir, h.cfg, nil)
				if err != nil && h.disk.Hits(rule) == 0 {
					t.Fatalf("skip %d: %v", skip, err)
				}
				if err == nil {
					h.live(l, 0, 25)
					if l.Err() != nil {
						poisoned++
						if _, err := l.Append(context.Background(), streamtest.Write("s0", 0, "x/")); !errors.Is(err, fault.ErrPoisoned) {
							t.Fatalf("skip %d: append: %v", skip, err)
						}
						if _, err := l.Read(context.Background(), "s0", event.Position{}, 1); !errors.Is(err, fault.ErrPoisoned) {
							t.Fatalf("skip %d: read: %v", skip, err)
						}
					}
					_ = l.Close() // says again that it is poisoned
				}
				hit := h.disk.Hits(rule) > 0
				h.disk.Heal()
				rng := rand.New(rand.NewPCG(uint64(skip), 3))
				g := h.mu.clone()
				for what, d := range map[string]*vfs.Memory{"killed": h.disk.KillClone(), "power cut": h.disk.CrashClone(rng.Uint64()), "everything unsynced lost": h.disk.CrashClone(0)} {
					h.recovered(fmt.Sprintf("%s %d failed, %s", k.op, skip, what), d, g, rng)
				}
				if !hit {
					break // the history has no more of them
				}
			}
			if poisoned == 0 {
				t.Error("no failure has poisoned the log")
			}
		})
	}
}
