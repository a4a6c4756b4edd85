package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const pageContract = `apiVersion: v3.1.0
kind: DataContract
id: pages
version: 1.0.0
status: active
team: {name: web, members: [{username: mina@example.com, role: owner}]}
support: [{channel: "#web", tool: slack}]
slaProperties: [{property: latency, value: 4, unit: h}]
schema:
  - name: page_view
    properties:
      - {name: path, logicalType: string, required: true}
      - {name: ms, logicalType: integer, logicalTypeOptions: {minimum: 0}}
      - {name: mail, logicalType: string, customProperties: [{property: naru.pii, value: hash}]}
`

// project makes a folder with one contract.
func contractProject(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "contracts", "page.odcs.yaml"), text)
	return dir
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestContractLintAndCheck(t *testing.T) {
	dir := contractProject(t, strings.Replace(pageContract, "logicalType: integer", "logicalTyp: integer", 1))
	want := "contracts/page.odcs.yaml:13: schema[page_view].properties[ms].logicalTyp: unknown key; did you mean logicalType?\n"
	code, out, errs := call(t, "", nil, "contract", "lint", dir)
	if code != 1 || !strings.Contains(out, want) || !strings.HasPrefix(errs, "naru: lint contracts: ") {
		t.Errorf("lint: %d %q %q", code, out, errs)
	}
	if code, out, _ := call(t, "", nil, "check", dir); code != 1 || !strings.Contains(out, want) {
		t.Errorf("check: %d %q", code, out)
	}
	if code, out, errs := call(t, "", nil, "contract", "ls", dir); code != 1 || out != "" || !strings.Contains(errs, want) || !strings.Contains(errs, "hint: naru contract lint") {
		t.Errorf("ls: %d %q %q", code, out, errs)
	}
	var answer struct {
		Contracts       int
		Problems, Notes []struct {
			File, Key, Text string
			Line            int
		}
	}
	code, out, _ = call(t, "", nil, "contract", "lint", dir, "--json")
	if err := json.Unmarshal([]byte(out), &answer); err != nil || code != 1 || len(answer.Problems) == 0 || answer.Problems[0].Line != 13 {
		t.Errorf("lint --json: %d %s %v", code, out, err)
	}

	dir = contractProject(t, pageContract)
	if code, out, _ := call(t, "", nil, "contract", "lint", filepath.Join(dir, "contracts", "page.odcs.yaml")); code != 0 || !strings.HasSuffix(out, "1 contract, nothing is wrong\n") {
		t.Errorf("lint: %d %q", code, out)
	}
	if code, out, _ := call(t, "", nil, "check", dir); code != 1 || !strings.Contains(out, "contracts/page.odcs.yaml:14: schema[page_view].mail: naru.pii hash needs a key") {
		t.Errorf("check without a key: %d %q", code, out)
	}
	writeFile(t, filepath.Join(dir, "naru.yaml"), "pii: {keys: [\"k1=env:NARU_TEST_PII\"]}\n")
	if code, out, _ := call(t, "", nil, "check", dir); code != 0 || strings.Contains(out, "is not read") {
		t.Errorf("check: %d %q", code, out)
	}
	if code, _, errs := call(t, "", nil, "contract", "lint", filepath.Join(dir, "nowhere")); code != 1 || !strings.Contains(errs, "no such file") {
		t.Errorf("lint of nothing: %d %q", code, errs)
	}
}

func TestContractLsAndShow(t *testing.T) {
	dir := contractProject(t, pageContract)
	code, out, _ := call(t, "", nil, "contract", "ls", dir)
	if fields := strings.Join(strings.Fields(out), " "); code != 0 || !strings.HasSuffix(fields, "page_view 1.0.0 active enforce mina@example.com 3 1 contracts/page.odcs.yaml:10") {
		t.Errorf("ls: %d %q", code, out)
	}
	code, out, _ = call(t, "", nil, "contract", "show", "page_view", dir)
	for _, want := range []string{"pages, version 1.0.0, active, hash ", "ask at    #web slack", "promised  latency 4 h", "minimum 0", "hash"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("show: %d, no %q in\n%s", code, want, out)
		}
	}
	var one struct {
		Type, Hash string
		Fields     []struct{ Path string }
	}
	if _, out, _ := call(t, "", nil, "contract", "show", "page_view", dir, "--json"); json.Unmarshal([]byte(out), &one) != nil || one.Type != "page_view" || len(one.Fields) != 3 {
		t.Errorf("show --json: %s", out)
	}
	if code, _, errs := call(t, "", nil, "contract", "show", "page", dir); code != 1 || !strings.Contains(errs, "hint: naru contract ls") {
		t.Errorf("show of nothing: %d %q", code, errs)
	}
}

