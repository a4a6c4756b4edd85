package app

import (
	"runtime"
	"runtime/debug"
	"testing"

	"naru/internal/config"
)

// One thread more than cores unless a number is set; what the environment says goes
// first.
func TestTune(t *testing.T) {
	cores, percent, limit := runtime.GOMAXPROCS(0), debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
	t.Cleanup(func() {
		runtime.GOMAXPROCS(cores)
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	})
	for _, c := range []struct {
		process config.Process
		env     map[string]string
		threads int
		percent int
		limit   int64
	}{
		{config.Process{GCPercent: 50}, nil, cores + 1, 50, limit},
		{config.Process{GCPercent: 50, Threads: 7, MemoryLimit: 1 << 30}, nil, 7, 50, 1 << 30},
		{config.Process{GCPercent: 50, Threads: 7, MemoryLimit: 1 << 30}, map[string]string{"GOMAXPROCS": "1", "GOGC": "100", "GOMEMLIMIT": "off"}, cores, 100, limit},
	} {
		runtime.GOMAXPROCS(cores)
		debug.SetGCPercent(100)
		debug.SetMemoryLimit(limit)
		Tune(c.process, func(name string) string { return c.env[name] })
		if threads, percent, limit := runtime.GOMAXPROCS(0), debug.SetGCPercent(100), debug.SetMemoryLimit(-1); threads != c.threads || percent != c.percent || limit != c.limit {
			t.Errorf("%+v, %v: %d threads, %d %%, limit %d", c.process, c.env, threads, percent, limit)
		}
	}
}
