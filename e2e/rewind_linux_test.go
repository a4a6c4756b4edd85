package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// replays is a pipeline over the Wikipedia edits, whose steps change from version to
// version, that is read again and again while events come in and the server is killed.
type replays struct {
	t       *testing.T
	dir     string
	rng     *rand.Rand
	edits   []replayed
	bodies  []string
	sent    atomic.Int64 // events of bodies that were acknowledged
	version atomic.Int64 // of the steps, the newest that is in the file

	mu     sync.Mutex
	server *server
	aim    string        // what is to be in flight at the next kill
	after  time.Duration // how long it has been, where it takes longer
	struck chan struct{}
}

// replayed is what the test knows of an edit.
type replayed struct {
	left    bool // out by all versions
	refused bool // by all versions
}

const replayBody = 20

// wanted tells whether a version of the steps makes a row of the n-th edit.
func (r *replays) wanted(version int64, n int) bool {
	e := r.edits[n]
	return !e.left && !e.refused && int64(n)%(10+version) != 3
}

func (r *replays) definition(version int64) string {
	return fmt.Sprintf(`
from: {types: [wikipedia_edit]}
steps:
  - sql: |
      SELECT _id, n, page, CAST(CASE WHEN n %% 1009 = 5 THEN 'x' ELSE '%d' END AS BIGINT) AS v
      FROM input WHERE NOT isRobot AND (n %% 1009 = 5 OR n %% %d <> 3)
to:
  - table: human_edits
    every: 100ms
  - file: {dir: out, roll: {every: 200ms}}
    every: 100ms
`, version, 10+version)
}

