package duck

import (
	"context"
	"encoding/json"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"naru/internal/query"
)

// TestValues: every type of DuckDB as the seam documents it. The text forms are
// compared with DuckDB's own.
func TestValues(t *testing.T) {
	l := newLake(t)
	e := open(t, l, l.dir)
	big1, _ := new(big.Int).SetString("-170141183460469231731687303715884105728", 10)
	big2, _ := new(big.Int).SetString("340282366920938463463374607431768211455", 10)
	big3, _ := new(big.Int).SetString("-123456789012345678901234567890123456789012345678901234567890", 10)
	for _, c := range []struct {
		sql, typ string
		want     any
	}{
		{"NULL", "NULL", nil}, // DuckDB calls it INTEGER once it stands alone in a SELECT
		{"true", "BOOLEAN", true},
		{"(-128)::TINYINT", "TINYINT", int64(-128)},
		{"(-32768)::SMALLINT", "SMALLINT", int64(-32768)},
		{"7::INTEGER", "INTEGER", int64(7)},
		{"9223372036854775807", "BIGINT", int64(9223372036854775807)},
		{"255::UTINYINT", "UTINYINT", uint64(255)},
		{"65535::USMALLINT", "USMALLINT", uint64(65535)},
		{"1::UINTEGER", "UINTEGER", uint64(1)},
		{"18446744073709551615::UBIGINT", "UBIGINT", uint64(18446744073709551615)},
		{"'-170141183460469231731687303715884105728'::HUGEINT", "HUGEINT", big1},
		{"'340282366920938463463374607431768211455'::UHUGEINT", "UHUGEINT", big2},
		{"(-1)::HUGEINT", "HUGEINT", big.NewInt(-1)},
		{"'-123456789012345678901234567890123456789012345678901234567890'::BIGNUM", "BIGNUM", big3},
		{"300::BIGNUM", "BIGNUM", big.NewInt(300)},
		{"0.1::FLOAT", "FLOAT", 0.1},
		{"1e20::FLOAT", "FLOAT", 1e20},
		{"0.1::DOUBLE", "DOUBLE", 0.1},
		{"1.50::DECIMAL(4,2)", "DECIMAL(4,2)", json.Number("1.50")},
		{"(-0.05)::DECIMAL(9,2)", "DECIMAL(9,2)", json.Number("-0.05")},
		{"0::DECIMAL(18,3)", "DECIMAL(18,3)", json.Number("0.000")},
		{"'-12345678901234567890123456789012345.678'::DECIMAL(38,3)", "DECIMAL(38,3)", json.Number("-12345678901234567890123456789012345.678")},
		{"5::DECIMAL(10,0)", "DECIMAL(10,0)", json.Number("5")},
		{"'twelve bytes'", "VARCHAR", "twelve bytes"},
		{"'thirteen byte'", "VARCHAR", "thirteen byte"},
		{"'{\"a\": 12345678901234567890}'::JSON", "JSON", `{"a": 12345678901234567890}`},
		{"'\\x00\\xFF'::BLOB", "BLOB", []byte{0, 0xff}},
		{"''::BLOB", "BLOB", []byte{}},
		{"'0101'::BIT", "BIT", "0101"},
		{"'101010101'::BIT", "BIT", "101010101"},
		{"'b'::ENUM('a', 'b')", "ENUM", "b"},
		{"'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::UUID", "UUID", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
		{"'00000000-0000-0000-0000-000000000001'::UUID", "UUID", "00000000-0000-0000-0000-000000000001"},
		{"DATE '2024-02-29'", "DATE", "2024-02-29"},
		{"DATE '0044-03-15 (BC)'", "DATE", "0044-03-15 (BC)"},
		{"'infinity'::DATE", "DATE", "infinity"},
		{"TIME '23:59:59.000001'", "TIME", "23:59:59.000001"},
		{"TIME '24:00:00'", "TIME", "24:00:00"},
		{"'12:00:00+09:30'::TIMETZ", "TIME WITH TIME ZONE", "12:00:00+09:30"},
		{"'12:00:00-03'::TIMETZ", "TIME WITH TIME ZONE", "12:00:00-03"},
		{"TIMESTAMP '2024-01-02 03:04:05.678'", "TIMESTAMP", "2024-01-02T03:04:05.678"},
		{"TIMESTAMP '1969-12-31 23:59:59.5'", "TIMESTAMP", "1969-12-31T23:59:59.5"},
		{"TIMESTAMP_S '2024-01-02 03:04:05'", "TIMESTAMP_S", "2024-01-02T03:04:05"},
		{"TIMESTAMP_MS '2024-01-02 03:04:05.678'", "TIMESTAMP_MS", "2024-01-02T03:04:05.678"},
		{"TIMESTAMP_NS '2024-01-02 03:04:05.123456789'", "TIMESTAMP_NS", "2024-01-02T03:04:05.123456789"},
		{"'-infinity'::TIMESTAMP", "TIMESTAMP", "-infinity"},
		{"TIMESTAMPTZ '2024-01-02 03:04:05+09'", "TIMESTAMP WITH TIME ZONE", time.Date(2024, 1, 1, 18, 4, 5, 0, time.UTC)},
		{"TIMESTAMPTZ '2024-01-02 03:04:05'", "TIMESTAMP WITH TIME ZONE", time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)},
		{"'infinity'::TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE", "infinity"},
		{"[1, NULL]", "INTEGER[]", []any{int64(1), nil}},
		{"[[1.5]]::DECIMAL(4,1)[][]", "DECIMAL(4,1)[][]", []any{[]any{json.Number("1.5")}}},
		{"[]::VARCHAR[]", "VARCHAR[]", []any{}},
		{"[1, 2]::INT[2]", "INTEGER[2]", []any{int64(1), int64(2)}},
		{"{'z': 1, 'a': {'b': NULL}}", `STRUCT("z" INTEGER, "a" STRUCT("b" INTEGER))`, query.Object{{Name: "z", Value: int64(1)}, {Name: "a", Value: query.Object{{Name: "b", Value: nil}}}}},
		{"row(1, 'x')", "STRUCT(INTEGER, VARCHAR)", []any{int64(1), "x"}},
		{"MAP {[1]: 'a', [2]: 'b'}", "MAP(INTEGER[], VARCHAR)", query.Object{{Name: "[1]", Value: "a"}, {Name: "[2]", Value: "b"}}},
		{"MAP {'k': DATE '2024-01-01'}", "MAP(VARCHAR, DATE)", query.Object{{Name: "k", Value: "2024-01-01"}}},
		{"union_value(a := 5)", `UNION("a" INTEGER)`, int64(5)},
		{"NULL::INTEGER[]", "INTEGER[]", nil},
	} {
		rows, err := e.Query(context.Background(), query.Query{SQL: "SELECT " + c.sql + " FROM range(2)"})
		if err != nil {
			t.Errorf("%s: %v", c.sql, err)
			continue
		}
		if got := rows.Columns()[0].Type; got != c.typ && c.sql != "NULL" {
			t.Errorf("%s has type %s, want %s", c.sql, got, c.typ)
		}
		n := 0
		for rows.Next() {
			n++
			if got := rows.Values()[0]; !reflect.DeepEqual(got, c.want) {
				t.Errorf("%s is %T %v, want %T %v", c.sql, got, got, c.want, c.want)
			}
		}
		if rows.Err() != nil || n != 2 {
			t.Errorf("%s: %d rows, %v", c.sql, n, rows.Err())
		}
		rows.Close()
	}
	for _, i := range []string{"INTERVAL '0 seconds'", "INTERVAL '14 months -3 days'", "INTERVAL '-1 year 25:00:00.5'", "INTERVAL '-0.000001 seconds'", "INTERVAL '1 day 1 second'", "INTERVAL '-5 hours'"} {
		check(t, e, map[string]string{"SELECT x = x::VARCHAR::INTERVAL, x::VARCHAR FROM (SELECT " + i + " AS x)": "true," + textOf(t, e, i)})
	}
	if _, err := ask(e, "SELECT 'POINT(1 2)'::GEOMETRY AS v"); err == nil || err.Error() != `column "v": values of type GEOMETRY cannot be sent: cast them to VARCHAR` {
		t.Errorf("a GEOMETRY gave %v", err)
	}
}

