package pipeline

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	rejections "naru/internal/rejection"
	"naru/internal/stream"
)

// What steps refuse in the rewind of one sink is of that sink alone: the others have had
// the event.
func TestReplayOfWhatOneRewindRefused(t *testing.T) {
	s := newStand(t)
	kept := s.keeping()
	s.put("a", newStore(false))
	steps := func(text string) {
		s.file("p.yaml", "steps: ["+text+"]\nto: [{keep: {}, every: 2ms}, {into: a, every: 2ms}]\n")
		s.inForce(text)
	}
	s.start()
	steps("{sql: drop 100}")
	appendEvents(t, s.log, "events", 1, 4)
	s.caughtUp(4, "pipeline/p/into", "pipeline/p/keep")
	steps("{sql: refuse 2}")
	_, err := s.rewind(earliest, "keep")
	require.NoError(t, err)
	s.counted("pipeline/p/keep", stream.Counts{Written: 2, Rejections: 2})
	require.Eventually(t, func() bool { return s.again() == nil }, soon, time.Millisecond)
	steps("{sql: drop 101}")
	require.EqualValues(t, 2, s.replay(rejections.Filter{}).Replayed)
	s.has([]string{"1.0", "2.0", "3.0", "4.0"}, kept.ids)
	require.Eventually(t, func() bool {
		off, _ := s.progress("pipeline/p/into").Positions.Get(at0(t, s.log), replayLane)
		return off == 2
	}, soon, time.Millisecond)
	s.has([]string{"1.0", "2.0", "3.0", "4.0"}, s.stores["a"].all)
	s.counted("pipeline/p/into", stream.Counts{Written: 4})
	s.counted("pipeline/p/keep", stream.Counts{Written: 4})
}

// Nor is what they refuse in a backfill of those that have had the event: a table gets its
// replay when it was replaced by what is filled, and not when that was given up.
func TestReplayOfWhatABackfillRefused(t *testing.T) {
	s := newStand(t)
	h := s.shelved()
	s.put("a", newStore(false))
	steps := func(text string) {
		s.file("p.yaml", "steps: ["+text+"]\nto: [{tab: t, every: 2ms}, {into: a, every: 2ms}]\n")
		s.inForce(text)
	}
	s.start()
	steps("{sql: drop 100}")
	for i := range 8 {
		appendEvents(t, s.log, "events", 10*i+1, 10)
	}
	s.caughtUp(80, "pipeline/p/tab", "pipeline/p/into")
	steps("{sql: refuse 5}")
	_, err := s.backfill(Backfill{Rate: 1, Sink: "tab"})
	require.NoError(t, err)
	next := 80
	require.Eventually(t, func() bool { // verdicts of the backfill go with those of others
		next++
		appendEvents(t, s.log, "events", next, 1)
		s.caughtUp(int64(next), "pipeline/p/into")
		return slices.Contains(s.rejections(), "10 1 sql")
	}, soon, 5*time.Millisecond)
	steps("{sql: drop 101}")
	require.Empty(t, s.replay(rejections.Filter{}).ByReason)
	passed := func(reader string) {
		n := int64(len(s.rejections()))
		require.Eventually(t, func() bool {
			off, _ := s.progress(reader).Positions.Get(at0(t, s.log), replayLane)
			return off == n
		}, soon, time.Millisecond)
	}
	passed("pipeline/p/into")
	require.NoError(t, s.set.CancelBackfill(t.Context(), "p", ""))
	s.over()
	passed("pipeline/p/tab")
	var want []string
	for i := 1; i <= next; i++ {
		want = append(want, fmt.Sprintf("%d.0", i))
	}
	s.has(want, s.stores["a"].all, func() []string { return h.ids("t") })
	s.counted("pipeline/p/tab", stream.Counts{Written: int64(next)})
	s.counted("pipeline/p/into", stream.Counts{Written: int64(next)})

	// Of a table beside there is none to send it to.
	had := len(s.rejections())
	steps("{sql: refuse 7}")
	_, err = s.backfill(Backfill{Into: "beside"})
	require.NoError(t, err)
	s.over()
	require.Greater(t, len(s.rejections()), had)
	steps("{sql: drop 102}")
	res := s.replay(rejections.Filter{})
	require.Zero(t, res.Replayed)
	require.EqualValues(t, len(s.rejections())-had, res.ByReason["recomputed"])
}

// A sink that was rewound behind where it began gets replays of what was refused there.
func TestReplayBehindTheBeginning(t *testing.T) {
	s := newStand(t)
	kept := s.keeping()
	appendEvents(t, s.log, "events", 1, 4)
	steps := func(text string) {
		s.file("p.yaml", "from: {stream: events, start: latest}\nsteps: ["+text+"]\nto: [{keep: {}, every: 2ms}]\n")
		s.inForce(text)
	}
	s.file("p.yaml", "from: {stream: events, start: latest}\nsteps: [{sql: refuse 2}]\nto: [{keep: {}, every: 2ms}]\n")
	s.start()
	s.caughtUp(4, "pipeline/p/keep")
	appendEvents(t, s.log, "events", 5, 1)
	s.caughtUp(5, "pipeline/p/keep")
	_, err := s.rewind(earliest, "")
	require.NoError(t, err)
	s.counted("pipeline/p/keep", stream.Counts{Written: 3, Rejections: 2})
	steps("{sql: drop 101}")
	require.EqualValues(t, 2, s.replay(rejections.Filter{}).Replayed)
	s.counted("pipeline/p/keep", stream.Counts{Written: 5})
	s.has([]string{"1.0", "2.0", "3.0", "4.0", "5.0"}, kept.ids)
}
