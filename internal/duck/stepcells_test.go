package duck

import (
	"fmt"
	"strings"
	"testing"

	duckdb "github.com/duckdb/duckdb-go-bindings"
	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/jsonscan"
	"naru/internal/lake/columnar"
)

// TestCellsOfAllTypes: the values of a vector, copied, are what they are as JSON, and
// have the kind of the column that sinks are told of.
func TestCellsOfAllTypes(t *testing.T) {
	db, err := openDatabase(option{"threads", "1"})
	require.NoError(t, err)
	defer db.close()
	c, err := db.connect()
	require.NoError(t, err)
	defer c.close()
	kinds := map[event.ColumnType]columnar.Kind{event.BoolColumn: columnar.Bool, event.LongColumn: columnar.Long, event.DoubleColumn: columnar.Double,
		event.StringColumn: columnar.String, event.TimestampColumn: columnar.Timestamp, event.DateColumn: columnar.Date}
	asJSON := 0
	for _, one := range []struct{ kind, values string }{
		{"BOOLEAN", "true, false"},
		{"TINYINT", "-128, 127"}, {"SMALLINT", "-32768, 32767"}, {"INTEGER", "-2147483648, 2147483647"}, {"BIGINT", "-9223372036854775808, 9223372036854775807"},
		{"UTINYINT", "0, 255"}, {"USMALLINT", "65535"}, {"UINTEGER", "4294967295"}, {"UBIGINT", "9223372036854775807"}, {"HUGEINT", "-9223372036854775808, 5"}, {"UHUGEINT", "5"},
		{"FLOAT", "0.1, 'nan', '-inf', 16777217, 1e38"}, {"DOUBLE", "0.1, 'nan', 'inf', -0.0, 5, 1e21, 5e-324"},
		{"DECIMAL(9,2)", "1.50, -0.05"}, {"DECIMAL(38,3)", "12345678901234567890.125"},
		{"VARCHAR", `'', 'a', 'ü', 'twelve bytes', 'thirteen bytes', chr(0) || '"\'`},
		{"JSON", `'null', '1', '{"a": [1, null]}', '"x"', '[]'`},
		{"DATE", "'0001-01-01', '9999-12-31', '1969-12-31'"},
		{"TIMESTAMP", "'0001-01-01', '9999-12-31 23:59:59.999999', '1969-12-31 23:59:59.5'"}, {"TIMESTAMPTZ", "'2026-01-01 00:00:00+00', '1969-12-31 23:59:59.123456+00'"},
		{"TIMESTAMP_S", "'2026-01-01 00:00:01'"}, {"TIMESTAMP_MS", "'1969-12-31 23:59:59.999'"}, {"TIMESTAMP_NS", "'1969-12-31 23:59:59.999999999', '2026-01-01 00:00:00.000001999'"},
		{"TIME", "'12:00:00.5'"}, {"INTERVAL", "'3 days'"}, {"UUID", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"}, {"BLOB", "'a'"}, {"ENUM('x', 'y')", "'x', 'y'"},
		{"BIGINT[]", "[], [1, NULL, 3]"}, {"INTEGER[2]", "[1, 2]"}, {"STRUCT(a BIGINT, b VARCHAR[])", "{'a': 1, 'b': ['x']}, {'a': NULL, 'b': NULL}"},
		{"MAP(VARCHAR, DOUBLE)", "MAP {'a': 1.5}"}, {"UNION(n BIGINT, s VARCHAR)", "2, 3"},
	} {
		for _, nulls := range []bool{false, true} {
			values := strings.Split(one.values, ", ")
			if strings.ContainsAny(one.values, "[{") {
				values = []string{one.values} // a comma is none between values
			}
			rows := fmt.Sprintf("SELECT CAST(v AS %s) AS v FROM (VALUES (%s)) t(v)", one.kind, strings.Join(values, "), ("))
			if len(values) == 1 {
				rows = fmt.Sprintf("SELECT CAST(unnest([%s]) AS %s) AS v", one.values, one.kind)
			}
			if nulls {
				rows = "SELECT NULL AS v UNION ALL BY NAME " + rows + " UNION ALL BY NAME SELECT NULL"
			}
			r, err := c.stream(fmt.Sprintf("SELECT CAST(v AS %s) AS v FROM (%s), range(70)", one.kind, rows))
			require.NoError(t, err, one.kind)
			columns, err := readColumns(&r.res, nil)
			require.NoError(t, err)
			read := 0
			for {
				chunk, err := r.next()
				require.NoError(t, err)
				if chunk == nil {
					break
				}
				col := &columns[0].col
				col.bind(duckdb.DataChunkGetVector(*chunk, 0))
				n := int(duckdb.DataChunkGetSize(*chunk))
				cells, err := col.cells(n, 1<<20)
				require.NoError(t, err, one.kind)
				cells.Field.Name = "v"
				if cells.Field.Kind == 0 {
					asJSON++
				} else {
					require.Equal(t, kinds[columns[0].Type], cells.Field.Kind, one.kind)
				}
				if len(cells.Text) > 1 {
					_, err = col.cells(n, len(cells.Text)-1)
					require.ErrorIs(t, err, errRows, one.kind)
				}
				var f columnar.Frame
				f.Rows = n
				f.Add(cells)
				for row := range n {
					want := []byte("{")
					if value, err := col.appendJSON(nil, row, true); len(value) > 0 {
						require.NoError(t, err)
						want = append(append(append(want, jsonscan.AppendQuoted(nil, "v")...), ':'), value...)
					}
					require.Equal(t, string(append(want, '}')), string(f.AppendData(nil, row)), one.kind)
				}
				read += n
			}
			r.close()
			require.GreaterOrEqual(t, read, 70, one.kind)
		}
	}
	require.Positive(t, asJSON)
	for _, bad := range []string{"CAST('infinity' AS TIMESTAMP)", "CAST('infinity' AS DATE)", "CAST('10000-01-01' AS DATE)", "CAST(9223372036854775808 AS HUGEINT)", "CAST(18446744073709551615 AS UBIGINT)"} {
		r, err := c.stream("SELECT " + bad + " AS v")
		require.NoError(t, err)
		columns, err := readColumns(&r.res, nil)
		require.NoError(t, err)
		chunk, err := r.next()
		require.NoError(t, err)
		columns[0].col.bind(duckdb.DataChunkGetVector(*chunk, 0))
		_, err = columns[0].col.cells(1, 1<<20)
		require.Error(t, err, bad)
		_, again := columns[0].col.appendJSON(nil, 0, true)
		require.Equal(t, again, err, bad)
		r.close()
	}
}