func textOf(t *testing.T, e *Engine, expr string) string {
	got, err := ask(e, "SELECT "+expr)
	if err != nil {
		t.Error(err)
	}
	return got
}

// TestLongAnswers: many chunks, NULLs and long texts survive the way, also from
// dictionary-encoded columns and inside lists.
func TestLongAnswers(t *testing.T) {
	l := newLake(t)
	v := l.table("events.t", "1 i long", "2 s string", "3 l list<string>")
	for range 3 {
		l.file(t, v, "SELECT i, CASE WHEN i % 7 = 0 THEN NULL ELSE 'value number ' || i % 50 END AS s, CASE WHEN i % 5 = 0 THEN NULL ELSE ['item number ' || i % 9, NULL] END AS l FROM range(20000) t(i)", "i: 1, s: 2, l: {__duckdb_field_id: 3, element: 4}")
	}
	e := open(t, l, l.dir)
	rows, err := e.Query(context.Background(), query.Query{SQL: "FROM t"})
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n, seen := 0, map[int64]int{}
	for rows.Next() {
		n++
		i := rows.Values()[0].(int64)
		seen[i]++
		var s, list any
		if i%7 != 0 {
			s = "value number " + query.Text(i%50)
		}
		if i%5 != 0 {
			list = []any{"item number " + query.Text(i%9), nil}
		}
		if !reflect.DeepEqual(rows.Values(), []any{i, s, list}) {
			t.Fatalf("row %d is %v, want %v %v", i, rows.Values(), s, list)
		}
	}
	if rows.Err() != nil || n != 60000 || len(seen) != 20000 {
		t.Errorf("%d rows, %d different, %v", n, len(seen), rows.Err())
	}
}

