package bench

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// machine looks at where this runs. What the system does not tell stays empty.
func machine() Machine {
	m := Machine{CPU: field("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(), GoProcs: runtime.GOMAXPROCS(0)}
	if os.Getenv("GOMAXPROCS") == "" {
		m.Cores = m.GoProcs // Go heeds the limit of a container, which NumCPU does not
	}
	var kb int64
	if _, err := fmt.Sscan(field("/proc/meminfo", "MemTotal"), &kb); err == nil {
		m.Memory = kb << 10
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = "Linux " + strings.TrimSpace(string(text))
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(text), &m.LoadOnce) // 0 when it cannot be read
	}
	return m
}

// field is the value of the first line "name: value" of a file of /proc.
func field(path, name string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// ticks are what the machine's processors have done so far, in ticks of a core.
type ticks struct{ busy, all float64 }

// allCPU reads /proc/stat; nothing when it cannot be read.
func allCPU() ticks {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return ticks{}
	}
	return parseTicks(string(text))
}

// parseTicks reads the line cpu: user, nice, system, idle, iowait, irq, softirq
// and steal (what the host gave to others); guests are part of user.
func parseTicks(text string) (t ticks) {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return ticks{}
	}
	for i, f := range fields[1:9] {
		n, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return ticks{}
		}
		t.all += n
		if i != 3 && i != 4 {
			t.busy += n
		}
	}
	return t
}

// others is the share of the machine that other programs have used since then,
// when ours used so many seconds of so long on so many cores.
func (t ticks) others(now ticks, ours, wall float64, cores int) float64 {
	if now.all <= t.all || wall <= 0 || cores < 1 {
		return 0
	}
	return max((now.busy-t.busy)/(now.all-t.all)-ours/(wall*float64(cores)), 0)
}

// ownCPU is the processor time that this process has spent.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// anonymous is the memory of a process that is its own: RssAnon + RssShmem, in bytes.
func anonymous(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0 // it has ended
	}
	var sum int64
	for line := range strings.Lines(string(text)) {
		var name string
		var kb int64
		if n, _ := fmt.Sscan(line, &name, &kb); n == 2 && (name == "RssAnon:" || name == "RssShmem:") {
			sum += kb << 10
		}
	}
	return sum
}
