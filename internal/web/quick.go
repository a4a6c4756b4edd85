package web

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// The quick path serves plain POSTs with a Content-Length to a few paths: what
// clients that send one event a request do all day. net/http watches the
// connection from a second goroutine while a handler waits, as it does here for
// the disk, and that costs more than all else of such a request. A connection
// begins here; at the first request that is anything but plain it goes over to
// net/http, with every byte of that request, and stays there. So net/http judges
// all that is unusual, and this path judges nothing: it takes or leaves.
//
// A handler on this path does not learn that its client has gone.
type quick struct {
	s      *Server
	paths  map[string]bool
	others *handover

	mu struct {
		sync.Mutex
		conns map[*quickConn]bool
	}
}

// handover is the listener by which connections go over to net/http.
type handover struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	addr  net.Addr
}

func newHandover(addr net.Addr) *handover {
	return &handover{conns: make(chan net.Conn), done: make(chan struct{}), addr: addr}
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handover) Close() error   { h.once.Do(func() { close(h.done) }); return nil }
func (h *handover) Addr() net.Addr { return h.addr }

// give hands a connection over; head is what was read of its next request.
func (h *handover) give(c *limitedConn, head []byte) {
	select {
	case h.conns <- &replayed{limitedConn: c, head: head}:
	case <-h.done:
		_ = c.Close() // the server is closed
	}
}

// replayed is a connection that begins with bytes read earlier.
type replayed struct {
	*limitedConn
	head []byte
}

func (r *replayed) Read(p []byte) (int, error) {
	if len(r.head) > 0 {
		n := copy(p, r.head)
		r.head = r.head[n:]
		return n, nil
	}
	return r.limitedConn.Read(p)
}

// acceptPause is how long to wait after an error of accept that may pass, such as
// too many open files.
const acceptPause = 50 * time.Millisecond

// accept serves the connections of ln until it is closed.
func (q *quick) accept(ln net.Listener) error {
	for {
		c, err := ln.Accept()
		var passing interface{ Temporary() bool }
		switch {
		case err == nil:
			go q.serve(c.(*limitedConn))
		case errors.As(err, &passing) && passing.Temporary():
			time.Sleep(acceptPause)
		default:
			return err
		}
	}
}

// Sizes of a connection's buffers.
const (
	quickHead = 8 << 10 // of a request's head; a longer one goes over
	quickKeep = 64 << 10
)

// quickConn is a connection with all that its requests need, made once.
type quickConn struct {
	q      *quick
	conn   *limitedConn
	buf    []byte // unread bytes are buf[from:to]
	from   int
	to     int
	req    *http.Request
	url    url.URL
	head   plainHead
	body   quickBody
	out    quickWriter
	until  time.Time // the read deadline that is set
	busy   atomic.Bool
	cancel context.CancelFunc
}

// serve answers the connection's requests until it ends or goes over.
func (q *quick) serve(conn *limitedConn) {
	ctx, cancel := context.WithCancel(context.Background())
	c := &quickConn{q: q, conn: conn, buf: make([]byte, quickHead), cancel: cancel}
	c.req = (&http.Request{}).WithContext(ctx)
	c.head.fields = http.Header{}
	c.out.fields = http.Header{}
	c.body.c, c.out.c = c, c
	q.enter(c)
	over := false
	defer func() {
		q.leave(c)
		cancel()
		if over {
			return
		}
		if p := recover(); p != nil {
			err, ok := p.(error)
			if !ok || !errors.Is(err, http.ErrAbortHandler) {
				_ = conn.Close()
				panic(p) // not of a handler: those are recovered in Server.serve
			}
		}
		_ = conn.Close()
	}()
	wait := q.s.cfg.HeaderTimeout.Std() // for the first request; then the idle timeout
	for {
		taken, err := c.next(wait)
		if err != nil {
			return
		}
		if !taken {
			over = true
			_ = conn.SetReadDeadline(time.Time{})
			q.others.give(conn, c.buf[c.from:c.to])
			return
		}
		if !c.answer() {
			return
		}
		wait = q.s.cfg.IdleTimeout.Std()
	}
}

func (q *quick) enter(c *quickConn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.conns[c] = true
}

func (q *quick) leave(c *quickConn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.mu.conns, c)
}

