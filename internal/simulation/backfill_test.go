package simulation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/lake/iceberg"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/sink"
	"naru/internal/sink/table"
	"naru/internal/stream"
	"naru/internal/stream/memory"
	"naru/internal/vfs"
)

// A table of a pipeline is filled anew and replaced, again and again, while it goes on:
// under faults of disk and catalog, and cuts of power at any operation. What a pipeline
// keeps of a backfill, its phase, is the test's; it knows of a step that is done, or not.
type refill struct {
	t     *testing.T
	rng   *rand.Rand
	cfg   iceberg.Config
	wall  *clock
	log   stream.Log // it outlives everything
	inc   event.Incarnation
	left  image
	phase phase
	own   lineage // of the table
	next  lineage // of the one that is filled to replace it
	done  int     // swaps
	story []string
}

type phase int

const (
	idle phase = iota
	filling
	swapping
	clearing
)

// lineage says by which run each row of a table was made: behind from by this one.
type lineage struct {
	from int64
	mark int
	of   *lineage
}

func (l *lineage) markOf(offset int64) int {
	if offset >= l.from || l.of == nil {
		return l.mark
	}
	return l.of.markOf(offset)
}

const (
	refillEvents = 60
	refilled     = "edits"
)

var refillEnv = sink.Env{Pipeline: "p", Name: "table", Stream: "events", Reader: "pipeline/p/table", Logger: quiet}

var (
	refillTable  = lake.Ident{Namespace: "p", Name: refilled}
	refillShadow = lake.Ident{Namespace: "p", Name: refilled + "__backfill"}
)

func newRefill(t *testing.T, rng *rand.Rand) *refill {
	r := &refill{t: t, rng: rng, cfg: smallSettings(rng).lake, wall: &clock{}, log: memory.New(),
		left: image{disk: vfs.NewMemory(), rows: iceberg.NewMemoryCatalog()}}
	var b recordbatch.Builder
	b.Reset(time.Now())
	for range refillEvents {
		b.AppendEvent(&event.Event{ID: []byte("i"), Source: []byte("/s"), Type: []byte("t"), Data: []byte("{}")})
	}
	at, err := r.log.Append(t.Context(), stream.Write{Stream: "events", Batch: b.Finish(nil, recordbatch.None), Count: refillEvents})
	if err != nil {
		t.Fatal(err)
	}
	r.inc = at[0].Incarnation
	return r
}

// life goes on until the machine is down or some steps are done. The error is one that
// must not be.
func (r *refill) life(calm bool) error {
	m := newMachine(r.left.disk, r.left.rows, r.rng)
	m.kill = r.rng.IntN(3) == 0
	if !calm {
		m.cutAt = 1 + r.rng.IntN(800)
		m.faults = faults{disk: []float64{0, 0.001, 0.01}[r.rng.IntN(3)], catalog: []float64{0, 0.3}[r.rng.IntN(2)]}
	}
	l, err := iceberg.Open(context.Background(), r.cfg, disk{m}, dataDir, logger(), iceberg.WithCatalog(catalog{m}), iceberg.WithClock(r.wall.now))
	for step := 0; err == nil && step < 40 && !m.isDown() && (!calm || r.done == 0 || r.phase != idle); step++ {
		tables := table.New(l, r.log, logger())
		what := r.step(l, tables, calm)
		if err := what.err; err != nil && !m.isDown() && !isInjected(err) && !errors.Is(err, fault.ErrTransient) { // a late commit is found again by reading anew
			return errors.Join(fmt.Errorf("%s: %w", what.name, err), l.Close())
		}
	}
	if err != nil && !m.isDown() && !isInjected(err) {
		return fmt.Errorf("open: %w", err)
	}
	if l != nil {
		if err := l.Close(); err != nil && !m.isDown() && !isInjected(err) {
			return err
		}
	}
	for what, n := range m.hit {
		r.story = append(r.story, fmt.Sprintf("%s: %d", what, n))
	}
	r.left = m.stop(r.rng.IntN(2) == 0, r.rng.Uint64())
	r.story = append(r.story, fmt.Sprintf("%d operations, phase %d, %d swaps", m.step, r.phase, r.done))
	return r.check()
}

