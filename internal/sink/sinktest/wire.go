package sinktest

import (
	"context"
	"errors"
	"net"
	"sync"
)

// Wire is a network that can die: behind so many bytes, in either direction, all its
// connections are cut, and no new ones can be made.
type Wire struct {
	mu struct {
		sync.Mutex
		left   int // bytes; negative: without end
		passed int
		dead   bool
		conns  []net.Conn
	}
}

var errCut = errors.New("the wire is cut")

// NewWire returns a network that works.
func NewWire() *Wire {
	w := &Wire{}
	w.mu.left = -1
	return w
}

// Dial connects as net.Dialer.DialContext does.
func (w *Wire) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if w.rest() == 0 {
		return nil, errCut
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.dead {
		return nil, errors.Join(errCut, c.Close())
	}
	w.mu.conns = append(w.mu.conns, c)
	return &wired{Conn: c, wire: w}, nil
}

// CutAfter makes the network die behind n more bytes; below 0 it never does.
func (w *Wire) CutAfter(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.left = n
}

// HangUp closes all connections; new ones can be made.
func (w *Wire) HangUp() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.mu.conns {
		_ = c.Close()
	}
	w.mu.conns = nil
}

// Passed counts the bytes so far.
func (w *Wire) Passed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.passed
}

// rest is how many bytes may still pass.
func (w *Wire) rest() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.mu.dead:
		return 0
	case w.mu.left < 0:
		return 1 << 30
	}
	return w.mu.left
}

// spend takes n bytes off what is left and returns how many may pass.
func (w *Wire) spend(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.dead {
		return 0
	}
	if w.mu.left >= 0 {
		n = min(n, w.mu.left)
		w.mu.left -= n
	}
	w.mu.passed += n
	if w.mu.left == 0 {
		w.mu.dead = true
		for _, c := range w.mu.conns {
			_ = c.Close()
		}
	}
	return n
}

type wired struct {
	net.Conn
	wire *Wire
}

// Write sends what may pass before it cuts the connection: it has to arrive.
func (c *wired) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b[:min(len(b), c.wire.rest())])
	if err != nil {
		return n, err
	}
	if c.wire.spend(n); n < len(b) {
		return n, errCut
	}
	return n, nil
}

func (c *wired) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		return n, err
	}
	if n = c.wire.spend(n); n == 0 {
		return 0, errCut
	}
	return n, nil
}
