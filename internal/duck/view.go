package duck

import (
	"fmt"
	"slices"
	"strings"

	"naru/internal/lake"
)

// viewSQL is the query that a table's name stands for: the snapshot's files and
// those of its hot tail, each kind read by its own field ids, so that renamed
// columns keep their values and a file from before a column existed gives NULL.
// All columns are named, so that read_parquet's own hidden ones (filename, ...)
// stay behind.
func viewSQL(v *lake.View) (string, error) {
	columns, err := viewColumns(v)
	if err != nil {
		return "", fmt.Errorf("read table %s: %w", v.Ident, err)
	}
	if len(columns) == 0 {
		return "", fmt.Errorf("read table %s: it has no columns", v.Ident)
	}
	var parts []string
	if len(v.Files) > 0 {
		parts = append(parts, partSQL(columns, v.Columns, v.Files))
	}
	if v.Hot != nil && len(v.Hot.Files) > 0 {
		parts = append(parts, partSQL(columns, v.Hot.Columns, v.Hot.Files)+" WHERE "+spansSQL(v.Hot))
	}
	if len(parts) == 0 {
		return partSQL(columns, nil, nil) + " WHERE false", nil
	}
	return strings.Join(parts, " UNION ALL "), nil
}

// countSQL has as many rows as viewSQL. How many are in the snapshot's files stands
// in its manifests: DuckDB would open all files, and then count 2,048 at a time.
func countSQL(v *lake.View) (string, error) {
	rows := int64(0)
	for _, f := range v.Files {
		rows += f.Rows
	}
	sql := fmt.Sprintf("SELECT 1 FROM range(%d)", rows)
	if v.Hot == nil || len(v.Hot.Files) == 0 {
		return sql, nil
	}
	var place []viewColumn
	for _, c := range v.Hot.Columns {
		if slices.Contains([]string{"_log", "_partition", "_offset"}, c.Name) {
			t, err := columnType(c.Type)
			if err != nil {
				return "", fmt.Errorf("count table %s: column %q: %w", v.Ident, c.Name, err)
			}
			place = append(place, viewColumn{c.Name, t})
		}
	}
	return sql + " UNION ALL SELECT 1 FROM (" + partSQL(place, v.Hot.Columns, v.Hot.Files) + " WHERE " + spansSQL(v.Hot) + ")", nil
}

// viewColumn is a column of the answer.
type viewColumn struct{ name, typ string }

// viewColumns are the snapshot's columns, then those that only the hot tail has.
// Where both have one the hot tail's type counts: it is the same or wider.
func viewColumns(v *lake.View) ([]viewColumn, error) {
	var columns []viewColumn
	place := map[string]int{}
	add := func(list []lake.Column) error {
		for _, c := range list {
			t, err := columnType(c.Type)
			if err != nil {
				return fmt.Errorf("column %q: %w", c.Name, err)
			}
			if i, ok := place[c.Name]; ok {
				columns[i].typ = t
				continue
			}
			place[c.Name] = len(columns)
			columns = append(columns, viewColumn{c.Name, t})
		}
		return nil
	}
	if err := add(v.Columns); err != nil {
		return nil, err
	}
	if v.Hot != nil {
		return columns, add(v.Hot.Columns)
	}
	return columns, nil
}

// partSQL selects the columns from files that have some of them, by field id.
func partSQL(columns []viewColumn, have []lake.Column, files []lake.File) string {
	ids := make(map[string]int, len(have))
	for _, c := range have {
		ids[c.Name] = c.FieldID
	}
	var list, schema []string
	for _, c := range columns {
		id, ok := ids[c.name]
		if !ok {
			list = append(list, fmt.Sprintf("CAST(NULL AS %s) AS %s", c.typ, ident(c.name)))
			continue
		}
		list = append(list, ident(c.name))
		schema = append(schema, fmt.Sprintf("%d: {name: %s, type: %s, default_value: NULL}", id, literal(c.name), literal(c.typ)))
	}
	sql := "SELECT " + strings.Join(list, ", ")
	if len(files) == 0 {
		return sql
	}
	seen := make(map[string]bool, len(files))
	paths := make([]string, 0, len(files))
	for _, f := range files { // a planner may split a file into several tasks
		if !seen[f.Path] {
			seen[f.Path] = true
			paths = append(paths, literal(f.Path))
		}
	}
	return sql + " FROM read_parquet([" + strings.Join(paths, ", ") + "], schema=MAP {" + strings.Join(schema, ", ") + "}, hive_partitioning=false)"
}

// spansSQL is true for the rows of the hot tail's files that belong to the view.
func spansSQL(h *lake.Hot) string {
	if len(h.Spans) == 0 {
		return "false"
	}
	var any []string
	for _, s := range h.Spans {
		any = append(any, fmt.Sprintf("(_offset >= %d AND _offset < %d AND _partition = %d AND _log = '%s')", s.From, s.To, s.Partition, s.Incarnation))
	}
	return strings.Join(any, " OR ")
}
