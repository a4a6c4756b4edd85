package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tick is a unit of CPU time in /proc: USER_HZ is 100 on every Linux.
const tick = 10 * time.Millisecond

// process is a server under load: its CPU time and its memory are watched.
type process struct {
	cmd   *exec.Cmd
	errs  bytes.Buffer
	ended chan struct{}
	most  atomic.Int64 // bytes of RssAnon + RssShmem
}

// start runs a server. ready gets the first line of stdout, when it is wanted.
func start(env []string, ready chan<- string, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = &p.errs
	if ready != nil {
		out, err := p.cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		go func() {
			in := bufio.NewScanner(out)
			for in.Scan() {
				select {
				case ready <- in.Text():
				default: // only the first line is wanted
				}
			}
			close(ready)
		}()
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go p.watch()
	return p, nil
}

// watch keeps the most memory seen until the process has ended.
func (p *process) watch() {
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case <-p.ended:
			return
		case <-poll.C:
			p.most.Store(max(p.most.Load(), p.memory()))
		}
	}
}

// memory is RssAnon + RssShmem in bytes; mapped files belong to the page cache.
func (p *process) memory() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	var sum int64
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) == 3 && (fields[0] == "RssAnon:" || fields[0] == "RssShmem:") {
			kb, _ := strconv.ParseInt(fields[1], 10, 64)
			sum += kb << 10
		}
	}
	return sum
}

// cpu is the time that all threads have spent so far.
func (p *process) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick
}

// busy is the time that all cores have not been idle, stolen time included.
func busy() time.Duration {
	fields := strings.Fields(field("/proc/stat", "cpu"))
	var sum int64
	for i, f := range fields {
		if i == 3 || i == 4 || i > 7 { // idle, waiting for the disk; guests are in the first two
			continue
		}
		n, _ := strconv.ParseInt(f, 10, 64)
		sum += n
	}
	return time.Duration(sum) * tick
}

// own is the time that the load generator itself has spent.
func own() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// stop ends the process: politely, and after a while by force.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	force := time.AfterFunc(60*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer force.Stop()
	err := p.cmd.Wait()
	close(p.ended)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("server ended with %v: %s", exit, lastLines(p.errs.String()))
	}
	return err
}

// kill ends the process at once.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	close(p.ended)
}

func lastLines(s string) string { return s[max(0, len(s)-2000):] }

// waitPort waits until somebody listens.
func waitPort(address string) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		c, err := net.Dial("tcp", address)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// freePort is an address that nobody listens on.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
