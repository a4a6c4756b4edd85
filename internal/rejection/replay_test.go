package rejection

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/stream"
	"naru/internal/stream/memory"
)

func quantityOf(n int) quantity.Bytes { return quantity.Bytes(n) }

// refusedWorld has 3 events taken, and 4 too large ones, one of them no JSON for
// ever, refused.
func refusedWorld(t *testing.T) *world {
	w := newWorld(t, memory.New(), 64)
	w.post("", `{"type":"a","n":1}`+"\n"+
		`{"type":"a","n":2,"text":"`+strings.Repeat("x", 80)+`"}`+"\n"+
		`{"type":"b","key":"k3","n":3,"time":"2026-01-02T03:04:05Z","text":"`+strings.Repeat("y", 80)+`"}`+"\n"+
		`{"type":"a","n":4`+"\n"+
		`{"type":"a","n":5}`+"\n")
	w.post("?stream=web&type=c&source=app", `{"n":6,"text":"`+strings.Repeat("z", 80)+`"}`+"\n"+`{"n":7}`+"\n")
	return w
}

func TestReplaySendsEachOnce(t *testing.T) {
	w := refusedWorld(t)
	w.wantCounts(map[string][2]int64{"events": {5, 3}, "web": {2, 1}, "rejected": {4, 0}})
	// By the same rules all are refused again: attempts, no new rejections.
	if got := w.replay(Filter{}, false); got.Matched != 4 || got.Refused != 4 || got.Replayed != 0 || got.ByReason["too_large"] != 3 || got.ByReason["not_json"] != 1 {
		t.Fatalf("by the same rules: %+v", got)
	}
	w.wantCounts(map[string][2]int64{"events": {5, 3}, "web": {2, 1}, "rejected": {4, 0}, "rejected_states": {4, 0}})
	w.judgeBy(1 << 20)
	before := len(w.states())
	if got := w.replay(Filter{}, true); got.Replayed != 3 || got.Refused != 1 || !got.DryRun || len(w.states()) != before {
		t.Fatalf("dry run: %+v, %d records", got, len(w.states())-before)
	}
	if got := w.replay(Filter{}, false); got.Matched != 4 || got.Replayed != 3 || got.Refused != 1 || got.Closed != 0 {
		t.Fatalf("by larger limits: %+v", got)
	}
	for range 2 {
		if got := w.replay(Filter{}, false); got.Replayed != 0 || got.Refused != 1 || got.Closed != 3 {
			t.Fatalf("once more: %+v", got)
		}
	}
	w.wantCounts(map[string][2]int64{"events": {5, 1}, "web": {2, 0}, "rejected": {4, 3}})
	if got := w.data("events"); len(got) != 4 || !strings.Contains(got[2], `"n":2`) || !strings.Contains(got[3], `"n":3`) {
		t.Errorf("events %q", got)
	}
	if got := w.data("web"); len(got) != 2 || !strings.Contains(got[1], `"n":6`) {
		t.Errorf("web %q", got)
	}
}

// TestReplayedEventIsTheSame: id, source, type, times and bytes are those of the
// first receipt, and the record of its state names its place.
func TestReplayedEventIsTheSame(t *testing.T) {
	w := refusedWorld(t)
	rejected := all(t, w.log, "rejected")
	w.judgeBy(1 << 20)
	w.replay(Filter{}, false)
	events, web := all(t, w.log, "events"), all(t, w.log, "web")
	for _, c := range []struct {
		got      event.Event
		of       event.Event
		id, typ  string
		source   string
		at       time.Time
		generate bool
	}{
		{events[2], rejected[0], string(rejected[0].ID), "a", "/v1/events", time.Time{}, true},
		{events[3], rejected[1], "k3", "b", "/v1/events", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), false},
		{web[1], rejected[3], string(rejected[3].ID), "c", "app", time.Time{}, true},
	} {
		if string(c.got.ID) != c.id || string(c.got.Type) != c.typ || string(c.got.Source) != c.source || c.got.GeneratedID != c.generate ||
			!c.got.ReceivedAt.Equal(received) || !c.got.Time.Equal(c.at) || string(c.got.Data) != string(c.of.Data) {
			t.Errorf("sent again: %+v, rejection %+v", c.got, c.of)
		}
	}
	var places []string
	for _, s := range w.states() {
		if s.State == Replayed {
			places = append(places, fmt.Sprintf("%d→%s/%d/%d", s.Offset, s.EventStream, s.EventPartition, s.EventOffset))
		}
	}
	if want := []string{"0→events/0/2", "1→events/0/3", "3→web/0/1"}; !slices.Equal(places, want) {
		t.Errorf("places %v, want %v", places, want)
	}
	// Retention goes by the replay's time, else the event could go at once.
	b, err := w.log.Read(t.Context(), "events", event.Position{Offset: 2}, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	w1 := stream.Write{Stream: "x", Batch: b.Raw[len(b.Raw)-1], Count: 2}
	if h, err := w1.Check(); err != nil || h.MaxTimeMs != w.now.UnixMilli() {
		t.Errorf("latest time of the batch %d, want %d (%v)", h.MaxTimeMs, w.now.UnixMilli(), err)
	}
}

