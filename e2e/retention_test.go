package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// keepConfig lets retention drop by bytes, soon.
func keepConfig(dropUnread bool) string {
	return fmt.Sprintf("log:\n  segment: 256KiB\n  retain_bytes: 1MiB\n  recycle: 256KiB\n  drop_unread: %v\npipelines:\n  commit_interval: 100ms\n", dropUnread)
}

// TestRetentionKeepsUnread: while no pipeline runs the log grows beyond its
// limit, and status says for whom; a pipeline that runs reads it, and it shrinks.
func TestRetentionKeepsUnread(t *testing.T) {
	t.Parallel()
	dir := project(t, keepConfig(false))
	l := newLedger(41)
	l.add(small(wikipedia(t)))
	s := serve(t, dir)
	for _, err := range l.start(s.url, 2).drain() {
		t.Error(err)
	}
	prove(t, s, l) // the reader is known, and has read all
	if code := s.stop(); code != 0 {
		t.Fatalf("SIGTERM: exit %d", code)
	}
	l.add(small(wikipedia(t)))
	s = serve(t, dir, "--no-pipelines")
	for _, err := range l.start(s.url, 2).drain() {
		t.Error(err)
	}
	eventually(t, "status says for whom retention waits", func() (bool, string) {
		document, err := s.status()
		if err != nil {
			return false, err.Error()
		}
		said := fmt.Sprint(document["problems"])
		return strings.Contains(said, "retention waits for default/events") && strings.Contains(said, "log.retain_bytes"), said
	})
	if out := must(t, "", "status", "--url", s.url); !strings.Contains(out, "retention waits for default/events") {
		t.Errorf("naru status: %s", out)
	}
	if size := logBytes(t, dir); size < 2<<20 {
		t.Errorf("the log has %d bytes, with everything unread it would have more", size)
	}
	if code := s.stop(); code != 0 {
		t.Fatalf("SIGTERM: exit %d", code)
	}
	s = serve(t, dir)
	prove(t, s, l)
	l.add(&dataset{typ: "wiki_edit", check: "delta", items: wikipedia(t).items[:6000]}) // rolls, so that retention looks
	for _, err := range l.start(s.url, 2).drain() {
		t.Error(err)
	}
	eventually(t, "the log shrinks to its limit", func() (bool, string) {
		size := logBytes(t, dir)
		return size <= 1<<20+512<<10, fmt.Sprint(size)
	})
	prove(t, s, l)
	s.stop()
	deep(t, dir)
}

// TestUnregisteredIsKeptToo: a stream whose pipeline has never run is not
// dropped either, because it is configured.
func TestUnregisteredIsKeptToo(t *testing.T) {
	t.Parallel()
	dir := project(t, keepConfig(false))
	l := newLedger(42)
	l.add(small(wikipedia(t)))
	s := serve(t, dir, "--no-pipelines")
	for _, err := range l.start(s.url, 2).drain() {
		t.Error(err)
	}
	s.stop()
	s = serve(t, dir)
	prove(t, s, l)
	s.stop()
	deep(t, dir)
}

