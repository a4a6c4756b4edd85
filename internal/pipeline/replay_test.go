package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	rejections "naru/internal/rejection"
	"naru/internal/stream"
)

// What a step has refused goes to all sinks of its pipeline, by the steps of now, once;
// what is refused again is the same rejection with an attempt more.
func TestReplayOfStep(t *testing.T) {
	s := newStand(t, "a", "b")
	to := "to: [{into: a, every: 2ms}, {into: b, name: other, every: 2ms}]\n"
	s.file("p.yaml", "steps: [{sql: refuse 2}]\n"+to)
	s.start()
	appendEvents(t, s.log, "events", 1, 8)
	s.caughtUp(8, "pipeline/p/into", "pipeline/p/other")
	require.Equal(t, rejections.Result{Matched: 4, Refused: 4, ByReason: rejections.Tally{"step": 4}}, s.replay(rejections.Filter{}))
	require.Equal(t, []string{"open step", "open step", "open step", "open step"}, s.states())

	s.file("p.yaml", "steps: [{sql: refuse 8}, {sql: drop 6}, {sql: twice 4}, {sql: as n}]\n"+to)
	s.inForce("refuse 8")
	require.Equal(t, rejections.Result{Matched: 4, Replayed: 3, Refused: 1, ByReason: rejections.Tally{"step": 1}}, s.replay(rejections.Filter{}))
	require.Equal(t, rejections.Result{Matched: 4, Closed: 3, Refused: 1, ByReason: rejections.Tally{"step": 1}}, s.replay(rejections.Filter{}), "a second time")
	require.Equal(t, []string{"replayed", "replayed", "replayed", "open step"}, s.states())
	want := []string{"1.0", "3.0", "5.0", "7.0", "2n.0", "4n.0", "4n.1"}
	s.has(want, s.stores["a"].all, s.stores["b"].all)
	for _, r := range []string{"pipeline/p/into", "pipeline/p/other"} {
		s.counted(r, stream.Counts{Written: 6, Filtered: 1, Rejections: 1})
	}
	require.Equal(t, []string{"2 1 sql", "4 1 sql", "6 1 sql", "8 1 sql"}, s.rejections(), "no new one")

	// A sink that comes later gets them as the others have: where they were refused they
	// stay so, also by steps that would let them pass, and their replays follow.
	s.file("p.yaml", "steps: [{sql: refuse 8}, {sql: drop 6}, {sql: twice 4}, {sql: as n}, {sql: drop 100}]\n"+to)
	s.inForce("drop 100")
	require.Eventually(t, func() bool { return len(s.state().Versions) == 1 }, soon, time.Millisecond)
	s.stop() // rows that the others have left are gone
	s.start()
	s.ready()
	s.put("c", newStore(true))
	s.file("p.yaml", "steps: [{sql: refuse 8}, {sql: drop 6}, {sql: twice 4}, {sql: as n}, {sql: drop 100}]\nto: [{into: a, every: 2ms}, {into: b, name: other, every: 2ms}, {into: c, name: late, every: 2ms}]\n")
	s.caughtUp(8, "pipeline/p/late")
	s.counted("pipeline/p/late", stream.Counts{Written: 6, Filtered: 1, Rejections: 1})
	s.stop()
	s.start()
	appendEvents(t, s.log, "events", 9, 1)
	s.caughtUp(9, "pipeline/p/into", "pipeline/p/other", "pipeline/p/late")
	s.has(append(want, "9n.0"), s.stores["a"].all, s.stores["b"].all)
	require.Len(t, s.stores["c"].all(), 8)
}

