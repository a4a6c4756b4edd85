package e2e

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var updateGolden = flag.Bool("update-golden", false, "make the golden folder of the present formats anew (only before their first release)")

// goldenRoot is where the golden folders were made and must be opened: an
// Iceberg table names its files by absolute path, and a folder records its
// root and refuses to be opened elsewhere.
const goldenRoot = "/tmp/naru-golden"

// golden is expected.json of a golden folder.
type golden struct {
	About string `json:"about"`
	// Answers that the folder has to give by itself, in every later version.
	Answers []goldenAnswer `json:"answers"`
	// Log holds words of `log ls`, Next the offset that the next event of a
	// stream gets.
	Log  []string         `json:"log"`
	Next map[string]int64 `json:"next"`
}

type goldenAnswer struct {
	Query string   `json:"query"`
	Rows  []string `json:"rows"` // cells separated by a bar
}

func goldenDir(version string) string {
	return filepath.Join(repoRoot(), "testdata", "golden", version)
}

// goldenPlace takes the fixed place for this test alone and gives the path of
// a version's folder in it, which is not there yet.
func goldenPlace(t *testing.T, version string) string {
	t.Helper()
	lock, err := os.OpenFile(goldenRoot+".lock", os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		t.Fatalf("golden folders are opened below %s, which must be writable: %v", goldenRoot, err)
	}
	t.Cleanup(func() { lock.Close() }) // gives the lock up
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatalf("lock %s: %v", lock.Name(), err)
	}
	// Left by a run that was killed: nobody else writes here.
	if err := os.RemoveAll(goldenRoot); err != nil {
		t.Fatalf("clear %s: %v", goldenRoot, err)
	}
	if err := os.MkdirAll(goldenRoot, 0o755); err != nil {
		t.Fatalf("make %s: %v", goldenRoot, err)
	}
	t.Cleanup(func() { os.RemoveAll(goldenRoot) })
	return filepath.Join(goldenRoot, version)
}

// TestGolden opens data folders that earlier versions wrote. A folder here is
// never changed once it has been released: what cannot read it any more is
// broken.
func TestGolden(t *testing.T) {
	if *updateGolden && !t.Run("make", makeGolden) { // a test of its own: it gives the place free again
		return
	}
	found, err := filepath.Glob(goldenDir("v*"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no folders in %s (%v)", goldenDir(""), err)
	}
	for _, from := range found {
		version := filepath.Base(from)
		t.Run(version, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(from, "expected.json"))
			if err != nil {
				t.Fatal(err)
			}
			var want golden
			if err := json.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			dir := goldenPlace(t, version)
			if err := os.CopyFS(dir, os.DirFS(filepath.Join(from, "folder"))); err != nil {
				t.Fatalf("copy the golden folder: %v", err)
			}
			open(t, dir, want)
		})
	}
}

// open checks that a folder gives what it has to and goes on working.
func open(t *testing.T, dir string, want golden) {
	t.Helper()
	listed := must(t, "", "log", "ls", dir)
	for _, word := range want.Log {
		if !strings.Contains(listed, word) {
			t.Errorf("log ls does not say %q:\n%s", word, listed)
		}
	}
	deep(t, dir) // before any server has touched it
	s := serve(t, dir)
	for _, a := range want.Answers {
		s.answers(a)
	}
	for stream, next := range want.Next {
		a := s.post("?type=later&stream="+stream, "application/json", `{"later": true}`)
		if len(a.Positions) != 1 || a.Positions[0].First != next {
			t.Errorf("next event of %s: %+v, want offset %d", stream, a.Positions, next)
		}
		s.waitCell(`select count(*) from "`+stream+`".later`, "1")
	}
	if code := s.stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d", code)
	}
	s = serve(t, dir)
	for _, a := range want.Answers {
		s.answers(a)
	}
	for stream := range want.Next {
		s.waitCell(`select count(*) from "`+stream+`".later`, "1")
	}
	deep(t, dir)
}

// answers polls until a query gives the rows wanted: what was not committed is
// loaded after the start.
func (s *server) answers(want goldenAnswer) {
	s.t.Helper()
	eventually(s.t, want.Query, func() (bool, string) {
		got, err := s.trySQL(want.Query)
		if err != nil {
			return false, err.Error()
		}
		have := got.lines()
		return strings.Join(have, "\n") == strings.Join(want.Rows, "\n"), fmt.Sprintf("%q, want %q", have, want.Rows)
	})
}

// goldenNow is the folder that the present formats are written to. v1 is from
// before checkpoints of format 2 and checksums in the names of the lake's files.
const goldenNow = "v2"

