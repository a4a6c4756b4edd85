package postgres

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/fault"
	"naru/internal/sink"
)

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
	require.NoError(t, err)
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

// run writes 60 rows in several batches, opening the sink anew after each error as
// the pipeline does, until all are committed. Nothing is cut after the first error.
func (x *target) run(t *testing.T, p *proxy, change func(*Settings)) (failures int, refused []int64) {
	mark := int64(0)
	left := map[int64]bool{}
	for mark < 60 {
		s, err := x.try(t, func(s *Settings) {
			s.URL = strings.Replace(x.url, p.to, p.Addr().String(), 1)
			if change != nil {
				change(s)
			}
		})
		for next := mark; err == nil && mark < 60; {
			data := make([]string, 20)
			for i := range data {
				data[i] = fmt.Sprintf(`{"a":%d,"s":"%s"}`, next+int64(i), strings.Repeat("x", 40))
			}
			columns := "_id:string a:long s:string"
			if next >= 20 {
				columns += " b:double"
			}
			b := batch(next, columns, data...)
			if err = s.Write(t.Context(), b); err == nil {
				err = s.(sink.Preparer).Prepare(t.Context())
			}
			if err != nil {
				break
			}
			for _, r := range s.(sink.Refuser).Refused() {
				left[r.At.Offset] = true
			}
			if _, err = s.Commit(t.Context()); err == nil {
				next, mark = b.Next, b.Next
			}
		}
		if err != nil {
			failures++
			require.True(t, fault.IsTransient(err), err)
			p.up.Store(plenty)
			p.down.Store(plenty)
		}
		if s != nil {
			require.NoError(t, s.Close())
		}
	}
	for off := range left {
		refused = append(refused, off)
	}
	slices.Sort(refused)
	return failures, refused
}

// The connection is cut after any number of bytes, on the way there or back: each
// row is there once, and the refused one is told.
func TestCutAnywhere(t *testing.T) {
	whole := newTarget(t)
	u, err := url.Parse(whole.url)
	require.NoError(t, err)
	p := newProxy(t, u.Host)
	const refusing = `CREATE TABLE t ("_id" text PRIMARY KEY, a bigint CHECK (a <> 33))`
	whole.exec(t, refusing)
	failures, refused := whole.run(t, p, nil)
	require.Zero(t, failures)
	require.Equal(t, []int64{33}, refused)
	sent, back := p.sent.Load(), p.back.Load()
	t.Logf("%d bytes there, %d back", sent, back)

	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range 80 {
		x := newTarget(t)
		x.exec(t, refusing)
		var change func(*Settings)
		if i%2 == 1 {
			change = upsert("_id")
		}
		var at int64
		if i%4 < 2 {
			at = rng.Int64N(sent)
			p.up.Store(at)
		} else {
			at = rng.Int64N(back)
			p.down.Store(at)
		}
		_, refused := x.run(t, p, change)
		require.Equal(t, []int64{33}, refused, "cut after %d bytes, run %d, seed %d", at, i, seed)
		require.Equal(t, []string{"59|59|1737"}, x.exec(t, "SELECT count(*), count(DISTINCT a), sum(a) FROM t"), "cut after %d bytes, run %d, seed %d", at, i, seed)
		require.Equal(t, []string{"60"}, x.exec(t, "SELECT next_offset FROM naru_positions"))
		x.exec(t, "DROP SCHEMA "+x.schema+" CASCADE")
		x.conn.Close(context.Background())
		p.up.Store(plenty)
		p.down.Store(plenty)
	}
}

// The server ends the connection between the rows and their commit.
func TestTerminated(t *testing.T) {
	x := newTarget(t)
	s := x.open(t, nil)
	b := batch(0, "_id:string", `{}`, `{}`)
	require.NoError(t, s.Write(t.Context(), b))
	require.NoError(t, s.(sink.Preparer).Prepare(t.Context()))
	x.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'naru' AND state LIKE 'idle in transaction%'")
	_, err := s.Commit(t.Context())
	require.Error(t, err)
	require.NotErrorIs(t, err, io.ErrUnexpectedEOF, "the server's word is told")
	require.True(t, fault.IsTransient(err))
	require.NoError(t, s.Close())
	require.Empty(t, x.ids(t))
	s = x.open(t, nil)
	put(t, s, b)
	require.Len(t, x.ids(t), 2)
	require.NoError(t, s.Close())
}
