package simulation

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"naru/internal/lake/iceberg"
	"naru/internal/quantity"
	"naru/internal/vfs"
)

var (
	oneSeed = flag.Uint64("seed", 0, "run only this history")
	begin   = flag.Uint64("first", 1, "the first seed")
	cuts    = flag.Int("cuts", shortCuts, "cuts at random moments, half as many with faults; at most 10000 and 3000 in the time that NARU_SOAK gives")
)

const shortCuts = 150

// soaking tells for how long the long forms may run; 0: the short forms.
func soaking(t *testing.T) time.Duration {
	text := os.Getenv("NARU_SOAK")
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("NARU_SOAK: %v", err)
	}
	return d
}

// tally counts what was in flight at cuts.
type tally map[string]int

func (c tally) add(names []string) {
	for _, n := range names {
		c[n]++
	}
	if len(names) == 0 {
		c["nothing"]++
	}
}

func (c tally) String() string {
	var b strings.Builder
	for _, n := range slices.Sorted(maps.Keys(c)) {
		fmt.Fprintf(&b, "\n%8d %s", c[n], n)
	}
	return b.String()
}

// history is a chain of lives of one naru: each ends in a cut, a kill, a poisoned
// log or a clean stop, and the next begins with what that one left.
type history struct {
	t      *testing.T
	rng    *rand.Rand
	cfg    settings
	wall   *clock
	book   *ledger
	reader *reader
	left   image
	seen   tally // in flight at cuts
	faults tally
	cuts   int
	all    []*client
	lives  []string // what happened, for a failure's report
	faulty bool
	jumps  bool
	aim    string  // a kind of moment that is to be met, and has been met least
	looks  *looked // not nil: queries run beside all that
}

func newHistory(t *testing.T, rng *rand.Rand) *history {
	h := &history{t: t, rng: rng, cfg: smallSettings(rng), wall: &clock{}, book: newLedger(), reader: newReader(),
		left: image{disk: vfs.NewMemory(), rows: iceberg.NewMemoryCatalog()}, seen: tally{}, faults: tally{}}
	topic := newTopics(rng)
	for i := range 1 + rng.IntN(3) {
		h.all = append(h.all, newClient(i, rand.New(rand.NewPCG(rng.Uint64(), 2)), topic, h.cfg.collect.Partitions > 1))
	}
	return h
}

// typical is about how many operations a life of some requests takes.
const typical = 500

// life is one of them. It returns an error only for what must never happen.
func (h *history) life() error {
	m := newMachine(h.left.disk, h.left.rows, h.rng)
	switch h.rng.IntN(12) {
	case 0: // a stop in good order, if nothing comes between
	case 1, 2, 3, 4, 5: // at some moment of a kind
		m.cutOn, m.skip = h.aim, h.rng.IntN(4)
	case 6, 7: // early: during the recovery and the first commits
		m.cutAt = 1 + h.rng.IntN(60)
	default:
		m.cutAt = 1 + h.rng.IntN(typical)
	}
	m.kill = h.rng.IntN(3) == 0
	var trouble faults
	if h.faulty {
		trouble = faults{disk: []float64{0, 0.001, 0.01}[h.rng.IntN(3)], slow: 0.002, catalog: []float64{0, 0.3}[h.rng.IntN(2)]}
		if h.rng.IntN(4) == 0 {
			m.disk.SetCapacity(64<<10 + h.rng.Int64N(512<<10))
		}
		if h.rng.IntN(4) == 0 {
			m.faults = trouble // a start on a disk that fails may fail
		}
	}
	if h.jumps {
		h.wall.jumpAnywhere(h.rng)
	}
	acked := h.book.acknowledged()
	h.cfg.version = h.rng.IntN(2) // contracts change while nothing runs, and back again
	end := "a clean stop"
	p, err := start(m, h.cfg, h.wall, nil)
	m.mu.Lock()
	m.faults = trouble
	m.mu.Unlock()
	if err == nil {
		err = h.begun(p, acked)
		if err != nil && !m.isDown() && !(h.faulty && isInjected(err)) {
			return errors.Join(err, p.close())
		}
	} else if !m.isDown() && !h.faulty {
		return errors.Join(fmt.Errorf("start: %w", err), p.close())
	}
	var broke error
	if err == nil {
		p.jumps = h.jumps
		eyes, lerr := h.eyes(p)
		if lerr != nil {
			return errors.Join(lerr, p.close())
		}
		w := p.run()
		requests := 2 + h.rng.IntN(12)
		if h.looks != nil && !testing.Short() {
			requests *= 3
		}
		p.clients(h.rng, h.all, requests, 6, h.book.send, func(s shipment, a answer) { h.book.ack(s, a, h.cfg.collect.Partitions) })
		h.settle(m)
		lerr = eyes()
		broke = w.stop()
		if lerr != nil {
			return errors.Join(fmt.Errorf("a query: %w", lerr), p.close())
		}
		if broke != nil && !m.isDown() && !h.faulty {
			return errors.Join(fmt.Errorf("pipelines ended: %w", broke), p.close())
		}
		p.collect()
		if n := p.removed.Load(); h.jumps && n > 0 {
			return errors.Join(fmt.Errorf("%d files were removed before their hour was over", n), p.close())
		}
	} else {
		end = "a start that failed: " + err.Error()
	}
	cerr := p.close()
	if cerr != nil && !m.isDown() && !h.faulty {
		return fmt.Errorf("close: %w", cerr)
	}
	wasCut := m.isDown()
	h.left = m.stop(h.rng.IntN(2) == 0, h.rng.Uint64())
	h.left.disk.SetCapacity(1 << 40)
	if wasCut {
		h.cuts++
		h.seen.add(h.left.inFlight)
		end = fmt.Sprintf("cut (kill %t) during %q", m.kill, h.left.inFlight)
	}
	for k, n := range m.hit {
		h.faults[k] += n
	}
	h.lives = append(h.lives, fmt.Sprintf("%d operations, %s", m.step, end))
	return nil
}

