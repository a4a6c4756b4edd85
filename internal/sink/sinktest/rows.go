package sinktest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/sink"
)

// Columns are of all types: what Row makes.
var Columns = []event.Column{
	{Name: "_id", Type: event.StringColumn}, {Name: "_time", Type: event.TimestampColumn},
	{Name: "n", Type: event.LongColumn}, {Name: "x", Type: event.DoubleColumn}, {Name: "yes", Type: event.BoolColumn},
	{Name: "Text é", Type: event.StringColumn}, {Name: "at", Type: event.TimestampColumn}, {Name: "day", Type: event.DateColumn},
	{Name: "list", Type: event.JSONColumn}, {Name: "_offset", Type: event.LongColumn},
}

// Row makes a row as steps do, of Columns: its ID is the one by which it is looked
// for. Every third has nulls, every fifth values at the ends of their ranges.
func Row(id string, offset int64, number int32) event.Event {
	at := time.Date(2015, 9, 12, 10, 0, int(offset%60), 123456000, time.UTC)
	data := fmt.Sprintf(`{"n":%d,"x":%d.5,"yes":%t,"Text é":"%s","at":"2026-03-01T12:30:00.123456Z","day":"2026-03-01","list":[1,{"a":null}]}`, offset, offset, offset%2 == 0, id)
	switch {
	case offset%5 == 4:
		data = `{"n":-9223372036854775808,"x":1.7976931348623157e+308,"yes":false,"Text é":"\"a\",\tb\\\r\n\u0000ü","at":"0001-01-01T00:00:00Z","day":"9999-12-31","list":"text"}`
	case offset%3 == 2:
		data = `{"n":1}`
	}
	return event.Event{ID: []byte(id), Source: []byte("/test"), Type: []byte("page_view"), Time: at, ReceivedAt: at, Data: []byte(data), Offset: offset, Row: number}
}

// Rows makes a batch of rows of n events whose first has the offset base: an event
// has none, one, two or three, with the ids PREFIX-OFFSET/ROW. It returns them too.
func Rows(life event.Incarnation, partition int32, base int64, n int, prefix string) (*event.Batch, []string) {
	b := &event.Batch{Stream: Stream, Incarnation: life, Partition: partition, From: base, Next: base + int64(n), Columns: Columns, Rows: &event.Rows{}}
	var ids []string
	for off := base; off < b.Next; off++ {
		for number := range int32((off*7 + 1) % 4) {
			id := fmt.Sprintf("%s-%d/%d", prefix, off, number)
			b.Rows.Add(Row(id, off, number))
			ids = append(ids, id)
		}
	}
	return b, ids
}

// Changed gives rows as they are after a change of each.
func Changed(rows *event.Rows, change func(i int, e *event.Event)) *event.Rows {
	all := rows.Whole()
	for i := range all {
		change(i, &all[i])
	}
	return event.RowsOf(all...)
}

// AsRows makes rows of events that come without steps, as the pipeline does for a
// kind that is Tabular: with the envelope and the column n.
func AsRows(b *event.Batch) *event.Batch {
	if b.Rows != nil {
		return b
	}
	out := *b
	out.Raw, out.Rows = nil, &event.Rows{}
	out.Columns = append(slices.Clone(event.Envelope), event.Column{Name: "n", Type: event.LongColumn})
	var dec recordbatch.Decoder
	err := dec.EachIn(b, func(e *event.Event) error {
		out.Rows.Add(event.Event{ID: bytes.Clone(e.ID), Type: bytes.Clone(e.Type), Source: bytes.Clone(e.Source),
			Time: e.Time, ReceivedAt: e.ReceivedAt, Offset: e.Offset, Data: bytes.Clone(e.Data)})
		return nil
	})
	if err != nil {
		panic(err) // the suite has made it
	}
	return &out
}

// Several rows of an event, events without any, values of all types.
func testRows(t *testing.T, h Harness) {
	s := h.Open(t)
	first, a := Rows(Lives[0], 0, 0, 20, "a")
	h.write(t, s, first)
	commit(t, s, first)
	second, b := Rows(Lives[0], 0, first.Next, 9, "a")
	h.write(t, s, second)
	commit(t, s, second)
	closeSink(t, s)
	if want := append(slices.Clone(a), b...); h.Narrow {
		holds(t, h, slices.DeleteFunc(want, atTheEnds))
	} else {
		holds(t, h, want)
	}
	s = h.Open(t)
	again, _ := Rows(Lives[0], 0, 0, 29, "a") // the watermark was lost
	h.write(t, s, again)
	third, c := Rows(Lives[0], 0, again.Next, 5, "a")
	h.write(t, s, third)
	commit(t, s, third)
	closeSink(t, s)
	all := append(append(a, b...), c...)
	if h.Narrow {
		all = slices.DeleteFunc(all, atTheEnds)
	}
	holds(t, h, all)
}

