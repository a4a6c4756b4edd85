package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestHundredTables: one stream of a hundred types, mixed in each request.
func TestHundredTables(t *testing.T) {
	t.Parallel()
	const types, each = 100, 30
	dir := project(t, "pipelines:\n  commit_interval: 1s\nlake:\n  commit_rate: 1000\n")
	s := serve(t, dir)
	for i := range each {
		var body bytes.Buffer
		for typ := range types {
			fmt.Fprintf(&body, "{\"type\":\"kind %d\",\"n\":%d,\"own_%d\":%d}\n", typ, i, typ, i*typ)
		}
		if a := s.post("", "application/x-ndjson", body.String()); a.Accepted != types {
			t.Fatalf("%+v", a)
		}
	}
	balanced(t, s, types*each)
	var query strings.Builder
	for typ := range types {
		if typ > 0 {
			query.WriteString(" union all ")
		}
		fmt.Fprintf(&query, "select %d typ, count(*) c, count(distinct n) d, sum(own_%d)::bigint s, count(distinct _type) k from kind_%d", typ, typ, typ)
	}
	rows := s.sql("select * from (" + query.String() + ") order by typ").lines()
	if len(rows) != types {
		t.Fatalf("%d tables", len(rows))
	}
	for typ, row := range rows {
		if want := fmt.Sprintf("%d|%d|%d|%d|1", typ, each, each, typ*each*(each-1)/2); row != want {
			t.Errorf("%s, want %s", row, want)
		}
	}
	if code := s.stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d", code)
	}
	deep(t, dir)
}

// balanced waits until so many acknowledged events are written, and checks the sum.
func balanced(t *testing.T, s *server, events int) {
	t.Helper()
	eventually(t, "everything written", func() (bool, string) { return caughtUp(s) })
	document, err := s.status()
	if err != nil {
		t.Fatal(err)
	}
	acknowledged, _ := sum(document, "acknowledged")
	written, _ := sum(document, "written")
	if int(acknowledged) != events || int(written) != events || document["balanced"] != true {
		t.Errorf("%v acknowledged, %v written, balanced %v; want %d", acknowledged, written, document["balanced"], events)
	}
}

// TestTenThousandTypes: the first thousand types get tables, the rest lands in
// _other, whole, with the envelope and the data as JSON. Nothing is lost or
// doubled, restarts among it. The limits are lower in make test.
func TestTenThousandTypes(t *testing.T) {
	t.Parallel()
	types, limit := short(1200, 10000), short(100, 1000)
	began := time.Now()
	dir := project(t, fmt.Sprintf("pipelines:\n  commit_interval: 1s\nlake:\n  commit_rate: 1000\n  max_tables: %d\n", limit))
	s := serve(t, dir)
	send := func(round int) {
		for from := 0; from < types; from += 1000 {
			var body bytes.Buffer
			for typ := from; typ < min(from+1000, types); typ++ {
				fmt.Fprintf(&body, "{\"type\":\"t%d\",\"round\":%d,\"value\":\"v%d\"}\n", typ, round, typ)
			}
			if a := s.post("", "application/x-ndjson", body.String()); len(a.Rejected) != 0 {
				t.Fatalf("%+v", a)
			}
		}
	}
	check := func(rounds int) {
		t.Helper()
		balanced(t, s, types*rounds)
		tables, _ := s.status()
		names := map[string]bool{}
		for _, x := range tables["tables"].([]any) {
			names[x.(map[string]any)["table"].(string)] = true
		}
		if len(names) < limit || len(names) > limit+1 || !names["events._other"] {
			t.Fatalf("%d tables, want %d and _other", len(names), limit)
		}
		own := 0
		for typ := range types {
			if names[fmt.Sprintf("events.t%d", typ)] {
				own++
			}
		}
		got := s.sql("select count(*), count(distinct _type), count(distinct (_type, data->>'round')), bool_and(data->>'value' = 'v' || _type[2:]) from _other").lines()[0]
		if want := fmt.Sprintf("%d|%d|%d|true", (types-own)*rounds, types-own, (types-own)*rounds); got != want {
			t.Errorf("_other: %s, want %s", got, want)
		}
		if got := s.cell("select string_agg(round::varchar || value, ',' order by round) from t7"); got != strings.Join([]string{"0v7", "1v7"}[:rounds], ",") {
			t.Errorf("t7: %s", got)
		}
	}
	send(0)
	check(1)
	s.kill()
	s = serve(t, dir)
	send(1)
	check(2)
	if code := s.stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d", code)
	}
	t.Logf("%d types twice in %v", types, time.Since(began).Round(time.Second))
	deep(t, dir)
}

// TestFiveThousandColumns: one event with 5,000 fields, and one with 5,000
// others. The table has a thousand columns, the rest stands in _rescued, and every value
// is exactly what was sent.
func TestFiveThousandColumns(t *testing.T) {
	t.Parallel()
	const fields, limit = 5000, 1000
	dir := project(t, "pipelines:\n  commit_interval: 200ms\n")
	s := serve(t, dir)
	value := func(row, i int) any {
		switch i % 4 {
		case 0:
			return json.Number(strconv.FormatInt(int64(i)*1_000_003+int64(row)<<40, 10))
		case 1:
			return fmt.Sprintf("\"%d\" é\n%d", row, i)
		case 2:
			return json.Number(fmt.Sprintf("%d.%d", i, row+1))
		}
		return i%8 == 3
	}
	name := func(row, i int) string { return fmt.Sprintf("f%d_%d", row/2, i) } // rows 0 and 1 share their fields, 2 has its own
	const rows = 3
	for row := range rows {
		event := map[string]any{"a_row": row} // the first of the names
		for i := range fields {
			event[name(row, i)] = value(row, i)
		}
		body, err := json.Marshal(event)
		if err != nil {
			t.Fatal(err)
		}
		s.post("?type=wide", "application/json", string(body))
	}
	balanced(t, s, rows)
	all := s.sql("select * exclude (_rescued), _rescued::varchar _rescued from wide order by a_row")
	if len(all.Rows) != rows || len(all.Columns) > limit || len(all.Columns) < limit-10 {
		t.Fatalf("%d rows of %d columns", len(all.Rows), len(all.Columns))
	}
	for row, cells := range all.Rows {
		got := map[string]any{}
		for i, c := range all.Columns {
			switch {
			case c.Name == "_rescued":
				d := json.NewDecoder(strings.NewReader(text(cells[i])))
				d.UseNumber()
				rescued := map[string]any{}
				if err := d.Decode(&rescued); err != nil {
					t.Fatalf("row %d: _rescued: %v", row, err)
				}
				for path, v := range rescued {
					if _, twice := got[path]; twice {
						t.Errorf("row %d: %s is a column and in _rescued", row, path)
					}
					got[path] = v
				}
			case !strings.HasPrefix(c.Name, "_") && cells[i] != nil:
				got[c.Name] = cells[i]
			}
		}
		if len(got) != fields+1 {
			t.Errorf("row %d has %d values, want %d", row, len(got), fields+1)
		}
		wrong := 0
		for i := range fields {
			if want, have := value(row, i), got[name(row, i)]; text(have) != text(want) {
				if wrong++; wrong < 5 {
					t.Errorf("row %d: %s is %v, want %v", row, name(row, i), have, want)
				}
			}
		}
		if wrong > 0 {
			t.Errorf("row %d: %d values are wrong", row, wrong)
		}
	}
	if code := s.stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d", code)
	}
	deep(t, dir)
}