// eyes lets queries run beside a life, if that is wanted: the first one before
// anything is loaded. stop tells what they saw.
func (h *history) eyes(p *process) (stop func() error, err error) {
	if h.looks == nil {
		return func() error { return nil }, nil
	}
	o, err := look(p, h.book, h.cfg, h.looks)
	if err == nil {
		err = o.glance(h.t.Context(), h.rng, newReader())
	}
	if err != nil && (p.m.isDown() || h.faulty && isInjected(err)) {
		return func() error { return nil }, nil
	}
	if err != nil {
		return nil, fmt.Errorf("a query before anything is loaded: %w", err)
	}
	o.run(1+h.rng.IntN(2), h.rng)
	return func() error {
		if err := o.stop(); err != nil && !(h.faulty && isInjected(err)) {
			return err
		}
		return nil
	}, nil
}

// settle lets the pipelines go on for a while after the last request: until some
// operations later, or until they have nothing to do.
func (h *history) settle(m *machine) {
	until := h.rng.IntN(400)
	m.mu.Lock()
	from := m.step
	m.mu.Unlock()
	for range 200 {
		m.mu.Lock()
		now := m.step
		m.mu.Unlock()
		if now-from >= until || m.isDown() {
			return
		}
		time.Sleep(20 * time.Microsecond) // not for a state: only so that time passes
	}
}

// begun checks what a start has found, before anything is loaded.
func (h *history) begun(p *process, acked map[string]bool) error {
	tables, err := h.reader.all(p.m.disk, p.m.rows)
	if err != nil {
		return fmt.Errorf("after a cut: %w", err)
	}
	if err := h.book.learn(p.log, tables, acked); err != nil {
		return fmt.Errorf("after recovery: %w", err)
	}
	if err := h.book.proof(p.log, tables, false); err != nil {
		return fmt.Errorf("before loading: %w", err)
	}
	return nil
}

// finish starts once more without any trouble, loads everything, proves it, and
// starts again: then there is nothing to repair.
func (h *history) finish() error {
	for again := range 2 {
		acked := h.book.acknowledged()
		m := newMachine(h.left.disk, h.left.rows, h.rng)
		p, err := start(m, h.cfg, h.wall, nil)
		if err != nil {
			return errors.Join(fmt.Errorf("last start: %w", err), p.close())
		}
		if err := h.begun(p, acked); err != nil {
			return errors.Join(err, p.close())
		}
		if r := p.recovery; again > 0 && (r.New || r.Torn != 0 || r.Copied != 0) {
			return errors.Join(fmt.Errorf("a second start had to repair the log: %+v", r), p.close())
		}
		// What is not needed is found and goes, and nothing else does.
		_, err = p.lake.CollectOrphans(h.t.Context())
		p.lake.CollectGarbage()
		if err == nil && !h.jumps { // there they stay for an hour
			err = h.reader.orphans(m.disk, m.rows)
		}
		if err != nil {
			return errors.Join(err, p.close())
		}
		if again > 0 {
			return p.close()
		}
		w := p.run()
		err = p.drained()
		if serr := w.stop(); err == nil && serr != nil {
			err = serr
		}
		if err == nil {
			for _, s := range p.tables.Status() {
				if s.Error != "" {
					err = fmt.Errorf("table %s stands still: %s", s.Table, s.Error)
				}
			}
		}
		if err == nil {
			var tables, terr = h.reader.all(m.disk, m.rows)
			if err = terr; err == nil {
				err = h.book.proof(p.log, tables, true)
			}
		}
		p.lake.CollectGarbage()
		if err = errors.Join(err, p.close()); err != nil {
			return err
		}
		h.left = m.stop(true, h.rng.Uint64())
	}
	return nil
}