// What a target has refused goes to that sink alone, and of the rows of its event only
// the one that was refused.
func TestReplayOfSink(t *testing.T) {
	for _, prepares := range []bool{false, true} {
		s := newStand(t, "a")
		hard := s.refusing("hard", prepares)
		hard.refuses = func(id string) bool { return slices.Contains([]string{"2.0", "4.0", "4.1", "6.1"}, id) }
		s.file("p.yaml", "steps: [{sql: twice 2}]\nto: [{hard: {}, every: 2ms}, {into: a, every: 2ms}]\n")
		s.start()
		appendEvents(t, s.log, "events", 1, 6)
		s.caughtUp(6, "pipeline/p/hard", "pipeline/p/into")
		s.counted("pipeline/p/hard", stream.Counts{Written: 3, Rejections: 3})
		require.Equal(t, []string{"2 hard", "4 hard", "4 hard", "6 hard"}, s.rejections())

		// It still does not want two of them: that is a rejection of the replay.
		hard.mu.Lock()
		hard.refuses = func(id string) bool { return id == "4.0" || id == "4.1" }
		hard.mu.Unlock()
		require.EqualValues(t, 4, s.replay(rejections.Filter{}).Replayed)
		s.has([]string{"1.0", "2.0", "2.1", "3.0", "5.0", "6.0", "6.1"}, hard.ids)
		require.Eventually(t, func() bool { return len(s.rejections()) == 6 }, soon, time.Millisecond)
		s.counted("pipeline/p/hard", stream.Counts{Written: 5, Rejections: 1})
		s.kill()
		s.start()
		s.ready()

		hard.mu.Lock()
		hard.refuses = nil
		hard.mu.Unlock()
		res := s.replay(rejections.Filter{})
		require.EqualValues(t, 2, res.Replayed)
		require.EqualValues(t, 4, res.Closed)
		s.has([]string{"1.0", "2.0", "2.1", "3.0", "4.0", "4.1", "5.0", "6.0", "6.1"}, hard.ids)
		s.counted("pipeline/p/hard", stream.Counts{Written: 6})
		require.Len(t, s.stores["a"].all(), 9, "the other sink gets nothing")
		require.Len(t, s.rejections(), 6)
		s.stop()
	}
}

