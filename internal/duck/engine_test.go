package duck

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"naru/internal/lake"
	"naru/internal/query"
)

// check asks and compares; an answer that begins with "error: " is the first
// line of an error.
func check(t *testing.T, e *Engine, answers map[string]string) {
	t.Helper()
	for sql, want := range answers {
		got, err := ask(e, sql)
		if err != nil {
			got = "error: " + firstLine(err)
		}
		if got != want {
			t.Errorf("%s:\n got %q\nwant %q", sql, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	l := shop(t)
	e := open(t, l, l.dir)
	check(t, e, map[string]string{
		"SELECT count(*) FROM page_view":                     "10", // in events
		"SELECT count(*) FROM events.page_view":              "10",
		"FROM click LIMIT 1":                                 "c0,0", // events before shop
		"FROM shop.click":                                    "s1",
		`SELECT total FROM "order"`:                          "12345678901234.50", // unique elsewhere
		`SELECT total FROM Shop."Order"`:                     "12345678901234.50",
		"SELECT reason FROM rejected":                        "not_json",
		"SELECT reason FROM rejected.rejected":               "not_json",
		"SELECT a._id FROM click a, shop.click LIMIT 1":      "c0", // one name, two tables
		"SELECT count(*) FROM rejected, rejected.rejected r": "1",
		"FROM twin":             "error: Binder Error: the name twin is ambiguous: it may be a.twin or b.twin; write one of these",
		"FROM a.twin":           "",
		"FROM nothing":          "error: Catalog Error: there is no table nothing; SHOW TABLES lists all",
		"FROM pageview":         "error: Catalog Error: there is no table pageview; did you mean page_view?",
		"FROM event.page_view":  "error: Catalog Error: there is no table event.page_view; did you mean events.page_view?",
		"FROM events.\"order\"": "error: Catalog Error: there is no table events.order; did you mean shop.order?",
	})
	empty := newLake(t)
	check(t, open(t, empty, empty.dir), map[string]string{
		"FROM page_view": "error: Catalog Error: there is no table page_view: the lake has no tables yet; one appears with its first event",
		"SHOW TABLES":    "",
		"SELECT 1":       "1",
	})
	foreign := newLake(t)
	foreign.table("events.журнал", "1 a long")
	check(t, open(t, foreign, foreign.dir), map[string]string{
		"SELECT count(*) FROM журнал": "0",
		"FROM ЖУРНАЛ":                 "error: Catalog Error: there is no table ЖУРНАЛ; did you mean журнал?",
	})
	odd := newLake(t)
	odd.table("memory.t", "1 a long")
	odd.table("main.t2", "1 a long")
	odd.table(`we"ird.na"me`, `1 co"l long`)
	odd.table("events.T", "1 upper long")
	odd.table("events.t", "1 lower long")
	check(t, open(t, odd, odd.dir), map[string]string{
		"SELECT count(*) FROM memory.t":                 "error: Binder Error: DuckDB keeps the name memory for itself: write tables of this stream without the stream's name",
		"SELECT count(*) FROM main.t2":                  "0",
		"SELECT count(*) FROM t2":                       "0",
		`SELECT count("co""l") FROM "we""ird"."na""me"`: "0",
		"SELECT column_name FROM (DESCRIBE t)":          "lower",
		`SELECT column_name FROM (DESCRIBE events."T")`: "upper",
	})
}

func TestErrorsHavePlaces(t *testing.T) {
	l := shop(t)
	e := open(t, l, l.dir)
	for sql, want := range map[string]string{
		"SELECT nope\nFROM page_view":     "LINE 1: SELECT nope",
		"SELECT 1,\n  FROM\n  pagview":    "LINE 3:   pagview\n          ^",
		"SELECT\n\t'x'::INT":              "LINE 2: \t'x'::INT",
		"SELECT 1\nFORM x y":              "LINE 2: FORM x y\n             ^",
		"EXPLAIN\nSELECT 1 + 'x'":         "LINE 2: SELECT 1 + 'x'",
		"EXPLAIN ANALYZE SELECT nope":     "LINE 1: EXPLAIN ANALYZE SELECT nope\n                               ^",
		"SELECT 한국, current_setting('x')": "LINE 1: SELECT 한국, current_setting('x')\n                   ^",
	} {
		_, err := ask(e, sql)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q:\n%v\nhas not\n%s", sql, err, want)
		}
	}
}

func TestExplainNamesNoFiles(t *testing.T) {
	l := shop(t)
	e := open(t, l, l.dir)
	for _, sql := range []string{
		"EXPLAIN SELECT * FROM page_view", "EXPLAIN ANALYZE SELECT * FROM page_view",
		"EXPLAIN ANALYZE SELECT * FROM page_view JOIN click ON n = x JOIN shop.\"order\" o ON true",
		" /* c */ explain -- x\n analyze\n FROM click;",
	} {
		plan, err := ask(e, sql)
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			continue
		}
		if !strings.Contains(plan, "READ_PARQUET") {
			t.Errorf("%s: no plan: %s", sql, plan)
		}
		for _, part := range []string{"/tmp", ".parquet", "_time_day", "_naru"} {
			if strings.Contains(plan, part) {
				t.Errorf("%s: the plan has %q:\n%s", sql, part, plan)
			}
		}
	}
}

// TestFieldIDs: columns are matched by id, so that a table reads the same
// through files of several schemas.
func TestFieldIDs(t *testing.T) {
	l := newLake(t)
	v := l.table("events.t", "1 _id string", "2 amount double", "3 items list<long>", "4 label string", "5 seen timestamptz", "6 day date", "8 raw binary", "9 ok boolean", "10 lists list<list<string>>", "11 flags list<boolean>")
	l.file(t, v, `SELECT 'a' AS _id, 1::BIGINT AS old_amount, [1, 2]::INT[] AS things, 'x' AS name`, `_id: 1, old_amount: 2, things: {__duckdb_field_id: 3, element: 7}, name: 4`)
	l.file(t, v, `SELECT 2.5::DOUBLE AS amount, 'b' AS _id, TIMESTAMPTZ '2024-01-01 09:00:00+09' AS seen`, `amount: 2, _id: 1, seen: 5`)
	l.file(t, v, `SELECT 'c' AS _id, [3, NULL]::BIGINT[] AS items, 'dropped' AS amount, DATE '2024-02-29' AS day, '\x00'::BLOB AS raw, true AS ok, [['q'], []] AS lists, [true] AS flags`,
		`_id: 1, items: {__duckdb_field_id: 3, element: 7}, amount: 99, day: 6, raw: 8, ok: 9, lists: {__duckdb_field_id: 10, element: {__duckdb_field_id: 12, element: 13}}, flags: {__duckdb_field_id: 11, element: 14}`)
	v.Files = append(v.Files, v.Files[0], v.Files[2]) // as split tasks name a file twice
	e := open(t, l, l.dir)
	check(t, e, map[string]string{
		"SELECT _id, amount, items, label FROM t ORDER BY _id":                                          "a,1.0,\"[1, 2]\",x\nb,2.5,,\nc,,\"[3, null]\",",
		"SELECT seen, day, raw, ok, lists, flags FROM t ORDER BY _id":                                   ",,,,,\n2024-01-01T00:00:00Z,,,,,\n,2024-02-29,AA==,true,\"[[\"\"q\"\"], []]\",[true]",
		"SELECT count(*), sum(len(items)), sum(amount) FROM t":                                          "3,4,3.5",
		"SELECT _id FROM t WHERE list_contains(items, 3)":                                               "c",
		"SELECT _id FROM t WHERE label = 'x' AND amount = 1":                                            "a",
		"SELECT typeof(amount), typeof(items), typeof(seen), typeof(raw), typeof(lists) FROM t LIMIT 1": "DOUBLE,BIGINT[],TIMESTAMP WITH TIME ZONE,BLOB,VARCHAR[][]",
		"SELECT unnest(items) AS i FROM t ORDER BY i NULLS FIRST":                                       "\"\"\n1\n2\n3",
	})
}

func TestPathsWithPatternCharacters(t *testing.T) {
	l := newLake(t)
	l.dir = filepath.Join(t.TempDir(), "a[b]c", "d*e?'f")
	v := l.table("events.t", "1 a long")
	l.file(t, v, "SELECT 1::BIGINT AS a", "a: 1")
	check(t, open(t, l, l.dir), map[string]string{"SELECT sum(a) FROM t": "1"})
}

func TestWarehouseBehindLink(t *testing.T) {
	l := shop(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(l.dir, link); err != nil {
		t.Fatal(err)
	}
	check(t, open(t, l, link), map[string]string{"SELECT count(*) FROM page_view": "10"})
}

func TestTableThatCannotBeRead(t *testing.T) {
	l := newLake(t)
	l.table("events.odd", "1 a variant")
	gone := l.table("events.gone", "1 a long")
	gone.Files = []lake.File{{Path: filepath.Join(l.dir, "gone.parquet")}}
	e := open(t, l, l.dir)
	for sql, want := range map[string]string{
		"FROM odd":  `read table events.odd: column "a": type "variant" cannot be queried`,
		"FROM gone": "gone.parquet",
	} {
		_, err := ask(e, sql)
		if err == nil || query.IsStatementError(err) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), l.dir) {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if n := l.leases.Load(); n != 0 {
		t.Errorf("%d leases are out", n)
	}
}

// TestSandbox goes past the gate on purpose: DuckDB's own locks are the second
// line.
func TestSandbox(t *testing.T) {
	l := shop(t)
	e := open(t, l, l.dir)
	outside := filepath.Join(t.TempDir(), "outside.csv")
	if err := os.WriteFile(outside, []byte("a\n1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	in, err := e.instance()
	if err != nil {
		t.Fatal(err)
	}
	defer in.leave()
	c, err := in.db.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for _, sql := range []string{
		"FROM read_text('/etc/passwd')", "FROM '/etc/passwd'", "FROM read_csv('" + outside + "')", "FROM '" + outside + "'", "FROM glob('/etc/*')", "FROM sniff_csv('" + outside + "')",
		"FROM query('FROM read_text(''/etc/passwd'')')", "FROM read_text('" + l.dir + "/../../../../../etc/passwd')",
		"COPY (SELECT 1) TO '" + outside + ".parquet'", "ATTACH '" + outside + ".db'", "FROM 'https://example.com/x.csv'", "FROM 's3://a/b.parquet'",
		"SET threads = 9", "SET memory_limit = '9GB'", "SET GLOBAL enable_external_access = true", "RESET allowed_directories", "SET allowed_directories = ['/']",
		"SET temp_directory = '/etc'", "SET max_expression_depth = 100000", "INSTALL httpfs", "LOAD httpfs", "LOAD '" + outside + "'", "CREATE PERSISTENT SECRET s (TYPE http)", "EXPORT DATABASE '" + outside + ".dir'",
	} {
		if err := c.exec(sql); err == nil {
			t.Errorf("%s: was done", sql)
		}
	}
	left, err := filepath.Glob(outside + "?*")
	if err != nil || len(left) > 0 {
		t.Errorf("files were written: %v, %v", left, err)
	}
}

// TestNothingStays: a query finds nothing of another one, and leaves nothing.
func TestNothingStays(t *testing.T) {
	l := shop(t)
	e := open(t, l, l.dir)
	for range 3 {
		for _, sql := range []string{"FROM page_view", "FROM nope", "SELECT 1/0", "SELECT 'x'::INT FROM page_view", "SHOW TABLES", "FROM range(100000)"} {
			rows, err := e.Query(context.Background(), query.Query{SQL: sql})
			if err == nil {
				rows.Next() // and leave the rest
				if err := errors.Join(rows.Close(), rows.Close()); err != nil {
					t.Error(err)
				}
				if rows.Next() {
					t.Errorf("%s: a row after Close", sql)
				}
			}
		}
	}
	in, err := e.instance()
	if err != nil {
		t.Fatal(err)
	}
	defer in.leave()
	if err := in.mu.admin.exec("SELECT CASE WHEN count(*) > 0 THEN error(string_agg(database_name)) END FROM duckdb_databases() WHERE database_name LIKE '%naru%'"); err != nil {
		t.Errorf("catalogs stay: %v", err)
	}
	if n := l.leases.Load(); n != 0 {
		t.Errorf("%d leases are out", n)
	}
	if n := len(e.slots); n != 0 {
		t.Errorf("%d places are taken", n)
	}
}
