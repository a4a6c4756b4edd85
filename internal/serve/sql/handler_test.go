package sql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/query"
)

// fake answers n rows of a number and a text, then err.
type fake struct {
	n      int
	err    error // of the rows
	refuse error // of Query
	wide   string
	sql    string
	// wait makes Query wait for its context and closes began first.
	began  chan struct{}
	closed atomic.Int64
	ended  chan error // gets the cause for which a waiting query ended
}

func (f *fake) Query(ctx context.Context, q query.Query) (query.Rows, error) {
	f.sql = q.SQL
	if f.refuse != nil {
		return nil, f.refuse
	}
	if f.began != nil {
		close(f.began)
		<-ctx.Done()
		f.ended <- ctx.Err()
		return nil, ctx.Err()
	}
	return &fakeRows{f: f}, nil
}

type fakeRows struct {
	f *fake
	i int
}

func (r *fakeRows) Columns() []query.Column {
	return []query.Column{{Name: "n", Type: "BIGINT"}, {Name: "s", Type: "VARCHAR"}}
}
func (r *fakeRows) Next() bool    { r.i++; return r.i <= r.f.n }
func (r *fakeRows) Values() []any { return []any{int64(r.i), "x" + r.f.wide} }
func (r *fakeRows) Close() error  { r.f.closed.Add(1); return nil }
func (r *fakeRows) Err() error {
	if r.i > r.f.n {
		return r.f.err
	}
	return nil
}

func serve(t *testing.T, e query.Engine, change ...func(*Config)) *httptest.Server {
	t.Helper()
	cfg := DefaultConfig()
	for _, f := range change {
		f(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(Handler(e, cfg, slog.New(slog.DiscardHandler)))
	t.Cleanup(s.Close)
	return s
}

func post(t *testing.T, s *httptest.Server, body string, headers ...string) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, s.URL+"/v1/sql", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	return res, string(got), err
}

func TestFormats(t *testing.T) {
	for accept, want := range map[string][2]string{
		"":                                       {"application/json", "{\"columns\": [{\"name\": \"n\", \"type\": \"BIGINT\"}, {\"name\": \"s\", \"type\": \"VARCHAR\"}], \"rows\": [\n[1, \"x\"],\n[2, \"x\"]\n]}\n"},
		"*/*":                                    {"application/json", ""},
		"application/x-ndjson":                   {"application/x-ndjson", "{\"n\": 1, \"s\": \"x\"}\n{\"n\": 2, \"s\": \"x\"}\n"},
		"text/csv":                               {"text/csv; charset=utf-8; header=present", "n,s\n1,x\n2,x\n"},
		"text/tab-separated-values":              {"text/tab-separated-values; charset=utf-8", "n\ts\n1\tx\n2\tx\n"},
		"text/html, text/*;q=0.5":                {"text/csv; charset=utf-8; header=present", ""},
		"application/json;q=0.1, text/csv;q=0.2": {"text/csv; charset=utf-8; header=present", ""},
	} {
		f := &fake{n: 2}
		headers := []string{"Accept", accept}
		if accept == "" {
			headers = nil
		}
		res, body, err := post(t, serve(t, f), "SELECT 1", headers...)
		if err != nil || res.StatusCode != 200 || res.Header.Get("Content-Type") != want[0] || want[1] != "" && body != want[1] {
			t.Errorf("Accept %q: %d %q %q, %v", accept, res.StatusCode, res.Header.Get("Content-Type"), body, err)
		}
		if res.Header.Get("Vary") != "Accept" || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("Accept %q: headers %v", accept, res.Header)
		}
		if f.closed.Load() != 1 {
			t.Errorf("Accept %q: the rows were closed %d times", accept, f.closed.Load())
		}
	}
}