type stepDone struct {
	name string
	err  error
}

// step does one of the things that there are to do. A phase is over when its step has
// succeeded and the word of that was kept; else it is done again.
func (r *refill) step(l *iceberg.Lake, tables *table.Tables, calm bool) stepDone {
	ctx := context.Background()
	s := tables.Kind().Settings().(*table.Settings)
	s.Table = refilled
	x, err := s.Shadow(refilled, "")
	if err != nil {
		return stepDone{"shadow", err}
	}
	kept := calm || r.rng.IntN(8) > 0 // the phase is on disk, too
	switch n := r.rng.IntN(10); {
	case n < 3 && r.phase != swapping:
		return stepDone{"write", r.write(ctx, l, s, refillTable, &r.own)}
	case n == 3:
		l.CollectGarbage()
		_, err := l.CollectOrphans(ctx)
		return stepDone{"collect", err}
	}
	switch r.phase {
	case idle:
		end, err := r.end(ctx, l, refillTable)
		if err != nil || end == 0 {
			return stepDone{"begin", err}
		}
		own := r.own
		r.next = lineage{from: r.rng.Int64N(end + 1), mark: own.mark + 1, of: &own}
		r.phase = filling
	case filling:
		from := r.next.from
		err := x.Make(ctx, refillEnv, event.Positions{r.inc: {0: from}}, func(at event.Position) bool { return at.Offset < from })
		if err == nil {
			err = r.write(ctx, l, x, refillShadow, &r.next)
		}
		if err != nil {
			return stepDone{"fill", err}
		}
		mine, err := r.end(ctx, l, refillShadow)
		if err != nil {
			return stepDone{"fill", err}
		}
		theirs, err := r.end(ctx, l, refillTable)
		if err == nil && mine >= theirs && kept {
			r.phase = swapping
		}
		return stepDone{"fill", err}
	case swapping:
		err := x.Swap(ctx, refillEnv)
		if err == nil && kept {
			r.own, r.phase = r.next, clearing
			r.done++
		}
		return stepDone{"swap", err}
	case clearing:
		err := x.Drop(ctx, refillEnv)
		if err == nil && kept {
			r.phase = idle
		}
		return stepDone{"drop", err}
	}
	return stepDone{}
}

func (r *refill) end(ctx context.Context, l *iceberg.Lake, id lake.Ident) (int64, error) {
	s, err := l.Table(id).Load(ctx)
	if err != nil {
		return 0, err
	}
	off, _ := s.Positions.Get(r.inc, 0)
	return off, nil
}

// write brings some events more to a table.
func (r *refill) write(ctx context.Context, l *iceberg.Lake, s sink.Settings, id lake.Ident, by *lineage) error {
	from, err := r.end(ctx, l, id)
	if err != nil {
		return err
	}
	out, err := s.Open(ctx, refillEnv)
	if err != nil {
		return err
	}
	back := r.rng.Int64N(3) // events that it has had come again
	b := &event.Batch{Stream: "events", Incarnation: r.inc, From: max(from-back, 0), Next: min(from+1+r.rng.Int64N(8), refillEvents), Rows: &event.Rows{}}
	for o := b.From; o < b.Next; o++ {
		b.Rows.Add(event.Event{ID: fmt.Appendf(nil, "%d by %d", o, by.markOf(o)), Source: []byte("/s"), Type: []byte("t"), Data: []byte(`{"n":1}`),
			Offset: o, Time: time.Unix(1_700_000_000, 0), ReceivedAt: time.Unix(1_700_000_000, 0)})
	}
	if err = out.Write(ctx, b); err == nil {
		_, err = out.(sink.Drainer).Drain(ctx)
	}
	return errors.Join(err, out.Close())
}

