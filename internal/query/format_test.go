package query

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"
)

type memoryRows struct {
	columns []Column
	rows    [][]any
	err     error
	at      int
}

func (m *memoryRows) Columns() []Column { return m.columns }
func (m *memoryRows) Next() bool        { m.at++; return m.at <= len(m.rows) }
func (m *memoryRows) Values() []any     { return m.rows[m.at-1] }
func (m *memoryRows) Err() error        { return m.err }
func (m *memoryRows) Close() error      { return nil }

func huge(s string) *big.Int {
	b, _ := new(big.Int).SetString(s, 10)
	return b
}

// every has one value of each kind, and a row of NULLs.
func every() *memoryRows {
	m := &memoryRows{}
	var values, nulls []any
	add := func(name, typ string, v any) {
		m.columns = append(m.columns, Column{name, typ})
		values, nulls = append(values, v), append(nulls, nil)
	}
	add("b", "BOOLEAN", true)
	add("i", "BIGINT", int64(math.MinInt64))
	add("u", "UBIGINT", uint64(math.MaxUint64))
	add("d", "DOUBLE", 0.1)
	add("whole", "DOUBLE", 3.0)
	add("large", "DOUBLE", 1e300)
	add("h", "HUGEINT", huge("170141183460469231731687303715884105727"))
	add("dec", "DECIMAL(38,3)", json.Number("12345678901234567890123456789012345.670"))
	add("s", "VARCHAR", "a\"b\\c\n,\té 한국 \x1b[31m <&>")
	add("empty", "VARCHAR", "")
	add("blob", "BLOB", []byte{0, 0xff, 'a'})
	add("t", "TIMESTAMP WITH TIME ZONE", time.Date(2024, 1, 2, 3, 4, 5, 600_000_000, time.UTC))
	add("date", "DATE", "2024-01-02")
	add("l", "BIGINT[]", []any{int64(1), nil, []any{}})
	add("o", `STRUCT("z" BIGINT, "a" VARCHAR)`, Object{{"z", int64(1)}, {"a", Object{{"x", json.Number("1.50")}}}})
	m.rows = [][]any{values, nulls}
	return m
}

func write(t *testing.T, f Format, rows Rows) string {
	t.Helper()
	var b strings.Builder
	if err := Copy(NewWriter(f, &b), rows); err != nil {
		t.Fatalf("%s: %v", f, err)
	}
	return b.String()
}

func TestFormats(t *testing.T) {
	for f, want := range map[Format]string{
		NDJSON: `{"b": true, "i": -9223372036854775808, "u": 18446744073709551615, "d": 0.1, "whole": 3.0, "large": 1e+300, "h": 170141183460469231731687303715884105727, "dec": 12345678901234567890123456789012345.670, ` +
			`"s": "a\"b\\c\n,\té 한국 \u001b[31m <&>", "empty": "", "blob": "AP9h", "t": "2024-01-02T03:04:05.6Z", "date": "2024-01-02", "l": [1, null, []], "o": {"z": 1, "a": {"x": 1.50}}}` + "\n" +
			`{"b": null, "i": null, "u": null, "d": null, "whole": null, "large": null, "h": null, "dec": null, "s": null, "empty": null, "blob": null, "t": null, "date": null, "l": null, "o": null}` + "\n",
		CSV: "b,i,u,d,whole,large,h,dec,s,empty,blob,t,date,l,o\n" +
			"true,-9223372036854775808,18446744073709551615,0.1,3.0,1e+300,170141183460469231731687303715884105727,12345678901234567890123456789012345.670," +
			"\"a\"\"b\\c\n,\té 한국 \x1b[31m <&>\",\"\",AP9h,2024-01-02T03:04:05.6Z,2024-01-02,\"[1, null, []]\",\"{\"\"z\"\": 1, \"\"a\"\": {\"\"x\"\": 1.50}}\"\n" +
			",,,,,,,,,,,,,,\n",
		TSV: "b\ti\tu\td\twhole\tlarge\th\tdec\ts\tempty\tblob\tt\tdate\tl\to\n" +
			"true\t-9223372036854775808\t18446744073709551615\t0.1\t3.0\t1e+300\t170141183460469231731687303715884105727\t12345678901234567890123456789012345.670\t" +
			"a\"b\\\\c\\n,\\té 한국 \x1b[31m <&>\t\tAP9h\t2024-01-02T03:04:05.6Z\t2024-01-02\t[1, null, []]\t{\"z\": 1, \"a\": {\"x\": 1.50}}\n" +
			strings.Repeat("\\N\t", 14) + "\\N\n",
	} {
		if got := write(t, f, every()); got != want {
			t.Errorf("%s:\n got %q\nwant %q", f, got, want)
		}
	}
	for line := range strings.Lines(write(t, NDJSON, every())) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
	if got := write(t, JSON, every()); !json.Valid([]byte(got)) {
		t.Errorf("not JSON: %s", got)
	}
}