// atTheEnds tells whether Row gives the row with that id values at the ends of their
// ranges.
func atTheEnds(id string) bool {
	var off, number int
	_, err := fmt.Sscanf(id, "a-%d/%d", &off, &number)
	return err == nil && off%5 == 4
}

// The steps were changed: other columns, in another order, from one batch to the next.
func testOtherColumns(t *testing.T, h Harness) {
	s := h.Open(t)
	first, a := Rows(Lives[0], 0, 0, 6, "a")
	second, b := Rows(Lives[0], 0, 6, 6, "a")
	second.Columns = append(slices.Clone(Columns[3:5]), event.Column{Name: "more", Type: event.StringColumn}, Columns[0])
	third, c := Rows(Lives[0], 0, 12, 6, "a")
	third.Columns = slices.Clone(Columns)
	third.Columns[2].Type = event.StringColumn // n was a long
	third.Rows = Changed(third.Rows, func(_ int, e *event.Event) {
		e.Data = []byte(strings.Replace(string(e.Data), `"n":`, `"n":"text","m":`, 1))
	})
	h.write(t, s, first)
	h.write(t, s, second)
	commit(t, s, second)
	h.write(t, s, third)
	commit(t, s, third)
	closeSink(t, s)
	all := append(a, b...)
	if !h.Typed {
		all = append(all, c...)
	}
	if h.Narrow {
		all = slices.DeleteFunc(all, atTheEnds)
	}
	holds(t, h, all)
}

// A row that the target refuses is told once, after the Commit that covers it, and
// holds up nothing.
func testRefused(t *testing.T, h Harness) {
	if h.Refuse == nil {
		t.Skip("the target refuses no rows")
	}
	h.Refuse("a-3", "b-0", "b-4")
	s := h.Open(t)
	told := func(want ...int64) {
		t.Helper()
		var got []int64
		for _, r := range s.(sink.Refuser).Refused() {
			if r.Detail == "" || r.Dropped || r.At.Incarnation != Lives[0] || r.At.Partition != 0 {
				t.Errorf("refused %+v: wants a place and what the target says", r)
			}
			got = append(got, r.At.Offset)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("refused rows at %d, want %d", got, want)
		}
	}
	a, b := Events("a", 7), Events("b", 5)
	first := Batch(Lives[0], 0, 0, a...)
	h.write(t, s, first)
	told() // nothing is covered yet
	commit(t, s, first)
	second := Batch(Lives[0], 0, first.Next, b...)
	h.write(t, s, second)
	told(3)
	told()
	commit(t, s, second)
	told(7, 11)
	closeSink(t, s)
	holds(t, h, slices.DeleteFunc(ids(a, b), func(id string) bool { return id == "a-3" || id == "b-0" || id == "b-4" }))
}

// However events are cut into batches, and whenever the sink is closed, opened and
// has to read again from some place at or before the last commit: nothing is missing.
func testAnyCuts(t *testing.T, h Harness) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 2))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	const total = 80
	all := Events("a", total)
	mark := int64(0)
	for session := 0; mark < total; session++ {
		s := h.Open(t)
		at := rng.Int64N(mark + 1)
		if session == 0 {
			at = 0
		}
		for mark < total {
			n := min(1+rng.Int64N(25), total-at)
			if n > 0 {
				b := Batch(Lives[0], 0, max(at-rng.Int64N(3), 0), all[at:at+n]...)
				if b.From != at { // the record batch begins before what is asked for
					b = Batch(Lives[0], 0, b.From, all[b.From:at+n]...)
					b.From = at
				}
				h.write(t, s, b)
				at = b.Next
			}
			if rng.IntN(3) > 0 && at < total {
				continue
			}
			if rng.IntN(5) == 0 && session < 20 {
				break
			}
			done, err := s.Commit(t.Context())
			if d, ok := s.(sink.Drainer); ok && err == nil && rng.IntN(2) == 0 {
				done, err = d.Drain(t.Context())
			}
			if err != nil {
				t.Fatalf("Commit: %v", err)
			}
			if off, ok := done.Get(Lives[0], 0); ok && off > at {
				t.Fatalf("Commit covers %s, only what is below %d was written", done, at)
			} else if ok {
				mark = max(mark, off)
			}
		}
		closeSink(t, s)
	}
	holds(t, h, ids(all))
}
