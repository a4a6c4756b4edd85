package query

import (
	"strconv"

	"naru/internal/jsonscan"
)

// jsonWriter writes {"columns": [...], "rows": [[...], ...]}, one row a line.
type jsonWriter struct {
	block
	rows int64
}

func (w *jsonWriter) Begin(columns []Column) error {
	w.buf = append(w.buf, `{"columns": [`...)
	for i, c := range columns {
		if i > 0 {
			w.buf = append(w.buf, ", "...)
		}
		w.buf = append(w.buf, `{"name": `...)
		w.buf = jsonscan.AppendQuoted(w.buf, c.Name)
		w.buf = append(w.buf, `, "type": `...)
		w.buf = jsonscan.AppendQuoted(w.buf, c.Type)
		w.buf = append(w.buf, '}')
	}
	w.buf = append(w.buf, `], "rows": [`...)
	return nil
}

func (w *jsonWriter) Row(values []any) error {
	if w.rows++; w.rows > 1 {
		w.buf = append(w.buf, ',')
	}
	w.buf = append(w.buf, '\n')
	w.buf = AppendJSON(w.buf, values)
	return w.spill()
}

func (w *jsonWriter) End() error {
	if w.rows > 0 {
		w.buf = append(w.buf, '\n')
	}
	w.buf = append(w.buf, "]}\n"...)
	return w.flush()
}

func (w *jsonWriter) Cut(message string) error {
	w.buf = append(w.buf, '\n')
	return w.cut(message)
}

// ndjsonWriter writes one object a row.
type ndjsonWriter struct {
	block
	keys [][]byte // `"name": `
}

func (w *ndjsonWriter) Begin(columns []Column) error {
	for _, name := range uniqueNames(columns) {
		w.keys = append(w.keys, append(jsonscan.AppendQuoted(nil, name), ": "...))
	}
	return nil
}

func (w *ndjsonWriter) Row(values []any) error {
	w.buf = append(w.buf, '{')
	for i, v := range values {
		if i > 0 {
			w.buf = append(w.buf, ", "...)
		}
		w.buf = append(w.buf, w.keys[i]...)
		w.buf = AppendJSON(w.buf, v)
	}
	w.buf = append(w.buf, "}\n"...)
	return w.spill()
}

func (w *ndjsonWriter) End() error { return w.flush() }

func (w *ndjsonWriter) Cut(message string) error { return w.cut(message) }

// uniqueNames gives the second column of a name an ending, so that an object
// keeps both: a, a_1, a_2.
func uniqueNames(columns []Column) []string {
	names := make([]string, len(columns))
	taken := make(map[string]bool, len(columns))
	for _, c := range columns {
		taken[c.Name] = true
	}
	used := make(map[string]bool, len(columns))
	for i, c := range columns {
		name := c.Name
		for n := 1; used[name] || n > 1 && taken[name]; n++ {
			name = c.Name + "_" + strconv.Itoa(n)
		}
		used[name] = true
		names[i] = name
	}
	return names
}