func TestNumbersWithoutJSON(t *testing.T) {
	rows := func() *memoryRows {
		return &memoryRows{columns: []Column{{"x", "DOUBLE"}}, rows: [][]any{{math.NaN()}, {math.Inf(1)}, {math.Inf(-1)}, {math.Copysign(0, -1)}, {5e-324}, {1e21}, {123456789.5}}}
	}
	if got, want := write(t, NDJSON, rows()), "{\"x\": null}\n{\"x\": null}\n{\"x\": null}\n{\"x\": -0.0}\n{\"x\": 5e-324}\n{\"x\": 1e+21}\n{\"x\": 123456789.5}\n"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
	if got, want := write(t, CSV, rows()), "x\nNaN\nInfinity\n-Infinity\n-0.0\n5e-324\n1e+21\n123456789.5\n"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
}

func TestYears(t *testing.T) {
	for year, want := range map[int]string{2024: "2024-01-01T00:00:00Z", 12024: "+12024-01-01T00:00:00Z", -43: "-0043-01-01T00:00:00Z", 0: "0000-01-01T00:00:00Z"} {
		if got := Text(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)); got != want {
			t.Errorf("year %d is %s, want %s", year, got, want)
		}
	}
}

func TestEmptyAndOdd(t *testing.T) {
	none := &memoryRows{columns: []Column{{"a", "BIGINT"}}}
	for f, want := range map[Format]string{
		JSON: "{\"columns\": [{\"name\": \"a\", \"type\": \"BIGINT\"}], \"rows\": []}\n", NDJSON: "", CSV: "a\n", TSV: "a\n", Markdown: "| a |\n| ---: |\n", Table: "a\n-\n(0 rows)\n",
	} {
		if got := write(t, f, none); got != want {
			t.Errorf("%s: %q, want %q", f, got, want)
		}
	}
	one := func() *memoryRows {
		return &memoryRows{columns: []Column{{"a", "VARCHAR"}}, rows: [][]any{{nil}, {""}, {`{"error": "x"}`}}}
	}
	if got, want := write(t, CSV, one()), "a\n\"\"\n\"\"\n\"{\"\"error\"\": \"\"x\"\"}\"\n"; got != want {
		t.Errorf("a single column is %q, want %q", got, want)
	}
	same := &memoryRows{columns: []Column{{"a", "BIGINT"}, {"a", "BIGINT"}, {"a_1", "BIGINT"}, {"a", "BIGINT"}}, rows: [][]any{{int64(1), int64(2), int64(3), int64(4)}}}
	if got, want := write(t, NDJSON, same), "{\"a\": 1, \"a_2\": 2, \"a_1\": 3, \"a_3\": 4}\n"; got != want {
		t.Errorf("columns of one name are %q, want %q", got, want)
	}
}

