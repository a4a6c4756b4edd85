package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"naru/internal/pipeline/definition"
	"naru/internal/stream"
)

// over waits until no backfill is left.
func (s *stand) over() {
	s.t.Helper()
	require.EventuallyWithT(s.t, func(c *assert.CollectT) {
		if all, err := s.set.Backfills(context.Background(), "p"); err != nil || len(all) > 0 {
			c.Errorf("backfills: %+v, %v; sinks: %+v; state: %+v", all, err, s.set.Status(), s.state())
		}
	}, soon, time.Millisecond)
}

// ready waits until the pipeline is at work.
func (s *stand) ready() {
	s.t.Helper()
	require.Eventually(s.t, func() bool { _, err := s.set.find("p"); return err == nil }, soon, time.Millisecond)
}

func (s *stand) backfill(ask Backfill) (*Rereading, error) {
	s.ready()
	return s.set.Backfill(context.Background(), "p", ask)
}

// marked are the ids that steps "drop D, refuse R, as M" give for events first to last.
func marked(first, last, drop, refuse int, mark string) (out []string) {
	for i := first; i <= last; i++ {
		if i%drop != 0 && i%refuse != 0 {
			out = append(out, fmt.Sprintf("%d%s.0", i, mark))
		}
	}
	return out
}

func TestBackfillReplaces(t *testing.T) {
	s := newStand(t)
	h := s.shelved()
	s.file("p.yaml", "steps: [{sql: drop 3}, {sql: refuse 5}, {sql: as a}]\nto: [{tab: t, every: 2ms}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 20)
	s.caughtUp(20, "pipeline/p/tab")
	middle := time.Now().Add(2 * time.Millisecond)
	pass(middle.Add(2 * time.Millisecond))
	appendEvents(t, s.log, "events", 21, 20)
	s.caughtUp(40, "pipeline/p/tab")
	require.Equal(t, marked(1, 40, 3, 5, "a"), h.ids("t"))
	require.Len(t, s.rejections(), 8)

	// The newest steps over all: the old content, or the new one, and nothing between.
	s.file("p.yaml", "steps: [{sql: drop 4}, {sql: refuse 10}, {sql: as b}]\nto: [{tab: t, every: 2ms}]\n")
	s.inForce("as b")
	old, fresh := h.ids("t"), marked(1, 40, 4, 10, "b")
	polled, stopPolling := make(chan error, 1), make(chan struct{})
	go func() {
		for {
			if got := h.ids("t"); !slices.Equal(got, old) && !slices.Equal(got, fresh) {
				polled <- fmt.Errorf("a reader sees %v", got)
				return
			}
			select {
			case <-stopPolling:
				polled <- nil
				return
			default:
			}
		}
	}()
	begun, err := s.backfill(Backfill{Rate: 400})
	require.NoError(t, err)
	require.Equal(t, []RereadingOne{{Sink: "tab", Kind: "tab", Events: 40, Backfill: true}}, begun.Sinks)
	s.over()
	close(stopPolling)
	require.NoError(t, <-polled)
	require.Equal(t, fresh, h.ids("t"))
	require.Equal(t, []string{"t"}, h.names())
	require.Len(t, s.rejections(), 8, "nothing is on record twice")
	require.Equal(t, stream.Counts{Written: 28, Filtered: 8 + 0, Rejections: 4}, s.progress("pipeline/p/tab").Counts)
	require.Nil(t, s.progress("backfill/p/tab").Positions, "its reader is gone")

	// A rewind to a time is a backfill: rows of events before it stay as they are.
	s.file("p.yaml", "steps: [{sql: drop 4}, {sql: refuse 10}, {sql: as c}]\nto: [{tab: t, every: 2ms}]\n")
	s.inForce("as c")
	_, err = s.rewind(definition.Start{At: middle}, "")
	require.NoError(t, err)
	s.over()
	appendEvents(t, s.log, "events", 41, 5)
	s.caughtUp(45, "pipeline/p/tab")
	require.Equal(t, append(marked(1, 20, 4, 10, "b"), marked(21, 45, 4, 10, "c")...), h.ids("t"))
	require.EqualValues(t, 20+5, s.progress("pipeline/p/tab").Counts.Filtered, "what lies before counts as filtered")
}

func TestBackfillInto(t *testing.T) {
	s := newStand(t)
	h := s.shelved()
	s.file("p.yaml", "steps: [{sql: drop 3}, {sql: refuse 5}, {sql: as a}]\nto: [{tab: t, every: 2ms}]\n")
	s.start()
	var times []time.Time
	for i := range 3 {
		times = append(times, time.Now())
		pass(times[i].Add(2 * time.Millisecond))
		appendEvents(t, s.log, "events", 10*i+1, 10)
		pass(times[i].Add(6 * time.Millisecond))
	}
	s.caughtUp(30, "pipeline/p/tab")
	to := times[2].UTC().Format(time.RFC3339Nano)
	begun, err := s.backfill(Backfill{From: definition.Start{At: times[1]}, To: to, Into: "other"})
	require.NoError(t, err)
	require.EqualValues(t, 10, begun.Sinks[0].Events)
	s.over()
	require.Equal(t, marked(11, 20, 3, 5, "a"), h.ids("other"))
	require.Equal(t, marked(1, 30, 3, 5, "a"), h.ids("t"))
	require.Len(t, s.rejections(), 6)
	_, err = s.backfill(Backfill{Into: "other"})
	require.ErrorContains(t, err, "there is a table other already")
}

func TestBackfillSaysWhyNot(t *testing.T) {
	s := newStand(t, "a")
	h := s.shelved()
	s.file("p.yaml", "to: [{tab: t, every: 2ms}, {into: a, every: 2ms}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 1000)
	s.caughtUp(1000, "pipeline/p/tab", "pipeline/p/into")
	for _, c := range []struct {
		ask  Backfill
		want string
	}{
		{Backfill{Sink: "into"}, "only tables are filled anew"},
		{Backfill{Sink: "none"}, `no sink "none"`},
		{Backfill{To: "2026-01-01"}, "has to reach as far as that"},
		{Backfill{To: "later", Into: "x"}, "neither now nor a time"},
		{Backfill{Rate: -1}, "must not be negative"},
		{Backfill{From: definition.Start{Latest: true}}, "begins before latest"},
		{Backfill{From: definition.Start{At: time.Now().Add(time.Hour)}}, "nothing to read again"},
		{Backfill{From: definition.Start{At: time.Now()}, To: "2020-01-01", Into: "x"}, "the range is empty"},
	} {
		_, err := s.backfill(c.ask)
		require.ErrorIs(t, err, ErrAsk)
		require.ErrorContains(t, err, c.want)
	}
	require.ErrorIs(t, s.set.CancelBackfill(t.Context(), "p", ""), ErrAsk, "there is none")
	// A slow one can be given up, and another may not begin before that.
	_, err := s.backfill(Backfill{Rate: 1})
	require.NoError(t, err)
	_, err = s.backfill(Backfill{})
	require.ErrorContains(t, err, "is going on")
	_, err = s.rewind(earliest, "")
	require.ErrorContains(t, err, "is going on")
	all, err := s.set.Backfills(t.Context(), "p")
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.EqualValues(t, 1000, all[0].Of)
	require.EqualValues(t, 0, all[0].Done)
	require.NoError(t, s.set.CancelBackfill(t.Context(), "p", "tab"))
	s.over()
	require.Equal(t, []string{"t"}, h.names())
	require.Nil(t, s.progress("backfill/p/tab").Positions)
	require.Len(t, h.ids("t"), 1000)

	// So is one whose pipeline leaves the configuration.
	_, err = s.backfill(Backfill{Rate: 1})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(h.names()) == 2 }, soon, time.Millisecond)
	require.NoError(t, s.fs.Remove("/p/pipelines/p.yaml"))
	require.Eventually(t, func() bool { return len(h.names()) == 1 && s.progress("backfill/p/tab").Positions == nil }, soon, time.Millisecond)
}

