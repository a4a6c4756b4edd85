package verify

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/stream"
)

// closing is one append as a replay or discard makes it: events that are sent again,
// and records of states. A record that is "" is one of the next event's.
type closing struct {
	resent int // events of type a
	fresh  int // events that are said to be new ones
	again  int // events that a pipeline gets again
	states []string
}

func (w *world) end(name string) int64 {
	w.t.Helper()
	st, err := w.log.Stat(w.t.Context(), name)
	require.NoError(w.t, err)
	return st.Ranges[len(st.Ranges)-1].End
}

// replayed is the record of a rejection whose event is at an offset of events.
func (w *world) replayed(rejection, at int64) string {
	return fmt.Sprintf(`{"rejection_log":"%s","rejection_partition":0,"rejection_offset":%d,"state":"replayed","event_stream":"events","event_log":"%[1]s","event_partition":0,"event_offset":%[3]d}`,
		w.incarnation(), rejection, at)
}

// again is the record of a rejection that pipeline p gets again.
func (w *world) again(rejection, at int64) string {
	return strings.Replace(w.replayed(rejection, at), `"event_stream":"events"`, `"event_stream":"_replay.p"`, 1)
}

func (w *world) discarded(rejection int64) string {
	return fmt.Sprintf(`{"rejection_log":"%s","rejection_partition":0,"rejection_offset":%d,"state":"discarded"}`, w.incarnation(), rejection)
}

func (w *world) attempt(rejection int64) string {
	return fmt.Sprintf(`{"rejection_log":"%s","rejection_partition":0,"rejection_offset":%d,"state":"open","reason":"contract"}`, w.incarnation(), rejection)
}

func (w *world) append(c closing) {
	w.t.Helper()
	var writes []stream.Write
	batch := func(typ string, data []string) ([]byte, int32) {
		var b recordbatch.Builder
		b.Reset(received)
		for _, d := range data {
			w.ids++
			b.AppendEvent(&event.Event{ID: fmt.Appendf(nil, "id-%d", w.ids), GeneratedID: true, Source: []byte("/test"), Type: []byte(typ), Data: []byte(d)})
		}
		return b.Finish(nil, recordbatch.None), int32(len(data))
	}
	for _, x := range []struct {
		n      int
		resent bool
	}{{c.resent, true}, {c.fresh, false}} {
		if x.n > 0 {
			raw, n := batch("a", slices.Repeat([]string{`{"again":true}`}, x.n))
			writes = append(writes, stream.Write{Stream: "events", Batch: raw, Count: n, Resent: x.resent})
		}
	}
	if c.again > 0 {
		raw, n := batch("naru.replay", slices.Repeat([]string{`{}`}, c.again))
		writes = append(writes, stream.Write{Stream: stream.ReplayStream + "p", Batch: raw, Count: n})
	}
	if len(c.states) > 0 {
		raw, n := batch(event.RejectedStates, c.states)
		writes = append(writes, stream.Write{Stream: event.RejectedStates, Batch: raw, Count: n})
	}
	_, err := w.log.Append(w.t.Context(), writes...)
	require.NoError(w.t, err)
}

// refused is a world with ten events and six rejections.
func refused(t *testing.T) *world {
	w := newWorld(t)
	w.send("events", slices.Concat(each(10, "a"), slices.Repeat([]ev{{"!", "x"}}, 6))...)
	return w
}

// What replays and discards leave is clean, and its states are counted.
func TestStatesOfRejections(t *testing.T) {
	t.Parallel()
	w := refused(t)
	w.append(closing{resent: 2, states: []string{w.replayed(0, 10), w.attempt(1), w.replayed(2, 11)}})
	w.append(closing{resent: 1, states: []string{w.replayed(1, 12)}})
	w.load()
	w.append(closing{states: []string{w.discarded(4), w.discarded(5)}}) // not yet in tables
	r := w.clean()
	require.Equal(t, "events", r.Streams[0].Stream)
	require.Equal(t, [...]int64{16, 13, 3}, [...]int64{r.Streams[0].Acknowledged, r.Streams[0].Written, r.Streams[0].Rejections})
	require.Equal(t, &States{Open: 1, Replayed: 3, Discarded: 2}, r.Streams[1].States)
	require.Nil(t, r.Streams[0].States)
}

// What pipelines get again is in no stream that counts.
func TestStatesOfReplaysToAPipeline(t *testing.T) {
	t.Parallel()
	w := refused(t)
	w.append(closing{again: 2, states: []string{w.again(0, 0), w.attempt(1), w.again(2, 1)}})
	w.append(closing{resent: 1, states: []string{w.replayed(1, 10)}})
	w.load()
	w.append(closing{states: []string{w.discarded(4)}})
	r := w.clean()
	require.Len(t, r.Streams, 3)
	require.Equal(t, &States{Open: 2, Replayed: 3, Discarded: 1}, r.Streams[1].States)
}

