package simulation

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"naru/internal/vfs"
)

// The power is cut at every single sync of a short history, from its first start
// to its stop, in several ways; each time everything that was acknowledged by
// then is there once, and a second start has nothing to repair.
func TestPowerCutAtEverySync(t *testing.T) {
	t.Parallel()
	type cut struct {
		image
		acked map[string]bool
		at    string
	}
	rng := rand.New(rand.NewPCG(3, 3))
	h := newHistory(t, rng)
	h.cfg.log.Segment, h.cfg.log.RetainBytes = 16<<10, 32<<10
	h.cfg.lake.CommitRate, h.cfg.lake.ExpireEvery, h.cfg.lake.KeepSnapshots = 1000, 1, 1
	lives := 2
	if soaking(t) > 0 {
		lives = 12 // each is checked at its end, because an image is a whole disk
	}
	count, seen := 0, tally{}
	for life := range lives {
		var mu sync.Mutex
		var cuts []cut
		m := newMachine(h.left.disk, h.left.rows, rng)
		m.onStep = func(step int, op vfs.Op, path string) {
			if op&(vfs.OpSync|vfs.OpSyncDir) == 0 {
				return
			}
			// What is acknowledged by now has to be on the disk of the image, which
			// is taken later.
			acked := h.book.acknowledged()
			for i, seed := range []uint64{0, uint64(step) + 2, 1} {
				if i != step%3 && soaking(t) == 0 {
					continue // one way each in the short form
				}
				one := cut{m.image(i == 2 && step%2 == 0, seed), acked, fmt.Sprintf("life %d, operation %d, %s %s, seed %d", life, step, op, path, seed)}
				mu.Lock()
				cuts = append(cuts, one)
				mu.Unlock()
			}
		}
		p, err := start(m, h.cfg, h.wall, nil)
		if err != nil {
			t.Fatal(err)
		}
		w := p.run()
		p.clients(rng, h.all[:1], 3, 6, h.book.send, func(s shipment, a answer) { h.book.ack(s, a, h.cfg.collect.Partitions) })
		if err := p.drained(); err != nil {
			t.Fatal(err)
		}
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
		if err := p.close(); err != nil {
			t.Fatal(err)
		}
		h.left = m.stop(true, rng.Uint64())
		for _, c := range cuts {
			seen.add(c.inFlight)
			after := &history{t: t, rng: rng, cfg: h.cfg, wall: h.wall, reader: h.reader, left: c.image, book: newLedger()}
			after.book.sent, after.book.bad, after.book.at, after.book.acked = h.book.sent, h.book.bad, h.book.at, c.acked
			if err := after.finish(); err != nil {
				t.Fatalf("%s, during %q: %v", c.at, c.inFlight, err)
			}
		}
		count += len(cuts)
	}
	if count < 60 {
		t.Fatalf("only %d cuts", count)
	}
	t.Logf("%d cuts; in flight:%s", count, seen)
}
