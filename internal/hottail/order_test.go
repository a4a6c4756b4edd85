package hottail

import (
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/stream"
)

// The watermark is read before the snapshots: else what is committed between
// would be in neither.
func TestCommitBetweenWatermarkAndSnapshots(t *testing.T) {
	w := newWorld(t)
	w.send("events", append(w.evs(3, "a"), w.evs(3, "b")...)...)
	w.requireAll(id("a"), id("b"))
	for _, at := range []func() *func(){
		func() *func() { return &w.view.onProgress },
		func() *func() { return &w.view.onStat },
		func() *func() { return &w.view.onRead },
	} {
		w.send("events", append(w.evs(3, "a"), w.evs(3, "b")...)...)
		hook := at()
		*hook = func() {
			*hook = nil
			w.load("events")
			w.send("events", append(w.evs(2, "a"), w.evs(1, "b")...)...)
			w.load("events") // these are not acknowledged when the cut begins
		}
		before := len(w.types["events"])
		views, err := w.tail.Cut(t.Context(), []lake.Ident{id("a"), id("b")})
		require.NoError(t, err)
		require.Nil(t, *hook, "it was not called")
		end := w.requireOnePlace(views)
		require.GreaterOrEqual(t, end[0], int64(before))
		letGo(views)
		w.requireAll(id("a"), id("b"))
	}
}

// Between the snapshots of two tables everything is committed, and the watermark
// moves. The watermark was read before both, so the first table loses nothing; the
// end of the log is read behind both, so that the first gets as far as the second.
func TestCommitBetweenTwoSnapshots(t *testing.T) {
	w := newWorld(t)
	w.send("events", append(w.evs(3, "a"), w.evs(3, "b")...)...)
	w.load("events")
	for range 3 {
		w.send("events", append(w.evs(3, "a"), w.evs(3, "b")...)...)
		w.look.onLocation = func(t lake.Ident) {
			if t != id("b") {
				return
			}
			w.look.onLocation = nil
			w.send("events", append(w.evs(1, "b"), w.evs(2, "a")...)...)
			w.load("events")
		}
		views, err := w.tail.Cut(t.Context(), []lake.Ident{id("a"), id("b")})
		require.NoError(t, err)
		require.Equal(t, int64(len(w.types["events"])), w.requireOnePlace(views)[0])
		letGo(views)
	}
}

// What another query has read of one table meanwhile, behind this one's end, is
// not in its view: the other tables have not got there.
func TestRowsBehindTheEnd(t *testing.T) {
	w := newWorld(t)
	w.send("events", append(w.evs(3, "a"), w.evs(3, "b")...)...)
	w.requireAll(id("a"), id("b"))
	w.view.afterStat = func() {
		w.view.afterStat = nil
		w.send("events", append(w.evs(1, "b"), w.evs(2, "a")...)...)
		w.requireAll(id("a"))
	}
	views, err := w.tail.Cut(t.Context(), []lake.Ident{id("a"), id("b")})
	require.NoError(t, err)
	require.Equal(t, int64(6), w.requireOnePlace(views)[0])
	letGo(views)
	w.requireAll(id("a"), id("b"))
}

// Retention takes what was committed while a query was about to read it.
func TestRetentionDuringACut(t *testing.T) {
	w := newWorld(t)
	w.send("events", w.evs(3, "a")...)
	w.send("events", w.evs(3, "b")...)
	w.view.onRead = func() {
		w.view.onRead = nil
		w.load("events")
		w.log.Trim("events", 0, 6)
	}
	w.requireAll(id("a"), id("b"))
	require.Zero(t, w.tail.Counts().Failed.Load())
	// And a type of which the tables know nothing yet.
	w.send("events", w.evs(3, "c")...)
	w.view.onRead = func() {
		w.view.onRead = nil
		w.load("events")
		w.log.Trim("events", 0, 9)
	}
	list, err := w.tail.Newest(t.Context())
	require.NoError(t, err)
	require.Equal(t, []lake.Ident{id("a"), id("b"), id("c")}, list)
	require.Zero(t, w.tail.Counts().Failed.Load())
	// What never ends does not go on for ever.
	w.send("events", w.evs(3, "a")...)
	w.view.failRead = stream.ErrTrimmed
	w.requireRows(w.cut(id("a"))[0], func(s spot) bool { return w.types["events"][s] == "a" && s.offset < 9 })
	require.Equal(t, int64(1), w.tail.Counts().Failed.Load())
}