func TestBodies(t *testing.T) {
	big := strings.Repeat("x", 1000)
	for _, c := range []struct {
		name, body string
		headers    []string
		status     int
		sql        string
		detail     string
	}{
		{"plain", "SELECT 1", []string{"Content-Type", "text/plain"}, 200, "SELECT 1", ""},
		{"plain utf-8", "SELECT 'é'", []string{"Content-Type", "text/plain; charset=UTF-8"}, 200, "SELECT 'é'", ""},
		{"sql", "SELECT 1", []string{"Content-Type", "application/sql"}, 200, "SELECT 1", ""},
		{"no type", "SELECT 1", nil, 200, "SELECT 1", ""},
		{"json", `{"sql": "SELECT \"a\"\n"}`, []string{"Content-Type", "application/json"}, 200, "SELECT \"a\"\n", ""},
		{"unknown key", `{"sql": "SELECT 1", "limit": 3}`, []string{"Content-Type", "application/json"}, 400, "", `"limit"`},
		{"other case", `{"SQL": "SELECT 1"}`, []string{"Content-Type", "application/json"}, 400, "", `"SQL"`},
		{"twice", `{"sql": "SELECT 1", "sql": "SELECT 2"}`, []string{"Content-Type", "application/json"}, 400, "", "twice"},
		{"no key", `{}`, []string{"Content-Type", "application/json"}, 400, "", "missing"},
		{"number", `{"sql": 1}`, []string{"Content-Type", "application/json"}, 400, "", "not a text"},
		{"nested", `{"sql": {"a": "b"}}`, []string{"Content-Type", "application/json"}, 400, "", "not a text"},
		{"array", `["SELECT 1"]`, []string{"Content-Type", "application/json"}, 400, "", "not an object"},
		{"broken", `{"sql": "SELECT 1"`, []string{"Content-Type", "application/json"}, 400, "", "byte 18"},
		{"more", `{"sql": "SELECT 1"} {}`, []string{"Content-Type", "application/json"}, 400, "", "follows"},
		{"empty json", ``, []string{"Content-Type", "application/json"}, 400, "", "JSON"},
		{"as curl -d says", "SELECT 1", []string{"Content-Type", "application/x-www-form-urlencoded"}, 200, "SELECT 1", ""},
		{"bytes", "SELECT 1", []string{"Content-Type", "application/octet-stream"}, 415, "", "text/plain"},
		{"latin", "SELECT 1", []string{"Content-Type", "text/plain; charset=latin1"}, 415, "", "UTF-8"},
		{"bad type", "SELECT 1", []string{"Content-Type", "text/"}, 415, "", "text/plain"},
		{"gzip", "SELECT 1", []string{"Content-Encoding", "gzip"}, 415, "", "uncompressed"},
		{"no such format", "SELECT 1", []string{"Accept", "text/html"}, 406, "", "text/csv"},
		{"no quality", "SELECT 1", []string{"Accept", "application/json;q=0, text/html"}, 406, "", "text/csv"},
		{"long", big, nil, 413, "", "query.max_sql"},
		{"long json", `{"sql": "` + big + `"}`, []string{"Content-Type", "application/json"}, 413, "", "query.max_sql"},
		{"very long json", `{"sql": "` + strings.Repeat(big, 10) + `"}`, []string{"Content-Type", "application/json"}, 413, "", "query.max_sql"},
	} {
		f := &fake{n: 1}
		res, body, err := post(t, serve(t, f, func(c *Config) { c.MaxSQL = 500 }), c.body, c.headers...)
		if err != nil || res.StatusCode != c.status || f.sql != c.sql {
			t.Errorf("%s: status %d, sql %q, %v: %s", c.name, res.StatusCode, f.sql, err, body)
		}
		if c.status != 200 {
			isProblem(t, c.name, res, body, c.status, c.detail)
		}
	}
}

func isProblem(t *testing.T, name string, res *http.Response, body string, status int, detail string) {
	t.Helper()
	var p struct {
		Title, Detail string
		Status        int
	}
	if err := json.Unmarshal([]byte(body), &p); err != nil || p.Status != status || p.Title == "" || !strings.Contains(p.Detail, detail) {
		t.Errorf("%s: %v, problem %+v lacks %q", name, err, p, detail)
	}
	if res.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s: Content-Type %q", name, res.Header.Get("Content-Type"))
	}
}

