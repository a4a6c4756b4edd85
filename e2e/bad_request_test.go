package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// badRequest is a request that must be refused whole, with nothing stored.
type badRequest struct {
	name    string
	method  string // POST when empty
	path    string // /v1/events when empty
	headers []string
	body    string
	status  int
	// says are words that the title or the detail must have, in any case:
	// place and cure.
	says []string
	// header that the answer must have, as "Name: value".
	header string
}

func zipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, s)
	_ = w.Close()
	return b.String()
}

func zstded(s string) string {
	e, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return string(e.EncodeAll([]byte(s), nil))
}

func deflated(s string) string {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	_, _ = io.WriteString(w, s)
	_ = w.Close()
	return b.String()
}

const (
	jsonType   = "Content-Type: application/json"
	ndjsonType = "Content-Type: application/x-ndjson"
	batchType  = "Content-Type: application/cloudevents-batch+json"
	cloudType  = "Content-Type: application/cloudevents+json"
	plainType  = "Content-Type: text/plain"
)

var badRequests = []badRequest{
	// Framing.
	{name: "empty body", headers: []string{jsonType}, status: 400, says: []string{"empty"}},
	{name: "empty body without a type", status: 400, says: []string{"empty"}},
	{name: "blank body", headers: []string{ndjsonType}, body: " \n\t\r\n", status: 400, says: []string{"empty"}},
	{name: "object cut off", headers: []string{jsonType}, body: `{"a": 1, "b": `, status: 400, says: []string{"byte"}},
	{name: "object with a bad number", headers: []string{jsonType}, body: `{"a": 01}`, status: 400, says: []string{"byte"}},
	{name: "array cut off", headers: []string{jsonType}, body: `[{"a": 1}, {"a": 2}`, status: 400, says: []string{"byte"}},
	{name: "array with a hole", headers: []string{jsonType}, body: `[{"a": 1},, {"a": 2}]`, status: 400, says: []string{"byte"}},
	{name: "array and more", headers: []string{jsonType}, body: `[{"a": 1}] {"a": 2}`, status: 400, says: []string{"byte"}},
	{name: "array with a broken item at the end", headers: []string{jsonType}, body: `[` + strings.Repeat(`{"a":1},`, 1000) + `{"a":}]`, status: 400, says: []string{"byte 80"}},
	{name: "an array sniffed from no type", body: `[{"a": 1}, `, status: 400, says: []string{"byte"}},
	{name: "an array sniffed from text/plain", headers: []string{plainType}, body: `[{"a": 1}, `, status: 400, says: []string{"byte"}},
	// Compression.
	{name: "gzip that is none", headers: []string{jsonType, "Content-Encoding: gzip"}, body: `{"a": 1}`, status: 400, says: []string{"gzip"}},
	{name: "gzip cut off", headers: []string{ndjsonType, "Content-Encoding: gzip"}, body: zipped(strings.Repeat(`{"a": 1}`+"\n", 99))[:40], status: 400, says: []string{"gzip"}},
	{name: "gzip with a wrong checksum", headers: []string{ndjsonType, "Content-Encoding: gzip"}, body: wrongSum(zipped(`{"a": 1}`)), status: 400, says: []string{"gzip"}},
	{name: "zstd that is none", headers: []string{jsonType, "Content-Encoding: zstd"}, body: `{"a": 1}`, status: 400, says: []string{"zstd"}},
	{name: "zstd cut off", headers: []string{ndjsonType, "Content-Encoding: zstd"}, body: zstded(strings.Repeat(`{"a": 1}`+"\n", 99))[:20], status: 400, says: []string{"zstd"}},
	{name: "deflate that is none", headers: []string{jsonType, "Content-Encoding: deflate"}, body: `{"a": 1}`, status: 400, says: []string{"deflate"}},
	{name: "deflate cut off", headers: []string{ndjsonType, "Content-Encoding: deflate"}, body: deflated(strings.Repeat(`{"a": 1}`+"\n", 99))[:15], status: 400, says: []string{"deflate"}},
	{name: "unknown encoding", headers: []string{jsonType, "Content-Encoding: br"}, body: `{"a": 1}`, status: 415, says: []string{"br", "gzip"}},
	// Size.
	{name: "body over the limit", headers: []string{ndjsonType}, body: strings.Repeat(" ", 32<<20+1), status: 413, says: []string{"32"}},
	{name: "body over the limit once inflated", headers: []string{ndjsonType, "Content-Encoding: gzip"}, body: zipped(strings.Repeat(" ", 64<<20+1)), status: 413, says: []string{"64"}},
	// Media types, methods, paths.
	{name: "XML", headers: []string{"Content-Type: application/xml"}, body: `<a/>`, status: 415, says: []string{"application/xml", "application/json"}},
	{name: "a form", headers: []string{"Content-Type: application/x-www-form-urlencoded"}, body: `a=1`, status: 415, says: []string{"application/x-www-form-urlencoded"}},
	{name: "a media type that is none", headers: []string{"Content-Type: ;;"}, body: `{}`, status: 415},
	{name: "GET of the door", method: "GET", status: 405, header: "Allow: POST"},
	{name: "PUT to the door", method: "PUT", headers: []string{jsonType}, body: `{}`, status: 405, header: "Allow: POST"},
	{name: "DELETE of the door", method: "DELETE", status: 405, header: "Allow: POST"},
	{name: "unknown path", path: "/v1/event", headers: []string{jsonType}, body: `{}`, status: 404, says: []string{"/v1/event"}},
	{name: "path with a slash too many", path: "/v1/events/", headers: []string{jsonType}, body: `{}`, status: 404},
	{name: "path with dots", path: "/v1/../v1/events", headers: []string{jsonType}, body: `{}`, status: 404},
	// Parameters.
	{name: "stream name that climbs", path: "/v1/events?stream=../x", headers: []string{jsonType}, body: `{}`, status: 400, says: []string{"stream"}},
	{name: "reserved stream", path: "/v1/events?stream=rejected", headers: []string{jsonType}, body: `{}`, status: 400, says: []string{"rejected"}},
	{name: "stream with an underscore first", path: "/v1/events?stream=_x", headers: []string{jsonType}, body: `{}`, status: 400, says: []string{"stream"}},
	{name: "strict that is neither", path: "/v1/events?strict=perhaps", headers: []string{jsonType}, body: `{}`, status: 400, says: []string{"strict"}},
	// CloudEvents.
	{name: "structured event that is no JSON", headers: []string{cloudType}, body: `{"specversion": `, status: 400, says: []string{"byte"}},
	{name: "batch that is no array", headers: []string{batchType}, body: `{"specversion": "1.0"}`, status: 400, says: []string{"array"}},
	// SQL.
	{name: "no SQL", path: "/v1/sql", headers: []string{plainType}, status: 400, says: []string{"empty"}},
	{name: "wrong SQL", path: "/v1/sql", headers: []string{plainType}, body: `selec 1`, status: 400, says: []string{"syntax", "selec"}},
	{name: "unknown table", path: "/v1/sql", headers: []string{plainType}, body: `select * from no_such_table`, status: 400, says: []string{"no_such_table"}},
	{name: "unknown column", path: "/v1/sql", headers: []string{plainType}, body: `select no_such_column`, status: 400, says: []string{"no_such_column"}},
	{name: "two statements", path: "/v1/sql", headers: []string{plainType}, body: `select 1; select 2`, status: 403, says: []string{"2 statements"}},
	{name: "SQL that writes", path: "/v1/sql", headers: []string{plainType}, body: `create table x (a int)`, status: 403},
	{name: "SQL that reads a file", path: "/v1/sql", headers: []string{plainType}, body: `select * from read_csv('/etc/passwd')`, status: 403, says: []string{"read_csv"}},
	{name: "SQL in a JSON object without it", path: "/v1/sql", headers: []string{jsonType}, body: `{"query": "select 1"}`, status: 400, says: []string{"sql"}},
	{name: "SQL in JSON cut off", path: "/v1/sql", headers: []string{jsonType}, body: `{"sql": "select 1`, status: 400},
	{name: "SQL answer of an unknown type", path: "/v1/sql", headers: []string{plainType, "Accept: image/png"}, body: `select 1`, status: 406, says: []string{"application/json"}},
	{name: "GET of SQL", path: "/v1/sql", method: "GET", status: 405, header: "Allow: POST"},
	// Other sites.
	{name: "SQL from another site", path: "/v1/sql", headers: []string{plainType, "Origin: https://evil.example"}, body: `select 1`, status: 403, says: []string{"origin"}},
	{name: "SQL from a sandboxed page", path: "/v1/sql", headers: []string{plainType, "Origin: null"}, body: `select 1`, status: 403, says: []string{"origin"}},
	{name: "SQL across sites", path: "/v1/sql", headers: []string{plainType, "Sec-Fetch-Site: cross-site"}, body: `select 1`, status: 403, says: []string{"site"}},
	{name: "SQL through a rebound name", path: "/v1/sql", headers: []string{plainType, "Host: evil.example"}, body: `select 1`, status: 403, says: []string{"host"}},
	{name: "status through a rebound name", path: "/v1/status", method: "GET", headers: []string{"Host: evil.example:8080"}, status: 403, says: []string{"host"}},
	{name: "metrics across sites", path: "/metrics", method: "GET", headers: []string{"Sec-Fetch-Site: cross-site"}, status: 403, says: []string{"site"}},
}

