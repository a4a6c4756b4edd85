package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/sink"
	"naru/internal/sink/sinktest"
)

// A second writer of one reader takes over; what the first one still has is nothing
// to anybody, whenever it wakes up.
func TestZombie(t *testing.T) {
	at := brokers(t)
	s := settings(t, at)
	a, b := sinktest.Events("a", 4), sinktest.Events("b", 3)
	first := sinktest.Batch(sinktest.Lives[0], 0, 0, a...)
	second := sinktest.Batch(sinktest.Lives[0], 0, first.Next, b...)

	old := opened(t, s)
	require.NoError(t, old.Write(t.Context(), first))
	young := opened(t, s) // while the transaction of the old one is open
	resumed, err := young.(sink.Resumer).Resume(t.Context(), sinktest.Stream)
	require.NoError(t, err)
	require.Empty(t, resumed)
	require.NoError(t, young.Write(t.Context(), first))
	_, err = old.Commit(t.Context())
	require.Error(t, err)
	require.Contains(t, fault.HintOf(err), "transactional id")
	_, err = young.Commit(t.Context())
	require.NoError(t, err)
	require.NoError(t, old.Close())

	// One that has slept between two transactions.
	idle := opened(t, s)
	young = opened(t, s)
	require.NoError(t, young.Write(t.Context(), second))
	_, err = young.Commit(t.Context())
	require.NoError(t, err)
	err = idle.Write(t.Context(), second)
	if err == nil {
		_, err = idle.Commit(t.Context())
	}
	require.Error(t, err)
	require.Equal(t, sinktest.IDs(a, b), idsOf(t, at, s.Topic))
}

// The connection is cut at any byte of writing and committing, also where the
// answer to the commit is lost: whatever became of the transaction, the next life
// finds out and every event is there once.
func TestCutAnywhere(t *testing.T) {
	whole := cut(t, -1)
	points := []int{1}
	for i := range 7 {
		points = append(points, whole*(i+1)/9)
	}
	for i := range 16 {
		points = append(points, whole-1-8*i)
	}
	for _, n := range points {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			cut(t, n)
		})
	}
}

// cut cuts the connection n bytes behind the beginning of a write, opens the sink
// anew and looks. It returns how many bytes write and commit took.
func cut(t *testing.T, n int) int {
	at := brokers(t)
	s := settings(t, at)
	w := sinktest.NewWire()
	s.dial = w.Dial
	a, b := sinktest.Events("a", 4), sinktest.Events("b", 3)
	first := sinktest.Batch(sinktest.Lives[0], 0, 0, a...)
	out := opened(t, s)
	sinktest.Put(t, out, first)

	s.Timeout = quantity.Duration(300 * time.Millisecond)
	before := w.Passed()
	w.CutAfter(n)
	err := out.Write(t.Context(), sinktest.Batch(sinktest.Lives[0], 0, first.Next, b...))
	if err == nil {
		_, err = out.Commit(t.Context())
	}
	t.Logf("cut after %d bytes: %v", n, err)
	whole := w.Passed() - before
	_ = out.Close()

	s.dial, s.Timeout = nil, quantity.Duration(10*time.Second)
	sinktest.Put(t, opened(t, s), sinktest.Batch(sinktest.Lives[0], 0, 0, slices.Concat(a, b)...))
	require.Equal(t, sinktest.IDs(a, b), idsOf(t, at, s.Topic))
	return whole
}

// The process dies right behind the broker's n-th answer to the end of a
// transaction.
func TestDeathBehindACommit(t *testing.T) {
	c := fake(t)
	s := settings(t, c.ListenAddrs())
	s.Timeout = quantity.Duration(time.Second)
	w := sinktest.NewWire()
	s.dial = w.Dial
	out := opened(t, s)
	a := sinktest.Events("a", 4)
	batch := sinktest.Batch(sinktest.Lives[0], 0, 0, a...)
	require.NoError(t, out.Write(t.Context(), batch))
	ended := make(chan struct{}, 1)
	c.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		select {
		case ended <- struct{}{}:
			return nil, nil, false
		default:
			return nil, errors.New("dead"), true
		}
	})
	_, err := out.Commit(t.Context())
	require.NoError(t, err)
	w.CutAfter(1)
	_ = out.Close()
	c.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) { return nil, nil, false })

	s.dial = nil
	<-ended
	out = opened(t, s)
	require.NoError(t, out.Write(t.Context(), batch))
	_, err = out.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, sinktest.IDs(a), idsOf(t, c.ListenAddrs(), s.Topic))
}

