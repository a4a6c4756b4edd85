package pipeline

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/quantity"
	"naru/internal/stream"
)

func TestPipelineBrings(t *testing.T) {
	s := newStand(t, "a", "b")
	s.file("p.yaml", "steps: [{sql: drop 3}, {sql: refuse 5}, {sql: twice 2}]\nto: [{into: a}, {into: b, name: other}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 6)
	s.caughtUp(6, "pipeline/p/into", "pipeline/p/other")
	want := []string{"1.0", "2.0", "2.1", "4.0", "4.1"}
	require.Equal(t, want, s.stores["a"].ids)
	require.Equal(t, want, s.stores["b"].ids)
	require.Equal(t, stream.Counts{Written: 3, Filtered: 2, Rejections: 1}, s.progress("pipeline/p/into").Counts)
	require.Equal(t, []string{"5 2 sql"}, s.rejections())

	// Read again by a sink that is new, the event keeps its verdict.
	s.put("c", newStore(true))
	s.file("p.yaml", "steps: [{sql: drop 3}, {sql: refuse 5}, {sql: twice 2}]\nto: [{into: a}, {into: b, name: other}, {into: c, name: late}]\n")
	s.caughtUp(6, "pipeline/p/late")
	require.Equal(t, want, s.stores["c"].ids)
	require.Equal(t, []string{"5 2 sql"}, s.rejections(), "once")
}

// A hanging sink holds nobody up.
func TestSlowSinkDelaysNobody(t *testing.T) {
	s := newStand(t, "a", "b")
	hang := make(chan struct{})
	goOn := sync.OnceFunc(func() { close(hang) })
	t.Cleanup(goOn) // before the stand stops, which waits for the sink
	s.stores["a"].fail = func(call string, n int) error {
		if call == "write" && n > 1 {
			<-hang
		}
		return nil
	}
	s.file("p.yaml", "to: [{into: a}, {into: b, name: other}]\n")
	s.start()
	for i := range 100 {
		appendEvents(t, s.log, "events", 10*i, 10)
	}
	s.caughtUp(1000, "pipeline/p/other")
	require.Len(t, s.stores["b"].ids, 1000)
	goOn()
	s.caughtUp(1000, "pipeline/p/into")
}

// Whatever the kills, failures and changes of the file: each sink has each row
// once, all sinks by the same version, and each refusal is on record once.
func TestPipelineAtRandom(t *testing.T) {
	atRandom(t, pipelineAtRandom)
}

func pipelineAtRandom(t *testing.T, rng *rand.Rand) {
	s := newStand(t, "a", "b", "c")
	var mu sync.Mutex
	draw := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(n)
	}
	for _, name := range []string{"a", "b", "c"} {
		s.stores[name].fail = func(string, int) error {
			if draw(20) == 0 {
				return errors.New("by chance")
			}
			return nil
		}
	}
	versions, part := 0, []int{0} // part: of which numbers the rows go to other, by version
	write := func() {
		versions++
		part = append(part, 1+draw(3))
		s.file("p.yaml", fmt.Sprintf("steps: [{sql: drop %d}, {sql: refuse %d}, {sql: twice 2}, {sql: as v%d-}]\nto: [{into: a}, {into: b, name: other, where: of %d}, {into: c, name: third, where: breaks %d}]\n",
			3+draw(4), 5+draw(5), versions, part[versions], 7+draw(3)))
	}
	start := func() {
		s.read, s.interval = quantity.Bytes(1+draw(2)*draw(1<<14)), quantity.Duration(time.Duration(1+draw(2)*draw(30))*time.Millisecond)
		s.start()
	}
	write()
	start()
	total := 0
	for range 40 {
		n := 1 + draw(30)
		appendEvents(t, s.log, "events", total, n)
		total += n
		switch draw(12) {
		case 0:
			s.kill()
			start()
		case 1:
			s.stop()
			start()
		case 2:
			write()
			s.inForce(fmt.Sprintf("as v%d-", versions))
		}
	}
	for _, st := range s.stores {
		st.mu.Lock()
		st.fail = nil
		st.mu.Unlock()
	}
	s.caughtUp(int64(total), "pipeline/p/into", "pipeline/p/other", "pipeline/p/third")
	a, b, some := slices.Clone(s.stores["a"].ids), slices.Clone(s.stores["b"].ids), []string(nil)
	for _, id := range a {
		var number, version int
		_, err := fmt.Sscanf(id, "%dv%d-", &number, &version)
		require.NoError(t, err, id)
		if number%part[version] == 0 {
			some = append(some, id)
		}
	}
	require.Equal(t, some, b, "the rows that go to it by the version of their place, in the same order")
	require.Equal(t, a, s.stores["c"].ids, "all that could be computed")
	seen := map[string]bool{}
	for _, id := range a {
		number, _, _ := strings.Cut(id, "v")
		_, row, _ := strings.Cut(id, ".")
		require.False(t, seen[number+"."+row], "row %s twice", id)
		seen[number+"."+row] = true
	}
	refused := s.rejections()
	one := map[string]bool{}
	for _, id := range refused {
		require.False(t, one[id], "%s twice", id)
		one[id] = true
		number, _, _ := strings.Cut(id, " ")
		require.False(t, seen[number+".0"], "%s is written and refused", id)
	}
	for _, r := range []string{"pipeline/p/into", "pipeline/p/other", "pipeline/p/third"} {
		require.Equal(t, int64(len(refused)), s.progress(r).Counts.Rejections, r)
	}
}

// A sink that lags reads over the place where the file has changed: what lies before
// is by the old form, with its refusals, and what lies behind by the new one.
func TestLaggingSinkKeepsVersions(t *testing.T) {
	s := newStand(t, "a", "b")
	s.read = 1 << 20
	var open atomic.Bool
	s.stores["b"].fail = func(call string, _ int) error {
		if !open.Load() {
			return errors.New("not yet")
		}
		return nil
	}
	s.file("p.yaml", "steps: [{sql: refuse 5}, {sql: as v1-}]\nto: [{into: a}, {into: b, name: other}]\n")
	s.start()
	for i := range 10 {
		appendEvents(t, s.log, "events", 10*i, 10)
	}
	s.caughtUp(100, "pipeline/p/into")
	s.file("p.yaml", "steps: [{sql: refuse 7}, {sql: as v2-}]\nto: [{into: a}, {into: b, name: other}]\n")
	s.inForce("as v2-")
	for i := range 10 {
		appendEvents(t, s.log, "events", 100+10*i, 10)
	}
	s.caughtUp(200, "pipeline/p/into")
	s.stop()
	s.start() // nothing is remembered but what is durable
	open.Store(true)
	s.caughtUp(200, "pipeline/p/other")
	require.Equal(t, s.stores["a"].ids, s.stores["b"].ids)
	require.Equal(t, "99v1-.0", s.stores["b"].ids[79])
	require.Equal(t, "100v2-.0", s.stores["b"].ids[80])
	require.Len(t, s.rejections(), 20+14)
	for _, r := range []string{"pipeline/p/into", "pipeline/p/other"} {
		require.Equal(t, int64(20+14), s.progress(r).Counts.Rejections, r)
	}
}
