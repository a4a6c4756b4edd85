package rejection

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"naru/internal/collect"
	"naru/internal/collect/native"
	"naru/internal/event"
	"naru/internal/obs"
	"naru/internal/recordbatch"
	"naru/internal/stream"
)

// received is the time of receipt of what is refused in tests; replays are later.
var received = time.Date(2026, 11, 21, 10, 0, 0, 5e6, time.UTC)

// world is a log, a door before it, and rejections.
type world struct {
	t    testing.TB
	log  stream.Log
	door *native.Door
	now  time.Time
	*Rejections
}

func newWorld(t testing.TB, log stream.Log, maxEvent int) *world {
	t.Helper()
	w := &world{t: t, log: log, now: received}
	w.judgeBy(maxEvent)
	var err error
	w.Rejections, err = New(DefaultConfig(), Deps{Log: log, Store: &logStore{log}, Logger: obs.Discard(), Now: func() time.Time { return w.now },
		Door: func(ctx context.Context, name string) (Door, error) { return w.door.Replay(ctx, name) }})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// judgeBy makes a door that takes events of so many bytes.
func (w *world) judgeBy(maxEvent int) {
	w.t.Helper()
	cfg := collect.DefaultConfig()
	cfg.Event = quantityOf(maxEvent)
	cfg.IDField = "key"
	e, err := collect.New(cfg, collect.Deps{Log: w.log, Registry: obs.NewRegistry(), Logger: obs.Discard(), Now: func() time.Time { return w.now }})
	if err == nil {
		w.door, err = native.New(e)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// post sends NDJSON to a stream.
func (w *world) post(query, body string, headers ...string) {
	w.t.Helper()
	r := httptest.NewRequest("POST", native.Path+query, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-ndjson")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	w.door.ServeHTTP(rec, r)
	if rec.Code != 200 {
		w.t.Fatalf("%d %s", rec.Code, rec.Body)
	}
}

func (w *world) replay(f Filter, dry bool) Result {
	w.t.Helper()
	w.now = w.now.Add(time.Hour)
	res, err := w.Replay(w.t.Context(), f, dry, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

// all reads a whole stream; the events are copies.
func all(t testing.TB, log stream.Log, name string) []event.Event {
	t.Helper()
	var out []event.Event
	if err := (&logStore{log}).each(t.Context(), name, func(_ event.Position, e *event.Event) error {
		out = append(out, clone(e))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func clone(e *event.Event) event.Event {
	c := *e
	c.ID, c.Source, c.Type, c.Subject, c.Key = slices.Clone(e.ID), slices.Clone(e.Source), slices.Clone(e.Type), slices.Clone(e.Subject), slices.Clone(e.Key)
	c.ContentType, c.Data, c.Extensions = slices.Clone(e.ContentType), slices.Clone(e.Data), nil
	for _, x := range e.Extensions {
		c.Extensions = append(c.Extensions, event.Attr{Name: slices.Clone(x.Name), Value: slices.Clone(x.Value)})
	}
	if e.Refusal != nil {
		r := *e.Refusal
		r.Original = c.Data
		c.Refusal = &r
	}
	return c
}

// data is the values of a stream in order.
func (w *world) data(name string) []string {
	var out []string
	for _, e := range all(w.t, w.log, name) {
		out = append(out, string(e.Data))
	}
	return out
}

// counts gives acknowledged and refused of a stream.
func (w *world) counts(name string) [2]int64 {
	w.t.Helper()
	st, err := w.log.Stat(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return [2]int64{st.Acknowledged, st.Refused}
}

func (w *world) wantCounts(want map[string][2]int64) {
	w.t.Helper()
	for name, c := range want {
		if got := w.counts(name); got != c {
			w.t.Errorf("stream %s: acknowledged and refused %v, want %v", name, got, c)
		}
	}
}

// states are the records of rejected_states, in order.
func (w *world) states() []Change {
	var out []Change
	for _, e := range all(w.t, w.log, event.RejectedStates) {
		var c Change
		if err := json.Unmarshal(e.Data, &c); err != nil {
			w.t.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

// logStore finds rejections in the log, for tests without tables.
type logStore struct{ log stream.Log }

func (s *logStore) each(ctx context.Context, name string, fn func(event.Position, *event.Event) error) error {
	st, err := s.log.Stat(ctx, name)
	if err != nil {
		return nil // there is none
	}
	var dec recordbatch.Decoder
	for _, x := range st.Ranges {
		for at := x.Start; at < x.End; {
			b, err := s.log.Read(ctx, name, event.Position{Incarnation: x.Incarnation, Partition: x.Partition, Offset: at}, 1<<20)
			if err != nil {
				return err
			}
			if err := dec.EachIn(b, func(e *event.Event) error {
				return fn(event.Position{Incarnation: x.Incarnation, Partition: x.Partition, Offset: e.Offset}, e)
			}); err != nil {
				return err
			}
			at = b.Next
		}
	}
	return nil
}

func (s *logStore) chosen(ctx context.Context, f Filter, fn func(event.Position, *event.Event)) error {
	return s.each(ctx, event.RejectedStream, func(at event.Position, e *event.Event) error {
		r := e.Refusal
		if (f.ID == "" || f.ID == at.String()) && (f.Type == "" || f.Type == r.Type) && (f.Reason == "" || f.Reason == string(r.Reason)) &&
			(f.Stream == "" || f.Stream == r.Stream) && !e.ReceivedAt.Before(f.Since) {
			fn(at, e)
		}
		return nil
	})
}

func (s *logStore) Lanes(ctx context.Context, f Filter) ([]Lane, error) {
	lanes := map[laneKey]Lane{}
	err := s.chosen(ctx, f, func(at event.Position, _ *event.Event) {
		k := laneKey{at.Incarnation, at.Partition}
		l, ok := lanes[k]
		if !ok {
			l = Lane{Incarnation: at.Incarnation, Partition: at.Partition, First: at.Offset}
		}
		l.Last = at.Offset
		l.Count++
		lanes[k] = l
	})
	return slices.SortedFunc(maps.Values(lanes), func(a, b Lane) int { return int(a.First - b.First) }), err
}

func (s *logStore) Entries(ctx context.Context, f Filter, l Lane, from, to int64) (out []Entry, err error) {
	err = s.chosen(ctx, f, func(at event.Position, e *event.Event) {
		if at.Incarnation == l.Incarnation && at.Partition == l.Partition && at.Offset >= from && at.Offset < to {
			out = append(out, Entry{at.Offset, int64(len(e.Data))})
		}
	})
	return out, err
}

func (s *logStore) Fetch(ctx context.Context, l Lane, from, to int64, fn func(*event.Event) error) error {
	return s.each(ctx, event.RejectedStream, func(at event.Position, e *event.Event) error {
		if at.Incarnation == l.Incarnation && at.Partition == l.Partition && at.Offset >= from && at.Offset <= to {
			return fn(e)
		}
		return nil
	})
}

func (s *logStore) Closed(ctx context.Context, _ func(event.Position) error) error {
	return fmt.Errorf("the log has all states")
}
