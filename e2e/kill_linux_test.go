package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Small segments and short intervals, so that every moment that a kill can hit
// comes often; files that no snapshot needs are removed at once, so that a file
// taken for garbage would be missed.
const killConfig = `
log:
  segment: 1MiB
lake:
  expire_every: 10
  keep_snapshots: 3
  gc_delay: 0s
pipelines:
  commit_interval: 100ms
`

const killConnections = 6

// aim is the moment that a kill waits for, by what happens on the disk or by
// what the client has under way.
type aim struct {
	name string
	// commits that the server makes in this life before it may be hit.
	commits int64
	// hit is asked for every change below data/; path is relative to it.
	hit func(data, path string, mask uint32) bool
	// idle, when set, replaces the disk: polled until true.
	idle func(l *ledger) bool
	// early: the start itself is hit, before there is any load.
	early bool
}

// inTable tells whether a change is in a folder of a table whose path begins so.
func inTable(table, folder, path string) bool {
	return strings.HasPrefix(path, "lake/"+table) && strings.Contains(path, "/"+folder+"/")
}

func isManifest(path string) bool { return strings.Contains(filepath.Base(path), ".avro") }
func isMetadata(path string) bool { return strings.Contains(filepath.Base(path), ".metadata.json") }

const (
	begun   = unix.IN_CREATE | unix.IN_MODIFY
	inPlace = unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE
)

// metadata aims at a file of a commit.
func metadata(table string, is func(string) bool, when uint32) func(data, path string, mask uint32) bool {
	return func(_, path string, mask uint32) bool {
		return inTable(table, "metadata", path) && is(path) && mask&when != 0
	}
}

func isSegment(path string) bool {
	return strings.HasPrefix(path, "log/") && strings.HasSuffix(path, ".seg")
}

// aims in their order; each comes several times.
var aims = []aim{
	{name: "requests", idle: func(l *ledger) bool { return l.inFlight() >= 3 }},
	{name: "a random moment", idle: func(l *ledger) bool { // asked every 20 ms: after a second on average
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.rng.IntN(50) == 0
	}},
	{name: "segment roll, new one begun", commits: 2, hit: func(data, path string, mask uint32) bool {
		if !strings.HasPrefix(path, "log/free-") || mask&unix.IN_MODIFY == 0 {
			return false
		}
		// Prepared ahead it holds zeros; a frame in it means that its turn has come.
		f, err := os.Open(filepath.Join(data, path))
		if err != nil {
			return false
		}
		defer f.Close()
		first := make([]byte, len(frameMagic))
		_, err = f.ReadAt(first, 0)
		return err == nil && string(first) == frameMagic
	}},
	{name: "commit, manifest begun", commits: 3, hit: metadata("events/", isManifest, begun)},
	{name: "start", early: true, hit: func(_, path string, mask uint32) bool {
		return strings.HasPrefix(path, "log/") && mask&(unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO) != 0
	}},
	{name: "commit, manifest in place", commits: 3, hit: metadata("events/", isManifest, inPlace)},
	{name: "commit, metadata begun", commits: 3, hit: metadata("events/", isMetadata, begun)},
	{name: "commit of rejected, metadata in place", commits: 3, hit: metadata("rejected/", isMetadata, inPlace)},
	{name: "segment roll, new one in place", commits: 2, hit: func(_, path string, mask uint32) bool {
		return isSegment(path) && mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0
	}},
	{name: "commit, metadata in place", commits: 3, hit: metadata("events/", isMetadata, inPlace)},
	{name: "commit, catalog", commits: 3, hit: func(_, path string, mask uint32) bool {
		return strings.HasPrefix(path, "catalog.db") && mask&unix.IN_MODIFY != 0
	}},
	{name: "start, new segment in place", early: true, hit: func(_, path string, mask uint32) bool {
		return isSegment(path) && mask&unix.IN_MOVED_TO != 0
	}},
	{name: "data file", commits: 3, hit: func(_, path string, mask uint32) bool {
		return inTable("events/", "data", path) && mask&unix.IN_MODIFY != 0
	}},
}

// struck is what a kill hit.
type struck struct {
	aim      string
	requests int    // sent whole, without an answer
	rows     int64  // acknowledged, not in any snapshot on disk
	commit   string // file of a commit that the catalog does not know
	roll     string // what shows that a segment was being begun
}

func (s struck) String() string {
	parts := []string{fmt.Sprintf("%d requests without an answer", s.requests)}
	if s.rows > 0 {
		parts = append(parts, fmt.Sprintf("%d acknowledged rows not committed", s.rows))
	}
	if s.commit != "" {
		parts = append(parts, "a commit (left "+s.commit+")")
	}
	if s.roll != "" {
		parts = append(parts, "a segment roll ("+s.roll+")")
	}
	return fmt.Sprintf("aimed at %s; in flight: %s", s.aim, strings.Join(parts, ", "))
}

