package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestBench: a tiny measurement gives every figure, and leaves nothing.
func TestBench(t *testing.T) {
	t.Parallel()
	dir := project(t, "pipelines:\n  commit_interval: 100ms\n")
	before := entries(t, dir)
	r := naru(t, "", "bench", dir, "--duration", "2s", "--json")
	if r.code != 0 || r.stderr != "" {
		t.Fatalf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	figures(t, r.stdout)
	var got struct {
		Folder struct {
			Beside bool `json:"beside_server"`
		}
		Settings map[string]any
		Queries  []struct{ Rows, Runs int64 }
		Load     struct{ Events int64 }
		Advice   []struct{ Rule, Level, Text string }
	}
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil {
		t.Fatal(err)
	}
	if got.Folder.Beside || got.Settings["pipelines.commit_interval"] != "100ms" || len(got.Queries) != 3 || got.Queries[0].Rows != got.Load.Events {
		t.Errorf("%+v", got)
	}
	if !slices.ContainsFunc(got.Advice, func(a struct{ Rule, Level, Text string }) bool {
		return a.Rule == "short" && a.Level == "note" && a.Text != ""
	}) {
		t.Errorf("no word on a run so short: %+v", got.Advice)
	}
	if after := entries(t, dir); after != before {
		t.Errorf("the folder had\n%s\nand has\n%s", before, after)
	}
}

// figures checks that every number of the report is there and more than zero.
func figures(t *testing.T, text string) {
	t.Helper()
	var report any
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	// An idle machine has no load and no other programs, a folder without data no
	// log, and a query may have seen an event before its acknowledgement has come.
	mayBeZero := []string{".machine.load_1m", ".ingest_batches.others_cpu_share", ".ingest_single.others_cpu_share", ".load.others_cpu_share", ".folder.log_bytes", ".freshness.p50_ms", ".freshness.p99_ms", ".freshness.max_ms"}
	seen := 0
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, x := range v {
				walk(path+"."+name, x)
			}
		case []any:
			if len(v) == 0 {
				t.Errorf("%s is empty", path)
			}
			for i, x := range v {
				walk(fmt.Sprintf("%s[%d]", path, i), x)
			}
		case float64:
			if seen++; v < 0 || v == 0 && !slices.Contains(mayBeZero, path) {
				t.Errorf("%s is %v", path, v)
			}
		case string:
			if v == "" {
				t.Errorf("%s is empty", path)
			}
		case nil:
			t.Errorf("%s is null", path)
		}
	}
	walk("", report)
	if seen < 70 {
		t.Errorf("only %d figures in %s", seen, text)
	}
}

// entries names everything below a folder, but not what a server of its own has.
func entries(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		names = append(names, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, "\n")
}

// benching is a `naru bench` that a test ends.
type benching struct {
	t         testing.TB
	cmd       *exec.Cmd
	in        string // where its scratch folder is made
	out, errs bytes.Buffer
}

// startBench runs one until a server of its own works.
func startBench(t *testing.T, dir, in string) *benching {
	t.Helper()
	b := &benching{t: t, cmd: exec.Command(naruBin, "bench", dir, "--duration", "1m"), in: in}
	b.cmd.Stdout, b.cmd.Stderr = &b.out, &b.errs
	b.cmd.Dir = t.TempDir()
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.cmd.Process.Kill() })
	eventually(t, "a server of the bench", func() (bool, string) {
		found, err := filepath.Glob(filepath.Join(in, "naru-bench-*", "ingest", "data", "log", "*.seg"))
		if err != nil || len(found) == 0 {
			return false, fmt.Sprint(b.errs.Len(), " bytes of errors, ", err)
		}
		return true, ""
	})
	return b
}

// servers are the processes that work on what is in a folder.
func servers(t *testing.T, in string) []string {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, path := range lines {
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), "serve\x00"+in+string(os.PathSeparator)) {
			out = append(out, strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	return out
}

// TestBenchInterrupted: Ctrl-C ends it with the exit code for that, without its
// server and without its folder.
func TestBenchInterrupted(t *testing.T) {
	t.Parallel()
	dir := project(t, "")
	before := entries(t, dir)
	b := startBench(t, dir, dir)
	if len(servers(t, dir)) != 1 {
		t.Fatalf("its servers: %v", servers(t, dir))
	}
	if err := b.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	ended := time.AfterFunc(stopWithin, func() { _ = b.cmd.Process.Kill() })
	err := b.cmd.Wait()
	ended.Stop()
	if code := b.cmd.ProcessState.ExitCode(); code != 4 || b.out.Len() != 0 || !strings.Contains(b.errs.String(), "interrupted") {
		t.Errorf("exit %d (%v)\n%s%s", code, err, b.out.String(), b.errs.String())
	}
	if after := entries(t, dir); after != before {
		t.Errorf("the folder had\n%s\nand has\n%s", before, after)
	}
	if left := servers(t, dir); len(left) != 0 {
		t.Errorf("its servers are left: %v", left)
	}
}

// TestBenchKilledAndBeside: a killed bench takes its server with it; what it has
// left on the disk goes with the next one, which works beside a server and says so.
func TestBenchKilledAndBeside(t *testing.T) {
	t.Parallel()
	dir := project(t, "pipelines:\n  commit_interval: 100ms\n")
	s := serve(t, dir)
	s.post("?type=page", "application/json", `{"a": 1}`)
	data := filepath.Join(dir, "data")
	b := startBench(t, dir, data)
	if err := b.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = b.cmd.Wait()
	eventually(t, "the end of its server", func() (bool, string) {
		left := servers(t, data)
		return len(left) == 0, fmt.Sprint(left)
	})
	if found, _ := filepath.Glob(filepath.Join(data, "naru-bench-*")); len(found) != 1 {
		t.Errorf("left by the killed one: %v", found)
	}
	r := naru(t, "", "bench", dir, "--duration", "1s")
	if r.code != 0 || !strings.Contains(r.stderr, "a server runs on "+dir) || !strings.Contains(r.stdout, "(beside)") {
		t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	for _, word := range []string{"sequential write", "1 a request", "to committed rows", "top users", "acknowledged to seen", "advice"} {
		if !strings.Contains(r.stdout, word) {
			t.Errorf("no %q in\n%s", word, r.stdout)
		}
	}
	if found, _ := filepath.Glob(filepath.Join(data, "naru-bench-*")); len(found) != 0 {
		t.Errorf("left: %v", found)
	}
	// The server has noticed nothing.
	s.post("?type=page", "application/json", `{"a": 2}`)
	s.waitCell("select count(_offset) from page", "2")
	if code := s.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
}
