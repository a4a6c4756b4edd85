package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReplayOfWhatCameMeanwhile: a rejection is sent again whose copy has been
// accepted since. With the same bytes it is a duplicate, whatever the event's time
// looks like; with others under the same id it is kept, and counted as a conflict.
// The rejection says so, the counts add up, and nothing is written twice.
func TestReplayOfWhatCameMeanwhile(t *testing.T) {
	t.Parallel()
	dir := project(t, "pipelines:\n  commit_interval: 100ms\n")
	if err := os.MkdirAll(filepath.Join(dir, "contracts"), 0o755); err != nil {
		t.Fatal(err)
	}
	contract := func(maximum int, version string) {
		t.Helper()
		text := fmt.Sprintf(`apiVersion: v3.1.0
kind: DataContract
id: signups
version: %s
status: active
schema:
  - name: signup
    properties:
      - {name: n, logicalType: integer, logicalTypeOptions: {maximum: %d}}
`, version, maximum)
		if err := os.WriteFile(filepath.Join(dir, "contracts", "signup.odcs.yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	contract(5, "1.0.0")
	s := serve(t, dir)
	// Finer than a column of time, far ahead of the receipt, and none at all.
	times := map[string]string{"fine": `"time":"2026-01-02T03:04:05.123456789Z",`, "ahead": `"time":"2999-01-02T03:04:05Z",`, "none": ""}
	send := func(id string, n, accepted int) {
		t.Helper()
		a := s.post("", "application/cloudevents+json", fmt.Sprintf(`{"specversion":"1.0","id":"%s","source":"/app","type":"signup","subject":"u1","trace":"x\"y",%s"data":{"n":%d}}`, id, times[id], n))
		if a.Accepted != accepted {
			t.Fatalf("%s: %+v", id, a)
		}
	}
	for id := range times {
		send(id, 9, 0)
	}
	times["other"] = times["fine"]
	send("other", 9, 0)
	contract(10, "1.1.0")
	eventually(t, "the loosened contract", func() (bool, string) {
		out := must(t, "", "rejected", "replay", "--all", "--dry-run", "--url", s.url)
		return strings.Contains(out, "4 replayed"), out
	})
	for _, id := range []string{"fine", "ahead", "none"} {
		send(id, 9, 1)
	}
	send("other", 7, 1)
	if out := must(t, "", "rejected", "replay", "--all", "--url", s.url); !strings.Contains(out, "4 replayed") {
		t.Error(out)
	}
	if out := must(t, "", "rejected", "replay", "--all", "--url", s.url); !strings.Contains(out, "0 replayed, 4 closed before") {
		t.Error(out)
	}
	s.settle()
	if got := strings.Join(s.sql("select _id, n from signup order by _id, n").lines(), " "); got != "ahead|9 fine|9 none|9 other|7 other|9" {
		t.Errorf("rows %s", got)
	}
	var st struct {
		Balanced bool
		Streams  []struct {
			Stream                                                            string
			Acknowledged, Written, Duplicates, Rejections, Replayed, Filtered int64
			NotYetWritten                                                     int64 `json:"not_yet_written"`
			Dedupe                                                            struct {
				Duplicates int64
				Conflicts  int64 `json:"id_conflicts"`
			}
		}
	}
	if err := json.Unmarshal(s.call("GET", "/v1/status", nil).body, &st); err != nil {
		t.Fatal(err)
	}
	for _, x := range st.Streams {
		if x.Stream == "events" && (x.Acknowledged != 8 || x.Written != 5 || x.Duplicates != 3 || x.Rejections != 0 || x.NotYetWritten != 0 || x.Dedupe.Duplicates != 3 || x.Dedupe.Conflicts != 1) {
			t.Errorf("%+v", x)
		}
	}
	if !st.Balanced {
		t.Errorf("%+v", st)
	}
	// The rejections are replayed, all of them; of which the event is a duplicate is said.
	var l struct {
		Groups []struct{ Count, Open, Replayed int }
	}
	if err := json.Unmarshal([]byte(must(t, "", "rejected", "ls", "--json", "--url", s.url)), &l); err != nil {
		t.Fatal(err)
	}
	if len(l.Groups) != 1 || l.Groups[0].Count != 4 || l.Groups[0].Open != 0 || l.Groups[0].Replayed != 4 {
		t.Errorf("ls: %+v", l)
	}
	for _, line := range s.sql("select event_id, concat(_log, '/', _partition, '/', _offset) from rejected").lines() {
		id, name, _ := strings.Cut(line, "|")
		out := must(t, "", "rejected", "show", name, "--url", s.url)
		if !strings.Contains(out, "replayed as events/") || strings.Contains(out, "duplicate") != (id != "other") {
			t.Errorf("show %s: %s", id, out)
		}
		out = must(t, "", "rejected", "show", name, "--json", "--url", s.url)
		if !strings.Contains(out, `"state":"replayed"`) || strings.Contains(out, `"duplicate":true`) != (id != "other") {
			t.Errorf("show %s: %s", id, out)
		}
	}
	if code := s.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if v, code := verify(t, dir, "--deep"); code != 0 || !v.Clean {
		t.Errorf("verify: exit %d, %+v", code, v)
	}
}
