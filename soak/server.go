package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Deadlines. They end a hang; no run fails by being a bit slower.
const (
	readyWithin = 5 * time.Minute
	stopWithin  = 2 * time.Minute
	drainWithin = 15 * time.Minute
)

// server is one life of `naru serve`.
type server struct {
	life    int
	asked   bool // this life is asked questions
	address string
	cmd     *exec.Cmd
	began   time.Time
	ready   time.Time
	dying   atomic.Bool // it has been told to end
	done    chan struct{}
	log     string // file of its stderr
	http    *http.Client
}

// start runs the server and waits until it is ready.
func start(naru, dir string, life int) (*server, error) {
	s := &server{life: life, done: make(chan struct{}), http: &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{}}}
	s.log = filepath.Join(filepath.Dir(dir), fmt.Sprintf("serve-%03d.log", life))
	errs, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	defer errs.Close()
	s.cmd = exec.Command(naru, "serve", dir, "--listen", "127.0.0.1:0")
	s.cmd.Stderr = errs
	out, stdout, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.cmd.Stdout = stdout
	s.began = time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(err, out.Close(), stdout.Close())
	}
	stdout.Close()
	lines := make(chan string, 1)
	go func() {
		defer out.Close()
		in := bufio.NewScanner(out)
		for in.Scan() {
			if url, ok := strings.CutPrefix(in.Text(), "ready http://"); ok {
				lines <- strings.TrimSpace(url)
				break
			}
		}
		close(lines)
		_, _ = io.Copy(io.Discard, out)
	}()
	go func() {
		_ = s.cmd.Wait()
		close(s.done)
	}()
	select {
	case address, ok := <-lines:
		if !ok {
			<-s.done
			return nil, fmt.Errorf("start %d ended before it was ready: %v\n%s", life, s.cmd.ProcessState, s.lastLines())
		}
		s.address, s.ready = address, time.Now()
		return s, nil
	case <-time.After(readyWithin):
		s.kill()
		return nil, fmt.Errorf("start %d was not ready within %v\n%s", life, readyWithin, s.lastLines())
	}
}

// proc is a file that Linux keeps of the process.
func (s *server) proc(name string) string { return fmt.Sprintf("/proc/%d/%s", s.cmd.Process.Pid, name) }

func (s *server) lastLines() string {
	b, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4<<10):])
}

// kill sends SIGKILL and waits for the end.
func (s *server) kill() {
	s.dying.Store(true)
	_ = s.cmd.Process.Kill()
	<-s.done
	s.http.CloseIdleConnections()
}

// stop sends SIGTERM; the exit code must be 0.
func (s *server) stop() error {
	s.dying.Store(true)
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	defer s.http.CloseIdleConnections()
	select {
	case <-s.done:
	case <-time.After(stopWithin):
		s.kill()
		return fmt.Errorf("SIGTERM: not ended within %v\n%s", stopWithin, s.lastLines())
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("SIGTERM: exit %d\n%s", code, s.lastLines())
	}
	return nil
}

// errBusy: the server asks to come back later.
var errBusy = errors.New("busy")

func (s *server) call(ctx context.Context, method, path, body, accept string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.address+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "text/plain")
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return all, nil
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		return nil, fmt.Errorf("%w: %.300s", errBusy, all)
	}
	return nil, fmt.Errorf("%s %s: %d %.500s", method, path, resp.StatusCode, bytes.TrimSpace(all))
}

// rows asks SQL for whole numbers.
func (s *server) rows(ctx context.Context, query string) ([][]int64, error) {
	all, err := s.call(ctx, "POST", "/v1/sql", query, "text/csv")
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimRight(string(all), "\r\n"), "\n")
	out := make([][]int64, 0, len(lines))
	for _, line := range lines[1:] {
		var row []int64
		for _, cell := range strings.Split(strings.TrimRight(line, "\r"), ",") {
			n, err := strconv.ParseInt(strings.Trim(cell, `"`), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("answer %.200q is no table of whole numbers", line)
			}
			row = append(row, n)
		}
		out = append(out, row)
	}
	return out, nil
}

// report is what the harness reads of /v1/status.
type report struct {
	Balanced bool
	Streams  []streamReport
	Tables   []struct {
		Table   string
		Rows    int64
		Pending int64 `json:"pending_rows"`
		Error   string
	}
	Problems []string
}

type streamReport struct {
	Stream, Pipeline                                        string
	Acknowledged, Written, Rejections, Duplicates, Filtered int64
	NotYetWritten                                           int64 `json:"not_yet_written"`
	Kept                                                    int64
	KeptInTable                                             int64 `json:"kept_in_table"`
	Balanced                                                bool
}

func parseReport(text []byte) (*report, error) {
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("read status: %w", err)
	}
	return &r, nil
}

// drained tells whether nothing is left to be written, and else what is.
func (r *report) drained() (bool, string) {
	for _, s := range r.Streams {
		if s.NotYetWritten != 0 || s.Kept != s.KeptInTable {
			return false, fmt.Sprintf("stream %s: %d not yet written, %d of %d rejections in the table", s.Stream, s.NotYetWritten, s.KeptInTable, s.Kept)
		}
	}
	for _, t := range r.Tables {
		if t.Pending != 0 || t.Error != "" {
			return false, fmt.Sprintf("table %s: %d rows pending %s", t.Table, t.Pending, t.Error)
		}
	}
	return true, ""
}

// drain waits until everything is written.
func (s *server) drain(ctx context.Context) error {
	deadline := time.After(drainWithin)
	poll := time.NewTicker(500 * time.Millisecond)
	defer poll.Stop()
	state := "nothing known"
	for {
		text, err := s.call(ctx, "GET", "/v1/status", "", "")
		if err == nil {
			var r *report
			if r, err = parseReport(text); err == nil {
				var done bool
				if done, state = r.drained(); done {
					return nil
				}
			}
		}
		if err != nil {
			state = err.Error()
		}
		select {
		case <-poll.C:
		case <-s.done:
			return fmt.Errorf("the server ended while it had something to write: %v\n%s", s.cmd.ProcessState, s.lastLines())
		case <-deadline:
			return fmt.Errorf("not written within %v: %s", drainWithin, state)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// command runs the binary to its end.
func command(naru string, args ...string) (stdout, stderr string, code int, err error) {
	var out, errs bytes.Buffer
	cmd := exec.Command(naru, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	if cmd.ProcessState != nil {
		code = cmd.ProcessState.ExitCode()
	}
	return out.String(), errs.String(), code, err
}