// TestKill sends all three real data sets and kills the server again and again
// while it works. At the end every acknowledged event is in its table or in
// `rejected` exactly once for each acknowledgement; a request without an answer
// is there whole, once, or not at all. NARU_KILLS says how often (default: twice
// at every aim), NARU_SEED chooses the data's order.
func TestKill(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("NARU_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("NARU_SEED=%d", seed)
	sets := []*dataset{wikipedia(t), openBandit(t), apache(t)}
	l := newLedger(seed)
	dir := project(t, killConfig)

	kills := 2 * len(aims)
	if given := os.Getenv("NARU_KILLS"); given != "" {
		var err error
		if kills, err = strconv.Atoi(given); err != nil || kills < len(aims) {
			t.Fatalf("NARU_KILLS=%s: want a number from %d on", given, len(aims))
		}
	}
	var seen struct{ requests, rows, commit, roll int }
	for kill := 1; kill <= kills || (kill <= 3*kills && (seen.commit == 0 || seen.roll == 0)); kill++ {
		hit := strike(t, l, sets, dir, kill, aims[(kill-1)%len(aims)])
		t.Logf("kill %2d %v", kill, hit)
		if hit.requests > 0 {
			seen.requests++
		}
		if hit.rows > 0 {
			seen.rows++
		}
		if hit.commit != "" {
			seen.commit++
		}
		if hit.roll != "" {
			seen.roll++
		}
	}
	t.Logf("kills with requests in flight: %d, uncommitted rows: %d, a commit: %d, a segment roll: %d",
		seen.requests, seen.rows, seen.commit, seen.roll)
	if seen.requests < 10 {
		t.Errorf("only %d kills hit requests in flight, want at least 10", seen.requests)
	}
	if seen.rows == 0 || seen.commit == 0 || seen.roll == 0 {
		t.Errorf("a kind of kill never occurred: %+v", seen)
	}

	s := serve(t, dir)
	for _, err := range l.start(s.url, killConnections).drain() {
		t.Error(err)
	}
	if n := l.left() + len(l.pending); n > 0 {
		t.Fatalf("%d requests could not be sent in the end", n)
	}
	prove(t, s, l)

	// Nothing may change when all of it is read once more.
	s.kill()
	s = serve(t, dir)
	prove(t, s, l)
	if code := s.stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d", code)
	}
	s = serve(t, dir)
	prove(t, s, l)
	deep(t, dir) // beside the server
	s.kill()
	deep(t, dir)
}

// strike runs the server under load until the aim comes into sight, kills it,
// and looks at what the kill hit.
func strike(t *testing.T, l *ledger, sets []*dataset, dir string, kill int, a aim) struck {
	t.Helper()
	began := time.Now()
	if a.early {
		strikeStart(t, dir, a)
	} else {
		strikeLoad(t, l, sets, dir, a)
	}
	hit := struck{aim: a.name}
	for _, r := range l.cut(kill) {
		if r.written.Load() {
			hit.requests++
		}
	}
	tables := readCatalog(t, dir)
	for table, acked := range l.tables() {
		hit.rows += max(0, int64(acked)-tables["events."+table].rows)
	}
	hit.commit = commitLeft(t, dir, tables, began)
	if !a.early {
		hit.roll = rollLeft(t, dir)
	}
	return hit
}

// gun kills a process once, as soon as it is told to.
type gun struct {
	pid   atomic.Int64
	fired atomic.Bool
}

func (g *gun) shoot() {
	if pid := g.pid.Load(); pid != 0 && g.fired.CompareAndSwap(false, true) {
		_ = syscall.Kill(int(pid), syscall.SIGKILL)
	}
}

// strikeLoad kills a server that has worked for a while.
func strikeLoad(t *testing.T, l *ledger, sets []*dataset, dir string, a aim) {
	t.Helper()
	s := serve(t, dir)
	data := filepath.Join(dir, "data")
	wanted := l.acked() + 600 // some work first, in every life
	var g gun
	var loaded atomic.Bool
	var commits atomic.Int64
	w := watch(t, data, func(path string, mask uint32) {
		rel, err := filepath.Rel(data, path)
		if err != nil || g.fired.Load() {
			return
		}
		if strings.HasSuffix(rel, ".metadata.json") && mask&unix.IN_MOVED_TO != 0 {
			commits.Add(1)
		}
		if a.hit != nil && loaded.Load() && a.hit(data, rel, mask) {
			g.shoot()
		}
	})
	defer w.close()
	g.pid.Store(int64(s.pid()))
	ld := l.start(s.url, killConnections, sets...)
	eventually(t, "kill at "+a.name, func() (bool, string) {
		if l.acked() >= wanted && commits.Load() >= a.commits && l.inFlight() > 0 {
			loaded.Store(true)
			if a.idle != nil && a.idle(l) {
				g.shoot()
			}
		}
		return s.ended(), fmt.Sprintf("%d acknowledged, want %d; %d commits, want %d; %d in flight",
			l.acked(), wanted, commits.Load(), a.commits, l.inFlight())
	})
	if !g.fired.Load() {
		t.Fatalf("server ended by itself: %s\n%s", s.state(), s.logs.String())
	}
	for _, err := range ld.finish() {
		t.Error(err)
	}
}

// strikeStart kills a server while it recovers, or at the latest when it is ready.
func strikeStart(t *testing.T, dir string, a aim) {
	t.Helper()
	data := filepath.Join(dir, "data")
	var g gun
	w := watch(t, data, func(path string, mask uint32) {
		if rel, err := filepath.Rel(data, path); err == nil && a.hit(data, rel, mask) {
			g.shoot()
		}
	})
	defer w.close()
	s := launch(t, dir, naruBin, []string{"serve", dir, "--listen", "127.0.0.1:0"})
	g.pid.Store(int64(s.pid()))
	if err := s.waitReady(); err == nil {
		g.shoot()
	} else if !g.fired.Load() {
		t.Fatalf("start after a kill: %v", err)
	}
	<-s.done
}
