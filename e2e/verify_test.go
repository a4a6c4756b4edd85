package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// verified is what naru verify --json says.
type verified struct {
	Clean   bool `json:"clean"`
	Beside  bool `json:"beside_server"`
	Streams []struct {
		Stream        string `json:"stream"`
		Acknowledged  int64  `json:"acknowledged"`
		Written       int64  `json:"written"`
		NotYetWritten int64  `json:"not_yet_written"`
		Balanced      bool   `json:"balanced"`
	} `json:"streams"`
	Differences []struct {
		Kind  string   `json:"kind"`
		Table string   `json:"table"`
		Files []string `json:"files"`
	} `json:"differences"`
}

// verify runs naru verify over a folder and returns its report and exit code.
func verify(t *testing.T, dir string, args ...string) (v verified, code int) {
	t.Helper()
	r := naru(t, "", append([]string{"verify", dir, "--json"}, args...)...)
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil {
		t.Fatalf("naru verify: exit %d, %v\n%s%s", r.code, err, r.stdout, r.stderr)
	}
	if v.Clean != (r.code == 0) {
		t.Errorf("naru verify: exit %d, clean %v\n%s", r.code, v.Clean, r.stdout)
	}
	if !v.Clean {
		t.Log(r.stdout)
	}
	return v, r.code
}

// TestVerify: clean beside a server under load, clean when it is killed and when
// it has stopped, and a file that is taken away is named.
func TestVerify(t *testing.T) {
	t.Parallel()
	// Small and short, so that segments and files go while they are read.
	dir := project(t, killConfig+"  commit_bytes: 1MiB\n")
	s := serve(t, dir)
	l := newLedger(7)
	sets := []*dataset{wikipedia(t), apache(t)}
	ld := l.start(s.url, 2, sets...)
	for i := range 5 {
		wanted := l.acked() + 500
		eventually(t, "some load", func() (bool, string) { return l.acked() >= wanted, fmt.Sprint(l.acked(), " acknowledged") })
		v, code := verify(t, dir, []string{"--deep"}[:i%2]...)
		if code != 0 || !v.Beside {
			t.Errorf("beside a server under load: exit %d, beside %v", code, v.Beside)
		}
	}
	s.kill()
	for _, err := range ld.finish() {
		t.Error(err)
	}
	v, code := verify(t, dir, "--deep")
	if code != 0 || v.Beside {
		t.Errorf("after a kill: exit %d, beside %v", code, v.Beside)
	}
	s = serve(t, dir)
	s.settle()
	if code := s.stop(); code != 0 {
		t.Fatalf("stop: exit %d", code)
	}
	v, code = verify(t, dir, "--deep")
	if code != 0 || len(v.Streams) != 2 || v.Streams[0].Acknowledged < int64(l.acked()) || v.Streams[0].NotYetWritten != 0 {
		t.Errorf("after a stop: exit %d, %+v; %d acknowledged", code, v.Streams, l.acked())
	}
	text := must(t, "", "verify", dir)
	for _, word := range []string{"stream events", "= written", "+ not yet written", "nothing missing, nothing doubled", "clean:"} {
		if !strings.Contains(text, word) {
			t.Errorf("no %q in\n%s", word, text)
		}
	}

	files, err := filepath.Glob(filepath.Join(dir, "data", "lake", "events", "*", "data", "*", "*.parquet"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	v, code = verify(t, dir)
	kinds := map[string]bool{}
	for _, d := range v.Differences {
		kinds[d.Kind] = true
	}
	if code != 1 || !kinds["file"] || !kinds["missing"] {
		t.Errorf("without its data files: exit %d, %+v", code, v.Differences)
	}
	if r := naru(t, "", "verify", t.TempDir()); r.code != 1 || !strings.Contains(r.stderr, "holds no log") {
		t.Errorf("a folder without a log: %+v", r)
	}
}