// What the `where` of another sink cannot be computed on does not hold up the replay of
// what a target has refused.
func TestReplayOfSinkBesideABrokenWhere(t *testing.T) {
	s := newStand(t, "a")
	hard := s.refusing("hard", false)
	hard.refuses = func(id string) bool { return id == "2.0" }
	s.file("p.yaml", "steps: [{sql: drop 100}]\nto: [{hard: {}, every: 2ms}, {into: a, every: 2ms}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 3)
	s.counted("pipeline/p/hard", stream.Counts{Written: 2, Rejections: 1})
	s.caughtUp(3, "pipeline/p/into")
	s.file("p.yaml", "steps: [{sql: drop 100}]\nto: [{hard: {}, every: 2ms, where: of 2}, {into: a, every: 2ms, where: breaks 2}]\n")
	s.inForce("breaks 2")
	hard.mu.Lock()
	hard.refuses = nil
	hard.mu.Unlock()
	require.Equal(t, rejections.Result{Matched: 1, Replayed: 1}, s.replay(rejections.Filter{}))
	s.counted("pipeline/p/hard", stream.Counts{Written: 3})
	s.has([]string{"1.0", "2.0", "3.0"}, hard.ids)
}

// Why an event stays refused is an attempt of its rejection.
func TestReplaySaysWhyNot(t *testing.T) {
	s := newStand(t, "a")
	hard := s.refusing("hard", true)
	hard.refuses = func(id string) bool { return id == "1.0" }
	s.file("p.yaml", "steps: [{sql: refuse 2}]\nto: [{into: a, every: 2ms}, {hard: {}, every: 2ms}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 2)
	s.caughtUp(2, "pipeline/p/into", "pipeline/p/hard")
	require.ElementsMatch(t, []string{"2 1 sql", "1 hard"}, s.rejections())
	s.file("p.yaml", "steps: [{sql: refuse 2}]\nto: [{into: a, every: 2ms}]\n")
	require.Eventually(t, func() bool { return s.progress("pipeline/p/hard").Positions == nil }, soon, time.Millisecond)
	require.Equal(t, rejections.Tally{"no_pipeline": 1, "step": 1}, s.replay(rejections.Filter{}).ByReason)
	require.NoError(t, s.fs.Remove("/p/pipelines/p.yaml"))
	require.Eventually(t, func() bool { _, err := s.set.find("p"); return errors.Is(err, ErrNoPipeline) }, soon, time.Millisecond)
	require.Equal(t, rejections.Tally{"no_pipeline": 2}, s.replay(rejections.Filter{}).ByReason)
	require.Eventually(t, func() bool { return s.progress("replay/p").Positions == nil }, soon, time.Millisecond, "its readers go")
	require.Len(t, s.stores["a"].all(), 1)

	// Brought back, it may.
	s.file("p.yaml", "to: [{into: a, every: 2ms}]\n")
	require.Eventually(t, func() bool { _, err := s.set.find("p"); return err == nil }, soon, time.Millisecond)
	require.Equal(t, rejections.Result{Matched: 2, Replayed: 1, Refused: 1, ByReason: rejections.Tally{"no_pipeline": 1}}, s.replay(rejections.Filter{}))
	s.has([]string{"1.0", "2"}, s.stores["a"].all)
}

// A sink that comes after a replay chooses of its rows as of all others; one that was
// there without a `where` has them all.
func TestReplayToASinkThatComesLater(t *testing.T) {
	s := newStand(t, "a", "b", "c")
	s.file("p.yaml", "steps: [{sql: refuse 2}]\nto: [{into: a}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 6)
	s.caughtUp(6, "pipeline/p/into")
	s.file("p.yaml", "steps: [{sql: drop 100}]\nto: [{into: a}]\n")
	s.inForce("drop 100")
	require.EqualValues(t, 3, s.replay(rejections.Filter{}).Replayed)
	s.counted("pipeline/p/into", stream.Counts{Written: 6})
	s.file("p.yaml", "steps: [{sql: drop 100}]\nto: [{into: a}, {into: b, name: late, where: of 3}, {into: c, name: plain}]\n")
	s.counted("pipeline/p/late", stream.Counts{Written: 2, Filtered: 4})
	s.counted("pipeline/p/plain", stream.Counts{Written: 6})
	require.ElementsMatch(t, []string{"3.0", "6.0"}, s.stores["b"].ids)
	require.Len(t, s.stores["c"].ids, 6)
}

// A sink that lags gets a replay when it has passed the event: so none of its counts is
// ever below zero. Until all have it, retention keeps it.
func TestReplayWaitsForASinkThatLags(t *testing.T) {
	s := newStand(t, "a", "b")
	hang := make(chan struct{})
	goOn := sync.OnceFunc(func() { close(hang) })
	t.Cleanup(goOn) // before the stand stops, which waits for the sink
	s.stores["b"].fail = func(call string, _ int) error {
		if call == "open" {
			<-hang
		}
		return nil
	}
	to := "to: [{into: a, every: 2ms}, {into: b, name: other, every: 2ms}]\n"
	s.file("p.yaml", "steps: [{sql: refuse 2}]\n"+to)
	s.start()
	for i := range 10 {
		appendEvents(t, s.log, "events", 2*i+1, 2)
	}
	s.caughtUp(20, "pipeline/p/into")
	s.file("p.yaml", "steps: [{sql: as n}]\n"+to)
	s.inForce("as n")
	require.EqualValues(t, 10, s.replay(rejections.Filter{}).Replayed)
	s.counted("pipeline/p/into", stream.Counts{Written: 20})
	f := s.set.mu.running["p"].flow
	release := func() event.Positions {
		f.mu.Lock()
		defer f.mu.Unlock()
		require.NoError(t, f.releaseReplays(t.Context()))
		return s.progress("replay/p").Positions
	}
	at := release()
	require.NotNil(t, at, "retention knows")
	require.Empty(t, at)
	early, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	_, err := tap{f, "other", false}.next(early, event.Position{Partition: replayLane})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	low := int64(0)
	s.alive.setDie(func(reader string) bool { // asked at each commit of progress
		if reader == "pipeline/p/other" {
			low = min(low, s.progress(reader).Counts.Rejections)
		}
		return false
	})
	goOn()
	s.counted("pipeline/p/other", stream.Counts{Written: 20})
	s.stop()
	require.Zero(t, low)
	require.Equal(t, map[int32]int64{0: 10}, release()[at0(t, s.log)])
}

// at0 is the life of the log.
func at0(t *testing.T, log stream.Log) event.Incarnation {
	st, err := log.Stat(t.Context(), "events")
	require.NoError(t, err)
	return st.Incarnation
}

// The process ends at each step of a replay, and what is asked twice and at once is done
// once.
func TestReplayIsCutOff(t *testing.T) {
	for n := range 14 {
		s := newStand(t)
		s.put("a", newStore(true))
		hard := s.refusing("hard", n%2 == 0)
		hard.refuses = func(id string) bool { return id == "3.0" || id == "5.0" }
		s.file("p.yaml", "steps: [{sql: refuse 2}]\nto: [{hard: {}, every: 2ms}, {into: a, every: 2ms}]\n")
		s.start()
		appendEvents(t, s.log, "events", 1, 6)
		s.caughtUp(6, "pipeline/p/into", "pipeline/p/hard")
		require.Len(t, s.rejections(), 5)
		s.file("p.yaml", "steps: [{sql: drop 100}]\nto: [{hard: {}, every: 2ms}, {into: a, every: 2ms}]\n")
		s.inForce("drop 100")
		hard.mu.Lock()
		hard.refuses = func(id string) bool { return id == "5.0" }
		hard.mu.Unlock()
		var mu sync.Mutex
		calls := 0
		s.alive.setDie(func(string) bool {
			mu.Lock()
			defer mu.Unlock()
			calls++
			return calls > n
		})
		r := s.replaying()
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() { _, _ = r.Replay(context.Background(), rejections.Filter{}, false, nil) })
		}
		both.Wait()
		require.Eventually(t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return calls > n || s.progress("pipeline/p/hard").Counts.Rejections == 1
		}, soon, time.Millisecond)
		s.kill()
		s.start()
		s.ready()
		s.replay(rejections.Filter{})
		s.has([]string{"1.0", "2.0", "3.0", "4.0", "6.0"}, hard.ids)
		s.has([]string{"1.0", "2.0", "3.0", "4.0", "5.0", "6.0"}, s.stores["a"].all)
		s.counted("pipeline/p/hard", stream.Counts{Written: 5, Rejections: 1})
		s.counted("pipeline/p/into", stream.Counts{Written: 6})
		require.Eventually(t, func() bool { // it is refused anew, which takes its time
			return slices.Equal([]string{"open"}, slices.DeleteFunc(s.states(), func(state string) bool { return state == "replayed" }))
		}, soon, time.Millisecond, "cut at %d", n)
		s.stop()
	}
}

