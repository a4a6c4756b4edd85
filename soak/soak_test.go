package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// binary is the naru under test: NARU_BIN, or one that is built here.
func binary(t *testing.T) string {
	t.Helper()
	if given := os.Getenv("NARU_BIN"); given != "" {
		abs, err := filepath.Abs(given)
		if err != nil {
			t.Fatal(err)
		}
		return abs
	}
	path := filepath.Join(t.TempDir(), "naru")
	build := exec.Command("go", "build", "-o", path, "./cmd/naru")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build naru: %v\n%s", err, out)
	}
	return path
}

// TestShortSoak is a soak of some seconds: it ends without a violation, and
// what is then taken away from it, or put there, is noticed.
func TestShortSoak(t *testing.T) {
	set := settings{Naru: binary(t), Dir: t.TempDir(), Seed: uint64(time.Now().UnixNano()), Duration: 3 * time.Second, Calm: time.Second,
		Every: 1500 * time.Millisecond, Rate: 2000, Connections: 4, Batch: 50,
		config: "log:\n  segment: 1MiB\n  retain_bytes: 4MiB\n  recycle: 1MiB\nlake:\n  gc_delay: 0s\npipelines:\n  commit_interval: 200ms\n"}
	t.Logf("seed %d", set.Seed)
	s := newSoak(set, t.Logf)
	s.asker.every = 100 * time.Millisecond
	if err := s.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, what := range s.found.all() {
		t.Error(what)
	}
	if len(s.deaths) == 0 || s.files == 0 || s.asker.asked == 0 || s.load.sent.Load() == 0 {
		t.Fatalf("%d kills, %d files, %d questions, %d events", len(s.deaths), s.files, s.asker.asked, s.load.sent.Load())
	}
	var text strings.Builder
	out := s.summary(nil)
	out.write(&text)
	if !strings.Contains(text.String(), "No violations.") {
		t.Error(text.String())
	}
	if err := out.writeJSON(filepath.Join(t.TempDir(), "out.json")); err != nil {
		t.Error(err)
	}
	if t.Failed() {
		return
	}

	again := func(say string, tables []listed) {
		t.Helper()
		var found findings
		if _, err := prove(t.Context(), s.load.accounts(), tables, s.report, &found); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(strings.Join(found.all(), "\n"), say) {
			t.Errorf("want %q, found %v", say, found.all())
		}
	}
	at := slices.IndexFunc(s.tables, func(l listed) bool { return l.name == "events.page_view" })
	if at < 0 || len(s.tables[at].list) == 0 {
		t.Fatalf("tables: %v", s.tables)
	}
	change := func(do func(list []dataFile) []dataFile) []listed {
		tables := slices.Clone(s.tables)
		tables[at].list = do(slices.Clone(tables[at].list))
		return tables
	}
	again("missing: ", change(func(l []dataFile) []dataFile { return l[1:] }))
	again("there twice", change(func(l []dataFile) []dataFile { return append(l, l[0]) }))
	again("its manifest says", change(func(l []dataFile) []dataFile { l[0].rows++; return l }))
	again("no such file", change(func(l []dataFile) []dataFile { l[0].path += ".gone"; return l }))
	again("a table events.nobody", func() []listed {
		tables := slices.Clone(s.tables)
		tables[at].name = "events.nobody"
		return tables
	}())
}

// TestSoakList: every package whose tests know NARU_SOAK is run by make soak.
func TestSoakList(t *testing.T) {
	script, err := os.ReadFile("../scripts/soak.sh")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	err = filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") || path == "../soak/soak_test.go" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), `"NARU_SOAK"`) {
			return err
		}
		found++
		if pkg := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), ".."); !strings.Contains(string(script), "\n  ."+pkg+"\n") {
			t.Errorf("%s reads NARU_SOAK, but scripts/soak.sh does not list .%s", path, pkg)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files read NARU_SOAK", found)
}