// A backfill takes the place of the sink's target when it has caught up, not before, and
// the watermark goes with it.
func TestBackfillSwapsInOrder(t *testing.T) {
	s := newStand(t)
	h := s.shelved()
	s.file("p.yaml", "steps: [{sql: refuse 5}, {sql: as a}]\nto: [{tab: t, every: 2ms}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 50)
	s.caughtUp(50, "pipeline/p/tab")
	s.file("p.yaml", "steps: [{sql: refuse 7}, {sql: as b}]\nto: [{tab: t, every: 2ms}]\n")
	s.inForce("as b")
	behindAt := make(chan int64, 100)
	h.mu.Lock()
	h.failing = func() error { // at each step: what the table would have
		if x := h.targets["t__backfill"]; x != nil && len(h.log) > 0 && strings.HasPrefix(h.log[len(h.log)-1], "make") {
			x.mu.Lock()
			var off int64
			for _, parts := range x.positions {
				off = parts[0]
			}
			x.mu.Unlock()
			behindAt <- off
		}
		return nil
	}
	h.mu.Unlock()
	_, err := s.backfill(Backfill{Rate: 2000})
	require.NoError(t, err)
	total := 50
	for range 30 {
		appendEvents(t, s.log, "events", total+1, 7)
		total += 7
		require.Eventually(t, func() bool { return s.progress("pipeline/p/tab").Counts.Total() >= int64(total-20) }, soon, time.Millisecond)
	}
	s.over()
	s.caughtUp(int64(total), "pipeline/p/tab")
	var want []string
	refused := 0
	for i := 1; i <= total; i++ {
		if i%7 == 0 {
			refused++
			continue
		}
		want = append(want, fmt.Sprintf("%db.0", i))
	}
	require.Equal(t, want, h.ids("t"))
	require.Equal(t, stream.Counts{Written: int64(len(want)), Rejections: int64(refused)}, s.progress("pipeline/p/tab").Counts, "the watermark is the backfill's")
	require.Contains(t, []int{3, 4}, len(h.log), "%v", h.log) // drop of leftovers, make, swap, drop
	require.Equal(t, "swap t", h.log[len(h.log)-2])
	require.Equal(t, "drop of t", h.log[len(h.log)-1])
}

// What a backfill has read and not committed does not count: as long as its target takes
// nothing the sink's stays as it is.
func TestBackfillWaitsForItsCommits(t *testing.T) {
	s := newStand(t)
	h := s.shelved()
	s.file("p.yaml", "steps: [{sql: as a}]\nto: [{tab: t, every: 2ms}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 20)
	s.caughtUp(20, "pipeline/p/tab")
	old := h.ids("t")
	s.file("p.yaml", "steps: [{sql: as b}]\nto: [{tab: t, every: 2ms}]\n")
	s.inForce("as b")
	var refused atomic.Int64
	var takes atomic.Bool
	h.refuses = func() bool {
		if takes.Load() {
			return false
		}
		refused.Add(1)
		return true
	}
	_, err := s.backfill(Backfill{})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return refused.Load() > 20 || !slices.Equal(h.ids("t"), old) }, soon, time.Millisecond)
	require.Equal(t, old, h.ids("t"))
	takes.Store(true)
	s.over()
	require.Equal(t, marked(1, 20, 100, 100, "b"), h.ids("t"))
}

