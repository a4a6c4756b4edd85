package main

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// paced is the outcome of an open loop.
type paced struct {
	outcome // its waits are from when a request was due, not from when it was sent
	acks    []acknowledged
	behind  spread // how long after it was due a request was sent
}

// openLoop sends bodies of batch events at a steady rate (events a second) for a
// while: request k is due at k × batch / rate after origin, whether the answers
// before it have come or not, as far as the connections reach. A server that is
// slow for a moment so meets all that came due meanwhile, as it would from real
// senders.
func openLoop(to target, bodies [][]byte, batch, connections, rate int, last time.Duration, origin time.Time) (paced, error) {
	requests := to.requests(bodies)
	total := int(last.Seconds() * float64(rate) / float64(batch))
	gap := time.Duration(float64(time.Second) * float64(batch) / float64(rate))
	var mu sync.Mutex
	var p paced
	var waits, behind []time.Duration
	var broken error
	var stop atomic.Bool
	worker := func(first int) error {
		c, err := to.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		var acks []acknowledged
		var own, late []time.Duration
		defer func() {
			mu.Lock()
			p.acks, waits, behind = append(p.acks, acks...), append(waits, own...), append(behind, late...)
			mu.Unlock()
		}()
		for k := first; k < total && !stop.Load(); k += connections {
			due := origin.Add(time.Duration(k) * gap)
			time.Sleep(time.Until(due))
			late = append(late, time.Since(due))
			answer, err := c.do(requests[k%len(requests)])
			if err != nil {
				return err
			}
			at := time.Now()
			offset, err := lastOffset(answer)
			if err != nil {
				return err
			}
			acks, own = append(acks, acknowledged{offset, at.Sub(origin)}), append(own, at.Sub(due))
		}
		return nil
	}
	var wg sync.WaitGroup
	for first := range connections {
		wg.Go(func() {
			if err := worker(first); err != nil {
				stop.Store(true)
				mu.Lock()
				broken = err
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	p.Requests, p.Events, p.Wall = int64(len(p.acks)), int64(len(p.acks)*batch), time.Since(origin)
	if broken != nil {
		return p, fmt.Errorf("send to %s: %w", to.address, broken)
	}
	slices.SortFunc(p.acks, func(a, b acknowledged) int { return cmp.Compare(a.last, b.last) })
	w := spreadOf(waits)
	p.P50, p.P99, p.behind = w.p50, w.p99, spreadOf(behind)
	return p, nil
}
