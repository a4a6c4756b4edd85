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
	"naru/internal/fault"
	"naru/internal/pipeline/definition"
	"naru/internal/recordbatch"
	"naru/internal/sink"
	"naru/internal/stream"
)

// ledgerOf is a target that keeps rows with their places, and its positions in the same
// step: an exact one, which can be taken back.
type ledgerOf struct {
	mu        sync.Mutex
	rows      []placed
	positions event.Positions
	failing   func() bool // at a commit or a rewind, before it or behind it
	every     int64       // it can only be taken back to a multiple of this
	hangs     atomic.Bool // it does not answer when it is to be taken back
	hanging   atomic.Bool // so it was asked
}

type placed struct {
	at  event.Position
	row int32
	id  string
	of  event.Position // the event that it was made of
}

func (l *ledgerOf) ids() (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.rows {
		out = append(out, r.id)
	}
	return out
}

func (l *ledgerOf) fails() error {
	if l.failing != nil && l.failing() {
		return errors.New("by chance")
	}
	return nil
}

// keeps is a kind of sink over a ledgerOf.
type keeps struct {
	Stuck bool `yaml:"stuck"` // it cannot be taken back

	target *ledgerOf
}

func (k *keeps) Validate() error { return nil }
func (k *keeps) Open(context.Context, sink.Env) (sink.Sink, error) {
	k.target.mu.Lock()
	defer k.target.mu.Unlock()
	s := &keeper{target: k.target, floor: k.target.positions.Clone(), end: event.Positions{}}
	if k.Stuck {
		return s, nil
	}
	return backward{s}, nil
}

type keeper struct {
	target     *ledgerOf
	floor, end event.Positions
	held       []placed
	dec        recordbatch.Decoder
}

func (k *keeper) Resume(context.Context, string) (event.Positions, error) { return nil, nil }
func (k *keeper) Close() error                                            { return nil }

func (k *keeper) Write(_ context.Context, b *event.Batch) error {
	err := k.dec.EachIn(b, func(e *event.Event) error {
		at := event.Position{Incarnation: b.Incarnation, Partition: b.Partition, Offset: e.Offset}
		if !k.floor.Covers(at) {
			k.held = append(k.held, placed{at, e.Row, string(e.ID), e.Place(at)})
		}
		return nil
	})
	k.end.Advance(b.End())
	return err
}

func (k *keeper) Commit(context.Context) (event.Positions, error) {
	t := k.target
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.fails(); err != nil {
		return nil, err
	}
	t.rows, k.held = append(t.rows, k.held...), nil
	for inc, parts := range k.end {
		for p, off := range parts {
			t.positions.Advance(event.Position{Incarnation: inc, Partition: p, Offset: off})
		}
	}
	return k.end.Clone(), t.fails()
}

type backward struct{ *keeper }

