package table

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/lake/iceberg"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/sink/sinktest"
	"naru/internal/vfs"
)

// 10,000 types on a node of 1,000 tables, all at once, and new ones and old ones
// all the time: at 20 commits a second every table gets its turn, the watermark
// reaches what was there at the beginning, and every row is there once.
func TestTenThousandTypesOnOneNode(t *testing.T) {
	w := newWorld(t)
	require.EqualValues(t, 20, w.cfg.CommitRate)
	require.Equal(t, 1000, w.cfg.MaxTables)
	types := 10_000
	if os.Getenv("NARU_SOAK") == "" { // the same, a tenth of it
		types, w.cfg.CommitRate, w.cfg.MaxTables = 1000, 2, 100
	}
	w.restart()
	now := time.Unix(1e9, 0)
	w.tables.now = func() time.Time { return now }
	most := w.watchWriters()
	specs := func(from, n int, typ func(i int) string) (out []sinktest.Spec) {
		for i := range n {
			out = append(out, sinktest.Spec{ID: fmt.Sprintf("e%d", from+i), Type: typ(from + i), Data: fmt.Sprintf(`{"n":%d}`, from+i)})
		}
		return out
	}
	s := w.sink()
	b := sinktest.Batch(life, 0, 0, specs(0, types, func(i int) string { return fmt.Sprintf("t%d", i) })...)
	require.NoError(t, s.Write(t.Context(), b))
	rng := rand.New(rand.NewPCG(1, 1))
	mark, rounds, wrote := int64(0), 0, types
	for ; mark < int64(types); rounds++ {
		require.Less(t, rounds, 12, "the watermark stands at %d", mark)
		done, err := s.Commit(t.Context())
		require.NoError(t, err)
		at, _ := done.Get(life, 0)
		require.GreaterOrEqual(t, at, mark, "the watermark goes back")
		mark = at
		// Busy all the while: all kinds of types go on getting rows.
		b = sinktest.Batch(life, 0, b.Next, specs(wrote, 100, func(i int) string {
			return fmt.Sprintf("t%d", rng.IntN(2*types))
		})...)
		require.NoError(t, s.Write(t.Context(), b))
		wrote += 100
		now = now.Add(rateWindow)
	}
	require.Greater(t, rounds, 8, "the rate is the node's")
	_, err := s.(*Sink).Drain(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.LessOrEqual(t, int(most()), w.cfg.OpenWriters)
	list, err := w.lake.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, w.cfg.MaxTables+1)
	w.requireIDs(numbers(wrote))
	require.Greater(t, len(w.column(table(lake.OtherTable), "_id")), types-w.cfg.MaxTables)
}

// rateWindow is the pipeline's commit interval.
const rateWindow = 5 * time.Second

// watchWriters returns the most Parquet files that were open at one time.
func (w *world) watchWriters() func() int64 {
	var most atomic.Int64
	w.fs.(*vfs.Memory).OnSync(func(int, vfs.Op, string) {
		n := int64(w.lake.Writers.Open())
		for was := most.Load(); n > was && !most.CompareAndSwap(was, n); was = most.Load() {
		}
	})
	return most.Load
}

// A few large tables take all of the rate by force, for want of memory. The small
// ones must get through all the same, and with them the watermark.
func TestSmallTablesAreNotStarvedByForcedCommits(t *testing.T) {
	w := newWorld(t)
	w.cfg.Memory, w.cfg.CommitRate = quantity.MiB, 0.2
	w.restart()
	now := time.Unix(1e9, 0)
	w.tables.now = func() time.Time { return now }
	s := w.sink()
	off, n := int64(0), 0
	write := func(specs ...sinktest.Spec) {
		for i := range specs {
			specs[i].ID = fmt.Sprintf("e%d", n)
			n++
		}
		b := sinktest.Batch(life, 0, off, specs...)
		require.NoError(t, s.Write(t.Context(), b))
		off = b.Next
	}
	var small []sinktest.Spec
	for i := range 20 {
		small = append(small, sinktest.Spec{Type: fmt.Sprintf("small%d", i), Data: `{}`})
	}
	write(small...)
	first := off
	big := strings.Repeat("x", 400_000)
	mark := int64(0)
	for round := 0; mark < first; round++ {
		require.Less(t, round, 60, "the watermark stands at %d", mark)
		for i := range 4 {
			write(sinktest.Spec{Type: "big", Data: fmt.Sprintf(`{"x":"%s%d"}`, big, i)})
		}
		done, err := s.Commit(t.Context())
		require.NoError(t, err)
		mark, _ = done.Get(life, 0)
		now = now.Add(time.Second / 10)
	}
	_, err := s.(*Sink).Drain(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Close())
	w.requireIDs(numbers(n))
}

// A sink that does not come back for its turn holds the others up for a while only.
func TestStuckSinkDoesNotHoldTheRate(t *testing.T) {
	r := iceberg.NewRate(1)
	t0 := time.Unix(1e9, 0)
	for i := range 5 {
		require.True(t, r.Take(table(fmt.Sprint(i)), t0, t0))
	}
	for i := range 100 {
		require.False(t, r.Take(table(fmt.Sprint("stuck", i)), t0, t0))
	}
	since := t0.Add(time.Second)
	require.False(t, r.Take(table("x"), since, t0.Add(10*time.Second)))
	require.True(t, r.Take(table("x"), since, t0.Add(20*time.Second)))
}

