package row

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"naru/internal/event"
)

// Pick gives the columns of these names, with the types that they have in columns.
// Without columns (no steps) an attribute has its own type, and anything else is the
// member of the data by that name, as JSON.
func Pick(columns []event.Column, names []string) ([]event.Column, error) {
	out := make([]event.Column, 0, len(names))
next:
	for _, name := range names {
		for _, list := range [][]event.Column{columns, event.Envelope} {
			for _, c := range list {
				if c.Name == name {
					out = append(out, c)
					continue next
				}
			}
		}
		if columns != nil {
			return nil, fmt.Errorf("the steps give no column %s", name)
		}
		out = append(out, event.Column{Name: name, Type: event.JSONColumn})
	}
	return out, nil
}

// AppendText appends a value of Reader.Values as plain text; nothing for null.
func AppendText(dst []byte, v any) []byte {
	switch v := v.(type) {
	case bool:
		return strconv.AppendBool(dst, v)
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case float64:
		return strconv.AppendFloat(dst, v, 'g', -1, 64)
	case string:
		return append(dst, v...)
	case time.Time:
		return v.UTC().AppendFormat(dst, TimeLayout)
	case json.RawMessage:
		var s string
		if len(v) > 0 && v[0] == '"' && json.Unmarshal(v, &s) == nil {
			return append(dst, s...)
		}
		return append(dst, v...)
	}
	return dst
}

// Template makes a text of a row: "user:{id}", "edits-{_time:%Y.%m.%d}". Braces that
// are meant are written twice.
type Template struct {
	text  string
	parts []part
	names []string // of the columns, each once
}

type part struct {
	literal string
	column  int    // in names; -1: the literal
	layout  string // of strftime
}

// ParseTemplate reads a template.
func ParseTemplate(text string) (*Template, error) {
	t := &Template{text: text}
	literal := ""
	for rest := text; rest != ""; {
		i := strings.IndexAny(rest, "{}")
		if i < 0 {
			literal += rest
			break
		}
		literal += rest[:i]
		if strings.HasPrefix(rest[i+1:], rest[i:i+1]) {
			literal += rest[i : i+1]
			rest = rest[i+2:]
			continue
		}
		end := strings.IndexByte(rest[i:], '}')
		if rest[i] == '}' || end < 0 {
			return nil, fmt.Errorf("%q has a brace without its other one: a brace that is meant is written twice", text)
		}
		name, layout, _ := strings.Cut(rest[i+1:i+end], ":")
		if name == "" || strings.Contains(name, "{") {
			return nil, fmt.Errorf("%q: {} wants the name of a column, as in {_type}", text)
		}
		if err := checkLayout(layout); err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
		if literal != "" {
			t.parts = append(t.parts, part{literal: literal, column: -1})
			literal = ""
		}
		t.parts = append(t.parts, part{column: t.name(name), layout: layout})
		rest = rest[i+end+1:]
	}
	if literal != "" {
		t.parts = append(t.parts, part{literal: literal, column: -1})
	}
	return t, nil
}

func (t *Template) name(name string) int {
	for i, n := range t.names {
		if n == name {
			return i
		}
	}
	t.names = append(t.names, name)
	return len(t.names) - 1
}

// Columns are the names of the columns that the template has, each once.
func (t *Template) Columns() []string { return t.names }

// String is the template as it was written.
func (t *Template) String() string { return t.text }

// Append appends the text of a row whose values are those of Columns, in order. It
// returns the name of a column that is null, or no time where one is wanted; the
// text is then of no use.
func (t *Template) Append(dst []byte, values []any) (text []byte, missing string) {
	for _, p := range t.parts {
		switch {
		case p.column < 0:
			dst = append(dst, p.literal...)
		case p.layout == "":
			if values[p.column] == nil {
				return dst, t.names[p.column]
			}
			dst = AppendText(dst, values[p.column])
		default:
			at, ok := asTime(values[p.column])
			if !ok {
				return dst, t.names[p.column]
			}
			dst = appendLayout(dst, at, p.layout)
		}
	}
	return dst, ""
}

func asTime(v any) (time.Time, bool) {
	switch v := v.(type) {
	case time.Time:
		return v.UTC(), true
	case string, json.RawMessage:
		at, err := time.Parse(time.RFC3339Nano, string(AppendText(nil, v)))
		return at.UTC(), err == nil
	}
	return time.Time{}, false
}

// layouts are the parts of strftime that a template may have.
var layouts = map[byte]string{'Y': "2006", 'm': "01", 'd': "02", 'H': "15", 'M': "04", 'S': "05", 'j': "002"}

func checkLayout(layout string) error {
	for i := 0; i < len(layout); i++ {
		if layout[i] != '%' {
			continue
		}
		if i++; i == len(layout) || layouts[layout[i]] == "" {
			return fmt.Errorf("%q: of a time there are %%Y %%m %%d %%H %%M %%S and %%j (the day of the year)", layout)
		}
	}
	return nil
}

func appendLayout(dst []byte, at time.Time, layout string) []byte {
	for i := 0; i < len(layout); i++ {
		if layout[i] != '%' {
			dst = append(dst, layout[i])
			continue
		}
		i++
		dst = at.AppendFormat(dst, layouts[layout[i]])
	}
	return dst
}