// Retention takes what was committed between the watermark and the end of the log:
// it is neither in the snapshot that was looked at nor in the log.
func TestRetentionBeforeTheEndIsRead(t *testing.T) {
	w := newWorld(t)
	for i := range 3 {
		w.send("events", append(w.evs(3, "a"), w.evs(3, "b")...)...)
		w.view.onStat = func() {
			w.view.onStat = nil
			w.load("events")
			w.log.Trim("events", 0, int64(6*(i+1)))
			w.send("events", w.evs(i, "a")...)
		}
		views, err := w.tail.Cut(t.Context(), []lake.Ident{id("a"), id("b")})
		require.NoError(t, err)
		require.GreaterOrEqual(t, w.requireOnePlace(views)[0], int64(6*(i+1)))
		letGo(views)
		w.load("events")
		w.requireAll(id("a"), id("b"))
	}
	require.Zero(t, w.tail.Counts().Failed.Load())
	// What retention took unread, as configured, is no reason to look again.
	w.send("events", w.evs(3, "c")...)
	w.send("events", w.evs(3, "c")...)
	st, err := w.log.Stat(t.Context(), "events")
	require.NoError(t, err)
	w.log.Trim("events", 0, st.Ranges[0].End-3)
	stats := 0
	w.view.onStat = func() { stats++ }
	w.requireRows(w.cut(id("c"))[0], func(s spot) bool { return s.offset >= st.Ranges[0].End-3 })
	require.Equal(t, 1, stats)
	// What never comes to rest ends with what is committed.
	w.load("events")
	w.send("events", w.evs(3, "a")...)
	w.view.onStat = func() {
		w.load("events")
		st, err := w.log.Stat(t.Context(), "events")
		require.NoError(t, err)
		w.log.Trim("events", 0, st.Ranges[0].End)
		w.send("events", w.evs(3, "a")...)
	}
	w.cut(id("a"))
	require.Equal(t, int64(1), w.tail.Counts().Failed.Load())
	w.view.onStat = nil
	w.requireAll(id("a"))
}

// An error of the log costs the query the newest events, not the answer.
func TestLogThatCannotBeRead(t *testing.T) {
	w := newWorld(t)
	w.send("events", w.evs(3, "a")...)
	w.load("events")
	w.send("events", w.evs(3, "a")...)
	w.view.failRead = stream.ErrFull
	v := w.cut(id("a"))[0]
	require.Nil(t, v.Hot)
	w.requireRows(v, func(s spot) bool { return s.offset < 3 })
	require.Equal(t, int64(1), w.tail.Counts().Failed.Load())
	list, err := w.tail.Newest(t.Context())
	require.NoError(t, err)
	require.Equal(t, []lake.Ident{id("a")}, list)
	w.view.failRead = nil
	w.requireAll(id("a"))
}

