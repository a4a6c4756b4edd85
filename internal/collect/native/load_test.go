package native

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"naru/internal/collect"
	"naru/internal/event"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/stream"
	"naru/internal/stream/memory"
)

// sink is a log that checks batches and keeps nothing.
type sink struct {
	stream.Log
	next            atomic.Int64
	appends, writes atomic.Int64
	largest         atomic.Int64
	at              []event.Position
}

func (s *sink) Append(_ context.Context, writes ...stream.Write) ([]event.Position, error) {
	s.appends.Add(1)
	s.writes.Add(int64(len(writes)))
	at := s.at[:0]
	for i := range writes {
		w := &writes[i]
		h, err := recordbatch.ReadHead(w.Batch)
		if err != nil || h.Count != w.Count || h.Size != len(w.Batch) {
			return nil, fmt.Errorf("write %d: %+v, %w", i, h, err)
		}
		s.largest.Store(max(s.largest.Load(), int64(len(w.Batch))))
		at = append(at, event.Position{Offset: s.next.Add(int64(w.Count)) - int64(w.Count)})
	}
	s.at = at
	return at, nil
}

// A body is cut into record batches as it fills, all in one append, and the
// answer names the first and last offset over all of them.
func TestLargeBodiesAreCut(t *testing.T) {
	log := memory.New()
	d, _ := newDoor(t, log, nil)
	line := `{"type":"page","text":"` + strings.Repeat("lorem ipsum ", 80) + `"}` + "\n"
	const n = 8000 // 8 MB
	for round := range 2 {
		got := do(t, d, request("", strings.Repeat(line, n)+"x\n"))
		if got.status != 200 || got.Accepted != n || len(got.Positions) != 1 {
			t.Fatalf("%d %.200s", got.status, got.body)
		}
		if p := got.Positions[0]; p.First != int64(round*n) || p.Last != int64((round+1)*n-1) {
			t.Errorf("positions %+v", p)
		}
	}
	all := stored(t, log, "events")
	if len(all) != 2*n {
		t.Fatalf("%d events", len(all))
	}
	ids := map[string]bool{}
	for i := range all {
		if string(all[i].Data) != strings.TrimSpace(line) || string(all[i].Type) != "page" || all[i].Offset != int64(i) {
			t.Fatalf("event %d: %s", i, brief(&all[i]))
		}
		ids[string(all[i].ID)] = true
	}
	if len(ids) != 2*n {
		t.Errorf("%d ids for %d events", len(ids), 2*n)
	}
}

// Very many tiny events are bounded by their number, not by memory: 22 million
// in a body that inflates to 64 MiB.
func TestVeryManyTinyEvents(t *testing.T) {
	s := &sink{Log: memory.New()}
	d, _ := newDoor(t, s, nil)
	body := zipped(t, strings.Repeat("{}\n", 64<<20/3))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got := do(t, d, request("", body, "Content-Encoding", "gzip"))
	runtime.ReadMemStats(&after)
	if got.status != 413 || got.Title != "too many events" || s.appends.Load() != 0 {
		t.Errorf("%d %s", got.status, got.body)
	}
	// Twice the body while its buffer grows, and some for the records.
	if used := after.TotalAlloc - before.TotalAlloc; used > 150<<20 {
		t.Errorf("%d MiB allocated", used>>20)
	}
	got = do(t, d, request("", strings.Repeat("{}", 100_000)))
	if got.status != 200 || got.Accepted != 100_000 || got.Positions[0].Last != 99_999 {
		t.Errorf("%d %.200s", got.status, got.body)
	}
	if s.appends.Load() != 1 || s.writes.Load() < 5 || s.largest.Load() > 2*recordbatch.CutSize {
		t.Errorf("%d appends, %d writes, the largest of %d bytes", s.appends.Load(), s.writes.Load(), s.largest.Load())
	}
}

func TestBadLinesAreCutToo(t *testing.T) {
	log := memory.New()
	d, _ := newDoor(t, log, nil)
	got := do(t, d, request("", strings.Repeat("bad\n", 20_000)+"{}", "Content-Type", "application/x-ndjson"))
	if got.status != 200 || got.Accepted != 1 || got.RejectedCount != 20_000 {
		t.Fatalf("%d %.200s", got.status, got.body)
	}
	all := stored(t, log, "rejected")
	if len(all) != 20_000 || all[19_999].Refusal.Index != 19_999 {
		t.Errorf("%d rejections", len(all))
	}
}

func TestPartitions(t *testing.T) {
	log := memory.New()
	d, _ := newDoor(t, log, func(c *collect.Config) { c.Partitions = 4 })
	var items []string
	for i := range 200 {
		items = append(items, fmt.Sprintf(`{"specversion":"1.0","id":"%d","source":"s","type":"t","subject":"user-%d"}`, i, i%20))
	}
	items = append(items, `{"specversion":"1.0","id":"none","source":"s","type":"t"}`)
	got := do(t, d, request("", "["+strings.Join(items, ",")+"]", "Content-Type", batchType))
	if got.status != 200 || got.Accepted != 201 || len(got.Positions) != 4 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	total := int64(0)
	for i, p := range got.Positions {
		if p.Partition != i || p.First != 0 {
			t.Errorf("%+v", p)
		}
		total += p.Last - p.First + 1
	}
	if total != 201 {
		t.Errorf("%d events in the positions", total)
	}
}

