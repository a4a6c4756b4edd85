package query

import (
	_ "embed"
	"strings"
)

//go:embed functions.txt
var functionsText string

//go:embed refused.txt
var refusedText string

// parsed holds function names that only the parser knows: it turns them into
// something else before DuckDB looks a function up.
var parsed = []string{"unnest", "unlist"}

// tableFunctions may stand in FROM. They compute from their arguments alone.
var tableFunctions = map[string]bool{"range": true, "generate_series": true, "unnest": true}

var functions, refusedFunctions = loadFunctions()

func loadFunctions() (allowed map[string]bool, refused map[string]string) {
	allowed, refused = map[string]bool{}, map[string]string{}
	for line := range strings.Lines(functionsText) {
		if name := strings.TrimSuffix(line, "\n"); name != "" && !strings.HasPrefix(name, "# ") {
			allowed[lower(name)] = true
		}
	}
	for line := range strings.Lines(refusedText) {
		if name, why, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t"); ok {
			refused[name] = why
		}
	}
	for _, name := range parsed {
		allowed[name] = true
	}
	return allowed, refused
}

// Verdict over a function's name.
type Verdict int

// The verdicts.
const (
	Unjudged Verdict = iota // not in DuckDB 1.5.5: refused
	Allowed
	Refused
)

// JudgeFunction tells whether a query may call the scalar function, aggregate
// or macro of that name.
func JudgeFunction(name string) Verdict {
	name = lower(name)
	switch {
	case functions[name]:
		return Allowed
	case refusedFunctions[name] != "" || strings.HasPrefix(name, "__internal_"):
		return Refused
	}
	return Unjudged
}

// guarded functions make a large value out of small ones, take memory or time
// with the product of their arguments' sizes, or descend into JSON by recursion.
// The engine bounds them, and so they must be called by their bare names.
var guarded = map[string]bool{
	"repeat": true, "lpad": true, "rpad": true, "bitstring": true, "to_base": true, "bar": true, "range": true, "generate_series": true, "list_resize": true, "array_resize": true,
	"levenshtein": true, "editdist3": true, "damerau_levenshtein": true,
	"replace": true, "regexp_replace": true,
	"json_structure": true, "json_group_structure": true, "json_contains": true, "json_merge_patch": true,
}

// GuardedFunctions lists the functions that an engine has to bound, in no order.
func GuardedFunctions() []string { return mapKeys(guarded) }

// FunctionNames lists every name that has been judged, in no order.
func FunctionNames() []string {
	names := make([]string, 0, len(functions)+len(refusedFunctions))
	for n := range functions {
		names = append(names, n)
	}
	for n := range refusedFunctions {
		names = append(names, n)
	}
	return names
}

// lower folds ASCII letters only, as DuckDB does when it compares identifiers.
func lower(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; 'A' <= c && c <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if 'A' <= b[i] && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}
