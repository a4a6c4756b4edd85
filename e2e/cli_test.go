package e2e

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSendWikipedia: what the demo promises, by the commands a user would type.
func TestSendWikipedia(t *testing.T) {
	t.Parallel()
	s := serve(t, project(t, "pipelines:\n  commit_interval: 500ms\n"))
	file := filepath.Join(repoRoot(), "examples", "wikipedia", "wikipedia_edits.ndjson.gz")
	must(t, "", "send", "--url", s.url, "--type", "edit", file)
	s.waitCell("select count(_offset) from edit", "39244")
	for _, c := range []struct{ query, want string }{
		{"select count(distinct user) from edit", "10531"},
		{"select page || '|' || count(*) from edit group by page order by count(*) desc limit 1", "Wikipedia:Vandalismusmeldung|33"},
		{"select count(*) || '|' || sum(added)::bigint from edit where channel = '#en.wikipedia'", "11549|3045299"},
		{"select count(*) from edit where isAnonymous", "3799"},
		{"select count(cityName) from edit", "2153"},
		{"select count(distinct channel) from edit", "51"},
		{"select min(_time)::varchar from edit", "2015-09-12 00:46:58.771+00"},
	} {
		if got := s.cell(c.query); got != c.want {
			t.Errorf("%s: %s, want %s", c.query, got, c.want)
		}
	}
	// Each format says the same.
	query := "select channel, count(*) as n from edit group by channel order by n desc, channel limit 2"
	for _, c := range []struct{ format, want string }{
		{"csv", "channel,n\n#en.wikipedia,11549\n#vi.wikipedia,9747\n"},
		{"tsv", "channel\tn\n#en.wikipedia\t11549\n#vi.wikipedia\t9747\n"},
		{"ndjson", `{"channel": "#en.wikipedia", "n": 11549}` + "\n" + `{"channel": "#vi.wikipedia", "n": 9747}` + "\n"},
	} {
		if got := must(t, "", "query", "--url", s.url, "--format", c.format, query); got != c.want {
			t.Errorf("--format %s:\n%s\nwant\n%s", c.format, got, c.want)
		}
	}
	for _, format := range []string{"table", "markdown", "json"} {
		got := must(t, "", "query", "--url", s.url, "--format", format, query)
		if !strings.Contains(got, "#en.wikipedia") || !strings.Contains(got, "11549") {
			t.Errorf("--format %s:\n%s", format, got)
		}
		if format == "json" && !json.Valid([]byte(got)) {
			t.Errorf("--format json: %s", got)
		}
	}
	// Sending the file again has nothing to do.
	must(t, "", "send", "--url", s.url, "--type", "edit", file)
	if got := must(t, "", "status", "--url", s.url); !strings.Contains(got, "edit") {
		t.Errorf("status:\n%s", got)
	}
	if got := must(t, "", "status", "--url", s.url, "--json"); !json.Valid([]byte(got)) {
		t.Errorf("status --json:\n%s", got)
	}
}

// TestSendCSV: both files of the Open Bandit data set, typed as DOOR.md says.
func TestSendCSV(t *testing.T) {
	t.Parallel()
	dir := sharedData(t)
	s := serve(t, project(t, "pipelines:\n  commit_interval: 500ms\n"))
	var clicks, positions int
	for _, name := range []string{"open_bandit_random_men.csv", "open_bandit_bts_men.csv"} {
		must(t, "", "send", "--url", s.url, "--type", "impression", filepath.Join(dir, name))
		rows, err := csv.NewReader(strings.NewReader(string(readShared(t, name)))).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows[1:] {
			var click, position int
			if _, err := fmt.Sscan(row[3], &click); err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Sscan(row[2], &position); err != nil {
				t.Fatal(err)
			}
			clicks += click
			positions += position
		}
	}
	s.waitCell("select count(_offset) from impression", "20000")
	if got, want := s.cell("select sum(click)::bigint || '|' || sum(position)::bigint from impression"), fmt.Sprintf("%d|%d", clicks, positions); got != want {
		t.Errorf("clicks and positions: %s, want %s", got, want)
	}
	if got := s.cell("select typeof(item_id) || '|' || typeof(propensity_score) || '|' || typeof(user_feature_0) from impression limit 1"); got != "BIGINT|DOUBLE|VARCHAR" {
		t.Errorf("types: %s", got)
	}
	if got := s.cell("select count(distinct _id) from impression"); got != "20000" {
		t.Errorf("different ids: %s, want 20000", got)
	}
	// The event time is the record's own.
	if got := s.cell("select min(_time)::date::varchar || '|' || max(_time)::date::varchar from impression"); got != "2019-11-24|2019-11-30" {
		t.Errorf("days: %s", got)
	}
}