func (k backward) Rewindable(ctx context.Context, from event.Positions) (event.Positions, error) {
	if k.target.hangs.Load() {
		k.target.hanging.Store(true)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	out := from.Clone()
	for inc, parts := range out {
		for p, off := range parts {
			out[inc][p] = off - off%max(k.target.every, 1)
		}
	}
	return out, nil
}

func (k backward) Rewind(ctx context.Context, from event.Positions, _ bool) error {
	t := k.target
	if t.hangs.Load() {
		t.hanging.Store(true)
		<-ctx.Done()
		return ctx.Err()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.fails(); err != nil {
		return err
	}
	t.positions = sink.Lowered(t.positions, from)
	t.rows = slices.DeleteFunc(t.rows, func(r placed) bool {
		off, ok := from.Get(r.of.Incarnation, r.of.Partition)
		return ok && r.of.Offset >= off
	})
	return t.fails()
}

// keeping adds the kind to a stand.
func (s *stand) keeping() *ledgerOf {
	t := &ledgerOf{positions: event.Positions{}}
	s.kinds = append(s.kinds, sink.Kind{Name: "keep", Settings: func() sink.Settings { return &keeps{target: t} }})
	return t
}

func (s *stand) rewind(to definition.Start, only string) (*Rereading, error) {
	s.ready()
	return s.set.Rewind(context.Background(), "p", Rewind{To: to, Sink: only, Again: true})
}

var earliest = definition.Start{}

func TestRewind(t *testing.T) {
	s := newStand(t)
	s.put("a", newStore(false))
	kept := s.keeping()
	s.file("p.yaml", "steps: [{sql: drop 3}, {sql: refuse 5}]\nto: [{keep: {}, every: 2ms}, {into: a, every: 2ms}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 5)
	s.caughtUp(5, "pipeline/p/into", "pipeline/p/keep")
	middle := time.Now()
	pass(middle.Add(2 * time.Millisecond))
	appendEvents(t, s.log, "events", 6, 5)
	s.caughtUp(10, "pipeline/p/into", "pipeline/p/keep")
	require.Equal(t, []string{"1.0", "2.0", "4.0", "7.0", "8.0"}, kept.ids())
	require.Equal(t, []string{"5 2 sql", "10 2 sql"}, s.rejections())

	// The newest steps hold for what is read again. What was refused and is refused
	// again is on record once; the rejection of what passes now stays.
	s.file("p.yaml", "steps: [{sql: drop 4}, {sql: refuse 10}, {sql: as n}]\nto: [{keep: {}, every: 2ms}, {into: a, every: 2ms}]\n")
	s.inForce("drop 4")
	back, err := s.rewind(earliest, "keep")
	require.NoError(t, err)
	require.Equal(t, []RereadingOne{{Sink: "keep", Kind: "keep", Events: 10}}, back.Sinks)
	s.caughtUp(10, "pipeline/p/keep")
	require.Equal(t, []string{"1n.0", "2n.0", "3n.0", "5n.0", "6n.0", "7n.0", "9n.0"}, kept.ids())
	require.Equal(t, stream.Counts{Written: 7, Filtered: 2, Rejections: 1}, s.progress("pipeline/p/keep").Counts)
	require.Equal(t, []string{"5 2 sql", "10 2 sql"}, s.rejections(), "nothing twice")
	require.Equal(t, []string{"1.0", "2.0", "4.0", "7.0", "8.0"}, s.stores["a"].ids, "the other sink goes on where it was")

	// Back to a time: what lies before counts as filtered.
	back, err = s.rewind(definition.Start{At: middle.Add(time.Millisecond)}, "")
	require.NoError(t, err)
	require.Len(t, back.Sinks, 2)
	require.EqualValues(t, 5, back.Sinks[0].Events)
	appendEvents(t, s.log, "events", 11, 1)
	s.caughtUp(11, "pipeline/p/into", "pipeline/p/keep")
	require.Equal(t, []string{"1n.0", "2n.0", "3n.0", "5n.0", "6n.0", "7n.0", "9n.0", "11n.0"}, kept.ids())
	require.Equal(t, stream.Counts{Written: 4, Filtered: 6, Rejections: 1}, s.progress("pipeline/p/into").Counts)
	require.Equal(t, []string{"1.0", "2.0", "4.0", "7.0", "8.0", "6n.0", "7n.0", "9n.0", "11n.0"}, s.stores["a"].ids, "a target without positions gets rows again")
	require.Equal(t, []string{"5 2 sql", "10 2 sql"}, s.rejections())

	// What all have passed is forgotten, and the log of rejections is not held back.
	require.Eventually(t, func() bool { return s.again() == nil }, soon, time.Millisecond)
	s.stop()
	s.start()
	appendEvents(t, s.log, "events", 12, 9)
	s.caughtUp(20, "pipeline/p/into", "pipeline/p/keep")
	require.Equal(t, []string{"5 2 sql", "10 2 sql", "20 2 sql"}, s.rejections())
}

// state is what the pipeline p keeps on disk.
func (s *stand) state() *state {
	st, err := readState(s.fs, "/p/data/pipelines/p.json")
	if err != nil || st == nil {
		return &state{}
	}
	return st
}

func (s *stand) again() *again { return s.state().Again }

func TestRewindSaysWhyNot(t *testing.T) {
	s := newStand(t, "a")
	s.keeping()
	s.file("p.yaml", "to: [{keep: {stuck: true}, every: 2ms}, {into: a, every: 2ms}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 5)
	s.caughtUp(5, "pipeline/p/into", "pipeline/p/keep")
	for _, c := range []struct {
		to         definition.Start
		only, want string
	}{
		{earliest, "keep", "sink keep (keep) keeps positions beside its rows and cannot be taken back"},
		{earliest, "other", `no sink "other"`},
		{definition.Start{Latest: true}, "into", "a rewind goes back"},
		{definition.Start{At: time.Now().Add(time.Hour)}, "into", "there is nothing to read again"},
	} {
		_, err := s.rewind(c.to, c.only)
		require.ErrorIs(t, err, ErrAsk)
		require.ErrorContains(t, err, c.want)
	}
	_, err := s.set.Rewind(t.Context(), "p", Rewind{Sink: "into"})
	require.ErrorIs(t, err, ErrAsk)
	require.ErrorContains(t, err, "sink into (into) cannot be taken back: what the target has stays there")
	require.Contains(t, fault.HintOf(err), "--again")
	_, err = s.set.Rewind(t.Context(), "q", Rewind{})
	require.ErrorIs(t, err, ErrNoPipeline)
	appendEvents(t, s.log, "events", 6, 5)
	s.caughtUp(10, "pipeline/p/into", "pipeline/p/keep")
	back, err := s.rewind(earliest, "into")
	require.NoError(t, err)
	require.True(t, back.Sinks[0].Again)
	s.caughtUp(10, "pipeline/p/into")
	require.Len(t, s.stores["a"].ids, 10, "it skips what it has")
}

// A target goes back farther than was asked for, as to where a file begins: its sink
// reads again from there.
func TestRewindGoesFarther(t *testing.T) {
	s := newStand(t)
	kept := s.keeping()
	kept.every = 4
	s.file("p.yaml", "steps: [{sql: as a}]\nto: [{keep: {}, every: 2ms}]\n")
	s.start()
	appendEvents(t, s.log, "events", 0, 6)
	s.caughtUp(6, "pipeline/p/keep")
	middle := time.Now()
	pass(middle.Add(2 * time.Millisecond))
	appendEvents(t, s.log, "events", 6, 4)
	s.caughtUp(10, "pipeline/p/keep")
	s.file("p.yaml", "steps: [{sql: as b}]\nto: [{keep: {}, every: 2ms}]\n")
	s.inForce("as b")
	back, err := s.set.Rewind(t.Context(), "p", Rewind{To: definition.Start{At: middle.Add(time.Millisecond)}})
	require.NoError(t, err)
	require.Equal(t, []RereadingOne{{Sink: "keep", Kind: "keep", Events: 6}}, back.Sinks)
	s.caughtUp(10, "pipeline/p/keep")
	require.Equal(t, []string{"0a.0", "1a.0", "2a.0", "3a.0", "4b.0", "5b.0", "6b.0", "7b.0", "8b.0", "9b.0"}, kept.ids())
	require.Equal(t, stream.Counts{Written: 6, Filtered: 4}, s.progress("pipeline/p/keep").Counts)
}

// Where that would take rows along whose events the log has dropped, it is refused.
func TestRewindWouldTakeTooMuch(t *testing.T) {
	life, former, older := event.Incarnation{2}, event.Incarnation{1}, event.Incarnation{9}
	st := stream.Stat{Incarnation: life, Ranges: []stream.Range{{Incarnation: former, Start: 100, End: 150}, {Incarnation: life, Start: 150, End: 200}, {Incarnation: life, Partition: 1, Start: 0, End: 50}},
		Trimmed: map[int32]int64{0: 100}}
	to := progressAt(st, map[int32]int64{0: 120, 1: 50})
	require.Equal(t, event.Positions{former: {0: 120}, life: {0: 0}}, gone(st, to.Positions))
	require.Equal(t, event.Positions{former: {0: 100}, life: {0: 0, 1: 0}}, gone(st, event.Positions{}), "as far as the log has it")
	r := &running{}
	at := func(from event.Positions) (map[int32]int64, error) {
		got, err := r.earlier(st, to, from)
		return map[int32]int64{0: stream.Reached(st, got.Positions, 0), 1: stream.Reached(st, got.Positions, 1)}, err
	}
	for _, c := range []struct {
		from event.Positions
		want map[int32]int64
	}{
		{event.Positions{former: {0: 120}, life: {0: 0}}, map[int32]int64{0: 120, 1: 50}},
		{event.Positions{former: {0: 100}, life: {0: 0, 1: 7}}, map[int32]int64{0: 100, 1: 7}},
		{event.Positions{former: {0: 99}, life: {0: 0}}, nil},
		{event.Positions{former: {0: 120}, life: {0: 0}, older: {0: 3}}, nil},
	} {
		got, err := at(c.from)
		if c.want == nil {
			require.ErrorIs(t, err, sink.ErrStays, "%s", c.from)
			require.ErrorContains(t, err, "events that the log does not have any more")
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.want, got, "%s", c.from)
	}
}

// The process ends at each step of a rewind: the next one does the rest.
func TestRewindIsCutOff(t *testing.T) {
	for n := range 12 {
		s := newStand(t)
		kept := s.keeping()
		s.file("p.yaml", "steps: [{sql: refuse 5}]\nto: [{keep: {}, every: 2ms}]\n")
		s.start()
		appendEvents(t, s.log, "events", 1, 20)
		s.caughtUp(20, "pipeline/p/keep")
		calls := 0
		var mu sync.Mutex
		die := func() bool {
			mu.Lock()
			defer mu.Unlock()
			calls++
			return calls > n
		}
		s.alive.setDie(func(string) bool { return die() })
		kept.mu.Lock()
		kept.failing = func() bool { return die() }
		kept.mu.Unlock()
		_, err := s.rewind(earliest, "")
		asked := err == nil
		s.kill()
		kept.failing = nil
		begun := s.state().Rewind != nil || s.again() != nil
		s.start()
		if !begun && !asked {
			_, err := s.rewind(earliest, "")
			require.NoError(t, err, "cut at %d", n)
		}
		appendEvents(t, s.log, "events", 21, 5)
		s.caughtUp(25, "pipeline/p/keep")
		var want []string
		for i := 1; i <= 25; i++ {
			if i%5 != 0 {
				want = append(want, fmt.Sprintf("%d.0", i))
			}
		}
		require.Equal(t, want, kept.ids(), "cut at %d", n)
		require.Len(t, s.rejections(), 5, "cut at %d", n)
		require.Equal(t, stream.Counts{Written: 20, Rejections: 5}, s.progress("pipeline/p/keep").Counts, "cut at %d", n)
		require.Nil(t, s.state().Rewind)
		s.stop()
	}
}

// While a target cannot be taken back, its reader holds what is to be read again: the
// log does not drop it. A target that does not answer holds up no stop.
func TestRewindWaitsForATarget(t *testing.T) {
	s := newStand(t)
	kept := s.keeping()
	s.file("p.yaml", "to: [{keep: {}, every: 2ms}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 5)
	s.caughtUp(5, "pipeline/p/keep")
	kept.mu.Lock()
	kept.failing = func() bool { return true }
	kept.mu.Unlock()
	_, err := s.rewind(earliest, "")
	require.ErrorContains(t, err, "by chance")
	require.NotNil(t, s.state().Rewind)
	at := s.progress("pipeline/p/keep")
	st, err := s.log.Stat(t.Context(), "events")
	require.NoError(t, err)
	require.Zero(t, stream.Reached(st, at.Positions, 0), "the log may drop what is to be read again")

	kept.hangs.Store(true)
	for range 2 { // while it is tried again, and at a start
		require.Eventually(t, kept.hanging.Load, soon, time.Millisecond)
		s.stop()
		kept.hanging.Store(false)
		s.start()
	}
	s.stop()
	require.NotNil(t, s.state().Rewind)
	require.Len(t, kept.ids(), 5)
	kept.hangs.Store(false)
	kept.failing = nil
	s.start()
	appendEvents(t, s.log, "events", 6, 1)
	s.caughtUp(6, "pipeline/p/keep")
	require.Equal(t, []string{"1", "2", "3", "4", "5", "6"}, kept.ids())

	kept.hanging.Store(false)
	kept.hangs.Store(true)
	asked := make(chan error, 1)
	go func() {
		_, err := s.set.Rewind(context.Background(), "p", Rewind{})
		asked <- err
	}()
	require.Eventually(t, kept.hanging.Load, soon, time.Millisecond)
	s.stop()
	require.ErrorIs(t, <-asked, context.Canceled)
}

// Whatever the kills, failures, changes of the file and rewinds: at the end the target
// has what a run of the last steps from the beginning gives.
func TestRewindAtRandom(t *testing.T) {
	atRandom(t, rewindAtRandom)
}

func rewindAtRandom(t *testing.T, rng *rand.Rand) {
	s := newStand(t, "a")
	kept := s.keeping()
	var mu sync.Mutex
	draw := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(n)
	}
	kept.failing = func() bool { return draw(25) == 0 }
	s.stores["a"].exact = true
	var drop, refuse, version int
	write := func() {
		version++
		drop, refuse = 3+draw(4), 5+draw(5)
		s.file("p.yaml", fmt.Sprintf("steps: [{sql: drop %d}, {sql: refuse %d}, {sql: as v%d-}]\nto: [{keep: {}, every: 2ms}, {into: a, every: 2ms}]\n", drop, refuse, version))
	}
	write()
	s.start()
	total := 0
	for range 40 {
		n := 1 + draw(30)
		appendEvents(t, s.log, "events", total, n)
		total += n
		switch draw(8) {
		case 0:
			s.kill()
			s.start()
		case 1:
			write()
		case 2:
			sinks := []string{"", "keep"}
			if _, err := s.set.Rewind(context.Background(), "p", Rewind{Sink: sinks[draw(2)], Again: true}); err != nil && !errors.Is(err, ErrNoPipeline) && !errors.Is(err, ErrAsk) {
				t.Logf("rewind: %v", err) // it goes on by itself
			}
		}
	}
	kept.mu.Lock()
	kept.failing = nil
	kept.mu.Unlock()
	s.caughtUp(int64(total), "pipeline/p/keep", "pipeline/p/into")
	s.inForce(fmt.Sprintf("as v%d-", version))
	require.Eventually(t, func() bool { _, err := s.rewind(earliest, ""); return err == nil }, soon, time.Millisecond)
	s.caughtUp(int64(total), "pipeline/p/keep", "pipeline/p/into")
	var want []string
	for i := range total {
		if i%drop != 0 && i%refuse != 0 {
			want = append(want, fmt.Sprintf("%dv%d-.0", i, version))
		}
	}
	require.Equal(t, want, kept.ids())
	one := map[string]bool{}
	for _, id := range s.rejections() {
		require.False(t, one[id], "%s twice", id)
		one[id] = true
	}
	counts := s.progress("pipeline/p/keep").Counts
	require.EqualValues(t, len(want), counts.Written)
	require.EqualValues(t, total, counts.Total())
	require.Equal(t, counts, s.progress("pipeline/p/into").Counts)
}