func TestContractTest(t *testing.T) {
	dir := contractProject(t, pageContract)
	file := filepath.Join(dir, "contracts", "page.odcs.yaml")
	events := `{"path":"/","ms":5}` + "\n" + `{"ms":-5,"mail":7}` + "\nnonsense\n"
	code, out, errs := call(t, events, nil, "contract", "test", file)
	want := `line 2: minimum: $.ms is -5: want at least 0
line 2: type: $.mail is (personal data): want a string
line 2: required: $.path is missing
line 3: json: $: want JSON; expected true, false or null at byte 1
2 of 3 events break the contract:
  1 × json $
  1 × minimum $.ms
  1 × required $.path
  1 × type $.mail
`
	if code != 1 || out != want || errs != "naru: test events: 2 of 3 events break the contract\n" {
		t.Errorf("test: %d\n%s%s", code, out, errs)
	}
	code, out, _ = call(t, events, nil, "contract", "test", file, "--json")
	if code != 1 || strings.Count(out, "\n") != 2 || !strings.Contains(out, `{"line":2,"type":"page_view","violations":[{"rule":"minimum","path":"$.ms","value":"-5","want":"at least 0","line":13}`) {
		t.Errorf("test --json: %d %s", code, out)
	}
	writeFile(t, filepath.Join(dir, "contracts", "other.yaml"), strings.ReplaceAll(pageContract, "page_view", "click"))
	events = `{"type":"page_view","path":"/"}` + "\n" + `{"event":"click"}` + "\n" + `{"type":"unknown"}` + "\n"
	code, out, _ = call(t, events, nil, "contract", "test", dir)
	if code != 1 || !strings.Contains(out, "line 2: required: $.path is missing\n1 of 3 events") || !strings.Contains(out, "1 event of types without a contract\n") {
		t.Errorf("test of a folder: %d %s", code, out)
	}
	if code, out, _ := call(t, events, nil, "contract", "test", dir, "--type", "click"); code != 1 || !strings.Contains(out, "2 of 3 events") {
		t.Errorf("test --type: %d %s", code, out)
	}
	if code, out, _ := call(t, `{"path":"/"}`, nil, "contract", "test", file); code != 0 || out != "1 event, all as agreed\n" {
		t.Errorf("test of good events: %d %s", code, out)
	}
	if code, out, _ := call(t, "", nil, "contract", "test", file); code != 0 || out != "0 events, all as agreed\n" {
		t.Errorf("test of nothing: %d %s", code, out)
	}
}

func TestContractDiff(t *testing.T) {
	dir := contractProject(t, pageContract)
	before, after := filepath.Join(dir, "contracts", "page.odcs.yaml"), filepath.Join(dir, "new.yaml")
	writeFile(t, after, strings.Replace(pageContract, "minimum: 0", "minimum: 1", 1))
	code, out, _ := call(t, "", nil, "contract", "diff", before, after)
	want := `page_view, owner mina@example.com, ask at #web
  ms: minimum 0 → 1
    breaks producers: events that were good can be refused
1 change, 1 breaking
`
	if code != 0 || out != want {
		t.Errorf("diff: %d\n%s", code, out)
	}
	if code, _, errs := call(t, "", nil, "contract", "diff", before, after, "--fail-on-breaking"); code != 1 || errs != "naru: diff contracts: 1 breaking change\n" {
		t.Errorf("diff --fail-on-breaking: %d %q", code, errs)
	}
	if code, out, _ := call(t, "", nil, "contract", "diff", before, before, "--fail-on-breaking"); code != 0 || out != "nothing has changed\n" {
		t.Errorf("diff of the same: %d %q", code, out)
	}
	if code, out, _ := call(t, "", nil, "contract", "diff", before, after, "--json"); code != 0 || !strings.Contains(out, `"breaking": 1`) {
		t.Errorf("diff --json: %d %s", code, out)
	}
}

