package query

import (
	"encoding/json"
	"regexp"
	"strings"
)

// A Comparison holds for every row that a reference to a table gives to the
// answer: it is one of the terms of the WHERE over it, which are joined by AND. So
// whoever reads the table may leave out rows for which it is surely false or null.
type Comparison struct {
	Column    string // as the statement writes it
	Op        Op
	Constants []Constant // two for Between, one or more for In, else one
}

// Names tells whether the comparison is of the column of that name, by the rules
// that DuckDB has for names.
func (c Comparison) Names(column string) bool { return lower(c.Column) == lower(column) }

// Op compares a column, on the left, with constants.
type Op int

// The comparisons.
const (
	Equal Op = iota
	Less
	LessOrEqual
	Greater
	GreaterOrEqual
	Between
	In
)

// Constant is an expression without columns that has one value while a statement
// runs.
type Constant struct {
	// SQL of it, written anew from the tree.
	SQL string
	// Literal: it is a text in quotes, which takes the type of what it is compared
	// with.
	Literal bool
}

// Limits of what is looked for: a list longer than that prunes little.
const (
	mostConstants = 256 // in a statement
	mostDepth     = 16  // of a constant expression
)

var comparisons = map[any]Op{
	"COMPARE_EQUAL": Equal, "COMPARE_LESSTHAN": Less, "COMPARE_LESSTHANOREQUALTO": LessOrEqual,
	"COMPARE_GREATERTHAN": Greater, "COMPARE_GREATERTHANOREQUALTO": GreaterOrEqual,
}

// mirrored is the same comparison with its sides exchanged.
var mirrored = map[Op]Op{Equal: Equal, Less: Greater, LessOrEqual: GreaterOrEqual, Greater: Less, GreaterOrEqual: LessOrEqual}

// filters fills s.Filters from the judged tree. It knows few shapes, and what it
// does not know it leaves alone.
func (s *Statement) filters(tree map[string]any) {
	f := filterFinder{s: s, found: map[int][]Comparison{}}
	f.walk(tree)
	s.Filters = make([][]Comparison, len(s.Refs))
	times := map[int]int{}
	for _, r := range s.Refs {
		times[r.At]++
	}
	for i, r := range s.Refs {
		if r.At >= 0 && times[r.At] == 1 {
			s.Filters[i] = f.found[r.At]
		}
	}
}

type filterFinder struct {
	s         *Statement
	found     map[int][]Comparison // by the place of the reference; nil: it was met twice
	constants int
}

func (f *filterFinder) walk(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			f.walk(e)
		}
	case map[string]any:
		if v["type"] == "SELECT_NODE" {
			f.selectNode(v)
		}
		for _, e := range v {
			f.walk(e)
		}
	}
}

// source is something that a FROM reads.
type source struct {
	name string // folded
	at   int
	// filtered: the WHERE sees its rows as they are, or rows of nulls, or not at
	// all: one row of it has no influence on what becomes of the others.
	filtered bool
}

func (f *filterFinder) selectNode(node map[string]any) {
	from, _ := node["from_table"].(map[string]any)
	where, _ := node["where_clause"].(map[string]any)
	if from == nil || where == nil || node["sample"] != nil {
		return
	}
	sources := f.sources(from, true, nil)
	terms := map[int][]Comparison{} // by source
	for _, term := range conjuncts(where, nil) {
		column, c, ok := f.comparison(term)
		if !ok {
			continue
		}
		if i := find(sources, column); i >= 0 && sources[i].filtered {
			c.Column = column[len(column)-1]
			terms[i] = append(terms[i], c)
		}
	}
	for i, found := range terms {
		at := sources[i].at
		if _, twice := f.found[at]; twice {
			found = nil
		}
		f.found[at] = found
	}
}

// find is the place of the source that a column's name surely means, or -1.
func find(sources []source, column []string) int {
	if len(column) == 1 {
		if len(sources) == 1 {
			return 0
		}
		return -1
	}
	found := -1
	for i, s := range sources {
		if s.name == lower(column[0]) {
			if found >= 0 {
				return -1
			}
			found = i
		}
	}
	return found
}

