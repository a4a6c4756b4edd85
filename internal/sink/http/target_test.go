package http

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/sink"
)

// target is a real server that keeps what it is sent.
type target struct {
	*httptest.Server
	mu       sync.Mutex
	requests []received
	taken    map[string]map[string]any // by key
	count    map[string]int            // of deliveries, by key
	refuse   map[string]bool           // ids
	// answer, when set, decides about a request: false, it has answered itself.
	answer func(w http.ResponseWriter, r *http.Request, q received) bool
}

type received struct {
	header http.Header
	body   []byte // as it came
	rows   []map[string]any
}

func newTarget(t *testing.T) *target {
	x := &target{taken: map[string]map[string]any{}, count: map[string]int{}, refuse: map[string]bool{}}
	x.Server = httptest.NewServer(x)
	t.Cleanup(func() {
		x.CloseClientConnections()
		x.Close()
	})
	return x
}

func (x *target) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.ContentLength != int64(len(body)) {
		w.WriteHeader(http.StatusLengthRequired)
		return
	}
	q := received{header: r.Header, body: body}
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err == nil {
			body, err = io.ReadAll(z)
		}
		if err != nil {
			w.WriteHeader(599)
			return
		}
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if r.Header.Get("Content-Type") == "application/json" {
		err = dec.Decode(&q.rows)
	} else {
		for err == nil {
			var one map[string]any
			if err = dec.Decode(&one); err == nil {
				q.rows = append(q.rows, one)
			}
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		w.WriteHeader(598)
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.requests = append(x.requests, q)
	if x.answer != nil && !x.answer(w, r, q) {
		return
	}
	x.take(w, q, len(q.rows))
}

// take keeps the first n rows of a request and answers with a result for each.
func (x *target) take(w http.ResponseWriter, q received, n int) {
	records := []map[string]any{}
	for _, one := range q.rows[:n] {
		key := one["_key"].(string)
		rec := map[string]any{"recordId": key, "result": "Ok"}
		if id, _ := one["_id"].(string); x.refuse[id] {
			rec["result"], rec["error"] = "ProcessingFailed", "no "+id
		} else {
			x.taken[key] = one
			x.count[key]++
		}
		records = append(records, rec)
	}
	json.NewEncoder(w).Encode(map[string]any{"records": records})
}

func (x *target) ids() (ids []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, one := range x.taken { // a target that knows keys has a row once
		ids = append(ids, one["_id"].(string))
	}
	return ids
}

// open opens a sink on the target; its pauses between attempts take no time and are
// noted in the slice that is returned.
func (x *target) open(t *testing.T, change func(*Settings)) (*Sink, *[]time.Duration) {
	t.Helper()
	s, pauses := DefaultSettings(), new([]time.Duration)
	s.URL = x.URL + "/hook"
	s.wait = func(ctx context.Context, d time.Duration) error {
		*pauses = append(*pauses, d)
		return ctx.Err()
	}
	if change != nil {
		change(&s)
	}
	require.NoError(t, s.Validate())
	out, err := s.Open(t.Context(), sink.Env{Name: "http", Getenv: func(name string) string {
		return map[string]string{"SECRET": "s3cr3t", "TOKEN": "Bearer t0k3n", "URL": x.URL + "/t0k3n", "LINES": "a\nb"}[name]
	}})
	require.NoError(t, err)
	return out.(*Sink), pauses
}
