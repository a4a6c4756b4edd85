package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// injection makes system calls of a running server fail.
type injection struct {
	t      testing.TB
	calls  string
	traced string
	cmd    *exec.Cmd
	done   chan struct{}
}

// inject attaches strace to a server: of its calls, those that when chooses
// (strace's own words: 5 is the fifth of each thread, 1+ all) fail with an error. With a path,
// only calls on that file count.
func inject(t testing.TB, s *server, calls, errno, when, path string) *injection {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		needs(t, "strace, which makes system calls fail, is not installed")
	}
	in := &injection{t: t, calls: calls, traced: filepath.Join(t.TempDir(), "trace"), done: make(chan struct{})}
	args := []string{"-f", "-y", "-e", "trace=" + calls, "-e", fmt.Sprintf("inject=%s:error=%s:when=%s", calls, errno, when), "-o", in.traced, "-p", strconv.Itoa(s.pid())}
	if path != "" {
		args = append([]string{"-P", path}, args...)
	}
	var says tail
	in.cmd = exec.Command("strace", args...)
	in.cmd.Stderr = &says
	if err := in.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = in.cmd.Wait(); close(in.done) }()
	t.Cleanup(in.stop)
	eventually(t, "strace attached", func() (bool, string) {
		if text := says.String(); strings.Contains(text, "not permitted") {
			needs(t, "strace may not attach here: %s", text)
		}
		return strings.Contains(says.String(), "attached"), says.String()
	})
	return in
}

func (in *injection) stop() {
	select {
	case <-in.done:
	default:
		_ = in.cmd.Process.Signal(os.Interrupt)
		<-in.done
	}
}

// hits are the calls that were made to fail.
func (in *injection) hits() (lines []string) {
	b, err := os.ReadFile(in.traced)
	if err != nil && !os.IsNotExist(err) {
		in.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "INJECTED") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// wait until calls have failed.
func (in *injection) wait(n int) {
	in.t.Helper()
	eventually(in.t, "injected into "+in.calls, func() (bool, string) {
		hits := in.hits()
		return len(hits) >= n, strings.Join(hits, "\n")
	})
}

// TestLogDiskFails: a write or fsync of the log fails under load. Nobody gets a
// false acknowledgement, the process ends with code 3 and says why, and the next
// start recovers from what is there.
func TestLogDiskFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ calls, errno, when string }{
		{"fdatasync", "EIO", "5"}, {"pwritev", "ENOSPC", "3"}, {"pwritev", "EIO", "7"}, {"fdatasync", "EIO", "1"},
	}[:short(2, 4)] {
		t.Run(c.calls+" "+c.errno+" "+c.when, func(t *testing.T) {
			t.Parallel()
			dir := project(t, "log:\n  segment: 1MiB\n")
			l := newLedger(51)
			l.patient = false
			s := serve(t, dir, "--no-pipelines")
			s.post("?type=warm", "application/json", `{"warm":"up"}`)
			in := inject(t, s, c.calls, c.errno, c.when, "")
			ld := l.start(s.url, 4, small(wikipedia(t)))
			in.wait(1)
			for _, err := range ld.drain() { // each connection ends with its first failure
				t.Error(err)
			}
			// Whoever still gets an answer gets the reason.
			if r, err := s.do("GET", "/readyz", nil); err == nil && (r.status != 503 || !strings.Contains(string(r.body), "poisoned")) {
				t.Errorf("/readyz: %d %s", r.status, r.body)
			}
			if r, err := s.do("POST", "/v1/events", []byte(`{"a":1}`), jsonType); err == nil && r.status == 200 {
				t.Errorf("an event was acknowledged by a poisoned log: %s", r.body)
			}
			if code := s.wait(); code != 3 {
				t.Errorf("exit %d, want 3\n%s", code, s.logs.last(2<<10))
			}
			if says := s.logs.String(); !strings.Contains(says, "poisoned") || !strings.Contains(says, ".seg") {
				t.Errorf("the end does not say why: %s", lastLines(says, 3))
			}
			t.Logf("%s; %d acknowledged", in.hits()[0], l.acked())
			l.cut(1)
			s = serve(t, dir)
			proveBeside(t, s, l, "warm", 1)
			if got := readyz(s); got != 200 {
				t.Errorf("/readyz: %d", got)
			}
			s.stop()
			deep(t, dir)
		})
	}
}

