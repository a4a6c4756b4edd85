package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPipelineCommands: what a user does with a pipeline, beside a running server.
func TestPipelineCommands(t *testing.T) {
	t.Parallel()
	dir := project(t, "pipelines:\n  commit_interval: 100ms\n")
	define := func(sql string) {
		t.Helper()
		text := "from: {types: [edit]}\nsteps:\n  - filter: NOT robot\n  - sql: " + sql + "\nto:\n  - table: human_edits\n    every: 100ms\n" +
			"tests:\n  - input: [{page: a, size: \"1\", robot: false}]\n    rows: [{page: a, size: 1}]\n"
		if err := os.MkdirAll(filepath.Join(dir, "pipelines"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "pipelines", "edits.yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const sql = "SELECT _id, page, CAST(size AS BIGINT) AS size FROM input"
	define(sql)
	if out := must(t, "", "pipeline", "test", "--dir", dir); !strings.Contains(out, "edits: 1: passed") {
		t.Error(out)
	}
	if r := naru(t, "", "pipeline", "try", "edits", "--dir", dir); r.code != 1 || !strings.Contains(r.stderr, "no events of stream events") {
		t.Errorf("%+v", r)
	}
	s := serve(t, dir)
	send := func(from, n int) {
		t.Helper()
		var b strings.Builder
		for i := from; i < from+n; i++ {
			size := fmt.Sprint(i)
			if i%10 == 9 {
				size = "many"
			}
			fmt.Fprintf(&b, `{"type":"edit","page":"p%d","size":"%s","robot":%v}`+"\n", i, size, i%10 == 4)
			fmt.Fprintf(&b, `{"type":"view","page":"p%d"}`+"\n", i)
		}
		s.post("", "application/x-ndjson", b.String())
	}
	type report struct {
		State  string
		Broken string
		Sinks  []struct {
			State      string
			Lag        int64   `json:"lag_events"`
			LagSeconds float64 `json:"lag_seconds"`
			Counts     struct{ Written, Rejections, Filtered int64 }
		}
	}
	show := func() (r report, text string) {
		t.Helper()
		text = must(t, "", "pipeline", "show", "edits", "--json", "--url", s.url)
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatal(err, text)
		}
		return r, text
	}
	until := func(what string, ok func(report) bool) {
		t.Helper()
		eventually(t, what, func() (bool, string) {
			r, text := show()
			return ok(r), text
		})
	}
	send(0, 20)
	until("all written", func(r report) bool { return r.Sinks[0].Lag == 0 && r.Sinks[0].Counts.Written == 16 })
	r, text := show()
	if c := r.Sinks[0].Counts; c.Rejections != 2 || c.Filtered != 22 || r.State != "running" || r.Sinks[0].LagSeconds != 0 {
		t.Errorf("%s", text)
	}
	if out := must(t, "", "pipeline", "ls", "--url", s.url); !strings.Contains(out, "edits     events  table  table  running") {
		t.Errorf("%s", out)
	}
	out := must(t, "", "pipeline", "show", "edits", "--url", s.url)
	for _, want := range []string{"types      edit", "exactly once", "naru rejected ls --pipeline edits", "step 2"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if out := must(t, "", "rejected", "ls", "--rule", "pipeline/edits", "--url", s.url); !strings.Contains(out, "2 sql") {
		t.Errorf("%s", out)
	}

	// Try shows the latest events, as the file is now, and stores nothing.
	out = must(t, "", "pipeline", "try", "edits", "--dir", dir, "-n", "11")
	for _, want := range []string{"p18   18", "refused by step 2 sql: ", `"size":"many"`, "11 events: 8 written as 8 rows, 1 filtered, 2 refused; nothing was stored"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "p8 ") || strings.Contains(out, "view") {
		t.Errorf("not the latest of the type:\n%s", out)
	}

	// Paused, it keeps its place, over a kill, too.
	if out := must(t, "", "pipeline", "pause", "edits", "--url", s.url); !strings.Contains(out, "is paused") {
		t.Error(out)
	}
	send(20, 10)
	s.kill()
	s = serve(t, dir)
	until("paused and behind", func(r report) bool {
		return r.State == "paused" && r.Sinks[0].Lag == 20 && r.Sinks[0].LagSeconds > 0 && r.Sinks[0].Counts.Written == 16
	})
	if text := string(s.call("GET", "/metrics", nil).body); !strings.Contains(text, `naru_pipeline_lag_events{pipeline="edits",sink="table"} 20`) ||
		!strings.Contains(text, `naru_pipeline_up{pipeline="edits",sink="table"} 0`) {
		t.Errorf("%s", text)
	}
	must(t, "", "pipeline", "resume", "edits", "--url", s.url)
	until("it goes on", func(r report) bool {
		return r.State == "running" && r.Sinks[0].Lag == 0 && r.Sinks[0].Counts.Written == 24
	})
	eventually(t, "its rows", func() (bool, string) {
		out := naru(t, "", "query", "--format", "csv", "--url", s.url, "select count(*), count(distinct page) from edits.human_edits")
		return strings.Contains(out.stdout, "24,24"), out.stdout + out.stderr
	})

	// A broken file is named, and what was in force goes on.
	define("SELECT page, sum(size) AS size FROM input")
	until("it is broken", func(r report) bool { return r.Broken != "" && r.State == "running" })
	if out := must(t, "", "pipeline", "ls", "--url", s.url); !strings.Contains(out, "what was in force before goes on") || !strings.Contains(out, "pipelines/edits.yaml:4") {
		t.Errorf("%s", out)
	}
	if r := naru(t, "", "check", dir); r.code != 1 || !strings.Contains(r.stdout, "pipelines/edits.yaml:4: steps: step 2 sql: ") {
		t.Errorf("%+v", r)
	}
	for args, want := range map[string]string{"show nope": "no such pipeline", "pause nope": "no such pipeline"} {
		if r := naru(t, "", append(append([]string{"pipeline"}, strings.Fields(args)...), "--url", s.url)...); r.code != 1 || !strings.Contains(r.stderr, want) || !strings.Contains(r.stderr, "naru pipeline ls") {
			t.Errorf("%s: %+v", args, r)
		}
	}
}
