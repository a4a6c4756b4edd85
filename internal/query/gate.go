package query

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// The gate is an allow-list over the parsed statement (DOOR.md). It walks the
// tree that DuckDB's json_serialize_sql gives and lets pass only shapes that
// are described in tree.go: an unknown kind of node, an unknown field or an
// unknown function is refused, so a new DuckDB cannot bring in a new way out.

// MaxTree is the largest tree in bytes that the gate reads: about fifty
// thousand constants.
const MaxTree = 8 << 20

// Judge lets the statement pass or says why not. tree is what
// json_serialize_sql answered for s.Inner. It fills ShowTables, Refs,
// Filters and Guarded.
func (s *Statement) Judge(tree []byte) error {
	if len(tree) > MaxTree {
		return s.refuse(-1, "the statement is too complex: its tree has %d bytes, the limit is %d; put long lists of values into a table", len(tree), MaxTree)
	}
	var doc struct {
		Error      bool   `json:"error"`
		Kind       string `json:"error_type"`
		Message    string `json:"error_message"`
		Position   string `json:"position"`
		Statements []map[string]any
	}
	dec := json.NewDecoder(bytes.NewReader(tree))
	dec.UseNumber()
	if err := dec.Decode(&doc); err != nil {
		return s.refuse(-1, "the statement is nested too deeply or cannot be read: %v", err)
	}
	if doc.Error {
		return s.unparsed(doc.Kind, doc.Message, doc.Position)
	}
	switch len(doc.Statements) {
	case 0:
		return &Error{Class: ErrSQL, Text: "the statement is empty"}
	case 1:
	default:
		return s.refuse(-1, "%d statements were sent: only one at a time is allowed", len(doc.Statements))
	}
	if s.showTables(doc.Statements[0]) {
		return nil
	}
	g := gate{s: s, copies: 1}
	if err := g.statement(doc.Statements[0], nil); err != nil {
		return err
	}
	if err := g.computedPaths(); err != nil {
		return err
	}
	s.filters(doc.Statements[0])
	s.CountsRows = countsRows(doc.Statements[0])
	return nil
}

// unparsed judges what DuckDB did not turn into a tree.
func (s *Statement) unparsed(kind, message, position string) error {
	if kind != "not implemented" {
		at, err := strconv.Atoi(position)
		if err != nil {
			at = -1
		}
		return errorAt(ErrSQL, s.Text, s.offset(at), title(kind)+" Error: "+WithoutAdvice(message))
	}
	word, _ := firstWord(s.Inner)
	switch {
	case strings.HasPrefix(word, "PIVOT"):
		return s.refuse(-1, "PIVOT without a list of values is not supported yet: name the values, as in SELECT * FROM t PIVOT (sum(x) FOR k IN ('a', 'b'))")
	case word == "":
		return s.refuse(-1, "only queries are answered (SELECT, FROM, WITH, VALUES, DESCRIBE, SUMMARIZE, SHOW TABLES, EXPLAIN)")
	case queryWords[word]:
		return s.refuse(-1, "a part of this statement is not a query, or is a PIVOT without a list of values, which is not supported yet")
	}
	return s.refuse(-1, "%s is refused: only queries are answered (SELECT, FROM, WITH, VALUES, DESCRIBE, SUMMARIZE, SHOW TABLES, EXPLAIN)", word)
}

// WithoutAdvice cuts DuckDB's advice to SET what is locked here off its message.
func WithoutAdvice(message string) string {
	before, advice, found := strings.Cut(message, ` Use "SET `)
	if !found {
		return message
	}
	if _, after, more := strings.Cut(advice, "\n"); more {
		return before + "\n" + after
	}
	return before
}

var queryWords = map[string]bool{"SELECT": true, "FROM": true, "WITH": true, "VALUES": true, "TABLE": true, "DESCRIBE": true, "DESC": true, "SUMMARIZE": true, "SHOW": true, "UNPIVOT": true}

func title(kind string) string {
	if kind == "" {
		return "SQL"
	}
	return strings.ToUpper(kind[:1]) + kind[1:]
}

