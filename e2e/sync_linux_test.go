package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// syscallLine is a line of strace -f -ttt: thread, time, call. A call that is
// interrupted by another thread's ends on a line "<... NAME resumed>".
var syscallLine = regexp.MustCompile(`^\d+ +(\d+\.\d+) (?:<\.\.\. )?(\w+)(?:\(| resumed>).*= (-?\d+)`)

// TestSyncBeforeAnswer watches the server's system calls: each of a row of
// single events, sent one after the other, has an fdatasync (or fsync) of its
// own that returns between the request and the answer.
func TestSyncBeforeAnswer(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("strace"); err != nil {
		needs(t, "strace, which shows the system calls, is not installed")
	}
	s := serve(t, project(t, ""), "--no-pipelines")
	s.post("", "application/json", `{"warm": "up"}`)

	traced := filepath.Join(t.TempDir(), "trace")
	tracer := exec.Command("strace", "-f", "-ttt", "-e", "trace=fdatasync,fsync,sync_file_range", "-o", traced, "-p", strconv.Itoa(s.pid()))
	var says tail
	tracer.Stderr = &says
	if err := tracer.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = tracer.Process.Signal(os.Interrupt)
		_ = tracer.Wait()
	}()
	// Attached to all threads once a sync shows up in the trace.
	eventually(t, "strace attached", func() (bool, string) {
		if strings.Contains(says.String(), "not permitted") {
			needs(t, "strace may not attach here: %s", says.String())
		}
		s.post("", "application/json", `{"warm": "up"}`)
		return len(syncs(t, traced)) > 0, says.String()
	})

	type span struct{ asked, answered float64 }
	const events = 100
	spans := make([]span, events)
	for i := range spans {
		spans[i].asked = now()
		s.post("?type=single", "application/json", fmt.Sprintf(`{"n": %d}`, i))
		spans[i].answered = now()
	}
	var found []float64
	eventually(t, "the trace is written", func() (bool, string) {
		found = syncs(t, traced)
		return len(found) > 0 && found[len(found)-1] >= spans[events-1].asked, fmt.Sprint(len(found), " syncs")
	})
	within := 0
	for i, sp := range spans {
		n := 0
		for _, at := range found {
			if at >= sp.asked && at <= sp.answered {
				n++
			}
		}
		if n == 0 {
			t.Errorf("event %d was acknowledged without an fdatasync since its request", i)
		}
		within += n
	}
	t.Logf("%d syncs within %d sequential acknowledgements", within, events)
	if within < events {
		t.Errorf("%d syncs for %d sequential acknowledgements", within, events)
	}
}

func now() float64 { return float64(time.Now().UnixMicro()) / 1e6 }

// syncs are the times of the syncs in a trace, each by its line's time stamp:
// that of the call's begin, or of its end when another thread came between.
func syncs(t *testing.T, path string) []float64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var out []float64
	for line := range strings.Lines(string(b)) {
		m := syscallLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if m[3] != "0" {
			t.Fatalf("a sync failed: %s", line)
		}
		at, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, at)
	}
	return out
}