func TestContractInit(t *testing.T) {
	events := strings.Repeat(`{"path":"/","ms":5}`+"\n", 3) + "[1]\n"
	code, out, errs := call(t, events, nil, "contract", "init", "--from-data", "page_view", "--file", "-")
	if code != 0 || !strings.Contains(out, "logicalTypeOptions: {minimum: 0, maximum: 100} # seen: 5 to 5\n") || errs != "1 event left out: no JSON objects\n" {
		t.Errorf("init: %d %s%s", code, out, errs)
	}
	file := filepath.Join(t.TempDir(), "x.yaml")
	writeFile(t, file, out)
	if code, out, _ := call(t, events[:len(events)-4], nil, "contract", "test", file); code != 0 {
		t.Errorf("the draft is not kept: %s", out)
	}
	if code, _, errs := call(t, "", nil, "contract", "init", "x"); code != exitUsage || !strings.Contains(errs, "say --from-data TYPE") {
		t.Errorf("init of nothing: %d %q", code, errs)
	}
	if code, _, errs := call(t, "", nil, "contract", "init", "--from-data", "x", "--file", "-"); code != 1 || !strings.Contains(errs, "there are no events of this type") {
		t.Errorf("init without events: %d %q", code, errs)
	}

	// From a server: SQL says where to begin, the log has the events as they were.
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"contracts":{"in_force":2,"tables":{"page_view":"views","other":"others"}}}`)
	})
	mux.HandleFunc("POST /v1/sql", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		sql, _ := io.ReadAll(r.Body)
		if string(sql) == "SHOW TABLES" {
			fmt.Fprint(w, `{"rows":[["events","_other"],["events","others"],["events","page_view"],["events","views"],["clicks","views"]]}`)
			return
		}
		if n := strings.Count(string(sql), " from \"events\".\""); n != 3 || strings.Contains(string(sql), "others") {
			t.Errorf("asked %s", sql)
		}
		fmt.Fprint(w, `{"columns":[{"name":"m","type":"BIGINT"}],"rows":[[7]]}`)
	})
	mux.HandleFunc("GET /v1/streams/events/events", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("from") != "7" {
			t.Errorf("query is %s", r.URL.RawQuery)
		}
		fmt.Fprint(w, `{"_type":"page_view","data":{"user":{"id":1}}}`+"\n"+`{"_type":"other","data":{"x":1}}`+"\n"+`{"_type":"page_view","data":{"user":{"id":2}}}`+"\n")
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	code, out, errs = call(t, "", nil, "contract", "init", "--from-data", "page_view", "--url", srv.URL)
	if code != 0 || !strings.Contains(out, "# A draft from 2 events of type page_view") || !strings.Contains(out, "- name: id\n") || strings.Contains(out, "name: x") {
		t.Errorf("init from a server: %d %s%s", code, out, errs)
	}
}

func TestPIIHash(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "naru.yaml"), "pii: {keys: [\"k2=env:NARU_TEST_PII\", \"k1=file:old.key\"]}\n")
	writeFile(t, filepath.Join(dir, "old.key"), "0123456789abcdef\n")
	env := map[string]string{"NARU_TEST_PII": "fedcba9876543210"}
	code, out, errs := call(t, "", env, "pii", "hash", "--dir", dir, "me@example.com")
	lines := strings.Split(out, "\n")
	if code != 0 || len(lines) != 3 || !strings.HasPrefix(lines[0], "k2:") || !strings.HasPrefix(lines[1], "k1:") || len(lines[0]) != 3+64 {
		t.Errorf("%d %q %q", code, out, errs)
	}
	code, same, _ := call(t, "me@example.com\n", env, "pii", "hash", "--dir", dir)
	if code != 0 || same != out {
		t.Errorf("from standard input: %d %q", code, same)
	}
	if code, out, errs := call(t, "", nil, "pii", "hash", "--dir", dir, "x"); code != 1 || out != "" || !strings.Contains(errs, "NARU_TEST_PII is not set") {
		t.Errorf("without the key: %d %q %q", code, out, errs)
	}
	if code, _, errs := call(t, "", nil, "pii", "hash", "--dir", t.TempDir(), "x"); code != 1 || !strings.Contains(errs, "there is no key") {
		t.Errorf("without keys: %d %q", code, errs)
	}
}
