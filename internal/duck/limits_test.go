package duck

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/query"
)

const endless = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = 7"

func TestLeaseUntilClose(t *testing.T) {
	l := shop(t)
	e := open(t, l, l.dir)
	rows, err := e.Query(context.Background(), query.Query{SQL: "SELECT * FROM page_view p, click c, page_view q"})
	if err != nil {
		t.Fatal(err)
	}
	if n := l.leases.Load(); n != 2 {
		t.Errorf("%d leases are out while two tables are read", n)
	}
	for rows.Next() {
	}
	if n := l.leases.Load(); n != 2 {
		t.Errorf("%d leases are out before Close", n)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		t.Error(err)
	}
	if n := l.leases.Load(); n != 0 {
		t.Errorf("%d leases are out after Close", n)
	}
}

func TestTimeLimit(t *testing.T) {
	l := shop(t)
	e := open(t, l, l.dir)
	for _, sql := range []string{endless, "SELECT *, (" + endless + ") FROM page_view"} {
		_, err := e.Query(context.Background(), query.Query{SQL: sql, Timeout: 30 * time.Millisecond})
		if !errors.Is(err, query.ErrTimeout) {
			t.Errorf("%s: %v", sql, err)
		}
	}
	// The limit also ends an answer that has begun, by then on a slow machine too.
	var rows query.Rows
	err := query.ErrTimeout
	for limit := 100 * time.Millisecond; errors.Is(err, query.ErrTimeout) && limit < time.Minute; limit *= 2 {
		rows, err = e.Query(context.Background(), query.Query{SQL: "FROM range(100000000000)", Timeout: limit, MaxRows: 1})
	}
	if err != nil {
		t.Fatal(err)
	}
	r := rows.(interface{ setMaxRows(int64) })
	r.setMaxRows(1 << 60)
	for rows.Next() {
	}
	if !errors.Is(rows.Err(), query.ErrTimeout) {
		t.Errorf("endless rows ended with %v", rows.Err())
	}
	if err := rows.Close(); err != nil {
		t.Error(err)
	}
	if n := l.leases.Load(); n != 0 {
		t.Errorf("%d leases are out", n)
	}
}

func TestCancel(t *testing.T) {
	l := shop(t)
	l.viewed = make(chan struct{})
	e := open(t, l, l.dir)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := e.Query(ctx, query.Query{SQL: "SELECT *, (" + endless + ") FROM page_view"})
		done <- err
	}()
	<-l.viewed // it has begun
	l.viewed = nil
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled query gave %v", err)
	}
	e.work.Wait()
	if n := l.leases.Load(); n != 0 {
		t.Errorf("%d leases are out", n)
	}
	// Amid the rows.
	ctx, cancel = context.WithCancel(context.Background())
	rows, err := e.Query(ctx, query.Query{SQL: "SELECT * FROM page_view, range(100000000)"})
	if err != nil || !rows.Next() {
		t.Fatal(err)
	}
	cancel()
	for rows.Next() {
	}
	if !errors.Is(rows.Err(), context.Canceled) {
		t.Errorf("cancelled rows ended with %v", rows.Err())
	}
	rows.Close()
	check(t, e, map[string]string{"SELECT 1": "1"})
}

// TestUnheeding: what does not heed its context keeps its place and its lease,
// but not its client.
func TestUnheeding(t *testing.T) {
	l := shop(t)
	e := open(t, l, l.dir, func(c *Config) { c.Concurrent, c.Wait = 1, 0 })
	l.block, l.blocked = make(chan struct{}), make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-l.blocked; cancel() }()
	if _, err := e.Query(ctx, query.Query{SQL: "FROM page_view"}); !errors.Is(err, context.Canceled) {
		t.Errorf("a blocked query gave %v", err)
	}
	if _, err := e.Query(context.Background(), query.Query{SQL: "SELECT 1"}); !errors.Is(err, query.ErrTooMany) {
		t.Errorf("the place of a blocked query was given away: %v", err)
	}
	close(l.block)
	e.work.Wait()
	if n := l.leases.Load(); n != 0 {
		t.Errorf("%d leases are out", n)
	}
	check(t, e, map[string]string{"SELECT 1": "1"})
}

