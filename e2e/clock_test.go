package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestEarlyAndLateEvents: events that say to be of two years ago, of the border
// of 24 hours ahead, and of two years ahead. The past is kept as it is; what is
// more than a day ahead gets the time of receipt, and its own stays in the data.
func TestEarlyAndLateEvents(t *testing.T) {
	t.Parallel()
	dir := project(t, "log:\n  segment: 256KiB\n  retain_age: 1d\npipelines:\n  commit_interval: 200ms\n")
	s := serve(t, dir)
	now := time.Now().UTC().Truncate(time.Second)
	for _, c := range []struct {
		name  string
		ahead time.Duration
		kept  bool
	}{
		{"late", -2 * 365 * 24 * time.Hour, true}, {"now", 0, true}, {"nearly", 24*time.Hour - 10*time.Minute, true},
		{"beyond", 24*time.Hour + 10*time.Minute, false}, {"early", 2 * 365 * 24 * time.Hour, false},
	} {
		at := now.Add(c.ahead)
		s.post("?type=timed", "application/json", fmt.Sprintf(`{"name":%q,"time":%q}`, c.name, at.Format(time.RFC3339)))
		s.waitCell(fmt.Sprintf("select count(*) from timed where name = '%s'", c.name), "1")
		want := at.Format("2006-01-02 15:04:05")
		got := s.cell(fmt.Sprintf("select strftime(_time, '%%Y-%%m-%%d %%H:%%M:%%S') from timed where name = '%s'", c.name))
		if c.kept && got != want {
			t.Errorf("%s: _time is %s, want %s", c.name, got, want)
		}
		if !c.kept && s.cell(fmt.Sprintf("select _time = _received_at from timed where name = '%s'", c.name)) != "true" {
			t.Errorf("%s: _time is %s, want the time of receipt", c.name, got)
		}
		if got := s.cell(fmt.Sprintf("select \"time\"::varchar from timed where name = '%s'", c.name)); !strings.HasPrefix(got, at.Format("2006-01-02")) {
			t.Errorf("%s: its own time is %s in the data, want %s", c.name, got, at)
		}
	}
	balanced(t, s, 5)
	// A day's partition for each of the days that the rows are of, no other.
	days := s.cell("select string_agg(distinct strftime(_time, '%Y-%m-%d'), ' ' order by strftime(_time, '%Y-%m-%d')) from timed")
	var folders []string
	for _, x := range readCatalog(t, dir) {
		if !strings.HasSuffix(x.name, ".timed") {
			continue
		}
		for line := range strings.Lines(listing(t, x.location)) {
			if _, day, ok := strings.Cut(line, "_time_day="); ok {
				folders = append(folders, day[:len("2006-01-02")])
			}
		}
	}
	for _, day := range folders {
		if !strings.Contains(days, day) {
			t.Errorf("a partition of %s, rows of %s", day, days)
		}
	}
	for day := range strings.FieldsSeq(days) {
		if !strings.Contains(strings.Join(folders, " "), day) {
			t.Errorf("no partition of %s: %v", day, folders)
		}
	}
	// Retention goes by receipt: an event of two years ago is not old.
	if got := s.metrics()["naru_log_retired_bytes_total"]; got != nil {
		t.Errorf("parts of the log were dropped: %v", got)
	}
	if code := s.stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d", code)
	}
	deep(t, dir)
}

// TestOtherMonotonicClock: the clock that only counts on is years ahead of the
// last start's, and then behind it, as after moves between machines. Nothing is
// dropped, and everything adds up.
func TestOtherMonotonicClock(t *testing.T) {
	t.Parallel()
	shifted := func(seconds string) []string {
		return []string{"--time", "--fork", "--kill-child", "--monotonic", seconds, "--boottime", seconds, "--"}
	}
	if out, err := exec.Command("unshare", append(shifted("1000000"), "true")...).CombinedOutput(); err != nil {
		t.Skipf("time namespaces cannot be made here: %v %s", err, out)
	}
	dir := project(t, "log:\n  segment: 256KiB\n  retain_age: 1d\npipelines:\n  commit_interval: 100ms\n")
	l := newLedger(71)
	for _, seconds := range []string{"100000000", "0", "1000000"} {
		l.add(&dataset{typ: "wiki_edit", check: "delta", items: wikipedia(t).items[:4000]})
		s := launch(t, dir, "unshare", append(shifted(seconds), naruBin, "serve", dir, "--listen", "127.0.0.1:0"))
		if err := s.waitReady(); err != nil {
			t.Fatal(err)
		}
		for _, err := range l.start(s.url, 3).drain() {
			t.Error(err)
		}
		prove(t, s, l)
		if got := s.metrics()["naru_log_retired_bytes_total"]; got != nil {
			t.Errorf("parts of the log were dropped: %v", got)
		}
		s.kill() // and its child with it
		eventually(t, "the child is gone", func() (bool, string) { _, err := s.do("GET", "/healthz", nil); return err != nil, "" })
	}
	s := serve(t, dir)
	prove(t, s, l)
	s.stop()
	deep(t, dir)
}
