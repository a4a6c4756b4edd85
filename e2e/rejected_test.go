package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// replayLine is a line of the answer to POST /v1/rejected/replay.
type replayLine struct {
	Progress, Result *struct {
		Matched, Closed, Replayed, Refused, Discarded int64
	}
	Error string
}

// startReplay asks for a replay and hands out its lines; the channel is closed at
// the end of the answer, whole or not.
func (s *server) startReplay(ask string) <-chan replayLine {
	lines := make(chan replayLine, 10_000)
	go func() {
		defer close(lines)
		resp, err := http.Post(s.url+"/v1/rejected/replay", "application/json", strings.NewReader(ask))
		if err != nil {
			return // killed
		}
		defer resp.Body.Close()
		in := bufio.NewScanner(resp.Body)
		for in.Scan() {
			var l replayLine
			if json.Unmarshal(in.Bytes(), &l) == nil {
				lines <- l
			}
		}
	}()
	return lines
}

const replayConfig = `
log:
  segment: 1MiB
pipelines:
  commit_interval: 100ms
rejected:
  page: 2KiB
collect:
  event: `

// TestRejectedAcrossKills: what was refused for its size is sent again once the
// limit is raised, by two clients at a time, while SIGKILL ends the server again
// and again: each event is in its table once, and its state says where.
func TestRejectedAcrossKills(t *testing.T) {
	const n, kills = 1500, 12
	dir := project(t, replayConfig+"150B\n")
	s := serve(t, dir)
	for from := 0; from < n; from += 100 {
		var body strings.Builder
		for i := from; i < from+100; i++ {
			fmt.Fprintf(&body, `{"type":"a","n":%d,"text":"%s"}`+"\n", i, strings.Repeat("x", 150+i%50))
		}
		fmt.Fprintf(&body, `{"type":"a","n":%d`+"\n", from) // no JSON, for ever
		if a := s.post("", "application/x-ndjson", body.String()); a.Accepted != 0 {
			t.Fatalf("%+v", a)
		}
	}
	s.settle()
	if code := s.stop(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	writeConfig(t, dir, replayConfig+"1KiB\n")
	rng := rand.New(rand.NewPCG(6, 17))
	taken := int64(0)
	for kill := range kills {
		s = serve(t, dir)
		first, second := s.startReplay(`{"type":"a"}`), s.startReplay(`{"all":true}`)
		a := s.post("", "application/x-ndjson", fmt.Sprintf(`{"type":"a","n":%d}`+"\n", n+kill))
		taken += int64(a.Accepted)
		for range rng.IntN(12) { // pages that the first client has heard of
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
		lines := s.startReplay(`{"type":"a"}`)
		done.Go(func() {
			var last replayLine
			for l := range lines {
				last = l
			}
			if r := last.Result; r == nil || r.Matched != n || r.Closed+r.Replayed != n {
				t.Errorf("the last replays end with %+v", last)
			}
		})
	}
	done.Wait()
	if out := must(t, "", "rejected", "replay", "--all", "--url", s.url); !strings.Contains(out, fmt.Sprintf("0 replayed, %d refused again (not_json %d), %d closed before", n/100, n/100, n)) {
		t.Errorf("once more: %s", out)
	}
	if out := must(t, "", "rejected", "discard", "--reason", "not_json", "--url", s.url); !strings.Contains(out, fmt.Sprintf("%d discarded", n/100)) {
		t.Errorf("discard: %s", out)
	}
	s.settle()
	all := fmt.Sprint(n + kills)
	for query, want := range map[string]string{
		"select count(_offset) from a":                                                                      all,
		"select count(distinct n) from a":                                                                   all,
		"select count(_offset) from rejected":                                                               fmt.Sprint(n + n/100),
		"select count(*) from rejected_states where state = 'replayed'":                                     fmt.Sprint(n),
		"select count(distinct rejection_offset) from rejected_states where state = 'replayed'":             fmt.Sprint(n),
		"select count(*) from rejected_states where state = 'discarded'":                                    fmt.Sprint(n / 100),
		"select count(*) from a where _received_at not in (select _received_at from rejected) and n < 1500": "0",
		// The record of each state names the event whose bytes were refused.
		`select count(*) from rejected_states s
		 join rejected r on r._log = s.rejection_log and r._partition = s.rejection_partition and r._offset = s.rejection_offset
		 join a on a._log = s.event_log and a._partition = s.event_partition and a._offset = s.event_offset
		 where s.event_stream = 'events' and contains(decode(r.original), concat('"n":', a.n, ','))`: fmt.Sprint(n),
	} {
		if got := s.cell(query); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	st, err := s.status()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range st["streams"].([]any) {
		m := one.(map[string]any)
		want := map[string]float64{}
		switch m["stream"] {
		case "events":
			want = map[string]float64{"acknowledged": float64(n + n/100 + int(taken)), "written": float64(n + int(taken)), "rejections": float64(n / 100), "not_yet_written": 0}
		case "rejected":
			want = map[string]float64{"kept": float64(n + n/100), "replayed": n, "not_yet_written": 0}
		}
		for k, v := range want {
			if m[k] != v && !(v == 0 && m[k] == nil) {
				t.Errorf("stream %v: %s is %v, want %v", m["stream"], k, m[k], v)
			}
		}
	}
	if code := s.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if out := must(t, "", "verify", dir, "--deep"); !strings.Contains(out, "clean") {
		t.Errorf("verify: %s", out)
	}
}

// TestRejectedCommands: what the commands say, and how they fail.
func TestRejectedCommands(t *testing.T) {
	s := serve(t, project(t, ""))
	if out := must(t, "", "rejected", "ls", "--url", s.url); !strings.Contains(out, "(no rejections)") {
		t.Errorf("an empty folder: %s", out)
	}
	if out := must(t, "", "rejected", "replay", "--all", "--url", s.url, "--json"); !strings.Contains(out, `"matched":0`) {
		t.Errorf("replay of nothing: %s", out)
	}
	s.post("?type=visit&source=shop", "application/x-ndjson", "{\"a\":1}\n{\"a\":\n[1]\n")
	var l struct {
		Groups []struct {
			Reason, Sample, Source string
			Open                   int
		}
	}
	if err := json.Unmarshal([]byte(must(t, "", "rejected", "ls", "--state", "open", "--since", "1h", "--json", "--url", s.url)), &l); err != nil {
		t.Fatal(err)
	}
	if len(l.Groups) != 2 || l.Groups[0].Open != 1 || l.Groups[1].Reason != "not_object" {
		t.Fatalf("%+v", l)
	}
	id := l.Groups[0].Sample
	if out := must(t, "", "rejected", "show", id, "--url", s.url); !strings.Contains(out, "not_json") || !strings.Contains(out, `{"a":`) {
		t.Errorf("show: %s", out)
	}
	must(t, "", "rejected", "discard", id, "--url", s.url)
	if out := must(t, "", "rejected", "show", id, "--json", "--url", s.url); !strings.Contains(out, `"state":"discarded"`) {
		t.Errorf("show: %s", out)
	}
	if out := must(t, "", "rejected", "ls", "--state", "open", "--json", "--url", s.url); strings.Contains(out, "not_json") {
		t.Errorf("ls: %s", out)
	}
	for _, c := range []struct {
		args []string
		code int
		say  string
	}{
		{[]string{"rejected", "replay"}, 2, "--all"},
		{[]string{"rejected", "replay", "--since", "yesterday", "--all"}, 2, "2026-11-21"},
		{[]string{"rejected", "show", "7"}, 2, "LOG/PARTITION/OFFSET"},
		{[]string{"rejected", "show", id[:len(id)-1] + "99"}, 1, "no such rejection"},
		{[]string{"rejected", "ls", "--state", "lost"}, 2, "want open"},
	} {
		r := naru(t, "", append(c.args, "--url", s.url)...)
		if r.code != c.code || !strings.Contains(r.stderr, c.say) {
			t.Errorf("naru %v: exit %d, %s", c.args, r.code, r.stderr)
		}
	}
	for _, c := range []struct {
		method, path, body string
		code               int
	}{
		{"POST", "/v1/rejected/replay", "{}", 400},
		{"POST", "/v1/rejected/replay", `{"typ":"a"}`, 400},
		{"POST", "/v1/rejected/discard", `{"id":"x"}`, 400},
		{"GET", "/v1/rejected/replay", "", 405},
		{"GET", "/v1/rejected?reason=contract", "", 200},
		{"GET", "/v1/rejected?raison=contract", "", 400},
		{"GET", "/v1/rejected/x", "", 400},
		{"GET", "/v1/rejected/" + id, "", 200},
		{"GET", "/v1/rejected/" + id[:len(id)-1] + "99", "", 404},
	} {
		if r := s.call(c.method, c.path, []byte(c.body)); r.status != c.code {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, r.status, r.body)
		}
	}
	must(t, "", "rejected", "replay", "--reason", "not_object", "--dry-run", "--url", s.url)
	must(t, "", "rejected", "replay", "--reason", "not_object", "--url", s.url)
	for name, want := range map[string]float64{"discarded": 1, "refused_again": 1, "replayed": 0} {
		if n := s.metric("naru_rejections_" + name + "_total"); n != want {
			t.Errorf("%v %s in the metrics, want %v", n, name, want)
		}
	}
}

// TestReplayOnRealData: the real edits of a day, 181 of which break their contract;
// once it is loosened they are sent again, twice, across SIGKILLs, and each of the
// 39,244 edits is in its table once.
func TestReplayOnRealData(t *testing.T) {
	t.Parallel()
	dir, file := withContract(t, "status: active\n", "status: active\nteam:\n  name: wiki\n  members:\n    - {username: mina@example.com, role: owner}\nsupport:\n  - {channel: '#wiki-data', tool: slack}\n")
	writeConfig(t, dir, "pipelines:\n  commit_interval: 200ms\nrejected:\n  page: 2KiB\n")
	s := serve(t, dir)
	edits := filepath.Join(repoRoot(), "examples", "wikipedia", "wikipedia_edits.ndjson.gz")
	must(t, "", "send", "--url", s.url, "--type", "edit", "--state", filepath.Join(t.TempDir(), "sent"), edits)
	s.waitCell("select count(_offset) from edit", "39063")
	var l struct {
		Groups []struct {
			Rule, Path string
			Open       int
			Version    string `json:"contract_version"`
			Ask        struct {
				Owner   string
				Support []string
			}
		}
	}
	if err := json.Unmarshal([]byte(must(t, "", "rejected", "ls", "--url", s.url, "--json")), &l); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintf("%+v", l.Groups) != "[{Rule:jsonSchema.type Path:$.metroCode Open:101 Version:1.0.0 Ask:{Owner:mina@example.com Support:[#wiki-data]}} "+
		"{Rule:maximum Path:$.delta Open:80 Version:1.0.0 Ask:{Owner:mina@example.com Support:[#wiki-data]}}]" {
		t.Errorf("groups %+v", l.Groups)
	}
	if out := must(t, "", "rejected", "ls", "--url", s.url); !strings.Contains(out, "ask mina@example.com, #wiki-data") {
		t.Errorf("ls: %s", out)
	}
	if out := must(t, "", "rejected", "replay", "--type", "edit", "--dry-run", "--url", s.url); !strings.Contains(out, "0 replayed, 181 refused again (contract 181)") {
		t.Errorf("by the same contract: %s", out)
	}
	// One mistake is mended: the others stay open, with an attempt.
	changeContract(t, file, "minimum: -10000, maximum: 10000", "minimum: -1000000, maximum: 1000000", "version: 1.0.0", "version: 1.1.0")
	eventually(t, "the loosened contract in force", func() (bool, string) {
		out := must(t, "", "rejected", "replay", "--type", "edit", "--dry-run", "--url", s.url)
		return strings.Contains(out, "80 replayed, 101 refused again (contract 101)"), out
	})
	if out := must(t, "", "rejected", "replay", "--rule", "jsonSchema.type", "--url", s.url); !strings.Contains(out, "0 replayed, 101 refused again") {
		t.Errorf("the other rule: %s", out)
	}
	s.waitCell("select count(*) from rejected_states where state = 'open' and rule = 'jsonSchema.type' and path = '$.metroCode'", "101")
	changeContract(t, file, "minimum: -10000, maximum: 10000", "minimum: -1000000, maximum: 1000000", "version: 1.0.0", "version: 1.2.0", "required: [metroCode]", "required: []", "{type: integer}}", "{}}")
	eventually(t, "no contract in the way", func() (bool, string) {
		out := must(t, "", "rejected", "replay", "--type", "edit", "--dry-run", "--url", s.url)
		return strings.Contains(out, "181 replayed"), out
	})
	for kill := range 4 {
		first, second := s.startReplay(`{"type":"edit"}`), s.startReplay(`{"type":"edit","reason":"contract"}`)
		for range 3 * kill {
			<-first
		}
		s.kill()
		for range first {
		}
		for range second {
		}
		s = serve(t, dir)
	}
	if out := must(t, "", "rejected", "replay", "--type", "edit", "--url", s.url); !strings.Contains(out, " replayed") || strings.Contains(out, "refused") {
		t.Errorf("replay: %s", out)
	}
	if out := must(t, "", "rejected", "replay", "--type", "edit", "--url", s.url); !strings.Contains(out, "0 replayed, 181 closed before") {
		t.Errorf("replay again: %s", out)
	}
	s.settle()
	for query, want := range map[string]string{
		"select count(_offset) from edit":                               "39244",
		"select count(distinct _id) from edit":                          "39244",
		"select count(_offset) from rejected":                           "181",
		"select count(*) from rejected_states where state = 'replayed'": "181",
		`select count(*) from edit e join rejected r on r.event_id = e._id and r._source = e._source and r._received_at = e._received_at and r._time = e._time`: "181",
		`select count(*) from rejected r join rejected_states s on r._offset = s.rejection_offset and s.state = 'replayed'
		 join edit e on e._offset = s.event_offset and e._id = r.event_id`: "181",
	} {
		if got := s.cell(query); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	if out := strings.Join(strings.Fields(must(t, "", "status", "--url", s.url, "--json")), ""); !strings.Contains(out, `"balanced":true`) || !strings.Contains(out, `"acknowledged":39244,"written":39244,"rejections":0`) {
		t.Errorf("status: %s", out)
	}
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	must(t, "", "verify", "--deep", dir)
}

// TestStatesOutliveTheLog: rejections and their states are in tables when retention
// has taken them from the log: shown, counted, not sent again, and those that are
// open are sent from the table.
func TestStatesOutliveTheLog(t *testing.T) {
	t.Parallel()
	dir := project(t, keepConfig(false)+"collect:\n  event: 1KiB\n")
	s := serve(t, dir)
	large := func(n int) string {
		return fmt.Sprintf(`{"type":"large","n":%d,"text":"%s"}`+"\n", n, strings.Repeat("x", 1100))
	}
	for n := range 20 {
		s.post("", "application/x-ndjson", large(n))
	}
	s.settle()
	s.stop()
	writeConfig(t, dir, keepConfig(false)+"collect:\n  event: 1MiB\n")
	s = serve(t, dir)
	var l struct{ Groups []struct{ Sample string } }
	if err := json.Unmarshal([]byte(must(t, "", "rejected", "ls", "--json", "--url", s.url)), &l); err != nil || len(l.Groups) != 1 {
		t.Fatalf("%+v, %v", l, err)
	}
	if out := must(t, "", "rejected", "discard", l.Groups[0].Sample, "--url", s.url); !strings.Contains(out, "1 discarded") {
		t.Fatal(out)
	}
	half := s.cell("select strftime(max(_received_at), '%Y-%m-%dT%H:%M:%S.%gZ') from (select _received_at from rejected order by _offset limit 10)")
	if out := must(t, "", "rejected", "replay", "--type", "large", "--until", half, "--url", s.url); !strings.Contains(out, "replayed") {
		t.Fatal(out)
	}
	replayed := s.cell("select count(_offset) from large")
	// Now the log forgets: what fills it cannot be compressed away.
	rng := rand.New(rand.NewPCG(1, 1))
	eventually(t, "the log without the rejections", func() (bool, string) {
		var body strings.Builder
		for range 200 {
			fmt.Fprintf(&body, `{"type":"noise","text":"%x%x"}`+"\n", rng.Uint64(), rng.Uint64())
		}
		for range 20 {
			s.post("", "application/x-ndjson", body.String())
		}
		st, err := s.status()
		if err != nil {
			return false, err.Error()
		}
		for _, one := range st["streams"].([]any) {
			m := one.(map[string]any)
			if (m["stream"] == "rejected" || m["stream"] == "rejected_states") && m["bytes"].(float64) > 0 {
				return false, fmt.Sprint(m)
			}
		}
		return true, ""
	})
	s.settle()
	s.kill() // whatever it knew is gone
	s = serve(t, dir)
	first := must(t, "", "rejected", "replay", "--all", "--json", "--url", s.url)
	var res struct{ Matched, Closed, Replayed int }
	if err := json.Unmarshal([]byte(first), &res); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(res.Closed-1) != replayed || res.Matched != 20 || res.Closed+res.Replayed != 20 {
		t.Errorf("replay from the tables: %s, %s replayed before", first, replayed)
	}
	if out := must(t, "", "rejected", "replay", "--all", "--url", s.url); !strings.Contains(out, "0 replayed, 20 closed before") {
		t.Errorf("once more: %s", out)
	}
	s.settle()
	if got := s.cell("select count(*) || ' ' || count(distinct n) from large"); got != "19 19" {
		t.Errorf("%s rows, want 19 of 19", got)
	}
	if out := must(t, "", "rejected", "show", l.Groups[0].Sample, "--json", "--url", s.url); !strings.Contains(out, `"state":"discarded"`) {
		t.Errorf("show: %s", out)
	}
	if code := s.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	must(t, "", "verify", "--deep", dir)
}

// TestReplayKeepsAllOfAnEvent: a CloudEvent in binary mode with personal data, sent
// again from the table: attributes, extensions and the hash are those of its
// receipt, and nothing is hashed twice.
func TestReplayKeepsAllOfAnEvent(t *testing.T) {
	t.Parallel()
	dir := project(t, "pipelines:\n  commit_interval: 100ms\npii:\n  keys: [\"k1=file:pii.key\"]\n")
	if err := os.WriteFile(filepath.Join(dir, "pii.key"), []byte(strings.Repeat("k", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	contract := func(maximum, version string) {
		writeContract(t, dir, "signup.odcs.yaml", `apiVersion: v3.1.0
kind: DataContract
id: signups
version: `+version+`
status: active
schema:
  - name: signup
    properties:
      - {name: email, logicalType: string, logicalTypeOptions: {format: email}, customProperties: [{property: naru.pii, value: hash}]}
      - {name: n, logicalType: integer, logicalTypeOptions: {maximum: `+maximum+`}}
`)
	}
	contract("5", "1.0.0")
	s := serve(t, dir)
	send := func(id string, n int) int {
		r := s.call("POST", "/v1/events", fmt.Appendf(nil, `{"email":"mina@example.com","n":%d}`, n), "Content-Type: application/json", "Ce-Specversion: 1.0", "Ce-Id: "+id,
			"Ce-Source: /app", "Ce-Type: signup", "Ce-Subject: u1", "Ce-Time: 2026-01-02T03:04:05.123456Z", "Ce-Partitionkey: p1", "Ce-Trace: x\"y")
		a, err := parseAck(r.body)
		if err != nil || r.status != 200 {
			t.Fatalf("%d %s", r.status, r.body)
		}
		return int(a.Accepted)
	}
	if send("good", 1) != 1 || send("bad", 9) != 0 {
		t.Fatal("judged otherwise")
	}
	s.settle()
	contract("10", "1.1.0")
	eventually(t, "the loosened contract", func() (bool, string) {
		out := must(t, "", "rejected", "replay", "--all", "--dry-run", "--url", s.url)
		return strings.Contains(out, "1 replayed"), out
	})
	must(t, "", "rejected", "replay", "--all", "--url", s.url)
	s.settle()
	rows := s.sql("select _id, _source, _type, _subject, _time, _extensions, email, n from signup order by n").lines()
	if len(rows) != 2 || strings.Replace(rows[1], "bad|", "good|", 1) != strings.TrimSuffix(rows[0], "1")+"9" || !strings.Contains(rows[0], "|k1:") {
		t.Errorf("rows\n%s", strings.Join(rows, "\n"))
	}
	if code := s.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if out := must(t, "", "log", "cat", "events", dir); strings.Contains(out, "mina@") {
		t.Errorf("personal data in the log: %s", out)
	}
	must(t, "", "verify", "--deep", dir)
}