func TestForPeople(t *testing.T) {
	rows := func() *memoryRows {
		return &memoryRows{columns: []Column{{"page", "VARCHAR"}, {"n", "BIGINT"}, {"b", "BLOB"}}, rows: [][]any{
			{"한국|x", int64(7), []byte(`{"a":`)}, {"a\nb\x1b[2J", int64(12345), []byte{0xff, 'x'}}, {nil, nil, nil}}}
	}
	want := strings.Join([]string{
		`page               n  b`,
		`-------------  -----  -----`,
		`한국|x             7  {"a":`,
		`a\nb\u001b[2J  12345  \xFFx`,
		`NULL            NULL  NULL`,
		`(3 rows)`, ``}, "\n")
	if got := write(t, Table, rows()); got != want {
		t.Errorf("table is\n%s\nwant\n%s", got, want)
	}
	if got, want := write(t, Markdown, rows()), "| page | n | b |\n| --- | ---: | --- |\n| 한국\\|x | 7 | {\"a\": |\n| a\\\\nb\\\\u001b[2J | 12345 | \\\\xFFx |\n| NULL | NULL | NULL |\n"; got != want {
		t.Errorf("markdown is\n%s\nwant\n%s", got, want)
	}
}

func TestTableIsBounded(t *testing.T) {
	rows := &memoryRows{columns: []Column{{"s", "VARCHAR"}, {"n", "BIGINT"}}}
	for i := range 3 * widthRows {
		rows.rows = append(rows.rows, []any{strings.Repeat("x", 1+i/widthRows*10), int64(i)})
	}
	var b strings.Builder
	w := NewWriter(Table, &b).(*tableWriter)
	if err := Copy(w, rows); err != nil {
		t.Fatal(err)
	}
	if len(w.held) != 0 {
		t.Errorf("%d rows are held back", len(w.held))
	}
	if n := strings.Count(b.String(), "\n"); n != 3*widthRows+3 {
		t.Errorf("%d lines", n)
	}
}

func TestCut(t *testing.T) {
	for _, f := range Formats {
		rows := every()
		rows.rows, rows.err = rows.rows[:1], errors.New(`disk "gone"`)
		var b strings.Builder
		w := NewWriter(f, &b)
		err := Copy(w, rows)
		if err != rows.err {
			t.Errorf("%s: %v", f, err)
		}
		if err := w.Cut(err.Error()); err != nil {
			t.Error(err)
		}
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		if last := lines[len(lines)-1]; last != `{"error": "disk \"gone\""}` {
			t.Errorf("%s: the last line is %q", f, last)
		}
	}
}

type failing struct{ after int }

func (f *failing) Write(p []byte) (int, error) {
	if f.after--; f.after < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

func TestWriteErrors(t *testing.T) {
	for _, f := range Formats {
		rows := &memoryRows{columns: []Column{{"s", "VARCHAR"}}}
		for range 5000 {
			rows.rows = append(rows.rows, []any{strings.Repeat("x", 100)})
		}
		if err := Copy(NewWriter(f, &failing{1}), rows); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%s: %v", f, err)
		}
		if rows.at >= 5000 {
			t.Errorf("%s: all rows were read although nobody takes them", f)
		}
	}
}

func TestDecode(t *testing.T) {
	want := every()
	rows, err := DecodeJSON(strings.NewReader(write(t, JSON, every())))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(rows.Columns(), want.columns) {
		t.Errorf("columns %v", rows.Columns())
	}
	n := 0
	for rows.Next() {
		for i, v := range rows.Values() {
			if w := want.rows[n][i]; !reflect.DeepEqual(v, w) {
				t.Errorf("row %d, %s: %T %v, want %T %v", n, want.columns[i].Name, v, v, w, w)
			}
		}
		n++
	}
	if rows.Err() != nil || n != 2 {
		t.Errorf("%d rows, %v", n, rows.Err())
	}
	// So the client makes the same text as the server would.
	for _, f := range Formats {
		rows, err := DecodeJSON(strings.NewReader(write(t, JSON, every())))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := write(t, f, rows), write(t, f, every()); got != want {
			t.Errorf("%s through JSON:\n got %s\nwant %s", f, got, want)
		}
	}
}