// A state or an event that is not there, or there once more, is named, with the
// place.
func TestStatesThatDoNotAgree(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   func(w *world)
		want []string
	}{
		"an event without a state": {func(w *world) { w.append(closing{resent: 2, states: []string{w.replayed(0, 10)}}) },
			[]string{"state 11-11", "counts (1)"}},
		"a state without an event": {func(w *world) { w.append(closing{states: []string{w.replayed(0, 10)}}) },
			[]string{"state 10-10", "counts (-1)"}},
		"a state of another event": {func(w *world) { w.append(closing{resent: 1, states: []string{w.replayed(0, 3)}}) },
			[]string{"state 3-3", "state 10-10"}},
		"the event is not said to be sent again": {func(w *world) { w.append(closing{fresh: 1, states: []string{w.replayed(0, 10)}}) },
			[]string{"state 10-10", "counts (-1)"}},
		"replayed twice": {func(w *world) {
			w.append(closing{resent: 1, states: []string{w.replayed(0, 10)}})
			w.append(closing{resent: 1, states: []string{w.replayed(0, 11)}})
		}, []string{"state 0-0"}},
		"discarded, and replayed": {func(w *world) {
			w.append(closing{states: []string{w.discarded(1)}})
			w.append(closing{resent: 1, states: []string{w.replayed(1, 10)}})
		}, []string{"state 1-1"}},
		"a state twice": {func(w *world) { w.append(closing{resent: 1, states: []string{w.replayed(0, 10), w.replayed(0, 10)}}) },
			[]string{"state 10-10", "counts (-1)", "state 0-0"}},
		"two rejections of one event": {func(w *world) { w.append(closing{resent: 2, states: []string{w.replayed(0, 10), w.replayed(1, 10)}}) },
			[]string{"state 10-10", "state 11-11"}},
		"a pipeline gets one that no state names": {func(w *world) { w.append(closing{again: 2, states: []string{w.again(0, 0)}}) },
			[]string{"state 1-1"}},
		"a pipeline does not get what a state names": {func(w *world) { w.append(closing{again: 1, states: []string{w.again(0, 0), w.again(1, 1)}}) },
			[]string{"state 1-1"}},
		"two rejections of what a pipeline gets": {func(w *world) { w.append(closing{again: 1, states: []string{w.again(0, 0), w.again(1, 0)}}) },
			[]string{"state 0-0"}},
		"a rejection that never was": {func(w *world) { w.append(closing{states: []string{w.discarded(6)}}) },
			[]string{"state 6-6"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := refused(t)
			c.do(w)
			w.load()
			r := w.verify(Options{})
			got := words(r.Differences)
			slices.Sort(got)
			slices.Sort(c.want)
			require.Equal(t, c.want, got, "%+v", r.Differences)
			require.False(t, r.Clean)
		})
	}
}

// When retention has taken the states from the log their table has them: a row that
// is gone from it, or there twice, is noticed as before.
func TestStatesThatRetentionTook(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T) *world {
		w := newWorld(t)
		w.cfg.Segment = 32 * quantity.KiB
		w.cfg.RetainBytes = 3 * w.cfg.Segment
		w.close()
		w.open()
		w.send("events", slices.Concat(each(10, "a"), slices.Repeat([]ev{{"!", "x"}}, 6))...)
		w.append(closing{resent: 2, states: []string{w.replayed(0, 10), w.replayed(2, 11)}})
		w.append(closing{states: []string{w.discarded(4)}})
		w.load()
		return w
	}
	w := begin(t)
	for w.start(event.RejectedStates) == 0 {
		w.send("events", padded(20)...)
		w.load()
	}
	// Some more, which the log has.
	w.append(closing{resent: 1, states: []string{w.replayed(1, w.end("events"))}})
	w.load()
	r := w.clean()
	i := slices.IndexFunc(r.Streams, func(s Stream) bool { return s.Stream == event.RejectedStream })
	require.Equal(t, &States{Open: 2, Replayed: 3, Discarded: 1}, r.Streams[i].States)
	require.NotZero(t, w.segments())
	// A state that says again what the table has.
	w.open()
	w.append(closing{resent: 1, states: []string{w.replayed(2, w.end("events"))}})
	w.load()
	require.Equal(t, []string{"state 2-2"}, words(w.verify(Options{}).Differences))
	// Rows of states that are gone.
	w = begin(t)
	for w.start(event.RejectedStates) == 0 {
		w.send("events", padded(20)...)
		w.load()
	}
	w.snapshot(event.RejectedStates+"."+event.RejectedStates, true, func(path string) bool { return strings.Contains(path, "/") })
	require.Equal(t, []string{"missing 0-2"}, words(w.verify(Options{}).Differences))
}

func (w *world) start(name string) int64 {
	w.t.Helper()
	st, err := w.log.Stat(w.t.Context(), name)
	require.NoError(w.t, err)
	return st.Ranges[0].Start
}