func wrongSum(s string) string {
	b := []byte(s)
	b[len(b)-8] ^= 0xff
	return string(b)
}

// TestBadRequests: the status and the message of DOOR.md for each kind, and
// nothing of any of them is stored.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	s := serve(t, project(t, "pipelines:\n  commit_interval: 200ms\n"))
	for _, bad := range badRequests {
		t.Run(bad.name, func(t *testing.T) {
			method, path := bad.method, bad.path
			if method == "" {
				method = "POST"
			}
			if path == "" {
				path = "/v1/events"
			}
			r, err := s.do(method, path, []byte(bad.body), bad.headers...)
			if err != nil {
				t.Fatal(err)
			}
			checkProblem(t, r, bad.status, bad.says...)
			if name, value, ok := strings.Cut(bad.header, ": "); ok && !strings.Contains(r.header.Get(name), value) {
				t.Errorf("header %s: %q, want %q in it", name, r.header.Get(name), value)
			}
		})
	}
	// The first good event stands at offset 0: nothing was stored before it.
	a := s.post("?type=good", "application/json", `{"a": 1}`)
	if len(a.Positions) != 1 || a.Positions[0].First != 0 {
		t.Errorf("positions of the first good event: %+v, want offset 0", a.Positions)
	}
	s.waitCell("select count(_offset) from good", "1")
	if r := s.call("POST", "/v1/sql", []byte("select count(_offset) from rejected"), plainType); r.status != 400 {
		t.Errorf("rejected: %d %s, want no such table", r.status, r.body)
	}
}

