package native

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"naru/internal/collect"
	"naru/internal/event"
	"naru/internal/obs"
	"naru/internal/recordbatch"
	"naru/internal/stream"
	"naru/internal/stream/memory"
)

// received is the time of receipt in tests.
var received = time.Date(2026, 11, 21, 10, 0, 0, 5e6, time.UTC)

// newDoor makes a door before log. The registry tells what it counts.
func newDoor(t testing.TB, log stream.Log, change func(*collect.Config)) (*Door, *obs.Registry) {
	t.Helper()
	return newDoorWith(t, log, nil, change)
}

// newDoorWith makes a door that judges events by contracts.
func newDoorWith(t testing.TB, log stream.Log, contracts collect.Contracts, change func(*collect.Config)) (*Door, *obs.Registry) {
	t.Helper()
	cfg := collect.DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	reg := obs.NewRegistry()
	e, err := collect.New(cfg, collect.Deps{Log: log, Contracts: contracts, Registry: reg, Logger: obs.Discard(), Now: func() time.Time { return received }})
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(e)
	if err != nil {
		t.Fatal(err)
	}
	return d, reg
}

// request makes a POST to the door; headers are name, value, name, value.
func request(query, body string, headers ...string) *http.Request {
	r := httptest.NewRequest("POST", Path+query, strings.NewReader(body))
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

type result struct {
	status   int
	header   http.Header
	body     string
	Title    string
	Detail   string
	Status   int
	Accepted int
	Rejected []struct {
		Index                                int
		ID, Reason, Detail                   string
		Rule, Path, Contract, Version, Owner string
		Support                              []string
	}
	RejectedCount int `json:"rejected_count"`
	Positions     []struct {
		Stream      string
		Partition   int
		First, Last int64
	}
}

func do(t testing.TB, h http.Handler, r *http.Request) result {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	got := result{status: w.Code, header: w.Header(), body: w.Body.String()}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatalf("%d %q: %v", w.Code, w.Body, err)
	}
	if want := map[bool]string{true: "application/json", false: "application/problem+json"}[w.Code == 200]; w.Header().Get("Content-Type") != want {
		t.Errorf("%d with Content-Type %q", w.Code, w.Header().Get("Content-Type"))
	}
	if w.Code != 200 && (got.Title == "" || got.Detail == "" || got.Status != w.Code) {
		t.Errorf("%d with problem %q", w.Code, w.Body)
	}
	return got
}

