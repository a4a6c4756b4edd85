package transform

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"naru/internal/quantity"
	"naru/internal/spelling"
	"naru/internal/strict"
)

// Step is one entry of `steps:` in a pipeline's file. Whatever its kind, it is a
// statement over the table `input`.
type Step struct {
	Line int    // where it stands
	Kind string // sql, filter, ...
	SQL  string // what it computes
	// Instead is computed in its place where it does not fit the types of the columns;
	// empty: nothing is.
	Instead string
	// Script, when it is not nil, is what the step is in place of SQL: a function of a row.
	Script *Script
	// Files are read by the step: paths as they stand in it.
	Files []string
	// To, when it is not empty, is the sink whose rows the step chooses: SQL is a filter,
	// but all rows stay, and event.Event.To tells which ones it lets pass. Such steps
	// stand behind all others, at most MostRoutes of them.
	To string
}

// MostRoutes is how many sinks of a pipeline may choose their rows.
const MostRoutes = 64

// Where is the step by which a sink chooses its rows.
func Where(sink, expr string, line int) Step {
	return Step{Line: line, Kind: "where", SQL: filter(expr), To: sink}
}

// Label names a step where something is said of it; number counts from 1.
func (s *Step) Label(number int) string {
	if s.To != "" {
		return s.Kind + " of " + s.To
	}
	return fmt.Sprintf("%d %s", number, s.Kind)
}

// Script is a function in JavaScript, and the limits of a call.
type Script struct {
	Code   string
	Time   quantity.Duration
	Memory quantity.Bytes
}

// kinds of steps, with what reads that which stands behind their names. It gives
// the statement; empty when it has told what is wrong.
var kinds = map[string]func(f *form) string{
	"sql":    (*form).text,
	"filter": filterSQL,
	"select": selectSQL,
	"rename": renameSQL,
	"cast":   castSQL,
	"drop":   dropSQL,
	"set":    setSQL,
	"sample": sampleSQL,
	"json":   jsonSQL,
	"base64": base64SQL,

	"url":        urlSQL,
	"utm":        utmSQL,
	"user_agent": agentSQL,
	"referer":    refererSQL,
	"geoip":      geoipSQL,
	"unnest":     unnestSQL,
	"js":         script,
}

// ReadYAML implements strict.Reader.
func (s *Step) ReadYAML(d *strict.Decoder, n *strict.Node, path string) {
	s.Line = n.Line
	var keys []*strict.Node
	var val *strict.Node
	for k, v := range strict.Pairs(n) {
		keys, val = append(keys, k), v
	}
	if len(keys) != 1 {
		d.Fail(n.Line, path, "wants one step, as in filter: added > 0")
		return
	}
	kind := keys[0].Value
	read, ok := kinds[kind]
	if !ok {
		d.Fail(keys[0].Line, path, "unknown step %s%s", kind, meant(kind))
		return
	}
	s.Kind = kind
	s.SQL = read(&form{d: d, n: val, path: strict.Join(path, kind), step: s})
}

// meant names the kind that is nearest, or all.
func meant(kind string) string {
	all := slices.Sorted(maps.Keys(kinds))
	for _, k := range all {
		if spelling.Distance(k, kind) <= max(1, len(kind)/3) {
			return "; did you mean " + k + "?"
		}
	}
	return ": there are " + strings.Join(all, ", ")
}

// form is what stands behind the name of a step.
type form struct {
	d    *strict.Decoder
	n    *strict.Node
	path string
	step *Step
}

func (f *form) fail(n *strict.Node, format string, args ...any) string {
	f.d.Fail(n.Line, f.path, format, args...)
	return ""
}

// text is one value.
func (f *form) text() string { return f.textOf(f.n) }

func (f *form) textOf(n *strict.Node) string {
	if !strict.IsText(n) {
		return f.fail(n, "wants a text, not %s", strict.KindName(n))
	}
	if strings.TrimSpace(n.Value) == "" {
		return f.fail(n, "is empty")
	}
	return n.Value
}

