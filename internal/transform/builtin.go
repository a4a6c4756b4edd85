package transform

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"naru/internal/quantity"
	"naru/internal/strict"
)

// Built-in steps are shorthand for statements that anybody could write.

// filter: EXPR
func filterSQL(f *form) string {
	expr := f.text()
	if expr == "" {
		return ""
	}
	return filter(expr)
}

func filter(expr string) string { return "SELECT * FROM input WHERE " + bracket(expr) }

// select: [column, {name: EXPR}, ...]
func selectSQL(f *form) string {
	var items []string
	for n := range strict.Items(f.n) {
		if strict.IsText(n) {
			name := f.textOf(n)
			if name == "" {
				return ""
			}
			items = append(items, ident(name))
			continue
		}
		pairs := f.pairs(n, "[channel, {size: added + deleted}]")
		if len(pairs) == 0 {
			return ""
		}
		for _, p := range pairs {
			items = append(items, bracket(p.value)+" AS "+ident(p.name))
		}
	}
	if len(items) == 0 {
		return f.fail(f.n, "wants a list, as in [channel, {size: added + deleted}]")
	}
	return "SELECT " + strings.Join(items, ", ") + " FROM input"
}

// rename: {old: new}
func renameSQL(f *form) string {
	var items []string
	for _, p := range f.pairs(f.n, "{old: new}") {
		items = append(items, ident(p.name)+" AS "+ident(p.value))
	}
	if len(items) == 0 {
		return ""
	}
	return "SELECT * RENAME (" + strings.Join(items, ", ") + ") FROM input"
}

// cast: {column: TYPE}
func castSQL(f *form) string {
	var items []string
	for _, p := range f.pairs(f.n, "{added: BIGINT}") {
		items = append(items, fmt.Sprintf("CAST(%s AS %s\n) AS %s", ident(p.name), p.value, ident(p.name)))
	}
	if len(items) == 0 {
		return ""
	}
	return "SELECT * REPLACE (" + strings.Join(items, ", ") + ") FROM input"
}

// drop: [column, ...]
func dropSQL(f *form) string {
	var items []string
	for _, name := range f.list("[channel, page]") {
		items = append(items, ident(name))
	}
	if len(items) == 0 {
		return ""
	}
	return "SELECT * EXCLUDE (" + strings.Join(items, ", ") + ") FROM input"
}

// set: {column: EXPR}
func setSQL(f *form) string {
	pairs := f.pairs(f.n, "{size: added + deleted}")
	if len(pairs) == 0 {
		return ""
	}
	for i := range pairs {
		pairs[i].value = bracket(pairs[i].value)
	}
	return with(pairs)
}

// sampleParts is how fine a share may be: a millionth.
const sampleParts = 1_000_000

// sample: 10%. Which events are in it is told by their ids, so that it is the same
// in all pipelines and each time.
func sampleSQL(f *form) string {
	text := f.text()
	if text == "" {
		return ""
	}
	number, percent := strings.CutSuffix(strings.TrimSpace(text), "%")
	share, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if percent {
		share /= 100
	}
	if err != nil || !(share >= 0 && share <= 1) {
		return f.fail(f.n, "%q is no share: write 10%% or 0.1", text)
	}
	return fmt.Sprintf("SELECT * FROM input WHERE md5_number_lower(_id) %% %d < %d", sampleParts, int(math.Round(share*sampleParts)))
}

// json: column, or {column: c, fields: {name: path}}
func jsonSQL(f *form) string {
	var fields []pair
	name, ok := f.column(nil, map[string]*[]pair{"fields": &fields})
	if !ok {
		return ""
	}
	if len(fields) == 0 {
		return with([]pair{{name, "CAST(" + ident(name) + " AS JSON)"}})
	}
	for i, p := range fields {
		path, typ, typed := strings.Cut(p.value, "::")
		value := fmt.Sprintf("json_extract_string(%s, %s)", ident(name), literal(jsonPath(strings.TrimSpace(path))))
		if typed {
			value = fmt.Sprintf("CAST(%s AS %s\n)", value, typ)
		}
		fields[i].value = value
	}
	return with(fields)
}

// jsonPath is DuckDB's path of a.b, where \ escapes a dot within a key.
func jsonPath(path string) string {
	if strings.HasPrefix(path, "$") {
		return path
	}
	var b strings.Builder
	b.WriteString(`$."`)
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '\\' && i+1 < len(path):
			i++
			b.WriteByte(path[i])
		case c == '.':
			b.WriteString(`"."`)
		default:
			b.WriteByte(c)
		}
	}
	return b.String() + `"`
}

// base64: column, or {column: c, as: name}
func base64SQL(f *form) string {
	var as string
	name, ok := f.column(map[string]*string{"as": &as}, nil)
	if !ok {
		return ""
	}
	if as == "" {
		as = name
	}
	// Both alphabets, and without padding, as senders have them.
	text := fmt.Sprintf("rtrim(translate(CAST(%s AS VARCHAR), '-_', '+/'), '=')", ident(name))
	return with([]pair{{as, fmt.Sprintf("decode(from_base64(%s || CASE len(%s) %% 4 WHEN 2 THEN '==' WHEN 3 THEN '=' ELSE '' END))", text, text)}})
}

// Limits of a call in JavaScript that says nothing of them.
const (
	scriptTime   = quantity.Duration(time.Second)
	scriptMemory = 256 * quantity.MiB
)

// js: code, or {code: ..., time: 1s, memory: 256MiB}
func script(f *form) string {
	s := &Script{Time: scriptTime, Memory: scriptMemory}
	if strict.IsText(f.n) {
		s.Code = f.text()
	} else {
		var limit, memory string
		if !f.options(map[string]*string{"code": &s.Code, "time": &limit, "memory": &memory}, nil) {
			return ""
		}
		if s.Code == "" {
			return f.fail(f.n, "wants the text of a function, alone or as {code: ...}")
		}
		if limit != "" {
			if err := s.Time.UnmarshalText([]byte(limit)); err != nil || s.Time <= 0 {
				return f.fail(f.n, "time: %q is no time that a call may take, as in 100ms", limit)
			}
		}
		if memory != "" {
			if err := s.Memory.UnmarshalText([]byte(memory)); err != nil || s.Memory <= 0 {
				return f.fail(f.n, "memory: %q is no size, as in 64MiB", memory)
			}
		}
	}
	if s.Code != "" {
		f.step.Script = s
	}
	return ""
}