// check looks at what a cut has left: readers see the old rows or the new ones, whole.
func (r *refill) check() error {
	rows := r.left.rows.Clone()
	all, err := newReader().all(r.left.disk, rows)
	if err != nil {
		return fmt.Errorf("after a cut: %w", err)
	}
	c := all[refillTable]
	if c == nil {
		if r.done == 0 && r.phase == idle {
			return nil // there is no row yet
		}
		return fmt.Errorf("there is no table in phase %d: %v", r.phase, all)
	}
	may := []*lineage{&r.own}
	if r.phase == swapping {
		may = append(may, &r.next)
	}
	var wrong error
	for _, by := range may {
		if wrong = r.holds(c, by); wrong == nil {
			break
		}
	}
	if wrong != nil {
		return fmt.Errorf("phase %d: %w", r.phase, wrong)
	}
	if x := all[refillShadow]; x != nil && r.phase == filling {
		if err := r.holds(x, &r.next); err != nil {
			return fmt.Errorf("the table that is filled: %w", err)
		}
	}
	return r.counted(rows)
}

// holds tells whether a table has exactly the rows of a lineage below its positions.
func (r *refill) holds(c *contents, by *lineage) error {
	end, _ := c.positions.Get(r.inc, 0)
	seen := map[int64]bool{}
	for _, row := range c.rows {
		at, err := row.place()
		if err != nil {
			return err
		}
		if want := fmt.Sprintf("%d by %d", at.offset, by.markOf(at.offset)); row["_id"] != want {
			return fmt.Errorf("row %q, want %q", row["_id"], want)
		}
		if seen[at.offset] || at.offset >= end {
			return fmt.Errorf("row of event %d doubled, or behind %d", at.offset, end)
		}
		seen[at.offset] = true
	}
	if int64(len(seen)) != end {
		return fmt.Errorf("%d rows below %d", len(seen), end)
	}
	return nil
}

// counted holds the rows of all tables against what their commits say of them.
func (r *refill) counted(rows *iceberg.MemoryCatalog) error {
	ctx := context.Background()
	l, err := iceberg.Open(ctx, r.cfg, r.left.disk, dataDir, quiet, iceberg.WithCatalog(rows), iceberg.ReadOnly())
	if err != nil {
		return err
	}
	defer l.Close()
	list, err := l.List(ctx)
	if err != nil {
		return err
	}
	for _, id := range list {
		a, err := l.Audit(ctx, id)
		if err != nil {
			return err
		}
		a.Release()
		var have lake.Tally
		for _, f := range a.Files {
			_, err := columnar.ReadPlaces(ctx, r.left.disk, f.Path, columnar.PlacesOptions{}, func(p *columnar.Places) error {
				for i, off := range p.Offset {
					have.Add(event.Position{Incarnation: r.inc, Partition: p.Partition[i], Offset: off})
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		if a.Committed == nil || *a.Committed != have {
			return fmt.Errorf("%s has rows %s, its commits say %v", id, have, a.Committed)
		}
	}
	return nil
}

func TestBackfillsUnderFaults(t *testing.T) {
	t.Parallel()
	histories := 15
	if testing.Short() {
		histories = 5
	}
	until := time.Now().Add(soaking(t) / 10)
	first, swaps := rand.Uint64(), 0
	for i := 0; i < histories || time.Now().Before(until); i++ {
		seed := first + uint64(i)
		if *oneSeed != 0 {
			seed, histories = *oneSeed, 1
		}
		r := newRefill(t, rand.New(rand.NewPCG(seed, 5)))
		r.cfg.Memory = quantity.MiB
		var err error
		for n := 0; n < 12 && err == nil; n++ {
			err = r.life(false)
		}
		for n := 0; n < 20 && err == nil && (r.phase != idle || r.done == 0); n++ {
			err = r.life(true)
		}
		if err == nil && (r.phase != idle || r.done == 0) {
			err = errors.New("it does not come to an end")
		}
		if err != nil {
			for _, line := range r.story {
				t.Log(line)
			}
			t.Fatalf("seed %d: %v\nagain: go test -run '^TestBackfillsUnderFaults$' ./internal/simulation -args -seed %d", seed, err, seed)
		}
		swaps += r.done
	}
	t.Logf("%d histories from seed %d, %d swaps", histories, first, swaps)
}