// close closes the connections, all of them or those without a request, and
// tells how many are left.
func (q *quick) close(all bool) (left int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for c := range q.mu.conns {
		if all || !c.busy.Load() {
			c.cancel()
			_ = c.conn.Close()
		}
	}
	return len(q.mu.conns)
}

// drainPoll is how often connections are looked at that are still answering.
const drainPoll = 5 * time.Millisecond

// drain closes the connections as they have been answered.
func (q *quick) drain(ctx context.Context) error {
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for q.close(false) > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// next reads the head of the next request into c.req. taken is false when the
// connection is to go over to net/http.
func (c *quickConn) next(wait time.Duration) (taken bool, err error) {
	c.busy.Store(false)
	if c.from == c.to {
		c.from, c.to = 0, 0
	}
	begun, timed := c.from < c.to, false // bytes of it are here; they have a deadline
	for scanned := 0; ; {
		size, ok := endOfHead(c.buf[c.from:c.to], scanned)
		if ok {
			c.busy.Store(true)
			if !c.head.read(c.buf[c.from:c.from+size], c.q.paths) {
				return false, nil
			}
			c.from += size
			c.begin()
			return true, nil
		}
		if !mayBePlain(c.buf[c.from:c.to]) {
			return false, nil
		}
		scanned = max(0, c.to-c.from-3)
		if c.from > 0 && c.to == len(c.buf) {
			copy(c.buf, c.buf[c.from:c.to])
			c.from, c.to = 0, c.to-c.from
		}
		if c.to == len(c.buf) {
			return false, nil
		}
		switch {
		case !begun:
			c.deadline(wait)
		case !timed:
			timed, c.until = true, time.Time{}
			c.deadline(c.q.s.cfg.HeaderTimeout.Std())
		}
		n, err := c.conn.Read(c.buf[c.to:])
		if err != nil {
			return false, err
		}
		begun = true
		c.to += n
	}
}

// deadline lets reading take so long from now on. It is moved only when it would
// move by much.
func (c *quickConn) deadline(wait time.Duration) {
	now := time.Now()
	if left := c.until.Sub(now); left > wait-wait/16 && left <= wait {
		return
	}
	c.until = now.Add(wait)
	_ = c.conn.SetReadDeadline(c.until) // a closed connection fails at the next read
}

// begin makes the request of the head that was read.
func (c *quickConn) begin() {
	h := &c.head
	c.url = url.URL{Path: h.path, RawQuery: h.query}
	c.body.left = h.length
	r := c.req
	r.Method, r.URL, r.Proto, r.ProtoMajor, r.ProtoMinor = http.MethodPost, &c.url, "HTTP/1.1", 1, 1
	r.Header, r.ContentLength, r.Host, r.RequestURI = h.fields, h.length, h.host, h.target
	r.Close, r.Form, r.PostForm, r.MultipartForm, r.Pattern = false, nil, nil, nil, ""
	if r.RemoteAddr == "" {
		r.RemoteAddr = c.conn.RemoteAddr().String()
	}
	r.Body = &c.body
	if h.length == 0 {
		r.Body = http.NoBody
	}
	c.out.reset()
}

// answer serves the request and writes the answer; false: the connection ends.
func (c *quickConn) answer() bool {
	c.q.s.serve(&c.out, c.req)
	whole := c.body.left == 0
	stays := c.out.send(whole)
	if !whole {
		c.linger()
	}
	return stays
}

// Limits of linger.
const (
	lingerBytes = 256 << 10
	lingerTime  = 500 * time.Millisecond
)

// linger reads some of a body that the handler did not want, and then waits, as
// net/http does: a connection that is closed over unread bytes breaks before the
// client has read its answer.
func (c *quickConn) linger() {
	_ = c.conn.CloseWrite()
	end := time.Now().Add(lingerTime)
	_ = c.conn.SetReadDeadline(end)
	if n, err := io.CopyN(io.Discard, c.conn, lingerBytes); err == nil && n == lingerBytes {
		time.Sleep(time.Until(end))
	}
}

// quickBody is the body of the connection's current request.
type quickBody struct {
	c    *quickConn
	left int64
}

func (b *quickBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	if c := b.c; c.from < c.to {
		n := copy(p, c.buf[c.from:c.to])
		c.from += n
		b.left -= int64(n)
		return n, nil
	}
	n, err := b.c.conn.Read(p)
	b.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if n > 0 {
		return n, nil
	}
	return n, err
}

// Close leaves what was not read to answer.
func (b *quickBody) Close() error { return nil }
