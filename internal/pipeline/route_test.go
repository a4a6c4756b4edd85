package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	rejections "naru/internal/rejection"
	"naru/internal/sink"
	"naru/internal/stream"
)

// Each sink gets its rows, and events without one count as filtered for it.
func TestSinksChooseTheirRows(t *testing.T) {
	t.Parallel()
	s := newStand(t, "a", "b", "c")
	s.file("p.yaml", "steps: [{sql: drop 3}, {sql: twice 2}]\nto: [{into: a}, {into: b, name: evens, where: of 2}, {into: c, name: most, where: breaks 5}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 10)
	s.caughtUp(10, "pipeline/p/into", "pipeline/p/evens", "pipeline/p/most")
	all := []string{"1.0", "2.0", "2.1", "4.0", "4.1", "7.0", "8.0", "8.1"}
	require.Equal(t, all, s.stores["a"].ids)
	require.Equal(t, []string{"2.0", "2.1", "4.0", "4.1", "8.0", "8.1"}, s.stores["b"].ids)
	require.Equal(t, all, s.stores["c"].ids)
	require.Equal(t, []string{"5 where of most", "10 where of most"}, s.rejections(), "for all sinks")
	require.Equal(t, stream.Counts{Written: 5, Filtered: 3, Rejections: 2}, s.progress("pipeline/p/into").Counts)
	require.Equal(t, stream.Counts{Written: 3, Filtered: 5, Rejections: 2}, s.progress("pipeline/p/evens").Counts)
}

// Without steps events go as they came.
func TestSinksChooseAmongEvents(t *testing.T) {
	t.Parallel()
	s := newStand(t, "a", "b")
	s.file("p.yaml", "to: [{into: a}, {into: b, name: evens, where: of 2}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 4)
	s.caughtUp(4, "pipeline/p/into", "pipeline/p/evens")
	require.Equal(t, []string{"1", "2", "3", "4"}, s.stores["a"].ids)
	require.Equal(t, []string{"2", "4"}, s.stores["b"].ids)
}

// A sink that needs columns does not take from others the events as they came.
func TestColumnsForSomeSinks(t *testing.T) {
	t.Parallel()
	s := newStand(t, "a", "b")
	s.kinds = []sink.Kind{{Name: "tab", Short: "store", Settings: func() sink.Settings { return &into{stores: s.stores} }, Tabular: func(sink.Settings) bool { return true }}}
	var first atomic.Bool
	s.stores["b"].fail = func(string, int) error { // reads behind the other one
		if !first.Load() {
			return errors.New("not yet")
		}
		return nil
	}
	s.file("p.yaml", "to: [{tab: a}, {into: b, name: plain}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 2)
	s.caughtUp(2, "pipeline/p/tab")
	first.Store(true)
	s.caughtUp(2, "pipeline/p/plain")
	require.Equal(t, []string{"1.0", "2.0"}, s.stores["a"].ids, "rows of steps")
	require.Equal(t, []string{"1", "2"}, s.stores["b"].ids, "events")
}

// A changed `where` is in force from one place on, and the sink goes on without a stop.
func TestChangedWhere(t *testing.T) {
	t.Parallel()
	s := newStand(t, "a", "b")
	var open atomic.Bool
	open.Store(true)
	s.stores["b"].fail = func(call string, _ int) error {
		if !open.Load() && call == "commit" {
			return errors.New("not yet")
		}
		return nil
	}
	s.file("p.yaml", "to: [{into: a}, {into: b, name: some, where: of 2}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 4)
	s.caughtUp(4, "pipeline/p/into", "pipeline/p/some")
	opened := s.stores["b"].count("open")
	s.file("p.yaml", "to: [{into: a}, {into: b, name: some, where: of 3}]\n")
	s.inForce("of 3")
	appendEvents(t, s.log, "events", 5, 4)
	s.caughtUp(8, "pipeline/p/into", "pipeline/p/some")
	require.Equal(t, opened, s.stores["b"].count("open"))
	open.Store(false)
	appendEvents(t, s.log, "events", 9, 4)
	s.caughtUp(12, "pipeline/p/into")
	s.file("p.yaml", "to: [{into: a}, {into: b, name: some, where: of 5}]\n")
	s.inForce("of 5")
	appendEvents(t, s.log, "events", 13, 4)
	s.caughtUp(16, "pipeline/p/into")
	s.kill() // nothing is remembered but what is durable
	open.Store(true)
	s.start()
	s.caughtUp(16, "pipeline/p/some")
	require.Equal(t, []string{"2", "4", "6", "9", "12", "15"}, s.stores["b"].ids)
	require.Len(t, s.stores["a"].ids, 16)
}

// A sink that comes later gets of what was before it what its `where` lets pass. That
// it cannot be computed there is no verdict for the others.
func TestLateSinkChooses(t *testing.T) {
	t.Parallel()
	s := newStand(t, "a", "b", "c", "d")
	var open atomic.Bool
	s.stores["b"].fail = func(call string, _ int) error {
		if !open.Load() {
			return errors.New("not yet")
		}
		return nil
	}
	s.read = 1 << 20
	s.file("p.yaml", "to: [{into: a}, {into: b, name: slow, where: of 2}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 6)
	s.caughtUp(6, "pipeline/p/into")
	s.file("p.yaml", "to: [{into: a}, {into: b, name: slow, where: of 2}, {into: c, name: late, where: breaks 4}, {into: d, name: plain}]\n")
	s.inForce("breaks 4")
	appendEvents(t, s.log, "events", 7, 6)
	s.caughtUp(12, "pipeline/p/into", "pipeline/p/late", "pipeline/p/plain")
	require.Equal(t, []string{"1", "2", "3", "5", "6", "7", "9", "10", "11"}, s.stores["c"].ids)
	require.Equal(t, []string{"1", "2", "3", "4", "5", "6", "7", "9", "10", "11"}, s.stores["a"].ids)
	require.Equal(t, s.stores["a"].ids, s.stores["d"].ids)
	require.Equal(t, []string{"8 where of late", "12 where of late"}, s.rejections())
	require.Equal(t, stream.Counts{Written: 9, Filtered: 1, Rejections: 2}, s.progress("pipeline/p/late").Counts)
	open.Store(true)
	s.caughtUp(12, "pipeline/p/slow")
	require.Equal(t, []string{"2", "4", "6", "10"}, s.stores["b"].ids)

	// The same where the old form has been forgotten, because all sinks had passed it.
	s.put("e", newStore(true))
	s.file("p.yaml", "to: [{into: a}, {into: b, name: slow, where: of 2}, {into: c, name: late, where: breaks 4}, {into: d, name: plain}, {into: e, name: last, where: breaks 2}]\n")
	s.caughtUp(12, "pipeline/p/last")
	require.Equal(t, []string{"1", "3", "5", "7", "9", "11"}, s.stores["e"].ids)
	require.Len(t, s.rejections(), 2)
}

// A sink that was there without a `where` gets all of that time, also when the file
// gave it one since, and also after a start.
func TestWhereForASinkThatHadNone(t *testing.T) {
	t.Parallel()
	s := newStand(t, "a", "b")
	var open atomic.Bool
	s.stores["b"].fail = func(string, int) error {
		if !open.Load() {
			return errors.New("not yet")
		}
		return nil
	}
	s.file("p.yaml", "to: [{into: a}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 2)
	s.caughtUp(2, "pipeline/p/into")
	s.file("p.yaml", "to: [{into: a}, {into: b, name: slow}]\n")
	s.inForce("slow")
	appendEvents(t, s.log, "events", 3, 2)
	s.caughtUp(4, "pipeline/p/into")
	s.file("p.yaml", "to: [{into: a}, {into: b, name: slow, where: of 2}]\n")
	s.inForce("of 2")
	appendEvents(t, s.log, "events", 5, 4)
	s.caughtUp(8, "pipeline/p/into")
	s.kill()
	open.Store(true)
	s.start()
	s.caughtUp(8, "pipeline/p/slow")
	require.Equal(t, []string{"1", "2", "3", "4", "6", "8"}, s.stores["b"].ids)
	st, err := s.log.Stat(context.Background(), "events")
	require.NoError(t, err)
	require.EqualValues(t, 8, st.Ranges[0].End)
}

// What a `where` could not be computed on is replayed to all sinks, and goes to those
// whose `where` of now lets it pass.
func TestReplayGoesWhereRowsGo(t *testing.T) {
	t.Parallel()
	for _, steps := range []string{"", "steps: [{sql: drop 6}]\n"} {
		s := newStand(t, "a", "b")
		file := steps + "to: [{into: a, every: 2ms}, {into: b, name: some, every: 2ms, where: %s}]\n"
		s.file("p.yaml", fmt.Sprintf(file, "breaks 2"))
		s.start()
		appendEvents(t, s.log, "events", 1, 4)
		s.caughtUp(4, "pipeline/p/into", "pipeline/p/some")
		require.Equal(t, []string{"2 where of some", "4 where of some"}, s.rejections())
		s.file("p.yaml", fmt.Sprintf(file, "of 4"))
		s.inForce("of 4")
		require.Equal(t, rejections.Result{Matched: 2, Replayed: 2}, s.replay(rejections.Filter{}))
		s.counted("pipeline/p/into", stream.Counts{Written: 4})
		s.counted("pipeline/p/some", stream.Counts{Written: 3, Filtered: 1})
		all, some := []string{"1", "2", "3", "4"}, []string{"1", "3", "4"}
		if steps != "" {
			all, some = []string{"1.0", "2.0", "3.0", "4.0"}, []string{"1.0", "3.0", "4.0"}
		}
		s.has(all, s.stores["a"].all)
		s.has(some, s.stores["b"].all)
		s.stop()
	}
}

func (s *store) count(call string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[call]
}