// goldenConfig makes segments small, so that there are several.
const goldenConfig = `# The folder of a golden test: see e2e/golden_linux_test.go.
log:
  segment: 64KiB
  recycle: 0
  retain_age: 0s
pipelines:
  commit_interval: 200ms
`

// makeGolden writes the folder of the present formats: several segments, tables with several
// commits and days, a promoted column, rescued values, rejected rows, a second
// stream, and events that are in the log only.
func makeGolden(t *testing.T) {
	dir := goldenPlace(t, goldenNow)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	writeConfig(t, dir, goldenConfig)
	const pages = 300
	s := serve(t, dir)
	var body bytes.Buffer
	noise := uint64(1)
	for i := range pages {
		var token strings.Builder // does not compress
		for range 16 {
			noise ^= noise << 13
			noise ^= noise >> 7
			noise ^= noise << 17
			fmt.Fprintf(&token, "%016x", noise)
		}
		fmt.Fprintf(&body, `{"n":%d,"time":"2026-01-%02dT12:00:00.%06dZ","user":{"id":%d,"plan":"%s"},"tags":["a","b%d"],"token":"%s"}`+"\n",
			i, 1+i/100, i, i%7, []string{"free", "pro"}[i%2], i%3, token.String())
		if i%50 == 49 {
			s.post("?type=page_view", "application/x-ndjson", body.String())
			body.Reset()
			s.waitCell("select count(_offset) from page_view", fmt.Sprint(i+1))
		}
	}
	for i := range 10 {
		s.post("?type=order", "application/json", fmt.Sprintf(`{"total":%d,"note":"whole"}`, i))
	}
	s.waitCell(`select count(_offset) from "order"`, "10")
	s.post("?type=order", "application/json", `{"total":0.5,"note":"a fraction"}`)
	s.waitCell(`select count(_offset) from "order"`, "11")
	s.post("?type=order", "application/json", `{"total":"many","note":"rescued"}`)
	s.waitCell(`select count(_offset) from "order"`, "12")
	s.post("?type=visit&stream=shop", "application/x-ndjson", "{\"door\":1}\n{\"door\":2}\n")
	s.waitCell("select count(_offset) from shop.visit", "2")
	s.post("?type=page_view", "application/x-ndjson", "{\"n\":\n[1]\nnaru\n")
	s.waitCell("select count(_offset) from rejected", "3")
	if code := s.stop(); code != 0 {
		t.Fatalf("SIGTERM: exit %d", code)
	}
	s = serve(t, dir, "--no-pipelines")
	s.post("?type=page_view", "application/json", `{"n":1000,"time":"2026-01-04T00:00:00Z","user":{"id":7}}`)
	if code := s.stop(); code != 0 {
		t.Fatalf("SIGTERM: exit %d", code)
	}

	want := golden{
		About: "Written by TestGolden -update-golden. Never changed once released: every later version opens it as it is.",
		Log:   []string{"events", "rejected", "shop"},
		Next:  map[string]int64{"events": pages + 12 + 1, "shop": 2},
		Answers: []goldenAnswer{
			{"select count(*), sum(n)::bigint, min(_offset), max(_offset) from page_view", []string{"301|45850|0|312"}},
			{"select user_plan, count(*), sum(user_id)::bigint from page_view group by 1 order by 1 nulls last", []string{"free|150|447", "pro|150|450", "NULL|1|7"}},
			{"select _time::date::varchar, count(*) from page_view group by 1 order by 1", []string{"2026-01-01|100", "2026-01-02|100", "2026-01-03|100", "2026-01-04|1"}},
			{"select tags[2], count(*) from page_view where n < 300 group by 1 order by 1", []string{"b0|100", "b1|100", "b2|100"}},
			{"select count(distinct token), min(length(token)), max(length(token)) from page_view where n < 300", []string{"300|256|256"}},
			{`select count(*), typeof(max(total)), sum(total), count(_rescued) from "order"`, []string{"12|DOUBLE|45.5|1"}},
			{`select note, _rescued from "order" where _rescued is not null`, []string{`rescued|{"total":"many"}`}},
			{"select door from shop.visit order by door", []string{"1", "2"}},
			{"select count(_offset) from rejected", []string{"3"}},
		},
	}
	to := goldenDir(goldenNow)
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(to, "folder"), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(want, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.ReplaceAll(text, []byte(`\u003c`), []byte("<"))
	if err := os.WriteFile(filepath.Join(to, "expected.json"), append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}
