package sinktest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"naru/internal/event"
	"naru/internal/sink"
)

// Rewinds says what a target that is a sink.Rewinder gives back.
type Rewinds int

// Rewinds.
const (
	Never    Rewinds = iota // nothing: it gets rows again
	Wholly                  // all that it has, or nothing
	Anywhere                // what lies behind a place
)

// written is a run of rows that a target has got.
type written struct {
	life      event.Incarnation
	partition int32
	from, n   int64
	prefix    string
}

// filled writes three commits, of two partitions and two lives of the log.
func (h Harness) filled(t *testing.T) []written {
	s := h.Open(t)
	runs := []written{{Lives[0], 0, 0, 20, "a"}, {Lives[0], 1, 3, 7, "p"}, {Lives[0], 0, 20, 20, "a"}, {Lives[0], 0, 40, 6, "a"}, {Lives[1], 0, 46, 9, "l"}}
	for i, r := range runs {
		b, _ := Rows(r.life, r.partition, r.from, int(r.n), r.prefix)
		h.write(t, s, b)
		if i != 0 {
			commit(t, s, b)
		}
	}
	closeSink(t, s)
	return runs
}

// left are the ids of rows that the target keeps when all from a place on goes.
func (h Harness) left(runs []written, from event.Positions) (ids []string) {
	for _, r := range runs {
		_, all := Rows(r.life, r.partition, r.from, int(r.n), r.prefix)
		cut, some := from.Get(r.life, r.partition)
		for _, id := range all {
			if off := offsetOf(id); (!some || off < cut) && !(h.Narrow && off%5 == 4) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// offsetOf reads the offset in an id of Rows.
func offsetOf(id string) (off int64) {
	_, number, _ := strings.Cut(id, "-")
	fmt.Sscanf(number, "%d/", &off) //nolint:errcheck // Rows has made it
	return off
}

// rewindable asks a sink of its own, as the pipeline does.
func (h Harness) rewindable(t *testing.T, from event.Positions) (event.Positions, error) {
	s := h.Open(t)
	defer closeSink(t, s)
	return s.(sink.Rewinder).Rewindable(t.Context(), from)
}

// rewind takes the target back, twice, as after a crash.
func (h Harness) rewind(t *testing.T, from event.Positions, again bool) {
	t.Helper()
	for range 2 {
		s := h.Open(t)
		if err := s.(sink.Rewinder).Rewind(t.Context(), from, again); err != nil {
			t.Fatalf("Rewind to %s: %v", from, err)
		}
		closeSink(t, s)
	}
	s := h.Open(t)
	at, err := s.(sink.Resumer).Resume(t.Context(), Stream)
	closeSink(t, s)
	if err != nil {
		t.Fatalf("Resume: %v", err)
	}
	for inc, parts := range from {
		for partition, off := range parts {
			if now, _ := at.Get(inc, partition); now > off {
				t.Errorf("after a rewind to %s it goes on at %s", from, at)
			}
		}
	}
}

func testRewind(t *testing.T, h Harness) {
	s := h.Open(t)
	_, ok := s.(sink.Rewinder)
	closeSink(t, s)
	switch {
	case !ok && h.Rewinds == Never:
		t.Skip("the sink is no Rewinder")
	case !ok:
		t.Fatal("the sink is no Rewinder")
	}
	asked := event.Positions{Lives[0]: {0: 30}, Lives[1]: {0: 0}}
	runs := h.filled(t)
	if h.Rewinds == Anywhere {
		h.back(t, runs, asked)
		return
	}
	for _, from := range []event.Positions{asked, {Lives[1]: {0: 50}}} {
		if at, err := h.rewindable(t, from); !errors.Is(err, sink.ErrStays) {
			t.Fatalf("Rewindable %s: %s, %v; want ErrStays", from, at, err)
		}
	}
	holds(t, h, h.left(runs, nil))
	if h.Rewinds == Wholly {
		h.back(t, runs, everything)
	}
}

// everything is the place where all that filled writes begins.
var everything = event.Positions{Lives[0]: {0: 0, 1: 0}, Lives[1]: {0: 0}}

// RewindAll takes back all that there is, or a target that has nothing.
func testRewindAll(t *testing.T, h Harness) {
	if h.Rewinds == Never {
		t.Skip("the target gives nothing back")
	}
	h.back(t, h.back(t, nil, everything), everything)
}

// RewindIntoALife leaves what other lives of the log have brought.
func testRewindIntoALife(t *testing.T, h Harness) {
	if h.Rewinds != Anywhere {
		t.Skip("the target gives back all or nothing")
	}
	h.back(t, h.filled(t), event.Positions{Lives[1]: {0: 50}})
}

// RewindSendsAgain: the rows stay, and come again.
func testRewindSendsAgain(t *testing.T, h Harness) {
	s := h.Open(t)
	_, ok := s.(sink.Rewinder)
	closeSink(t, s)
	if !ok {
		t.Skip("the sink is no Rewinder")
	}
	h.again(t, h.filled(t), event.Positions{Lives[0]: {0: 30}, Lives[1]: {0: 0}})
}

// back takes a target back, writes other rows from there on, and reads all once more. It
// returns what was written behind the place.
func (h Harness) back(t *testing.T, runs []written, asked event.Positions) (fresh []written) {
	t.Helper()
	from, err := h.rewindable(t, asked)
	if err != nil {
		t.Fatalf("Rewindable %s: %v", asked, err)
	}
	for inc, parts := range asked {
		for partition, off := range parts {
			if got, ok := from.Get(inc, partition); !ok || got > off {
				t.Errorf("Rewindable %s gives %s", asked, from)
			}
		}
	}
	holds(t, h, h.left(runs, nil)) // it was only asked
	h.rewind(t, from, false)
	want := h.left(runs, from)
	holds(t, h, want)
	// Rows of other steps, in other batches.
	s := h.Open(t)
	for _, inc := range Lives {
		for partition := range int32(2) {
			off, ok := from.Get(inc, partition)
			if !ok {
				continue
			}
			if inc == Lives[1] {
				off = max(off, 46)
			}
			for _, n := range []int64{3, 9} {
				next := written{inc, partition, off, n, fmt.Sprint("new", partition)}
				b, _ := Rows(inc, partition, off, int(n), next.prefix)
				h.write(t, s, b)
				commit(t, s, b)
				fresh, off = append(fresh, next), off+n
			}
		}
	}
	closeSink(t, s)
	want = append(want, h.left(fresh, nil)...)
	holds(t, h, want)
	s = h.Open(t)
	for _, r := range runs { // the watermark was lost
		b, _ := Rows(r.life, r.partition, r.from, int(r.n), r.prefix)
		cut, some := from.Get(r.life, r.partition)
		if b.Next = min(b.Next, cut); some && b.Next <= b.From {
			continue
		} else if !some {
			b.Next = r.from + r.n
		}
		b.Rows = b.Rows.Only(func(r *event.Row) bool { return r.Offset < b.Next })
		h.write(t, s, b)
	}
	commit(t, s)
	closeSink(t, s)
	holds(t, h, want)
	return fresh
}

// again takes positions back alone.
func (h Harness) again(t *testing.T, runs []written, from event.Positions) {
	t.Helper()
	h.rewind(t, from, true)
	all := h.left(runs, nil)
	holds(t, h, all)
	s := h.Open(t)
	more := written{Lives[0], 0, 30, 16, "new"}
	b, _ := Rows(more.life, more.partition, more.from, int(more.n), more.prefix)
	h.write(t, s, b)
	other := written{Lives[1], 0, 46, 9, "newer"}
	c, _ := Rows(other.life, other.partition, other.from, int(other.n), other.prefix)
	h.write(t, s, c)
	commit(t, s, b, c)
	closeSink(t, s)
	holds(t, h, append(all, h.left([]written{more, other}, nil)...))
}