// The client does not commit, and says nothing of it: the sink does.
func TestCommitThatIsNone(t *testing.T) {
	c := fake(t)
	s := settings(t, c.ListenAddrs())
	out := opened(t, s)
	a := sinktest.Events("a", 3)
	b := sinktest.Batch(sinktest.Lives[0], 0, 0, a...)
	require.NoError(t, out.Write(t.Context(), b))
	inner := out.(*Sink)
	require.NoError(t, inner.flush(t.Context()))
	require.NoError(t, inner.client.EndTransaction(t.Context(), kgo.TryAbort)) // as if it had done so itself
	require.NoError(t, inner.client.BeginTransaction())
	require.ErrorIs(t, inner.endTransaction(t.Context()), errNotCommitted)
	sinktest.Put(t, opened(t, s), b)
	require.Equal(t, sinktest.IDs(a), idsOf(t, c.ListenAddrs(), s.Topic))
}

// A record that the broker does not take must not be left out of a commit.
func TestFailedRecordFailsTheCommit(t *testing.T) {
	c := fake(t)
	s := settings(t, c.ListenAddrs())
	out := opened(t, s)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: s.Topic, Err: kerr.MessageTooLarge})
	a := sinktest.Events("a", 9)
	batch := sinktest.Batch(sinktest.Lives[0], 0, 0, a...)
	err := out.Write(t.Context(), batch)
	if err == nil {
		_, err = out.Commit(t.Context())
	}
	require.ErrorIs(t, err, kerr.MessageTooLarge)
	require.Contains(t, fault.HintOf(err), "max.message.bytes")
	_, err = out.Commit(t.Context())
	require.Error(t, err, "what has failed once commits nothing any more")
	require.NoError(t, out.Close())
	require.Empty(t, idsOf(t, c.ListenAddrs(), s.Topic))

	out = opened(t, s)
	require.NoError(t, out.Write(t.Context(), batch))
	_, err = out.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, sinktest.IDs(a), idsOf(t, c.ListenAddrs(), s.Topic))
}

// Somebody else's transaction is open in the positions topic and hides what was
// committed behind its beginning: who opens waits for it.
func TestOpenWaitsForOthersTransactions(t *testing.T) {
	at := brokers(t)
	s := settings(t, at)
	require.NoError(t, opened(t, s).Close()) // makes the topics

	other, err := kgo.NewClient(kgo.SeedBrokers(at...), kgo.TransactionalID(named(t, "other")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	defer other.Close()
	begin := func() {
		require.NoError(t, other.BeginTransaction())
		require.NoError(t, other.ProduceSync(t.Context(), &kgo.Record{Topic: s.PositionsTopic, Key: []byte("other"), Value: []byte("{}")}).FirstErr())
	}
	begin()
	out := openedBehind(t, s, func() error { return other.EndTransaction(t.Context(), kgo.TryCommit) })
	batch := sinktest.Batch(sinktest.Lives[0], 0, 0, sinktest.Events("a", 3)...)
	require.NoError(t, out.Write(t.Context(), batch))
	begin()
	_, err = out.Commit(t.Context()) // its position stands behind the open transaction
	require.NoError(t, err)
	require.NoError(t, out.Close())
	out = openedBehind(t, s, func() error { return other.EndTransaction(t.Context(), kgo.TryAbort) })
	resumed, err := out.(sink.Resumer).Resume(t.Context(), sinktest.Stream)
	require.NoError(t, err)
	off, _ := resumed.Get(sinktest.Lives[0], 0)
	require.Equal(t, batch.Next, off)
}

// openedBehind opens the sink while the transaction of somebody else is open, which
// ends once the sink has asked twice for what is in the positions topic.
func openedBehind(t *testing.T, s *Settings, end func() error) sink.Sink {
	t.Helper()
	var asked atomic.Int64
	s.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return fetches{c, &asked}, err
	}
	open := make(chan error, 1)
	var out sink.Sink
	go func() {
		var err error
		out, err = s.Open(t.Context(), env())
		open <- err
	}()
	require.Eventually(t, func() bool { return asked.Load() > 1 || len(open) > 0 }, time.Minute, time.Millisecond)
	require.Empty(t, open, "it has not waited")
	require.NoError(t, end())
	require.NoError(t, <-open)
	t.Cleanup(func() { _ = out.Close() })
	return out
}

// fetches counts the requests for records; the client sends each in one piece.
type fetches struct {
	net.Conn
	n *atomic.Int64
}

func (f fetches) Write(b []byte) (int, error) {
	if len(b) > 6 && kmsg.Key(binary.BigEndian.Uint16(b[4:])) == kmsg.Fetch {
		f.n.Add(1)
	}
	return f.Conn.Write(b)
}
