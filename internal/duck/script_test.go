package duck

import (
	"flag"
	"os"
	"strconv"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the expected results in testdata anew")

// script runs a file of paragraphs: a statement, "----", what it gives. A
// statement that begins with go: is a Go string.
func script(t *testing.T, path string, run func(sql string) string) (n int) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for par := range strings.SplitSeq(strings.TrimRight(string(content), "\n"), "\n\n") {
		if par = strings.Trim(par, "\n"); par == "" {
			continue
		}
		lines := strings.Split(par, "\n")
		comments := 0
		for comments < len(lines) && strings.HasPrefix(lines[comments], "# ") {
			comments++
		}
		head, body := lines[:comments], strings.Join(lines[comments:], "\n")
		if body == "" {
			out = append(out, par)
			continue
		}
		text, want, ok := strings.Cut(body, "\n----")
		if !ok {
			t.Fatalf("%s: no ---- in %q", path, par)
		}
		sql := text
		if quoted, ok := strings.CutPrefix(text, "go:"); ok {
			if sql, err = strconv.Unquote(quoted); err != nil {
				t.Fatalf("%s: %q: %v", path, text, err)
			}
		}
		n++
		got := strings.TrimRight(run(sql), "\n")
		want = strings.Trim(want, "\n")
		if !*rewrite && got != want {
			t.Errorf("%s: %s\n got: %s\nwant: %s", path, text, got, want)
		}
		out = append(out, strings.Join(append(head, text, "----", got), "\n"))
	}
	if *rewrite {
		if err := os.WriteFile(path, []byte(strings.Join(out, "\n\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return n
}
