package pipeline

import (
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Computed rows are kept as long as some sink has still to have them: they are computed
// once for all sinks that are there, and a pipeline with one sink keeps none.
func TestRowsAreKeptForOthers(t *testing.T) {
	s := newStand(t, "a", "b")
	hang := make(chan struct{})
	goOn := sync.OnceFunc(func() { close(hang) })
	t.Cleanup(goOn) // before the stand stops, which waits for the sink
	s.stores["b"].fail = func(call string, n int) error {
		if call == "write" && n == 3 {
			<-hang
		}
		return nil
	}
	kept := func(pipeline string) int {
		s.set.mu.Lock()
		f := s.set.mu.running[pipeline].flow
		s.set.mu.Unlock()
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.mu.recent) == 0 {
			require.Zero(t, f.mu.size)
		}
		return len(f.mu.recent)
	}
	s.file("p.yaml", "steps: [{sql: drop 3}]\nto: [{into: a}, {into: b, name: other}]\n")
	s.start()
	for i := range 20 {
		appendEvents(t, s.log, "events", 10*i, 10)
	}
	s.caughtUp(200, "pipeline/p/into")
	require.Greater(t, kept("p"), 10)
	goOn()
	s.caughtUp(200, "pipeline/p/other")
	require.Zero(t, kept("p"), "all have had them")
	require.EqualValues(t, 200, s.engine.computed.Load())

	s.put("c", newStore(true))
	s.file("q.yaml", "steps: [{sql: drop 3}]\nto: [{into: c}]\n")
	s.caughtUp(200, "pipeline/q/into")
	require.Zero(t, kept("q"), "nobody else wants them")
}

// A sink that begins anew before its first commit has rows computed again that nobody has
// kept: what was refused then, and is not on record yet, is refused again and stands there
// once.
func TestRefusedAgainBeforeItIsOnRecord(t *testing.T) {
	s := newStand(t, "a")
	s.stores["a"].fail = func(call string, n int) error {
		if call == "write" && n <= 2 {
			return errors.New("not yet")
		}
		return nil
	}
	s.file("p.yaml", "steps: [{sql: drop 3}, {sql: refuse 5}]\nto: [{into: a}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 10)
	s.caughtUp(10, "pipeline/p/into")
	require.Equal(t, []string{"1.0", "2.0", "4.0", "7.0", "8.0"}, s.stores["a"].ids)
	require.Equal(t, []string{"5 2 sql", "10 2 sql"}, s.rejections())
}
