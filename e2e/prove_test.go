package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// stored is what the tables hold of one request.
type stored struct {
	rows, items, sum   int64
	first, last        int64 // offsets
	rejected, badItems int64
}

// deep runs naru verify --deep over a folder, which proves by the rows' places in
// the log what the ledger proves by their contents.
func deep(t *testing.T, dir string, args ...string) {
	t.Helper()
	r := naru(t, "", append([]string{"verify", dir, "--deep"}, args...)...)
	if r.code != 0 {
		t.Errorf("naru verify --deep: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// prove waits until everything acknowledged has been written and compares what
// SQL finds with the client's account.
func prove(t *testing.T, s *server, l *ledger) {
	t.Helper()
	found, counts := audit(t, s, l)
	for i, what := range found {
		if i == 20 {
			t.Errorf("and %d more", len(found)-i)
			break
		}
		t.Error(what)
	}
	t.Log("proved: " + counts)
}

// audit names every difference between the tables and the client's account,
// and says in words what it counted.
func audit(t *testing.T, s *server, l *ledger) (found []string, counts string) {
	t.Helper()
	fail := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	eventually(t, "every acknowledged event written", func() (bool, string) { return caughtUp(s) })
	there, total := inventory(t, s, l, fail)
	var whole, nothing int
	for _, r := range l.sent {
		b := there[r.number]
		if b == nil {
			b = &stored{}
		}
		delete(there, r.number)
		if l.strict && r.refused && *b != (stored{}) {
			fail("request %d was refused with 503 and is there: %+v", r.number, *b)
		}
		if !r.acked && *b == (stored{}) {
			nothing++
			continue
		}
		if !r.acked {
			whole++
		}
		what := fmt.Sprintf("request %d (%s, %s, %d good, %d bad, acknowledged %v, kill %d)",
			r.number, r.table, r.format, r.good, r.bad, r.acked, r.kill)
		if b.rows != int64(r.good) || b.items != int64(r.good) || b.sum != r.sum {
			fail("%s: %d rows, %d different items, sum %d; want %d, %d, %d", what, b.rows, b.items, b.sum, r.good, r.good, r.sum)
		}
		if b.rejected != int64(r.bad) || b.badItems != int64(r.bad) {
			fail("%s: %d rejections, %d different items; want %d", what, b.rejected, b.badItems, r.bad)
		}
		for _, p := range r.ack.Positions {
			if p.First != b.first || p.Last != b.last || p.Stream != "events" {
				fail("%s: rows at offsets %d to %d, the answer said %d to %d of %s", what, b.first, b.last, p.First, p.Last, p.Stream)
			}
		}
	}
	for number, b := range there {
		fail("request %d was never sent, but is there: %+v", number, *b)
	}
	// The server's own account says the same, and adds up.
	document, err := s.status()
	if err != nil {
		t.Fatal(err)
	}
	acknowledged, _ := sum(document, "acknowledged")
	written, _ := sum(document, "written")
	rejections, _ := sum(document, "rejections")
	total += l.beside
	if int64(acknowledged) != total || acknowledged != written+rejections || document["balanced"] != true {
		fail("status: acknowledged %v, written %v, rejections %v, balanced %v; the tables have %d", acknowledged, written, rejections, document["balanced"], total)
	}
	slices.Sort(found)
	return found, fmt.Sprintf("%d items acknowledged in %d requests; of those without an answer %d are there whole and %d not at all",
		l.acked(), len(l.sent)-whole-nothing, whole, nothing)
}

// inventory asks SQL what is there of each request, and how many events there
// are in all.
func inventory(t *testing.T, s *server, l *ledger, fail func(string, ...any)) (there map[int64]*stored, total int64) {
	t.Helper()
	there = map[int64]*stored{}
	at := func(number int64) *stored {
		if there[number] == nil {
			there[number] = &stored{}
		}
		return there[number]
	}
	checks := map[string]string{}
	for _, r := range l.sent {
		checks[r.table] = r.set.checkSQL()
	}
	for table, acked := range l.tables() {
		if _, err := s.trySQL("select 1 from events." + table); err != nil && acked == 0 && strings.Contains(err.Error(), "no table") {
			continue // no request to it was acknowledged, and none was stored
		}
		rows := pages(t, s, fmt.Sprintf(`select req, count(*), count(distinct item), sum(%s)::bigint, min(_offset), max(_offset)
			from events.%s group by req order by req`, checks[table], table))
		for _, r := range rows {
			b := at(r[0])
			if b.rows > 0 {
				fail("request %d is in table %s and in another one", r[0], table)
			}
			b.rows, b.items, b.sum, b.first, b.last = b.rows+r[1], b.items+r[2], b.sum+r[3], r[4], r[5]
			total += r[1]
		}
		if got := s.cell(fmt.Sprintf(`select count(*) - count(distinct (_log, _partition, _offset)) from events.%s`, table)); got != "0" {
			fail("%s: %s rows share a place in the log with another row", table, got)
		}
	}
	for _, r := range rejections(t, s) {
		b := at(r[0])
		b.rejected, b.badItems = r[1], r[2]
		total += r[1]
	}
	return there, total
}

// rejections are the refused items by request, read from their original bytes.
func rejections(t *testing.T, s *server) [][]int64 {
	if _, err := s.trySQL("select 1 from rejected limit 1"); err != nil && strings.Contains(err.Error(), "no table") {
		return nil
	}
	return pages(t, s, `with r as (select regexp_extract(decode(original), '"req"[:,](\d+)', 1)::bigint req,
			regexp_extract(decode(original), '"item"[:,](\d+)', 1)::bigint item from rejected)
		select req, count(*), count(distinct item) from r group by req order by req`)
}

// pages reads a long answer of whole numbers in parts below the row limit.
func pages(t *testing.T, s *server, query string) [][]int64 {
	t.Helper()
	const page = 5000
	var out [][]int64
	for {
		part := s.sql(fmt.Sprintf("%s limit %d offset %d", query, page, len(out)))
		for _, row := range part.Rows {
			numbers := make([]int64, len(row))
			for i, v := range row {
				n, err := strconv.ParseInt(text(v), 10, 64)
				if err != nil {
					t.Fatalf("%s: %v", query, err)
				}
				numbers[i] = n
			}
			out = append(out, numbers)
		}
		if len(part.Rows) < page {
			return out
		}
	}
}

// TestAuditNotices: the proof of the kill test sees a loss, a double, a foreign
// row, a changed value and a half request.
func TestAuditNotices(t *testing.T) {
	t.Parallel()
	s := serve(t, project(t, "pipelines:\n  commit_interval: 100ms\n"))
	set := wikipedia(t)
	l := newLedger(1)
	l.add(&dataset{typ: set.typ, check: set.check, items: set.items[:500]})
	for _, err := range l.start(s.url, 2).drain() {
		t.Fatal(err)
	}
	prove(t, s, l)
	r := l.sent[0]
	notice := func(what, word string, change, back func()) {
		t.Helper()
		change()
		defer back()
		found, _ := audit(t, s, l)
		if !strings.Contains(strings.Join(found, "\n"), word) {
			t.Errorf("%s is not noticed: %q", what, found)
		}
	}
	notice("a lost request", "0 rows", func() {
		l.sent = append(l.sent, &request{work: r.work, table: r.table, number: 1 << 40, good: 1, acked: true})
	}, func() { l.sent = l.sent[:len(l.sent)-1] })
	notice("a lost event", fmt.Sprint("request ", r.number), func() { r.good++ }, func() { r.good-- })
	notice("a changed value", fmt.Sprint("request ", r.number), func() { r.sum++ }, func() { r.sum-- })
	notice("half a request without an answer", fmt.Sprint("request ", r.number), func() { r.good, r.acked = r.good+1, false }, func() { r.good, r.acked = r.good-1, true })
	notice("a request of nobody", "never sent", func() { l.sent = l.sent[1:] }, func() { l.sent = append([]*request{r}, l.sent...) })
	notice("a lost rejection", "rejections", func() { r.bad++ }, func() { r.bad-- })
	s.post("?type="+r.table, "application/json", fmt.Sprintf(`{"req":%d,"item":0,"delta":0}`, r.number))
	notice("a doubled event", fmt.Sprint("request ", r.number), func() {}, func() {})
}
