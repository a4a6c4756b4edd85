package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// TestQueriesDuringCommits asks again and again while rows come in, commits
// follow each other, and a column changes its type: every answer is one cut.
// The stream has one type only, so a cut holds the offsets from 0 without a
// gap or a double, and it never goes back.
func TestQueriesDuringCommits(t *testing.T) {
	t.Parallel()
	s := serve(t, project(t, "pipelines:\n  commit_interval: 50ms\n"))
	const requests, batch = 2000, 5
	s.post("?type=cut", "application/json", `{"n":0,"amount":0}`)
	s.waitCell("select count(_offset) from cut", "1")
	done := make(chan struct{})
	var sender sync.WaitGroup
	sender.Go(func() {
		defer close(done)
		for i := range requests {
			var body strings.Builder
			for j := range batch {
				n := 1 + i*batch + j
				if i < requests/2 {
					fmt.Fprintf(&body, "{\"n\":%d,\"amount\":%d}\n", n, n)
				} else {
					fmt.Fprintf(&body, "{\"n\":%d,\"amount\":%d.5}\n", n, n)
				}
			}
			r, err := s.do("POST", "/v1/events?type=cut", []byte(body.String()), ndjsonType)
			if err != nil || r.status != http.StatusOK {
				t.Errorf("request %d: %d %s %v", i, r.status, r.body, err)
				return
			}
		}
	})
	var last int64
	cuts := map[int64]bool{}
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		row := s.sql(`select count(*), min(_offset), max(_offset), count(distinct _offset), sum(n)::bigint, sum(floor(amount))::bigint from cut`).Rows[0]
		var v [6]int64
		for i := range v {
			n, err := strconv.ParseInt(strings.TrimSuffix(text(row[i]), ".0"), 10, 64)
			if err != nil {
				t.Fatalf("%v: %v", row, err)
			}
			v[i] = n
		}
		n := v[0]
		if v[1] != 0 || v[2] != n-1 || v[3] != n || v[4] != n*(n-1)/2 || v[5] != v[4] {
			t.Fatalf("no cut: %d rows at offsets %d to %d, %d different; sums %d and %d, want %d", n, v[1], v[2], v[3], v[4], v[5], n*(n-1)/2)
		}
		if n < last {
			t.Fatalf("the table went back from %d to %d rows", last, n)
		}
		last = n
		cuts[n] = true
	}
	sender.Wait()
	s.waitCell("select count(_offset) from cut", fmt.Sprint(1+requests*batch))
	if got := s.cell("select typeof(any_value(amount)) from cut"); got != "DOUBLE" {
		t.Errorf("type of amount: %s", got)
	}
	t.Logf("%d different cuts seen", len(cuts))
}

// TestFrameLimit: a request that would be larger than a quarter of a segment
// once it is encoded is 413, and nothing of it is stored.
func TestFrameLimit(t *testing.T) {
	t.Parallel()
	s := serve(t, project(t, "log:\n  segment: 1MiB\n"))
	rng := rand.New(rand.NewPCG(1, 2))
	noise := func(size int) string {
		b := make([]byte, size)
		for i := range b {
			b[i] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"[rng.IntN(64)]
		}
		return string(b)
	}
	var body strings.Builder
	for range 300 {
		fmt.Fprintf(&body, "{\"text\":\"%s\"}\n", noise(1000))
	}
	r := s.call("POST", "/v1/events", []byte(body.String()), ndjsonType)
	checkProblem(t, r, http.StatusRequestEntityTooLarge)
	r = s.call("POST", "/v1/events", []byte(`{"text":"`+noise(600<<10)+`"}`), jsonType)
	checkProblem(t, r, http.StatusRequestEntityTooLarge)
	// What compresses well is judged by its encoded size.
	a := s.post("", "application/x-ndjson", strings.Repeat(`{"text":"`+strings.Repeat("x", 1000)+"\"}\n", 1000))
	if a.Accepted != 1000 || a.Positions[0].First != 0 {
		t.Errorf("the first request that fits: %+v, want offset 0", a)
	}
}