func TestDecodeCut(t *testing.T) {
	whole := write(t, JSON, every())
	for n := range len(whole) - 1 {
		if err := drain(whole[:n]); !errors.Is(err, ErrCut) {
			t.Fatalf("cut at byte %d of %d: %v", n, len(whole), err)
		}
	}
	for _, c := range []struct{ body, want string }{
		{"{\"columns\": [{\"name\": \"a\", \"type\": \"BIGINT\"}], \"rows\": [\n[1]\n{\"error\": \"time limit reached\"}\n", "time limit reached"},
		{"{\"columns\": [{\"name\": \"a\", \"type\": \"BIGINT\"}], \"rows\": [\n{\"error\": \"disk\"}\n", "disk"},
		{"{\"columns\": [{\"name\": \"a\", \"type\": \"BIGINT\"}], \"rows\": [\n[1, 2]\n]}\n", "2 values for 1 columns"},
		{whole + "{}", "follows"}, {"[]", "stands where"}, {"<html>", "invalid"}, {`{"title": "x"}`, "title"}, {"", "EOF"},
	} {
		if err := drain(c.body); !errors.Is(err, ErrCut) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.body, err, c.want)
		}
	}
}

func drain(body string) error {
	rows, err := DecodeJSON(strings.NewReader(body))
	if err != nil {
		return err
	}
	for rows.Next() {
	}
	return rows.Err()
}

func FuzzDecodeJSON(f *testing.F) {
	f.Add(`{"columns": [{"name": "a", "type": "BIGINT"}], "rows": [[1], [null]]}`)
	f.Add(`{"columns": [{"name": "a", "type": "BLOB"}], "rows": [["AP9h"], [{"a": [1.5, {}]}]]}`)
	f.Add("{\"columns\": [], \"rows\": [\n{\"error\": \"x\"}")
	f.Fuzz(func(t *testing.T, body string) {
		rows, err := DecodeJSON(strings.NewReader(body))
		if err != nil {
			return
		}
		for _, format := range Formats {
			_ = Copy(NewWriter(format, io.Discard), rows)
		}
	})
}

func TestParseFormat(t *testing.T) {
	for _, f := range Formats {
		if got, err := ParseFormat(strings.ToUpper(string(f))); err != nil || got != f {
			t.Errorf("%s: %s, %v", f, got, err)
		}
		if f.MediaType() == "" {
			t.Errorf("%s has no media type", f)
		}
	}
	if _, err := ParseFormat("jsn"); err == nil || !strings.Contains(err.Error(), "did you mean json") {
		t.Errorf("jsn gave %v", err)
	}
}

func TestNegotiate(t *testing.T) {
	for accept, want := range map[string]string{
		"": "json", "*/*": "json", "application/json": "json", "application/*": "json", "text/*": "csv", "application/x-ndjson": "ndjson", "application/ndjson": "ndjson", "text/csv": "csv", "TEXT/CSV": "csv",
		"text/tab-separated-values": "tsv", "text/html": "none", "text/html, */*;q=0.1": "json", "text/csv;q=0.5, application/json;q=0.4": "csv", "text/csv, application/json": "csv", "application/json, text/csv": "json",
		"application/json;q=0, */*": "ndjson", "*/*;q=0": "none", "text/csv;q=x": "none", "text/csv; header=present": "csv", ",,": "none", "garbage": "none", "application/json;q=0.0, text/csv;q=0": "none",
	} {
		got := "none"
		if f, ok := Negotiate(accept); ok {
			got = string(f)
		}
		if got != want {
			t.Errorf("Accept %q gives %s, want %s", accept, got, want)
		}
	}
}

func TestText(t *testing.T) {
	for want, v := range map[string]any{"NULL": nil, "a": "a", "1": int64(1), "[1]": []any{int64(1)}, "NaN": math.NaN(), "{\"a\": 1}": Object{{"a", int64(1)}}, "true": true} {
		if got := Text(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
	if got := fmt.Sprint(nearest("pageview", []string{"page_view", "click", "page_views", "x"}, 2)); got != "[page_view page_views]" {
		t.Errorf("near pageview: %s", got)
	}
}