// Many clients at a time over real connections: each gets its own answer, and
// everything acknowledged is there, once.
func TestConcurrentRequests(t *testing.T) {
	log := memory.New()
	d, reg := newDoor(t, log, nil)
	srv := httptest.NewServer(d)
	defer srv.Close()
	const clients, requests, events = 8, 20, 50
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for q := range requests {
				var body strings.Builder
				for i := range events {
					fmt.Fprintf(&body, "{\"type\":\"t%d\",\"key\":\"%d/%d/%d\"}\n", i%20, c, q, i)
				}
				body.WriteString("broken\n")
				text, coding := body.String(), ""
				if q%2 == 0 {
					text, coding = zipped(t, text), "gzip"
				}
				r, err := http.NewRequest("POST", srv.URL+Path+"?id_field=key", strings.NewReader(text))
				if err != nil {
					t.Error(err)
					return
				}
				r.Header.Set("Content-Type", "application/x-ndjson")
				r.Header.Set("Content-Encoding", coding)
				resp, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				answer, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				var got result
				if err == nil {
					err = json.Unmarshal(answer, &got)
				}
				if err != nil || resp.StatusCode != 200 || got.Accepted != events || len(got.Rejected) != 1 || got.Rejected[0].Index != events {
					t.Errorf("%d %s %v", resp.StatusCode, answer, err)
				}
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, e := range stored(t, log, "events") {
		var data struct{ Type, Key string }
		if err := json.Unmarshal(e.Data, &data); err != nil || data.Key != string(e.ID) || data.Type != string(e.Type) || seen[data.Key] {
			t.Fatalf("%s, %v", brief(&e), err)
		}
		seen[data.Key] = true
	}
	if len(seen) != clients*requests*events {
		t.Errorf("%d events, want %d", len(seen), clients*requests*events)
	}
	if n := len(stored(t, log, "rejected")); n != clients*requests {
		t.Errorf("%d rejections, want %d", n, clients*requests)
	}
	if !strings.Contains(scrape(t, reg), "naru_door_in_flight_bytes 0\n") {
		t.Error("bodies are still held")
	}
}

// A request that does not fit beside the others is asked to come back.
func TestFullBudget(t *testing.T) {
	const limit = quantity.MiB
	d, _ := newDoor(t, memory.New(), func(c *collect.Config) {
		c.Body, c.Decompressed, c.InFlight, c.Event = limit, limit, limit, limit
	})
	budget := d.engine.Budget()
	if !budget.Reserve(budget.Share()) {
		t.Fatal("cannot fill the budget")
	}
	large := `{"a":"` + strings.Repeat("x", 100<<10) + `"}`
	got := do(t, d, request("", large))
	if got.status != 429 || got.header.Get("Retry-After") != "1" || got.Title != "too much in flight" {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := do(t, d, request("", `{"a":"small"}`)); got.status != 200 {
		t.Errorf("a small one: %d %s", got.status, got.body)
	}
	budget.Release(budget.Share())
	if got := do(t, d, request("", large)); got.status != 200 {
		t.Errorf("afterwards: %d %s", got.status, got.body)
	}
}

// waiting is a log whose appends take until release.
type waiting struct {
	stream.Log
	entered chan struct{}
	release chan struct{}
}

func (w *waiting) Append(ctx context.Context, writes ...stream.Write) ([]event.Position, error) {
	w.entered <- struct{}{}
	<-w.release
	return w.Log.Append(ctx, writes...)
}

// Requests that wait for the disk count, with the records made of them: tiny
// events have headers many times their size.
func TestBudgetHoldsWhileTheDiskWorks(t *testing.T) {
	log := &waiting{Log: memory.New(), entered: make(chan struct{}), release: make(chan struct{})}
	d, _ := newDoor(t, log, nil)
	body := strings.Repeat("{}", 10_000) // 20 kB that make 1.5 MB of records
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if got := do(t, d, request("", body)); got.status != 200 {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}
	for range 4 {
		<-log.entered
	}
	if used := d.engine.Budget().Used(); used < 4<<20 {
		t.Errorf("%d bytes reserved for four requests", used)
	}
	close(log.release)
	wg.Wait()
	if used := d.engine.Budget().Used(); used != 0 {
		t.Errorf("%d bytes stay reserved", used)
	}
}

// Whatever comes as NDJSON: every object is stored as it was sent, everything
// else is in `rejected`, and together they are the body.
func FuzzLines(f *testing.F) {
	for _, s := range []string{"{}\n{}", "{\"type\":\"x\",\"time\":5}\nbad\n", "{\n\"a\":1}\n[1]\n7", "{\"a\":1\n{\"b\":2}\n", "\xef\xbb\xbf{}x{}",
		`{"event_name":"view","event_value":"{\"content_list\":{\"comic_id\":321}}"}{"event_name":"view"}`, "{\n \"a\": {\n  \"b\": 1\n }\n}{\n \"a\": 2\n}\n{}"} {
		f.Add([]byte(s), uint8(0))
		f.Add([]byte(s), uint8(1))
		f.Add([]byte(s), uint8(2))
	}
	f.Fuzz(func(t *testing.T, body []byte, which uint8) {
		log := memory.New()
		d, _ := newDoor(t, log, nil)
		media := []string{"application/x-ndjson", "application/json", ""}[which%3]
		got := do(t, d, request("", string(body), "Content-Type", media))
		events, rejected := stored(t, log, "events"), stored(t, log, "rejected")
		if got.status != 200 {
			if got.status/100 != 4 || len(events)+len(rejected) != 0 {
				t.Fatalf("%d %s with %d stored", got.status, got.body, len(events)+len(rejected))
			}
			return
		}
		if len(events) != got.Accepted || len(rejected) != max(len(got.Rejected), got.RejectedCount) {
			t.Fatalf("%d and %d stored: %s", len(events), len(rejected), got.body)
		}
		squeeze := func(b []byte) string {
			return strings.Map(func(r rune) rune {
				if strings.ContainsRune(" \t\r\n[],", r) {
					return -1
				}
				return r
			}, string(b))
		}
		total := 0
		for _, e := range events {
			if !json.Valid(e.Data) || e.Data[0] != '{' {
				t.Fatalf("stored %q", e.Data)
			}
			total += len(squeeze(e.Data))
		}
		for _, e := range rejected {
			if len(e.Data) == 0 {
				t.Fatal("an empty rejection")
			}
			total += len(squeeze(e.Data))
		}
		if want := len(squeeze(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")))); total != want {
			t.Fatalf("%d of %d characters of %q are stored", total, want, body)
		}
	})
}

// corpus renders n page views like those of the benchmarks: about 265 bytes,
// nine fields, one of them an object. NARU_CORPUS names a file to use instead.
func corpus(t testing.TB, n int) []byte {
	t.Helper()
	if name := os.Getenv("NARU_CORPUS"); name != "" {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.SplitAfterN(text, []byte{'\n'}, n+1)
		return bytes.Join(lines[:min(n, len(lines))], nil)
	}
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, `{"event_id":"%016x","type":"page","ts":"2026-01-01T00:%02d:%02d.%03dZ","anon_id":"u%06d","session":"s%08x","path":"/%s/%s","referrer":"%s","dur_ms":%d,"context":{"browser":"%s","os":"%s","country":"%s","width":%d}}`+"\n",
			r.Uint64(), i/60%60, i%60, r.IntN(1000), r.IntN(200000), r.Uint32(),
			pick("products", "blog", "docs", "category", "account"), pick("index", "wireless-headphones-7", "spring-sale", "getting-started", "faq"),
			pick("https://www.google.com/", "https://www.bing.com/", "", "https://news.example.com/"), r.IntN(100000),
			pick("Chrome", "Safari", "Samsung Internet"), pick("Windows", "iOS", "Android"), pick("US", "DE", "GB"), 390+r.IntN(2000))
	}
	return b.Bytes()
}

type replay struct {
	bytes.Reader
	data []byte
}

func (r *replay) Close() error { return nil }

// quiet is a ResponseWriter that keeps only the status.
type quiet struct {
	header http.Header
	status int
}

func (q *quiet) Header() http.Header         { return q.header }
func (q *quiet) WriteHeader(status int)      { q.status = status }
func (q *quiet) Write(p []byte) (int, error) { return len(p), nil }

// poster sends the same body again and again without making anything new.
func poster(t testing.TB, d *Door, query string, body []byte) func() {
	t.Helper()
	r := request(query, "", "Content-Type", "application/x-ndjson")
	src := &replay{data: body}
	r.Body, r.ContentLength = src, int64(len(body))
	w := &quiet{header: http.Header{}}
	return func() {
		src.Reset(src.data)
		clear(w.header)
		d.ServeHTTP(w, r)
		if w.status != 200 {
			t.Fatalf("status %d", w.status)
		}
	}
}

func TestHotPathAllocatesLittle(t *testing.T) {
	d, _ := newDoor(t, &sink{Log: memory.New()}, nil)
	for _, query := range []string{"", "?type=page"} {
		post := poster(t, d, query, corpus(t, 500))
		if n := testing.AllocsPerRun(50, post); n > 40 { // usually 1 or 2; the race detector empties pools
			t.Errorf("%q: %v allocations for a body of 500 events", query, n)
		}
	}
}
