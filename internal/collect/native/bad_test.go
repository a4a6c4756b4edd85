package native

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"naru/internal/collect"
	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/stream"
	"naru/internal/stream/memory"
	"naru/internal/web"
)

func zipped(t testing.TB, s string) string {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

// Requests that are refused as a whole: status, title and detail are what users
// and scripts see.
func TestBadRequests(t *testing.T) {
	const (
		js    = "application/json"
		nd    = "application/x-ndjson"
		ce    = "application/cloudevents+json"
		batch = "application/cloudevents-batch+json"
		known = "; send application/json, application/x-ndjson, application/cloudevents+json, application/cloudevents-batch+json or a CloudEvent in ce- headers, in UTF-8"
	)
	binary := []string{"Ce-Specversion", "1.0", "Ce-Id", "1", "Ce-Source", "s", "Ce-Type", "t"}
	log := memory.New()
	d, reg := newDoor(t, log, func(c *collect.Config) {
		c.Body, c.Decompressed, c.Event, c.Events, c.InFlight = 4096, 8192, 1024, 10, 1<<20
	})
	var mux web.Mux
	d.Register(&mux)
	for _, c := range []struct {
		name, method, target, media, body string
		headers                           []string
		status                            int
		title, detail                     string
	}{
		// Framing.
		{"empty", "", "", js, "", nil, 400, "empty body", "the body has no event; send a JSON object, a JSON array of objects or NDJSON"},
		{"blank lines", "", "", nd, " \n\r\n", nil, 400, "empty body", "the body has no event; send a JSON object, a JSON array of objects or NDJSON"},
		{"byte order mark alone", "", "", "", "\xef\xbb\xbf", nil, 400, "empty body", "the body has no event; send a JSON object, a JSON array of objects or NDJSON"},
		{"broken object", "", "", js, `{"a":tru}`, nil, 400, "not JSON", `expected true, false or null at byte 8 (line 1), found "}"; nothing was stored`},
		{"object cut off", "", "", js, `{"a": 1, "b": `, nil, 400, "not JSON", `the JSON ends too early at byte 14 (line 1); nothing was stored`},
		{"broken object over lines, sniffed", "", "", "", "{\n\"a\": 1,\n\"b\" 2}\n", nil, 400, "not JSON", `expected ":" behind the member name at byte 14 (line 3), found "2}\n"; nothing was stored`},
		{"broken single line, sniffed", "", "", "text/plain", "{\"a\":}", nil, 400, "not JSON", `expected a JSON value at byte 5 (line 1), found "}"; nothing was stored`},
		{"words", "", "", "text/plain", "hello", nil, 400, "not JSON", `expected a JSON value at byte 0 (line 1), found "hello"; nothing was stored`},
		{"gzip without saying so", "", "", "", "\x1f\x8b\x08\x00", nil, 400, "not JSON", `expected a JSON value at byte 0 (line 1), found "\x1f\x8b\b\x00"; nothing was stored; the body looks like gzip: say so with Content-Encoding: gzip`},
		{"a number", "", "", js, " 42", nil, 400, "not an object", "the value at byte 1 is no event; send a JSON object, a JSON array of objects or NDJSON"},
		{"text behind an object", "", "", js, `{"a":1} "a":2`, nil, 400, "text behind the object", "the object ends at byte 7, but more follows at byte 8; nothing was stored; send several objects as application/x-ndjson, or as a JSON array"},
		{"array with a fault", "", "", js, `[{"a":1}, {"a":2} {"a":3}]`, nil, 400, "not JSON", `expected "," or "]" behind the element at byte 18 (line 1), found "{\"a\":3}]"; the whole array was refused and nothing stored; mend it, or send NDJSON, where a bad line is refused alone`},
		{"array cut off", "", "", "", "[{},\n{}", nil, 400, "not JSON", `the JSON ends too early at byte 7 (line 2); the whole array was refused and nothing stored; mend it, or send NDJSON, where a bad line is refused alone`},
		{"text behind an array", "", "", js, `[{}] {}`, nil, 400, "text behind the array", "the array ends at byte 4, but more follows at byte 5; nothing was stored"},
		{"nested too deep", "", "", js, `{"a":` + strings.Repeat("[", 2000), nil, 400, "not JSON", "the JSON ends too early at byte 2005 (line 1); nothing was stored"},
		{"too many events", "", "", nd, strings.Repeat("{}\n", 11), nil, 413, "too many events", "the request has more than 10 events (collect.events); nothing was stored, send them in smaller requests"},
		{"too many bad lines", "", "", nd, strings.Repeat("x\n", 11), nil, 413, "too many events", "the request has more than 10 events (collect.events); nothing was stored, send them in smaller requests"},
		// Size and encoding.
		{"body too large", "", "", nd, strings.Repeat(" ", 4097), nil, 413, "body too large", "the body has 4097 bytes, at most 4KiB are taken (collect.body); send it in smaller requests"},
		{"inflates too far", "", "", nd, zipped(t, strings.Repeat("{}\n", 3000)), []string{"Content-Encoding", "gzip"}, 413, "body too large once decompressed", "the body inflates to more than 8KiB (collect.decompressed); send it in smaller requests"},
		{"gzip cut off", "", "", nd, zipped(t, "{}\n{}\n")[:20], []string{"Content-Encoding", "gzip"}, 400, "broken compression", "the gzip body cannot be decompressed: the compressed data ends too early, at byte 6 of what it inflates to (20 bytes as sent were read); nothing was stored"},
		{"unknown encoding", "", "", nd, "{}", []string{"Content-Encoding", "br"}, 415, "unknown content encoding", `Content-Encoding is "br"; send gzip, zstd, deflate or none, one of them only`},
		// Media types.
		{"XML", "", "", "application/xml", "<a/>", nil, 415, "unsupported media type", `Content-Type is "application/xml"` + known},
		{"CloudEvents as XML", "", "", "application/cloudevents+xml", "<a/>", nil, 415, "unsupported media type", `Content-Type is "application/cloudevents+xml"` + known},
		{"a form", "", "", "application/x-www-form-urlencoded", "a=1", nil, 415, "unsupported media type", `Content-Type is "application/x-www-form-urlencoded" and the body is not JSON` + known},
		{"other charset", "", "", "application/json; charset=latin1", "{}", nil, 415, "unsupported media type", `the charset is "latin1", JSON is UTF-8` + known},
		{"media type that is none", "", "", ";;", "{}", nil, 415, "unsupported media type", `Content-Type ";;" cannot be read` + known},
		// Parameters.
		{"misspelt parameter", "", "?steam=web", js, "{}", nil, 400, "unknown parameter", `parameter "steam" is not known here; did you mean stream?`},
		{"unknown parameter", "", "?colour=red", js, "{}", nil, 400, "unknown parameter", `parameter "colour" is not known here; the parameters are stream, type, source, strict, id_field, id_prefix, id_first`},
		{"parameter twice", "", "?type=a&type=b", js, "{}", nil, 400, "bad parameter", "parameter type: it is given twice"},
		{"empty parameter", "", "?type=", js, "{}", nil, 400, "bad parameter", "parameter type: its value is empty; leave the parameter out or give it a value"},
		{"bad percent", "", "?type=%zz", js, "{}", nil, 400, "bad parameter", `parameter "type=%zz": it is not percent-encoded correctly`},
		{"bad strict", "", "?strict=perhaps", js, "{}", nil, 400, "bad parameter", `parameter strict: "perhaps" is neither 1 nor 0`},
		{"bad number", "", "?id_prefix=a&id_first=-1", js, "{}", nil, 400, "bad parameter", `parameter id_first: "-1" is not a whole number from 0 on`},
		{"number without prefix", "", "?id_first=1", js, "{}", nil, 400, "bad parameter", "parameter id_first: it numbers the ids of id_prefix, which is missing"},
		{"two sources of ids", "", "?id_prefix=a&id_field=b", js, "{}", nil, 400, "bad parameter", "parameter id_prefix: the ids come from id_field already; give one of the two"},
		{"long parameter", "", "?type=" + strings.Repeat("x", 1025), js, "{}", nil, 400, "bad parameter", "parameter type: its value has 1025 bytes, at most 1024"},
		{"type beside CloudEvents", "", "?type=x", ce, "{}", nil, 400, "bad parameter", "parameter type: it describes plain JSON, and a CloudEvent carries its own attributes; leave it out"},
		{"reserved stream", "", "?stream=rejected", js, "{}", nil, 400, "bad stream name", `stream "rejected" is where refused events go; post to the stream they are meant for`},
		{"hidden stream", "", "?stream=_dlq", js, "{}", nil, 400, "bad stream name", `stream "_dlq": names that begin with _ are reserved`},
		{"stream with dots", "", "?stream=a.b", js, "{}", nil, 400, "bad stream name", `stream "a.b": a name has only a-z, 0-9, _ and -`},
		{"stream in capitals", "", "?stream=Web", js, "{}", nil, 400, "bad stream name", `stream "Web": a name has only a-z, 0-9, _ and - (did you mean "web"?)`},
		// CloudEvents.
		{"broken CloudEvent", "", "", ce, `{"specversion":`, nil, 400, "not JSON", "the JSON ends too early at byte 15 (line 1); nothing was stored"},
		{"CloudEvent that is an array", "", "", ce, `[]`, nil, 400, "not an object", "the value at byte 0 is no CloudEvent; send an object, or an array of them as application/cloudevents-batch+json"},
		{"text behind a CloudEvent", "", "", ce, `{} {}`, nil, 400, "text behind the object", "the CloudEvent ends at byte 2, but more follows at byte 3; nothing was stored; send several as application/cloudevents-batch+json"},
		{"batch that is an object", "", "", batch, `{}`, nil, 400, "not an array", "the value at byte 0 is no batch; send an array of CloudEvents, or one as application/cloudevents+json"},
		{"broken batch", "", "", batch, ` {`, nil, 400, "not JSON", "the JSON ends too early at byte 2 (line 1); nothing was stored"},
		{"binary without an id", "", "", "", "x", []string{"Ce-Specversion", "1.0", "Ce-Source", "s", "Ce-Type", "t"}, 400, "bad CloudEvent", "attribute id is missing or empty; nothing was stored"},
		{"binary without a version", "", "", "", "x", []string{"Ce-Id", "1", "Ce-Source", "s", "Ce-Type", "t"}, 400, "bad CloudEvent", "attribute specversion is missing; it is 1.0; nothing was stored"},
		{"binary of another version", "", "", "", "x", []string{"Ce-Specversion", "0.3", "Ce-Id", "1", "Ce-Source", "s", "Ce-Type", "t"}, 400, "bad CloudEvent", `attribute specversion is "0.3", only 1.0 is taken; nothing was stored`},
		{"binary with an empty type", "", "", "", "x", []string{"Ce-Specversion", "1.0", "Ce-Id", "1", "Ce-Source", "s", "Ce-Type", ""}, 400, "bad CloudEvent", "attribute type is missing or empty; nothing was stored"},
		{"binary with two ids", "", "", "", "x", append([]string{"Ce-Id", "2"}, binary...), 400, "bad CloudEvent", "header ce-id is given 2 times; nothing was stored"},
		{"binary with a bad name", "", "", "", "x", append([]string{"Ce-My_ext", "2"}, binary...), 400, "bad CloudEvent", `header "Ce-My_ext": the name of an attribute has only a-z and 0-9; nothing was stored`},
		{"binary with data in a header", "", "", "", "x", append([]string{"Ce-Datacontenttype", "a/b"}, binary...), 400, "bad CloudEvent", "header ce-datacontenttype: the data is the body, and its media type is Content-Type; nothing was stored"},
		{"binary too large", "", "", "image/png", strings.Repeat("x", 1025), binary, 413, "event too large", "the event has 1025 bytes, at most 1KiB are taken (collect.event); send large contents elsewhere and their address here; nothing was stored"},
		// Methods and paths.
		{"GET", "GET", "", "", "", nil, 405, "method not allowed", `"GET" is not taken at /v1/events; use POST or OPTIONS`},
		{"PUT", "PUT", "", js, "{}", nil, 405, "method not allowed", `"PUT" is not taken at /v1/events; use POST or OPTIONS`},
		{"slash too many", "", "/", js, "{}", nil, 404, "no such path", `nothing is served at "/v1/events/"; the path is /v1/events, exactly`},
	} {
		method := c.method
		if method == "" {
			method = "POST"
		}
		r := httptest.NewRequest(method, Path+c.target, strings.NewReader(c.body))
		if c.media != "" {
			r.Header.Set("Content-Type", c.media)
		}
		for i := 0; i+1 < len(c.headers); i += 2 {
			r.Header.Add(c.headers[i], c.headers[i+1])
		}
		got := do(t, &mux, r)
		if got.status != c.status || got.Title != c.title || got.Detail != c.detail {
			t.Errorf("%s:\n got %d %q %q\nwant %d %q %q", c.name, got.status, got.Title, got.Detail, c.status, c.title, c.detail)
		}
		if method != "POST" && got.header.Get("Allow") != "POST, OPTIONS" {
			t.Errorf("%s: Allow %q", c.name, got.header.Get("Allow"))
		}
	}
	names, err := log.Streams(t.Context())
	if err != nil || len(names) != 0 {
		t.Errorf("stored something: streams %q, %v", names, err)
	}
	if !strings.Contains(scrape(t, reg), "naru_door_in_flight_bytes 0\n") {
		t.Error("bodies are still held")
	}
}

func TestDoorRefusesOtherMethodsByItself(t *testing.T) {
	d, _ := newDoor(t, memory.New(), nil)
	r := httptest.NewRequest("GET", Path, nil)
	if got := do(t, d, r); got.status != 405 || got.header.Get("Allow") != "POST, OPTIONS" {
		t.Errorf("%d, Allow %q", got.status, got.header.Get("Allow"))
	}
}

func TestPreflight(t *testing.T) {
	d, _ := newDoor(t, memory.New(), nil)
	var mux web.Mux
	d.Register(&mux)
	r := httptest.NewRequest("OPTIONS", Path, nil)
	r.Header.Set("Origin", "https://shop.example")
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	if w.Code != 204 || w.Header().Get("Access-Control-Allow-Origin") != "https://shop.example" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	// Errors can be read by the page too.
	r = request("?steam=x", "{}", "Origin", "https://shop.example")
	if got := do(t, &mux, r); got.status != 400 || got.header.Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("%d %v", got.status, got.header)
	}
}

