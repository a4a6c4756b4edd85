package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// escapes reads the statements that the gate has to refuse: a statement, a
// line of dashes, and the answer of a unit test, which is not looked at here.
func escapes(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(repoRoot(), "internal", "query", "testdata", "escapes"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for block := range strings.SplitSeq("\n"+string(b), "\n\n") {
		statement, _, ok := strings.Cut(block, "\n----\n")
		if !ok {
			continue
		}
		var lines []string
		for line := range strings.Lines(statement) {
			if !strings.HasPrefix(line, "#") {
				lines = append(lines, line)
			}
		}
		out = append(out, strings.TrimSpace(strings.Join(lines, "")))
	}
	return out
}

// TestEscapes sends every escape of the gate's testdata to a server in whose
// working folder the files that they ask for do exist.
func TestEscapes(t *testing.T) {
	t.Parallel()
	statements := escapes(t)
	if len(statements) < 60 {
		t.Fatalf("%d escapes, want at least 60", len(statements))
	}
	dir := project(t, "pipelines:\n  commit_interval: 200ms\n")
	const secret = "a-secret-that-leaked"
	for _, name := range []string{"x.csv", "x.json", "x.parquet", "x.txt"} {
		text := secret + ",b\n" + secret + ",2\n"
		if name == "x.json" {
			text = fmt.Sprintf(`{"a": %q}`, secret)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := serve(t, dir)
	s.post("?type=page_view", "application/x-ndjson", "{\"n\":1,\"a\":\"x\"}\n{\"n\":2,\"a\":\"y\"}\n")
	s.waitCell("select count(_offset) from page_view", "2")
	// The log is left out: it promises what it holds by itself, a little later.
	// The lake's own small files are written after the rows that can be read.
	var before string
	eventually(t, "the folder is at rest", func() (bool, string) {
		last := before
		before = listing(t, dir, "log")
		return before == last && strings.Contains(before, "streams.json") && strings.Contains(before, "marks.json") && !strings.Contains(before, ".tmp"), before
	})
	refused := map[int]int{}
	for _, statement := range statements {
		r := s.call("POST", "/v1/sql", []byte(statement), plainType)
		refused[r.status]++
		if r.status != http.StatusForbidden && r.status != http.StatusBadRequest {
			t.Errorf("%s\nstatus %d: %.300s", statement, r.status, r.body)
		}
		if bytes.Contains(r.body, []byte(secret)) || bytes.Contains(r.body, []byte("root:")) {
			t.Errorf("%s\nleaks a file: %.300s", statement, r.body)
		}
	}
	t.Logf("%d escapes: %v", len(statements), refused)
	if refused[http.StatusForbidden] == 0 {
		t.Error("no escape was refused with 403")
	}
	if after := listing(t, dir, "log"); after != before {
		t.Errorf("an escape has changed the folder:\n%s\nwas\n%s", after, before)
	}
	if got := s.cell("select sum(n)::bigint from page_view"); got != "3" {
		t.Errorf("sum after the escapes: %s", got)
	}
}

// TestAnswerFormats: the answer by Accept, the statement as text or in JSON.
func TestAnswerFormats(t *testing.T) {
	t.Parallel()
	s := serve(t, project(t, ""))
	const query = `select 1 as n, 'a,"b"' as "text", null as nothing, true as yes, [1,2] as list`
	for _, c := range []struct{ accept, media, want string }{
		{"", "application/json", `{"columns":[{"name":"n","type":"INTEGER"},{"name":"text","type":"VARCHAR"},{"name":"nothing","type":"INTEGER"},{"name":"yes","type":"BOOLEAN"},{"name":"list","type":"INTEGER[]"}],"rows":[[1,"a,\"b\"",null,true,[1,2]]]}`},
		{"*/*", "application/json", ""},
		{"application/x-ndjson", "application/x-ndjson", `{"n":1,"text":"a,\"b\"","nothing":null,"yes":true,"list":[1,2]}`},
		{"text/csv", "text/csv", "n,text,nothing,yes,list\n1,\"a,\"\"b\"\"\",,true,"},
		{"text/tab-separated-values", "text/tab-separated-values", "n\ttext\tnothing\tyes\tlist\n1\ta,\"b\"\t"},
		{"text/html, text/csv;q=0.5, */*;q=0.1", "text/csv", ""},
	} {
		headers := []string{plainType}
		if c.accept != "" {
			headers = append(headers, "Accept: "+c.accept)
		}
		r := s.call("POST", "/v1/sql", []byte(query), headers...)
		if r.status != 200 || !strings.HasPrefix(r.header.Get("Content-Type"), c.media) {
			t.Errorf("Accept %q: %d %s %s", c.accept, r.status, r.header.Get("Content-Type"), r.body)
			continue
		}
		got := string(r.body)
		if strings.Contains(c.media, "json") && c.want != "" {
			var a, b any
			if json.Unmarshal([]byte(got), &a) != nil || json.Unmarshal([]byte(c.want), &b) != nil || fmt.Sprint(a) != fmt.Sprint(b) {
				t.Errorf("Accept %q:\n%s\nwant\n%s", c.accept, got, c.want)
			}
		} else if !strings.HasPrefix(strings.ReplaceAll(got, "\r\n", "\n"), c.want) {
			t.Errorf("Accept %q:\n%q\nwant\n%q", c.accept, got, c.want)
		}
	}
	wrapped := s.call("POST", "/v1/sql", []byte(`{"sql": "select 42 as n"}`), jsonType)
	if wrapped.status != 200 || !bytes.Contains(wrapped.body, []byte("42")) {
		t.Errorf("SQL in JSON: %d %s", wrapped.status, wrapped.body)
	}
	bare := s.call("POST", "/v1/sql", []byte(`select 42 as n`))
	if bare.status != 200 || !bytes.Contains(bare.body, []byte("42")) {
		t.Errorf("SQL without a type: %d %s", bare.status, bare.body)
	}
}

// TestQueryLimits: the time limit is 408; an answer over the row limit, or one
// whose query fails on the way, never looks whole; a client that leaves gives
// its place to the next.
func TestQueryLimits(t *testing.T) {
	t.Parallel()
	s := serve(t, project(t, "query:\n  timeout: 5s\n  max_rows: 100000\n  concurrent: 1\n  wait: 1s\n"))
	const endless = "select count(*) from range(10000000000000) t(i) where i % 7 = 3"
	r := s.call("POST", "/v1/sql", []byte(endless), plainType)
	checkProblem(t, r, http.StatusRequestTimeout, "5s")

	for _, c := range []struct{ name, query string }{
		{"over the row limit", "select i, repeat('x', 100) from range(100001) t(i)"},
		{"fails on the way", "select if(i = 90000, error('boom'), i::varchar), repeat('x', 100) from range(99999) t(i)"},
	} {
		for _, accept := range []string{"application/json", "application/x-ndjson", "text/csv"} {
			body, err := readCut(s, c.query, accept)
			if err == nil {
				t.Errorf("%s as %s: the answer looks whole: ...%.200s", c.name, accept, body[max(0, len(body)-200):])
				continue
			}
			lines := bytes.Split(bytes.TrimSpace(body), []byte("\n"))
			if last := lines[len(lines)-1]; !bytes.Contains(last, []byte(`"error"`)) {
				t.Errorf("%s as %s: the last line is no error: %.300s", c.name, accept, last)
			}
		}
	}

	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "POST", s.url+"/v1/sql", strings.NewReader(endless))
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			err = fmt.Errorf("answered %d", resp.StatusCode)
		}
		left <- err
	}()
	eventually(t, "the only place is taken", func() (bool, string) {
		r := s.call("POST", "/v1/sql", []byte("select 1"), plainType)
		if r.status == 503 && r.header.Get("Retry-After") == "" {
			t.Error("503 without Retry-After")
		}
		return r.status == 503, fmt.Sprint(r.status)
	})
	cancel()
	<-left
	began := time.Now()
	eventually(t, "the place is free again", func() (bool, string) {
		r := s.call("POST", "/v1/sql", []byte("select 1"), plainType)
		return r.status == 200, fmt.Sprint(r.status)
	})
	t.Logf("a query was let in %v after the client before it had left", time.Since(began).Round(time.Millisecond))
}

// readCut reads an answer that should break off; the error is how it did, nil
// when it did not.
func readCut(s *server, query, accept string) ([]byte, error) {
	req, err := http.NewRequest("POST", s.url+"/v1/sql", strings.NewReader(query))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	resp, err := patient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}
