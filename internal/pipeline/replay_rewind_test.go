package pipeline

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/pipeline/definition"
	rejections "naru/internal/rejection"
	"naru/internal/stream"
)

// A rewind computes again what was refused: then its replay would be a second time.
func TestReplayAndRewind(t *testing.T) {
	s := newStand(t)
	kept := s.keeping()
	s.put("a", newStore(false))
	steps := func(text string) {
		s.file("p.yaml", "steps: ["+text+"]\nto: [{keep: {}, every: 2ms}, {into: a, every: 2ms}]\n")
		s.inForce(text)
	}
	s.start()
	steps("{sql: refuse 2}")
	appendEvents(t, s.log, "events", 1, 6)
	s.caughtUp(6, "pipeline/p/into", "pipeline/p/keep")
	first := func(n int64) rejections.Filter {
		st, err := s.log.Stat(t.Context(), event.RejectedStream)
		require.NoError(t, err)
		return rejections.Filter{ID: event.Position{Incarnation: st.Incarnation, Offset: n}.String()}
	}
	steps("{sql: drop 100}")
	require.EqualValues(t, 1, s.replay(first(0)).Replayed)
	s.has([]string{"1.0", "3.0", "5.0", "2.0"}, kept.ids, s.stores["a"].all)

	// 2, which was replayed, is refused again: a rejection of its own. Those of 4 and 6
	// are on record.
	steps("{sql: refuse 2}, {sql: drop 100}")
	_, err := s.rewind(earliest, "")
	require.NoError(t, err)
	s.caughtUp(6, "pipeline/p/into", "pipeline/p/keep")
	require.Equal(t, []string{"1.0", "3.0", "5.0"}, kept.ids())
	require.Eventually(t, func() bool { return s.again() == nil }, soon, time.Millisecond)
	require.Equal(t, []string{"replayed", "open", "open", "open"}, s.states())
	steps("{sql: as n}")
	_, err = s.rewind(earliest, "keep")
	require.NoError(t, err)
	s.caughtUp(6, "pipeline/p/keep")
	require.Equal(t, []string{"1n.0", "2n.0", "3n.0", "4n.0", "5n.0", "6n.0"}, kept.ids())
	require.Eventually(t, func() bool { return s.again() == nil }, soon, time.Millisecond)
	res := s.replay(rejections.Filter{})
	require.Zero(t, res.Replayed, "keep has them all")
	require.Equal(t, rejections.Tally{"recomputed": 3}, res.ByReason)
	s.counted("pipeline/p/keep", stream.Counts{Written: 6})
	require.Len(t, kept.ids(), 6)
}

