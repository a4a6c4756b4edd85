package duck

import (
	"fmt"
	"strings"

	"naru/internal/lake"
)

// viewSQL is the query that a table's name stands for: its files read by field
// id, so that renamed columns keep their values and a file from before a column
// existed gives NULL. All columns are named, so that read_parquet's own hidden
// ones (filename, ...) stay behind.
func viewSQL(v *lake.View) (string, error) {
	var columns, schema []string
	for _, c := range v.Columns {
		t, err := columnType(c.Type)
		if err != nil {
			return "", fmt.Errorf("read table %s: column %q: %w", v.Ident, c.Name, err)
		}
		if len(v.Files) == 0 {
			columns = append(columns, fmt.Sprintf("CAST(NULL AS %s) AS %s", t, ident(c.Name)))
			continue
		}
		columns = append(columns, ident(c.Name))
		schema = append(schema, fmt.Sprintf("%d: {name: %s, type: %s, default_value: NULL}", c.FieldID, literal(c.Name), literal(t)))
	}
	if len(columns) == 0 {
		return "", fmt.Errorf("read table %s: it has no columns", v.Ident)
	}
	if len(v.Files) == 0 {
		return "SELECT " + strings.Join(columns, ", ") + " WHERE false", nil
	}
	seen := make(map[string]bool, len(v.Files))
	files := make([]string, 0, len(v.Files))
	for _, f := range v.Files { // a planner may split a file into several tasks
		if !seen[f.Path] {
			seen[f.Path] = true
			files = append(files, literal(f.Path))
		}
	}
	return "SELECT " + strings.Join(columns, ", ") + " FROM read_parquet([" + strings.Join(files, ", ") + "], schema=MAP {" + strings.Join(schema, ", ") + "}, hive_partitioning=false)", nil
}