func TestTooMany(t *testing.T) {
	l := shop(t)
	e := open(t, l, l.dir, func(c *Config) { c.Concurrent, c.Wait = 2, quantity.Duration(time.Millisecond) })
	var held []query.Rows
	for range 2 {
		rows, err := e.Query(context.Background(), query.Query{SQL: "FROM page_view"})
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, rows)
	}
	_, err := e.Query(context.Background(), query.Query{SQL: "SELECT 1"})
	var later *fault.RetryAfter
	if !errors.Is(err, query.ErrTooMany) || !errors.As(err, &later) || later.After <= 0 {
		t.Errorf("the third of two gave %v", err)
	}
	for _, rows := range held {
		rows.Close()
	}
	check(t, e, map[string]string{"SELECT 1": "1"})
}

func TestManyAtOnce(t *testing.T) {
	l := shop(t)
	e := open(t, l, l.dir, func(c *Config) { c.Wait = quantity.Duration(time.Minute) })
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			got, err := ask(e, fmt.Sprintf("SELECT count(*) + %d FROM page_view p, click c", i))
			if err != nil || got != fmt.Sprint(30+i) {
				t.Errorf("query %d: %q, %v", i, got, err)
			}
		})
	}
	all.Wait()
	if n := l.leases.Load(); n != 0 {
		t.Errorf("%d leases are out", n)
	}
}

