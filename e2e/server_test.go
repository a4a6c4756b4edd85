package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Deadlines. They bound a hang; no test passes or fails by being a bit slower.
const (
	readyWithin = 60 * time.Second
	stopWithin  = 60 * time.Second
	soonWithin  = 60 * time.Second // a state that must come by itself
)

// server is one run of `naru serve`.
type server struct {
	t     testing.TB
	dir   string
	url   string // http://127.0.0.1:PORT, from the ready line
	cmd   *exec.Cmd
	logs  *tail
	ready <-chan string
	done  chan struct{} // closed once the process has ended
	exit  error         // valid once done is closed
}

// serve starts `naru serve DIR` on a free port and waits for its ready line.
// The server is killed when the test ends.
func serve(t testing.TB, dir string, args ...string) *server {
	t.Helper()
	s, err := tryServe(t, dir, args...)
	if err != nil {
		t.Fatalf("start server: %v", err)
	}
	return s
}

// tryServe is serve for starts that may be refused: the error says how the
// process ended, and the server's logs say why.
func tryServe(t testing.TB, dir string, args ...string) (*server, error) {
	t.Helper()
	s := launch(t, dir, naruBin, append([]string{"serve", dir, "--listen", "127.0.0.1:0"}, args...))
	return s, s.waitReady()
}

// launch starts a process in dir that will print a ready line.
func launch(t testing.TB, dir, name string, args []string) *server {
	t.Helper()
	s := &server{t: t, dir: dir, logs: &tail{}, done: make(chan struct{})}
	s.cmd = exec.Command(name, args...)
	s.cmd.Dir = dir
	s.cmd.Stderr = s.logs
	ready, stdout, err := os.Pipe()
	if err != nil {
		t.Fatalf("make pipe: %v", err)
	}
	s.cmd.Stdout = stdout
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	stdout.Close()
	lines := make(chan string, 1)
	go func() {
		defer ready.Close()
		in := bufio.NewScanner(ready)
		for in.Scan() {
			if url, ok := strings.CutPrefix(in.Text(), "ready "); ok {
				lines <- strings.TrimSpace(url)
				break
			}
		}
		close(lines)
		_, _ = io.Copy(io.Discard, ready)
	}()
	go func() {
		s.exit = s.cmd.Wait()
		close(s.done)
	}()
	s.ready = lines
	t.Cleanup(func() {
		s.kill()
		// Of a binary that was built with -race; it also ends with code 66.
		if race := s.logs.raced(); race != "" || s.cmd.ProcessState.ExitCode() == 66 {
			t.Errorf("data race in pid %d: %s", s.cmd.Process.Pid, race)
		}
		if t.Failed() {
			t.Logf("stderr of pid %d (%s):\n%s", s.cmd.Process.Pid, s.state(), s.logs.last(8<<10))
		}
	})
	return s
}

// waitReady blocks until the ready line, the end of the process, or the deadline.
func (s *server) waitReady() error {
	select {
	case url, ok := <-s.ready:
		if !ok {
			<-s.done
			return fmt.Errorf("ended before it was ready: %s\n%s", s.state(), s.logs.String())
		}
		s.url = url
		return nil
	case <-time.After(readyWithin):
		return fmt.Errorf("not ready within %v\n%s", readyWithin, s.logs.String())
	}
}

// pid of the server.
func (s *server) pid() int { return s.cmd.Process.Pid }

// kill sends SIGKILL and waits for the end. Harmless when it has ended.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	<-s.done
}

// stop sends SIGTERM and returns the exit code.
func (s *server) stop() int {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	return s.wait()
}

func (s *server) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Fatalf("signal server: %v", err)
	}
}

// wait for the process to end by itself; returns the exit code.
func (s *server) wait() int {
	s.t.Helper()
	select {
	case <-s.done:
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(stopWithin):
		s.t.Fatalf("server has not ended within %v\n%s", stopWithin, s.logs.String())
		return -1
	}
}

// ended tells whether the process is gone.
func (s *server) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func (s *server) state() string {
	if !s.ended() {
		return "running"
	}
	return s.cmd.ProcessState.String()
}

// tail keeps the last part of what is written to it.
type tail struct {
	mu   sync.Mutex
	buf  []byte
	race []byte // the first report of the race detector, which must not scroll by
}

const raceMark = "WARNING: DATA RACE"

const tailKeeps = 64 << 10

func (b *tail) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := bytes.Index(p, []byte(raceMark)); i >= 0 || len(b.race) > 0 && len(b.race) < 8<<10 {
		b.race = append(b.race, p[max(i, 0):]...)
	}
	b.buf = append(b.buf, p...)
	if len(b.buf) > 2*tailKeeps {
		b.buf = append(b.buf[:0], b.buf[len(b.buf)-tailKeeps:]...)
	}
	return len(p), nil
}

// last is the end of what was written, at most n bytes.
func (b *tail) last(n int) string {
	all := b.String()
	return all[max(0, len(all)-n):]
}

// raced is what the race detector has reported.
func (b *tail) raced() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.race)
}

func (b *tail) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(bytes.TrimRight(b.buf, "\n"))
}

// eventually polls until ok, and fails with the last state at the deadline.
func eventually(t testing.TB, what string, ok func() (bool, string)) {
	t.Helper()
	deadline := time.NewTimer(soonWithin)
	defer deadline.Stop()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		good, state := ok()
		if good {
			return
		}
		select {
		case <-poll.C:
		case <-deadline.C:
			t.Fatalf("%s: not within %v; last: %s", what, soonWithin, state)
		}
	}
}

// result of a command that ran to its end.
type result struct {
	code           int
	stdout, stderr string
}

// naru runs a command of the binary to its end, with input on stdin.
func naru(t testing.TB, input string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(naruBin, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Dir = t.TempDir()
	ended := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer ended.Stop()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run naru %s: %v", strings.Join(args, " "), err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// must is naru for commands that have to end with 0; it returns stdout.
func must(t testing.TB, input string, args ...string) string {
	t.Helper()
	r := naru(t, input, args...)
	if r.code != 0 {
		t.Fatalf("naru %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// project makes a folder for a server, with a naru.yaml when one is given.
func project(t testing.TB, config string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "project")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if config != "" {
		writeConfig(t, dir, config)
	}
	return dir
}

// writeConfig gives a project another naru.yaml.
func writeConfig(t testing.TB, dir, config string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "naru.yaml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
}