// Whatever the kills, failures, changes of the file, rewinds and replays: at the end each
// target has what the last steps make of all events, once.
func TestReplayAtRandom(t *testing.T) { atRandom(t, replayAtRandom) }

func replayAtRandom(t *testing.T, rng *rand.Rand) {
	s := newStand(t, "a")
	hard := s.refusing("hard", rng.IntN(2) == 0)
	var mu sync.Mutex
	draw := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(n)
	}
	hard.failing = func() bool { return draw(25) == 0 }
	hard.refuses = func(string) bool { return draw(6) == 0 }
	write := func() {
		s.file("p.yaml", fmt.Sprintf("steps: [{sql: refuse %d}, {sql: twice %d}]\nto: [{hard: {}, every: 2ms}, {into: a, every: 2ms}]\n", 2+draw(6), 3))
	}
	write()
	s.start()
	total := 0
	for range 40 {
		n := 1 + draw(30)
		appendEvents(t, s.log, "events", total+1, n)
		total += n
		switch draw(8) {
		case 0:
			s.kill()
			s.start()
		case 1:
			write()
		case 2, 3:
			r := s.replaying()
			var both sync.WaitGroup
			for range 1 + draw(2) {
				both.Go(func() { _, _ = r.Replay(context.Background(), rejections.Filter{}, false, nil) })
			}
			both.Wait()
		}
	}
	hard.mu.Lock()
	hard.failing, hard.refuses = nil, nil
	hard.mu.Unlock()
	s.file("p.yaml", "steps: [{sql: twice 3}, {sql: drop 100000}]\nto: [{hard: {}, every: 2ms}, {into: a, every: 2ms}]\n")
	s.inForce("drop 100000")
	s.caughtUp(int64(total), "pipeline/p/hard", "pipeline/p/into")
	var want []string
	for i := 1; i <= total; i++ {
		want = append(want, fmt.Sprintf("%d.0", i))
		if i%3 == 0 {
			want = append(want, fmt.Sprintf("%d.1", i))
		}
	}
	// A target refuses again what is under way to it: then that is replayed, too.
	s.ready()
	require.Eventually(t, func() bool {
		s.replay(rejections.Filter{})
		return s.progress("pipeline/p/hard").Counts == stream.Counts{Written: int64(total)} && s.progress("pipeline/p/into").Counts == stream.Counts{Written: int64(total)}
	}, soon, 5*time.Millisecond, "%v", lazily(func() string {
		return fmt.Sprintf("%d %+v\n%+v\n%+v", total, s.progress("pipeline/p/hard"), s.progress("pipeline/p/into"), s.set.Status())
	}))
	s.has(want, hard.ids, s.stores["a"].all)
	for _, state := range s.states() {
		require.Equal(t, "replayed", state)
	}
}

