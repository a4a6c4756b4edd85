package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// withContract makes a project whose contract of edits is the example's, changed
// by pairs of old and new text. It returns the folder and the file.
func withContract(t *testing.T, changes ...string) (dir, file string) {
	t.Helper()
	dir = project(t, "pipelines:\n  commit_interval: 200ms\n")
	return dir, writeContract(t, dir, "edit.odcs.yaml", changedContract(t, changes...))
}

// writeContract puts a file into the contracts of a project.
func writeContract(t *testing.T, dir, name, text string) (file string) {
	t.Helper()
	file = filepath.Join(dir, "contracts", name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// changedContract is the example's contract of edits with changes.
func changedContract(t *testing.T, changes ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repoRoot(), "examples", "wikipedia", "contracts", "edit.odcs.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	changed := string(text)
	for i := 0; i+1 < len(changes); i += 2 {
		if !strings.Contains(changed, changes[i]) {
			t.Fatalf("the contract has no %q", changes[i])
		}
		changed = strings.ReplaceAll(changed, changes[i], changes[i+1])
	}
	return changed
}

func changeContract(t *testing.T, file string, changes ...string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(changedContract(t, changes...)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The real edits of a day against a contract that they break: who breaks it is
// kept with the reason, everybody else gets in; a contract that is loosened while
// the server runs holds for what comes then, and a broken one changes nothing.
func TestContractOnRealData(t *testing.T) {
	t.Parallel()
	dir, file := withContract(t)
	s := serve(t, dir)
	edits := filepath.Join(repoRoot(), "examples", "wikipedia", "wikipedia_edits.ndjson.gz")
	must(t, "", "send", "--url", s.url, "--type", "edit", "--state", filepath.Join(t.TempDir(), "sent"), edits)
	s.settle()
	s.waitCell("select count(_offset) from edit", "39063")
	s.waitCell("select count(_offset) from rejected", "181")
	got := s.sql(`select reason, rule, path, contract, contract_version, event_type, stream, count(*) n, count(distinct contract_hash) h
		from rejected group by all order by rule`).lines()
	want := "contract|jsonSchema.type|$.metroCode|wikipedia-edits|1.0.0|edit|events|101|1\ncontract|maximum|$.delta|wikipedia-edits|1.0.0|edit|events|80|1"
	if strings.Join(got, "\n") != want {
		t.Errorf("rejected:\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
	s.waitCell("select count(*) from rejected where event_id in (select _id from edit)", "0")
	if n := s.metric("naru_door_events_rejected_total", "reason=contract"); n != 181 {
		t.Errorf("%v rejections in the metrics", n)
	}
	if n := s.metric("naru_contract_violations_total", "type=edit", "mode=enforce"); n < 181 {
		t.Errorf("%v violations in the metrics", n)
	}

	// Loosened while the server runs.
	bad := `{"type":"edit","time":"2015-09-12T00:46:58.771Z","channel":"#en.wikipedia","isAnonymous":false,"isMinor":false,"isNew":false,"isRobot":false,"isUnpatrolled":false,"namespace":"Main","page":"%s","user":"u","delta":-10001}`
	if a := s.post("", "application/json", fmt.Sprintf(bad, "before")); a.Accepted != 0 {
		t.Fatalf("%+v", a)
	}
	changeContract(t, file, "minimum: -10000", "minimum: -20000", "version: 1.0.0", "version: 1.1.0")
	eventually(t, "the loosened contract in force", func() (bool, string) {
		a := s.post("", "application/json", fmt.Sprintf(bad, "after"))
		return a.Accepted == 1, fmt.Sprintf("%+v", a)
	})
	s.waitCell("select count(*) from edit where page = 'after'", "1")

	// Broken while the server runs: the old one goes on, and everybody can see it.
	changeContract(t, file, "minimum: -10000", "minimum: -30000", "logicalType: integer", "logicalType: intger", "version: 1.0.0", "version: 2.0.0")
	eventually(t, "the broken contract seen", func() (bool, string) {
		return s.metric("naru_contracts_broken") == 1, s.logs.last(2000)
	})
	if a := s.post("", "application/json", fmt.Sprintf(strings.Replace(bad, "-10001", "-20001", 1), "broken")); a.Accepted != 0 {
		t.Errorf("%+v", a)
	}
	if a := s.post("", "application/json", fmt.Sprintf(bad, "goes on")); a.Accepted != 1 {
		t.Errorf("%+v", a)
	}
	if r := s.call("GET", "/readyz", nil); r.status != 200 {
		t.Errorf("not ready with a broken contract: %d %s", r.status, r.body)
	}
	if out := must(t, "", "status", "--url", s.url); !strings.Contains(out, "problem: contracts/ is broken") || !strings.Contains(out, "did you mean integer?") {
		t.Error(out)
	}
	if out := s.logs.String(); !strings.Contains(out, "contracts refused") {
		t.Error(out)
	}
	changeContract(t, file, "version: 1.0.0", "version: 2.0.1")
	eventually(t, "the mended contract in force", func() (bool, string) {
		return s.metric("naru_contracts_broken") == 0, s.logs.last(2000)
	})
	s.settle()
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	must(t, "", "verify", "--deep", dir)
}

// A broken contract ends the start: nothing older is there to judge by.
func TestBrokenContractEndsTheStart(t *testing.T) {
	t.Parallel()
	dir, file := withContract(t, "logicalType: integer", "logicalType: intger")
	s, err := tryServe(t, dir)
	if err == nil || s.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(s.logs.String(), "did you mean integer?") {
		t.Fatalf("%v\n%s", err, s.logs.String())
	}
	changeContract(t, file)
	serve(t, dir)
}

// What an observing contract finds is kept with its row.
func TestObservedViolationsStayWithTheirRow(t *testing.T) {
	t.Parallel()
	dir, _ := withContract(t, "    customProperties:\n", "    customProperties:\n      - {property: naru.mode, value: observe}\n")
	s := serve(t, dir)
	a := s.post("?type=edit", "application/x-ndjson", `{"page":"a","delta":1.5}`+"\n"+`{"page":"b","delta":7}`+"\n")
	if a.Accepted != 2 {
		t.Fatalf("%+v", a)
	}
	s.waitCell(`select count(*) from edit where _violations is not null`, "2")
	s.waitCell(`select json_extract_string(_violations, '$[0].rule') || ' ' || json_extract_string(_violations, '$[0].detail') from edit where page = 'a'`, "type $.delta is 1.5: want a whole number")
	s.settle()
	s.waitCell(`select count(*) from edit where _violations is not null`, "2")
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	must(t, "", "verify", "--deep", dir)
}

// A mobile partner's sample: objects run together, with JSON inside a string.
func TestMobilePartnersSample(t *testing.T) {
	t.Parallel()
	dir := project(t, "pipelines:\n  commit_interval: 200ms\n")
	writeContract(t, dir, "event.yaml", `apiVersion: v3.1.0
kind: DataContract
id: partner
version: 1.0.0
status: active
schema:
  - name: event
    properties:
      - {name: event_name, logicalType: string, required: true}
      - {name: event_value, logicalType: object, properties: [{name: content_list, logicalType: object}]}
    customProperties: [{property: naru.jsonStrings, value: [event_value]}]
`)
	s := serve(t, dir)
	body := `{"event_name":"view","event_value":"{\"content_list\":{\"comic_id\":321}, \"p\":1.5}"}{"event_name":"buy","event_value":"{}"}{"event_name":"odd","event_value":"comic 321"}`
	a := s.post("", "application/json", body)
	if a.Accepted != 2 || len(a.Rejected) != 1 || a.Rejected[0].Rule != "json" || a.Rejected[0].Path != "$.event_value" {
		t.Fatalf("%+v", a)
	}
	want := "view|321|1.5\nbuy|NULL|NULL"
	query := "select event_name, event_value_content_list_comic_id, event_value_p from event order by _offset"
	for _, when := range []string{"in the hot tail", "in the table"} {
		if got := strings.Join(s.sql(query).lines(), "\n"); got != want {
			t.Errorf("%s: %s", when, got)
		}
		s.settle()
	}
	if out := must(t, "", "log", "cat", "events", dir); !strings.Contains(out, `"event_value":"{\"content_list\":{\"comic_id\":321}, \"p\":1.5}"`) {
		t.Errorf("the log has not what was sent: %s", out)
	}
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	must(t, "", "verify", "--deep", dir)
}

// naru serve --dev shows what comes while it comes.
func TestServeDev(t *testing.T) {
	t.Parallel()
	dir, _ := withContract(t)
	out := filepath.Join(t.TempDir(), "out")
	file, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command(naruBin, "serve", dir, "--listen", "127.0.0.1:0", "--dev")
	cmd.Stdout = file
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	shows := func(what string) string {
		t.Helper()
		text := ""
		eventually(t, what, func() (bool, string) {
			b, err := os.ReadFile(out)
			if text = string(b); err != nil {
				text = err.Error()
			}
			return strings.Contains(text, what), text
		})
		return text
	}
	ready := strings.TrimSpace(strings.TrimPrefix(shows("ready http://127.0.0.1:"), "ready "))
	s := &server{t: t, url: ready}
	s.post("?type=edit", "application/json", `{"delta":"x"}`)
	s.post("?type=hello", "application/json", `{"from":"me"}`)
	shows("REJECTED events edit: contract: $.delta is \"x\": want a whole number")
	shows(`accepted events hello  {"from":"me"}`)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
