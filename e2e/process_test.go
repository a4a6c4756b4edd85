package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestStopUnderLoad: SIGTERM while many send. The exit code is 0, and whatever
// was acknowledged is there, once, after the next start.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	set := wikipedia(t)
	l := newLedger(7)
	dir := project(t, "pipelines:\n  commit_interval: 500ms\n")
	for round := 1; round <= 3; round++ {
		s := serve(t, dir)
		ld := l.start(s.url, 4, set)
		wanted := l.acked() + 2000
		eventually(t, "some load", func() (bool, string) {
			return l.acked() >= wanted && l.inFlight() > 0, fmt.Sprint(l.acked(), " acknowledged")
		})
		if code := s.stop(); code != 0 {
			t.Fatalf("SIGTERM under load: exit %d\n%s", code, s.logs.String())
		}
		for _, err := range ld.finish() {
			t.Error(err)
		}
		l.cut(round)
	}
	s := serve(t, dir)
	prove(t, s, l)
	if got := readyz(s); got != 200 {
		t.Errorf("/readyz: %d", got)
	}
}

func readyz(s *server) int { return s.call("GET", "/readyz", nil).status }

// TestProbes: alive and ready while it runs, with a JSON body; never beyond.
func TestProbes(t *testing.T) {
	t.Parallel()
	s := serve(t, project(t, ""))
	for _, path := range []string{"/healthz", "/readyz"} {
		if r := s.call("GET", path, nil); r.status != 200 || !json.Valid(r.body) {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
	if len(s.metrics()) == 0 {
		t.Error("no metrics")
	}
	s.signal(syscall.SIGINT)
	if code := s.wait(); code != 0 {
		t.Errorf("SIGINT: exit %d", code)
	}
}

// TestSecondServer: two servers never share a folder, and the first does not
// notice the attempt.
func TestSecondServer(t *testing.T) {
	t.Parallel()
	dir := project(t, "")
	first := serve(t, dir)
	first.post("", "application/json", `{"a": 1}`)
	second, err := tryServe(t, dir)
	if err == nil {
		t.Fatal("a second server has started on the folder of the first")
	}
	if code := second.wait(); code == 0 {
		t.Error("the second server's exit code is 0")
	}
	if says := second.logs.String(); !strings.Contains(says, dir) {
		t.Errorf("the second server does not name the folder: %s", says)
	}
	first.post("", "application/json", `{"a": 2}`)
	first.kill()
	serve(t, dir) // the lock went with its process
}

// TestMovedFolder: a folder opened elsewhere is refused with the cure, and
// nothing in it is touched.
func TestMovedFolder(t *testing.T) {
	t.Parallel()
	dir := project(t, "pipelines:\n  commit_interval: 200ms\n")
	s := serve(t, dir)
	s.post("?type=page", "application/json", `{"a": 1}`)
	s.waitCell("select count(_offset) from page", "1")
	if code := s.stop(); code != 0 {
		t.Fatalf("SIGTERM: exit %d", code)
	}
	moved := filepath.Join(filepath.Dir(dir), "moved")
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	before := listing(t, moved)
	refused, err := tryServe(t, moved)
	if err == nil {
		t.Fatal("a moved folder was opened")
	}
	if code := refused.wait(); code == 0 {
		t.Error("exit code 0 for a moved folder")
	}
	if says := refused.logs.String(); !strings.Contains(says, dir) || !strings.Contains(says, moved) {
		t.Errorf("the refusal does not name both places: %s", says)
	}
	if after := listing(t, moved); after != before {
		t.Errorf("the refused start changed the folder:\n%s\nwas\n%s", after, before)
	}
	if err := os.Rename(moved, dir); err != nil {
		t.Fatal(err)
	}
	s = serve(t, dir)
	s.waitCell("select count(_offset) from page", "1")
}

// listing names every file of a folder with its size and time, but not those
// of folders called by the names given.
func listing(t *testing.T, dir string, without ...string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if os.IsNotExist(err) && path != dir {
			return nil // renamed or removed by a running server between the folder's list and here
		}
		if err != nil {
			return err
		}
		if info.IsDir() && slices.Contains(without, info.Name()) {
			return filepath.SkipDir
		}
		if !info.IsDir() {
			fmt.Fprintln(&out, path, info.Size(), info.ModTime().UnixNano())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestPortTaken: a taken port is said before anything else is done.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	s := serve(t, project(t, ""))
	dir := project(t, "")
	r := naru(t, "", "serve", dir, "--listen", strings.TrimPrefix(s.url, "http://"))
	if r.code == 0 || !strings.Contains(r.stderr, strings.TrimPrefix(s.url, "http://")) {
		t.Errorf("exit %d, stderr %q", r.code, r.stderr)
	}
}
