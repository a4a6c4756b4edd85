package query

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// numeric tells whether values of a type stand to the right.
func numeric(typ string) bool {
	switch typ {
	case "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT", "BIGNUM", "FLOAT", "DOUBLE":
		return true
	}
	return strings.HasPrefix(typ, "DECIMAL(") && strings.HasSuffix(typ, ")")
}

// show is a value for people: bytes that are text are shown as text, what a
// terminal would obey is made visible.
func show(v any) string {
	switch v := v.(type) {
	case []byte:
		if !utf8.Valid(v) {
			var b strings.Builder
			for _, c := range v {
				if ' ' <= c && c < 0x7f && c != '\\' {
					b.WriteByte(c)
				} else {
					fmt.Fprintf(&b, `\x%02X`, c)
				}
			}
			return b.String()
		}
		return visible(string(v))
	case string:
		return visible(v)
	}
	return visible(Text(v))
}

func visible(s string) string {
	clean := true
	for _, r := range s {
		if !unicode.IsPrint(r) {
			clean = false
			break
		}
	}
	if clean && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case unicode.IsPrint(r) || r == 0x200d: // the joiner of emoji
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// markdownWriter writes a GitHub table.
type markdownWriter struct{ block }

var markdownEscapes = strings.NewReplacer("|", `\|`, "\\", `\\`, "<", "&lt;")

func (w *markdownWriter) Begin(columns []Column) error {
	line := []byte{'|'}
	for _, c := range columns {
		w.buf = append(append(w.buf, "| "...), markdownEscapes.Replace(visible(c.Name))...)
		w.buf = append(w.buf, ' ')
		if numeric(c.Type) {
			line = append(line, " ---: |"...)
		} else {
			line = append(line, " --- |"...)
		}
	}
	w.buf = append(append(append(w.buf, "|\n"...), line...), '\n')
	return nil
}

func (w *markdownWriter) Row(values []any) error {
	for _, v := range values {
		w.buf = append(append(w.buf, "| "...), markdownEscapes.Replace(show(v))...)
		w.buf = append(w.buf, ' ')
	}
	w.buf = append(w.buf, "|\n"...)
	return w.spill()
}

func (w *markdownWriter) End() error { return w.flush() }

func (w *markdownWriter) Cut(message string) error { return w.cut(message) }

// A table's columns are as wide as the widest cell of the rows that are held
// back: widthRows rows or widthBytes bytes of text. Later rows may stand out.
const (
	widthRows  = 1000
	widthBytes = 1 << 20
)

// tableWriter aligns columns for a terminal and counts the rows.
type tableWriter struct {
	block
	right  []bool
	widths []int
	header []string
	held   [][]string
	bytes  int
	ready  bool // widths are fixed, held rows are written
	rows   int64
}

func (w *tableWriter) Begin(columns []Column) error {
	for _, c := range columns {
		name := visible(c.Name)
		w.header = append(w.header, name)
		w.right = append(w.right, numeric(c.Type))
		w.widths = append(w.widths, displayWidth(name))
	}
	return nil
}

func (w *tableWriter) Row(values []any) error {
	w.rows++
	cells := make([]string, len(values))
	for i, v := range values {
		cells[i] = show(v)
		w.bytes += len(cells[i])
	}
	if w.ready {
		w.line(cells)
		return w.spill()
	}
	for i, c := range cells {
		w.widths[i] = max(w.widths[i], displayWidth(c))
	}
	w.held = append(w.held, cells)
	if len(w.held) >= widthRows || w.bytes >= widthBytes {
		return w.release()
	}
	return nil
}

// release writes the header and the rows held back.
func (w *tableWriter) release() error {
	w.ready = true
	w.line(w.header)
	for i, n := range w.widths {
		if i > 0 {
			w.buf = append(w.buf, "  "...)
		}
		w.buf = append(w.buf, strings.Repeat("-", n)...)
	}
	w.buf = append(w.buf, '\n')
	for _, cells := range w.held {
		w.line(cells)
		if err := w.spill(); err != nil {
			return err
		}
	}
	w.held = nil
	return nil
}

func (w *tableWriter) line(cells []string) {
	for i, c := range cells {
		if i > 0 {
			w.buf = append(w.buf, "  "...)
		}
		pad := max(0, w.widths[i]-displayWidth(c))
		if w.right[i] {
			w.buf = append(w.buf, strings.Repeat(" ", pad)...)
		}
		w.buf = append(w.buf, c...)
		if !w.right[i] && i < len(cells)-1 {
			w.buf = append(w.buf, strings.Repeat(" ", pad)...)
		}
	}
	w.buf = append(w.buf, '\n')
}

func (w *tableWriter) End() error {
	if !w.ready {
		if err := w.release(); err != nil {
			return err
		}
	}
	if w.rows == 1 {
		w.buf = append(w.buf, "(1 row)\n"...)
	} else {
		w.buf = fmt.Appendf(w.buf, "(%d rows)\n", w.rows)
	}
	return w.flush()
}

func (w *tableWriter) Cut(message string) error {
	if !w.ready {
		if err := w.release(); err != nil {
			return err
		}
	}
	return w.cut(message)
}

// wide lists the scripts that take two columns of a terminal (Unicode's East
// Asian Width W and F, and emoji).
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{{0x1100, 0x115f, 1}, {0x231a, 0x231b, 1}, {0x23e9, 0x23ec, 1}, {0x25fd, 0x25fe, 1}, {0x2614, 0x2615, 1}, {0x2648, 0x2653, 1},
		{0x26a1, 0x26a1, 1}, {0x2705, 0x2705, 1}, {0x270a, 0x270b, 1}, {0x2728, 0x2728, 1}, {0x274c, 0x274c, 1}, {0x2753, 0x2755, 1}, {0x2795, 0x2797, 1},
		{0x2b50, 0x2b50, 1}, {0x2e80, 0x303e, 1}, {0x3041, 0x33ff, 1}, {0x3400, 0x4dbf, 1}, {0x4e00, 0x9fff, 1}, {0xa000, 0xa4cf, 1}, {0xa960, 0xa97f, 1},
		{0xac00, 0xd7a3, 1}, {0xf900, 0xfaff, 1}, {0xfe30, 0xfe6f, 1}, {0xff00, 0xff60, 1}, {0xffe0, 0xffe6, 1}},
	R32: []unicode.Range32{{0x1f300, 0x1f64f, 1}, {0x1f680, 0x1f6ff, 1}, {0x1f900, 0x1f9ff, 1}, {0x20000, 0x3fffd, 1}},
}

// displayWidth counts the columns of a terminal that s takes.
func displayWidth(s string) int {
	n := 0
	for _, r := range s {
		switch {
		case r < 0x300:
			n++
		case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		case unicode.Is(wide, r):
			n += 2
		default:
			n++
		}
	}
	return n
}
