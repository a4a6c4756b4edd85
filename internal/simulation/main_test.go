package simulation

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

// TestMain fails when a test has left a goroutine of naru behind: what Open, Run
// or a session starts must have ended with its Close.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	code := m.Run()
	if left := leftovers(); code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "goroutines left behind:\n%s\n", left)
		code = 1
	}
	os.Exit(code)
}

// leftovers lists goroutines that run code of naru, beside the caller. Those that
// are about to end get some time for it.
func leftovers() string {
	var left []string
	for wait := time.Millisecond; wait < 30*time.Second; wait *= 2 {
		left = left[:0]
		buf := make([]byte, 1<<20)
		for i, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if i > 0 && strings.Contains(stack, "naru/internal/") && !strings.Contains(stack, "testing.tRunner") && !strings.Contains(stack, "testing.(*T).Run") {
				left = append(left, stack)
			}
		}
		if len(left) == 0 {
			return ""
		}
		time.Sleep(wait)
	}
	return strings.Join(left, "\n\n")
}
