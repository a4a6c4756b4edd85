package simulation

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/iceberg"
	"naru/internal/quantity"
	"naru/internal/rejection"
	"naru/internal/stream"
	"naru/internal/stream/memory"
	"naru/internal/vfs"
)

var inputs = flag.Int("inputs", 5, "inputs of the metamorphic test")

// lane is what must stay in order: its events go over one connection. Between
// lanes there is no order, and nothing that depends on one.
type lane struct {
	cloud bool
	items []item
	on    []string // stream of each
}

// variant is one way to bring an input into the lake.
type variant struct {
	cfg         settings
	connections int
	batch       int
	memory      bool // the log's driver
	cuts        int
	jumps       bool
	resends     bool // requests that were answered come again later
	loose       bool // the loosened contracts are in force from the beginning
	replays     int  // they are loosened some time later, and so many send again what was refused
}

func (v variant) String() string {
	return fmt.Sprintf("%d connections, up to %d events a request, log in memory %t, %d cuts, clock jumps %t, sends again %t, replays %d, %s", v.connections, v.batch, v.memory, v.cuts, v.jumps, v.resends, v.replays, v.cfg)
}

// plain is the variant that the others are compared with.
func plain() variant {
	v := variant{cfg: smallSettings(rand.New(rand.NewPCG(1, 1))), connections: 1, batch: 1000, memory: true}
	v.cfg.lake = iceberg.DefaultConfig()
	v.cfg.pipeline.CommitInterval, v.cfg.pipeline.CommitBytes = quantity.Duration(50*time.Millisecond), quantity.GiB
	v.cfg.collect.Partitions = 1
	return v
}

func randomVariant(rng *rand.Rand) variant {
	v := variant{cfg: smallSettings(rng), connections: 1 + rng.IntN(4), batch: []int{1, 5, 40}[rng.IntN(3)],
		memory: rng.IntN(3) == 0, cuts: rng.IntN(4), jumps: rng.IntN(2) == 0}
	v.resends = !v.jumps && rng.IntN(2) == 0 // beyond the window an event that comes again is another one
	v.cfg.lake.MaxTables = 1000              // which types get the last places depends on the order
	return v
}

func makeLanes(rng *rand.Rand) (lanes []lane) { return makeLanesOf(rng, newTopics(rng)) }

func makeLanesOf(rng *rand.Rand, topic *topics) (lanes []lane) {
	for i := range 1 + rng.IntN(4) {
		l := lane{cloud: rng.IntN(3) == 0}
		c := newClient(i, rand.New(rand.NewPCG(rng.Uint64(), 5)), topic, false)
		for range 20 + rng.IntN(60) {
			it := c.item(l.cloud)
			if l.cloud { // one key, so one partition
				it.text = strings.ReplaceAll(it.text, `"partitionkey":"p`, fmt.Sprintf(`"partitionkey":"lane%d","was":"p`, i))
			}
			l.items = append(l.items, it)
			l.on = append(l.on, pick(rng, topic.streams))
		}
		lanes = append(lanes, l)
	}
	return lanes
}

// The same events under other batches, segments, commits, connections, logs,
// crashes and clocks give the same tables: the same columns with the same types,
// and the same rows, but for where and when they were received.
func TestSameInputSameLake(t *testing.T) {
	t.Parallel()
	variants := 3
	if soaking(t) > 0 {
		variants = 8
	}
	total := tally{}
	for seed, rng := range inputsOf(t, *inputs, 4) {
		lanes := makeLanes(rng)
		base := plain()
		want, err := bring(base, lanes, rng, total)
		if err != nil {
			t.Fatalf("seed %d: %v\nvariant: %s", seed, err, base)
		}
		for range variants {
			v := randomVariant(rng)
			got, err := bring(v, lanes, rng, total)
			if err == nil {
				err = same(want, got)
			}
			if err != nil {
				t.Fatalf("seed %d: %v\nvariant: %s\nagain: go test -count=20 -run '^%s$' ./internal/simulation -args -seed %d", seed, err, v, t.Name(), seed)
			}
			total["variants"]++
		}
	}
	t.Logf("%s", total)
}

