package status

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/obs"
	"naru/internal/recordbatch"
	"naru/internal/stream"
	"naru/internal/stream/memory"
)

type fakeLake struct {
	lake.Reader
	infos map[lake.Ident]*lake.Info
	order []lake.Ident
}

func (f *fakeLake) List(context.Context) ([]lake.Ident, error) { return f.order, nil }
func (f *fakeLake) Info(_ context.Context, t lake.Ident) (*lake.Info, error) {
	if i := f.infos[t]; i != nil {
		return i, nil
	}
	if t.Name == "gone" {
		return nil, lake.ErrNoTable
	}
	return nil, errors.New("metadata is unreadable")
}

func put(t *testing.T, log stream.Log, name, refusedFrom string, n int) {
	t.Helper()
	var b recordbatch.Builder
	b.Reset(time.UnixMilli(1))
	for range n {
		b.AppendEvent(&event.Event{ID: []byte("i"), Source: []byte("/s"), Type: []byte("t"), Data: []byte("{}")})
	}
	_, err := log.Append(t.Context(), stream.Write{Stream: name, Batch: b.Finish(nil, recordbatch.None), Count: int32(n), RefusedFrom: refusedFrom})
	if err != nil {
		t.Fatal(err)
	}
}

func mark(t *testing.T, log stream.Log, name string, offset int64, c stream.Counts) {
	t.Helper()
	st, err := log.Stat(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	at := event.Positions{}
	at.Advance(event.Position{Incarnation: st.Incarnation, Offset: offset})
	if err := log.Commit(t.Context(), nil, "default/"+name, stream.Progress{Stream: name, Positions: at, Counts: c}); err != nil {
		t.Fatal(err)
	}
}

func source(log stream.Log, l lake.Reader) *Source {
	return &Source{Version: "v", Started: time.Unix(1, 0).UTC(), Folder: func() Folder { return Folder{ID: "id", Root: "/p"} }, Log: log, Lake: l}
}

func TestEquation(t *testing.T) {
	log := memory.New()
	put(t, log, "events", "", 10)
	put(t, log, "rejected", "events", 3)
	s := source(log, &fakeLake{})
	one := func() Stream {
		t.Helper()
		all, err := s.Streams(t.Context())
		if err != nil || len(all) != 2 || all[0].Stream != "events" || all[1].Stream != "rejected" {
			t.Fatalf("%+v, %v", all, err)
		}
		return all[0]
	}
	if got := one(); got.Acknowledged != 13 || got.Rejections != 3 || got.NotYetWritten != 10 || !got.Balanced || got.Pipeline != "" {
		t.Errorf("before any pipeline: %+v", got)
	}
	mark(t, log, "events", 6, stream.Counts{Written: 3, Rejections: 1, Duplicates: 1, Filtered: 1})
	if got := one(); got.Written != 3 || got.Rejections != 4 || got.NotYetWritten != 4 || !got.Balanced {
		t.Errorf("in the middle: %+v", got)
	}
	mark(t, log, "events", 10, stream.Counts{Written: 7, Rejections: 1, Duplicates: 1, Filtered: 1})
	if got := one(); got.NotYetWritten != 0 || !got.Balanced {
		t.Errorf("at the end: %+v", got)
	}
	mark(t, log, "rejected", 2, stream.Counts{Written: 2})
	if all, err := s.Streams(t.Context()); err != nil || all[1].Acknowledged != 0 || all[1].Written != 0 || all[1].Kept != 3 ||
		all[1].KeptInTable != 2 || all[1].NotYetWritten != 1 || !all[1].Balanced {
		t.Errorf("rejected: %+v, %v", all[1], err)
	}
	mark(t, log, "events", 10, stream.Counts{Written: 6})
	if got := one(); got.NotYetWritten != 4 || got.Balanced {
		t.Errorf("an event that got lost: %+v", got)
	}
	mark(t, log, "events", 9, stream.Counts{Written: 11})
	if got := one(); got.NotYetWritten != -1 || got.Balanced {
		t.Errorf("an event that was written twice: %+v", got)
	}
}

func TestReport(t *testing.T) {
	log := memory.New()
	put(t, log, "events", "", 4)
	mark(t, log, "events", 4, stream.Counts{Written: 3})
	id := func(name string) lake.Ident { return lake.Ident{Namespace: "events", Name: name} }
	l := &fakeLake{order: []lake.Ident{id("broken"), id("gone"), id("t")}, infos: map[lake.Ident]*lake.Info{
		id("t"): {Rows: 3, Files: 1, Bytes: 9, LastCommit: time.Unix(5, 0).UTC(), Rescued: []lake.PathCount{{Path: "a", Count: 2}, {Path: "b", Count: 1}}},
	}}
	s := source(log, l)
	s.Pipelines = func() []Pipeline {
		p, err := log.Progress(t.Context(), "default/events")
		if err != nil {
			t.Fatal(err)
		}
		return []Pipeline{{Name: "default/events", Stream: "events", Progress: p, LastCommit: time.Unix(5, 0).UTC(), Error: "disk full", Hint: "make room"}}
	}
	s.Now = func() time.Time { return time.Unix(100, 0) }
	s.Pending = func() []Pending {
		return []Pending{
			{Table: id("t"), Rows: 7, Since: time.Unix(98, 0), Error: "is ahead of the log", Hint: "restore the log"},
			{Table: id("new"), Rows: 1, Since: time.Unix(90, 0)},
		}
	}
	s.Dedupe = func() []Dedupe {
		return []Dedupe{{Stream: "events", Window: 3600, Configured: 86400, Error: "a read failed", Hint: "look at the disk"}, {Stream: "other"}}
	}
	w := httptest.NewRecorder()
	Handler(s, obs.Discard()).ServeHTTP(w, httptest.NewRequest("GET", Path, nil))
	var got Report
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
		t.Fatalf("%d %s %v", w.Code, w.Body, err)
	}
	if d := got.Streams[0].Dedupe; d == nil || d.Window != 3600 {
		t.Errorf("%+v", d)
	}
	if got.Balanced || len(got.Streams) != 1 || len(got.Tables) != 3 || got.Tables[2].Rescued != 3 || got.Tables[2].Table != "events.t" || got.Folder.ID != "id" {
		t.Errorf("%+v", got)
	}
	if got.Streams[0].Lag != 10 || got.Tables[1].Table != "events.new" || got.Tables[1].Lag != 10 || got.Tables[2].Lag != 2 || got.Tables[2].Pending != 7 {
		t.Errorf("lags: %+v", got)
	}
	all := strings.Join(got.Problems, "\n")
	for _, want := range []string{"stream events does not add up: 4 acknowledged, 1 left over", "pipeline default/events: disk full; make room", "table events.broken: metadata is unreadable", "table events.t: is ahead of the log; restore the log",
		"the index of ids of stream events is full: duplicates are known for 1h0m0s back, not 24h0m0s; raise dedupe.index, or shorten dedupe.window",
		"duplicates of stream events cannot be told, and its events wait: a read failed; look at the disk"} {
		if !strings.Contains(all, want) {
			t.Errorf("the problems lack %q:\n%s", want, all)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	w = httptest.NewRecorder()
	s.Pipelines = nil
	Handler(s, obs.Discard()).ServeHTTP(w, httptest.NewRequest("GET", Path, nil))
	if w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("a closed log: %d %s", w.Code, w.Body)
	}
}

func TestMetrics(t *testing.T) {
	log := memory.New()
	put(t, log, "events", "", 4)
	put(t, log, "rejected", "events", 1)
	mark(t, log, "events", 2, stream.Counts{Written: 2})
	reg := obs.NewRegistry()
	Register(reg, source(log, &fakeLake{}), obs.Discard())
	w := httptest.NewRecorder()
	reg.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`naru_stream_acknowledged_total{stream="events"} 5`,
		`naru_stream_events_total{fate="written",pipeline="default/events",stream="events"} 2`,
		`naru_stream_events_total{fate="rejected",pipeline="default/events",stream="events"} 1`,
		`naru_stream_not_yet_written{pipeline="default/events",stream="events"} 2`,
		`naru_stream_balanced{pipeline="default/events",stream="events"} 1`,
		`naru_stream_not_yet_written{pipeline="",stream="rejected"} 1`,
	} {
		if !strings.Contains(w.Body.String(), want+"\n") {
			t.Errorf("no %q", want)
		}
	}
}
