package client

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"naru/internal/fault"
	"naru/internal/web"
)

func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, err := New(srv.URL + "/")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNewRefusesWhatIsNoServer(t *testing.T) {
	for _, s := range []string{"", "127.0.0.1:8080", "ftp://x", "http://", "http://x/?a=b", "http://x\x7f"} {
		if _, err := New(s); err == nil || !strings.Contains(fault.HintOf(err), "NARU_URL") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestAppendRequest(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		q := r.URL.Query()
		if r.Method != "POST" || r.URL.Path != "/v1/events" || string(body) != "{}\n" || r.ContentLength != 3 ||
			r.Header.Get("Content-Type") != "application/x-ndjson" || q.Get("id_prefix") != "a b&c:" || q.Get("id_first") != "7" ||
			q.Get("type") != "edit" || q.Has("stream") {
			web.Problem(w, 400, "unexpected", r.URL.String()+" "+string(body))
			return
		}
		_, _ = io.WriteString(w, `{"accepted":0,"rejected":[{"index":0,"reason":"not_json","detail":"d"}],"positions":[]}`)
	})
	a, err := c.Append(t.Context(), Batch{Type: "edit", IDPrefix: "a b&c:", FirstID: 7, Body: []byte("{}\n")})
	if err != nil || a.Items() != 1 || a.Rejected[0].Reason != "not_json" {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestErrorsHaveTheirClass(t *testing.T) {
	tests := []struct {
		name      string
		answer    http.HandlerFunc
		transient bool
		after     time.Duration
		text      string
	}{
		{"problem", func(w http.ResponseWriter, _ *http.Request) { web.Problem(w, 413, "too large", "limits.body is 32MiB") },
			false, 0, "too large (413): limits.body is 32MiB"},
		{"busy", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3")
			web.Problem(w, 429, "busy", "in flight is full")
		}, true, 3 * time.Second, "busy (429): in flight is full"},
		{"stopping", func(w http.ResponseWriter, _ *http.Request) { web.Problem(w, 503, "stopping", "") }, true, 0, "stopping (503)"},
		{"proxy", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "upstream is gone\nmore", http.StatusBadGateway)
		},
			true, 0, "502 Bad Gateway: upstream is gone"},
		{"elsewhere", func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, false, 0, "404 Not Found: 404 page not found"},
		{"not naru", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, false, 0, "read the answer"},
		{"counts nothing", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }, false, 0, "counts no events"},
		{"cut", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"accepted":1`)
		}, true, 0, "unexpected EOF"},
		{"connection cut", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, true, 0, "EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := serve(t, tt.answer).Append(t.Context(), Batch{Body: []byte("{}\n")})
			if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("got %v, want %q", err, tt.text)
			}
			if fault.IsTransient(err) != tt.transient {
				t.Errorf("transient: %v", !tt.transient)
			}
			var later *fault.RetryAfter
			if errors.As(err, &later) && later.After != tt.after {
				t.Errorf("retry after %v, want %v", later.After, tt.after)
			}
		})
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := New("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, err = c.Status(t.Context())
	if !fault.IsTransient(err) || !strings.Contains(fault.HintOf(err), "naru serve") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("%v (%s)", err, fault.HintOf(err))
	}
}

func TestAnswersAreBounded(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	})
	if _, err := c.Status(t.Context()); !errors.Is(err, fault.ErrLimit) {
		t.Errorf("an endless answer: %v", err)
	}
}

func TestTailAndQueryRequests(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("Accept")+" "+string(body))
	})
	read := func(body io.ReadCloser, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		text, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if got := read(c.Tail(t.Context(), "a/b", TailOptions{Last: 3, Follow: true})); got != "GET /v1/streams/a%2Fb/events?follow=true&last=3 application/x-ndjson " {
		t.Error(got)
	}
	if got := read(c.Tail(t.Context(), "events", TailOptions{From: "start", Last: -1})); got != "GET /v1/streams/events/events?from=start application/x-ndjson " {
		t.Error(got)
	}
	if got := read(c.Query(t.Context(), "select 1", "text/csv")); got != "POST /v1/sql text/csv select 1" {
		t.Error(got)
	}
}