// checkProblem: status and a problem document with title, place and cure.
func checkProblem(t *testing.T, r reply, status int, says ...string) {
	t.Helper()
	if r.status != status {
		t.Errorf("status %d, want %d: %s", r.status, status, r.body)
	}
	if got := r.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type %q: %.200s", got, r.body)
		return
	}
	var p problem
	if err := json.Unmarshal(r.body, &p); err != nil {
		t.Errorf("parse problem %.200q: %v", r.body, err)
		return
	}
	if p.Title == "" || p.Detail == "" || p.Status != r.status {
		t.Errorf("problem %+v: want a title, a detail and status %d", p, r.status)
	}
	for _, word := range says {
		if !strings.Contains(strings.ToLower(p.Title+" "+p.Detail), strings.ToLower(word)) {
			t.Errorf("problem says %q: %q, want %q in it", p.Title, p.Detail, word)
		}
	}
}

// TestBadItems: a request with bad items is 200, each is named with its index
// and reason, and what was around them is stored. With strict it is 422 when
// every item was refused.
func TestBadItems(t *testing.T) {
	t.Parallel()
	s := serve(t, project(t, "pipelines:\n  commit_interval: 200ms\n"))
	big := `{"a":"` + strings.Repeat("x", 1<<20) + `"}`
	for _, c := range []struct {
		name, contentType, body string
		accepted                int
		reasons                 string // index:reason, ...
	}{
		{"broken line", "application/x-ndjson", "{\"a\":1}\n{\"a\":\n{\"a\":3}\n", 2, "1:not_json"},
		{"last line cut off", "application/x-ndjson", "{\"a\":1}\n{\"a\":", 1, "1:not_json"},
		{"words", "application/x-ndjson", "hello\n{\"a\":1}\nworld\n", 1, "0:not_json 2:not_json"},
		{"numbers and arrays", "application/x-ndjson", "1\n[2]\n\"3\"\nnull\n{\"a\":1}\n", 1, "0:not_object 1:not_object 2:not_object 3:not_object"},
		{"items of an array", "application/json", `[{"a":1}, 2, {"a":3}]`, 2, "1:not_object"},
		{"too large", "application/x-ndjson", "{\"a\":1}\n" + big + "\n{\"a\":3}\n", 2, "1:too_large"},
		{"objects run together", "application/x-ndjson", `{"a":1}{"a":2} {"a":3}`, 3, ""},
		{"every item bad", "application/x-ndjson", "x\ny\n", 0, "0:not_json 1:not_json"},
		{"cloud event without an id", "application/cloudevents+json", `{"specversion":"1.0","type":"t","source":"s","data":{}}`, 0, "0:bad_attribute"},
		{"cloud event with a type that is no string", "application/cloudevents-batch+json", `[{"specversion":"1.0","type":7,"source":"s","id":"1"},{"specversion":"1.0","type":"t","source":"s","id":"2"}]`, 1, "0:bad_attribute"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := s.do("POST", "/v1/events", []byte(c.body), "Content-Type: "+c.contentType)
			if err != nil {
				t.Fatal(err)
			}
			if r.status != http.StatusOK {
				t.Fatalf("status %d: %s", r.status, r.body)
			}
			a, err := parseAck(r.body)
			if err != nil {
				t.Fatal(err)
			}
			var reasons []string
			for _, x := range a.Rejected {
				reasons = append(reasons, fmt.Sprintf("%d:%s", x.Index, x.Reason))
				if x.Detail == "" {
					t.Errorf("item %d: no detail", x.Index)
				}
			}
			if got := strings.Join(reasons, " "); a.Accepted != c.accepted || got != c.reasons {
				t.Errorf("accepted %d, rejected %q; want %d, %q", a.Accepted, got, c.accepted, c.reasons)
			}
			strict, err := s.do("POST", "/v1/events?strict=1", []byte(c.body), "Content-Type: "+c.contentType)
			if err != nil {
				t.Fatal(err)
			}
			want := http.StatusOK
			if c.accepted == 0 {
				want = http.StatusUnprocessableEntity
			}
			if strict.status != want {
				t.Errorf("strict: status %d, want %d: %s", strict.status, want, strict.body)
			}
		})
	}
}