// What lies before the place that a rewind goes back to stays as it is, replays too.
func TestReplayBeforeRewind(t *testing.T) {
	s := newStand(t)
	s.put("a", newStore(false))
	s.file("p.yaml", "steps: [{sql: refuse 2}]\nto: [{into: a, every: 2ms}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 2)
	s.caughtUp(2, "pipeline/p/into")
	s.file("p.yaml", "steps: [{sql: drop 100}]\nto: [{into: a, every: 2ms}]\n")
	s.inForce("drop 100")
	require.EqualValues(t, 1, s.replay(rejections.Filter{}).Replayed)
	s.has([]string{"1.0", "2.0"}, s.stores["a"].all)
	middle := time.Now().Add(2 * time.Millisecond)
	pass(middle.Add(2 * time.Millisecond))
	appendEvents(t, s.log, "events", 3, 1)
	s.caughtUp(3, "pipeline/p/into")
	s.counted("pipeline/p/into", stream.Counts{Written: 3})
	_, err := s.rewind(definition.Start{At: middle}, "into")
	require.NoError(t, err)
	appendEvents(t, s.log, "events", 4, 1)
	s.caughtUp(4, "pipeline/p/into")
	s.stop() // with all that it holds
	require.Equal(t, []string{"1.0", "2.0", "3.0", "3.0", "4.0"}, s.stores["a"].all())
	s.counted("pipeline/p/into", stream.Counts{Written: 2, Filtered: 2})
}

// A table that is filled anew keeps the replays of what is not computed again, those
// among them that come meanwhile.
func TestReplayAndBackfill(t *testing.T) {
	s := newStand(t)
	h := s.shelved()
	s.file("p.yaml", "steps: [{sql: refuse 5}]\nto: [{tab: t, every: 2ms}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 10)
	s.caughtUp(10, "pipeline/p/tab")
	middle := time.Now().Add(2 * time.Millisecond)
	pass(middle.Add(2 * time.Millisecond))
	appendEvents(t, s.log, "events", 11, 10)
	s.caughtUp(20, "pipeline/p/tab")
	s.file("p.yaml", "steps: [{sql: drop 100}]\nto: [{tab: t, every: 2ms}]\n")
	s.inForce("drop 100")
	first, err := s.log.Stat(t.Context(), event.RejectedStream)
	require.NoError(t, err)
	require.EqualValues(t, 1, s.replay(rejections.Filter{ID: event.Position{Incarnation: first.Incarnation}.String()}).Replayed)
	s.counted("pipeline/p/tab", stream.Counts{Written: 17, Rejections: 3})

	_, err = s.backfill(Backfill{From: definition.Start{At: middle}, Rate: 20})
	require.NoError(t, err)
	res := s.replay(rejections.Filter{})
	require.EqualValues(t, 1, res.Replayed)
	require.Equal(t, rejections.Tally{"recomputed": 2}, res.ByReason)
	s.over()
	var want []string
	for i := 1; i <= 20; i++ {
		want = append(want, fmt.Sprintf("%d.0", i))
	}
	s.has(want, func() []string { return h.ids("t") })
	s.counted("pipeline/p/tab", stream.Counts{Written: 11, Filtered: 9})
	appendEvents(t, s.log, "events", 21, 1)
	s.caughtUp(21, "pipeline/p/tab")
	s.has(append(want, "21.0"), func() []string { return h.ids("t") })
}

// What is given up gives replays free.
func TestReplayAndBackfillGivenUp(t *testing.T) {
	s := newStand(t)
	h := s.shelved()
	s.file("p.yaml", "steps: [{sql: refuse 5}]\nto: [{tab: t, every: 2ms}]\n")
	s.start()
	for i := range 4 {
		appendEvents(t, s.log, "events", 10*i+1, 10)
	}
	appendEvents(t, s.log, "events", 1021, 60) // the backfill is to be under way still at its end
	s.caughtUp(100, "pipeline/p/tab")
	s.file("p.yaml", "steps: [{sql: drop 100}]\nto: [{tab: t, every: 2ms}]\n")
	s.inForce("drop 100")
	_, err := s.backfill(Backfill{Rate: 1})
	require.NoError(t, err)
	appendEvents(t, s.log, "events", 41, 10)
	s.file("p.yaml", "steps: [{sql: refuse 55}]\nto: [{tab: t, every: 2ms}]\n")
	s.inForce("refuse 55")
	appendEvents(t, s.log, "events", 51, 10)
	s.caughtUp(120, "pipeline/p/tab")
	require.Len(t, s.rejections(), 21)
	s.file("p.yaml", "steps: [{sql: drop 100}, {sql: drop 101}]\nto: [{tab: t, every: 2ms}]\n")
	s.inForce("drop 101")
	require.Equal(t, rejections.Result{Matched: 21, Replayed: 1, Refused: 20, ByReason: rejections.Tally{"recomputed": 20}}, s.replay(rejections.Filter{}))
	appendEvents(t, s.log, "events", 61, 10)
	s.caughtUp(130, "pipeline/p/tab")
	appendEvents(t, s.log, "events", 71, 1)
	s.caughtUp(131, "pipeline/p/tab")
	require.NotContains(t, h.ids("t"), "55.0", "it would be gone with the table that is replaced")
	require.NoError(t, s.set.CancelBackfill(t.Context(), "p", ""))
	s.over()
	require.Eventually(t, func() bool { return slices.Contains(h.ids("t"), "55.0") }, soon, time.Millisecond)
	s.counted("pipeline/p/tab", stream.Counts{Written: 111, Rejections: 20})
	require.EqualValues(t, 20, s.replay(rejections.Filter{}).Replayed, "they were not computed again, after all")
	s.counted("pipeline/p/tab", stream.Counts{Written: 131})
}

// A replay that is under way when the pipeline is rewound over its event comes by the
// rewind alone.
func TestReplayUnderWayAndRewind(t *testing.T) {
	s := newStand(t)
	s.put("a", newStore(false))
	steps := func(text string) {
		s.file("p.yaml", "steps: ["+text+"]\nto: [{into: a, every: 2ms}]\n")
		s.inForce(text)
	}
	s.start()
	steps("{sql: refuse 2}")
	appendEvents(t, s.log, "events", 1, 4)
	s.caughtUp(4, "pipeline/p/into")
	steps("{sql: as n}")
	require.NoError(t, s.set.Pause("p", true))
	require.EqualValues(t, 2, s.replay(rejections.Filter{}).Replayed)
	_, err := s.rewind(earliest, "")
	require.NoError(t, err)
	require.NoError(t, s.set.Pause("p", false))
	s.caughtUp(4, "pipeline/p/into")
	require.Eventually(t, func() bool {
		off, _ := s.progress("pipeline/p/into").Positions.Get(at0(t, s.log), replayLane)
		return off == 2
	}, soon, time.Millisecond)
	require.Equal(t, []string{"1.0", "3.0", "1n.0", "2n.0", "3n.0", "4n.0"}, s.stores["a"].all())
	s.counted("pipeline/p/into", stream.Counts{Written: 4})
}
