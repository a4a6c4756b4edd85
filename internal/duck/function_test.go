package duck

import (
	"strings"
	"testing"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"naru/internal/query"
)

// TestEveryFunctionIsJudged fails when DuckDB has a function that nobody has
// looked at, or the lists have one that DuckDB has not.
func TestEveryFunctionIsJudged(t *testing.T) {
	db, err := openDatabase()
	if err != nil {
		t.Fatal(err)
	}
	defer db.close()
	c, err := db.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	res, err := c.stream("SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type IN ('scalar', 'aggregate', 'macro')")
	if err != nil {
		t.Fatal(err)
	}
	defer res.close()

	known := map[string]bool{"unnest": true, "unlist": true}
	for {
		chunk, err := res.next()
		if err != nil {
			t.Fatal(err)
		}
		if chunk == nil {
			break
		}
		col := column{kind: duckdb.TypeVarchar}
		col.bind(duckdb.DataChunkGetVector(*chunk, 0))
		for i := range int(duckdb.DataChunkGetSize(*chunk)) {
			var size int64
			name := col.value(i, &size).(string)
			known[strings.ToLower(name)] = true
			if query.JudgeFunction(name) == query.Unjudged {
				t.Errorf("DuckDB has the function %s, which is in neither functions.txt nor refused.txt", name)
			}
		}
	}
	if len(known) < 500 {
		t.Fatalf("DuckDB names only %d functions", len(known))
	}
	for _, name := range query.FunctionNames() {
		if !known[name] {
			t.Errorf("the list of functions has %s, which DuckDB has not", name)
		}
	}
	for _, name := range []string{"current_setting", "json_serialize_plan", "nextval", "write_log", "sleep_ms", "pg_get_viewdef", "__internal_decompress_string"} {
		if query.JudgeFunction(name) != query.Refused {
			t.Errorf("%s is not refused", name)
		}
	}
	for _, name := range []string{"read_text", "query", "getenv", "duckdb_settings", "json_execute_serialized_sql", "nonsense"} {
		if query.JudgeFunction(name) == query.Allowed {
			t.Errorf("%s is allowed", name)
		}
	}
}