// TestSendFromStdin: values of a CSV as DOOR.md says, a JSON array, bad lines.
func TestSendFromStdin(t *testing.T) {
	t.Parallel()
	s := serve(t, project(t, "pipelines:\n  commit_interval: 200ms\n"))
	must(t, "n,zip,ok,note\n1,01234,true,x\n2.5,09999,false,\n", "send", "--url", s.url, "--type", "typed", "--format", "csv", "-")
	s.waitCell("select count(_offset) from typed", "2")
	if got := s.sql("select n, zip, ok from typed order by n").lines(); strings.Join(got, " ") != "1.0|01234|true 2.5|09999|false" {
		t.Errorf("rows: %q", got)
	}
	must(t, `[{"a": 1}, {"a": 2}]`, "send", "--url", s.url, "--type", "listed", "-")
	s.waitCell("select sum(a)::bigint from listed", "3")
	r := naru(t, "{\"a\":1}\nnot json\n{\"a\":3}\n", "send", "--url", s.url, "--type", "partly", "-")
	s.waitCell("select count(_offset) from partly", "2")
	s.waitCell("select count(_offset) from rejected", "1")
	if !strings.Contains(r.stdout+r.stderr, "not_json") {
		t.Errorf("send of a bad line (exit %d) does not say why: %s%s", r.code, r.stdout, r.stderr)
	}
	if got := must(t, "", "tail", "--url", s.url, "events"); !strings.Contains(got, `{"a":3}`) && !strings.Contains(got, `"a":3`) {
		t.Errorf("tail: %s", got)
	}
}

// TestOfflineCommands work without a server.
func TestOfflineCommands(t *testing.T) {
	t.Parallel()
	if got := must(t, "", "version"); !strings.Contains(got, "naru") {
		t.Errorf("version: %s", got)
	}
	if got := must(t, "", "help"); !strings.Contains(got, "serve") || !strings.Contains(got, "query") {
		t.Errorf("help: %s", got)
	}
	if got := must(t, "", "completion", "bash"); !strings.Contains(got, "naru") {
		t.Errorf("completion: %.100s", got)
	}
	dir := filepath.Join(t.TempDir(), "new")
	must(t, "", "init", dir)
	must(t, "", "check", dir)
	wrong := project(t, "pipelines:\n  comit_interval: 5s\nlog:\n  segment: many\n")
	r := naru(t, "", "check", wrong)
	if r.code == 0 {
		t.Error("check of a wrong naru.yaml: exit 0")
	}
	for _, word := range []string{":2", "comit_interval", "commit_interval", ":4", "segment"} {
		if !strings.Contains(r.stdout+r.stderr, word) {
			t.Errorf("check does not say %q: %s%s", word, r.stdout, r.stderr)
		}
	}
	if _, err := tryServe(t, wrong); err == nil {
		t.Error("serve with a wrong naru.yaml has started")
	}
	if _, err := os.Stat(filepath.Join(wrong, "data")); !os.IsNotExist(err) {
		t.Errorf("serve with a wrong naru.yaml has made data/ (%v)", err)
	}
	for _, args := range [][]string{{"nonsense"}, {"serve", "--nonsense"}, {"query"}, {"query", "--url", "http://127.0.0.1:1", "select 1"}} {
		if r := naru(t, "", args...); r.code == 0 || r.stderr == "" {
			t.Errorf("naru %v: exit %d, stderr %q", args, r.code, r.stderr)
		}
	}
}

// TestLogAndTableCommands: `log ls|cat` and `table ls|show` of a stopped folder.
func TestLogAndTableCommands(t *testing.T) {
	t.Parallel()
	dir := project(t, "pipelines:\n  commit_interval: 200ms\n")
	s := serve(t, dir)
	s.post("?type=page", "application/x-ndjson", "{\"path\":\"/a\"}\nbroken\n{\"path\":\"/b\"}\n")
	s.waitCell("select count(_offset) from page", "2")
	s.waitCell("select count(_offset) from rejected", "1")
	if code := s.stop(); code != 0 {
		t.Fatalf("SIGTERM: exit %d", code)
	}
	for _, c := range []struct {
		args []string
		says []string
	}{
		{[]string{"log", "ls", dir}, []string{"events", "rejected"}},
		{[]string{"log", "cat", "events", dir}, []string{`/a`, `/b`}},
		{[]string{"table", "ls", dir}, []string{"page", "rejected"}},
		{[]string{"table", "show", "page", dir}, []string{"path", "_time", "_offset"}},
	} {
		got := must(t, "", c.args...)
		for _, word := range c.says {
			if !strings.Contains(got, word) {
				t.Errorf("naru %v does not say %q:\n%s", c.args, word, got)
			}
		}
	}
}
