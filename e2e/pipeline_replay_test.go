package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// wary is a webhook that refuses some rows until it is told not to, and remembers the
// others by their keys.
type wary struct {
	*httptest.Server
	mu     sync.Mutex
	mended bool
	rows   map[string]int // key: n
	unlike string
}

func newWary(t *testing.T) *wary {
	w := &wary{rows: map[string]int{}}
	w.Server = httptest.NewServer(http.HandlerFunc(w.take))
	t.Cleanup(w.Close)
	return w
}

func (w *wary) take(out http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the server was killed
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	type result struct {
		ID     string `json:"recordId"`
		Result string `json:"result"`
	}
	var answer struct {
		Records []result `json:"records"`
	}
	for line := range strings.Lines(string(body)) {
		var row struct {
			Key string `json:"_key"`
			N   int    `json:"n"`
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			out.WriteHeader(http.StatusUnprocessableEntity)
			return
		}
		one := result{row.Key, "Ok"}
		if row.N%7 == 0 && !w.mended {
			one.Result = "ProcessingFailed"
		} else {
			if n, ok := w.rows[row.Key]; ok && n != row.N {
				w.unlike = row.Key
			}
			w.rows[row.Key] = row.N
		}
		answer.Records = append(answer.Records, one)
	}
	_ = json.NewEncoder(out).Encode(answer) // who has gone asks again
}

// TestPipelineReplayAcrossKills: what a step and a target have refused is replayed once
// both are mended, by two clients at a time, while SIGKILL ends the server again and
// again: each event is at each sink of its pipeline once, and nobody else gets it.
func TestPipelineReplayAcrossKills(t *testing.T) {
	t.Parallel()
	const n, kills = 700, 5
	w := newWary(t)
	dir := project(t, "log:\n  segment: 1MiB\npipelines:\n  commit_interval: 100ms\n  backoff_max: 300ms\nrejected:\n  page: 2KiB\n")
	file := filepath.Join(dir, "pipelines", "p.yaml")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(price string) {
		text := `
from: {types: [order]}
steps:
  - sql: SELECT _id, n, ` + price + ` AS price FROM input
to:
  - table: orders
  - stream: priced
  - http: {url: "` + w.URL + `", results: true, batch: 50, timeout: 5s}
    name: hook
    every: 100ms
`
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("CAST(price AS INTEGER)")
	s := serve(t, dir)
	bad := 0
	for from := 0; from < n; from += 100 {
		var body strings.Builder
		for i := from; i < from+100; i++ {
			price := fmt.Sprint(i)
			if i%5 == 0 {
				price = "none"
				bad++
			}
			fmt.Fprintf(&body, `{"type":"order","n":%d,"price":"%s"}`+"\n", i, price)
		}
		s.post("", "application/x-ndjson", body.String())
	}
	refused := 0 // by the target, of what the step makes
	for i := range n {
		if i%7 == 0 && i%5 != 0 {
			refused++
		}
	}
	s.waitSQL(fmt.Sprintf("select count(*) filter (reason = 'step') = %d and count(*) filter (reason = 'sink') = %d from rejected", bad, refused), "true")
	if out := must(t, "", "rejected", "replay", "--pipeline", "p", "--reason", "step", "--url", s.url); !strings.Contains(out, fmt.Sprintf("0 replayed, %d refused again (step %d)", bad, bad)) {
		t.Errorf("before the steps are mended: %s", out)
	}
	if code := s.stop(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	write("TRY_CAST(price AS INTEGER)")
	w.mu.Lock()
	w.mended = true
	w.mu.Unlock()
	rng := rand.New(rand.NewPCG(8, uint64(time.Now().UnixNano())))
	for range kills {
		s = serve(t, dir)
		eventually(t, "the mended steps are in force", func() (bool, string) {
			out := must(t, "", "pipeline", "show", "p", "--url", s.url)
			return strings.Contains(out, "TRY_CAST"), out
		})
		first, second := s.startReplay(`{"pipeline":"p"}`), s.startReplay(`{"all":true}`)
		for range rng.IntN(8) { // pages that the first client has heard of
			if _, ok := <-first; !ok {
				break
			}
		}
		time.Sleep(time.Duration(rng.IntN(6000)) * time.Microsecond)
		s.kill()
		for range first {
		}
		for range second {
		}
	}
	s = serve(t, dir)
	var done sync.WaitGroup
	for range 2 {
		lines := s.startReplay(`{"pipeline":"p"}`)
		done.Go(func() {
			var last replayLine
			for l := range lines {
				last = l
			}
			if r := last.Result; r == nil || r.Matched != int64(bad+refused) || r.Closed+r.Replayed != r.Matched {
				t.Errorf("the last replays end with %+v", last)
			}
		})
	}
	done.Wait()
	if out := must(t, "", "rejected", "replay", "--all", "--url", s.url); !strings.Contains(out, fmt.Sprintf("0 replayed, %d closed before", bad+refused)) {
		t.Errorf("once more: %s", out)
	}
	all := fmt.Sprint(n)
	s.waitCell("select count(_offset) from p.orders", all)
	s.waitCell(`select count(_offset) from priced."order"`, all)
	eventually(t, "the webhook has all rows", func() (bool, string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.rows) == n, fmt.Sprintf("%d of %d", len(w.rows), n)
	})
	s.settle()
	for query, want := range map[string]string{
		"select count(distinct n) from p.orders":                                                       all,
		`select count(distinct n) from priced."order"`:                                                 all,
		"select count(_offset) from events.order":                                                      all, // it got nothing again
		"select count(*) from rejected_states where state = 'replayed' and event_stream = '_replay.p'": fmt.Sprint(bad + refused),
		"select count(distinct rejection_offset) from rejected_states where state = 'replayed'":        fmt.Sprint(bad + refused),
		"select count(_offset) from rejected":                                                          fmt.Sprint(bad + refused),
		"select count(*) from p.orders where price is null":                                            fmt.Sprint(bad),
		`select count(*) from p.orders p join events."order" e on p._offset = e._offset and p._log = e._log and p._partition = e._partition and p.n = e.n`: all,
	} {
		if got := s.cell(query); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	w.mu.Lock()
	if w.unlike != "" {
		t.Errorf("key %s came with two rows", w.unlike)
	}
	w.mu.Unlock()
	var show struct {
		Sinks []struct {
			Name   string
			Counts map[string]int
			Left   int `json:"replays_left"`
		}
	}
	eventually(t, "the counts add up", func() (bool, string) {
		out := must(t, "", "pipeline", "show", "p", "--json", "--url", s.url)
		if err := json.Unmarshal([]byte(out), &show); err != nil {
			t.Fatal(err)
		}
		for _, one := range show.Sinks {
			if one.Counts["written"] != n || one.Counts["rejections"] != 0 || one.Left != 0 {
				return false, out
			}
		}
		return len(show.Sinks) == 3, out
	})
	if code := s.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if out := must(t, "", "verify", dir, "--deep"); !strings.Contains(out, "clean") {
		t.Errorf("verify: %s", out)
	}
}
