package hottail

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/vfs"
)

// A disk without room costs a query the newest rows, not the answer; they are
// there again when it has room.
func TestDiskThatFails(t *testing.T) {
	for _, c := range []struct {
		op  vfs.Op
		err error
	}{{vfs.OpCreate, syscall.ENOSPC}, {vfs.OpWrite, syscall.ENOSPC}, {vfs.OpWrite, syscall.EIO}, {vfs.OpClose, syscall.EIO}} {
		t.Run(fmt.Sprint(c.op, c.err), func(t *testing.T) {
			w := newWorld(t)
			w.send("events", append(w.evs(2, "a"), w.evs(1, "b")...)...)
			w.load("events")
			w.send("events", append(w.evs(2, "a"), w.evs(1, "b")...)...)
			committed := func(v *lake.View) func(spot) bool {
				return func(s spot) bool { return s.offset < 3 && w.types["events"][s] == v.Ident.Name }
			}
			w.failing(c.op, c.err)
			for _, v := range w.cut(id("a"), id("b")) {
				require.Nil(t, v.Hot)
				w.requireRows(v, committed(v))
			}
			require.Equal(t, int64(1), w.tail.Counts().Failed.Load())
			// Nothing is committed of it: no answer would be true.
			w.send("events", w.evs(1, "new")...)
			_, err := w.tail.Cut(t.Context(), []lake.Ident{id("new")})
			require.True(t, fault.IsTransient(err), "%v", err)
			require.NotEmpty(t, fault.HintOf(err))
			require.NotContains(t, err.Error(), hotDir)
			w.fs.Heal()
			w.requireAll(id("a"), id("b"), id("new"))
			// Rows that are in a file already, and one more.
			w.send("events", w.evs(1, "a")...)
			w.failing(c.op, c.err)
			for _, v := range w.cut(id("a"), id("b")) {
				require.Nil(t, v.Hot, "one table's rows without the other's")
				w.requireRows(v, committed(v))
			}
			w.fs.Heal()
			w.requireAll(id("a"), id("b"))
			// A file that is finished.
			w.send("events", w.big(sealing+1, "b")...)
			w.failing(c.op, c.err)
			for _, v := range w.cut(id("b"), id("a")) {
				w.requireRows(v, committed(v))
			}
			w.fs.Heal()
			w.requireAll(id("a"), id("b"))
			w.tail.rest(time.Now().Add(idle))
			require.Zero(t, w.tail.Bytes())
			require.Empty(t, w.files())
		})
	}
}

// Files stay until the last view is released, and go then.
func TestLeases(t *testing.T) {
	w := newWorld(t)
	w.send("events", w.evs(3, "a")...)
	first := w.cut(id("a"))[0]
	second := w.cut(id("a"))[0]
	require.Equal(t, first.Hot.Files, second.Hot.Files, "written once for both")
	w.send("events", w.evs(3, "a")...)
	third := w.cut(id("a"))[0]
	require.Len(t, w.files(), 2)
	first.Release()
	first.Release() // twice is once
	w.requireRows(second, func(s spot) bool { return s.offset < 3 })
	w.load("events")
	w.send("events", w.evs(1, "a")...)
	w.requireAll(id("a"))
	w.requireRows(second, func(s spot) bool { return s.offset < 3 })
	w.requireRows(third, func(s spot) bool { return s.offset < 6 })
	second.Release()
	require.Len(t, w.files(), 2)
	third.Release()
	require.Len(t, w.files(), 1)
	w.tail.rest(time.Now().Add(idle))
	require.Empty(t, w.files())
	require.Zero(t, w.tail.Bytes())
	w.requireAll(id("a"))
}

// A cut that fails gives everything back.
func TestFailedCutKeepsNothing(t *testing.T) {
	w := newWorld(t)
	w.send("events", w.evs(3, "a")...)
	_, err := w.tail.Cut(t.Context(), []lake.Ident{id("a"), id("nothing")})
	require.ErrorIs(t, err, lake.ErrNoTable)
	w.tail.rest(time.Now().Add(idle))
	require.Empty(t, w.files())
	require.Zero(t, w.tail.Bytes())
}

// What an earlier process has left goes at the start; what is not ours stays.
func TestOpenEmptiesTheFolder(t *testing.T) {
	w := newWorld(t)
	w.send("events", w.evs(3, "a")...)
	w.cut(id("a"))
	require.NotEmpty(t, w.files())
	f, err := w.fs.Create(filepath.Join(hotDir, "notes.txt"))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	w.restart()
	require.Equal(t, []string{"notes.txt"}, w.files())
	w.requireAll(id("a"))
	w.fs.Inject(vfs.Rule{Ops: vfs.OpRemove, Pattern: "*.parquet"})
	require.Error(t, w.tail.Open())
	w.fs.Heal()
	w.fs.Inject(vfs.Rule{Ops: vfs.OpMkdir | vfs.OpList})
	require.Error(t, w.tail.Open())
	w.fs.Heal()
}

// Tails that nobody asks for go by themselves, and all of them at the end.
func TestRunLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.send("events", append(w.evs(3, "a"), w.evs(3, "b")...)...)
		w.requireAll(id("a"), id("b"))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.tail.Run(ctx) }()
		require.Len(t, w.files(), 2)
		for range 2 * int(idle/time.Second) {
			time.Sleep(time.Second)
			w.requireAll(id("a"))
		}
		require.Len(t, w.files(), 1, "of the table that is asked for")
		w.requireAll(id("b"))
		v := w.cut(id("a"))[0]
		cancel()
		require.NoError(t, <-ended)
		require.Len(t, w.files(), 1, "of the query that still runs")
		w.requireRows(v, func(s spot) bool { return w.types["events"][s] == "a" })
		v.Release()
		require.Empty(t, w.files())
		require.Zero(t, w.tail.Bytes())
	})
}

