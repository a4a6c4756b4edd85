package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// rarely keeps anything from being committed by itself.
const rarely = "pipelines:\n  commit_interval: 1h\n"

// commit restarts the server twice, in between with commits that come soon.
func commit(t *testing.T, s *server) *server {
	t.Helper()
	file := filepath.Join(s.dir, "naru.yaml")
	config, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{strings.Replace(string(config), "1h", "100ms", 1), string(config)} {
		if code := s.stop(); code != 0 {
			t.Fatalf("SIGTERM: exit %d", code)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s = serve(t, s.dir)
		if text != string(config) {
			eventually(t, "all is committed", func() (bool, string) { return caughtUp(s) })
		}
	}
	return s
}

// TestVisibleAtOnce: what is acknowledged is in the next answer, whatever its
// type and its columns, long before any commit.
func TestVisibleAtOnce(t *testing.T) {
	t.Parallel()
	dir := project(t, rarely)
	s := serve(t, dir)
	same := func(query string, want ...string) {
		t.Helper()
		if got := s.sql(query).lines(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	total := func(want int) {
		t.Helper()
		same("select count(*), count(distinct _offset), sum(n)::bigint from visit", fmt.Sprintf("%d|%d|%d", want, want, want*(want-1)/2))
	}
	for n := range 20 {
		s.post("?type=visit", "application/json", fmt.Sprintf(`{"n":%d}`, n))
		total(n + 1)
	}
	s.post("?type=visit", "application/json", `{"n":20,"price":1,"tags":[1,2],"who":"ann"}`)
	same("select price, tags, who from visit where n >= 19 order by n", "NULL|NULL|NULL", "1|[1 2]|ann")
	s.post("?type=visit", "application/json", `{"n":21,"price":2.5,"tags":[4]}`)
	same("select sum(price), sum(list_sum(tags)) from visit", "3.5|7")
	s.post("?type=user", "application/json", `{"name":"ann","age":7}`)
	same("select v.n, u.age from visit v join user u on v.who = u.name", "20|7")
	s.post("?type=user", "application/x-ndjson", "{\"name\":\"ben\"}\n{\"name\":\n")
	same("select count(*) from user", "2")
	same("select stream, reason from rejected", "events|not_json")
	same("select count(*) from visit where n = 19 and _type = 'visit' and _partition = 0", "1")
	if n := s.metric("naru_hot_tail_failed_total") + s.metric("naru_hot_tail_behind_total"); n != 0 {
		t.Errorf("%v queries saw less than all", n)
	}
	total(22)
	// Committed, and then more of all that on top of it.
	s = commit(t, s)
	total(22)
	same("select sum(price), sum(list_sum(tags)) from visit", "3.5|7")
	s.post("?type=user", "application/json", `{"name":"cleo","age":1.5,"new":true}`)
	same("select sum(age), count(new) from user", "8.5|1")
	s.post("?type=visit", "application/json", `{"n":22,"who":"cleo"}`)
	total(23)
	s.kill()
	s = serve(t, dir)
	total(23)
	same("select v.n, u.age from visit v join user u on v.who = u.name order by 1", "20|7.0", "22|1.5")
}

// TestHotTailOff: with hot_tail.memory 0 queries see what is committed.
func TestHotTailOff(t *testing.T) {
	t.Parallel()
	dir := project(t, rarely+"hot_tail:\n  memory: 0\n")
	s := serve(t, dir)
	s.post("?type=visit", "application/json", `{"n":1}`)
	if out, err := s.trySQL("select count(*) from visit"); err == nil || !strings.Contains(err.Error(), "no table") {
		t.Errorf("a table that is not committed: %v %v", out.Rows, err)
	}
	s = commit(t, s)
	s.post("?type=visit", "application/json", `{"n":2}`)
	if got := s.cell("select count(*) from visit"); got != "1" {
		t.Errorf("%s rows, want the committed one", got)
	}
}

// TestHotTailWithoutItsFolder: files that cannot be written cost the newest rows,
// not the answer, and the counter says so; then it heals by itself.
func TestHotTailWithoutItsFolder(t *testing.T) {
	t.Parallel()
	dir := project(t, rarely)
	s := serve(t, dir)
	s.post("?type=visit", "application/json", `{"n":1}`)
	s = commit(t, s)
	s.post("?type=visit", "application/json", `{"n":2}`)
	s.post("?type=other", "application/json", `{"n":2}`)
	hot := filepath.Join(dir, "data", "hot")
	away := hot + "-away"
	if err := errors.Join(os.Rename(hot, away), os.WriteFile(hot, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if got := s.cell("select count(*) from visit"); got != "1" {
		t.Errorf("%s rows, want the committed one", got)
	}
	r := s.call("POST", "/v1/sql", []byte("select * from other"), plainType)
	if r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" || bytes.Contains(r.body, []byte("dropped")) {
		t.Errorf("a table of which nothing can be shown: %d %s", r.status, r.body)
	}
	if n := s.metric("naru_hot_tail_failed_total"); n < 2 {
		t.Errorf("%v queries are counted", n)
	}
	if err := errors.Join(os.Remove(hot), os.Rename(away, hot)); err != nil {
		t.Fatal(err)
	}
	if got := s.cell("select count(*) from visit"); got != "2" {
		t.Errorf("%s rows, want 2", got)
	}
}

// pair is a connection that sends each number twice in one request: as a debit and
// as a credit. From the number `turn` on both have a fraction and a new field.
type pair struct {
	number      int
	sent, acked atomic.Int64 // numbers below
}

const turn = 400

func (p *pair) body(from, to int64) []byte {
	var b bytes.Buffer
	for seq := from; seq < to; seq++ {
		for _, typ := range []string{"debit", "credit"} {
			more := fmt.Sprintf(`,"x":%d`, seq)
			if seq >= turn {
				more = fmt.Sprintf(`,"x":%d.5,"late_%d":"yes"`, seq, p.number)
			}
			fmt.Fprintf(&b, `{"type":"%s","conn":%d,"seq":%d%s}`+"\n", typ, p.number, seq, more)
		}
	}
	return b.Bytes()
}

// send until stop, or until the server is gone.
func (p *pair) send(s *server, stop *atomic.Bool) error {
	for n := int64(1); !stop.Load(); n = n%37 + 1 {
		from := p.acked.Load()
		p.sent.Store(from + n)
		r, err := s.do("POST", "/v1/events", p.body(from, from+n), "Content-Type: application/x-ndjson")
		if err != nil {
			return nil // what became of it nobody knows
		}
		if r.status != http.StatusOK {
			return fmt.Errorf("connection %d: %d %s", p.number, r.status, r.body)
		}
		p.acked.Store(from + n)
	}
	return nil
}

// probe asks once and compares with what the connections know.
func probe(s *server, pairs []*pair) error {
	acked := make([]int64, len(pairs))
	for i, p := range pairs {
		acked[i] = p.acked.Load()
	}
	// Each of the tables, both of one cut.
	out, err := s.trySQL(`select 'debit', conn, count(*), count(distinct seq), sum(seq)::bigint, max(seq), sum(x)::double from debit group by conn
		union all select 'credit', conn, count(*), count(distinct seq), sum(seq)::bigint, max(seq), sum(x)::double from credit group by conn`)
	if err != nil {
		return err
	}
	seen := map[string][2]int64{}
	for _, row := range out.Rows {
		n := make([]int64, 0, 5)
		for _, v := range row[1:6] {
			x, err := strconv.ParseInt(text(v), 10, 64)
			if err != nil {
				return err
			}
			n = append(n, x)
		}
		conn, count := n[0], n[1]
		if n[2] != count || n[4] != count-1 || n[3] != count*(count-1)/2 {
			return fmt.Errorf("%s of connection %d: a gap or a double: %v", row[0], conn, row)
		}
		x, err := strconv.ParseFloat(text(row[6]), 64)
		if want := float64(n[3]) + float64(max(0, count-turn))/2; err != nil || x != want {
			return fmt.Errorf("%s of connection %d: x sums up to %v, want %v", row[0], conn, row[6], want)
		}
		of := seen[fmt.Sprint(conn)]
		of[map[string]int{"debit": 0, "credit": 1}[text(row[0])]] = count
		seen[fmt.Sprint(conn)] = of
	}
	for i, p := range pairs {
		got := seen[fmt.Sprint(p.number)]
		if got[0] != got[1] {
			return fmt.Errorf("connection %d: one table has %d, the other %d", p.number, got[0], got[1])
		}
		if got[0] < acked[i] || got[0] > p.sent.Load() {
			return fmt.Errorf("connection %d: %d rows; %d were acknowledged before, %d sent by now", p.number, got[0], acked[i], p.sent.Load())
		}
	}
	out, err = s.trySQL(`select count(*) from debit d full join credit c on d.conn = c.conn and d.seq = c.seq where d.seq is null or c.seq is null`)
	if err == nil && text(out.Rows[0][0]) != "0" {
		err = fmt.Errorf("%s rows have no counterpart in the other table", text(out.Rows[0][0]))
	}
	return err
}

// TestQueriesUnderLoad: commits five times a second, segments that roll, kills,
// restarts, new columns and numbers that become fractions; every answer has what
// was acknowledged before the question, once, and in both tables the same.
func TestQueriesUnderLoad(t *testing.T) {
	t.Parallel()
	dir := project(t, `
log:
  segment: 1MiB
lake:
  expire_every: 5
  keep_snapshots: 2
  gc_delay: 0s
pipelines:
  commit_interval: 200ms
`)
	var pairs []*pair
	probes := 0
	for round := range short(3, 12) {
		s := serve(t, dir)
		if round > 0 { // before anybody sends
			if err := probe(s, pairs); err != nil {
				t.Fatalf("after a restart: %v", err)
			}
		}
		var stop atomic.Bool
		var senders sync.WaitGroup
		var mu sync.Mutex
		var broken error
		from := len(pairs)
		for range 3 {
			p := &pair{number: len(pairs)}
			pairs = append(pairs, p)
			senders.Go(func() {
				err := p.send(s, &stop)
				mu.Lock()
				defer mu.Unlock()
				broken = errors.Join(broken, err)
			})
		}
		eventually(t, "the first rows", func() (bool, string) { return pairs[from].acked.Load() > 0, "" })
		deadline := time.Now().Add(soonWithin)
		for n := 0; n < 12 || pairs[from].acked.Load() < 2*turn && time.Now().Before(deadline); n++ {
			if err := probe(s, pairs); err != nil {
				t.Errorf("round %d, probe %d: %v", round, n, err)
				break
			}
			probes++
		}
		if failed := s.metric("naru_hot_tail_failed_total") + s.metric("naru_hot_tail_behind_total"); failed != 0 {
			t.Errorf("%v queries saw less than all", failed)
		}
		if round%2 == 0 {
			s.kill()
		}
		stop.Store(true)
		senders.Wait()
		if round%2 == 1 {
			if err := probe(s, pairs); err != nil {
				t.Errorf("with nobody sending: %v", err)
			}
			if code := s.stop(); code != 0 {
				t.Errorf("SIGTERM: exit %d", code)
			}
		}
		if broken != nil {
			t.Error(broken)
		}
		if t.Failed() {
			return
		}
	}
	s := serve(t, dir)
	if err := probe(s, pairs); err != nil {
		t.Error(err)
	}
	eventually(t, "every acknowledged event written", func() (bool, string) { return caughtUp(s) })
	if err := probe(s, pairs); err != nil {
		t.Error(err)
	}
	if code := s.stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d", code)
	}
	deep(t, dir)
	total := int64(0)
	for _, p := range pairs {
		total += p.acked.Load()
	}
	t.Logf("%d probes of %d pairs", probes, total)
}
