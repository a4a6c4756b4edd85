package query

import (
	"slices"
	"strings"
)

// A JSON path with two recursive descents visits every value once for each
// value above it, before any limit of memory or time looks: on a text of 120 KB
// that is nothing but brackets it takes minutes. With one, a path finds no value
// twice. DuckDB lets only a constant path have wildcards, but any expression that
// can be computed beforehand is one; so a path must be written out, or come from
// a column, whose paths DuckDB lets have none.
const (
	mostDescents  = 1 // .. in a path
	mostWildcards = 8 // * in a path
)

// pathFunctions take a JSON path as their second argument.
var pathFunctions = map[string]bool{
	"->>": true, "json_extract": true, "json_extract_path": true, "json_extract_string": true, "json_extract_path_text": true,
	"json_value": true, "json_exists": true, "json_type": true, "json_keys": true, "json_array_length": true,
}

// lambdaFunctions take a lambda as their second argument. Elsewhere x -> y is
// JSON's arrow, though the parser calls it a lambda too.
var lambdaFunctions = map[string]bool{
	"list_transform": true, "array_transform": true, "list_apply": true, "array_apply": true, "apply": true,
	"list_filter": true, "array_filter": true, "filter": true, "list_reduce": true, "array_reduce": true, "reduce": true,
}

// trueLambda marks in the tree's field "type" what is no arrow.
const trueLambda = "LAMBDA of a function"

// computed is a path that is not written out.
type computed struct {
	at    map[string]any
	path  any
	index bool // of x[path], where only a constant itself becomes a path
}

// paths looks at the JSON path of an expression, if it has one, and notes what
// can be judged only when all aliases are known.
func (g *gate) paths(obj map[string]any, class string) error {
	if alias, _ := obj["alias"].(string); alias != "" {
		if g.aliases == nil {
			g.aliases = map[string][]any{}
		}
		g.aliases[fold(alias)] = append(g.aliases[fold(alias)], obj)
	}
	switch class {
	case "FUNCTION":
		name, _ := obj["function_name"].(string)
		args, _ := obj["children"].([]any)
		if len(args) < 2 {
			return nil
		}
		switch name = lower(name); {
		case lambdaFunctions[name]:
			if arg, _ := args[1].(map[string]any); arg["class"] == "LAMBDA" {
				arg["type"] = trueLambda
			}
		case pathFunctions[name]:
			return g.path(computed{at: obj, path: args[1]})
		case indexFunctions[name]:
			return g.path(computed{at: obj, path: args[1], index: true})
		}
	case "LAMBDA":
		if obj["type"] != trueLambda {
			return g.path(computed{at: obj, path: obj["expr"]})
		}
	case "OPERATOR":
		if args, _ := obj["children"].([]any); obj["type"] == "ARRAY_EXTRACT" && len(args) == 2 {
			return g.path(computed{at: obj, path: args[1], index: true})
		}
	}
	return nil
}

// indexFunctions are other names of x[i].
var indexFunctions = map[string]bool{"array_extract": true, "list_extract": true, "list_element": true}

func (g *gate) path(c computed) error {
	obj, _ := c.path.(map[string]any)
	switch {
	case obj["class"] == "CONSTANT":
		return g.written(c, obj)
	case obj["class"] == "FUNCTION" && obj["function_name"] == "list_value":
		return nil // DuckDB lets paths in a list have no wildcards
	}
	g.computed = append(g.computed, c)
	return nil
}

func (g *gate) written(c computed, constant map[string]any) error {
	text, ok := constantText(constant)
	if !ok {
		return nil
	}
	descents := 0
	for i := 1; i < len(text); i++ {
		if text[i-1] == '.' && text[i] == '.' {
			descents++
		}
	}
	if descents > mostDescents || strings.Count(text, "*") > mostWildcards {
		return g.refuse(c.at, "this JSON path is refused: %d .. and %d * are the most in a path", mostDescents, mostWildcards)
	}
	return nil
}

// computedPaths judges what paths has noted.
func (g *gate) computedPaths() error {
	for _, c := range g.computed {
		if c.index {
			for _, obj := range g.named(c.path) {
				if err := g.written(c, obj); err != nil {
					return err
				}
			}
			continue
		}
		if !g.varies(c.path, nil) {
			return g.refuse(c.at, "a JSON path that is computed from constants is refused: write it as a text; to the column of a subquery add the subquery's name, as in t.path")
		}
	}
	return nil
}

// named are the expressions that a bare column name may stand for.
func (g *gate) named(v any) []map[string]any {
	obj, _ := v.(map[string]any)
	var found []map[string]any
	for _, e := range g.aliases[aliasName(obj)] {
		found = append(found, e.(map[string]any))
	}
	return found
}

// varies tells whether DuckDB certainly takes an expression for one that depends
// on a row. within are the aliases that are being looked up.
func (g *gate) varies(v any, within []string) bool {
	switch v := v.(type) {
	case []any:
		return slices.ContainsFunc(v, func(e any) bool { return g.varies(e, within) })
	case map[string]any:
		switch v["class"] {
		case "COLUMN_REF":
			name := aliasName(v)
			if slices.Contains(within, name) {
				return true // SELECT p AS p: a column
			}
			within := append(slices.Clone(within), name)
			return !valueNames[name] && !slices.ContainsFunc(g.aliases[name], func(e any) bool { return !g.varies(e, within) })
		case "SUBQUERY":
			return true
		}
		for _, e := range v {
			if g.varies(e, within) {
				return true
			}
		}
	}
	return false
}

// valueNames look like columns and are functions.
var valueNames = map[string]bool{
	"current_catalog": true, "current_date": true, "current_role": true, "current_schema": true, "current_time": true, "current_timestamp": true,
	"current_user": true, "localtime": true, "localtimestamp": true, "session_user": true, "user": true,
}

// aliasName is the name by which a column reference may mean an alias: its first,
// but p of alias.p.
func aliasName(ref map[string]any) string {
	names, _ := ref["column_names"].([]any)
	if len(names) == 0 || ref["class"] != "COLUMN_REF" {
		return ""
	}
	first, _ := names[0].(string)
	if lower(first) == "alias" && len(names) > 1 {
		first, _ = names[1].(string)
	}
	return fold(first)
}

func fold(name string) string { return strings.ToLower(name) }
