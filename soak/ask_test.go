package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// TestAskerNotices: a table that lies is found out by one question.
func TestAskerNotices(t *testing.T) {
	p := play(t, 6, 300)
	half := int64(len(p.rows) / 2)
	for name, c := range map[string]struct {
		lie func(rows []row) []row
		say string
	}{
		"the truth": {func(rows []row) []row { return rows }, ""},
		"a gap": {func(rows []row) []row { // larger than what is unknown
			return slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return r.conn == firstConn && r.offset < half })
		}, "want"},
		"a double": {func(rows []row) []row {
			return append([]row{rows[slices.IndexFunc(rows, func(r row) bool { return r.kind == 0 })]}, rows...)
		}, "sequence numbers"},
		"gone back": {func(rows []row) []row { return rows[:len(rows)/2] }, "before"},
	} {
		rows := c.lie(p.rows)
		web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			query, _ := io.ReadAll(r.Body)
			answer(t, w, string(query), rows)
		}))
		var found findings
		a := newAsker(6, p.accounts, &found)
		s := &server{life: 1, address: strings.TrimPrefix(web.URL, "http://"), http: web.Client()}
		for _, r := range p.rows { // what was seen before
			a.last[r.kind] = max(a.last[r.kind], r.offset)
		}
		if err := a.newest(t.Context(), s, 0); err != nil {
			t.Fatal(err)
		}
		web.Close()
		got := strings.Join(found.all(), "\n")
		if (c.say == "") != (got == "") || !strings.Contains(got, c.say) {
			t.Errorf("%s: want %q, found %s", name, c.say, got)
		}
	}
}

// answer plays the SQL of asker.newest.
func answer(t *testing.T, w io.Writer, query string, rows []row) {
	var lo int64
	_, rest, ok := strings.Cut(query, "_offset >= ")
	if _, err := fmt.Sscan(rest, &lo); !ok || err != nil {
		t.Errorf("unexpected question %s", query)
	}
	type counts struct {
		n, top int64
		seqs   map[int64]bool
	}
	by := map[int64]*counts{}
	for _, r := range rows {
		if r.kind != 0 || r.offset < lo {
			continue
		}
		if by[r.conn] == nil {
			by[r.conn] = &counts{seqs: map[int64]bool{}}
		}
		c := by[r.conn]
		c.n, c.top, c.seqs[r.seq] = c.n+1, max(c.top, r.offset), true
	}
	fmt.Fprintln(w, "conn,n,d,m")
	for conn, c := range by {
		fmt.Fprintf(w, "%d,%d,%d,%d\n", conn, c.n, len(c.seqs), c.top)
	}
}