func TestSpans(t *testing.T) {
	one, two := event.Incarnation{1}, event.Incarnation{2}
	r := func(inc event.Incarnation, p int32, start, end int64) stream.Range {
		return stream.Range{Incarnation: inc, Partition: p, Start: start, End: end}
	}
	s := func(inc event.Incarnation, p int32, from, to int64) event.Span {
		return event.Span{Incarnation: inc, Partition: p, From: from, To: to}
	}
	for name, c := range map[string]struct {
		ranges          []stream.Range
		lost            []event.Span
		mark, positions event.Positions
		want            []event.Span
	}{
		"nobody has read anything": {ranges: []stream.Range{r(one, 0, 3, 9), r(one, 1, 0, 2)}, want: []event.Span{s(one, 0, 3, 9), s(one, 1, 0, 2)}},
		"behind the watermark":     {ranges: []stream.Range{r(one, 0, 0, 9)}, mark: event.Positions{one: {0: 4}}, want: []event.Span{s(one, 0, 4, 9)}},
		"behind the table":         {ranges: []stream.Range{r(one, 0, 0, 9)}, mark: event.Positions{one: {0: 4}}, positions: event.Positions{one: {0: 6}}, want: []event.Span{s(one, 0, 6, 9)}},
		"a table behind the mark":  {ranges: []stream.Range{r(one, 0, 0, 9)}, mark: event.Positions{one: {0: 4}}, positions: event.Positions{one: {0: 2}}, want: []event.Span{s(one, 0, 4, 9)}},
		"all is there":             {ranges: []stream.Range{r(one, 0, 0, 9)}, positions: event.Positions{one: {0: 9}}},
		"a table ahead of the log": {ranges: []stream.Range{r(one, 0, 0, 9)}, positions: event.Positions{one: {0: 12}}},
		"a life was closed":        {ranges: []stream.Range{r(one, 0, 0, 9), r(two, 0, 9, 12)}, mark: event.Positions{one: {0: 4}}, want: []event.Span{s(one, 0, 4, 9), s(two, 0, 9, 12)}},
		"a watermark in a later life": {ranges: []stream.Range{r(one, 0, 0, 9), r(one, 1, 0, 5), r(two, 0, 9, 12), r(two, 1, 5, 5)}, mark: event.Positions{one: {0: 4, 1: 2}, two: {0: 10}},
			want: []event.Span{s(one, 1, 2, 5), s(two, 0, 10, 12)}},
		"a table in a later life": {ranges: []stream.Range{r(one, 0, 0, 9), r(two, 0, 9, 12)}, mark: event.Positions{one: {0: 4}}, positions: event.Positions{one: {0: 9}, two: {0: 10}},
			want: []event.Span{s(two, 0, 10, 12)}},
		"the end is lost":         {ranges: []stream.Range{r(one, 0, 0, 9)}, lost: []event.Span{s(one, 0, 5, 7), s(one, 0, 7, 9), s(one, 0, 1, 2)}, want: []event.Span{s(one, 0, 0, 5)}},
		"all that is new is lost": {ranges: []stream.Range{r(one, 0, 0, 9), r(two, 0, 9, 10)}, lost: []event.Span{s(one, 0, 5, 9)}, mark: event.Positions{one: {0: 6}}, want: []event.Span{s(two, 0, 9, 10)}},
		"retention was faster":    {ranges: []stream.Range{r(one, 0, 7, 9)}, mark: event.Positions{one: {0: 4}}, want: []event.Span{s(one, 0, 7, 9)}},
	} {
		got, trimmed := spans(stream.Stat{Ranges: c.ranges, Lost: c.lost}, c.mark, c.positions)
		require.Equal(t, c.want, got, name)
		require.Equal(t, name == "retention was faster" || name == "nobody has read anything", trimmed, name)
		n := int64(0)
		for _, x := range c.want {
			n += x.To - x.From
		}
		require.Equal(t, n, length(got), name)
	}
}

// A reader waits behind lost offsets for the next event: a query must not.
func TestLostAtTheEnd(t *testing.T) {
	w := newWorld(t)
	w.send("events", w.evs(6, "a")...)
	st, err := w.log.Stat(t.Context(), "events")
	require.NoError(t, err)
	w.log.Cut()
	w.view.lost = []event.Span{{Incarnation: st.Incarnation, From: 4, To: 6}}
	w.requireRows(w.cut(id("a"))[0], func(s spot) bool { return s.offset < 4 })
}
