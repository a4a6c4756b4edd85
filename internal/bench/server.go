package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"naru/internal/client"
)

const (
	// stopWithin is how long a server may take to stop before it is killed:
	// nothing that it has is kept.
	stopWithin = 30 * time.Second
	// lookEvery is how often its memory is looked at.
	lookEvery = 20 * time.Millisecond
)

// server is a naru that serves a scratch folder: a process of its own, so that
// its processor time can be told from the sender's.
type server struct {
	*client.Client
	address string // HOST:PORT
	cmd     *exec.Cmd
	logs    tail
	peak    atomic.Int64 // most memory seen, in bytes
	ended   chan struct{}
	err     error // of the process; valid once ended is closed
}

// launch starts naru on the folder and waits until it is ready. The end of
// ctx kills it.
func launch(ctx context.Context, binary, dir string, args ...string) (*server, error) {
	s := &server{ended: make(chan struct{})}
	ready := &firstLine{found: make(chan string, 1)}
	s.cmd = exec.CommandContext(ctx, binary, append([]string{"serve", dir, "--listen", "127.0.0.1:0"}, args...)...)
	s.cmd.Stdout, s.cmd.Stderr = ready, &s.logs
	// A group of its own: Ctrl-C in a terminal goes to all of a group, and when
	// this server ends is for us to say. It does not outlive us either.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		// The kernel takes the end of the thread for that of the parent, so this
		// one waits as long as the child lives.
		runtime.LockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			s.err = s.cmd.Wait()
		}
		close(s.ended)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	select {
	case line := <-ready.found:
		url, ok := strings.CutPrefix(line, "ready ")
		if !ok {
			s.kill()
			return nil, fmt.Errorf("start server: it says %q", line)
		}
		var err error
		if s.Client, err = client.New(url); err != nil {
			s.kill()
			return nil, fmt.Errorf("start server: %w", err)
		}
		s.address = strings.TrimPrefix(url, "http://")
	case <-s.ended:
		return nil, s.why(ctx, "start server")
	}
	go s.watch()
	return s, nil
}

// why is the error of a server that has ended although it should not.
func (s *server) why(ctx context.Context, doing string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%s: it ended (%v): %s", doing, s.err, s.logs.last())
}

// explain adds to the error of a call that the server has ended, if that is why.
func (s *server) explain(ctx context.Context, err error) error {
	select {
	case <-s.ended:
		return s.why(ctx, "use server")
	case <-time.After(time.Second): // the connection breaks a moment before the process is seen to end
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watch keeps the most memory seen until the process has ended.
func (s *server) watch() {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		s.peak.Store(max(s.peak.Load(), anonymous(s.cmd.Process.Pid)))
		select {
		case <-s.ended:
			return
		case <-look.C:
		}
	}
}

// stop ends the server in order, and kills it when that takes too long.
func (s *server) stop(ctx context.Context) error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended; then err says how
	force := time.AfterFunc(stopWithin, s.kill)
	defer force.Stop()
	<-s.ended
	if s.err != nil {
		return s.why(ctx, "stop server")
	}
	return nil
}

// kill ends the process at once. Harmless when it has ended.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	<-s.ended
}

// counters are what the server has counted since it started.
type counters struct {
	cpu, syncs, syncSeconds, logBytes float64
}

// counters reads /metrics.
func (s *server) counters(ctx context.Context) (counters, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+"/metrics", nil)
	if err != nil {
		return counters{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return counters{}, fmt.Errorf("read metrics: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return counters{}, fmt.Errorf("read metrics: %w", err)
	}
	return parseCounters(string(text))
}

// parseCounters finds the counters in Prometheus's text form. One that is
// missing is an error: a figure of nothing would look like a good one.
func parseCounters(text string) (c counters, err error) {
	wanted := map[string]*float64{
		"process_cpu_seconds_total": &c.cpu, "naru_log_syncs_total": &c.syncs, "naru_log_sync_seconds_sum": &c.syncSeconds, "naru_log_bytes_total": &c.logBytes,
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		into := wanted[name]
		if into == nil {
			continue
		}
		if *into, err = strconv.ParseFloat(value, 64); err != nil {
			return c, fmt.Errorf("read metric %s: %w", name, err)
		}
		delete(wanted, name)
	}
	for name := range wanted {
		return c, fmt.Errorf("read metrics: there is no %s", name)
	}
	return c, nil
}

// firstLine hands on the first line that is written to it.
type firstLine struct {
	line  []byte
	found chan string
	done  bool
}

func (f *firstLine) Write(p []byte) (int, error) {
	if !f.done {
		f.line = append(f.line, p...)
		if i := bytes.IndexByte(f.line, '\n'); i >= 0 {
			f.done = true
			f.found <- string(f.line[:i])
		}
	}
	return len(p), nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// tailKeeps bounds it, in bytes.
const tailKeeps = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if len(t.text) > tailKeeps {
		t.text = append(t.text[:0], t.text[len(t.text)-tailKeeps:]...)
	}
	return len(p), nil
}

// last is the last line, or a word that there is none.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.TrimSpace(string(t.text))
	if text == "" {
		return "without a word"
	}
	return text[strings.LastIndexByte(text, '\n')+1:]
}
