package web

import (
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// pacedBody gives a body's sender only so much time: each pause is bounded, and
// so is the average rate, so that a body sent byte by byte ends too. Past the
// deadline Read fails with os.ErrDeadlineExceeded.
type pacedBody struct {
	body     io.ReadCloser
	conn     interface{ SetReadDeadline(time.Time) error }
	stall    time.Duration
	perByte  time.Duration
	began    time.Time
	got      int64
	deadline time.Time
}

func (p *pacedBody) begin(body io.ReadCloser, w http.ResponseWriter, cfg Config) {
	p.body = body
	p.stall = cfg.StallTimeout.Std()
	p.perByte = time.Second / time.Duration(cfg.MinRate)
	p.began = time.Now()
	if conn, ok := w.(interface{ SetReadDeadline(time.Time) error }); ok {
		p.conn = conn
		p.deadline = p.began.Add(p.stall)
		_ = conn.SetReadDeadline(p.deadline) // a closed connection fails at the next read
	}
}

func (p *pacedBody) Read(b []byte) (int, error) {
	if p.conn != nil && p.got > 0 {
		p.renew()
	}
	n, err := p.body.Read(b)
	p.got += int64(n)
	if err == io.EOF && p.conn != nil {
		// The handler may work on for long, and the server watches the
		// connection meanwhile: a deadline there would cancel the request.
		_ = p.conn.SetReadDeadline(time.Time{})
		p.conn = nil
	}
	return n, err
}

// renew moves the deadline, unless it would move by little only.
func (p *pacedBody) renew() {
	now := time.Now()
	next := now.Add(p.stall)
	if floor := p.began.Add(p.stall + time.Duration(p.got)*p.perByte); floor.Before(next) {
		next = floor
	}
	if next.Sub(p.deadline) > p.stall/16 {
		p.deadline = next
		_ = p.conn.SetReadDeadline(next)
	}
}

func (p *pacedBody) Close() error { return p.body.Close() }

// limitListener admits at most max connections at a time, and gives their
// writes stall to make progress: a client that does not read its answer is cut.
func limitListener(ln net.Listener, max int, stall time.Duration) *limited {
	return &limited{Listener: ln, slots: make(chan struct{}, max), done: make(chan struct{}), stall: stall}
}

type limited struct {
	net.Listener
	slots chan struct{}
	stall time.Duration
	done  chan struct{}
	once  sync.Once
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: c, l: l}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	l        *limited
	once     sync.Once
	deadline time.Time // of writes; only one goroutine writes at a time
	given    bool      // the handler chose the deadline
}

// SetWriteDeadline lets a handler choose its own deadline; the zero time goes
// back to the stall timeout.
func (c *limitedConn) SetWriteDeadline(t time.Time) error {
	c.deadline, c.given = t, !t.IsZero()
	return c.Conn.SetWriteDeadline(t)
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.l.slots })
	return err
}

// Write writes all of p, in pieces, each of which must get away within the
// stall timeout.
func (c *limitedConn) Write(p []byte) (int, error) {
	const piece = 64 << 10
	total := 0
	for {
		now := time.Now()
		if !c.given && c.deadline.Sub(now) < c.l.stall {
			// Set half as far again, so that most writes need not set it.
			c.deadline = now.Add(c.l.stall + c.l.stall/2)
			if err := c.Conn.SetWriteDeadline(c.deadline); err != nil {
				return total, err
			}
		}
		n, err := c.Conn.Write(p[:min(len(p), piece)])
		total += n
		if p = p[n:]; err != nil || len(p) == 0 {
			return total, err
		}
	}
}

// CloseWrite lets the server end its side first, so that a client that is still
// sending reads the answer before the connection breaks.
func (c *limitedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