func TestLimits(t *testing.T) {
	l := shop(t)
	e := open(t, l, l.dir, func(c *Config) { c.MaxRows, c.MaxResult, c.MaxSQL = 5000, 100*quantity.KiB, 200 })
	for sql, want := range map[string]int{
		"FROM range(5000)": 5000, "FROM range(5001)": -5000, "FROM range(1000000000)": -5000, "SELECT repeat('x', 1000) FROM range(1000)": -101,
	} {
		rows, err := e.Query(context.Background(), query.Query{SQL: sql})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for rows.Next() {
			n++
		}
		if cut := want < 0; cut != errors.Is(rows.Err(), fault.ErrLimit) || n != max(want, -want) {
			t.Errorf("%s: %d rows, %v", sql, n, rows.Err())
		}
		rows.Close()
	}
	rows, err := e.Query(context.Background(), query.Query{SQL: "FROM range(10)", MaxRows: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		n++
	}
	if n != 3 || !errors.Is(rows.Err(), fault.ErrLimit) {
		t.Errorf("a query's own limit of 3 gave %d rows, %v", n, rows.Err())
	}
	if _, err := e.Query(context.Background(), query.Query{SQL: "SELECT '" + strings.Repeat("x", 200) + "'"}); !errors.Is(err, fault.ErrLimit) {
		t.Errorf("a long statement gave %v", err)
	}
}

// TestLargeValues: what DuckDB's memory limit does not count is bounded by value.
func TestLargeValues(t *testing.T) {
	l := shop(t)
	e := open(t, l, l.dir)
	for _, sql := range []string{
		"SELECT repeat('x', 3000000000)", "SELECT len(repeat(repeat('x', 1000), 1000))", "SELECT lpad('x', 1000000, 'y')", "SELECT rpad(page, (n * 1000000)::INT, 'y') FROM page_view", "SELECT 'x'.repeat(100000)", "SELECT REPEAT([1], 100000)",
		"SELECT range(200000000)", "SELECT range(1, 200000000)", "SELECT range(1, 200000000, 2)", "SELECT range(200000000, 1, -1)", "SELECT generate_series(100000)", "SELECT unnest(range(n * 100000)) FROM page_view",
		"SELECT list_resize([1], 300000000)", "SELECT array_resize([1], 300000000, 0)", "SELECT bitstring('1', 2000000000)", "SELECT to_base(1, 2, 1000000000)", "SELECT bar(1, 0, 1, 1000000000)",
		"SELECT list_transform([100000], x -> repeat('a', x))", "SELECT CASE WHEN true THEN repeat('x', 100000) END", "WITH a AS (SELECT repeat('x', 100000) AS s) SELECT len(s) FROM a",
	} {
		_, err := ask(e, strings.ReplaceAll(sql, "'x'.repeat", "('x').repeat"))
		if !errors.Is(err, query.ErrSQL) || !strings.Contains(err.Error(), "would make a value of more than 65536") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	for sql, want := range map[string]string{
		"SELECT levenshtein(repeat('a', 5000), repeat('b', 5000))":                     "takes too much memory",
		"SELECT editdist3(repeat('a', 5000), repeat('b', 5000))":                       "takes too much memory",
		"SELECT damerau_levenshtein(repeat('a', 60000), repeat('b', 60000))":           "takes too much memory",
		"SELECT replace(repeat('x', 1025), 'x', repeat('y', 1025))":                    "would lengthen a text by more than",
		"SELECT regexp_replace(repeat('x', 1025), 'x', repeat('y', 1025), 'g')":        "takes no text and replacement",
		"SELECT regexp_replace(repeat('x', 65536), '.*', repeat('\\0', 3000))":         "takes no text and replacement",
		"SELECT json_structure({deep})":                                                "may be too deep",
		"SELECT json_structure({deep}::JSON)":                                          "may be too deep",
		"SELECT json_group_structure({deep}::JSON)":                                    "may be too deep",
		"SELECT json_contains({deep}, '1')":                                            "may be too deep",
		"SELECT json_contains('1', {deep})":                                            "may be too deep",
		"SELECT json_merge_patch('{}', {deep})":                                        "may be too deep",
		"SELECT json_merge_patch('{}', '{}', {deep})":                                  "may be too deep",
		"SELECT json_transform('[]', '" + strings.Repeat("[", 100000) + "')":           "lists and objects are the most",
		"SELECT from_json_strict('[]', '" + strings.Repeat(`{"a":`, 100000) + "')":     "lists and objects are the most",
		"SELECT json_transform('[]', repeat('[', 40000) || '1' || repeat(']', 40000))": "structure that is computed",
		"SELECT {deep}::JSON::VARIANT":                                                 "the type VARIANT is refused",
		"SELECT TRY_CAST({deep}::JSON AS Variant[])":                                   "the type VARIANT is refused",
		"SELECT ({deep}::JSON)::STRUCT(a VARIANT)":                                     "the type VARIANT is refused",
		"SELECT ({deep}::JSON)::MAP(VARCHAR, VARIANT)":                                 "the type VARIANT is refused",
		"SELECT variant_typeof({deep}::JSON)":                                          "variant_typeof is refused",
	} {
		deep := `(SELECT string_agg(repeat('{"a":', 10000), '') || '1' || string_agg(repeat('}', 10000), '') FROM range(20))`
		if _, err := ask(e, strings.ReplaceAll(sql, "{deep}", deep)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", sql[:min(len(sql), 80)], err)
		}
	}
	for _, name := range query.GuardedFunctions() {
		if len(guards[name]) == 0 || query.JudgeFunction(name) != query.Allowed {
			t.Errorf("%s has no guard", name)
		}
	}
	check(t, e, map[string]string{
		"SELECT levenshtein('ab', 'ac'), editdist3('ab', 'ac'), damerau_levenshtein('ab', 'ba'), levenshtein(NULL, 'a') IS NULL":                                       "1,1,1,true",
		`SELECT json_structure('{"a":[1]}')::VARCHAR = '{"a":["UBIGINT"]}', json_contains('[1, 2]', '2'), json_contains('[1]'::JSON, 3), json_structure(NULL) IS NULL`: "true,true,false,true",
		`SELECT json_merge_patch('{"a":1}', '{"b":2}')::VARCHAR = '{"a":1,"b":2}', json_merge_patch('{}', '{"a":1}', '{"a":2}')::VARCHAR = '{"a":2}'`:                  "true,true",
		`SELECT json_structure(concat('[', repeat('[],', 9000), '1]'))::VARCHAR = '["JSON"]', json_transform('{"a":1}', '{"a":"INT"}').a`:                              "true,1",
	})
	nested := "'abc'"
	for range 15 { // calls within calls are common, and not the dearer for it
		nested = "regexp_replace(replace(" + nested + ", 'a', 'ab'), '(b)', '\\1', 'g')"
	}
	check(t, e, map[string]string{
		"SELECT len(" + nested + ")": "18",
		"SELECT replace('aXbX', 'X', 'yy'), replace(NULL, 'a', 'b') IS NULL, replace('ab', '', 'x'), replace('{\"a\":1}'::JSON, 'a', 'bb') = '{\"bb\":1}'":                                                 "ayybyy,true,ab,true",
		"SELECT len(replace(s, ',', ', ')), len(replace(s, 'x', '')) FROM (SELECT string_agg(repeat('x', 9999), ',') AS s FROM range(200))":                                                                "2000198,199",
		"SELECT regexp_replace('abc', 'B', 'x', 'i'), regexp_replace('aa', 'a', '[\\0]', 'g'), regexp_replace(s, 'x', repeat('y', 100)) = repeat('y', 100) || s[2:] FROM (SELECT repeat('x', 60000) AS s)": "axc,[a][a],true",
		"SELECT list_transform(['a', 'ba'], x -> replace(x, 'a', x)), regexp_replace(page, 'p', '_', 'g') FROM page_view WHERE n = 1":                                                                      `"[""a"", ""bba""]",_1`,
	})
	check(t, e, map[string]string{"SELECT len(repeat('x', 65536)), len(range(65536)), (SELECT count(*) FROM range(1000000))": "65536,65536,1000000"})
}

// TestDepth: no statement, however deep or long, ends the process, and none that
// is refused for it takes long.
func TestDepth(t *testing.T) {
	l := shop(t)
	e := open(t, l, l.dir)
	const n = 20000
	for _, sql := range []string{
		"SELECT " + strings.Repeat("(", n) + "1" + strings.Repeat(")", n), "SELECT " + strings.Repeat("[", n) + "1" + strings.Repeat("]", n), "SELECT " + strings.Repeat("NOT ", n) + "true",
		"SELECT 1" + strings.Repeat("+1", n), "SELECT 'a'" + strings.Repeat("||'a'", n), "SELECT " + strings.Repeat("- ", n) + "1", "SELECT 1" + strings.Repeat("::INT", n), "SELECT x" + strings.Repeat(".a", n),
		"SELECT " + strings.Repeat("abs(", n) + "1" + strings.Repeat(")", n), "SELECT " + strings.Repeat("CASE WHEN true THEN ", n) + "1" + strings.Repeat(" END", n), strings.Repeat("SELECT (", n) + "1" + strings.Repeat(")", n),
		strings.Repeat("SELECT * FROM (", n) + "SELECT 1" + strings.Repeat(")", n), "SELECT 1" + strings.Repeat(" UNION SELECT 1", n), strings.Repeat("WITH a AS (", n) + "SELECT 1" + strings.Repeat(") FROM a", n),
		"SELECT * FROM range(1)" + strings.Repeat(", range(1)", n), "SELECT 1::" + strings.Repeat("STRUCT(a ", n) + "INT" + strings.Repeat(")", n), "SELECT " + strings.Repeat("x -> ", n) + "1",
		"SELECT 1" + strings.Repeat(";SELECT 1", n), strings.Repeat("/*", n), strings.Repeat("EXPLAIN ", n) + "SELECT 1", "SELECT " + strings.Repeat("1,", 200_000) + "1",
	} {
		_, err := ask(e, sql)
		if err == nil || !query.IsStatementError(err) {
			t.Errorf("%.40s...: %v", sql, err)
		} else if strings.Contains(err.Error(), "SET ") {
			t.Errorf("%.40s...: the advice cannot be followed: %v", sql, err)
		}
	}
	check(t, e, map[string]string{
		"SELECT 1 IN (" + strings.Repeat("0,", 10000) + "1)":                        "true",
		"SELECT count(*) FROM click WHERE x = 1" + strings.Repeat(" OR x = 2", 500): "2",
	})
}

func TestClose(t *testing.T) {
	l := shop(t)
	l.viewed = make(chan struct{})
	e := open(t, l, l.dir)
	done := make(chan error, 1)
	go func() {
		_, err := ask(e, "SELECT *, ("+endless+") FROM page_view")
		done <- err
	}()
	<-l.viewed
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, errClosed) || !fault.IsTransient(err) {
		t.Errorf("a query under way at Close ended with %v", err)
	}
	if _, err := ask(e, "SELECT 1"); !errors.Is(err, errClosed) {
		t.Errorf("a query after Close gave %v", err)
	}
}

// TestBrokenInstance: after an internal error of DuckDB the next query gets a
// new instance, while one under way may end on the old one.
func TestBrokenInstance(t *testing.T) {
	l := shop(t)
	e := open(t, l, l.dir)
	rows, err := e.Query(context.Background(), query.Query{SQL: "SELECT n FROM page_view"})
	if err != nil {
		t.Fatal(err)
	}
	old := e.mu.current
	old.spoil()
	check(t, e, map[string]string{"SELECT count(*) FROM page_view": "10"})
	if e.mu.current == old {
		t.Error("the broken instance is still in use")
	}
	n := 0
	for rows.Next() {
		n++
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || n != 10 {
		t.Errorf("%d rows, %v", n, err)
	}
	check(t, e, map[string]string{"SELECT count(*) FROM page_view": "10"})
}

// TestSpill: a sort larger than the memory limit goes through the folder for
// spilling, although DuckDB may read the warehouse only; what a former process
// left there is gone after Open.
func TestSpill(t *testing.T) {
	l := shop(t)
	temp := t.TempDir()
	left, other := filepath.Join(temp, "duckdb_temp_storage_DEFAULT-0.tmp"), filepath.Join(temp, "notes.txt")
	for _, f := range []string{left, other} {
		if err := os.WriteFile(f, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	e := open(t, l, l.dir, func(c *Config) { c.Memory, c.Temp = 64*quantity.MiB, temp })
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", left, err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("a foreign file was removed: %v", err)
	}
	const sort = "SELECT s, row_number() OVER (ORDER BY hash(i)) FROM (SELECT i, repeat(i::VARCHAR, 20) AS s FROM range(600000) t(i))"
	for range 2 { // the second time in an instance that has been renewed
		rows, err := e.Query(context.Background(), query.Query{SQL: sort})
		if err != nil {
			t.Fatal(err)
		}
		if spilled, _ := filepath.Glob(left[:len(temp)] + "/duckdb_temp_*"); len(spilled) == 0 {
			t.Error("nothing was spilled: the test's sort is too small")
		}
		if !rows.Next() || rows.Values()[1] != int64(1) {
			t.Errorf("the first row is %v, %v", rows.Values(), rows.Err())
		}
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
		e.renew(dueOf(e))
	}

	tight := open(t, l, l.dir, func(c *Config) { c.Memory, c.TempSize = 64*quantity.MiB, quantity.MiB })
	_, err := ask(tight, "SELECT max(len(l)) FROM (SELECT list(repeat(i::VARCHAR, 100)) AS l FROM range(1000000) t(i))")
	if !errors.Is(err, query.ErrSQL) || !strings.HasPrefix(err.Error(), "Out of Memory Error") || strings.Contains(err.Error(), "solutions") || fault.HintOf(err) == "" {
		t.Errorf("a list without room gave %v", err)
	}
	check(t, tight, map[string]string{"SELECT 1": "1"})
}

// TestDiskTrouble: what the disk does is not the statement's fault and may pass.
func TestDiskTrouble(t *testing.T) {
	l := shop(t)
	temp := filepath.Join(t.TempDir(), "spill")
	e := open(t, l, l.dir, func(c *Config) { c.Memory, c.Temp = 64*quantity.MiB, temp })
	if err := os.RemoveAll(temp); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(temp, nil, 0o644); err != nil { // nothing can be written below it
		t.Fatal(err)
	}
	_, err := ask(e, "SELECT s, row_number() OVER (ORDER BY hash(i)) FROM (SELECT i, repeat(i::VARCHAR, 20) AS s FROM range(600000) t(i))")
	var later *fault.RetryAfter
	if !errors.As(err, &later) || later.After != diskPause || query.IsStatementError(err) || !strings.Contains(err.Error(), "IO Error") || fault.HintOf(err) == "" || strings.Contains(err.Error(), temp) {
		t.Errorf("a folder for spilling that is gone gave %v", err)
	}
	check(t, e, map[string]string{"SELECT 1": "1"})
}

func TestConfig(t *testing.T) {
	good := DefaultConfig()
	good.Warehouse, good.Temp = "/w", "/t"
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*Config){
		"memory": func(c *Config) { c.Memory = 1 }, "threads": func(c *Config) { c.Threads = 0 }, "concurrent": func(c *Config) { c.Concurrent = 0 }, "timeout": func(c *Config) { c.Timeout = 0 },
		"max_rows": func(c *Config) { c.MaxRows = 0 }, "max_sql": func(c *Config) { c.MaxSQL = 0 }, "warehouse": func(c *Config) { c.Warehouse = "w" }, "temp": func(c *Config) { c.Temp = "" },
	} {
		c := good
		spoil(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("a bad %s gave %v", name, err)
		}
	}
}

// setMaxRows lifts the limit of rows under way, for tests of the other limits.
func (r *rows) setMaxRows(n int64) { r.maxRows = n }