func TestStatesOutliveTheProcess(t *testing.T) {
	w := refusedWorld(t)
	w.judgeBy(1 << 20)
	w.replay(Filter{Type: "a"}, false)
	if res, err := w.Discard(t.Context(), Filter{Reason: "not_json"}, false, nil); err != nil || res.Discarded != 1 || res.Matched != 1 {
		t.Fatalf("discard: %+v, %v", res, err)
	}
	again := newWorld(t, w.log, 1<<20)
	if got := again.replay(Filter{}, false); got.Closed != 2 || got.Replayed != 2 || got.Refused != 0 {
		t.Errorf("after a restart: %+v", got)
	}
	if n := again.known.len(); n != 4 {
		t.Errorf("%d closed, want 4", n)
	}
	again.wantCounts(map[string][2]int64{"events": {5, 1}, "web": {2, 0}, "rejected": {4, 3}})
}

// TestRefusedSince: what is refused after the first replay is in the counts, too.
func TestRefusedSince(t *testing.T) {
	w := newWorld(t, memory.New(), 1<<20)
	w.replay(Filter{}, false)
	w.post("", "[1]\n")
	w.replay(Filter{}, false)
	for range 2 {
		w.judgeBy(64)
		w.post("", fmt.Sprintf(`{"type":"a","text":"%s"}`, strings.Repeat("x", 80))+"\n")
		w.judgeBy(1 << 20)
		if got := w.replay(Filter{Reason: "too_large"}, false); got.Replayed != 1 {
			t.Errorf("%+v", got)
		}
	}
	w.wantCounts(map[string][2]int64{"events": {3, 1}, "rejected": {3, 2}})
}

func TestTwoAtOnce(t *testing.T) {
	w := newWorld(t, memory.New(), 64)
	const n = 3000
	var body strings.Builder
	for i := range n {
		fmt.Fprintf(&body, `{"type":"a","n":%d,"text":"%s"}`+"\n", i, strings.Repeat("x", 80))
	}
	w.post("", body.String())
	w.judgeBy(1 << 20)
	var sum struct {
		sync.Mutex
		Result
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			res, err := w.Replay(t.Context(), Filter{}, false, nil)
			if err != nil {
				t.Error(err)
			}
			sum.Lock()
			defer sum.Unlock()
			sum.Replayed += res.Replayed
			if res.Done() != n {
				t.Errorf("%+v", res)
			}
		})
	}
	group.Wait()
	if sum.Replayed != n {
		t.Errorf("%d replayed, want %d", sum.Replayed, n)
	}
	got := w.data("events")
	slices.Sort(got)
	if len(got) != n || len(slices.Compact(got)) != n {
		t.Errorf("%d events, %d of them different; want %d", len(got), len(slices.Compact(got)), n)
	}
	w.wantCounts(map[string][2]int64{"events": {n, 0}, "rejected": {n, n}, "rejected_states": {n, 0}})
}

// smallLog takes frames of so many bytes only, and fails when it is told to.
type smallLog struct {
	stream.Log
	max    int
	failed error // after the append, or instead of it
	stored bool
}

func (l *smallLog) Append(ctx context.Context, writes ...stream.Write) ([]event.Position, error) {
	size := 0
	for _, w := range writes {
		size += len(w.Batch)
	}
	if l.max > 0 && size > l.max {
		return nil, fmt.Errorf("%w: %d bytes", fault.ErrLimit, size)
	}
	if l.failed != nil && !l.stored {
		return nil, l.failed
	}
	at, err := l.Log.Append(ctx, writes...)
	if l.failed != nil {
		return nil, l.failed
	}
	return at, err
}

func TestLogTakesLittleAtOnce(t *testing.T) {
	w := newWorld(t, memory.New(), 64)
	for i := range 20 {
		w.post("", fmt.Sprintf(`{"type":"a","n":%d,"text":"%s"}`, i, strings.Repeat("x", 200))+"\n")
	}
	small := &smallLog{Log: w.log, max: 2500}
	w.deps.Log = small
	w.judgeBy(1 << 20)
	if got := w.replay(Filter{}, false); got.Replayed != 20 || got.Done() != got.Matched {
		t.Errorf("%+v", got)
	}
	if got := w.data("events"); len(got) != 20 {
		t.Errorf("%d events", len(got))
	}
}

// TestUnknownAnswer: an append whose answer is an error may have been stored; the
// next replay asks the log.
func TestUnknownAnswer(t *testing.T) {
	for _, stored := range []bool{false, true} {
		w := newWorld(t, memory.New(), 64)
		w.post("", fmt.Sprintf(`{"type":"a","text":"%s"}`, strings.Repeat("x", 200))+"\n")
		w.judgeBy(1 << 20)
		lost := errors.New("the answer is lost")
		small := &smallLog{Log: w.log, failed: lost, stored: stored}
		w.deps.Log = small
		if res, err := w.Replay(t.Context(), Filter{}, false, nil); !errors.Is(err, lost) || res.Replayed != 0 {
			t.Fatalf("stored %v: %+v, %v", stored, res, err)
		}
		small.failed = nil
		w.replay(Filter{}, false)
		if got := w.data("events"); len(got) != 1 {
			t.Errorf("stored %v: %d events, want 1", stored, len(got))
		}
		w.wantCounts(map[string][2]int64{"events": {1, 0}, "rejected": {1, 1}})
	}
}

