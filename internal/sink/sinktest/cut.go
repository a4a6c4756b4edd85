package sinktest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/sink"
)

// CutTarget is a target behind a network, empty at first. It refuses the row whose
// column a is 33, and no other.
type CutTarget struct {
	// Open opens the sink with the target at this address.
	Open func(addr string) (sink.Sink, error)
	// Values lists column a of what the target holds, a row that it holds twice twice.
	Values func() []int64
	Close  func()
}

// Cut writes rows through a network that breaks off after any number of bytes, on the
// way there or back, and goes on as a pipeline does: at the end an exact sink has each
// row once, and has told what is refused. addr is where the target is.
func Cut(t *testing.T, addr string, rounds int, open func(t *testing.T) CutTarget) {
	p := newProxy(t, addr)
	round := func(what string) {
		x := open(t)
		defer x.Close()
		refused := writeAll(t, p, x)
		if !slices.Equal(refused, []int64{33}) {
			t.Errorf("%s: refused rows are %d, want 33", what, refused)
		}
		var want []int64
		for i := range int64(cutRows) {
			if i != 33 {
				want = append(want, i)
			}
		}
		got := x.Values()
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the target holds %d, want %d", what, got, want)
		}
	}
	round("nothing cut")
	sent, back := p.sent.Load(), p.back.Load()
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range rounds {
		up, down := int64(plenty), int64(plenty)
		if i%2 == 0 {
			up = rng.Int64N(sent)
		} else {
			down = rng.Int64N(back)
		}
		p.up.Store(up)
		p.down.Store(down)
		round(fmt.Sprintf("seed %d, round %d: cut after %d of %d bytes there, or %d of %d back", seed, i, up, sent, down, back))
		p.up.Store(plenty)
		p.down.Store(plenty)
		if t.Failed() {
			return
		}
	}
}

const cutRows = 60

// writeAll writes the rows in batches, and opens the sink anew after each error, until
// all are committed. Nothing is cut after the first error.
func writeAll(t *testing.T, p *proxy, x CutTarget) (refused []int64) {
	mark, told := int64(0), map[int64]bool{}
	for tries := 0; mark < cutRows && tries < 10; tries++ {
		s, err := x.Open(p.Addr().String())
		for err == nil && mark < cutRows {
			b := &event.Batch{Stream: Stream, Incarnation: Lives[0], From: mark, Next: mark + 20, Rows: &event.Rows{},
				Columns: []event.Column{{Name: "_id", Type: event.StringColumn}, {Name: "a", Type: event.LongColumn}, {Name: "s", Type: event.StringColumn}}}
			if mark >= 20 {
				b.Columns = append(b.Columns, event.Column{Name: "b", Type: event.DoubleColumn})
			}
			for off := b.From; off < b.Next; off++ {
				e := Row(fmt.Sprint(off), off, 0)
				e.Data = fmt.Appendf(nil, `{"a":%d,"s":"%s"}`, off, strings.Repeat("x", 40))
				b.Rows.Add(e)
			}
			if err = s.Write(t.Context(), b); err != nil {
				break
			}
			if prepare, ok := s.(sink.Preparer); ok {
				if err = prepare.Prepare(t.Context()); err != nil {
					break
				}
			}
			for _, r := range s.(sink.Refuser).Refused() {
				told[r.At.Offset] = true
			}
			if _, err = s.Commit(t.Context()); err == nil {
				mark = b.Next
			}
		}
		if err != nil && !fault.IsTransient(err) {
			t.Errorf("a cut connection is an error that does not pass by itself: %v", err)
		}
		p.up.Store(plenty)
		p.down.Store(plenty)
		if s != nil {
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
	}
	for off := range told {
		refused = append(refused, off)
	}
	slices.Sort(refused)
	return refused
}

// proxy passes bytes on to the server until the budget of one way is used up; then
// it cuts all connections, in the middle of whatever they say.
type proxy struct {
	net.Listener
	to         string
	up, down   atomic.Int64 // bytes that are left
	sent, back atomic.Int64 // bytes passed on
	wg         sync.WaitGroup
}

const plenty = 1 << 40

func newProxy(t *testing.T, to string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: l, to: to}
	p.up.Store(plenty)
	p.down.Store(plenty)
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() { l.Close(); p.wg.Wait() })
	return p
}

func (p *proxy) serve(c net.Conn) {
	defer c.Close()
	s, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer s.Close()
	var both sync.WaitGroup
	pass := func(dst, src net.Conn, left, passed *atomic.Int64) {
		defer dst.Close()
		defer src.Close()
		buf := make([]byte, 4096)
		for {
			n, err := src.Read(buf)
			after := left.Add(-int64(n))
			if after < 0 {
				n = int(max(int64(n)+after, 0))
			}
			passed.Add(int64(n))
			if _, werr := dst.Write(buf[:n]); err != nil || werr != nil || after < 0 {
				return
			}
		}
	}
	both.Go(func() { pass(s, c, &p.up, &p.sent) })
	both.Go(func() { pass(c, s, &p.down, &p.back) })
	both.Wait()
}
