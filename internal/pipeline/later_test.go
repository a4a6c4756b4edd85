package pipeline

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	rejections "naru/internal/rejection"
	"naru/internal/stream"
)

// A sink that comes after a rewind has what became of events in it, whatever restarts
// there are before and meanwhile.
func TestSinkThatComesAfterARewind(t *testing.T) {
	for i := range 4 {
		steps, meanwhile := "{sql: refuse 2}", i >= 2
		if i%2 == 1 {
			steps = "{sql: drop 100}"
		}
		s := newStand(t)
		kept := s.keeping()
		s.put("a", newStore(true))
		var down atomic.Bool
		down.Store(true)
		s.stores["a"].fail = func(string, int) error {
			if down.Load() {
				return errors.New("it is down")
			}
			return nil
		}
		s.file("p.yaml", "steps: [{sql: refuse 2}]\nto: [{keep: {}, every: 2ms}]\n")
		s.start()
		appendEvents(t, s.log, "events", 1, 4)
		s.caughtUp(4, "pipeline/p/keep")
		s.file("p.yaml", "steps: ["+steps+"]\nto: [{keep: {}, every: 2ms}]\n")
		s.inForce(steps)
		_, err := s.rewind(earliest, "")
		require.NoError(t, err)
		s.caughtUp(4, "pipeline/p/keep")
		require.Eventually(t, func() bool { return s.again() == nil }, soon, time.Millisecond)
		restart := func() {
			s.stop()
			s.start()
			s.ready()
		}
		restart() // now nothing of the rewind is in memory,
		restart() // nor in what is read at a start
		s.file("p.yaml", "steps: ["+steps+"]\nto: [{keep: {}, every: 2ms}, {into: a, every: 2ms}]\n")
		require.Eventually(t, func() bool { return s.progress("pipeline/p/into").Positions != nil }, soon, time.Millisecond)
		if meanwhile {
			restart()
			restart()
		}
		down.Store(false)
		s.counted("pipeline/p/into", s.progress("pipeline/p/keep").Counts)
		s.has(kept.ids(), s.stores["a"].all)
		s.stop()
	}
}

// A sink that is taken out and brought back gets a replay once, when its event was
// replayed, refused anew in a rewind, and replayed again.
func TestReplayedTwiceAndASinkBroughtBack(t *testing.T) {
	s := newStand(t)
	s.put("a", newStore(false))
	s.put("b", newStore(false))
	steps := func(text string) {
		s.file("p.yaml", "steps: ["+text+"]\nto: [{into: a, every: 2ms}]\n")
		s.inForce(text)
	}
	s.start()
	steps("{sql: refuse 2}")
	appendEvents(t, s.log, "events", 1, 2)
	s.caughtUp(2, "pipeline/p/into")
	steps("{sql: drop 100}")
	require.EqualValues(t, 1, s.replay(rejections.Filter{}).Replayed)
	s.counted("pipeline/p/into", stream.Counts{Written: 2})
	steps("{sql: refuse 2}, {sql: drop 100}")
	_, err := s.rewind(earliest, "")
	require.NoError(t, err)
	s.counted("pipeline/p/into", stream.Counts{Written: 1, Rejections: 1})
	steps("{sql: drop 101}")
	require.EqualValues(t, 1, s.replay(rejections.Filter{}).Replayed)
	s.counted("pipeline/p/into", stream.Counts{Written: 2})
	require.Eventually(t, func() bool { return s.again() == nil }, soon, time.Millisecond)

	s.stop()
	require.NoError(t, s.log.(stream.Forgetter).Forget(t.Context(), "pipeline/p/into"))
	s.file("p.yaml", "steps: [{sql: drop 101}]\nto: [{into: b, every: 2ms}]\n")
	s.start()
	s.counted("pipeline/p/into", stream.Counts{Written: 2})
	require.Eventually(t, func() bool {
		off, _ := s.progress("pipeline/p/into").Positions.Get(at0(t, s.log), replayLane)
		return off == 2
	}, soon, time.Millisecond)
	s.has([]string{"1.0", "2.0"}, s.stores["b"].all)
	s.counted("pipeline/p/into", stream.Counts{Written: 2})
}