// inputsOf gives seeds, each with a generator: n of them, as many as a soak has time
// for, or the one that was asked for.
func inputsOf(t *testing.T, n int, stream uint64) iter.Seq2[uint64, *rand.Rand] {
	return func(yield func(uint64, *rand.Rand) bool) {
		deadline := time.Time{}
		if d := soaking(t); d > 0 {
			n, deadline = 1<<30, time.Now().Add(d)
		}
		first := *begin
		if *oneSeed != 0 {
			first, n = *oneSeed, 1
		}
		for i := range n {
			seed := first + uint64(i)
			if !deadline.IsZero() && time.Now().After(deadline) || !yield(seed, rand.New(rand.NewPCG(seed, stream))) {
				return
			}
		}
	}
}

// bring brings the lanes into a new lake and returns what is in it.
func bring(v variant, lanes []lane, rng *rand.Rand, total tally) (map[lake.Ident]*contents, error) {
	left := image{disk: vfs.NewMemory(), rows: iceberg.NewMemoryCatalog()}
	wall := &clock{}
	var kept stream.Log
	if v.memory {
		kept = memory.New()
		defer func() { _ = kept.Close() }()
	}
	cuts, loosened := v.cuts, v.loose
	for life := 0; ; life++ {
		if life > 20 {
			return nil, errors.New("it does not come to an end")
		}
		m := newMachine(left.disk, left.rows, rng)
		m.kill = rng.IntN(3) == 0
		if cuts > 0 {
			m.cutAt = 1 + rng.IntN(typical)
			cuts--
		}
		p, err := start(m, v.cfg, wall, kept)
		p.loose.Store(loosened)
		if err == nil {
			var at []int
			if at, err = progress(p, lanes); err == nil {
				w := p.run()
				err = p.pour(lanes, at, v, rng)
				if err == nil && v.replays > 0 {
					err = p.replayAll(v.replays)
				}
				if err == nil {
					err = p.drained()
				}
				if serr := w.stop(); err == nil && serr != nil {
					err = serr
				}
			}
		}
		if loosened = p.loose.Load(); err == nil && v.replays > 0 {
			var a account
			a, err = p.accounts()
			total["sent again"] += a.replayed
			if err == nil && !p.m.isDown() {
				err = p.verified()
			}
		}
		cerr := p.close()
		if m.isDown() {
			total["cuts"]++
			left = m.left
			continue
		}
		if err = errors.Join(err, cerr); err != nil {
			return nil, err
		}
		for _, s := range p.tables.Status() {
			if s.Error != "" {
				return nil, fmt.Errorf("table %s stands still: %s", s.Table, s.Error)
			}
		}
		return newReader().all(m.disk, m.rows)
	}
}

// progress finds how much of each lane is stored: a beginning of it. What
// retention has dropped from the log the tables have.
func progress(p *process, lanes []lane) ([]int, error) {
	have, err := stored(p.log)
	if err != nil {
		return nil, err
	}
	tables, err := newReader().all(p.m.disk, p.m.rows)
	if err != nil {
		return nil, err
	}
	keys := map[string]bool{}
	for _, c := range tables {
		for _, r := range c.rows {
			keys[r.key()] = true
		}
	}
	for _, events := range have {
		for _, k := range events {
			keys[k] = true
		}
	}
	at := make([]int, len(lanes))
	for i, l := range lanes {
		for at[i] < len(l.items) && keys[l.items[at[i]].key] {
			at[i]++
		}
		for _, it := range l.items[at[i]:] {
			if keys[it.key] {
				return nil, fmt.Errorf("%s is stored, and not %s before it", it.key, l.items[at[i]].key)
			}
		}
	}
	return at, nil
}

