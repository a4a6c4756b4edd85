package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// target is where a load goes.
type target struct {
	address string // host:port
	path    string
}

// outcome of a load.
type outcome struct {
	Requests int64         `json:"requests"`
	Events   int64         `json:"events"`
	Wall     time.Duration `json:"wall_ns"`
	P50      time.Duration `json:"p50_ns"`
	P99      time.Duration `json:"p99_ns"`
}

func (o outcome) rate() float64 { return float64(o.Events) / o.Wall.Seconds() }

// closedLoop sends requests over so many keep-alive connections, each waiting
// for its answer before it sends the next: so many rounds over the bodies, or
// with a duration as many as that takes. Any answer but 2xx ends it with an
// error: a figure with losses is none.
func closedLoop(to target, bodies [][]byte, batch, connections, rounds int, last time.Duration) (outcome, error) {
	requests := make([][]byte, len(bodies))
	for i, b := range bodies {
		requests[i] = append(fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n",
			to.path, to.address, len(b)), b...)
	}
	var next, sent atomic.Int64
	var mu sync.Mutex
	var waits []time.Duration
	var broken error
	began := time.Now()
	worker := func() error {
		c, err := net.Dial("tcp", to.address)
		if err != nil {
			return err
		}
		defer c.Close()
		in := bufio.NewReaderSize(c, 16<<10)
		var own []time.Duration
		defer func() {
			mu.Lock()
			waits = append(waits, own...)
			mu.Unlock()
		}()
		for {
			i := int(next.Add(1)) - 1
			if last > 0 && time.Since(began) > last || last == 0 && i >= rounds*len(requests) {
				return nil
			}
			t := time.Now()
			if _, err := c.Write(requests[i%len(requests)]); err != nil {
				return err
			}
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				return err
			}
			text, err := io.ReadAll(resp.Body)
			if err != nil {
				return err
			}
			if resp.StatusCode/100 != 2 {
				return fmt.Errorf("answer %d %.200s", resp.StatusCode, text)
			}
			own = append(own, time.Since(t))
			sent.Add(1)
		}
	}
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			if err := worker(); err != nil {
				mu.Lock()
				broken = err
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	o := outcome{Requests: sent.Load(), Events: sent.Load() * int64(batch), Wall: time.Since(began)}
	if broken != nil {
		return o, fmt.Errorf("send to %s: %w", to.address, broken)
	}
	slices.Sort(waits)
	if len(waits) > 0 {
		o.P50, o.P99 = waits[len(waits)/2], waits[len(waits)*99/100]
	}
	return o, nil
}
