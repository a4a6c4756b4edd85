package bench

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"naru/internal/config"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/vfs"
)

// small is a probe that takes no time worth mention.
func small(fsys vfs.FS) probe { return probe{fs: fsys, dir: "/d", written: 2 << 20, longest: 4 << 20} }

func disk(t *testing.T) *vfs.Memory {
	t.Helper()
	m := vfs.NewMemory()
	if err := m.MkdirAll("/d"); err != nil {
		t.Fatal(err)
	}
	return m
}

func empty(t *testing.T, fsys vfs.FS, dir string) {
	t.Helper()
	if names, err := fsys.List(dir); err != nil || len(names) != 0 {
		t.Errorf("left in %s: %v %v", dir, names, err)
	}
}

func TestProbe(t *testing.T) {
	m := disk(t)
	d, err := small(m).measure(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	want := []Sync{{Bytes: 4096}, {Bytes: 1 << 20}, {Bytes: 4096, Growing: true}, {Bytes: 1 << 20, Growing: true}}
	for i, s := range d.Syncs {
		if s.Bytes != want[i].Bytes || s.Growing != want[i].Growing || s.Count != fewestSyncs || s.P50 <= 0 || s.P99 < s.P50 {
			t.Errorf("%+v", s)
		}
		if got := d.sync(s.Bytes, s.Growing); got != s {
			t.Errorf("%+v is found as %+v", s, got)
		}
	}
	if len(d.Syncs) != len(want) || d.Sequential <= 0 {
		t.Errorf("%+v", d)
	}
	// Every write that is timed is synced: 4 kinds, the first fill, the sequential write.
	if got := m.Syncs(); got < 4*fewestSyncs+2 {
		t.Errorf("only %d syncs", got)
	}
	empty(t, m, "/d")
}

// TestProbeStaysSmall: a growing file begins anew, so that a fast disk is not filled.
func TestProbeStaysSmall(t *testing.T) {
	m := disk(t)
	m.SetCapacity(8 << 20)
	p := small(m)
	f, err := m.Create("/d/x")
	if err != nil {
		t.Fatal(err)
	}
	for range 4 { // 20 MiB in all
		if _, err := p.syncs(context.Background(), f, make([]byte, 1<<20), 0, 0); err != nil {
			t.Fatal(err)
		}
		if info, err := f.Stat(); err != nil || info.Size() > p.longest {
			t.Errorf("%v %v", info.Size(), err)
		}
	}
}

func TestProbeOnABadDisk(t *testing.T) {
	for _, op := range []vfs.Op{vfs.OpCreate, vfs.OpWrite, vfs.OpSync, vfs.OpTruncate} {
		m := disk(t)
		m.Inject(vfs.Rule{Ops: op, Err: errors.New("broken")})
		if _, err := small(m).measure(context.Background(), 0); err == nil || !strings.HasPrefix(err.Error(), "measure disk: ") || !strings.Contains(err.Error(), "broken") {
			t.Errorf("%v: %v", op, err)
		}
		empty(t, m, "/d")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	m := disk(t)
	if _, err := small(m).measure(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	empty(t, m, "/d")
}

func TestPlace(t *testing.T) {
	dir := t.TempDir()
	fsys := vfs.OS()
	if got, err := place(fsys, config.Folder(dir)); err != nil || got != dir {
		t.Errorf("a folder without data: %s %v", got, err)
	}
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := place(fsys, config.Folder(dir)); err != nil || got != filepath.Join(dir, "data") {
		t.Errorf("a folder with data: %s %v", got, err)
	}
	if _, err := place(fsys, config.Folder(filepath.Join(dir, "no"))); err == nil || fault.HintOf(err) == "" {
		t.Errorf("no folder: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := place(fsys, config.Folder(file)); err == nil {
		t.Error("a file is no folder")
	}
}

// TestScratch: a folder is held while it is used; what a killed bench has left
// goes at the next; nothing else does.
func TestScratch(t *testing.T) {
	fsys, dir := vfs.OS(), t.TempDir()
	write := func(path string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("naru-bench-0123456789abcdef/lock") // left by a kill
	write("naru-bench-0123456789abcdef/load/data/log/1.seg")
	kept := []string{"naru-bench-mine/lock", "naru-bench-0123456789abcdee/note", "naru-bench-0123456789abcdef0/lock", "log/lock"}
	for _, path := range kept {
		write(path)
	}
	first, err := newScratch(fsys, dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "naru-bench-0123456789abcdef")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was left is still there: %v", err)
	}
	second, err := newScratch(fsys, dir) // at the same time
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(first.dir); err != nil {
		t.Errorf("the second has removed the first's: %v", err)
	}
	sub, err := second.sub("load", config.Default())
	if err != nil {
		t.Fatal(err)
	}
	if c, err := config.Load(fsys, config.Folder(sub)); err != nil || c.Log.Segment != config.Default().Log.Segment {
		t.Errorf("%v", err)
	}
	for _, s := range []*scratch{first, second} {
		if err := s.remove(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(s.dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", s.dir, err)
		}
	}
	for _, path := range kept {
		if _, err := os.Stat(filepath.Join(dir, path)); err != nil {
			t.Errorf("removed: %v", err)
		}
	}
}

func TestRoom(t *testing.T) {
	c := config.Default()
	minute, short := room(c, time.Minute), room(c, time.Second)
	if minute < 4*quantity.GiB || minute > 6*quantity.GiB || short < c.Log.Reserve+3*c.Log.Segment || short > c.Log.Reserve+quantity.GiB {
		t.Errorf("%s for a minute, %s for a second", minute, short)
	}
	if err := checkRoom(int64(minute), c, "/d", time.Minute); err != nil {
		t.Error(err)
	}
	err := checkRoom(int64(minute)-1, c, "/d", time.Minute)
	if err == nil || !strings.Contains(err.Error(), "/d has ") || !strings.Contains(fault.HintOf(err), "--duration") {
		t.Errorf("%v", err)
	}
}

func TestSizeOf(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int{"a": 10, "b": 5} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := sizeOf(vfs.OS(), dir); got != 15 {
		t.Errorf("%d", got)
	}
	if got := sizeOf(vfs.OS(), filepath.Join(dir, "no")); got != 0 {
		t.Errorf("%d", got)
	}
}

func TestParseCounters(t *testing.T) {
	text := "# HELP x y\nprocess_cpu_seconds_total 1.5\nnaru_log_syncs_total 12\nnaru_log_sync_seconds_bucket{le=\"1\"} 12\nnaru_log_sync_seconds_sum 0.25\nnaru_log_bytes_total 1e+06\n"
	c, err := parseCounters(text)
	if want := (counters{cpu: 1.5, syncs: 12, syncSeconds: .25, logBytes: 1e6}); err != nil || c != want {
		t.Errorf("%+v %v", c, err)
	}
	if _, err := parseCounters(strings.Replace(text, "naru_log_syncs_total 12\n", "", 1)); err == nil || !strings.Contains(err.Error(), "naru_log_syncs_total") {
		t.Errorf("%v", err)
	}
	if _, err := parseCounters(strings.Replace(text, "1.5", "much", 1)); err == nil {
		t.Error("no number")
	}
}

func TestTicks(t *testing.T) {
	before := parseTicks("cpu  100 10 50 1000 40 5 5 20 7 0\ncpu0 1 2 3\n")
	if want := (ticks{busy: 190, all: 1230}); before != want {
		t.Errorf("%+v, want %+v", before, want)
	}
	// 2 cores, 10 s: 2,000 ticks; 1,000 of them busy, 6 s (600) by us.
	now := ticks{busy: before.busy + 1000, all: before.all + 2000}
	if got := before.others(now, 6, 10, 2); got < .1999 || got > .2001 {
		t.Errorf("%v", got)
	}
	if got := before.others(now, 11, 10, 2); got != 0 {
		t.Errorf("less than nothing: %v", got)
	}
	if got := before.others(before, 1, 10, 2); got != 0 {
		t.Errorf("no time: %v", got)
	}
	for _, text := range []string{"", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8 9", "cpu a b c d e f g h"} {
		if got := parseTicks(text); got != (ticks{}) {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

func TestSightings(t *testing.T) {
	at := time.Unix(1000, 0)
	s := &sightings{acked: make([]time.Time, 5)}
	s.ack(0, at)
	s.ack(1, at.Add(time.Second))
	s.saw(0, at.Add(2*time.Second))
	s.saw(0, at.Add(3*time.Second)) // is no news
	s.ack(2, at.Add(4*time.Second))
	s.saw(3, at.Add(5*time.Second)) // 3 is seen before its answer
	s.ack(3, at.Add(6*time.Second))
	if want := []time.Duration{2 * time.Second, 4 * time.Second, time.Second, 0}; !slices.Equal(s.waits, want) || s.left() != 1 {
		t.Errorf("%v, %d left", s.waits, s.left())
	}
	s.saw(99, at.Add(7*time.Second))
	if s.left() != 0 || len(s.waits) != 5 {
		t.Errorf("%v, %d left", s.waits, s.left())
	}
}

func TestServerOutput(t *testing.T) {
	f := &firstLine{found: make(chan string, 1)}
	for _, part := range []string{"rea", "dy x\nmore", "\nlines\n"} {
		if _, err := io.WriteString(f, part); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-f.found; got != "ready x" || len(f.found) != 0 {
		t.Errorf("%q", got)
	}
	var l tail
	if got := l.last(); got != "without a word" {
		t.Errorf("%q", got)
	}
	for range 2000 {
		_, _ = io.WriteString(&l, "a line\n")
	}
	_, _ = io.WriteString(&l, "the last\n")
	if got := l.last(); got != "the last" || len(l.text) > tailKeeps {
		t.Errorf("%q of %d bytes", got, len(l.text))
	}
}

// TestLaunch: a server that does not start says why; the end of the context
// ends one that never gets ready.
func TestLaunch(t *testing.T) {
	script := func(text string) string {
		path := filepath.Join(t.TempDir(), "naru")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if _, err := launch(context.Background(), script("echo starting >&2; echo the reason >&2; exit 1\n"), "/d"); err == nil || !strings.Contains(err.Error(), "exit status 1") || !strings.HasSuffix(err.Error(), "the reason") {
		t.Errorf("%v", err)
	}
	if _, err := launch(context.Background(), script("echo hello\nexec sleep 60\n"), "/d"); err == nil || !strings.Contains(err.Error(), `"hello"`) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := launch(ctx, script("exec sleep 60\n"), "/d"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if _, err := launch(context.Background(), "/nowhere/naru", "/d"); err == nil {
		t.Error("no such program")
	}
}

func TestDurations(t *testing.T) {
	for _, d := range []time.Duration{0, Shortest - 1, Longest + 1} {
		if _, err := Run(context.Background(), Options{Duration: d}); err == nil {
			t.Errorf("%s", d)
		}
	}
}