// halfStore fails after the first rejection of a page has been read.
type halfStore struct {
	*logStore
	failed error
}

func (s halfStore) Fetch(ctx context.Context, l Lane, from, to int64, fn func(*event.Event) error) error {
	n := 0
	return s.logStore.Fetch(ctx, l, from, to, func(e *event.Event) error {
		if n++; n > 1 {
			return s.failed
		}
		return fn(e)
	})
}

// TestReadingFailsHalfway: what was judged and not stored is not said to be sent
// again.
func TestReadingFailsHalfway(t *testing.T) {
	w := newWorld(t, memory.New(), 64)
	for i := range 3 {
		w.post("", fmt.Sprintf(`{"type":"a","n":%d,"text":"%s"}`, i, strings.Repeat("x", 200))+"\n")
	}
	w.judgeBy(1 << 20)
	lost := errors.New("the disk is gone")
	w.deps.Store = halfStore{&logStore{w.log}, lost}
	if res, err := w.Replay(t.Context(), Filter{}, false, nil); !errors.Is(err, lost) || res.Replayed != 0 || res.Done() != 0 {
		t.Errorf("%+v, %v", res, err)
	}
	w.wantCounts(map[string][2]int64{"events": {3, 3}, "rejected": {3, 0}})
}

// TestNotInTheCounts: a rejection that a repair has cut off the log is in its table
// alone; sent again, it is acknowledged anew.
func TestNotInTheCounts(t *testing.T) {
	w := refusedWorld(t)
	w.judgeBy(1 << 20)
	other := event.Incarnation{9}
	b := &batch{r: w.Rejections}
	w.known = nil
	if err := w.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.open(t.Context(), Lane{}, nil, &Result{}); err != nil {
		t.Fatal(err)
	}
	rej := all(t, w.log, "rejected")[0]
	var res Result
	if err := b.judge(t.Context(), event.Position{Incarnation: other, Offset: 0}, &rej, &res); err != nil {
		t.Fatal(err)
	}
	if err := b.append(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.release()
	w.wantCounts(map[string][2]int64{"events": {6, 3}, "rejected": {4, 0}})
}

func TestPages(t *testing.T) {
	w := refusedWorld(t)
	w.cfg.Page = 1
	w.judgeBy(1 << 20)
	var told []int64
	if _, err := w.Replay(t.Context(), Filter{}, false, func(r Result) { told = append(told, r.Done()) }); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(told, []int64{1, 2, 3, 4}) {
		t.Errorf("told %v", told)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Replay(ctx, Filter{}, false, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// len counts them.
func (c *closed) len() (n int64) {
	for _, pages := range c.lanes {
		for _, p := range pages {
			for _, w := range p.words {
				n += int64(bits.OnesCount64(w))
			}
			if p.words == nil {
				n += pageBits
			}
		}
	}
	return n
}

func TestClosedIndex(t *testing.T) {
	c := &closed{lanes: map[laneKey]map[int64]*bitPage{}, limit: 2 * pageBytes}
	at := func(inc byte, offset int64) event.Position {
		return event.Position{Incarnation: event.Incarnation{inc}, Offset: offset}
	}
	for i := range int64(pageBits) {
		if err := c.add(at(1, i)); err != nil {
			t.Fatal(err)
		}
	}
	if c.pages != 0 || c.len() != pageBits {
		t.Errorf("a full page takes %d pages, holds %d", c.pages, c.len())
	}
	for _, p := range []event.Position{at(1, pageBits+7), at(2, 7), at(2, 7)} {
		if err := c.add(p); err != nil {
			t.Fatal(err)
		}
	}
	if c.len() != pageBits+2 || !c.has(at(2, 7)) || c.has(at(2, 8)) || c.has(at(3, 7)) || !c.has(at(1, 0)) || c.has(at(1, pageBits)) {
		t.Errorf("index holds %d", c.len())
	}
	if err := c.add(at(3, 1)); !errors.Is(err, fault.ErrLimit) || !strings.Contains(fault.HintOf(err), "rejected.memory") {
		t.Errorf("beyond the limit: %v", err)
	}
}

func TestParseID(t *testing.T) {
	want := event.Position{Incarnation: event.Incarnation{1, 2}, Partition: 3, Offset: 4}
	if got, err := ParseID(want.String()); err != nil || got != want {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "4", "x/0/1", want.Incarnation.String() + "/0", want.Incarnation.String() + "/-1/1", want.Incarnation.String() + "/0/x", want.String() + "/5",
		strings.ToUpper("ab" + want.String()[2:]), want.Incarnation.String() + "/03/4", want.Incarnation.String() + "/3/+4"} {
		if _, err := ParseID(bad); !errors.Is(err, errName) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
