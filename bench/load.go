package main

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// target is where a load goes.
type target struct {
	address string // host:port
	path    string
	media   string // Content-Type
	ids     *ids   // nil: bodies are sent as they are, each time
}

// Content types of loads.
const (
	ndjson = "application/x-ndjson"
	single = "application/json"
)

// requests renders bodies as they go over the wire.
func (to target) requests(bodies [][]byte) [][]byte {
	out := make([][]byte, len(bodies))
	for i, b := range bodies {
		out[i] = append(fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n",
			to.path, to.address, to.media, len(b)), b...)
	}
	return out
}

// connection is one keep-alive connection of a load.
type connection struct {
	net.Conn
	in  *bufio.Reader
	buf []byte
}

func (to target) dial() (*connection, error) {
	c, err := net.Dial("tcp", to.address)
	if err != nil {
		return nil, err
	}
	return &connection{c, bufio.NewReaderSize(c, 16<<10), make([]byte, 4<<10)}, nil
}

// do sends a request and reads its answer, which holds until the next one. Any
// answer but 2xx is an error: a figure with losses is none.
func (c *connection) do(request []byte) ([]byte, error) {
	if _, err := c.Write(request); err != nil {
		return nil, err
	}
	status, body, err := readAnswer(c.in, c.buf)
	if err != nil {
		return nil, err
	}
	if status/100 != 2 {
		return nil, fmt.Errorf("answer %d %.200s", status, body)
	}
	return body, nil
}

// outcome of a load.
type outcome struct {
	Requests int64
	Events   int64
	Wall     time.Duration
	P50, P99 time.Duration
}

func (o outcome) rate() float64 { return float64(o.Events) / o.Wall.Seconds() }

// measure gives what every row says of a load on a server.
func (o outcome) measure(system string, cpu time.Duration, p *process) measure {
	return measure{
		System: system, Events: o.Events, Rate: o.rate(), Answers: o.Requests, Syncs: -1,
		CPU: float64(cpu.Microseconds()) / float64(o.Events), Memory: p.most.Load(),
		P50: ms(o.P50), P99: ms(o.P99), Wall: o.Wall.Seconds(),
	}
}

// closedLoop sends requests over so many keep-alive connections, each waiting
// for its answer before it sends the next: so many rounds over the bodies, or
// with a duration as many as that takes.
func closedLoop(to target, bodies [][]byte, batch, connections, rounds int, last time.Duration) (outcome, error) {
	requests := to.requests(bodies)
	var next, sent atomic.Int64
	var mu sync.Mutex
	var waits []time.Duration
	var broken error
	began := time.Now()
	worker := func() error {
		c, err := to.dial()
		if err != nil {
			return err
		}
		defer c.Close()
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
			request := requests[i%len(requests)]
			if to.ids != nil {
				body := bodies[i%len(bodies)]
				to.ids.renew(i%len(bodies), request[len(request)-len(body):])
			}
			t := time.Now()
			if _, err := c.do(request); err != nil {
				return err
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
	o.P50, o.P99 = percentile(waits, 0.5), percentile(waits, 0.99)
	return o, nil
}
