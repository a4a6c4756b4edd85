package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Segments and commits follow each other fast, so that a server whose folder
// goes would soon write by a path that is not its own.
const folderConfig = `
log:
  segment: 256KiB
pipelines:
  commit_interval: 50ms
`

// underLoad starts a server on a new folder and some senders.
func underLoad(t *testing.T, seed uint64, config string) (s *server, l *ledger, ld *load) {
	t.Helper()
	s = serve(t, project(t, config))
	l = newLedger(seed)
	ld = l.start(s.url, 3, small(wikipedia(t)))
	eventually(t, "load and commits", func() (bool, string) {
		document, err := s.status()
		if err != nil {
			return false, err.Error()
		}
		written, _ := sum(document, "written")
		return written > 500, fmt.Sprint(written, " written")
	})
	return s, l, ld
}

// small is the data set without runs that are too large for small segments.
func small(d *dataset) *dataset {
	return &dataset{typ: d.typ, check: d.check, items: d.items[:20000]}
}

// gone waits for the end of a server whose folder went away.
func gone(t *testing.T, s *server, l *ledger, ld *load) {
	t.Helper()
	if code := s.wait(); code != 1 && code != 3 {
		t.Errorf("exit %d without the folder", code)
	}
	for _, err := range ld.finish() {
		if !strings.Contains(err.Error(), ": 500 ") {
			t.Error(err)
		}
	}
	l.cut(1)
	if says := s.logs.String(); !strings.Contains(says, "moved or copied") || !strings.Contains(says, s.dir) || !strings.Contains(says, "hint:") {
		t.Errorf("the end does not say what has happened, and what to do: %s", lastLines(says, 5))
	}
}

// elsewhere: a folder that is not where its data was made is refused, with
// both places and the cure, and nothing in it is touched.
func elsewhere(t *testing.T, made, dir string) {
	t.Helper()
	before := listing(t, dir)
	refused, err := tryServe(t, dir)
	if err == nil {
		t.Fatalf("%s was opened, it was made at %s", dir, made)
	}
	if code := refused.wait(); code == 0 {
		t.Error("exit code 0")
	}
	if says := refused.logs.String(); !strings.Contains(says, made) || !strings.Contains(says, dir) || !strings.Contains(says, "hint:") {
		t.Errorf("the refusal does not name both places and the cure: %s", says)
	}
	if after := listing(t, dir); after != before {
		t.Errorf("the refused start changed the folder:\n%s\nwas\n%s", after, before)
	}
}

// TestFolderMovedWhileRunning: the folder is renamed under load. The server
// ends and says so; moved back, everything acknowledged is there.
func TestFolderMovedWhileRunning(t *testing.T) {
	t.Parallel()
	s, l, ld := underLoad(t, 21, folderConfig)
	moved := filepath.Join(filepath.Dir(s.dir), "moved")
	if err := os.Rename(s.dir, moved); err != nil {
		t.Fatal(err)
	}
	gone(t, s, l, ld)
	if _, err := os.Lstat(s.dir); !os.IsNotExist(err) {
		t.Errorf("something was made at the old place: %v", err)
	}
	elsewhere(t, s.dir, moved)
	if err := os.Rename(moved, s.dir); err != nil {
		t.Fatal(err)
	}
	back(t, s.dir, l)
}

// back starts a server on a folder that is in its place again.
func back(t *testing.T, dir string, l *ledger) {
	t.Helper()
	s := serve(t, dir)
	for _, err := range l.start(s.url, 3).drain() {
		t.Error(err)
	}
	prove(t, s, l)
	if code := s.stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d", code)
	}
	deep(t, dir)
}

// TestFolderReplacedWhileRunning: the folder is moved away and another server
// begins at its path. Neither gets anything of the other.
func TestFolderReplacedWhileRunning(t *testing.T) {
	t.Parallel()
	s, l, ld := underLoad(t, 22, folderConfig)
	aside := filepath.Join(filepath.Dir(s.dir), "aside")
	if err := os.Rename(s.dir, aside); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	writeConfig(t, s.dir, folderConfig)
	second := serve(t, s.dir)
	other := newLedger(23)
	other.add(&dataset{typ: "other_edit", check: "delta", items: wikipedia(t).items[:3000]})
	for _, err := range other.start(second.url, 2).drain() {
		t.Error(err)
	}
	gone(t, s, l, ld)
	prove(t, second, other)
	if code := second.stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d", code)
	}
	back(t, s.dir, other)
	if err := os.Rename(s.dir, s.dir+"-second"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(aside, s.dir); err != nil {
		t.Fatal(err)
	}
	back(t, s.dir, l)
}

// TestFolderCopiedWhileRunning: a copy made under load is refused wherever it
// is, and the original does not notice. Then the original is removed under load.
func TestFolderCopiedWhileRunning(t *testing.T) {
	t.Parallel()
	s, l, ld := underLoad(t, 24, folderConfig)
	copied := filepath.Join(filepath.Dir(s.dir), "copied")
	out, err := exec.Command("cp", "-a", s.dir, copied).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "No such file") { // of a file that has just been renamed
		t.Fatalf("cp: %v %s", err, out)
	}
	elsewhere(t, s.dir, copied)
	for _, err := range ld.finish() {
		t.Error(err)
	}
	prove(t, s, l)
	if got := readyz(s); got != 200 {
		t.Errorf("/readyz: %d", got)
	}
	ld = l.start(s.url, 3, small(wikipedia(t)))
	before := l.acked()
	eventually(t, "load", func() (bool, string) { return l.acked() > before+500, fmt.Sprint(l.acked()) })
	if err := os.RemoveAll(s.dir); err != nil && !strings.Contains(err.Error(), "not empty") {
		t.Fatal(err)
	}
	gone(t, s, l, ld)
	if list, err := os.ReadDir(s.dir); err == nil && len(list) > 0 {
		if err := os.RemoveAll(s.dir); err != nil { // what came between the removals
			t.Fatal(err)
		}
	}
	elsewhere(t, s.dir, copied)
}
