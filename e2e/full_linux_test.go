package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const fullConfig = `
log:
  segment: 2MiB
  reserve: 6MiB
  retain_bytes: 0
  recycle: 4MiB
lake:
  expire_every: 10
  keep_snapshots: 3
  gc_delay: 0s
pipelines:
  commit_interval: 200ms
query:
  memory: 64MiB
  threads: 1
`

// TestDiskFull fills a real small disk under load: naru itself down to its
// reserve, then a foreign file to the last byte. Senders get 503 before anything
// breaks, everything else goes on, and when there is room again it heals by
// itself. Then it is stopped, killed and started on a full disk.
func TestDiskFull(t *testing.T) {
	for _, kind := range []string{"tmpfs", "ext4"} {
		t.Run(kind, func(t *testing.T) { t.Parallel(); diskFull(t, kind) })
	}
}

func diskFull(t *testing.T, kind string) {
	disk, done := smallDisk(t, kind, 72)
	if done {
		return
	}
	dir := filepath.Join(disk, "project")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	writeConfig(t, dir, fullConfig)
	ballast, last := &foreign{t, filepath.Join(disk, "ballast")}, &foreign{t, filepath.Join(disk, "last")}
	ballast.take(44 << 20)
	l := newLedger(11)
	l.patient, l.strict = true, true
	noises := noise(1, 3000)
	s := serve(t, dir)
	ld := l.start(s.url, 4, noises)
	// (a) naru fills the disk itself, down to the reserve.
	eventually(t, "refused for want of room", func() (bool, string) {
		return l.refused() > 20, fmt.Sprintf("%d acknowledged, %d bytes free", l.acked(), freeBytes(t, disk))
	})
	checkFull(t, s, l)
	eventually(t, "what is acknowledged is written, from the reserve if need be", func() (bool, string) { return caughtUp(s) })

	// It heals while the senders come back again and again.
	ballast.leave()
	before := l.acked()
	eventually(t, "events are taken again", func() (bool, string) {
		return l.acked() > before+1000 && readyz(s) == 200, fmt.Sprint(l.acked()-before, " more acknowledged")
	})

	// (b) A foreign file takes every byte that is left, under load.
	last.take(-1)
	refused := l.refused()
	eventually(t, "refused because of a foreign file", func() (bool, string) {
		return l.refused() > refused+20, fmt.Sprintf("%d acknowledged, %d bytes free", l.acked(), freeBytes(t, disk))
	})
	checkFull(t, s, l)
	spill, err := s.do("POST", "/v1/sql", []byte("select count(*) from (select distinct a.text || b.text from noise a, (select * from noise limit 100) b)"), plainType)
	if err != nil || spill.status != 200 && spill.status != 503 && spill.status != 400 || !json.Valid(spill.body) {
		t.Errorf("a query that spills to a full disk: %d %s %v", spill.status, spill.body, err)
	}
	t.Logf("a query that spills to a full disk: %d %.200s", spill.status, spill.body)
	if s.ended() {
		t.Fatalf("the server has ended: %s\n%s", s.state(), s.logs.last(4<<10))
	}
	last.leave()
	before = l.acked()
	eventually(t, "events are taken again", func() (bool, string) {
		return l.acked() > before+300, fmt.Sprint(l.acked()-before, " more acknowledged")
	})

	// A stop and a start on a full disk.
	last.take(-1)
	if code := s.stop(); code != 0 {
		t.Errorf("SIGTERM on a full disk: exit %d\n%s", code, s.logs.last(2<<10))
	}
	for _, err := range ld.finish() {
		t.Error(err)
	}
	l.cut(1)
	startOnFullDisk(t, dir, l)

	// A kill, and a start on a full disk: the log's last frames want a copy.
	last.leave()
	s = serve(t, dir)
	ld = l.start(s.url, 4, noises)
	before = l.acked()
	eventually(t, "some load", func() (bool, string) { return l.acked() > before+300, fmt.Sprint(l.acked()) })
	last.take(-1)
	s.kill()
	for _, err := range ld.finish() {
		t.Error(err)
	}
	l.cut(2)
	startOnFullDisk(t, dir, l)

	last.leave()
	s = serve(t, dir)
	prove(t, s, l)
	if got := readyz(s); got != 200 {
		t.Errorf("/readyz: %d", got)
	}
	if code := s.stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d", code)
	}
	s = serve(t, dir)
	prove(t, s, l)
	if code := s.stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d", code)
	}
	deep(t, dir)
}

// checkFull looks at everything that a full disk must not stop.
func checkFull(t *testing.T, s *server, l *ledger) {
	t.Helper()
	if s.ended() {
		t.Fatalf("the server has ended: %s\n%s", s.state(), s.logs.last(4<<10))
	}
	r := s.call("POST", "/v1/events", []byte(`{"a":1}`), jsonType)
	after, err := strconv.Atoi(r.header.Get("Retry-After"))
	if r.status != 503 || err != nil || after < 1 {
		t.Errorf("an event: %d, Retry-After %q, %s", r.status, r.header.Get("Retry-After"), r.body)
	}
	if r := s.call("GET", "/readyz", nil); r.status != 503 || !json.Valid(r.body) || !strings.Contains(string(r.body), "log.reserve") {
		t.Errorf("/readyz: %d %s", r.status, r.body)
	}
	if r := s.call("GET", "/healthz", nil); r.status != 200 {
		t.Errorf("/healthz: %d %s", r.status, r.body)
	}
	if got := s.metric("naru_log_disk_full"); got != 1 {
		t.Errorf("naru_log_disk_full: %v", got)
	}
	document, err := s.status()
	if err != nil {
		t.Fatal(err)
	}
	if problems := fmt.Sprint(document["problems"]); !strings.Contains(problems, "no events are taken") {
		t.Errorf("the status does not say so: %s", problems)
	}
	if n, err := strconv.Atoi(s.cell("select count(_offset) from noise")); err != nil || n == 0 || n > l.acked() {
		t.Errorf("%d rows of %d acknowledged, %v", n, l.acked(), err)
	}
	if r := s.call("GET", "/v1/streams/events/events?last=3", nil); r.status != 200 || strings.Count(string(r.body), "\n") != 3 {
		t.Errorf("tail: %d %.300s", r.status, r.body)
	}
}

// startOnFullDisk: the start either says what is missing, or serves readers.
func startOnFullDisk(t *testing.T, dir string, l *ledger) {
	t.Helper()
	s, err := tryServe(t, dir)
	if err != nil {
		says := s.logs.String()
		if code := s.wait(); code != 1 || !strings.Contains(says, "no space left on device") && !strings.Contains(says, "disk") {
			t.Errorf("a start on a full disk: exit %d\n%s", code, says)
		}
		t.Logf("a start on a full disk is refused: %s", lastLines(says, 2))
		return
	}
	if n, err := strconv.Atoi(s.cell("select count(_offset) from noise")); err != nil || n == 0 || n > l.acked()+500*4 {
		t.Errorf("%d rows of %d acknowledged, %v", n, l.acked(), err)
	}
	if got := readyz(s); got != 503 {
		t.Errorf("/readyz on a full disk: %d", got)
	}
	t.Log("a start on a full disk serves readers")
	if code := s.stop(); code != 0 {
		t.Errorf("SIGTERM on a full disk: exit %d\n%s", code, s.logs.last(2<<10))
	}
}

// lastLines are the last n lines of a text.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