// proveBeside is prove beside a table that the ledger knows nothing of.
func proveBeside(t *testing.T, s *server, l *ledger, table string, rows int) {
	t.Helper()
	l.beside = int64(rows)
	prove(t, s, l)
	if got := s.cell("select count(_offset) from " + table); got != strconv.Itoa(rows) {
		t.Errorf("%s: %s rows, want %d", table, got, rows)
	}
}

// TestNoRoomForASegment: the disk says that it is full when a segment is made:
// 503 for a while, and then it goes on by itself.
func TestNoRoomForASegment(t *testing.T) {
	t.Parallel()
	dir := project(t, "log:\n  segment: 256KiB\n  recycle: 0\npipelines:\n  commit_interval: 100ms\n")
	l := newLedger(52)
	l.patient, l.strict = true, true
	l.add(small(wikipedia(t)))
	s := serve(t, dir)
	in := inject(t, s, "fallocate", "ENOSPC", "1..2", "")
	ld := l.start(s.url, 2)
	in.wait(2)
	for _, err := range ld.drain() {
		t.Error(err)
	}
	in.stop()
	if s.ended() || l.refused() == 0 {
		t.Errorf("%s, %d refused", s.state(), l.refused())
	}
	t.Logf("%d requests were refused with 503", l.refused())
	prove(t, s, l)
	if got := readyz(s); got != 200 {
		t.Errorf("/readyz: %d", got)
	}
	s.stop()
	deep(t, dir)
}

// TestLakeDiskFails: a call on a file of the lake or on the catalog fails in a
// commit. The commit is made again under new names, nothing is there twice, and
// the process goes on.
func TestLakeDiskFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ calls, errno, when, path string }{
		{"fdatasync", "EIO", "1", ""}, // of a data file: nothing else is written
		{"fdatasync,fsync", "EIO", "1..2", "data/catalog.db-wal"},
		{"fdatasync", "EIO", "3", ""},
		{"renameat,renameat2,rename", "EIO", "1..2", ""},
		{"pwrite64", "EIO", "1..3", "data/catalog.db-wal"},
		{"pwrite64", "ENOSPC", "2", "data/catalog.db-wal"},
	}[:short(2, 6)] {
		t.Run(fmt.Sprintf("%s %s %s of %s", c.calls, c.errno, c.when, filepath.Base(c.path)), func(t *testing.T) {
			t.Parallel()
			// Time enough to send, to fall silent, and to attach.
			dir := project(t, "pipelines:\n  commit_interval: 2s\n  backoff_max: 200ms\n")
			l := newLedger(53)
			l.add(&dataset{typ: "wiki_edit", check: "delta", items: wikipedia(t).items[:1000]})
			s := serve(t, dir)
			for _, err := range l.start(s.url, 2).drain() {
				t.Error(err)
			}
			prove(t, s, l) // the first commit is over, the catalog is there
			l.add(&dataset{typ: "wiki_edit", check: "delta", items: wikipedia(t).items[1000:2000]})
			for _, err := range l.start(s.url, 2).drain() {
				t.Error(err)
			}
			time.Sleep(200 * time.Millisecond) // the promise frame, which no answer tells of
			path := c.path
			if path != "" {
				path = filepath.Join(dir, path)
			}
			in := inject(t, s, c.calls, c.errno, c.when, path)
			in.wait(1)
			in.stop() // or each thread would have its own failure
			if strings.Contains(strings.Join(in.hits(), "\n"), "/data/log/") {
				// The commit was over before strace could leave: the log was hit as well.
				if code := s.wait(); code != 3 {
					t.Errorf("exit %d, want 3", code)
				}
				s = serve(t, dir)
			}
			prove(t, s, l)
			document, err := s.status()
			if err != nil {
				t.Fatal(err)
			}
			if problems := fmt.Sprint(document["problems"]); problems != "[]" {
				t.Errorf("problems after it has healed: %s", problems)
			}
			t.Logf("%s", strings.Join(in.hits(), "\n"))
			if s.ended() {
				t.Fatalf("the server has ended: %s", s.state())
			}
			if code := s.stop(); code != 0 {
				t.Errorf("SIGTERM: exit %d", code)
			}
			s = serve(t, dir)
			prove(t, s, l)
			s.stop()
			deep(t, dir)
		})
	}
}
