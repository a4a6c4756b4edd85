package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The pages for users are executed: every block fenced as ```sh runs, in
// order, in one folder per page, against a server of its own. A line
// `# → TEXT` in a block says that TEXT is in the block's output. Between two
// blocks everything acknowledged gets into its table. Blocks fenced as
// ```console are pictures of a session and do not run.
func TestDocsRun(t *testing.T) {
	for _, tool := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			needs(t, "%s, to run the examples in docs/", tool)
		}
	}
	pages, err := filepath.Glob(filepath.Join(repoRoot(), "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range []string{"sinks", "steps"} {
		more, err := filepath.Glob(filepath.Join(repoRoot(), "docs", family, "*.md"))
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, more...)
	}
	ran := 0
	for _, page := range append(pages, filepath.Join(repoRoot(), "README.md")) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		blocks := shellBlocks(string(text), "sh")
		ran += len(blocks)
		if len(blocks) == 0 {
			continue
		}
		t.Run(filepath.Base(page), func(t *testing.T) {
			t.Parallel()
			runPage(t, blocks)
		})
	}
	if ran < 10 {
		t.Errorf("only %d examples found in docs/", ran)
	}
}

// block is one example of a page.
type block struct {
	line   int // of its fence, from 1
	script string
	wants  []string
}

// shellBlocks are the examples with this fence: sh runs everywhere, bash beside servers
// of others (TestDatabasePages).
func shellBlocks(text, fence string) []block {
	var out []block
	var cur *block
	for i, line := range strings.Split(text, "\n") {
		want, isWant := strings.CutPrefix(strings.TrimSpace(line), "# → ")
		switch {
		case cur == nil && strings.TrimSpace(line) == "```"+fence:
			cur = &block{line: i + 1}
		case cur != nil && strings.TrimSpace(line) == "```":
			out = append(out, *cur)
			cur = nil
		case cur != nil && isWant:
			cur.wants = append(cur.wants, want)
		case cur != nil:
			cur.script += line + "\n"
		}
	}
	return out
}

func runPage(t *testing.T, blocks []block, replace ...string) {
	s := serve(t, project(t, "pipelines:\n  commit_interval: 100ms\n"))
	dir := t.TempDir()
	path := filepath.Dir(naruBin) + string(os.PathListSeparator) + os.Getenv("PATH")
	for _, b := range blocks {
		script := strings.ReplaceAll(b.script, "http://127.0.0.1:8080", s.url)
		script = strings.ReplaceAll(script, "bin/naru", "naru")
		script = strings.NewReplacer(replace...).Replace(script)
		cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+path, "NARU_URL="+s.url, "PROJECT="+s.dir, "XDG_CACHE_HOME="+dir)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		ended := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		err := cmd.Run()
		ended.Stop()
		if err != nil {
			t.Errorf("example at line %d: %v\n%s--- output\n%s", b.line, err, script, out.String())
			continue
		}
		for _, want := range b.wants {
			if !strings.Contains(out.String(), want) {
				t.Errorf("example at line %d: no %q in its output\n%s--- output\n%s", b.line, want, script, out.String())
			}
		}
		s.settle()
	}
}

// settle waits until every acknowledged event is in its table.
func (s *server) settle() {
	s.t.Helper()
	eventually(s.t, "everything written", func() (bool, string) {
		r := s.call("GET", "/v1/status", nil)
		var st struct {
			Streams []struct {
				NotYetWritten *int64 `json:"not_yet_written"`
			} `json:"streams"`
		}
		if err := json.Unmarshal(r.body, &st); err != nil {
			return false, fmt.Sprintf("%v in %s", err, r.body)
		}
		for _, one := range st.Streams {
			if one.NotYetWritten == nil || *one.NotYetWritten != 0 {
				return false, string(r.body)
			}
		}
		return true, ""
	})
}
