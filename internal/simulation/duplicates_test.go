package simulation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"

	"naru/internal/event"
	"naru/internal/lake/iceberg"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/stream"
	"naru/internal/vfs"
)

// A client sends everything three times, out of order, and again whatever got no
// answer, over power cuts, kills and disks that fail: each event is in its table
// once, the counts say where the others are, and whoever reads the log again from
// any place meets the same events.
func TestEverythingThreeTimes(t *testing.T) {
	t.Parallel()
	n := uint64(20)
	if testing.Short() {
		n = 6
	}
	first := *begin
	if *oneSeed != 0 {
		first, n = *oneSeed, 1
	}
	total := tally{}
	for seed := first; seed < first+n; seed++ {
		r := &resending{rng: rand.New(rand.NewPCG(seed, 8)), wall: &clock{}, total: total, good: map[string]string{},
			left: image{disk: vfs.NewMemory(), rows: iceberg.NewMemoryCatalog()}}
		if err := r.run(); err != nil {
			t.Fatalf("seed %d: %v\nsettings: %s, index %s\nagain: go test -count=20 -run '^%s$' ./internal/simulation -args -seed %d", seed, err, r.cfg, r.cfg.dedupe.Index, t.Name(), seed)
		}
	}
	t.Logf("%s", total)
	if total["cuts"] == 0 || total["duplicates"] == 0 {
		t.Error("something of it never happened")
	}
}

// resending is one history.
type resending struct {
	rng   *rand.Rand
	cfg   settings
	wall  *clock
	left  image
	total tally
	queue []shipment
	good  map[string]string // keys that are to be in tables: their stream
}

func (r *resending) run() error {
	r.cfg = smallSettings(r.rng)
	r.cfg.lake.MaxTables = 1000
	r.cfg.dedupe.Index = []quantity.Bytes{80 * quantity.KiB, quantity.MiB}[r.rng.IntN(2)]
	topic := newTopics(r.rng)
	var once []shipment
	for i := range 2 {
		c := newClient(i, rand.New(rand.NewPCG(r.rng.Uint64(), 2)), topic, r.rng.IntN(2) == 0)
		for range 15 {
			s := c.next(8)
			once = append(once, s)
			for _, it := range s.items {
				if !it.bad {
					r.good[it.key] = s.stream
				}
			}
		}
	}
	for range 3 {
		r.queue = append(r.queue, once...)
	}
	r.rng.Shuffle(len(r.queue), func(i, j int) { r.queue[i], r.queue[j] = r.queue[j], r.queue[i] })
	for life := 0; len(r.queue) > 0; life++ {
		if life > 60 {
			return errors.New("it does not come to an end")
		}
		if err := r.life(life < 40); err != nil {
			return err
		}
	}
	return r.finish()
}

// life sends for a while.
func (r *resending) life(trouble bool) error {
	m := newMachine(r.left.disk, r.left.rows, r.rng)
	m.kill = r.rng.IntN(3) == 0
	faulty := false
	if trouble {
		m.cutAt = 1 + r.rng.IntN(typical)
		faulty = r.rng.IntN(4) == 0
	}
	p, err := start(m, r.cfg, r.wall, nil)
	if err == nil {
		m.mu.Lock()
		if faulty {
			m.faults = faults{disk: 0.005}
		}
		m.mu.Unlock()
		w := p.run()
		for n := 3 + r.rng.IntN(30); n > 0 && len(r.queue) > 0 && !m.isDown(); n-- {
			s := r.queue[0]
			if _, status := p.send(s); status == http.StatusOK {
				r.queue = r.queue[1:]
			} else if status == http.StatusRequestEntityTooLarge && len(s.items) > 1 { // more than a quarter of a segment: one by one
				r.queue = r.queue[1:]
				for i := range s.items {
					r.queue = append(r.queue, shipment{stream: s.stream, cloud: s.cloud, items: s.items[i : i+1]})
				}
			} else if faulty {
				break
			}
		}
		err = w.stop()
	}
	err = errors.Join(err, p.close())
	if m.isDown() {
		r.total["cuts"]++
	} else if err != nil && !faulty {
		return err
	}
	r.left = m.stop(r.rng.IntN(2) == 0, r.rng.Uint64())
	return nil
}

// finish loads all, and proves it.
func (r *resending) finish() error {
	m := newMachine(r.left.disk, r.left.rows, r.rng)
	p, err := start(m, r.cfg, r.wall, nil)
	if err == nil {
		w := p.run()
		err = p.drained()
		if serr := w.stop(); err == nil {
			err = serr
		}
	}
	if err == nil {
		err = r.proof(p)
	}
	if err == nil {
		err = p.verified()
	}
	return errors.Join(err, p.close())
}

func (r *resending) proof(p *process) error {
	tables, err := newReader().all(p.m.disk, p.m.rows)
	if err != nil {
		return err
	}
	rows := map[string]int{}
	for id, c := range tables {
		if id.Namespace == event.RejectedStream {
			continue
		}
		for _, row := range c.rows {
			rows[row.key()]++
			if r.good[row.key()] != id.Namespace {
				return fmt.Errorf("%s is in %s", row.key(), id)
			}
		}
	}
	streams := map[string]int64{}
	for k, name := range r.good {
		if rows[k] != 1 {
			return fmt.Errorf("%s has %d rows", k, rows[k])
		}
		streams[name]++
	}
	ctx := context.Background()
	for name, want := range streams {
		st, err := p.log.Stat(ctx, name)
		if err != nil {
			return err
		}
		at, err := p.log.Progress(ctx, stream.DefaultReader+name)
		if err != nil {
			return err
		}
		total := int64(0)
		for _, x := range st.Ranges {
			total += x.End
		}
		if c := at.Counts; c.Written != want || c.Duplicates != total-want || c.Total() != total {
			return fmt.Errorf("stream %s: %+v of %d events, %d of them different", name, c, total, want)
		}
		r.total["duplicates"] += int(at.Counts.Duplicates)
		for _, x := range st.Ranges {
			if err := r.again(p, name, event.Position{Incarnation: x.Incarnation, Partition: x.Partition, Offset: x.Start}, x.End, rows); err != nil {
				return err
			}
		}
	}
	for _, s := range p.judge.Status() {
		if s.Conflicts != 0 || s.Error != "" {
			return fmt.Errorf("judge: %+v", s)
		}
	}
	return nil
}

// again reads the log once more, by a judge that has stopped: what it gives has its
// row, and nothing comes twice.
func (r *resending) again(p *process, name string, at event.Position, end int64, rows map[string]int) error {
	met := map[string]bool{}
	var d recordbatch.Decoder
	for at.Offset < end {
		b, err := p.judge.Log().Read(context.Background(), name, at, 1<<10)
		if err != nil {
			return err
		}
		err = d.EachIn(b, func(e *event.Event) error {
			k := keyOf(e.Data)
			if met[k] || rows[k] != 1 {
				return fmt.Errorf("reading again gives %s a second time, or without a row", k)
			}
			met[k] = true
			return nil
		})
		if err != nil {
			return err
		}
		at = b.End()
	}
	return nil
}