func TestMethods(t *testing.T) {
	s := serve(t, &fake{})
	for _, m := range []string{"GET", "PUT", "DELETE", "HEAD"} {
		req, _ := http.NewRequest(m, s.URL+"/v1/sql", nil)
		res, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 405 || res.Header.Get("Allow") != "POST" {
			t.Errorf("%s: %d, Allow %q", m, res.StatusCode, res.Header.Get("Allow"))
		}
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		detail string
		retry  string
	}{
		{&query.Error{Class: query.ErrSQL, Text: "Parser Error: x\n\nLINE 1: x\n        ^"}, 400, "Parser Error: x\n\nLINE 1: x\n        ^", ""},
		{fault.WithHint(&query.Error{Class: query.ErrSQL, Text: "Out of Memory"}, "read less"), 400, "Hint: read less", ""},
		{&query.Error{Class: query.ErrRefused, Text: "COPY is refused"}, 403, "COPY is refused", ""},
		{fmt.Errorf("%w: the query took longer than 1m", query.ErrTimeout), 408, "longer than 1m", ""},
		{fmt.Errorf("the statement has 9 bytes: %w", fault.ErrLimit), 413, "9 bytes", ""},
		{&fault.RetryAfter{Err: fmt.Errorf("%w: 8 are running", query.ErrTooMany), After: 1500 * time.Millisecond}, 503, "8 are running", "2"},
		{query.ErrTooMany, 503, "too many", "1"},
		{fault.Transient(errors.New("closing")), 503, "closing", "1"},
		{fault.WithHint(&fault.RetryAfter{Err: errors.New("run query: IO Error: no space"), After: 10 * time.Second}, "look at the disk"), 503, "Hint: look at the disk", "10"},
		{errors.New("read table: disk"), 500, "disk", ""},
	} {
		// Before the first row and behind it, as long as nothing has left.
		for name, f := range map[string]*fake{"start": {refuse: c.err}, "rows": {n: 3, err: c.err}} {
			if name == "rows" && errors.Is(c.err, fault.ErrLimit) {
				continue // a long answer is cut, not refused
			}
			res, body, err := post(t, serve(t, f), "SELECT 1")
			if err != nil || res.StatusCode != c.status || res.Header.Get("Retry-After") != c.retry {
				t.Errorf("%v at the %s: status %d, Retry-After %q, %v", c.err, name, res.StatusCode, res.Header.Get("Retry-After"), err)
			}
			isProblem(t, c.err.Error(), res, body, c.status, c.detail)
		}
	}
}

// TestCutAnswer: an error behind the first block shows in the last line and in
// the broken-off body, in every format; so does the row limit, always.
func TestCutAnswer(t *testing.T) {
	limit := fmt.Errorf("the answer has more than 3 rows: %w", fault.ErrLimit)
	for accept, f := range map[string]*fake{
		"application/json":          {n: 5000, wide: strings.Repeat("y", 50), err: &query.Error{Class: query.ErrSQL, Text: "Conversion Error: row 5001"}},
		"application/x-ndjson":      {n: 5000, wide: strings.Repeat("y", 50), err: fmt.Errorf("%w: the query took longer than 1m", query.ErrTimeout)},
		"text/csv":                  {n: 3, err: limit},
		"text/tab-separated-values": {n: 0, err: limit},
	} {
		res, body, err := post(t, serve(t, f), "SELECT 1", "Accept", accept)
		if res.StatusCode != 200 {
			t.Errorf("%s: status %d", accept, res.StatusCode)
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: the body is whole: %v", accept, err)
		}
		lines := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
		var last struct{ Error string }
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Error != f.err.Error() {
			t.Errorf("%s: the last line is %q, %v", accept, lines[len(lines)-1], err)
		}
		if len(lines) < f.n {
			t.Errorf("%s: %d lines of %d rows", accept, len(lines), f.n)
		}
		if f.closed.Load() != 1 {
			t.Errorf("%s: rows closed %d times", accept, f.closed.Load())
		}
	}
}