// faulty is a log whose appends fail.
type faulty struct {
	stream.Log
	err error
}

func (f *faulty) Append(context.Context, ...stream.Write) ([]event.Position, error) {
	return nil, f.err
}

func TestLogErrors(t *testing.T) {
	for _, c := range []struct {
		err        error
		status     int
		title      string
		retryAfter string
	}{
		{fmt.Errorf("append: %w", stream.ErrFull), 503, "disk full", "10"},
		{fault.Transient(fmt.Errorf("append: %w", stream.ErrFull)), 503, "disk full", "10"},
		{fmt.Errorf("append: %w", fault.ErrPoisoned), 503, "log stopped", "5"},
		{fmt.Errorf("append: %w", stream.ErrClosed), 503, "stopping", "1"},
		{fault.Transient(errors.New("busy")), 503, "log unavailable", "1"},
		{&fault.RetryAfter{Err: errors.New("busy"), After: 2500 * time.Millisecond}, 503, "log unavailable", "3"},
		{context.Canceled, 503, "log unavailable", "1"},
		{errors.New("nobody knows"), 503, "log unavailable", "1"},
		{fault.WithHint(fmt.Errorf("frame of 40 MiB: %w", fault.ErrLimit), "raise log.segment"), 413, "request too large for the log", ""},
	} {
		log := &faulty{Log: memory.New(), err: c.err}
		d, reg := newDoor(t, log, nil)
		got := do(t, d, request("", "{}"))
		if got.status != c.status || got.Title != c.title || got.header.Get("Retry-After") != c.retryAfter {
			t.Errorf("%v: %d %q %q, Retry-After %q", c.err, got.status, got.Title, got.Detail, got.header.Get("Retry-After"))
		}
		if c.status == 413 && (!strings.Contains(got.Detail, "raise log.segment") || !strings.Contains(got.Detail, "smaller requests")) {
			t.Errorf("%v: %q", c.err, got.Detail)
		}
		metrics := scrape(t, reg)
		for _, line := range []string{`naru_door_events_accepted_total{door="native"} 0`, "naru_door_in_flight_bytes 0", fmt.Sprintf(`naru_door_requests_total{door="native",status="%d"} 1`, c.status)} {
			if !strings.Contains(metrics, line+"\n") {
				t.Errorf("%v: no %s", c.err, line)
			}
		}
	}
}

func TestTooManyStreams(t *testing.T) {
	log := memory.New()
	d, _ := newDoor(t, log, func(c *collect.Config) { c.Streams = 2 })
	for _, c := range []struct {
		stream string
		status int
	}{{"a", 200}, {"b", 200}, {"c", 400}, {"a", 200}} {
		got := do(t, d, request("?stream="+c.stream, "{}"))
		if got.status != c.status {
			t.Errorf("%s: %d %s", c.stream, got.status, got.body)
		}
	}
	// A new door before the same log knows what exists.
	d, _ = newDoor(t, log, func(c *collect.Config) { c.Streams = 2 })
	if got := do(t, d, request("?stream=c", "{}")); got.status != 400 || got.Title != "too many streams" {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := do(t, d, request("?stream=b", "{}")); got.status != http.StatusOK {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestReady(t *testing.T) {
	log := memory.New()
	d, _ := newDoor(t, log, nil)
	if err := d.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Ready(t.Context()); !errors.Is(err, stream.ErrClosed) {
		t.Errorf("%v", err)
	}
}