func TestColumnType(t *testing.T) {
	for in, want := range map[string]string{
		"long": "BIGINT", "timestamptz": "TIMESTAMP WITH TIME ZONE", "list<long>": "BIGINT[]", "list<list<string>>": "VARCHAR[][]", "decimal(10, 2)": "DECIMAL(10,2)", "fixed[16]": "BLOB",
		"": "", "struct<a: int>": "", "list<>": "", "list<long": "", "decimal(99, 2)": "", "decimal(1)": "", "long; DROP": "",
	} {
		got, err := columnType(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v; want %q", in, got, err, want)
		}
	}
}

// FuzzGate: no text brings the gate or DuckDB's parser down, and what passes
// reads nothing but tables of the lake.
func FuzzGate(f *testing.F) {
	for _, s := range []string{"SELECT 1", "WITH a AS (FROM b) FROM a", "FROM 'x.csv'", "EXPLAIN ANALYZE FROM t", "SELECT * FROM query('x')", "SELECT [x FOR x IN [1]]", "PIVOT t ON a", "SELECT 1;;", "/* /*", "SELECT $$ FROM t", "SHOW TABLES"} {
		f.Add(s)
	}
	p, err := openParser()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(p.close)
	f.Fuzz(func(t *testing.T, sql string) {
		if len(sql) > 4096 {
			return
		}
		st, err := query.NewStatement(sql)
		if err == nil {
			err = p.judge(context.Background(), st.Inner, st.Judge)
		}
		if err != nil && !query.IsStatementError(err) {
			t.Errorf("%q: %v", sql, err)
		}
		if err == nil && !st.ShowTables && strings.Contains(strings.ToLower(sql), "read_text(") && !strings.ContainsAny(sql, `'"-/$`) {
			t.Errorf("%q passed", sql)
		}
	})
}