// TestClientReadsTheCut: the client's decoder gives the rows and then the reason.
func TestClientReadsTheCut(t *testing.T) {
	f := &fake{n: 5000, wide: strings.Repeat("y", 50), err: errors.New("disk gone")}
	s := serve(t, f)
	res, err := s.Client().Post(s.URL, "text/plain", strings.NewReader("SELECT 1"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	rows, err := query.DecodeJSON(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for rows.Next() {
		n++
	}
	if n != 5000 || !errors.Is(rows.Err(), query.ErrCut) || !strings.Contains(rows.Err().Error(), "disk gone") {
		t.Errorf("%d rows, %v", n, rows.Err())
	}
}

func TestClientLeaves(t *testing.T) {
	f := &fake{began: make(chan struct{}), ended: make(chan error, 1)}
	s := serve(t, f)
	ctx, cancel := context.WithCancel(context.Background())
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, strings.NewReader("SELECT 1"))
	go func() {
		<-f.began
		cancel()
	}()
	if res, err := s.Client().Do(req); err == nil {
		res.Body.Close()
		t.Error("the request was answered")
	}
	if err := <-f.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the query ended with %v", err)
	}
}

// TestClientDoesNotRead: rows for a client that reads nothing end after the
// write timeout, and they are closed.
func TestClientDoesNotRead(t *testing.T) {
	f := &fake{n: 1 << 40, wide: strings.Repeat("y", 8000)}
	done := make(chan struct{})
	cfg := DefaultConfig()
	cfg.WriteTimeout = quantity.Duration(50 * time.Millisecond)
	inner := Handler(f, cfg, slog.New(slog.DiscardHandler))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		inner.ServeHTTP(w, r)
	}))
	defer s.Close()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /v1/sql HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nSELECT 1")
	<-done
	if f.closed.Load() != 1 {
		t.Errorf("rows closed %d times", f.closed.Load())
	}
}

// deadlines notes the write deadlines that a handler sets.
type deadlines struct {
	http.ResponseWriter
	set []time.Time
}

func (d *deadlines) SetWriteDeadline(t time.Time) error { d.set = append(d.set, t); return nil }
func (d *deadlines) Flush()                             {}

// TestDeadlines: each block has a deadline of its own, and none outlives the
// answer, for the connection goes to the next request.
func TestDeadlines(t *testing.T) {
	f := &fake{n: 5000, wide: strings.Repeat("y", 50)}
	d := &deadlines{ResponseWriter: httptest.NewRecorder()}
	Handler(f, DefaultConfig(), slog.New(slog.DiscardHandler)).ServeHTTP(d, httptest.NewRequest(http.MethodPost, "/v1/sql", strings.NewReader("SELECT 1")))
	if len(d.set) < 5 {
		t.Fatalf("%d deadlines for an answer of 300 kB", len(d.set))
	}
	for i, at := range d.set {
		if last := i == len(d.set)-1; at.IsZero() != last {
			t.Errorf("deadline %d of %d is %v", i, len(d.set), at)
		}
	}
}

func FuzzParseBody(f *testing.F) {
	for _, s := range []string{`{"sql": "SELECT 1"}`, `{"sql"`, `{"sql": "a", "sql": "b"}`, `{}`, `[]`, `{"sql": "\ud800"}`, "", `{"sql":{}}`, `{"sql": "x"} x`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		sql, err := parseBody(body)
		if err != nil {
			return
		}
		var m map[string]any
		if err := json.Unmarshal(body, &m); err != nil || len(m) != 1 || m["sql"] != sql {
			t.Errorf("%q gave %q, but the library reads %v, %v", body, sql, m, err)
		}
	})
}
