package query

import (
	_ "embed"
	"maps"
	"slices"
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
// The engine bounds them, and so they must be called by their bare names. Each
// comes with how often its guard writes an argument: calls within calls become
// that many copies.
var guarded = map[string]int{
	"repeat": 2, "lpad": 2, "rpad": 2, "bitstring": 2, "to_base": 2, "bar": 2, "range": 3, "generate_series": 3, "list_resize": 2, "array_resize": 2,
	"levenshtein": 2, "editdist3": 2, "damerau_levenshtein": 2,
	"replace": 1, "regexp_replace": 1,
	"json_structure": 4, "json_group_structure": 4, "json_contains": 4, "json_merge_patch": 4,
}

// mostGuards bounds the guards of a statement with their copies: ten calls of
// repeat within each other make a thousand, which take DuckDB 0.1 s to plan.
const mostGuards = 4096

// GuardedFunctions lists the functions that an engine has to bound, in no order.
func GuardedFunctions() []string { return slices.Collect(maps.Keys(guarded)) }

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
