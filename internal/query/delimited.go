package query

import "strings"

// delimitedWriter writes CSV (RFC 4180, lines end with LF) or TSV, with a header.
type delimitedWriter struct {
	block
	append func(dst []byte, v any, only bool) []byte
	sep    byte
}

func (w *delimitedWriter) Begin(columns []Column) error {
	names := make([]any, len(columns))
	for i, c := range columns {
		names[i] = c.Name
	}
	return w.Row(names)
}

func (w *delimitedWriter) Row(values []any) error {
	for i, v := range values {
		if i > 0 {
			w.buf = append(w.buf, w.sep)
		}
		w.buf = w.append(w.buf, v, len(values) == 1)
	}
	w.buf = append(w.buf, '\n')
	return w.spill()
}

func (w *delimitedWriter) End() error { return w.flush() }

func (w *delimitedWriter) Cut(message string) error { return w.cut(message) }

// appendCSV: NULL is empty, an empty text is "". In an answer of one column NULL
// is "" too, because many readers skip an empty line.
func appendCSV(dst []byte, v any, only bool) []byte {
	if v == nil {
		if only {
			return append(dst, `""`...)
		}
		return dst
	}
	n := len(dst)
	dst = appendText(dst, v)
	cell := dst[n:]
	if len(cell) > 0 && !needsQuotes(cell) {
		return dst
	}
	quoted := `"` + strings.ReplaceAll(string(cell), `"`, `""`) + `"`
	return append(dst[:n], quoted...)
}

func needsQuotes(cell []byte) bool {
	if c := cell[0]; c == ' ' || c == '\t' || c == '{' { // a line that begins with { is an error's
		return true
	}
	for _, c := range cell {
		if c == ',' || c == '"' || c == '\n' || c == '\r' {
			return true
		}
	}
	return cell[len(cell)-1] == ' '
}

// appendTSV: NULL is \N; tab, line feed, carriage return and backslash are
// written \t, \n, \r and \\, as PostgreSQL and ClickHouse do.
func appendTSV(dst []byte, v any, _ bool) []byte {
	if v == nil {
		return append(dst, `\N`...)
	}
	n := len(dst)
	dst = appendText(dst, v)
	if cell := string(dst[n:]); strings.ContainsAny(cell, "\t\n\r\\") {
		return append(dst[:n], tsvEscapes.Replace(cell)...)
	}
	return dst
}

var tsvEscapes = strings.NewReplacer("\t", `\t`, "\n", `\n`, "\r", `\r`, `\`, `\\`)
