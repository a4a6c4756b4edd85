package e2e

import (
	"bufio"
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

// hook is a webhook that hangs at first, then fails by turns, and answers for each
// row. It remembers rows by their keys, as the page of the sink says.
type hook struct {
	*httptest.Server
	until time.Time // it hangs

	mu      sync.Mutex
	calls   int
	rows    map[string]string // key: id
	again   int               // rows that came again
	refused map[string]bool   // ids
	dropped map[string]bool
	unlike  string // a key that came with another row
	hanging chan struct{}
}

func newHook(t *testing.T, hang time.Duration) *hook {
	h := &hook{until: time.Now().Add(hang), rows: map[string]string{}, refused: map[string]bool{}, dropped: map[string]bool{}, hanging: make(chan struct{})}
	h.Server = httptest.NewServer(http.HandlerFunc(h.take))
	t.Cleanup(func() { close(h.hanging); h.Close() })
	return h
}

func (h *hook) take(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the server was killed
	}
	if wait := time.Until(h.until); wait > 0 {
		select {
		case <-time.After(wait):
		case <-r.Context().Done():
		case <-h.hanging:
		}
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls++
	switch h.calls % 5 {
	case 1:
		w.WriteHeader(http.StatusInternalServerError)
		return
	case 3:
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	type result struct {
		ID     string `json:"recordId"`
		Result string `json:"result"`
		Error  string `json:"error,omitempty"`
	}
	var out struct {
		Records []result `json:"records"`
	}
	for line := range strings.Lines(string(body)) {
		var row struct {
			ID    string  `json:"_id"`
			Key   string  `json:"_key"`
			Added float64 `json:"added"`
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			w.WriteHeader(http.StatusUnprocessableEntity)
			return
		}
		one := result{ID: row.Key, Result: "Ok"}
		switch {
		case int(row.Added)%97 == 0:
			one.Result, one.Error = "ProcessingFailed", "a multiple of 97"
			h.refused[row.ID] = true
		case int(row.Added)%89 == 0:
			one.Result = "Dropped"
			h.dropped[row.ID] = true
		default:
			if was, ok := h.rows[row.Key]; ok {
				h.again++
				if was != row.ID {
					h.unlike = row.Key
				}
			}
			h.rows[row.Key] = row.ID
		}
		out.Records = append(out.Records, one)
	}
	_ = json.NewEncoder(w).Encode(out) // who has gone asks again
}

// TestPipelineUnderKills: one pipeline with four sinks over the Wikipedia edits, a
// cast that fails on some of them, a webhook that hangs and fails, and SIGKILLs. The
// others go on while the webhook hangs; at the end each sink has what it should.
func TestPipelineUnderKills(t *testing.T) {
	t.Parallel()
	lines, err := wikipediaLines()
	if err != nil {
		t.Fatal(err)
	}
	lines = lines[:short(12_000, len(lines))]
	rng := rand.New(rand.NewPCG(7, uint64(time.Now().UnixNano())))
	dir := project(t, "log:\n  segment: 4MiB\npipelines:\n  commit_interval: 200ms\n  backoff_max: 1s\n")
	hang := 8 * time.Second
	if os.Getenv("NARU_TEST_ENGINES") != "" {
		hang = time.Minute
	}
	h := newHook(t, hang)
	if err := os.MkdirAll(filepath.Join(dir, "pipelines"), 0o755); err != nil {
		t.Fatal(err)
	}
	definition := `
from: {types: [wikipedia_edit]}
steps:
  - sql: |
      SELECT _id, n, channel, page, added, CAST(CASE WHEN n % 1009 = 5 THEN 'x' ELSE '1' END AS INTEGER) AS one
      FROM input WHERE NOT isRobot
  - filter: added > 0
to:
  - table: human_edits
  - stream: enriched
  - http: {url: "` + h.URL + `", results: true, batch: 200, timeout: 5s, attempts: 2}
    name: hook
    every: 300ms
  - file: {dir: out, format: ndjson, roll: {every: 300ms}}
    every: 300ms
`
	others := foreigners(t)
	for _, o := range others {
		definition += o.yaml
	}
	if err := os.WriteFile(filepath.Join(dir, "pipelines", "edits.yaml"), []byte(definition), 0o644); err != nil {
		t.Fatal(err)
	}
	s := serve(t, dir)
	watch := watchLags(t, "edits")
	watch.serves(s, 0)

	// What must come out, by the same rules in Go.
	type edit struct {
		IsRobot bool    `json:"isRobot"`
		Added   float64 `json:"added"`
	}
	want, refused, hooked := map[string]bool{}, map[string]bool{}, map[string]bool{}
	hookRefused, hookDropped := 0, 0
	var bodies []string
	var b strings.Builder
	for n, line := range lines {
		var e edit
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprint("edit-", n)
		fmt.Fprintf(&b, `{"n":%d,"k":%q,%s`+"\n", n, id, line[1:])
		if (n+1)%250 == 0 || n == len(lines)-1 {
			bodies = append(bodies, b.String())
			b.Reset()
		}
		switch {
		case e.IsRobot || e.Added <= 0: // left out, whatever the cast would say
		case n%1009 == 5:
			refused[id] = true
		default:
			want[id] = true
			switch {
			case int(e.Added)%97 == 0:
				hookRefused++
			case int(e.Added)%89 == 0:
				hookDropped++
			default:
				hooked[id] = true
			}
		}
	}
	if len(refused) < 2 || hookRefused < 3 || hookDropped < 3 {
		t.Fatalf("too few: %d refused, %d by the hook, %d dropped", len(refused), hookRefused, hookDropped)
	}
	const query = "?type=wikipedia_edit&id_field=k&source=/wiki"
	kills, sent := 0, 0
	pace := time.Until(h.until) / 2 / time.Duration(len(bodies)) // events come while the hook hangs
	for i := 0; i < len(bodies); {
		if rng.IntN(3) == 0 && kills < 8 && i < len(bodies)/2 { // then it is let alone for a while
			kills++
			watch.serves(nil, 0)
			s.kill()
			s = serve(t, dir)
			watch.serves(s, sent)
		}
		time.Sleep(pace)
		s.post(query, "application/x-ndjson", bodies[i])
		sent, i = sent+strings.Count(bodies[i], "\n"), i+1
	}
	t.Logf("%d events, %d kills", sent, kills)

	// While the hook hangs, the others are done.
	count := func(q string) string {
		out, err := s.trySQL(q)
		if err != nil || len(out.Rows) == 0 {
			return fmt.Sprint(err)
		}
		return text(out.Rows[0][0])
	}
	all := fmt.Sprint(len(want))
	eventually(t, "table and stream have all rows", func() (bool, string) {
		a, b := count("select count(_offset) from edits.human_edits"), count("select count(_offset) from enriched.wikipedia_edit")
		return a == all && b == all, fmt.Sprintf("%s and %s of %s", a, b, all)
	})
	for _, o := range others {
		eventually(t, o.name+" has all rows", func() (bool, string) {
			ids, err := o.ids()
			if err != nil {
				return false, err.Error()
			}
			return hasOnce(ids, want)
		})
	}
	hung := time.Now().Before(h.until)
	t.Logf("the others were done while the hook hung: %v", hung)
	if os.Getenv("NARU_TEST_ENGINES") != "" && !hung {
		t.Error("the hook no longer hung when the others were done")
	}
	watch.judge(t, hung, "hook")
	s.kill() // once more, with the hook behind
	s = serve(t, dir)
	eventually(t, "the hook has all rows", func() (bool, string) {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.rows) == len(hooked) && len(h.refused) == hookRefused && len(h.dropped) == hookDropped,
			fmt.Sprintf("%d of %d rows, %d of %d refused, %d of %d dropped, %d calls", len(h.rows), len(hooked), len(h.refused), hookRefused, len(h.dropped), hookDropped, h.calls)
	})
	if h.unlike != "" {
		t.Errorf("key %s came with two rows", h.unlike)
	}
	for _, id := range h.rows {
		if !hooked[id] {
			t.Fatalf("the hook has %s", id)
		}
	}
	t.Logf("the hook got %d rows again", h.again)
	for _, table := range []string{"edits.human_edits", "enriched.wikipedia_edit"} {
		s.waitCell("select count(_id) from "+table, all)
		s.waitCell("select count(distinct _id) from "+table, all)
	}
	s.waitCell("select count(*) from rejected where reason = 'step'", fmt.Sprint(len(refused)))
	s.waitCell("select count(distinct event_id) from rejected where reason = 'step' and rule = 'pipeline/edits' and path = '1 sql'", fmt.Sprint(len(refused)))
	s.waitCell("select count(distinct event_id) from rejected where reason = 'sink' and path = 'hook'", fmt.Sprint(hookRefused))
	eventually(t, "counts add up", func() (bool, string) {
		out, err := s.status()
		if err != nil {
			return false, err.Error()
		}
		seen := 0
		for _, one := range out["streams"].([]any) {
			m := one.(map[string]any)
			if name, _ := m["pipeline"].(string); !strings.HasPrefix(name, "pipeline/edits/") {
				continue
			}
			seen++
			if m["balanced"] != true || m["not_yet_written"].(float64) != 0 || m["acknowledged"].(float64) != float64(len(lines)) {
				return false, fmt.Sprint(m)
			}
		}
		return seen == 4+len(others), fmt.Sprint(seen, " sinks")
	})
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, o := range others {
		ids, err := o.ids()
		if ok, what := hasOnce(ids, want); err != nil || !ok {
			t.Errorf("%s: %v %s", o.name, err, what)
		}
	}
	must(t, "", "verify", dir, "--deep")
	files := map[string]int{}
	err = filepath.WalkDir(filepath.Join(dir, "out"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		in := bufio.NewScanner(f)
		for in.Scan() {
			var row struct {
				ID string `json:"_id"`
			}
			if err := json.Unmarshal(in.Bytes(), &row); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			files[row.ID]++
		}
		return in.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	for id := range want {
		if files[id] != 1 {
			t.Fatalf("%s is %d times in files", id, files[id])
		}
	}
	if len(files) != len(want) {
		t.Errorf("%d rows in files, want %d", len(files), len(want))
	}
}