// The process ends at each step: the next one goes on where it was.
func TestBackfillIsCutOff(t *testing.T) {
	for n := range 40 {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			s := newStand(t)
			h := s.shelved()
			s.file("p.yaml", "steps: [{sql: drop 3}, {sql: refuse 5}, {sql: as a}]\nto: [{tab: t, every: 2ms}]\n")
			s.start()
			appendEvents(t, s.log, "events", 1, 20)
			s.caughtUp(20, "pipeline/p/tab")
			s.file("p.yaml", "steps: [{sql: drop 3}, {sql: refuse 4}, {sql: as b}]\nto: [{tab: t, every: 2ms}]\n")
			s.inForce("as b")
			var mu sync.Mutex
			calls := 0
			alive := s.alive
			die := func() bool {
				mu.Lock()
				defer mu.Unlock()
				calls++
				return calls > n
			}
			alive.setDie(func(string) bool { return die() })
			h.mu.Lock()
			h.failing = func() error {
				if die() {
					alive.dead.Store(true)
					return errDead
				}
				return nil
			}
			h.mu.Unlock()
			_, err := s.backfill(Backfill{})
			if err == nil {
				appendEvents(t, s.log, "events", 21, 10)
				require.Eventually(t, func() bool {
					all, err := s.set.Backfills(context.Background(), "p")
					return alive.dead.Load() || err == nil && len(all) == 0
				}, soon, time.Millisecond)
			} else {
				appendEvents(t, s.log, "events", 21, 10)
			}
			s.kill()
			h.mu.Lock()
			h.failing = nil
			h.mu.Unlock()
			s.start()
			s.over()
			s.caughtUp(30, "pipeline/p/tab")
			if _, known := h.rowsOf("t", "a"); known && err != nil {
				// It had not begun: the request is made again.
				require.Eventually(t, func() bool { _, err := s.backfill(Backfill{}); return err == nil }, soon, time.Millisecond)
				s.over()
			}
			s.caughtUp(30, "pipeline/p/tab")
			require.Equal(t, marked(1, 30, 3, 4, "b"), onlyOnce(t, h.ids("t")))
			require.Equal(t, []string{"t"}, h.names())
			seen := map[string]bool{}
			for _, id := range s.rejections() {
				require.False(t, seen[id], "%s twice", id)
				seen[id] = true
			}
		})
	}
}