func (r *replays) write(version int64) {
	r.t.Helper()
	r.version.Store(version)
	if err := os.WriteFile(filepath.Join(r.dir, "pipelines", "edits.yaml"), []byte(r.definition(version)), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *replays) now() *server {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.server
}

func (r *replays) start() {
	r.t.Helper()
	s := serve(r.t, r.dir)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.server = s
}

// feed sends one body after the other until stop is closed. What a kill leaves without
// an answer is sent again: by its ids it is there once.
func (r *replays) feed(stop <-chan struct{}) {
	for _, body := range r.bodies {
		select {
		case <-stop:
			return
		case <-time.After(40 * time.Millisecond):
		}
		for done := false; !done; {
			s := r.now()
			a, err := s.do("POST", "/v1/events?type=wikipedia_edit&id_field=k&source=/wiki", []byte(body), "Content-Type: application/x-ndjson")
			if done = err == nil && a.status == http.StatusOK; !done {
				<-time.After(20 * time.Millisecond) // it is started anew
			}
		}
		r.sent.Add(int64(strings.Count(body, "\n")))
	}
	<-stop
}

// span is a run of rows of one version.
type span struct{ version, rows, ids, first, last int64 }

// watchTable asks all along what the table has: rows of the old steps, or of the new
// ones from a place on, without a hole or a double, and nothing that was there goes.
func (r *replays) watchTable(stop <-chan struct{}, table string) (asked int) {
	var floor, most int64
	for {
		select {
		case <-stop:
			return asked
		case <-time.After(20 * time.Millisecond):
		}
		got, err := r.spans(table)
		if err != nil || len(got) == 0 {
			continue // the server is down
		}
		asked++
		if wrong := r.judge(got); wrong != "" {
			r.t.Errorf("%s: %s: %+v", table, wrong, got)
			return asked
		}
		if got[0].version < floor || got[len(got)-1].last < most {
			r.t.Errorf("%s went back behind version %d, edit %d: %+v", table, floor, most, got)
			return asked
		}
		floor, most = got[0].version, got[len(got)-1].last
	}
}

func (r *replays) spans(table string) (out []span, err error) {
	got, err := r.now().trySQL("select v, count(_id), count(distinct _id), min(n), max(n) from " + table + " group by v order by v")
	if err != nil {
		return nil, err
	}
	for _, row := range got.Rows {
		var v [5]int64
		for i := range v {
			if v[i], err = strconv.ParseInt(text(row[i]), 10, 64); err != nil {
				return nil, err
			}
		}
		out = append(out, span{v[0], v[1], v[2], v[3], v[4]})
	}
	return out, nil
}

// judge tells what is wrong with the rows of a table, that stand in the order of
// versions.
func (r *replays) judge(got []span) string {
	at := int64(0)
	for i, s := range got {
		older := got[max(i-1, 0)].version
		if s.ids != s.rows {
			return "a row is there twice"
		}
		if s.first < at {
			return "newer rows stand before older ones"
		}
		n, before := int64(0), 0
		for i := s.first; i <= s.last; i++ {
			if r.wanted(s.version, int(i)) {
				n++
			}
		}
		for i := at; i < s.first; i++ {
			if r.wanted(s.version, int(i)) && r.wanted(older, int(i)) {
				before++
			}
		}
		if n != s.rows {
			return fmt.Sprintf("version %d has %d rows of %d", s.version, s.rows, n)
		}
		if before > 0 {
			return fmt.Sprintf("before version %d a row is missing", s.version)
		}
		at = s.last + 1
	}
	return ""
}

// inFlight says what the state on disk has begun and not done.
func (r *replays) inFlight() (kinds []string) {
	var state struct {
		Rewind    json.RawMessage
		Backfills []struct{ Phase, Into string }
	}
	if text, err := os.ReadFile(filepath.Join(r.dir, "data", "pipelines", "edits.json")); err == nil {
		_ = json.Unmarshal(text, &state) // else it says nothing
	}
	if state.Rewind != nil {
		kinds = append(kinds, "rewind")
	}
	for _, b := range state.Backfills {
		if b.Into != "" {
			b.Phase += " into"
		}
		kinds = append(kinds, b.Phase)
	}
	var files struct{ State struct{ Back int64 } }
	if text, err := os.ReadFile(filepath.Join(r.dir, "data", "pipelines", "edits", "file", "files.json")); err == nil {
		_ = json.Unmarshal(text, &files)
	}
	if files.State.Back != 0 {
		kinds = append(kinds, "files")
	}
	return kinds
}

// seen looks at what changes on disk, and kills when it is what is aimed at.
func (r *replays) seen(path string, mask uint32) {
	if name := filepath.Base(path); mask&unix.IN_MOVED_TO == 0 || name != "edits.json" && name != "files.json" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.aim == "" || !slices.Contains(r.inFlight(), r.aim) {
		return
	}
	s, struck := r.server, r.struck
	strike := func() { _ = s.cmd.Process.Kill(); close(struck) }
	if strings.HasPrefix(r.aim, "fill") { // it takes longer
		time.AfterFunc(r.after, strike)
	} else {
		strike()
	}
	r.aim = ""
}

// settled waits until no backfill goes on.
func (r *replays) settled() {
	r.t.Helper()
	eventually(r.t, "backfills are done", func() (bool, string) {
		a, err := r.now().do("GET", "/v1/pipelines/edits/backfill", nil)
		return err == nil && a.status == http.StatusOK && !strings.Contains(string(a.body), `"sink"`), fmt.Sprint(string(a.body), err)
	})
}

// inForce waits for the version that the file has.
func (r *replays) inForce() {
	r.t.Helper()
	mark := fmt.Sprintf("ELSE '%d' END", r.version.Load())
	eventually(r.t, "the file is in force", func() (bool, string) {
		a, err := r.now().do("GET", "/v1/pipelines/edits", nil)
		return err == nil && strings.Contains(string(a.body), mark), string(a.body)
	})
}

// TestReplayUnderKills: a pipeline with a table and files is rewound and backfilled while
// edits come in, and the server killed at each part of it. Readers of the table see the
// old rows or the new ones; at the end both have the rows of a run from the beginning.
func TestReplayUnderKills(t *testing.T) {
	t.Parallel()
	lines, err := wikipediaLines()
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := &replays{t: t, rng: rand.New(rand.NewPCG(11, seed)), struck: make(chan struct{}),
		dir: project(t, "log:\n  segment: 4MiB\npipelines:\n  commit_interval: 100ms\n  backoff_max: 500ms\n")}
	if err := os.MkdirAll(filepath.Join(r.dir, "pipelines"), 0o755); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for n, line := range lines[:min(len(lines), 30_000)] {
		var e struct {
			IsRobot bool `json:"isRobot"`
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		r.edits = append(r.edits, replayed{left: e.IsRobot, refused: !e.IsRobot && n%1009 == 5})
		fmt.Fprintf(&b, `{"n":%d,"k":"edit-%d",%s`+"\n", n, n, line[1:])
		if len(r.edits)%replayBody == 0 && len(r.edits) >= 4000 {
			r.bodies = append(r.bodies, b.String())
			b.Reset()
		}
	}
	r.write(1)
	r.start()
	stop := make(chan struct{})
	var beside sync.WaitGroup
	beside.Go(func() { r.feed(stop) })
	asked := 0
	beside.Go(func() { asked = r.watchTable(stop, "edits.human_edits") })
	eventually(t, "the table has rows", func() (bool, string) {
		got, err := r.spans("edits.human_edits")
		return err == nil && len(got) > 0, fmt.Sprint(err)
	})
	middle := time.Now()
	look := watch(t, filepath.Join(r.dir, "data", "pipelines"), r.seen)
	defer look.close()

	// Kills that were sent while something was in flight, and those that found it so: what
	// takes a millisecond may be over when the signal has arrived.
	sent, hits := map[string]int{}, map[string]int{}
	aims := []string{"rewind", "fill", "swap", "drop", "files", "fill into"}
	r.rng.Shuffle(len(aims), func(i, j int) { aims[i], aims[j] = aims[j], aims[i] })
	kills, tries := 0, 0
	for _, aim := range aims {
		r.write(r.version.Load() + 1)
		for try := 0; hits[aim] == 0 && sent[aim] < 4 && try < 12; try++ {
			tries++
			r.inForce()
			into := ""
			args := []string{"pipeline", "rewind", "edits", "--to", "earliest"}
			if aim == "fill into" {
				into = fmt.Sprint("once_", tries)
				args = []string{"pipeline", "backfill", "edits", "--from", "earliest", "--to", "now", "--into", into}
			} else if r.rng.IntN(3) == 0 {
				args[4] = middle.UTC().Format(time.RFC3339Nano)
			}
			r.mu.Lock()
			r.aim, r.after = aim, time.Duration(r.rng.IntN(150))*time.Millisecond
			r.struck = make(chan struct{})
			struck := r.struck
			r.mu.Unlock()
			done := naru(t, "", append(args, "--url", r.now().url)...)
			eventually(t, "it is killed, or done", func() (bool, string) {
				a, err := r.now().do("GET", "/v1/pipelines/edits/backfill", nil)
				return err != nil || !strings.Contains(string(a.body), `"sink"`), string(a.body)
			})
			r.mu.Lock()
			missed := r.aim != ""
			r.aim = ""
			r.mu.Unlock()
			if !missed {
				<-struck
				r.now().kill() // and wait
				kinds := r.inFlight()
				sent[aim]++
				t.Logf("kill %d, aimed at %q: in flight %q (%s)", kills, aim, kinds, strings.Join(args[1:], " "))
				for _, k := range kinds {
					hits[k]++
				}
				kills++
				r.start()
			} else if done.code != 0 { // nobody has killed it
				t.Fatalf("%v: %+v", args, done)
			}
			r.settled()
			if into != "" {
				if got, err := r.spans("edits." + into); err != nil {
					if missed {
						t.Errorf("%s: %v", into, err)
					}
				} else if wrong := r.judge(got); wrong != "" || len(got) != 1 || got[0].version != r.version.Load() {
					t.Errorf("%s: %s: %+v", into, wrong, got)
				}
			}
		}
	}
	t.Logf("%d kills in %d replays; sent %v, in flight %v", kills, tries, sent, hits)
	for _, aim := range aims {
		if hits[aim]+sent[aim] == 0 {
			t.Errorf("no kill has hit %q", aim)
		}
	}

	// Once more, in peace.
	r.inForce()
	must(t, "", "pipeline", "rewind", "edits", "--to", "earliest", "--url", r.now().url)
	r.settled()
	close(stop)
	beside.Wait()
	s, version, all := r.now(), r.version.Load(), int(r.sent.Load())
	t.Logf("%d edits, version %d, the table was read %d times", all, version, asked)
	if asked < 20 {
		t.Errorf("the table was read %d times alone", asked)
	}
	want, refused := map[string]bool{}, 0
	for n := range all {
		if r.wanted(version, n) {
			want[fmt.Sprint("edit-", n)] = true
		}
		if r.edits[n].refused {
			refused++
		}
	}
	s.waitCell("select count(_id) from edits.human_edits", fmt.Sprint(len(want)))
	if got, err := r.spans("edits.human_edits"); err != nil || len(got) != 1 || got[0].version != version || r.judge(got) != "" {
		t.Errorf("at the end: %+v, %v", got, err)
	}
	s.waitCell("select count(*) from rejected where reason = 'step'", fmt.Sprint(refused))
	s.waitCell("select count(distinct event_id) from rejected where reason = 'step'", fmt.Sprint(refused))
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
			if m["balanced"] != true || m["not_yet_written"].(float64) != 0 {
				return false, fmt.Sprint(m)
			}
		}
		return seen == 2, fmt.Sprint(seen, " sinks")
	})
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	got := r.files()
	if !maps.Equal(got, ofVersion(want, version)) {
		t.Errorf("files have %d rows, want %d of version %d", len(got), len(want), version)
	}
	must(t, "", "verify", r.dir, "--deep")
}

func ofVersion(ids map[string]bool, version int64) map[string]int64 {
	out := map[string]int64{}
	for id := range ids {
		out[id] = version
	}
	return out
}

// files are the ids and versions of all rows in files; one that is there twice has -1.
func (r *replays) files() map[string]int64 {
	r.t.Helper()
	out := map[string]int64{}
	all, err := filepath.Glob(filepath.Join(r.dir, "out", "part-*"))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, path := range all {
		f, err := os.Open(path)
		if err != nil {
			r.t.Fatal(err)
		}
		in := bufio.NewScanner(f)
		for in.Scan() {
			var row struct {
				ID string `json:"_id"`
				V  int64  `json:"v"`
			}
			if err := json.Unmarshal(in.Bytes(), &row); err != nil {
				r.t.Fatalf("%s: %v", path, err)
			}
			if _, twice := out[row.ID]; twice {
				row.V = -1
			}
			out[row.ID] = row.V
		}
		if err := in.Err(); err != nil {
			r.t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			r.t.Fatal(err)
		}
	}
	return out
}