// isInjected tells whether an error comes from a fault that the test made.
func isInjected(err error) bool {
	for _, e := range diskErrors {
		if errors.Is(err, e) {
			return true
		}
	}
	return errors.Is(err, errNoAnswer) || errors.Is(err, iceberg.ErrConflict)
}

func (h *history) run(lives int) error {
	for range lives {
		if err := h.life(); err != nil {
			return err
		}
	}
	if err := h.finish(); err != nil {
		return fmt.Errorf("in the end: %w", err)
	}
	return nil
}

func (h *history) report(test string, seed uint64, err error) {
	h.t.Helper()
	h.t.Fatalf("seed %d: %v\nsettings: %s\nlives:\n  %s\nagain: go test -count=20 -run '^%s$' ./internal/simulation -args -seed %d",
		seed, err, h.cfg, strings.Join(h.lives, "\n  "), test, seed)
}

// The power goes, or the process is killed, at random moments: while events come
// in, while tables are committed, during recoveries, several times in a row.
func TestPowerCutsAtRandom(t *testing.T) {
	t.Parallel()
	want := *cuts
	if soaking(t) > 0 && want == shortCuts {
		want = 10_000
	}
	histories(t, want, false)
}

// The same with a disk and a catalog that fail besides.
func TestFaultsAndPowerCuts(t *testing.T) {
	t.Parallel()
	want := *cuts / 2
	if soaking(t) > 0 && *cuts == shortCuts {
		want = 3000
	}
	histories(t, want, true)
}

func histories(t *testing.T, want int, faulty bool) {
	seen, broken, done := tally{}, tally{}, 0
	first := *begin
	if *oneSeed != 0 {
		first, want = *oneSeed, 1
	}
	n := 0
	var deadline time.Time
	if d := soaking(t); d > 0 {
		deadline = time.Now().Add(d)
	}
	missing := func() (kinds []string) {
		for _, kind := range allKinds {
			if seen[kind] == 0 && !faulty && *oneSeed == 0 {
				kinds = append(kinds, kind)
			}
		}
		return kinds
	}
	// A kind that was not met by then is aimed at for a while.
	for seed := first; done < want || len(missing()) > 0 && done < 4*want; seed++ {
		if !deadline.IsZero() && time.Now().After(deadline) {
			break
		}
		h := newHistory(t, rand.New(rand.NewPCG(seed, 1)))
		h.faulty = faulty
		h.aim = allKinds[seed%uint64(len(allKinds))]
		if kinds := missing(); done >= want && len(kinds) > 0 {
			h.aim = kinds[0]
		}
		if h.aim == flyTrim || h.aim == flyRoll {
			h.cfg.log.Segment, h.cfg.log.RetainBytes = 16*quantity.KiB, 32*quantity.KiB
		}
		if h.aim == flyExpiry {
			h.cfg.lake.ExpireEvery, h.cfg.lake.KeepSnapshots, h.cfg.lake.CommitRate = 1, 1, 1000
		}
		if err := h.run(1 + h.rng.IntN(6)); err != nil {
			h.report(t.Name(), seed, err)
		}
		done += h.cuts
		n++
		for k, v := range h.seen {
			seen[k] += v
		}
		for k, v := range h.faults {
			broken[k] += v
		}
		if *oneSeed != 0 {
			break
		}
	}
	t.Logf("%d cuts in %d histories from seed %d on; in flight:%s\nfaults:%s", done, n, first, seen, broken)
	if done < shortCuts && *cuts >= shortCuts {
		return // the time was too short to meet every kind
	}
	for _, kind := range missing() {
		t.Errorf("no cut met: %s", kind)
	}
}