// What a target has refused of a replay stays refused when it is read again, behind a
// crash between the rejection and the watermark.
func TestReplayRefusedAndCutOff(t *testing.T) {
	s := newStand(t)
	hard := s.refusing("hard", false)
	hard.refuses = func(id string) bool { return id == "1" }
	s.file("p.yaml", "to: [{hard: {}, every: 2ms}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 1)
	s.caughtUp(1, "pipeline/p/hard")
	var judged atomic.Bool
	s.alive.setDie(func(reader string) bool {
		if reader == "pipeline/p" {
			judged.Store(true)
		}
		return judged.Load() && reader == "pipeline/p/hard"
	})
	require.EqualValues(t, 1, s.replay(rejections.Filter{}).Replayed)
	require.Eventually(t, s.alive.dead.Load, soon, time.Millisecond)
	s.kill()
	hard.mu.Lock()
	hard.refuses = nil
	hard.mu.Unlock()
	s.start()
	require.Eventually(t, func() bool {
		off, _ := s.progress("pipeline/p/hard").Positions.Get(at0(t, s.log), replayLane)
		return off == 1
	}, soon, time.Millisecond)
	require.Empty(t, hard.ids())
	require.Len(t, s.rejections(), 2)
	s.counted("pipeline/p/hard", stream.Counts{Rejections: 1})
	require.EqualValues(t, 1, s.replay(rejections.Filter{}).Replayed)
	s.has([]string{"1"}, hard.ids)
	s.counted("pipeline/p/hard", stream.Counts{Written: 1})
}

// Of an event that is read again a target may refuse another row: it is one rejection in
// the counts, and so is its replay.
func TestReplayOfRowsRefusedApart(t *testing.T) {
	s := newStand(t)
	hard := s.refusing("hard", false)
	hard.refuses = func(id string) bool { return id == "2.0" }
	s.file("p.yaml", "steps: [{sql: twice 2}]\nto: [{hard: {}, every: 2ms}]\n")
	var judged atomic.Bool
	s.start()
	s.alive.setDie(func(reader string) bool {
		if reader == "pipeline/p" {
			judged.Store(true)
		}
		return judged.Load() && reader == "pipeline/p/hard"
	})
	appendEvents(t, s.log, "events", 2, 1)
	require.Eventually(t, s.alive.dead.Load, soon, time.Millisecond)
	s.kill()
	hard.mu.Lock()
	hard.rows = nil // the target has not kept the other
	hard.refuses = func(id string) bool { return id == "2.1" }
	hard.mu.Unlock()
	s.start()
	s.caughtUp(1, "pipeline/p/hard")
	require.Len(t, s.rejections(), 2)
	s.counted("pipeline/p/hard", stream.Counts{Rejections: 1})
	hard.mu.Lock()
	hard.refuses = nil
	hard.mu.Unlock()
	require.EqualValues(t, 2, s.replay(rejections.Filter{}).Replayed)
	s.has([]string{"2.0", "2.1"}, hard.ids)
	s.counted("pipeline/p/hard", stream.Counts{Written: 1})
	appendEvents(t, s.log, "events", 3, 1)
	s.caughtUp(2, "pipeline/p/hard")
	s.counted("pipeline/p/hard", stream.Counts{Written: 2})
}