// A query gives up waiting for another one, and keeps nothing.
func TestWaitingForAnotherQueryIsBrokenOff(t *testing.T) {
	w := newWorld(t)
	w.send("events", w.evs(3, "a")...)
	reading, goOn := make(chan struct{}), make(chan struct{})
	w.view.onRead = func() {
		w.view.onRead = nil
		close(reading)
		<-goOn
	}
	var all sync.WaitGroup
	all.Go(func() { w.requireAll(id("a")) })
	<-reading
	ctx, cancel := context.WithCancelCause(t.Context())
	gave := errors.New("gave up")
	go cancel(gave)
	_, err := w.tail.Cut(ctx, []lake.Ident{id("a")})
	require.ErrorIs(t, err, gave)
	w.tail.rest(time.Now().Add(idle)) // not what is in use
	close(goOn)
	all.Wait()
	require.Zero(t, w.tail.Counts().Failed.Load())
	// The same for one that is broken off while it waits for a commit, or reads.
	ctx, cancel = context.WithCancelCause(t.Context())
	w.send("events", w.evs(1, "a")...)
	w.view.onRead = func() { w.view.onRead, w.view.failRead = nil, context.Canceled; cancel(gave) }
	_, err = w.tail.Cut(ctx, []lake.Ident{id("a")})
	require.ErrorIs(t, err, gave)
	w.view.failRead = nil
	w.requireAll(id("a"))
	require.Zero(t, w.tail.Counts().Failed.Load())
}

// What a query has read before it was broken off, the next one need not read: else
// queries with little time might never get to the end.
func TestBrokenOffQueryIsNoneInVain(t *testing.T) {
	for _, last := range []string{`,"x":2`, `,"x":2.5`} { // with a promotion all is read again
		w := newWorld(t)
		for i := range 2 * sealing {
			w.send("events", w.big(1, "a", `,"x":1`)...)
			if i == sealing {
				w.send("events", w.evs(1, "a", last)...)
			}
		}
		gave := errors.New("gave up")
		ctx, cancel := context.WithCancelCause(t.Context())
		reads := 0
		w.view.onRead = func() {
			if reads++; reads == 2*sealing-2 {
				cancel(gave)
			}
		}
		_, err := w.tail.Cut(ctx, []lake.Ident{id("a")})
		require.ErrorIs(t, err, gave)
		require.Less(t, reads, 2*sealing, "it went on")
		require.Zero(t, w.tail.Counts().Failed.Load())
		w.view.onRead = nil
		v := w.requireSum(id("a"), "x", float64(2*sealing)+map[string]float64{`,"x":2`: 2, `,"x":2.5`: 2.5}[last])
		if last == `,"x":2` {
			require.Equal(t, int64(2*sealing+1), w.tail.Counts().Rows.Load(), "read again")
		} else {
			require.Equal(t, "double", typeOf(v, "x"))
		}
	}
}

// Queries on the same tables at the same time, beside commits.
func TestConcurrentQueries(t *testing.T) {
	w := newWorld(t)
	w.send("events", append(w.evs(3, "a"), w.evs(3, "b")...)...)
	sent := 6
	var book sync.RWMutex // guards what was sent
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				book.RLock()
				least := sent
				book.RUnlock()
				views, err := w.tail.Cut(t.Context(), []lake.Ident{id("a"), id("b")})
				if err != nil {
					t.Error(err)
					return
				}
				book.RLock()
				if end := w.requireOnePlace(views); end[0] < int64(least) {
					t.Errorf("the cut ends at %d, %d were there before it", end[0], least)
				}
				book.RUnlock()
				letGo(views)
			}
		})
	}
	var upkeep sync.WaitGroup
	upkeep.Go(func() {
		for ctx.Err() == nil {
			w.tail.rest(time.Now().Add(idle))
			time.Sleep(time.Millisecond)
		}
	})
	for i := range 60 {
		book.Lock()
		w.send("events", append(w.evs(2, "a"), w.evs(1, "b")...)...)
		sent += 3
		book.Unlock()
		switch i % 4 {
		case 1:
			w.load("events")
		case 2:
			w.loader("events").write().commit()
			w.lose("events")
		}
	}
	cancel()
	readers.Wait()
	upkeep.Wait()
	w.requireAll(id("a"), id("b"))
	require.Zero(t, w.tail.Counts().Failed.Load())
	w.tail.rest(time.Now().Add(idle))
	require.Empty(t, w.files())
	require.Zero(t, w.tail.Bytes())
}

// A batch that cannot be read to its end is read again as a whole, not on top of
// its first rows.
func TestBatchReadInPart(t *testing.T) {
	w := newWorld(t)
	w.send("events", w.evs(3, "a")...)
	w.requireAll(id("a"))
	w.send("events", w.big(sealing+2, "a")...)
	w.failing(vfs.OpWrite, syscall.ENOSPC) // in the middle of the batch a file is full
	_, err := w.tail.Cut(t.Context(), []lake.Ident{id("a")})
	require.True(t, fault.IsTransient(err), "%v", err)
	w.fs.Heal()
	w.requireAll(id("a"))
}
