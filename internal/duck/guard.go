package duck

import (
	"fmt"
	"strings"
)

// DuckDB does not count the memory of a single value against its limit: one
// repeat('x', 3e9) takes 3 GB, one range(2e8) 14 GB, and neither can be
// interrupted. So the functions that make much out of little
// (query.GuardedFunctions) are shadowed by macros of the same name in the query's
// own catalog, which look at the size first. A vector has 2,048 values: the limit
// keeps one of lists below 1 GB.
const largestValue = 1 << 16 // characters or items

// guards are the macros' overloads. {max} and {error} are filled in.
var guards = map[string][]string{
	"repeat":    {"(s, n) AS system.main.repeat(s, CASE WHEN n > {max} // greatest(len(s), 1) THEN {error} ELSE n END)"},
	"lpad":      {"(s, n, c) AS system.main.lpad(s, CASE WHEN n > {max} THEN {error} ELSE n END, c)"},
	"rpad":      {"(s, n, c) AS system.main.rpad(s, CASE WHEN n > {max} THEN {error} ELSE n END, c)"},
	"bitstring": {"(s, n) AS system.main.bitstring(s, CASE WHEN n > {max} THEN {error} ELSE n END)"},
	"to_base":   {"(i, r) AS system.main.to_base(i, r)", "(i, r, n) AS system.main.to_base(i, r, CASE WHEN n > {max} THEN {error} ELSE n END)"},
	"bar":       {"(x, a, b) AS system.main.bar(x, a, b)", "(x, a, b, n) AS system.main.bar(x, a, b, CASE WHEN n > {max} THEN {error} ELSE n END)"},
	"range":     series("range"),
	"list_resize": {"(l, n) AS system.main.list_resize(l, CASE WHEN n > {max} THEN {error} ELSE n END)",
		"(l, n, v) AS system.main.list_resize(l, CASE WHEN n > {max} THEN {error} ELSE n END, v)"},
	"array_resize": {"(l, n) AS system.main.array_resize(l, CASE WHEN n > {max} THEN {error} ELSE n END)",
		"(l, n, v) AS system.main.array_resize(l, CASE WHEN n > {max} THEN {error} ELSE n END, v)"},
	"generate_series": series("generate_series"),
}

func series(name string) []string {
	return []string{
		"(a) AS system.main." + name + "(CASE WHEN a > {max} THEN {error} ELSE a END)",
		"(a, b) AS system.main." + name + "(a, CASE WHEN b - a > {max} THEN {error} ELSE b END)",
		"(a, b, c) AS system.main." + name + "(a, CASE WHEN abs(b - a) / abs(c) > {max} THEN {error} ELSE b END, c)",
	}
}

// guardSQL creates the macro that shadows a function.
func guardSQL(schema, name string) string {
	advice := ""
	if name == "range" || name == "generate_series" {
		advice = fmt.Sprintf("; in FROM, as in SELECT ... FROM %s(n), it has no limit", name)
	}
	problem := fmt.Sprintf("error(%s)", literal(fmt.Sprintf("%s would make a value of more than %d characters or items%s", name, largestValue, advice)))
	return "CREATE MACRO " + schema + "." + ident(name) + strings.NewReplacer("{max}", fmt.Sprint(largestValue), "{error}", problem).Replace(strings.Join(guards[name], ", "))
}
