package contract

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the wanted outputs anew")

func wanted(t *testing.T, path, got string) {
	t.Helper()
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

func scripts(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("no scripts in %s: %v", pattern, err)
	}
	return names
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestLintScripts: every mistake of a file, all at once.
func TestLintScripts(t *testing.T) {
	for _, name := range scripts(t, "testdata/lint/*.yaml") {
		files := []File{{Name: filepath.Base(name), Data: read(t, name)}}
		for _, other := range scripts(t, "testdata/lint/*.json") {
			files = append(files, File{Name: filepath.Base(other), Data: read(t, other)})
		}
		set, problems := Compile(files)
		var out strings.Builder
		for _, p := range problems {
			fmt.Fprintln(&out, p)
		}
		if set != nil {
			for _, p := range set.Notes {
				fmt.Fprintln(&out, "note: "+p.String())
			}
		}
		wanted(t, strings.TrimSuffix(name, ".yaml")+".want", out.String())
	}
}

// TestCheckScripts: events, and what each of them breaks.
func TestCheckScripts(t *testing.T) {
	for _, name := range scripts(t, "testdata/check/*.yaml") {
		set, problems := Compile([]File{{Name: filepath.Base(name), Data: read(t, name)}})
		if problems != nil {
			t.Errorf("%s: %v", name, problems)
			continue
		}
		c := set.Contracts[0]
		var out strings.Builder
		var s Scratch
		for line := range strings.Lines(string(read(t, strings.TrimSuffix(name, ".yaml")+".ndjson"))) {
			line = strings.TrimSuffix(line, "\n")
			fmt.Fprintln(&out, cut(line, 150))
			for _, v := range c.Check([]byte(line), &s) {
				fmt.Fprintf(&out, "  %s, line %d: %s\n", v.Rule, v.Line, v)
			}
		}
		wanted(t, strings.TrimSuffix(name, ".yaml")+".want", out.String())
	}
}

// TestDiff: what each change does to those who send and those who read.
func TestDiff(t *testing.T) {
	var out strings.Builder
	for _, pair := range [][2]string{{"diff/old.yaml", "diff/new.yaml"}, {"diff/new.yaml", "diff/old.yaml"}, {"diff/old.yaml", "diff/old.yaml"}} {
		fmt.Fprintf(&out, "%s → %s\n", pair[0], pair[1])
		for _, c := range Diff(load(t, pair[0]), load(t, pair[1])) {
			fmt.Fprintf(&out, "  %s %s %s: %q → %q: producers %s, consumers %s: %s\n", c.Type, c.Field, c.What, c.Old, c.New, c.Producers, c.Consumers, c.Why)
		}
	}
	wanted(t, "testdata/diff/diff.want", out.String())
}