// showTables tells whether the whole statement is SHOW [ALL] TABLES.
func (s *Statement) showTables(stmt map[string]any) bool {
	word, _ := firstWord(s.Inner)
	if word != "SHOW" || s.Explain {
		return false
	}
	node, _ := stmt["node"].(map[string]any)
	ref, _ := node["from_table"].(map[string]any)
	if ref["type"] != "SHOW_REF" || ref["query"] != nil || ref["show_type"] != "SHOW_UNQUALIFIED" {
		return false
	}
	switch ref["table_name"] {
	case `"tables"`, "tables", "__show_tables_expanded":
		s.ShowTables = true
	}
	return s.ShowTables
}

// scope is the chain of CTE names that a place in the tree sees.
type scope struct {
	outer *scope
	name  string // folded to lower case
	// recurring: inside the recursive part of this CTE.
	recurring bool
}

func (sc *scope) find(name string) *scope {
	for ; sc != nil; sc = sc.outer {
		if sc.name == name {
			return sc
		}
	}
	return nil
}

type gate struct {
	s        *Statement
	aliases  map[string][]any // expressions by their aliases, folded
	computed []computed
	copies   int // how often the engine's guards write the place that is walked
	guards   int // sum of copies over all calls of guarded functions
}

func (g *gate) refuse(obj map[string]any, format string, args ...any) error {
	return g.s.refuse(place(obj), format, args...)
}

// place is the byte offset that the tree notes for obj, or -1.
func place(obj map[string]any) int {
	n, _ := obj["query_location"].(json.Number)
	at, err := strconv.Atoi(string(n))
	if err != nil {
		return -1
	}
	return at
}

// statement walks {"node": ..., "named_param_map": []}.
func (g *gate) statement(v any, sc *scope) error {
	obj, _ := v.(map[string]any)
	if obj["node"] == nil {
		return g.refuse(nil, "a statement of an unknown shape is refused")
	}
	return g.fields(obj, "a statement", statementFields, sc)
}

// fields walks the fields of obj by their description. Nothing that is not
// described gets through.
func (g *gate) fields(obj map[string]any, kind string, known map[string]field, sc *scope) error {
	for key, v := range obj {
		f, ok := known[key]
		if !ok {
			return g.refuse(obj, "%s with %q is not known to this version and therefore refused", kind, key)
		}
		if f == plain && !isPlain(v) {
			return g.refuse(obj, "%s with a nested %q is not known to this version and therefore refused", kind, key)
		}
	}
	// In a fixed order, so that refs and errors come out in a stable one.
	for _, key := range walkOrder {
		f, ok := known[key]
		if v := obj[key]; ok && v != nil && f != plain {
			if err := g.value(v, kind, key, f, sc); err != nil {
				return err
			}
		}
	}
	return nil
}

