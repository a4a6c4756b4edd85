package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"
)

// backlog is how far a connection may fall behind its schedule, for instance
// while the server starts. What lies further back is left out and counted.
const backlog = 5 * time.Second

// connection sends events at a steady rate, whatever the server does: the time
// of a request does not depend on the answer before it, but for that one
// connection has one request under way.
type connection struct {
	account *account
	texts   []*text
	gzip    *gzip.Writer  // nil: not compressed
	every   time.Duration // for one event
	rng     *rand.Rand

	due  time.Time // of the next request
	next int       // plan of it
	buf  bytes.Buffer
}

// load is all connections together, over all lives of the server.
type load struct {
	connections []*connection
	found       *findings
	waits       waits
	sent        atomic.Int64 // events in acknowledged requests
	skipped     atomic.Int64 // events that the backlog had no room for
	busy        atomic.Int64 // answers 429 and 503
	behind      atomic.Int64 // most, in ns
}

func newLoad(seed uint64, connections int, rate float64, size int, found *findings) *load {
	rng := rand.New(rand.NewPCG(seed, 1))
	list := plans(rng, size)
	l := &load{found: found}
	late := time.Now().Add(-24 * time.Hour)
	for i := range connections {
		c := &connection{account: newAccount(i, list), rng: rand.New(rand.NewPCG(seed, uint64(i)+2)),
			every: time.Duration(float64(connections) / rate * float64(time.Second)), next: i * 3 % len(list)}
		for _, p := range list {
			c.texts = append(c.texts, p.write(i, c.rng, late))
		}
		if i%4 == 3 {
			c.gzip, _ = gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
		}
		l.connections = append(l.connections, c)
	}
	return l
}

func (l *load) accounts() (all []*account) {
	for _, c := range l.connections {
		all = append(all, c.account)
	}
	return all
}

func (l *load) inFlight() (n int) {
	for _, c := range l.connections {
		n += c.account.inFlight()
	}
	return n
}

// run sends until stop is closed or the life is over. Blocks.
func (l *load) run(s *server, stop <-chan struct{}) {
	var wg sync.WaitGroup
	for i, c := range l.connections {
		if c.due.IsZero() { // spread over the time that one request takes
			c.due = time.Now().Add(time.Duration(i) * c.every * 500 / time.Duration(len(l.connections)))
		}
		wg.Go(func() {
			if err := l.drive(c, s, stop); err != nil && !s.dying.Load() {
				l.found.add("connection %d broke in life %d though nobody killed the server: %v", i, s.life, err)
			}
		})
	}
	wg.Wait()
}

// drive runs one connection until stop, or until it breaks.
func (l *load) drive(c *connection, s *server, stop <-chan struct{}) error {
	wire, err := net.DialTimeout("tcp", s.address, 10*time.Second)
	if err != nil {
		return err
	}
	defer wire.Close()
	in := bufio.NewReaderSize(wire, 16<<10)
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		now := time.Now()
		if behind := now.Sub(c.due); behind > backlog {
			l.skipped.Add(int64((behind - backlog) / c.every))
			c.due = now.Add(-backlog)
		} else if behind > 0 {
			l.note(behind)
		}
		pause.Reset(time.Until(c.due)) // at once when it is past
		select {
		case <-stop:
			return nil
		case <-pause.C:
		}
		after, err := l.send(c, s, wire, in)
		if err != nil {
			return err
		}
		if after > 0 {
			select {
			case <-stop:
				return nil
			case <-time.After(after):
			}
		}
	}
}

func (l *load) note(behind time.Duration) {
	for {
		most := l.behind.Load()
		if int64(behind) <= most || l.behind.CompareAndSwap(most, int64(behind)) {
			return
		}
	}
}

// send makes one request. after is how long the server asks to be left alone.
func (l *load) send(c *connection, s *server, wire net.Conn, in *bufio.Reader) (after time.Duration, err error) {
	t := c.texts[c.next]
	plan := c.next
	c.next = (c.next + 1) % len(c.texts)
	c.due = c.due.Add(time.Duration(len(t.plan.items)) * c.every)

	number, first := c.account.begin(plan, s.life)
	t.number(number, first, time.Now(), c.rng)
	c.buf.Reset()
	c.buf.Write(t.heading)
	body := t.bytes
	if c.gzip != nil {
		var z bytes.Buffer
		c.gzip.Reset(&z)
		_, _ = c.gzip.Write(body) // into memory
		_ = c.gzip.Close()
		body = z.Bytes()
		c.buf.WriteString("Content-Encoding: gzip\r\n")
	}
	fmt.Fprintf(&c.buf, "Content-Length: %d\r\n\r\n", len(body))
	c.buf.Write(body)

	began := time.Now()
	is, offset := unknown, int64(-1)
	defer func() {
		if e := c.account.end(number, is, offset); e != nil {
			l.found.add("%v", e)
		}
	}()
	if err := wire.SetDeadline(began.Add(2 * time.Minute)); err != nil {
		return 0, err
	}
	if _, err := wire.Write(c.buf.Bytes()); err != nil {
		return 0, err
	}
	c.account.sent(number)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return 0, err
	}
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	what := fmt.Sprintf("connection %d, request %d", c.account.number, number)
	switch resp.StatusCode {
	case http.StatusOK:
		l.waits.add(time.Since(began))
		is = acked
		l.sent.Add(int64(len(t.plan.items)))
		if offset, err = readAnswer(answer, t.plan); err != nil {
			l.found.add("%s: %v", what, err)
		}
		return 0, nil
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if resp.StatusCode == http.StatusTooManyRequests {
			is = refused
		}
		l.busy.Add(1)
		seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		if err != nil || seconds < 0 {
			l.found.add("%s: %d with Retry-After %q, want whole seconds", what, resp.StatusCode, resp.Header.Get("Retry-After"))
		}
		return time.Duration(max(seconds, 1)) * time.Second, nil
	default:
		l.found.add("%s: answer %d %.300s", what, resp.StatusCode, answer)
		return 0, nil
	}
}

// readAnswer compares an acknowledgement with what was sent and returns the
// offset of the first good item, -1 when there is none.
func readAnswer(answer []byte, p *body) (int64, error) {
	var a struct {
		Accepted      int
		Rejected      []json.RawMessage
		RejectedCount int `json:"rejected_count"`
		Positions     []struct {
			Stream      string
			Partition   int
			First, Last int64
		}
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return -1, fmt.Errorf("answer %.200q: %w", answer, err)
	}
	if bad := len(p.items) - p.good; a.Accepted != p.good || max(len(a.Rejected), a.RejectedCount) != bad {
		return -1, fmt.Errorf("sent %d good and %d bad items, the answer says %d and %d", p.good, bad, a.Accepted, len(a.Rejected))
	}
	if p.good == 0 {
		return -1, nil
	}
	if len(a.Positions) != 1 || a.Positions[0].Stream != streams[p.stream] || a.Positions[0].Partition != 0 ||
		a.Positions[0].Last-a.Positions[0].First+1 != int64(p.good) {
		return -1, fmt.Errorf("positions %v for %d items of %s", a.Positions, p.good, streams[p.stream])
	}
	return a.Positions[0].First, nil
}
