package duck

import (
	"strings"
	"testing"
)

func TestAnswers(t *testing.T) {
	l := shop(t)
	e := open(t, l, l.dir)
	for sql, want := range map[string]string{
		"SELECT count(*), sum(n), min(_time), max(_time) FROM page_view":                    "10,45,2024-01-02T03:00:00Z,2024-01-02T03:09:00Z",
		"SELECT events.page_view.page, count(*) FROM events.page_view GROUP BY 1 ORDER BY 1": "p0,4\np1,3\np2,3",
		"SELECT tags FROM events.page_view WHERE n = 3":                                      `"[""a"", null, ""b3""]"`,
		"SELECT count(*), max(n) FROM empty":                                                 "0,",
		"SELECT typeof(_time), typeof(tags) FROM page_view LIMIT 1":                          "TIMESTAMP WITH TIME ZONE,VARCHAR[]",
		"FROM click ORDER BY x LIMIT 1":                                                      "c0,0",
		"FROM shop.click":                                                                    "s1",
		"SELECT total FROM \"order\"":                                                        "12345678901234.50",
		"SELECT * FROM ORDER_ o, Shop.\"Order\" p":                                           "",
		"FROM rejected":                                                                      "not_json,eyJhIjo=",
		"FROM rejected.rejected":                                                             "not_json,eyJhIjo=",
		"SELECT hour(_time), strftime(_time, '%H:%M') FROM page_view WHERE n = 1":            "3,03:01",
		"SELECT c.x, s._id FROM click c, shop.click s ORDER BY 1 LIMIT 1":                    "0,s1",
		"SHOW TABLES":                        "a,twin\nb,twin\nevents,click\nevents,empty\nevents,page_view\nrejected,rejected\nshop,click\nshop,order",
		"SELECT column_name, column_type FROM (DESCRIBE click)": "_id,VARCHAR\nx,INTEGER",
		"DESCRIBE shop.order":                                   "_id,VARCHAR,YES,,,\ntotal,\"DECIMAL(18,2)\",YES,,,",
		"SELECT column_name, count FROM (SUMMARIZE click)":      "_id,3\nx,3",
	} {
		got, err := ask(e, sql)
		if want == "" {
			if err == nil {
				t.Errorf("%s: answered %q", sql, got)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%s:\n got %q, %v\nwant %q", sql, got, err, want)
		}
	}
	for _, sql := range []string{"FROM twin", "FROM nothing", "FROM pageview", "SELECT nope FROM page_view", "SELEC 1", "SELECT 1;\nSELECT\n  2", "SELECT read_text('x')", "FROM read_csv('/etc/passwd')",
		"SELECT 'x'::INT", "SELECT a'", "EXPLAIN SELECT * FROM page_view WHERE n=3", "EXPLAIN ANALYZE SELECT * FROM page_view WHERE n=3", "EXPLAIN ANALYZE\n FROM pagview", "SELECT ?", "SELECT filename FROM page_view",
		"SELECT n::INT FROM page_view WHERE tags[3]::INT > 2", "FROM Event.page_view", "COPY click TO 'x'", "PIVOT click ON x", "SHOW DATABASES", "CALL x()", "",
	} {
		got, err := ask(e, sql)
		t.Logf("%s:\n%s%v", sql, got, err)
	}
	if n := l.leases.Load(); n != 0 {
		t.Errorf("%d leases are still out", n)
	}
	_ = strings.Join
}