// value walks one field.
func (g *gate) value(v any, kind, key string, f field, sc *scope) error {
	switch f {
	case data, elsewhere:
		return nil
	case nothing:
		if list, ok := v.([]any); (ok && len(list) == 0) || v == "" {
			return nil
		}
		return g.refuse(nil, "%s with %q is refused", kind, key)
	case statement:
		return g.statement(v, sc)
	case node:
		return g.node(v, sc)
	case ref:
		return g.ref(v, sc)
	case expr:
		return g.expr(v, sc)
	case part:
		return g.part(v, key, sc)
	}
	// The rest are lists.
	list, ok := v.([]any)
	if !ok {
		return g.refuse(nil, "%s with %q of an unknown shape is refused", kind, key)
	}
	for _, e := range list {
		var err error
		switch f {
		case exprs:
			err = g.expr(e, sc)
		case exprLists:
			err = g.value(e, kind, key, exprs, sc)
		case parts:
			err = g.part(e, key, sc)
		default:
			err = g.refuse(nil, "%s with %q is refused", kind, key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// isPlain: text, numbers, true and false, null, and lists of them.
func isPlain(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return false
	case []any:
		for _, e := range v {
			if !isPlain(e) {
				return false
			}
		}
	}
	return true
}

// part walks an object that has no kind of its own: its field says what it is.
func (g *gate) part(v any, key string, sc *scope) error {
	obj, ok := v.(map[string]any)
	if !ok {
		return g.refuse(nil, "%q of an unknown shape is refused", key)
	}
	known, ok := partFields[key]
	if !ok {
		return g.refuse(nil, "%q is not known to this version and therefore refused", key)
	}
	if key == "modifiers" || key == "order_bys" {
		kind, _ := obj["type"].(string)
		if known, ok = modifierFields[kind]; !ok {
			return g.refuse(nil, "modifier %q is not known to this version and therefore refused", kind)
		}
	}
	if id, _ := obj["id"].(string); isVariant(id) {
		return g.refuse(obj, variantRefused)
	}
	if name, _ := obj["name"].(string); key == "type_info" && isVariant(name) {
		return g.refuse(obj, variantRefused)
	}
	return g.fields(obj, key, known, sc)
}

// A cast of JSON to VARIANT descends by recursion, and a deep value would end
// the process. No table has such columns.
const variantRefused = "the type VARIANT is refused: use JSON"

func isVariant(name string) bool { return lower(name) == "variant" }

func (g *gate) node(v any, sc *scope) error {
	obj, ok := v.(map[string]any)
	if !ok {
		return g.refuse(nil, "a query of an unknown shape is refused")
	}
	kind, _ := obj["type"].(string)
	known, ok := nodeFields[kind]
	if !ok {
		return g.refuse(nil, "a query of kind %q is not known to this version and therefore refused", kind)
	}
	sc, err := g.ctes(obj["cte_map"], sc)
	if err != nil {
		return err
	}
	if kind != "RECURSIVE_CTE_NODE" {
		return g.fields(obj, kind, known, sc)
	}
	// Only the right side sees the CTE that is being defined.
	name, _ := obj["cte_name"].(string)
	right := obj["right"]
	left := make(map[string]any, len(obj))
	for k, v := range obj {
		if k != "right" {
			left[k] = v
		}
	}
	if err := g.fields(left, kind, known, sc); err != nil {
		return err
	}
	if err := g.cteName(name); err != nil {
		return err
	}
	return g.node(right, &scope{outer: sc, name: lower(name), recurring: true})
}

// ctes walks {"map": [{"key": name, "value": {...}}]}: each one sees those
// before it. It returns the scope that sees them all.
func (g *gate) ctes(v any, sc *scope) (*scope, error) {
	if v == nil {
		return sc, nil
	}
	obj, _ := v.(map[string]any)
	list, ok := obj["map"].([]any)
	if !ok || len(obj) != 1 {
		return nil, g.refuse(nil, "WITH of an unknown shape is refused")
	}
	for _, e := range list {
		pair, _ := e.(map[string]any)
		name, isName := pair["key"].(string)
		def, isDef := pair["value"].(map[string]any)
		if !isName || !isDef || len(pair) != 2 {
			return nil, g.refuse(nil, "WITH of an unknown shape is refused")
		}
		if err := g.cteName(name); err != nil {
			return nil, err
		}
		if err := g.fields(def, "WITH", cteFields, sc); err != nil {
			return nil, err
		}
		sc = &scope{outer: sc, name: lower(name)}
	}
	return sc, nil
}

// cteName refuses names that DuckDB could take for a file.
func (g *gate) cteName(name string) error {
	if name == "" || strings.ContainsAny(name, `./\:*?[]`) {
		return g.refuse(nil, "the name %q of a WITH query is refused: it looks like a file", name)
	}
	return nil
}

func (g *gate) ref(v any, sc *scope) error {
	obj, ok := v.(map[string]any)
	if !ok {
		return g.refuse(nil, "a table of an unknown shape is refused")
	}
	kind, _ := obj["type"].(string)
	known, ok := refFields[kind]
	if !ok {
		return g.refuse(obj, "a table of kind %q is not known to this version and therefore refused", kind)
	}
	switch kind {
	case "BASE_TABLE":
		if err := g.table(obj, sc); err != nil {
			return err
		}
	case "TABLE_FUNCTION":
		call, _ := obj["function"].(map[string]any)
		name, _ := call["function_name"].(string)
		schema, _ := call["schema"].(string)
		catalog, _ := call["catalog"].(string)
		if call["class"] != "FUNCTION" || !tableFunctions[lower(name)] || schema != "" && schema != "main" || catalog != "" {
			return g.refuse(obj, "the table function %q is refused: only range, generate_series and unnest may stand in FROM; tables are read by their names", name)
		}
	case "SHOW_REF":
		if obj["query"] == nil {
			return g.refuse(nil, "this SHOW is not supported: SHOW TABLES alone, and DESCRIBE or SUMMARIZE of a table or query, are")
		}
		switch obj["show_type"] {
		case "DESCRIBE", "SUMMARY":
		default:
			return g.refuse(nil, "this SHOW is not supported: SHOW TABLES, DESCRIBE and SUMMARIZE are")
		}
	}
	return g.fields(obj, kind, known, sc)
}

// table notes the table, or finds that the name is a CTE.
func (g *gate) table(obj map[string]any, sc *scope) error {
	catalog, _ := obj["catalog_name"].(string)
	schema, _ := obj["schema_name"].(string)
	name, _ := obj["table_name"].(string)
	switch {
	case catalog != "":
		return g.refuse(obj, "%q has three parts: a table is called stream.table", catalog+"."+schema+"."+name)
	case name == "":
		return g.refuse(obj, "a table without a name is refused")
	case obj["at_clause"] != nil:
		return g.refuse(obj, "AT (...) is not supported yet: a query reads the newest data")
	}
	if schema == "" && sc.find(lower(name)) != nil {
		return nil
	}
	if lower(schema) == "recurring" {
		if c := sc.find(lower(name)); c != nil && c.recurring {
			return nil
		}
	}
	g.s.Refs = append(g.s.Refs, Ref{Schema: schema, Name: name, At: g.s.offset(place(obj))})
	return nil
}

func (g *gate) expr(v any, sc *scope) error {
	obj, ok := v.(map[string]any)
	if !ok {
		return g.refuse(nil, "an expression of an unknown shape is refused")
	}
	class, _ := obj["class"].(string)
	known, ok := exprFields[class]
	if !ok {
		if class == "PARAMETER" {
			return errorAt(ErrSQL, g.s.Text, g.s.offset(place(obj)), "parameters (?, $1) have no values here: write the values into the statement")
		}
		return g.refuse(obj, "an expression of class %q is not known to this version and therefore refused", class)
	}
	if err := g.paths(obj, class); err != nil {
		return err
	}
	if class == "FUNCTION" || class == "WINDOW" {
		name, _ := obj["function_name"].(string)
		if err := g.function(obj, name); err != nil {
			return err
		}
		if times := guarded[lower(name)]; times > 0 {
			if g.guards += g.copies; g.guards > mostGuards {
				return g.refuse(obj, "%s is refused here: too many calls of functions that are bounded in size stand within each other; take the inner ones into a WITH query", name)
			}
			outer := g.copies
			g.copies *= times
			defer func() { g.copies = outer }()
		}
	}
	return g.fields(obj, class, known, sc)
}

func (g *gate) function(obj map[string]any, name string) error {
	if g.s.own[lower(name)] {
		return nil
	}
	switch JudgeFunction(name) {
	case Allowed:
		return g.sized(obj, lower(name))
	case Refused:
		why := refusedFunctions[lower(name)]
		if why == "" {
			why = "is internal to DuckDB"
		}
		return g.refuse(obj, "the function %s is refused: it %s", name, why)
	}
	return errorAt(ErrRefused, g.s.Text, g.s.offset(place(obj)), fmt.Sprintf("there is no function %s that a query may call%s", name, didYouMean(name, mapKeys(functions))))
}