// pair is a name and what it is to be.
type pair struct{ name, value string }

// pairs are the entries of a block in their order; nothing when it told a mistake.
func (f *form) pairs(n *strict.Node, example string) (pairs []pair) {
	seen := map[string]bool{}
	for k, v := range strict.Pairs(n) {
		value := f.textOf(v)
		if value == "" {
			return nil
		}
		if folded := strings.ToLower(k.Value); k.Value == "" || seen[folded] {
			f.fail(k, "the name %q is empty or stands twice", k.Value)
			return nil
		} else {
			seen[folded] = true
		}
		pairs = append(pairs, pair{k.Value, value})
	}
	if len(pairs) == 0 {
		f.fail(n, "wants a block of keys, as in %s", example)
	}
	return pairs
}

// list is a list of texts, or one text.
func (f *form) list(example string) (texts []string) {
	if strict.IsText(f.n) {
		if t := f.text(); t != "" {
			return []string{t}
		}
		return nil
	}
	for n := range strict.Items(f.n) {
		t := f.textOf(n)
		if t == "" {
			return nil
		}
		texts = append(texts, t)
	}
	if len(texts) == 0 {
		f.fail(f.n, "wants a list, as in %s", example)
	}
	return texts
}

// options reads a block whose keys are known into texts, and the others into more.
func (f *form) options(known map[string]*string, more map[string]*[]pair) bool {
	ok := true
	for k, v := range strict.Pairs(f.n) {
		switch {
		case known[k.Value] != nil:
			*known[k.Value] = f.textOf(v)
			ok = ok && *known[k.Value] != ""
		case more[k.Value] != nil:
			*more[k.Value] = f.pairs(v, "{name: what}")
			ok = ok && len(*more[k.Value]) > 0
		default:
			f.fail(k, "unknown key %s: there are %s", k.Value, strings.Join(slices.Sorted(maps.Keys(merged(known, more))), ", "))
			ok = false
		}
	}
	return ok
}

func merged(known map[string]*string, more map[string]*[]pair) map[string]bool {
	all := map[string]bool{}
	for k := range known {
		all[k] = true
	}
	for k := range more {
		all[k] = true
	}
	return all
}

// column is the step's column: what stands alone behind its name, or under the key
// column of a block.
func (f *form) column(known map[string]*string, more map[string]*[]pair) (string, bool) {
	if strict.IsText(f.n) {
		name := f.text()
		return name, name != ""
	}
	var name string
	all := map[string]*string{"column": &name}
	maps.Copy(all, known)
	if !f.options(all, more) {
		return "", false
	}
	if name == "" {
		f.fail(f.n, "wants the name of a column, alone or as {column: name}")
	}
	return name, name != ""
}

// ident and literal quote for SQL.
func ident(name string) string   { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// bracket puts an expression that somebody wrote into brackets. The line break
// ends a comment in it.
func bracket(expr string) string { return "(" + expr + "\n)" }

// with is a statement that gives columns in addition, in place of those of their
// names if there are such.
func with(columns []pair) string {
	var names, values []string
	for _, c := range columns {
		names = append(names, literal(strings.ToLower(c.name)))
		values = append(values, c.value+" AS "+ident(c.name))
	}
	return fmt.Sprintf("SELECT COLUMNS(lambda naru_name: lower(naru_name) NOT IN (%s)), %s FROM input", strings.Join(names, ", "), strings.Join(values, ", "))
}

// Key is all of a step that decides about rows.
func (s *Step) Key() string {
	return s.Kind + "\x00" + s.SQL + "\x00" + s.Instead + s.Script.key() + s.to()
}

func (s *Step) to() string {
	if s.To == "" {
		return ""
	}
	return "\x00to " + s.To
}

func (s *Script) key() string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("\x00%s\x00%s\x00%s", s.Code, s.Time, s.Memory)
}

// Everything are the steps of a pipeline without any whose sink needs columns.
var Everything = []Step{{Kind: "sql", SQL: "SELECT * FROM input"}}