// sources lists what a FROM reads. An outer join gives rows of one side whether
// or not the other has a match, so leaving out rows of the other could make
// rows of nulls; as of and positional joins choose a row by its neighbours.
func (f *filterFinder) sources(ref map[string]any, filtered bool, to []source) []source {
	filtered = filtered && ref["sample"] == nil
	if ref["type"] == "JOIN" {
		left, right := false, false
		if ref["ref_type"] == "REGULAR" || ref["ref_type"] == "CROSS" {
			switch ref["join_type"] {
			case "INNER":
				left, right = true, true
			case "LEFT":
				left = true
			case "RIGHT":
				right = true
			}
		}
		l, _ := ref["left"].(map[string]any)
		r, _ := ref["right"].(map[string]any)
		return f.sources(r, filtered && right, f.sources(l, filtered && left, to))
	}
	name, _ := ref["alias"].(string)
	if name == "" {
		name, _ = ref["table_name"].(string)
	}
	renamed, _ := ref["column_name_alias"].([]any)
	return append(to, source{name: lower(name), at: f.s.offset(place(ref)), filtered: filtered && ref["type"] == "BASE_TABLE" && len(renamed) == 0})
}

// conjuncts are the terms that AND joins.
func conjuncts(expr map[string]any, to []map[string]any) []map[string]any {
	if expr["type"] != "CONJUNCTION_AND" {
		return append(to, expr)
	}
	children, _ := expr["children"].([]any)
	for _, c := range children {
		if c, ok := c.(map[string]any); ok {
			to = conjuncts(c, to)
		}
	}
	return to
}

// comparison reads a term that compares a column with constants.
func (f *filterFinder) comparison(expr map[string]any) (column []string, c Comparison, ok bool) {
	side := func(key string) map[string]any { m, _ := expr[key].(map[string]any); return m }
	var constants []map[string]any
	op, simple := comparisons[expr["type"]]
	switch {
	case simple && expr["class"] == "COMPARISON":
		left, right := side("left"), side("right")
		if column = columnRef(left); column == nil {
			left, right, op = right, left, mirrored[op]
			column = columnRef(left)
		}
		c.Op, constants = op, []map[string]any{right}
	case expr["class"] == "BETWEEN" && expr["type"] == "COMPARE_BETWEEN":
		column = columnRef(side("input"))
		c.Op, constants = Between, []map[string]any{side("lower"), side("upper")}
	case expr["class"] == "OPERATOR" && expr["type"] == "COMPARE_IN":
		children, _ := expr["children"].([]any)
		for i, e := range children {
			e, _ := e.(map[string]any)
			if i == 0 {
				column = columnRef(e)
			} else {
				constants = append(constants, e)
			}
		}
		c.Op = In
	}
	if column == nil || len(constants) == 0 || f.constants+len(constants) > mostConstants {
		return nil, c, false
	}
	for _, e := range constants {
		sql, ok := constantSQL(e, mostDepth)
		if !ok {
			return nil, c, false
		}
		typ, _ := constantType(e)
		c.Constants = append(c.Constants, Constant{SQL: sql, Literal: typ == "VARCHAR"})
	}
	f.constants += len(constants)
	return column, c, true
}

// columnRef is a column's name in one or two parts, else nil.
func columnRef(expr map[string]any) []string {
	if expr["class"] != "COLUMN_REF" {
		return nil
	}
	list, _ := expr["column_names"].([]any)
	if len(list) != 1 && len(list) != 2 {
		return nil
	}
	names := make([]string, len(list))
	for i, n := range list {
		names[i], _ = n.(string)
	}
	return names
}

// steady are the functions that may stand in a constant: without side effects,
// cheap, and of one value while a statement runs.
var steady = map[string]bool{
	"now": true, "get_current_timestamp": true, "transaction_timestamp": true, "today": true, "trunc": true, "date_trunc": true, "datetrunc": true,
	"to_years": true, "to_months": true, "to_weeks": true, "to_days": true, "to_hours": true, "to_minutes": true, "to_seconds": true,
	"to_milliseconds": true, "to_microseconds": true, "to_timestamp": true, "epoch_ms": true, "make_date": true, "make_timestamp": true, "make_timestamptz": true,
}

