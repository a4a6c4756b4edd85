package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// backupYAML makes many small commits and segments, and drops what was read.
const backupYAML = `pipelines:
  commit_interval: 100ms
log:
  segment: 512KiB
  retain_bytes: 1MiB
lake:
  expire_every: 5
  keep_snapshots: 3
  gc_delay: 0s
`

// asOf is the ledger as it stood at a moment: what has been sent by then or
// later, and acknowledged by then.
func (l *ledger) asOf(acked map[*request]bool) *ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	then := newLedger(0)
	for _, r := range l.sent {
		c := &request{work: r.work, number: r.number, table: r.table, good: r.good, bad: r.bad, sum: r.sum, format: r.format}
		if acked[r] {
			c.acked, c.ack = true, r.ack
			then.ackedBy[c.table] += c.good
			then.ackedAll += c.good + c.bad
		}
		then.sent = append(then.sent, c)
	}
	return then
}

// ackedNow are the requests acknowledged so far.
func (l *ledger) ackedNow() map[*request]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[*request]bool{}
	for _, r := range l.sent {
		if r.acked {
			all[r] = true
		}
	}
	return all
}

// taken is a backup, and what was acknowledged before it began.
type taken struct {
	dir, root string
	acked     map[*request]bool
}

// TestBackup takes backups one after the other while events come in, tables
// commit, and retention drops and recycles segments. Each is restored and
// proved: everything acknowledged before it began is there once, what came later
// once or not at all; and the restored folder goes on.
func TestBackup(t *testing.T) {
	t.Parallel()
	dir := project(t, backupYAML)
	if err := os.MkdirAll(filepath.Join(dir, "models", "staging"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "models", "staging", "a.sql"), []byte("select 1"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := serve(t, dir)
	l := newLedger(7)
	set := wikipedia(t)
	l.add(&dataset{typ: set.typ, check: set.check, items: set.items[:20000]}, &dataset{typ: "turn", check: set.check, turning: true, items: set.items[:8000]}, &dataset{typ: "access", check: set.check, items: set.items[:4000]})
	all := 8000 + 4000 + 20000
	run := l.start(s.url, 3)
	base := filepath.Dir(dir)
	var made []taken
	for i := range 3 {
		eventually(t, "more events", func() (bool, string) {
			return l.acked() > (i+1)*all/6 || s.ended(), fmt.Sprint(l.acked())
		})
		b := taken{dir: filepath.Join(base, fmt.Sprint("backup", i)), root: dir, acked: l.ackedNow()}
		args := []string{"backup", b.dir, dir, "--json"}
		if i%2 == 1 {
			b.root = b.dir
			args = append(args, "--root", b.root)
		}
		var report struct {
			Files, Attempts int
			Log             struct{ Segments int }
		}
		if err := json.Unmarshal([]byte(must(t, "", args...)), &report); err != nil {
			t.Fatal(err)
		}
		t.Logf("backup of %d requests: %+v", len(b.acked), report)
		made = append(made, b)
		must(t, "", "backup", b.dir, "--check")
	}
	for _, err := range run.drain() {
		t.Error(err)
	}
	prove(t, s, l)
	if code := s.stop(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	if err := os.Rename(dir, filepath.Join(base, "original")); err != nil {
		t.Fatal(err)
	}
	for i, b := range made {
		if b.root != b.dir {
			if _, err := tryServe(t, b.dir); err == nil {
				t.Fatal("a backup is served where it is")
			}
			if err := os.Rename(b.dir, b.root); err != nil {
				t.Fatal(err)
			}
		}
		if text, err := os.ReadFile(filepath.Join(b.root, "models", "staging", "a.sql")); err != nil || string(text) != "select 1" {
			t.Errorf("project files: %q, %v", text, err)
		}
		r := serve(t, b.root)
		t.Logf("restored backup %d", i)
		then := l.asOf(b.acked)
		prove(t, r, then)
		// It goes on, and so does a backup of it.
		r.post("?type=after", "application/json", `{"n":1}`)
		r.waitCell("select count(_offset) from after", "1")
		if i == 0 {
			again := filepath.Join(base, "again")
			must(t, "", "backup", again, b.root)
			must(t, "", "backup", again, "--check")
		}
		if code := r.stop(); code != 0 {
			t.Errorf("exit %d", code)
		}
		deep(t, b.root)
		fsck(t, b.root)
		if err := os.Rename(b.root, filepath.Join(base, fmt.Sprint("done", i))); err != nil {
			t.Fatal(err)
		}
	}
}

// fsck checks every file of a stopped folder.
func fsck(t *testing.T, dir string) {
	t.Helper()
	for _, what := range []string{"log", "table"} {
		if !strings.Contains(must(t, "", "help", what), "\n  fsck ") {
			continue
		}
		if r := naru(t, "", what, "fsck", dir); r.code != 0 {
			t.Errorf("naru %s fsck: exit %d\n%s%s", what, r.code, r.stdout, r.stderr)
		}
	}
}

// TestBackupMoves: a stopped folder is moved by a copy, and so is one that was
// moved by hand before, to a third place.
func TestBackupMoves(t *testing.T) {
	t.Parallel()
	dir := project(t, "pipelines:\n  commit_interval: 100ms\n")
	base := filepath.Dir(dir)
	s := serve(t, dir)
	a := s.post("?type=move", "application/x-ndjson", strings.Repeat("{\"n\":1}\n", 100))
	s.waitCell("select count(_offset) from move", "100")
	id := folderID(t, s)
	s.stop()
	moved := filepath.Join(base, "moved by hand")
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	if s, err := tryServe(t, moved); err == nil || !strings.Contains(s.logs.String()+err.Error(), "naru backup NEW") {
		t.Errorf("a moved folder: %v, want the cure", err)
	}
	third := filepath.Join(base, "third 100% ü")
	must(t, "", "backup", third, moved, "--root", third)
	s = serve(t, third)
	s.waitCell("select count(_offset) from move", "100")
	if got := s.cell("select max(_offset) from move"); got != fmt.Sprint(a.Positions[0].Last) {
		t.Errorf("last offset: %s", got)
	}
	if got := folderID(t, s); got == id {
		t.Error("the copy at another place has the original's id")
	}
	s.post("?type=move", "application/json", `{"n":2.5}`) // rewrites the old files
	s.waitCell("select sum(n) from move", "102.5")
	if code := s.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	deep(t, third)
	fsck(t, third)
	// And back to where it began: the same folder again.
	must(t, "", "backup", dir, third, "--root", dir)
	s = serve(t, dir)
	s.waitCell("select sum(n) from move", "102.5")
	s.stop()
	deep(t, dir)
}

func folderID(t *testing.T, s *server) string {
	t.Helper()
	document, err := s.status()
	if err != nil {
		t.Fatal(err)
	}
	folder, _ := document["folder"].(map[string]any)
	id, _ := folder["id"].(string)
	if id == "" {
		t.Fatalf("no id in %v", document)
	}
	return id
}

// TestBackupRefuses: what cannot become a backup is refused before anything is
// made, and nothing is left.
func TestBackupRefuses(t *testing.T) {
	t.Parallel()
	dir := project(t, "pipelines:\n  commit_interval: 100ms\n")
	base := filepath.Dir(dir)
	s := serve(t, dir)
	s.post("", "application/json", `{"n":1}`)
	s.settle()
	s.stop()
	link := filepath.Join(base, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for to, want := range map[string]string{
		dir:                                  "lies in the folder",
		filepath.Join(dir, "x"):              "lies in the folder",
		filepath.Join(link, "x/y"):           "lies in the folder",
		base:                                 "is not empty",
		filepath.Join(dir, "naru.yaml", "x"): "",
	} {
		r := naru(t, "", "backup", to, dir)
		if r.code != 1 || !strings.Contains(r.stderr, want) {
			t.Errorf("backup to %s: exit %d, %s", to, r.code, r.stderr)
		}
		if _, err := os.Stat(to + ".partial"); err == nil {
			t.Errorf("%s.partial was left", to)
		}
	}
	if r := naru(t, "", "backup", filepath.Join(base, "b"), filepath.Join(base, "none")); r.code != 1 || !strings.Contains(r.stderr, "holds no data") {
		t.Errorf("exit %d, %s", r.code, r.stderr)
	}
	if r := naru(t, "", "backup", filepath.Join(base, "b"), dir, "--rate", "fast"); r.code != 2 {
		t.Errorf("exit %d, %s", r.code, r.stderr)
	}
	empty := filepath.Join(base, "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	must(t, "", "backup", empty, dir, "--rate", "1GiB")
	must(t, "", "backup", empty, "--check")

	// What is checked is the copy, not the original that its tables name.
	if err := os.Rename(dir, filepath.Join(base, "gone")); err != nil {
		t.Fatal(err)
	}
	must(t, "", "backup", empty, "--check")
	files, err := filepath.Glob(filepath.Join(empty, "data/lake/events/*/data/*/*.parquet"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(base, "gone"), dir); err != nil {
		t.Fatal(err)
	}
	if r := naru(t, "", "backup", empty, "--check"); r.code != 1 || !strings.Contains(r.stdout, files[0]) {
		t.Errorf("exit %d, %s%s", r.code, r.stdout, r.stderr)
	}
}
