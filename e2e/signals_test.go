package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSignals: SIGTERM, SIGINT and a hang-up under load end with 0, and
// everything acknowledged is there.
func TestSignals(t *testing.T) {
	t.Parallel()
	if signal.Ignored(syscall.SIGHUP) {
		// These tests run under nohup. What is caught here is not ignored by the
		// processes that are started from here.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	dir := project(t, "log:\n  segment: 1MiB\npipelines:\n  commit_interval: 300ms\n")
	l := newLedger(31)
	for i, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		s := serve(t, dir)
		ld := l.start(s.url, 4, small(wikipedia(t)))
		wanted := l.acked() + 1000
		eventually(t, "some load", func() (bool, string) {
			return l.acked() >= wanted && l.inFlight() > 0, fmt.Sprint(l.acked(), " acknowledged")
		})
		s.signal(sig)
		if code := s.wait(); code != 0 {
			t.Errorf("%v under load: exit %d\n%s", sig, code, s.logs.last(2<<10))
		}
		for _, err := range ld.finish() {
			t.Error(err)
		}
		l.cut(i + 1)
	}
	s := serve(t, dir)
	prove(t, s, l)
	s.stop()
	deep(t, dir)
}

// TestSecondSignalCuts: the first signal waits for a request that does not end;
// the second does not.
func TestSecondSignalCuts(t *testing.T) {
	t.Parallel()
	dir := project(t, "pipelines:\n  commit_interval: 1h\n")
	l := newLedger(32)
	l.add(&dataset{typ: "wiki_edit", check: "delta", items: wikipedia(t).items[:2000]})
	s := serve(t, dir)
	for _, err := range l.start(s.url, 4).drain() {
		t.Error(err)
	}
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "POST /v1/events?type=wiki_edit HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("%q %v", line, err)
	}
	s.signal(syscall.SIGTERM)
	eventually(t, "stopping", func() (bool, string) { return strings.Contains(s.logs.String(), "msg=stopping"), "" })
	if s.ended() {
		t.Fatalf("the first signal did not wait for the request: %s", s.state())
	}
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 4 {
		t.Errorf("second signal: exit %d, want 4", code)
	}
	s = serve(t, dir, "--no-pipelines") // what was not committed is in the log
	if code := s.stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d", code)
	}
	config := strings.Replace("pipelines:\n  commit_interval: 1h\n", "1h", "100ms", 1)
	writeConfig(t, dir, config)
	s = serve(t, dir)
	prove(t, s, l)
}

// TestSignalDuringStart: a signal at any moment of a start, recovery among it,
// ends it; the next start has everything.
func TestSignalDuringStart(t *testing.T) {
	t.Parallel()
	dir := project(t, "log:\n  segment: 1MiB\npipelines:\n  commit_interval: 100ms\n")
	l := newLedger(33)
	s := serve(t, dir)
	ld := l.start(s.url, 4, small(wikipedia(t)))
	for i := range 12 {
		wanted := l.acked() + 50
		eventually(t, "some load", func() (bool, string) { return l.acked() >= wanted, fmt.Sprint(l.acked()) })
		s.kill() // so that there is something to recover
		for _, err := range ld.finish() {
			t.Error(err)
		}
		l.cut(i + 1)
		starting := launch(t, dir, naruBin, []string{"serve", dir, "--listen", "127.0.0.1:0"})
		time.Sleep(time.Duration(i) * 7 * time.Millisecond) // not to wait for a state: any will do
		starting.signal([]os.Signal{syscall.SIGTERM, syscall.SIGINT}[i%2])
		starting.wait()
		// Before the server listens for signals they end the process as always.
		if code, state := starting.cmd.ProcessState.ExitCode(), starting.state(); code != 0 && !strings.HasPrefix(state, "signal:") {
			t.Errorf("a signal %d ms after the start: %s\n%s", i*7, state, starting.logs.last(2<<10))
		}
		s = serve(t, dir)
		ld = l.start(s.url, 4, small(wikipedia(t)))
	}
	for _, err := range ld.finish() {
		t.Error(err)
	}
	l.cut(99)
	prove(t, s, l)
	s.stop()
	deep(t, dir)
}

// TestClosedOutput: who started the server has gone, and nobody reads what it
// writes. It goes on, and stops as always.
func TestClosedOutput(t *testing.T) {
	t.Parallel()
	dir := project(t, "pipelines:\n  commit_interval: 100ms\n")
	stdout, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, errIn, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(naruBin, "serve", dir, "--listen", "127.0.0.1:0")
	cmd.Stdout, cmd.Stderr = in, errIn
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	errIn.Close()
	s := &server{t: t, dir: dir, cmd: cmd, logs: &tail{}, done: make(chan struct{})}
	go func() { s.exit = cmd.Wait(); close(s.done) }()
	t.Cleanup(s.kill)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	s.url = strings.TrimSpace(strings.TrimPrefix(line, "ready "))
	stdout.Close()
	stderr.Close()
	for i := range 20 {
		s.post("?type=page", "application/json", fmt.Sprintf(`{"n":%d}`, i))
		s.call("POST", "/v1/sql", []byte("select nonsense"), plainType) // logged, to nobody
	}
	s.waitCell("select count(_offset) from page", "20")
	if code := s.stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d", code)
	}
	s = serve(t, dir)
	s.waitCell("select count(_offset) from page", "20")
}