var operators = map[string]bool{"+": true, "-": true, "*": true}

var castTypes = map[any]bool{"INTERVAL": true, "TIMESTAMP WITH TIME ZONE": true, "TIMESTAMP": true, "DATE": true, "BIGINT": true, "INTEGER": true, "DOUBLE": true, "VARCHAR": true}

// constantSQL writes an expression without columns.
func constantSQL(expr map[string]any, depth int) (string, bool) {
	if depth == 0 {
		return "", false
	}
	switch expr["class"] {
	case "CONSTANT":
		return literalSQL(expr)
	case "CAST":
		typ, _ := expr["cast_type"].(map[string]any)
		child, _ := expr["child"].(map[string]any)
		if expr["try_cast"] != false || typ["type_info"] != nil || !castTypes[typ["id"]] {
			return "", false
		}
		sql, ok := constantSQL(child, depth-1)
		return "CAST(" + sql + " AS " + typ["id"].(string) + ")", ok
	case "FUNCTION":
		return callSQL(expr, depth)
	}
	return "", false
}

func callSQL(expr map[string]any, depth int) (string, bool) {
	name, _ := expr["function_name"].(string)
	name = lower(name)
	operator := expr["is_operator"] == true
	schema, _ := expr["schema"].(string)
	catalog, _ := expr["catalog"].(string)
	if operator && !operators[name] || !operator && !steady[name] || schema != "" && schema != "main" || catalog != "" || expr["filter"] != nil || expr["distinct"] == true {
		return "", false
	}
	children, _ := expr["children"].([]any)
	var args []string
	for _, c := range children {
		c, _ := c.(map[string]any)
		sql, ok := constantSQL(c, depth-1)
		if !ok {
			return "", false
		}
		args = append(args, sql)
	}
	switch {
	case !operator:
		return name + "(" + strings.Join(args, ", ") + ")", true
	case len(args) == 1:
		return "(" + name + " " + args[0] + ")", true
	case len(args) == 2:
		return "(" + args[0] + " " + name + " " + args[1] + ")", true
	}
	return "", false
}

// constantType gives type and value of a constant that is not null.
func constantType(expr map[string]any) (typ string, value map[string]any) {
	value, _ = expr["value"].(map[string]any)
	if expr["class"] != "CONSTANT" || value["is_null"] != false {
		return "", nil
	}
	t, _ := value["type"].(map[string]any)
	typ, _ = t["id"].(string)
	return typ, value
}

var wholeNumber = regexp.MustCompile(`^-?[0-9]+$`)

func literalSQL(expr map[string]any) (string, bool) {
	typ, value := constantType(expr)
	switch typ {
	case "VARCHAR":
		text, ok := value["value"].(string)
		return "'" + strings.ReplaceAll(text, "'", "''") + "'", ok
	case "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "DOUBLE":
		n, ok := value["value"].(json.Number)
		if !ok || typ != "DOUBLE" && !wholeNumber.MatchString(string(n)) {
			return "", false
		}
		return "CAST('" + string(n) + "' AS " + typ + ")", true
	case "DECIMAL":
		return decimalSQL(value)
	}
	return "", false
}

// decimalSQL writes a number with a point, which the tree has as its digits.
func decimalSQL(value map[string]any) (string, bool) {
	t, _ := value["type"].(map[string]any)
	info, _ := t["type_info"].(map[string]any)
	width, ok1 := info["width"].(json.Number)
	scale, ok2 := info["scale"].(json.Number)
	digits, ok3 := value["value"].(json.Number)
	at, err := scale.Int64()
	if !ok1 || !ok2 || !ok3 || err != nil || at < 0 || !wholeNumber.MatchString(string(digits)) {
		return "", false
	}
	text, negative := strings.CutPrefix(string(digits), "-")
	if missing := int(at) + 1 - len(text); missing > 0 {
		text = strings.Repeat("0", missing) + text
	}
	text = text[:len(text)-int(at)] + "." + text[len(text)-int(at):]
	if negative {
		text = "-" + text
	}
	return "CAST('" + text + "' AS DECIMAL(" + string(width) + "," + string(scale) + "))", true
}