// TestOtherSitesMaySend: events are taken from any page, and only events.
func TestOtherSitesMaySend(t *testing.T) {
	t.Parallel()
	s := serve(t, project(t, ""))
	r := s.call("OPTIONS", "/v1/events", nil, "Origin: https://shop.example",
		"Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type")
	if r.status/100 != 2 || r.header.Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("preflight: %d, allowed origin %q", r.status, r.header.Get("Access-Control-Allow-Origin"))
	}
	r = s.call("POST", "/v1/events", []byte(`{"a":1}`), jsonType, "Origin: https://shop.example", "Sec-Fetch-Site: cross-site")
	if r.status != http.StatusOK || r.header.Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("event from another site: %d %s", r.status, r.body)
	}
	r = s.call("OPTIONS", "/v1/sql", nil, "Origin: https://shop.example", "Access-Control-Request-Method: POST")
	if r.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("preflight of SQL allows origin %q", r.header.Get("Access-Control-Allow-Origin"))
	}
}

// TestCutOffAndSlowBodies: a body that ends early is 400 or no answer at all,
// and stores nothing; headers over the limit are refused; others are served.
func TestCutOffAndSlowBodies(t *testing.T) {
	t.Parallel()
	s := serve(t, project(t, "collect:\n  stall_timeout: 1s\n"))
	address := strings.TrimPrefix(s.url, "http://")
	raw := func(sent string, half bool) (*http.Response, error) {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, sent); err != nil {
			return nil, err
		}
		if half {
			if err := c.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.SetReadDeadline(time.Now().Add(soonWithin)); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		return resp, err
	}
	head := "POST /v1/events HTTP/1.1\r\nHost: " + address + "\r\nContent-Type: application/x-ndjson\r\n"
	for _, c := range []struct {
		name, sent string
		half       bool
		status     int
	}{
		{"shorter than its length", head + "Content-Length: 100\r\n\r\n{\"a\":1}\n", true, 400},
		{"chunks cut off", head + "Transfer-Encoding: chunked\r\n\r\n8\r\n{\"a\":1}\n\r\n", true, 400},
		{"a chunk that is none", head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{\"a\":1}\n\r\n", false, 400},
		{"stalled", head + "Content-Length: 100\r\n\r\n{\"a\":1}\n", false, 408},
		{"headers over the limit", head + "X-Long: " + strings.Repeat("x", 64<<10) + "\r\nContent-Length: 8\r\n\r\n{\"a\":1}\n", false, 431},
		{"no HTTP", "hello naru\r\n\r\n", false, 400},
	} {
		resp, err := raw(c.sent, c.half)
		if err != nil {
			t.Errorf("%s: %v, want %d", c.name, err, c.status)
			continue
		}
		if resp.StatusCode != c.status {
			t.Errorf("%s: status %d, want %d", c.name, resp.StatusCode, c.status)
		}
	}
	a := s.post("", "application/json", `{"a": 1}`)
	if len(a.Positions) != 1 || a.Positions[0].First != 0 {
		t.Errorf("positions of the first whole event: %+v, want offset 0", a.Positions)
	}
}
