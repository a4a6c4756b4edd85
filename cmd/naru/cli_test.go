package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"naru/internal/fault"
	"naru/internal/web"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// call runs a command line as main does.
func call(t *testing.T, input string, env map[string]string, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	c := &cli{in: strings.NewReader(input), out: &o, err: &e, getenv: func(k string) string { return env[k] }}
	code = c.run(args)
	return code, o.String(), e.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; go test -rewrite takes what is there now:\n%s", path, got)
	}
}

// TestHelp keeps every command's help in one file, where a change can be read.
func TestHelp(t *testing.T) {
	var all strings.Builder
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Name() == "help" || cmd.Name() == "completion" {
			return
		}
		args := append([]string{"help"}, strings.Fields(cmd.CommandPath())[1:]...)
		code, out, errs := call(t, "", nil, args...)
		if code != 0 || errs != "" {
			t.Errorf("naru %v: %d %s", args, code, errs)
		}
		fmt.Fprintf(&all, "$ naru %s\n%s\n", strings.Join(args, " "), out)
		if cmd.Long == "" || cmd.Short == "" || cmd.Runnable() && !cmd.HasSubCommands() && cmd.Example == "" && cmd.Name() != "version" {
			t.Errorf("naru %s has no long help, or no example", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk((&cli{}).commands())
	golden(t, "help.txt", all.String())
	for line := range strings.Lines(all.String()) {
		if len([]rune(line)) > 160 {
			t.Errorf("a line of help is too long: %s", line)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for _, tt := range []struct{ args, want, hint string }{
		{"nonsense", `naru: "nonsense" is not a command`, "naru help lists all"},
		{"statu", `naru: "statu" is not a command`, "did you mean naru status?"},
		{"--nonsense", "naru: unknown flag: --nonsense", "naru help"},
		{"serve a b", "naru: accepts at most 1 arg(s), received 2", "naru help serve"},
		{"serve --lisen x", "naru: unknown flag: --lisen", "naru help serve"},
		{"query", "naru: accepts 1 arg(s), received 0", "naru help query"},
		{"query --format xml x", `naru: "xml" is not a format`, "naru help query"},
		{"send", "naru: accepts 1 arg(s), received 0", "naru help send"},
		{"send --format xml -", `naru: send -: "xml" is not a format`, ""},
		{"send --batch-events 0 -", "naru: send -: --batch-bytes and --batch-events", ""},
		{"table nope", `naru: naru table has no "nope"`, "naru help table"},
		{"table show", "naru: accepts between 1 and 2 arg(s), received 0", "naru help table show"},
		{"bench --duration 1ms", "naru: --duration 1ms: want 1s to 1h0m0s", "naru help bench"},
		{"bench a b", "naru: accepts at most 1 arg(s), received 2", "naru help bench"},
		{"tail a --from start -n 3", "naru: --from and -n exclude each other", "naru help tail"},
	} {
		code, out, errs := call(t, "", nil, strings.Fields(tt.args)...)
		if code != exitUsage || out != "" || !strings.HasPrefix(errs, tt.want) || tt.hint != "" && !strings.Contains(errs, "\nhint: "+tt.hint) {
			t.Errorf("naru %s: %d %q %q", tt.args, code, out, errs)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for err, want := range map[error]int{
		errors.New("x"): exitError, fmt.Errorf("serve: %w", fault.ErrPoisoned): exitPoisoned, errCut: exitInterrupted,
		usageError{errors.New("x")}: exitUsage, fault.WithHint(usageError{errors.New("x")}, "h"): exitUsage,
	} {
		if got := exitCode(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}

func TestInitAndCheck(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	if code, out, errs := call(t, "", nil, "init", dir); code != 0 || !strings.Contains(out, "naru serve "+dir) {
		t.Fatalf("%d %s %s", code, out, errs)
	}
	if code, _, errs := call(t, "", nil, "init", dir); code != 1 || !strings.Contains(errs, "file already exists") || !strings.Contains(errs, "hint: nothing was changed") {
		t.Errorf("a second init: %d %s", code, errs)
	}
	if code, out, _ := call(t, "", nil, "check", dir); code != 0 || out != "nothing is wrong\n" {
		t.Errorf("check: %d %s", code, out)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("pipelines/x.yaml", "from: events\n")
	write("naru.yaml", "pipelines:\n  comit_interval: 5s\nlog:\n  segment: many\n")
	code, out, errs := call(t, "", nil, "check", dir)
	want := "naru.yaml:2: pipelines.comit_interval: unknown key; did you mean commit_interval?\n" +
		"naru.yaml:4: log.segment: \"many\" is not a size: write a number with B, KiB, MiB, GiB or TiB, as in 64MiB\n" +
		"pipelines/x.yaml: to: is missing: name at least one sink, as in `to: [{table: x}]`\n" +
		"pipelines/x.yaml:1: from: wants a block of keys, not the value \"events\"\n"
	if code != 1 || out != want || errs != "naru: check "+dir+": 4 problems\n" {
		t.Errorf("check: %d\n%s%s", code, out, errs)
	}
	code, out, _ = call(t, "", nil, "check", dir, "--json")
	var got struct {
		Problems []struct {
			Line int
			Key  string
		}
		Notes []string
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 1 || len(got.Problems) != 4 || got.Problems[1].Key != "log.segment" || len(got.Notes) != 0 {
		t.Errorf("check --json: %d %s %v", code, out, err)
	}
	// The server says the same and touches nothing.
	if code, out, errs := call(t, "", nil, "serve", dir); code != 1 || out != "" || !strings.Contains(errs, "naru.yaml:4: log.segment") {
		t.Errorf("serve: %d %s %s", code, out, errs)
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); !os.IsNotExist(err) {
		t.Errorf("serve has made data/ (%v)", err)
	}
	if code, _, errs := call(t, "", nil, "check", filepath.Join(dir, "nowhere")); code != 1 || !strings.Contains(errs, "no such file") {
		t.Errorf("check of nothing: %d %s", code, errs)
	}
	if code, out, _ := call(t, "", nil, "check", t.TempDir()); code != 0 || !strings.Contains(out, "the defaults hold") {
		t.Errorf("check of an empty folder: %d %s", code, out)
	}
}

func TestOfflineCommandsOnAnEmptyFolder(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{{"log", "ls", dir}, {"log", "cat", "events", dir}, {"log", "frames", "x", dir}, {"log", "fsck", dir}, {"table", "ls", dir}, {"table", "show", "x", dir}} {
		code, out, errs := call(t, "", nil, args...)
		if code != 1 || out != "" || !strings.Contains(errs, dir+" holds no ") || !strings.Contains(errs, "hint: name the folder of a project") {
			t.Errorf("naru %v: %d %s %s", args, code, out, errs)
		}
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("looking has made %v, %v", names, err)
	}
}

func TestTableShowSwapped(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		hint string
	}{
		{[]string{dir, "page_view"}, "naru table show page_view " + dir},
		{[]string{dir}, "naru table show TABLE " + dir},
	} {
		code, out, errs := call(t, "", nil, append([]string{"table", "show"}, tt.args...)...)
		if code != exitUsage || out != "" || !strings.Contains(errs, dir+" is a folder") || !strings.Contains(errs, "hint: the table comes first: "+tt.hint+"\n") {
			t.Errorf("naru table show %v: %d %q %q", tt.args, code, out, errs)
		}
	}
}

func TestVersionAndCompletion(t *testing.T) {
	if code, out, _ := call(t, "", nil, "version"); code != 0 || !strings.HasPrefix(out, "naru dev (go") {
		t.Errorf("%d %s", code, out)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if code, out, _ := call(t, "", nil, "completion", shell); code != 0 || !strings.Contains(out, "naru") {
			t.Errorf("completion %s: %d", shell, code)
		}
	}
}

// remote is a server that answers what a test says.
func remote(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestWhereTheServerIs(t *testing.T) {
	asked := ""
	url := remote(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Path
		_, _ = io.WriteString(w, `{"columns":[{"name":"n","type":"BIGINT"}],"rows":[[1]]}`)
	})
	if code, out, errs := call(t, "", map[string]string{"NARU_URL": url}, "query", "--format", "csv", "select 1"); code != 0 || out != "n\n1\n" || asked != "/v1/sql" {
		t.Errorf("NARU_URL: %d %s %s", code, out, errs)
	}
	if code, out, errs := call(t, "", map[string]string{"NARU_URL": "http://127.0.0.1:1"}, "query", "--url", url, "--format", "csv", "-"); code != exitUsage || !strings.Contains(errs, "empty") {
		t.Errorf("an empty statement: %d %s %s", code, out, errs)
	}
	if code, _, errs := call(t, "select 1", map[string]string{"NARU_URL": "http://127.0.0.1:1"}, "query", "--url", url, "-"); code != 0 {
		t.Errorf("--url goes before NARU_URL: %d %s", code, errs)
	}
	code, _, errs := call(t, "", nil, "query", "--url", "http://127.0.0.1:1", "select 1")
	if code != 1 || !strings.HasPrefix(errs, "naru: query: ask http://127.0.0.1:1: ") || !strings.Contains(errs, "hint: is the server running?") {
		t.Errorf("nobody there: %d %s", code, errs)
	}
	if code, _, errs := call(t, "", nil, "query", "--url", "localhost:8080", "select 1"); code != 1 || !strings.Contains(errs, "hint: give it as in --url http://127.0.0.1:8080") {
		t.Errorf("an address that is none: %d %s", code, errs)
	}
}

func TestQueryErrors(t *testing.T) {
	url := remote(t, func(w http.ResponseWriter, _ *http.Request) {
		web.Problem(w, 400, "SQL error", "no table x\n\nHint: y")
	})
	if code, out, errs := call(t, "", nil, "query", "--url", url, "from x"); code != 1 || out != "" || errs != "naru: query: SQL error (400): no table x\n\nHint: y\n" {
		t.Errorf("%d %q %q", code, out, errs)
	}
	cut := remote(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"columns":[{"name":"n","type":"BIGINT"}],"rows":[[1],`+"\n"+`{"error": "time limit"}`+"\n")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	code, _, errs := call(t, "", nil, "query", "--url", cut, "--format", "ndjson", "from x")
	if code != 1 || !strings.Contains(errs, "time limit") || !strings.Contains(errs, "hint: what was printed is not the whole answer") {
		t.Errorf("a cut answer: %d %q", code, errs)
	}
}

func TestTail(t *testing.T) {
	requested := ""
	answer := "{\"_offset\":1}\n{\"_offset\":2}\n"
	abort := false
	url := remote(t, func(w http.ResponseWriter, r *http.Request) {
		requested = r.URL.RequestURI()
		_, _ = io.WriteString(w, answer)
		if abort {
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	})
	if code, out, errs := call(t, "", nil, "tail", "--url", url, "events"); code != 0 || out != answer || requested != "/v1/streams/events/events?last=10" {
		t.Errorf("%d %q %q %s", code, out, errs, requested)
	}
	if code, _, _ := call(t, "", nil, "tail", "--url", url, "events", "--from", "start"); code != 0 || requested != "/v1/streams/events/events?from=start" {
		t.Errorf("--from: %d %s", code, requested)
	}
	if code, out, errs := call(t, "", nil, "tail", "--url", url, "events", "-f", "-n", "0"); code != 1 || out != answer || !strings.Contains(errs, "ended the answer") || requested != "/v1/streams/events/events?follow=true&last=0" {
		t.Errorf("a follower whose server stops: %d %q %q %s", code, out, errs, requested)
	}
	answer, abort = "{\"_offset\":1}\n{\"error\":\"corrupt\"}\n", true
	if code, out, errs := call(t, "", nil, "tail", "--url", url, "events"); code != 1 || out != "{\"_offset\":1}\n" || errs != "naru: tail events: corrupt\n" {
		t.Errorf("an error behind the first byte: %d %q %q", code, out, errs)
	}
}

func TestStatus(t *testing.T) {
	text := `{"version":"v1","folder":{"id":"x","root":"/p","free_bytes":1073741824},"started":"2026-01-01T00:00:00Z","balanced":true,
"streams":[{"stream":"events","pipeline":"default/events","acknowledged":5,"written":2,"rejections":1,"duplicates":0,"filtered":0,"not_yet_written":2,"balanced":true,"bytes":1024},
{"stream":"rejected","not_yet_written":0,"balanced":true,"kept":1,"kept_in_table":1,"bytes":10}],
"tables":[{"table":"events.page","rows":2,"rescued":1,"files":1,"bytes":2048}],"problems":["pipeline default/events: disk full; make room"]}`
	url := remote(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
	code, out, errs := call(t, "", nil, "status", "--url", url)
	if code != 0 || errs != "" {
		t.Errorf("%d %s", code, errs)
	}
	_, shown, _ := strings.Cut(out, "\n") // the first line tells the time
	golden(t, "status.txt", shown)
	if code, out, _ := call(t, "", nil, "status", "--url", url, "--json"); code != 0 || out != text {
		t.Errorf("--json: %d %s", code, out)
	}
	text = strings.Replace(text, `"balanced":true`, `"balanced":false`, 1)
	if code, _, errs := call(t, "", nil, "status", "--url", url); code != 1 || !strings.Contains(errs, "do not add up") {
		t.Errorf("out of balance: %d %s", code, errs)
	}
}
