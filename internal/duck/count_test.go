package duck

import (
	"os"
	"strings"
	"testing"

	"naru/internal/event"
	"naru/internal/lake"
)

// A count of all rows opens no data file of the snapshot, and every other question
// does. What the hot tail has is counted as everywhere: the rows that belong to the
// view.
func TestCountReadsNoFiles(t *testing.T) {
	l := newLake(t)
	columns := []string{"1 _id string", "2 _log string", "3 _partition int", "4 _offset long", "5 n long"}
	fields := "_id: 1, _log: 2, _partition: 3, _offset: 4, n: 5"
	rows := "SELECT 'e' || i AS _id, '00000000-0000-0000-0000-000000000001' AS _log, 0::INT AS _partition, i AS _offset, i AS n FROM range(%s) t(i)"
	v := l.table("events.page", columns...)
	l.file(t, v, strings.Replace(rows, "%s", "0, 10", 1), fields)
	l.file(t, v, strings.Replace(rows, "%s", "10, 25", 1), fields)
	hot := l.table("events.hot", columns...)
	l.file(t, hot, strings.Replace(rows, "%s", "20, 60", 1), fields)
	delete(l.tables, hot.Ident)
	l.table("events.none", columns...)
	e := open(t, l, l.dir)

	same := []string{"SELECT count(*) FROM page", "SELECT count() AS n FROM events.page AS p", "select COUNT(*), count(*) again from page"}
	others := []string{
		"SELECT count(*) FROM page WHERE n >= 0", "SELECT count(n) FROM page", "SELECT count(*) FILTER (n >= 0) FROM page", "SELECT count(*) OVER () FROM page LIMIT 1",
		"SELECT count(*) FROM page GROUP BY ()", "SELECT count(*) FROM page HAVING count(_id) > 0", "SELECT count(*) + 0 FROM page", "SELECT count(DISTINCT _id) FROM page",
		"SELECT count(*) FROM (SELECT * FROM page)", "SELECT count(*) FROM page a JOIN page b USING (_id)", "SELECT count(*) FROM page TABLESAMPLE 100%", "WITH c AS (SELECT * FROM page) SELECT count(*) FROM c",
		"SELECT count(*), max(n) - 0 * max(n) FROM page", "SELECT count(*) FROM page UNION ALL SELECT count(*) FROM page LIMIT 1", "SELECT DISTINCT count(*) FROM page", "SELECT count(*) FROM page AS p(a)",
	}
	want := func(n string, all []string) {
		t.Helper()
		for _, sql := range all {
			got, err := ask(e, sql)
			if first, _, _ := strings.Cut(got, ","); err != nil || first != n {
				t.Errorf("%s: %q, %v, want %s", sql, got, err, n)
			}
		}
	}
	want("25", same)
	want("25", others)
	want("0", []string{"SELECT count(*) FROM none"})

	// Offsets 25 to 40 are behind the snapshot.
	v.Hot = &lake.Hot{Columns: hot.Columns, Files: hot.Files, Spans: []event.Span{{Incarnation: event.Incarnation{15: 1}, From: 25, To: 41}}}
	want("41", same)
	want("41", others[:3])

	for _, f := range v.Files {
		if err := os.Rename(f.Path, f.Path+".gone"); err != nil {
			t.Fatal(err)
		}
	}
	want("41", same)
	for _, sql := range others {
		if got, err := ask(e, sql); err == nil {
			t.Errorf("%s: %s, and there are no files", sql, got)
		}
	}
}
