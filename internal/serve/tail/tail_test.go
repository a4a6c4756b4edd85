package tail

import (
	"bufio"
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

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/obs"
	"naru/internal/recordbatch"
	"naru/internal/stream"
	"naru/internal/stream/memory"
	"naru/internal/web"
)

// put appends events with the given data, all in one batch.
func put(t *testing.T, log stream.Log, name string, data ...string) {
	t.Helper()
	var b recordbatch.Builder
	b.Reset(time.UnixMilli(1_700_000_000_000))
	for i, d := range data {
		b.AppendEvent(&event.Event{ID: fmt.Appendf(nil, "id-%d", i), Source: []byte("/s"), Type: []byte("t"), Data: []byte(d)})
	}
	_, err := log.Append(t.Context(), stream.Write{Stream: name, Batch: b.Finish(nil, recordbatch.None), Count: int32(len(data))})
	if err != nil {
		t.Fatal(err)
	}
}

func numbers(from, to int) (out []string) {
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprintf(`{"n":%d}`, i))
	}
	return out
}

func serve(t *testing.T, log stream.Log, cfg Config) (url string, closing chan struct{}) {
	t.Helper()
	closing = make(chan struct{})
	srv := httptest.NewServer(New(cfg, log, closing, obs.Discard()))
	t.Cleanup(srv.Close)
	return srv.URL + Prefix, closing
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// ns lists the n of every event's data.
func ns(t *testing.T, body string) (out []int) {
	t.Helper()
	for line := range strings.Lines(body) {
		var e struct {
			Data struct{ N int }
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		out = append(out, e.Data.N)
	}
	return out
}

func filled(t *testing.T) *memory.Log {
	log := memory.New()
	put(t, log, "events", numbers(0, 30)...)
	put(t, log, "events", numbers(30, 31)...)
	put(t, log, "events", numbers(31, 50)...)
	return log
}

func TestWhatIsGiven(t *testing.T) {
	log := filled(t)
	st, err := log.Stat(t.Context(), "events")
	if err != nil {
		t.Fatal(err)
	}
	inc := st.Incarnation.String()
	url, _ := serve(t, log, DefaultConfig())
	for _, tt := range []struct {
		query       string
		first, last int // first > last: nothing
	}{
		{"", 0, 49}, {"?from=start", 0, 49}, {"?from=end", 1, 0}, {"?from=0", 0, 49}, {"?from=35", 35, 49}, {"?from=50", 1, 0},
		{"?from=" + inc + "/0/48", 48, 49}, {"?last=0", 1, 0}, {"?last=1", 49, 49}, {"?last=20", 30, 49}, {"?last=21", 29, 49},
		{"?last=1000", 0, 49}, {"?from=10&limit=5", 10, 14}, {"?limit=0", 1, 0}, {"?from=29&limit=2", 29, 30}, {"?partition=0&last=2&limit=1", 48, 48},
	} {
		status, body := get(t, url+"events/events"+tt.query)
		got := ns(t, body)
		if status != 200 || len(got) != max(tt.last-tt.first+1, 0) || len(got) > 0 && (got[0] != tt.first || got[len(got)-1] != tt.last) {
			t.Errorf("%q: %d %v, want %d to %d", tt.query, status, got, tt.first, tt.last)
		}
	}
}

func TestMistakesAreNamed(t *testing.T) {
	log := filled(t)
	log.Trim("events", 0, 31)
	url, _ := serve(t, log, DefaultConfig())
	for _, tt := range []struct {
		path   string
		status int
		text   string
	}{
		{"nothing/events", 404, "no such stream"}, {"events", 404, "STREAM/events"}, {"/events", 404, "STREAM/events"},
		{"events/events?from=yesterday", 400, `\"yesterday\" is not start`}, {"events/events?from=-1", 400, "not start"},
		{"events/events?from=1/2", 400, "not start"}, {"events/events?last=x", 400, "whole number"}, {"events/events?last=100001", 400, "100000"},
		{"events/events?frm=1", 400, "query parameter frm: is unknown"}, {"events/events?follow=yes", 400, "neither true nor false"},
		{"events/events?last=1&from=2", 400, "not with from"}, {"events/events?last=1&last=2", 400, "2 times"},
		{"events/events?from=51", 400, "beyond the end"}, {"events/events?from=3", 410, "from=start"},
		{"events/events?partition=1", 400, "no partition 1"},
		{"events/events?from=00000000-0000-0000-0000-000000000001/0/0", 400, "unknown incarnation"},
	} {
		status, body := get(t, url+tt.path)
		if status != tt.status || !strings.Contains(body, tt.text) {
			t.Errorf("%s: %d %s, want %d %s", tt.path, status, body, tt.status, tt.text)
		}
	}
}

func TestOverIncarnations(t *testing.T) {
	log := filled(t)
	log.Cut()
	put(t, log, "events", numbers(50, 60)...)
	url, _ := serve(t, log, DefaultConfig())
	for query, want := range map[string]int{"?from=start": 60, "?last=15": 15, "?last=10": 10, "?last=11": 11, "?from=50": 10} {
		if _, body := get(t, url+"events/events"+query); len(ns(t, body)) != want || ns(t, body)[want-1] != 59 {
			t.Errorf("%s: %v, want %d to 59", query, ns(t, body), want)
		}
	}
}

// follower reads an answer line by line.
func follower(t *testing.T, ctx context.Context, url string) (*bufio.Scanner, func()) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return bufio.NewScanner(resp.Body), func() { resp.Body.Close() }
}

func TestFollow(t *testing.T) {
	log := filled(t)
	url, closing := serve(t, log, DefaultConfig())
	lines, _ := follower(t, t.Context(), url+"events/events?last=2&follow=true")
	expect := func(n int) {
		t.Helper()
		if !lines.Scan() || fmt.Sprint(ns(t, lines.Text())) != fmt.Sprint([]int{n}) {
			t.Fatalf("got %q (%v), want %d", lines.Text(), lines.Err(), n)
		}
	}
	expect(48)
	expect(49)
	for n := 50; n < 55; n++ {
		put(t, log, "events", numbers(n, n+1)...)
		expect(n)
	}
	close(closing)
	if lines.Scan() || lines.Err() != nil {
		t.Errorf("a stop ends the answer whole: %q %v", lines.Text(), lines.Err())
	}
}

func TestClientThatLeavesMakesRoom(t *testing.T) {
	log := filled(t)
	cfg := DefaultConfig()
	cfg.Clients = 1
	url, _ := serve(t, log, cfg)
	lines, leave := follower(t, t.Context(), url+"events/events?last=1&follow=true")
	lines.Scan()
	if status, body := get(t, url+"events/events"); status != 503 || !strings.Contains(body, "tail.clients") {
		t.Fatalf("a second reader: %d %s", status, body)
	}
	leave()
	for status := 0; status != 200; { // as soon as the server has noticed
		status, _ = get(t, url+"events/events?limit=1")
	}
}

// failing gives an error instead of the second batch.
type failing struct {
	stream.Log
	reads int
}

func (f *failing) Read(ctx context.Context, s string, at event.Position, m stream.Bytes) (*event.Batch, error) {
	if f.reads++; f.reads == 2 {
		return nil, &fault.Corrupt{Path: "000.log", Offset: 7, Reason: "checksum"}
	}
	return f.Log.Read(ctx, s, at, 1)
}

func TestACutAnswerDoesNotLookWhole(t *testing.T) {
	url, _ := serve(t, &failing{Log: filled(t)}, DefaultConfig())
	resp, err := http.Get(url + "events/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	lines := strings.Split(strings.TrimSpace(string(body)), "\n")
	if !errors.Is(err, io.ErrUnexpectedEOF) || len(lines) != 31 || lines[30] != `{"error":"corrupt 000.log at byte 7: checksum"}` {
		t.Errorf("%v, %d lines, the last is %s", err, len(lines), lines[len(lines)-1])
	}
}

// TestDamageIsNotWorthAskingAgain: the same request finds the same bytes, so the
// answer is no 503, and it has the cure.
func TestDamageIsNotWorthAskingAgain(t *testing.T) {
	err := classed(fmt.Errorf("read events: %w", fault.WithHint(&fault.Corrupt{Path: "000.log", Offset: 7, Reason: "checksum"}, "mend it")))
	var e *web.Error
	if !errors.As(err, &e) || e.Status != http.StatusInternalServerError || e.Detail != "read events: corrupt 000.log at byte 7: checksum; mend it" {
		t.Errorf("%+v", err)
	}
}

func TestLine(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_123).UTC()
	e := event.Event{ID: []byte("1"), Source: []byte("/s"), Type: []byte("t"), Subject: []byte("u"), Time: at, Offset: 7, ReceivedAt: at,
		Extensions: []event.Attr{{Name: []byte("traceparent"), Value: []byte("00")}}, Data: []byte("{\"a\":\n 1}")}
	head := `{"_stream":"events","_partition":0,"_offset":7,"_log":"00000000-0000-0000-0000-000000000000","_id":"1","_source":"/s","_type":"t"`
	times := `,"_received_at":"2023-11-14T22:13:20.123Z"`
	want := head + `,"_subject":"u","_time":"2023-11-14T22:13:20.123Z"` + times + `,"traceparent":"00","data":{"a":1}}` + "\n"
	if got := string(AppendEvent(nil, "events", 0, event.Incarnation{}, &e)); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	for _, tt := range []struct{ contentType, data, want string }{
		{"", `{"a":1}`, `,"data":{"a":1}`}, {"", `{oops`, `,"data_text":"{oops"`}, {"", "\xff", `,"data_base64":"/w=="`},
		{"text/plain; charset=utf-8", `{}`, `,"data_text":"{}"`}, {"application/vnd.x+json", `[1]`, `,"data":[1]`}, {"", "", ""},
	} {
		e := event.Event{ID: []byte("1"), Source: []byte("/s"), Type: []byte("t"), Offset: 7, ReceivedAt: at, Data: []byte(tt.data),
			Refusal: &event.Rejection{Reason: event.NotJSON, Detail: "d", Stream: "s", Type: "x", ID: "y"}}
		if tt.contentType != "" {
			e.ContentType = []byte(tt.contentType)
		}
		want := head + times + `,"_reason":"not_json","_detail":"d","_refused_stream":"s","_refused_type":"x","_refused_id":"y"` + tt.want + "}\n"
		got := string(AppendEvent(nil, "events", 0, event.Incarnation{}, &e))
		if got != want || !json.Valid([]byte(got)) {
			t.Errorf("got  %swant %s", got, want)
		}
	}
}