// One type with 5,000 fields: so many become columns as a table has, and the rest
// goes to _rescued, value for value.
func TestFiveThousandColumns(t *testing.T) {
	const fields = 5000
	w := newWorld(t)
	var specs []sinktest.Spec
	for e := range 3 {
		data := map[string]int{}
		for i := range fields {
			data[fmt.Sprintf("f%04d", i)] = e*fields + i
		}
		text, err := json.Marshal(data)
		require.NoError(t, err)
		specs = append(specs, sinktest.Spec{ID: fmt.Sprintf("e%d", e), Type: "wide", Data: string(text)})
	}
	w.fill(specs[:1], specs[1:])
	v, err := w.lake.View(t.Context(), table("wide"))
	require.NoError(t, err)
	defer v.Release()
	require.Len(t, v.Columns, 999, "1,000, one of them kept for _extensions")
	require.Len(t, v.Files, 2)
	rescued := w.column(table("wide"), columnar.ColumnRescued)
	own := 0
	for _, c := range v.Columns {
		if strings.HasPrefix(c.Name, "_") {
			continue
		}
		own++
		if own%100 != 1 {
			continue
		}
		var i int64
		_, err := fmt.Sscanf(c.Name, "f%d", &i)
		require.NoError(t, err)
		require.ElementsMatch(t, []any{i, fields + i, 2*fields + i}, w.column(table("wide"), c.Name))
	}
	ids := w.column(table("wide"), "_id")
	for row, text := range rescued {
		var e int
		_, err := fmt.Sscanf(ids[row].(string), "e%d", &e)
		require.NoError(t, err)
		var rest map[string]int
		require.NoError(t, json.Unmarshal([]byte(text.(string)), &rest))
		require.Len(t, rest, fields-own)
		for name, n := range rest {
			require.Equal(t, fmt.Sprintf("f%04d", n-e*fields), name)
			require.False(t, slices.ContainsFunc(v.Columns, func(c lake.Column) bool { return c.Name == name }))
		}
	}
	info, err := w.lake.Info(t.Context(), table("wide"))
	require.NoError(t, err)
	require.Len(t, info.Rescued, 20)
}

// Two years early is the time of receipt, two years late is what the event says:
// its own day. And whatever the days and however few files may be open, a commit
// adds one file for each day of each table.
func TestTimesFarAwayAndOneFileADay(t *testing.T) {
	w := newWorld(t)
	w.cfg.OpenWriters = 2
	w.restart()
	cat := &swaps{MemoryCatalog: w.rows}
	require.NoError(t, w.lake.Close())
	l, err := iceberg.Open(t.Context(), w.cfg, w.fs, "/data", quiet, iceberg.WithCatalog(cat))
	require.NoError(t, err)
	w.lake, w.tables = l, New(l, w.log, quiet)
	received := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s := w.sink()
	n := 0
	batch := func(times ...time.Time) {
		var rb recordbatch.Builder
		rb.Reset(received)
		from := int64(n)
		for _, at := range times {
			for _, typ := range []string{"a", "b"} {
				rb.AppendEvent(&event.Event{ID: fmt.Appendf(nil, "e%d", n), Source: []byte("/t"), Type: []byte(typ), Time: at, ReceivedAt: received,
					Data: fmt.Appendf(nil, `{"said":%q}`, at.Format(time.RFC3339))})
				n++
			}
		}
		raw := rb.Finish(nil, recordbatch.Snappy)
		recordbatch.SetBaseOffset(raw, from)
		require.NoError(t, s.Write(t.Context(), &event.Batch{Stream: sinktest.Stream, Incarnation: life, From: from, Next: int64(n), Raw: [][]byte{raw}}))
	}
	early, late := received.AddDate(2, 0, 0), received.AddDate(-2, 0, 0)
	edge := received.Add(24 * time.Hour)
	for range 3 {
		batch(early, late, edge, edge.Add(time.Second))
		batch(late.AddDate(0, 0, 1), early, received)
		batch(late, received)
		_, err := s.(*Sink).Drain(t.Context())
		require.NoError(t, err)
	}
	require.EqualValues(t, 3*3, w.tables.Status()[0].ClampedTimes)
	require.NoError(t, s.Close())
	w.requireIDs(numbers(n))
	for _, name := range []string{"a", "b"} {
		said, times := w.column(table(name), "said"), w.column(table(name), "_time")
		require.Len(t, times, 27)
		for i := range said {
			at, err := time.Parse(time.RFC3339, said[i].(string))
			require.NoError(t, err)
			if at.After(edge) {
				at = received
			}
			require.Equal(t, at.Format(time.RFC3339), times[i])
		}
	}
	require.Equal(t, 6, cat.n)
	for _, loc := range cat.to {
		added, days := w.lastSnapshot(loc)
		require.Equal(t, "4", days, "early, now; edge; late; the day after")
		require.Equal(t, days, added, "one new data file for each day and commit")
	}
}

// swaps keeps what was committed. Tables commit side by side.
type swaps struct {
	*iceberg.MemoryCatalog
	mu sync.Mutex
	n  int
	to []string
}

func (c *swaps) Swap(ctx context.Context, t lake.Ident, from, to string) error {
	err := c.MemoryCatalog.Swap(ctx, t, from, to)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.n++
		c.to = append(c.to, to)
	}
	return err
}

func (w *world) lastSnapshot(loc string) (files, days string) {
	w.t.Helper()
	f, err := w.fs.Open(strings.TrimPrefix(loc, "file://"))
	require.NoError(w.t, err)
	defer func() { _ = f.Close() }()
	var meta struct {
		Current   json.Number `json:"current-snapshot-id"`
		Snapshots []struct {
			ID      json.Number       `json:"snapshot-id"`
			Summary map[string]string `json:"summary"`
		} `json:"snapshots"`
	}
	require.NoError(w.t, json.NewDecoder(f).Decode(&meta))
	for _, s := range meta.Snapshots {
		if s.ID == meta.Current {
			return s.Summary["added-data-files"], s.Summary["changed-partition-count"]
		}
	}
	w.t.Fatal("no current snapshot")
	return "", ""
}