// stored reads all events of a stream; what they hold is copied.
func stored(t testing.TB, log stream.Log, name string) []event.Event {
	t.Helper()
	ctx := context.Background()
	st, err := log.Stat(ctx, name)
	if errors.Is(err, stream.ErrNoStream) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var (
		all []event.Event
		dec recordbatch.Decoder
	)
	for _, r := range st.Ranges {
		for at := r.Start; at < r.End; {
			b, err := log.Read(ctx, name, event.Position{Incarnation: r.Incarnation, Partition: r.Partition, Offset: at}, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			err = dec.EachIn(b, func(e *event.Event) error {
				c := *e
				for _, p := range []*[]byte{&c.ID, &c.Source, &c.Type, &c.Subject, &c.ContentType, &c.Data, &c.Key, &c.Sent, &c.JSONStrings, &c.Violations, &c.Contract.ID, &c.Contract.Version, &c.Contract.Hash} {
					*p = bytes.Clone(*p)
				}
				c.Extensions = nil
				for _, x := range e.Extensions {
					c.Extensions = append(c.Extensions, event.Attr{Name: bytes.Clone(x.Name), Value: bytes.Clone(x.Value)})
				}
				if e.Refusal != nil {
					rej := *e.Refusal
					rej.Original = bytes.Clone(rej.Original)
					c.Refusal = &rej
				}
				all = append(all, c)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			at = b.Next
		}
	}
	return all
}

// brief describes an event by what tests look at.
func brief(e *event.Event) string {
	s := fmt.Sprintf("%s %s", e.Type, e.Data)
	if !e.Time.IsZero() {
		s += " @" + e.Time.Format(time.RFC3339Nano)
	}
	if !e.GeneratedID {
		s += " #" + string(e.ID)
	}
	if string(e.Source) != DefaultSource {
		s += " from " + string(e.Source)
	}
	if string(e.ContentType) != "application/json" {
		s += " as " + string(e.ContentType)
	}
	if e.Subject != nil {
		s += " of " + string(e.Subject)
	}
	if e.Key != nil {
		s += " key " + string(e.Key)
	}
	for _, x := range e.Extensions {
		s += fmt.Sprintf(" %s=%s", x.Name, x.Value)
	}
	return s
}

func TestPlainEvents(t *testing.T) {
	const nd = "application/x-ndjson"
	for _, c := range []struct {
		name, query, media, body string
		want                     []string
	}{
		{"object", "", "application/json", ` {"type":"page","n":1} ` + "\n", []string{`page {"type":"page","n":1}`}},
		{"object over lines", "", "application/json", "{\n \"n\": 1\n}", []string{"event {\n \"n\": 1\n}"}},
		{"byte order mark", "", "application/json", "\xef\xbb\xbf{\"n\":1}", []string{`event {"n":1}`}},
		{"bytes that are not UTF-8 stay", "", "application/json", "{\"n\":\"\xff\"}", []string{"event {\"n\":\"\xff\"}"}},
		{"charset", "", "application/json; charset=UTF-8", `{}`, []string{`event {}`}},
		{"array", "", "application/json", `[{"event":"a"} , {"event":"b","type":""}]`, []string{`a {"event":"a"}`, `b {"event":"b","type":""}`}},
		{"empty array", "", "application/json", ` [ ] `, nil},
		{"lines", "", nd, "{\"n\":1}\r\n\n  {\"n\":2}", []string{`event {"n":1}`, `event {"n":2}`}},
		{"run together", "", nd, `{"n":1}{"n":2} {"n":3}`, []string{`event {"n":1}`, `event {"n":2}`, `event {"n":3}`}},
		{"other names of NDJSON", "", "application/jsonl", "{}\n{}", []string{`event {}`, `event {}`}},
		{"sniffed object", "", "", `{"n":1}`, []string{`event {"n":1}`}},
		{"sniffed array", "", "text/plain;charset=utf-8", `[{"n":1}]`, []string{`event {"n":1}`}},
		{"sniffed lines", "", "text/plain", "{\"n\":1}\n{\"n\":2}\n", []string{`event {"n":1}`, `event {"n":2}`}},
		{"curl -d", "", "application/x-www-form-urlencoded", `{"n":1}{"n":2}`, []string{`event {"n":1}`, `event {"n":2}`}},
		{"type of the request", "?type=page+view", nd, `{"type":"x"}`, []string{`page view {"type":"x"}`}},
		{"source of the request", "?source=https%3A%2F%2Fshop", nd, `{}`, []string{`event {} from https://shop`}},
		{"type with escapes", "", nd, `{"type":"a\u0062\n"}`, []string{"ab\n {\"type\":\"a\\u0062\\n\"}"}},
		{"types that are no names", "", nd, `{"type":1,"event":"e"}{"type":null,"event":{}}{"type":[]}`, []string{`e {"type":1,"event":"e"}`, `event {"type":null,"event":{}}`, `event {"type":[]}`}},
		{"just any id is none", "", nd, `{"id":"x"}`, []string{`event {"id":"x"}`}},
		{"subject is not guessed", "", nd, `{"subject":"x"}`, []string{`event {"subject":"x"}`}},
		{"id field", "?id_field=key", nd, `{"key":"a"}{"key":"\u0062"}{"key":-7.5e1}{"key":true}{"key":""}{}`,
			[]string{`event {"key":"a"} #a`, `event {"key":"\u0062"} #b`, `event {"key":-7.5e1} #-7.5e1`, `event {"key":true}`, `event {"key":""}`, `event {}`}},
		{"id field that is also the type", "?id_field=type", nd, `{"type":"a"}`, []string{`a {"type":"a"} #a`}},
		{"the first of two, as the columns keep it", "?id_field=k", nd, `{"type":null,"type":"a","type":"b","k":1,"k":2}`, []string{`a {"type":null,"type":"a","type":"b","k":1,"k":2} #1`}},
		{"numbered ids", "?id_prefix=f%3A&id_first=41", nd, "{}\nx\n{}", []string{`event {} #f:41`, `event {} #f:43`}},
		{"times", "", nd, `{"time":"2026-01-01T00:00:00Z"}{"timestamp":"2026-01-01 09:00:00+0900"}{"ts":1767225600}{"@timestamp":1767225600000}{"event_time":"2026-01-01T00:00:00.5z"}`,
			[]string{
				`event {"time":"2026-01-01T00:00:00Z"} @2026-01-01T00:00:00Z`,
				`event {"timestamp":"2026-01-01 09:00:00+0900"} @2026-01-01T09:00:00+09:00`,
				`event {"ts":1767225600} @2026-01-01T00:00:00Z`,
				`event {"@timestamp":1767225600000} @2026-01-01T00:00:00Z`,
				`event {"event_time":"2026-01-01T00:00:00.5z"} @2026-01-01T00:00:00.5Z`,
			}},
		{"first time that parses", "", nd, `{"ts":"2026-01-02T00:00:00Z","time":"soon","timestamp":null}{"event_time":1,"time":2}{"time":"\u0032026-01-01T00:00:00Z"}{"time":"soon"}{"time":{}}`,
			[]string{
				`event {"ts":"2026-01-02T00:00:00Z","time":"soon","timestamp":null} @2026-01-02T00:00:00Z`,
				`event {"event_time":1,"time":2} @1970-01-01T00:00:02Z`,
				`event {"time":"\u0032026-01-01T00:00:00Z"} @2026-01-01T00:00:00Z`,
				`event {"time":"soon"}`,
				`event {"time":{}}`,
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := memory.New()
			d, _ := newDoor(t, log, nil)
			got := do(t, d, request(c.query, c.body, "Content-Type", c.media))
			if got.status != 200 || got.Accepted != len(c.want) {
				t.Fatalf("%d %s", got.status, got.body)
			}
			all := stored(t, log, "events")
			if len(all) != len(c.want) {
				t.Fatalf("%d events stored, want %d", len(all), len(c.want))
			}
			for i := range all {
				if b := brief(&all[i]); b != c.want[i] {
					t.Errorf("event %d:\n got %s\nwant %s", i, b, c.want[i])
				}
				if !all[i].ReceivedAt.Equal(received) {
					t.Errorf("event %d: received %v", i, all[i].ReceivedAt)
				}
				if all[i].GeneratedID && len(all[i].ID) != 36 {
					t.Errorf("event %d: id %q", i, all[i].ID)
				}
			}
		})
	}
}

func TestConfiguredFields(t *testing.T) {
	log := memory.New()
	d, _ := newDoor(t, log, func(c *collect.Config) { c.TimeField, c.IDField = "at", "uid" })
	do(t, d, request("", `{"at":5,"uid":"u1","time":7}{"time":7}`, "Content-Type", "application/x-ndjson"))
	do(t, d, request("?id_field=k", `{"uid":"u1","k":"k1","at":5}`))
	all := stored(t, log, "events")
	want := []string{
		`event {"at":5,"uid":"u1","time":7} @1970-01-01T00:00:05Z #u1`,
		`event {"time":7}`,
		`event {"uid":"u1","k":"k1","at":5} @1970-01-01T00:00:05Z #k1`,
	}
	for i := range want {
		if got := brief(&all[i]); got != want[i] {
			t.Errorf("got %s, want %s", got, want[i])
		}
	}
}

func TestAnswer(t *testing.T) {
	log := memory.New()
	d, _ := newDoor(t, log, nil)
	w := httptest.NewRecorder()
	for range 2 {
		w = httptest.NewRecorder()
		d.ServeHTTP(w, request("?stream=web&id_prefix=p", "{\"n\":1}\nnonsense\n{\"n\":2}\n"))
	}
	want := `{"accepted": 2, "rejected": [{"index": 1, "id": "p1", "reason": "not_json", "detail": "expected true, false or null at byte 9 of the body (byte 1 of the item)"}], "positions": [{"stream": "web", "partition": 0, "first": 2, "last": 3}]}` + "\n"
	if w.Code != 200 || w.Body.String() != want {
		t.Errorf("%d %s\nwant %s", w.Code, w.Body, want)
	}
	if all := stored(t, log, "web"); len(all) != 4 || all[2].Offset != 2 {
		t.Errorf("%d events", len(all))
	}
}

func TestAnswerListsTheFirstHundred(t *testing.T) {
	d, _ := newDoor(t, memory.New(), nil)
	got := do(t, d, request("", strings.Repeat("x\n", 100), "Content-Type", "application/x-ndjson"))
	if got.status != 200 || len(got.Rejected) != 100 || strings.Contains(got.body, "rejected_count") || len(got.Positions) != 0 {
		t.Errorf("%d %s", got.status, got.body)
	}
	got = do(t, d, request("", strings.Repeat("x\n", 1000)+"{}", "Content-Type", "application/x-ndjson"))
	if got.status != 200 || len(got.Rejected) != 100 || got.RejectedCount != 1000 || got.Accepted != 1 {
		t.Errorf("%d, %d listed of %d", got.status, len(got.Rejected), got.RejectedCount)
	}
}

func TestStrict(t *testing.T) {
	log := memory.New()
	d, _ := newDoor(t, log, nil)
	for _, c := range []struct {
		query, body string
		status      int
	}{
		{"?strict=1", "x\ny\n", 422},
		{"?strict=true", "7", 422},
		{"?strict=1", "x\n{}\n", 200},
		{"?strict=1", "{}", 200},
		{"?strict=1", "[]", 200},
		{"?strict=0", "x\n", 200},
		{"", "x\n", 200},
	} {
		media := "application/x-ndjson"
		if c.body == "[]" {
			media = "application/json"
		}
		if got := do(t, d, request(c.query, c.body, "Content-Type", media)); got.status != c.status {
			t.Errorf("%s %q: %d %s", c.query, c.body, got.status, got.body)
		}
	}
	got := do(t, d, request("?strict=1", "x\n", "Content-Type", "application/x-ndjson"))
	if len(got.Rejected) != 1 || got.Rejected[0].Reason != "not_json" || got.Accepted != 0 {
		t.Errorf("%s", got.body)
	}
	if n := len(stored(t, log, "rejected")); n != 7 {
		t.Errorf("%d rejections stored, want 7", n)
	}
}

func TestRejections(t *testing.T) {
	big := `{"type":"t","key":"k1","x":"` + strings.Repeat("x", 300) + `"}`
	log := memory.New()
	d, reg := newDoor(t, log, func(c *collect.Config) { c.Event = 200 })
	got := do(t, d, request("?stream=web&id_field=key", "{\"n\":1}\n{\"n\":tru}\n"+big+"\n[1]\n{\"n\":2}\n", "Content-Type", "application/x-ndjson"))
	if got.status != 200 || got.Accepted != 2 || len(got.Rejected) != 3 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	type want struct {
		index                          int
		reason, id, typ, media, detail string
		original                       string
	}
	all := stored(t, log, "rejected")
	for i, w := range []want{
		{1, "not_json", "", "", "application/octet-stream", "expected true, false or null at byte 16 of the body (byte 8 of the item)", `{"n":tru}`},
		{2, "too_large", "k1", "t", "application/json", "at most 200B are taken (collect.event)", big},
		{3, "not_object", "", "", "application/json", "the item is an array, not an object", `[1]`},
	} {
		e := &all[i]
		r := e.Refusal
		if r.Index != w.index || string(r.Reason) != w.reason || r.ID != w.id || r.Type != w.typ || r.Stream != "web" || string(r.Original) != w.original || !strings.Contains(r.Detail, w.detail) {
			t.Errorf("rejection %d: %+v", i, r)
		}
		if string(e.Type) != recordbatch.RejectionType || string(e.ContentType) != w.media || !e.GeneratedID || len(e.ID) != 36 || string(e.Data) != w.original {
			t.Errorf("rejection %d: %s", i, brief(e))
		}
		if a := got.Rejected[i]; a.Index != w.index || a.ID != w.id || a.Reason != w.reason || a.Detail != r.Detail {
			t.Errorf("answer %d: %+v", i, a)
		}
	}
	// What was acknowledged counts for the stream that it was meant for.
	st, err := log.Stat(context.Background(), "web")
	if err != nil || st.Acknowledged != 5 || st.Refused != 3 {
		t.Errorf("%+v, %v", st, err)
	}
	metrics := scrape(t, reg)
	for _, line := range []string{
		`naru_door_events_accepted_total{door="native"} 2`,
		`naru_door_events_rejected_total{door="native",reason="not_json"} 1`,
		`naru_door_events_rejected_total{door="native",reason="not_object"} 1`,
		`naru_door_events_rejected_total{door="native",reason="too_large"} 1`,
		`naru_door_events_rejected_total{door="native",reason="bad_attribute"} 0`,
		`naru_door_requests_total{door="native",status="200"} 1`,
		`naru_door_request_seconds_count{door="native"} 1`,
		`naru_door_in_flight_bytes 0`,
	} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("no %s in the metrics", line)
		}
	}
}

func TestUnparsableTimesAreCounted(t *testing.T) {
	d, reg := newDoor(t, memory.New(), nil)
	do(t, d, request("", `{"time":"soon"}{"ts":"2026-01-01"}{"time":"soon","ts":1}{"time":null}{}`))
	do(t, d, request("", `{"specversion":"1.0","id":"1","source":"s","type":"t","time":"soon"}`, "Content-Type", "application/cloudevents+json"))
	do(t, d, request("", `{}`, "Ce-Specversion", "1.0", "Ce-Id", "1", "Ce-Source", "s", "Ce-Type", "t", "Ce-Time", "2026-01-01"))
	if want := "naru_door_times_unparsable_total{door=\"native\"} 4\n"; !strings.Contains(scrape(t, reg), want) {
		t.Errorf("no %s", want)
	}
}

func scrape(t testing.TB, reg *obs.Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	reg.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	text, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
