package table

import (
	"context"
	"errors"
	"path"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/lake/iceberg"
	"naru/internal/sink/sinktest"
	"naru/internal/vfs"
)

// lame refuses the swaps of one table.
type lame struct {
	*iceberg.MemoryCatalog
	table lake.Ident
	err   error
}

func (c *lame) Swap(ctx context.Context, t lake.Ident, from, to string) error {
	if t == c.table && c.err != nil {
		return c.err
	}
	return c.MemoryCatalog.Swap(ctx, t, from, to)
}

// One table whose commits always fail must not keep the others from theirs for
// ever: after some sessions it is stopped, and when the cause is gone it takes
// its events.
func TestTableThatAlwaysFailsIsStopped(t *testing.T) {
	w := newWorld(t)
	cat := &lame{MemoryCatalog: w.rows, table: table("a"), err: errors.New("no permission")}
	require.NoError(t, w.lake.Close())
	l, err := iceberg.Open(t.Context(), w.cfg, w.fs, "/data", quiet, iceberg.WithCatalog(cat))
	require.NoError(t, err)
	w.lake, w.tables = l, New(l, w.log, quiet)

	var done event.Positions
	all := typed(0, "b", "a")
	sessions := 0
	for ; sessions < 10; sessions++ {
		all = append(all, typed(len(all), "b")...) // others go on meanwhile
		s := w.sink()
		require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, all...)))
		if done, err = s.Commit(t.Context()); err == nil {
			break
		}
		require.NoError(t, s.Close())
	}
	require.Equal(t, maxFailures-1, sessions)
	require.Equal(t, event.Positions{life: {0: 1}}, done, "the watermark waits for the table")
	require.Len(t, w.column(table("b"), "_id"), len(all)-1)
	status := w.tables.Status()
	require.Contains(t, status[0].Error, "no permission")
	require.NotEmpty(t, status[0].Hint)

	// Tried again after a while, and at once stopped again.
	for _, wait := range []time.Duration{time.Hour, 3 * time.Hour} {
		w.tables.now = func() time.Time { return time.Now().Add(wait) }
		s := w.sink()
		all = append(all, typed(len(all), "b")...)
		require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, all...)))
		done, err = s.Commit(t.Context())
		require.NoError(t, err)
		require.Equal(t, event.Positions{life: {0: 1}}, done)
		require.NoError(t, s.Close())
	}
	cat.err = nil
	s := w.sink()
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, all...)))
	done, err = s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Positions{life: {0: int64(len(all))}}, done)
	require.NoError(t, s.Close())
	w.requireIDs(numbers(len(all)))
	require.Empty(t, w.tables.mu.failures)
}

// A catalog that answers nobody is no table's fault.
func TestDeadCatalogStopsNoTable(t *testing.T) {
	w := newWorld(t)
	cat := &lame{MemoryCatalog: w.rows, table: table("a"), err: errors.New("down")}
	require.NoError(t, w.lake.Close())
	l, err := iceberg.Open(t.Context(), w.cfg, w.fs, "/data", quiet, iceberg.WithCatalog(cat))
	require.NoError(t, err)
	w.lake, w.tables = l, New(l, w.log, quiet)
	for range 2 * maxFailures {
		s := w.sink()
		require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, typed(0, "a", "a")...)))
		_, err = s.Commit(t.Context())
		require.ErrorContains(t, err, "down")
		require.NoError(t, s.Close())
	}
}

// A metadata file that the disk does not give stops its table alone.
func TestUnreadableTableStopsAlone(t *testing.T) {
	w := newWorld(t)
	w.fill(typed(0, "a", "b"))
	loc, err := w.rows.Location(t.Context(), table("a"))
	require.NoError(t, err)
	w.restart()
	disk := w.fs.(*vfs.Memory)
	disk.Inject(vfs.Rule{Ops: vfs.OpOpen | vfs.OpRead, Pattern: path.Base(loc)})
	s := w.sink()
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 2, typed(2, "b", "a", "b")...)))
	done, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Positions{life: {0: 3}}, done)
	require.NotEmpty(t, w.tables.Status()[0].Error)
	require.NotEmpty(t, w.tables.Status()[0].Hint)
	disk.Heal()
	w.tables.now = func() time.Time { return time.Now().Add(time.Hour) }
	_, err = s.Commit(t.Context())
	require.True(t, fault.IsTransient(err), "%v", err)
	require.NoError(t, s.Close())
	s = w.sink()
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 3, typed(3, "a", "b")...)))
	done, err = s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Positions{life: {0: 5}}, done)
	require.NoError(t, s.Close())
	w.requireIDs(numbers(5))
}