// pour sends what is left of the lanes.
func (p *process) pour(lanes []lane, at []int, v variant, rng *rand.Rand) error {
	var running sync.WaitGroup
	errs := make([]error, v.connections)
	for c := range v.connections {
		own := rand.New(rand.NewPCG(rng.Uint64(), 6))
		running.Go(func() {
			var mine []int
			var before []shipment
			for i := range lanes {
				if i%v.connections == c {
					mine = append(mine, i)
				}
			}
			for len(mine) > 0 && !p.m.isDown() {
				n := own.IntN(len(mine))
				i := mine[n]
				l := lanes[i]
				if at[i] == len(l.items) {
					mine = slices.Delete(mine, n, n+1)
					continue
				}
				s := shipment{stream: l.on[at[i]], cloud: l.cloud}
				for end := 1 + own.IntN(v.batch); len(s.items) < end && at[i] < len(l.items) && l.on[at[i]] == s.stream; at[i]++ {
					s.items = append(s.items, l.items[at[i]])
				}
				if v.jumps && own.IntN(6) == 0 {
					p.clock.jumpAnywhere(own)
				}
				if v.replays > 0 && own.IntN(9) == 0 && (p.loose.Load() || own.IntN(2) == 0) {
					p.loose.Store(true)
					if _, err := p.rejected.Replay(context.Background(), rejection.Filter{}, false, nil); err != nil && !p.m.isDown() {
						errs[c] = err
						return
					}
				}
				if _, status := p.send(s); status == http.StatusRequestEntityTooLarge && len(s.items) > 1 {
					at[i] -= len(s.items) // more than a quarter of a segment: one by one
					for range len(s.items) {
						if _, status = p.send(shipment{stream: s.stream, cloud: s.cloud, items: l.items[at[i] : at[i]+1]}); status != http.StatusOK {
							break
						}
						at[i]++
					}
					if status != http.StatusOK {
						errs[c] = fmt.Errorf("status %d", status)
						return
					}
				} else if status != http.StatusOK {
					errs[c] = fmt.Errorf("status %d", status)
					return
				}
				if !v.resends {
					continue
				}
				if before = append(before, s); own.IntN(2) == 0 {
					again := before[own.IntN(len(before))]
					again.items = again.items[:1+own.IntN(len(again.items))]
					if !slices.ContainsFunc(again.items, func(it item) bool { return it.bad && !(it.over && v.replays > 0) }) { // refused ones are kept each time
						p.send(again)
					}
				}
			}
		})
	}
	running.Wait()
	if p.m.isDown() {
		return errDown
	}
	return errors.Join(errs...)
}

// jumpAnywhere sets the clock by hours or years, to some time from 2018 to 2090:
// behind all times of events, so that none is clamped.
func (c *clock) jumpAnywhere(rng *rand.Rand) {
	years := []time.Duration{0, 0, -8, -5, 3, 30, 60}[rng.IntN(7)]
	c.off.Store(int64(years*365*24*time.Hour + time.Duration(rng.Int64N(int64(20*time.Hour))) - 10*time.Hour))
}

// place and time of receipt are not the input's.
var unlike = []string{"_log", "_partition", "_offset", "_received_at"}

// Of a refused event also the time, which is that of its receipt, its id, which
// naru made, and its place in the request, which the detail names too.
var unlikeRefused = append([]string{"_time", "_id", "item_index", "detail"}, unlike...)

// same compares two lakes.
func same(want, got map[lake.Ident]*contents) error {
	if a, b := slices.SortedFunc(maps.Keys(want), byName), slices.SortedFunc(maps.Keys(got), byName); !slices.Equal(a, b) {
		return fmt.Errorf("tables %v, and with the variant %v", a, b)
	}
	for id, w := range want {
		g := got[id]
		if !maps.Equal(w.columns, g.columns) {
			return fmt.Errorf("table %s: columns %v, and with the variant %v (%d rows, and %d)", id, w.columns, g.columns, len(w.rows), len(g.rows))
		}
		a, b := w.lines(id), g.lines(id)
		if len(a) != len(b) {
			return fmt.Errorf("table %s: %d rows, and with the variant %d", id, len(a), len(b))
		}
		for i := range a {
			if a[i] != b[i] {
				return fmt.Errorf("table %s: row\n  %s\nis with the variant\n  %s", id, a[i], b[i])
			}
		}
	}
	return nil
}

func byName(a, b lake.Ident) int { return strings.Compare(a.String(), b.String()) }

// lines are the rows in text, sorted.
func (c *contents) lines(id lake.Ident) []string {
	drop := unlike
	if id.Namespace == event.RejectedStream {
		drop = unlikeRefused
	}
	out := make([]string, len(c.rows))
	for i, r := range c.rows {
		var b strings.Builder
		b.WriteString(r.key() + ":")
		for _, name := range slices.Sorted(maps.Keys(r)) {
			if !slices.Contains(drop, name) {
				fmt.Fprintf(&b, " %s=%q", name, r[name])
			}
		}
		out[i] = b.String()
	}
	slices.Sort(out)
	return out
}
