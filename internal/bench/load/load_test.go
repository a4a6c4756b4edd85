package load

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestPageViews(t *testing.T) {
	const n = 20000
	views := PageViews(n)
	again := PageViews(n)
	seen := map[string]map[string]bool{}
	size := 0
	last := ""
	for i, line := range views {
		if !bytes.Equal(line, again[i]) {
			t.Fatalf("event %d differs from run to run:\n%s\n%s", i, line, again[i])
		}
		size += len(line)
		var v struct {
			ID      string `json:"event_id"`
			Type    string
			TS      string
			User    string `json:"anon_id"`
			Session string
			Path    string
			Ref     *string `json:"referrer"`
			Dwell   *int64  `json:"dur_ms"`
			Context struct {
				Browser, OS, Country string
				Width                int
			}
		}
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&v); err != nil {
			t.Fatalf("event %d: %v: %s", i, err, line)
		}
		if v.Type != "page" || v.Session == "" || v.Path == "" || v.Ref == nil || v.Dwell == nil || v.Context.Width == 0 || v.TS < last {
			t.Fatalf("event %d: %s", i, line)
		}
		last = v.TS
		for name, value := range map[string]string{"id": v.ID, "user": v.User, "path": v.Path, "country": v.Context.Country, "browser": v.Context.Browser, "os": v.Context.OS} {
			if seen[name] == nil {
				seen[name] = map[string]bool{}
			}
			seen[name][value] = true
		}
	}
	if mean := size / n; mean < 255 || mean > 275 {
		t.Errorf("an event has %d bytes, want some 265", mean)
	}
	for name, want := range map[string][2]int{"id": {n, n}, "user": {500, n / 2}, "path": {120, 120}, "country": {15, 15}, "browser": {5, 5}, "os": {5, 5}} {
		if got := len(seen[name]); got < want[0] || got > want[1] {
			t.Errorf("%d different values of %s, want %v", got, name, want)
		}
	}
}

func TestBodies(t *testing.T) {
	got := Bodies([][]byte{[]byte("a"), []byte("b"), []byte("c"), []byte("d"), []byte("e")}, 2)
	if len(got) != 2 || string(got[0]) != "a\nb" || string(got[1]) != "c\nd" {
		t.Errorf("%q", got)
	}
}

func TestQuantile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	for _, tt := range []struct {
		sorted []time.Duration
		q      float64
		want   time.Duration
	}{
		{nil, .5, 0}, {hundred[:1], .5, 1}, {hundred[:1], .99, 1}, {hundred[:2], .5, 1}, {hundred[:3], .5, 2}, {hundred, .5, 50}, {hundred, .99, 99},
		{hundred, 1, 100}, {hundred, 0, 1}, {hundred[:10], .99, 10},
	} {
		if got := Quantile(tt.sorted, tt.q); got != tt.want {
			t.Errorf("%v of %d values: %d, want %d", tt.q, len(tt.sorted), got, tt.want)
		}
	}
}

func TestLoop(t *testing.T) {
	var lines, requests atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.URL.RequestURI() != "/v1/events?type=x" || r.Header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("%v %s %v", err, r.URL, r.Header)
		}
		requests.Add(1)
		lines.Add(int64(bytes.Count(body, []byte{'\n'}) + 1))
		_, _ = io.WriteString(w, `{"accepted": 1}`)
	}))
	t.Cleanup(srv.Close)
	to := Target{Address: strings.TrimPrefix(srv.URL, "http://"), Path: "/v1/events?type=x", ContentType: "application/x-ndjson"}
	o, err := Loop(context.Background(), to, Bodies(PageViews(10), 5), 3, Until{Requests: 7})
	if err != nil || o.Requests != 7 || requests.Load() != 7 || lines.Load() != 35 || len(o.Waits) != 7 || o.Wall <= 0 {
		t.Errorf("%+v %v; the server has seen %d requests, %d lines", o, err, requests.Load(), lines.Load())
	}
	for i := 1; i < len(o.Waits); i++ {
		if o.Waits[i] < o.Waits[i-1] {
			t.Errorf("not sorted: %v", o.Waits)
		}
	}
	if o, err = Loop(context.Background(), to, Bodies(PageViews(1), 1), 2, Until{Time: 10 * time.Millisecond}); err != nil || o.Requests == 0 {
		t.Errorf("%+v %v", o, err)
	}
}

func TestLoopEndsAtARefusal(t *testing.T) {
	var n atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) > 3 {
			http.Error(w, "disk full", http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(srv.Close)
	_, err := Loop(context.Background(), Target{Address: strings.TrimPrefix(srv.URL, "http://"), Path: "/"}, [][]byte{[]byte("x")}, 2, Until{Time: time.Hour})
	if err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("%v", err)
	}
	if _, err := Loop(context.Background(), Target{Address: "127.0.0.1:1", Path: "/"}, [][]byte{[]byte("x")}, 1, Until{Requests: 1}); err == nil {
		t.Error("nobody listens there")
	}
}

func TestLoopEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	asked := make(chan struct{}, 8)
	open := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-open // never answers in time
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(open) })
	go func() {
		<-asked
		cancel()
	}()
	if _, err := Loop(ctx, Target{Address: strings.TrimPrefix(srv.URL, "http://"), Path: "/"}, [][]byte{[]byte("x")}, 2, Until{Time: time.Hour}); err != context.Canceled {
		t.Errorf("%v", err)
	}
}