// TestDropUnread: with log.drop_unread retention goes on without its readers.
// What they did not get is counted as what it is, to the event, in status and
// metrics, across restarts, and everything adds up.
func TestDropUnread(t *testing.T) {
	t.Parallel()
	dir := project(t, keepConfig(true))
	set := wikipedia(t).items
	send := func(s *server, from, n int) {
		t.Helper()
		for at := from; at < from+n; at += 100 {
			var body strings.Builder
			for i := at; i < at+100; i++ {
				fmt.Fprintf(&body, "{\"n\":%d,%s\n", i, set[i%len(set)].body[1:])
			}
			if a := s.post("?type=edit", "application/x-ndjson", body.String()); a.Accepted != 100 {
				t.Fatalf("%+v", a)
			}
		}
	}
	const first, unread, last = 1000, 20000, 3000
	s := serve(t, dir)
	send(s, 0, first)
	s.waitCell("select count(_offset) from edit", strconv.Itoa(first))
	eventually(t, "written", func() (bool, string) { return caughtUp(s) })
	s.stop()

	s = serve(t, dir, "--no-pipelines")
	send(s, first, unread)
	eventually(t, "retention has dropped segments", func() (bool, string) {
		size := logBytes(t, dir)
		return size <= 1<<20+512<<10, fmt.Sprint(size)
	})
	document, err := s.status()
	if err != nil {
		t.Fatal(err)
	}
	if said := fmt.Sprint(document["problems"]); document["balanced"] != true || !strings.Contains(said, "drop_unread") {
		t.Errorf("status before the pipeline has counted them: balanced %v, %s", document["balanced"], said)
	}
	s.kill()

	account := func(s *server, want int) (dropped int) {
		t.Helper()
		eventually(t, "everything has its place", func() (bool, string) { return caughtUp(s) })
		document, err := s.status()
		if err != nil {
			t.Fatal(err)
		}
		term := func(key string) int { n, _ := sum(document, key); return int(n) }
		dropped = term("dropped_unread")
		rows, err := strconv.Atoi(s.cell("select count(distinct n) from edit where n >= 0"))
		if err != nil {
			t.Fatal(err)
		}
		if document["balanced"] != true || term("acknowledged") != want || term("written") != rows || rows+dropped != want {
			t.Errorf("%d acknowledged, %d written, %d dropped unread, balanced %v; the table has %d of %d", term("acknowledged"), term("written"), dropped, document["balanced"], rows, want)
		}
		if got := s.cell("select count(_offset) from edit"); got != strconv.Itoa(rows) {
			t.Errorf("%s rows of %d events", got, rows)
		}
		if got := s.metric("naru_stream_events_total", "stream=events", "fate=dropped_unread"); int(got) != dropped {
			t.Errorf("metric: %v, status: %d", got, dropped)
		}
		if got := s.metric("naru_stream_balanced", "stream=events"); got != 1 {
			t.Errorf("naru_stream_balanced: %v", got)
		}
		if said := fmt.Sprint(document["problems"]); dropped > 0 && !strings.Contains(said, fmt.Sprintf("dropped %d events of stream events", dropped)) {
			t.Errorf("problems: %s", said)
		}
		return dropped
	}
	s = serve(t, dir)
	dropped := account(s, first+unread)
	if dropped == 0 {
		t.Fatal("nothing was dropped unread")
	}
	// Which they are can be told as well: those between the first part and what
	// the log still had.
	if got := s.cell("select concat_ws(' ', count(*), min(n), max(n)) from edit where n >= 1000"); got != fmt.Sprintf("%d %d %d", unread-dropped, first+dropped, first+unread-1) {
		t.Errorf("rows of the second part: %s, with %d dropped", got, dropped)
	}
	if says := s.logs.String(); !strings.Contains(says, fmt.Sprintf("events=%d", dropped)) || !strings.Contains(says, "log.drop_unread") {
		t.Errorf("the log does not say what was dropped, and why: %s", says)
	}
	if out := must(t, "", "status", "--url", s.url); !strings.Contains(out, "+ dropped unread") {
		t.Errorf("naru status: %s", out)
	}
	t.Logf("%d of %d events dropped unread", dropped, first+unread+last)
	s.kill()
	s = serve(t, dir)
	if again := account(s, first+unread); again != dropped {
		t.Errorf("%d dropped after a kill, were %d", again, dropped)
	}
	send(s, first+unread, last)
	if again := account(s, first+unread+last); again != dropped {
		t.Errorf("%d dropped at the end, were %d", again, dropped)
	}
	s.stop()
	deep(t, dir)
}

// logBytes is what the segments take on disk.
func logBytes(t testing.TB, dir string) (total int64) {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "data", "log", "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range list {
		if info, err := os.Stat(path); err == nil {
			total += info.Size()
		}
	}
	return total
}
