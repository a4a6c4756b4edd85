package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// answerWithin bounds the wait for one answer: a server that hangs ends the load.
const answerWithin = time.Minute

// Target is where bodies go.
type Target struct {
	Address     string // HOST:PORT
	Path        string // with its query
	ContentType string
}

// Until says when a loop ends: after so many requests, or after so long. Not
// both are zero.
type Until struct {
	Requests int64
	Time     time.Duration
}

// Outcome of a loop in which every request was acknowledged.
type Outcome struct {
	Requests int64
	Wall     time.Duration
	Waits    []time.Duration // from a request's first byte to its answer, sorted
}

// Quantile is the value that a part q of the sorted values does not exceed (the
// nearest rank); 0 of none.
func Quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// Render makes a whole HTTP/1.1 request, so that sending costs no more than a write.
func (t Target) Render(body []byte) []byte {
	return append(fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", t.Path, t.Address, t.ContentType, len(body)), body...)
}

// Loop sends bodies in turn, again and again, over so many connections; each
// waits for its answer before it sends the next (a closed loop). Any answer but
// 2xx ends it with an error: a figure with losses is none.
func Loop(ctx context.Context, to Target, bodies [][]byte, connections int, until Until) (Outcome, error) {
	requests := make([][]byte, len(bodies))
	for i, b := range bodies {
		requests[i] = to.Render(b)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var turn, answered atomic.Int64
	waits := make([][]time.Duration, connections)
	began := time.Now()
	due := func() bool {
		return until.Time == 0 || time.Since(began) < until.Time
	}
	var all sync.WaitGroup
	for i := range connections {
		all.Go(func() {
			c, err := Dial(ctx, to.Address)
			if err != nil {
				stop(err)
				return
			}
			defer c.Close()
			for due() {
				n := turn.Add(1) - 1
				if until.Requests > 0 && n >= until.Requests {
					return
				}
				sent := time.Now()
				if err := c.Do(requests[n%int64(len(requests))]); err != nil {
					stop(err)
					return
				}
				waits[i] = append(waits[i], time.Since(sent))
				answered.Add(1)
			}
		})
	}
	all.Wait()
	o := Outcome{Requests: answered.Load(), Wall: time.Since(began), Waits: slices.Concat(waits...)}
	slices.Sort(o.Waits)
	if err := context.Cause(ctx); err != nil {
		if errors.Is(err, context.Canceled) {
			return o, err
		}
		return o, fmt.Errorf("send to %s: %w", to.Address, err)
	}
	return o, nil
}

// Connection is one keep-alive connection, for one goroutine.
type Connection struct {
	conn   net.Conn
	in     *bufio.Reader
	forget func() bool
}

// Dial connects. The end of ctx breaks the connection off.
func Dial(ctx context.Context, address string) (*Connection, error) {
	conn, err := (&net.Dialer{Timeout: answerWithin}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &Connection{conn: conn, in: bufio.NewReaderSize(conn, 16<<10)}
	c.forget = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return c, nil
}

// Do sends one rendered request and waits for its answer, which must be 2xx.
func (c *Connection) Do(request []byte) error {
	if _, err := c.conn.Write(request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 == 2 {
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
	return fmt.Errorf("answer %s: %s", resp.Status, strings.TrimSpace(string(text)))
}

// Close ends the connection.
func (c *Connection) Close() {
	c.forget()
	_ = c.conn.Close() // nothing is on its way: every request was answered or has failed
}