func onlyOnce(t *testing.T, ids []string) []string {
	seen := map[string]bool{}
	for _, id := range ids {
		require.False(t, seen[id], "%s twice", id)
		seen[id] = true
	}
	return ids
}

// Whatever the kills, changes of the file, rewinds and backfills: the table has what a
// run of the last steps from the beginning gives, and readers see no hole.
func TestBackfillAtRandom(t *testing.T) {
	atRandom(t, backfillAtRandom)
}

func backfillAtRandom(t *testing.T, rng *rand.Rand) {
	s := newStand(t, "a")
	h := s.shelved()
	var mu sync.Mutex
	draw := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(n)
	}
	h.failing = func() error {
		if draw(8) == 0 {
			return errors.New("by chance")
		}
		return nil
	}
	var drop, refuse, version int
	write := func() {
		version++
		drop, refuse = 3+draw(4), 5+draw(5)
		s.file("p.yaml", fmt.Sprintf("steps: [{sql: drop %d}, {sql: refuse %d}, {sql: as v%d-}]\nto: [{tab: t, every: 2ms}, {into: a, every: 2ms}]\n", drop, refuse, version))
	}
	write()
	s.start()
	total := 0
	for range 40 {
		n := 1 + draw(30)
		appendEvents(t, s.log, "events", total, n)
		total += n
		switch draw(10) {
		case 0:
			s.kill()
			s.start()
		case 1:
			write()
		case 2, 3:
			var err error
			switch draw(3) {
			case 0:
				_, err = s.rewind(earliest, []string{"", "tab"}[draw(2)])
			case 1:
				_, err = s.backfill(Backfill{Rate: int64(draw(2) * 5000)})
			case 2:
				s.ready()
				err = s.set.CancelBackfill(context.Background(), "p", "")
			}
			if err != nil {
				t.Logf("asked: %v", err)
			}
		}
		for _, ids := range [][]string{h.ids("t")} {
			numbers := map[string]bool{}
			for _, id := range ids {
				number, _, _ := strings.Cut(id, "v")
				require.False(t, numbers[number], "event %s twice in %v", number, ids)
				numbers[number] = true
			}
		}
	}
	h.mu.Lock()
	h.failing = nil
	h.mu.Unlock()
	s.inForce(fmt.Sprintf("as v%d-", version))
	s.over()
	s.caughtUp(int64(total), "pipeline/p/tab", "pipeline/p/into")
	require.Eventually(t, func() bool { _, err := s.backfill(Backfill{}); return err == nil }, soon, time.Millisecond)
	s.over()
	s.caughtUp(int64(total), "pipeline/p/tab")
	require.Equal(t, marked(0, total-1, drop, refuse, fmt.Sprintf("v%d-", version)), h.ids("t"))
	require.Equal(t, []string{"t"}, h.names())
	one := map[string]bool{}
	for _, id := range s.rejections() {
		require.False(t, one[id], "%s twice", id)
		one[id] = true
	}
	require.EqualValues(t, total, s.progress("pipeline/p/tab").Counts.Total())
	require.EqualValues(t, len(h.ids("t")), s.progress("pipeline/p/tab").Counts.Written)
}
