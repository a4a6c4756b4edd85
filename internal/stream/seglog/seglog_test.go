package seglog

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"naru/internal/quantity"
	"naru/internal/stream"
	"naru/internal/stream/streamtest"
	"naru/internal/vfs"
)

const testDir = "/log"

func testConfig() Config {
	c := DefaultConfig()
	c.Segment = 32 * quantity.KiB
	c.Recycle = 64 * quantity.KiB
	c.Reserve = 0
	return c
}

func newDisk(t testing.TB) *vfs.Memory {
	t.Helper()
	m := vfs.NewMemory()
	if err := m.MkdirAll(testDir); err != nil {
		t.Fatal(err)
	}
	return m
}

func openLog(t testing.TB, fs vfs.FS, dir string, cfg Config) *Log {
	t.Helper()
	l, err := Open(fs, dir, cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func closeLog(t testing.TB, l stream.Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func driver(fs func(t *testing.T) (vfs.FS, string), cfg Config) streamtest.Driver {
	type disk struct {
		fs  vfs.FS
		dir string
	}
	disks := map[stream.Log]disk{}
	remember := func(l *Log) stream.Log {
		disks[l] = disk{l.fs, l.dir}
		return l
	}
	return streamtest.Driver{
		Open: func(t *testing.T) stream.Log {
			f, dir := fs(t)
			return remember(openLog(t, f, dir, cfg))
		},
		Reopen: func(t *testing.T, l stream.Log) stream.Log {
			closeLog(t, l)
			return remember(openLog(t, disks[l].fs, disks[l].dir, cfg))
		},
		Trim: func(t *testing.T, l stream.Log, _ string) {
			s := l.(*Log)
			s.retention.Lock()
			s.cfg.RetainBytes = 128 * quantity.KiB // read under this lock only
			s.retention.Unlock()
			s.retain()
		},
		Cut: func(t *testing.T, l stream.Log) stream.Log {
			closeLog(t, l)
			d := disks[l]
			if r, err := repair(d.fs, d.dir, cfg, nil, true); err != nil || !r.Cut {
				t.Fatalf("cut: %+v, %v", r, err)
			}
			return remember(openLog(t, d.fs, d.dir, cfg))
		},
	}
}

func TestConformance(t *testing.T) {
	cfg := testConfig()
	for name, fs := range map[string]func(t *testing.T) (vfs.FS, string){
		"memory": func(t *testing.T) (vfs.FS, string) { return newDisk(t), testDir },
		"os":     func(t *testing.T) (vfs.FS, string) { return vfs.OS(), t.TempDir() },
	} {
		t.Run(name, func(t *testing.T) { streamtest.Run(t, driver(fs, cfg)) })
	}
}

func testCtx(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}
