package duck

import (
	"fmt"
	"strings"
)

// DuckDB does not count the memory of a single value against its limit: one
// repeat('x', 3e9) takes 3 GB, one range(2e8) 14 GB, one levenshtein of two
// texts of 60 KB 28 GB, and none can be interrupted. Some functions descend into
// JSON by recursion, and a text of 50,000 brackets, which any client may send as
// a field, overflows the thread's stack and ends the process. So these functions
// (query.GuardedFunctions) are shadowed by macros of the same name in the query's
// own catalog, which look at the sizes first. A vector has 2,048 values: the limit
// keeps one of lists below 1 GB.
const (
	largestValue = 1 << 16 // characters or items
	mostCells    = 1 << 24 // of the table that a distance of two texts needs
	// mostBrackets in a JSON text bound its depth: the first overflow of a
	// stack of 8 MiB was seen at 30,000.
	mostBrackets = 10_000
	// mostGrowth is by how many bytes a replacement may lengthen a text. It is
	// larger than largestValue because texts of a hundred kilobytes are common and
	// one made of a few that grow is not.
	mostGrowth = 1 << 20
)

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
	// The texts pass through a lambda, so that calls nested in each other, which
	// are common, do not become copies of copies.
	"replace": {"(s, a, b) AS list_transform([{'s': s, 'a': a, 'b': b}], lambda _naru: system.main.replace(_naru.s, _naru.a, CASE WHEN strlen(_naru.b) > strlen(_naru.a)" +
		" AND (strlen(_naru.s) - strlen(system.main.replace(_naru.s, _naru.a, ''))) // greatest(strlen(_naru.a), 1) * (strlen(_naru.b) - strlen(_naru.a)) > {max} THEN {error} ELSE _naru.b END))[1]"},
	// A pattern and options that are constants must stay so: they are compiled
	// once. Without g one match is replaced, but \0 may stand for all of s.
	"regexp_replace": {
		"(s, p, r) AS list_transform([{'s': s, 'r': r}], lambda _naru: system.main.regexp_replace(_naru.s, p, " + replacement(`contains(_naru.r, '\')`) + "))[1]",
		"(s, p, r, o) AS list_transform([{'s': s, 'r': r}], lambda _naru: system.main.regexp_replace(_naru.s, p, " + replacement(`(contains(o, 'g') OR contains(_naru.r, '\'))`) + ", o))[1]",
	},
	"generate_series":      series("generate_series"),
	"levenshtein":          distance("levenshtein"),
	"editdist3":            distance("editdist3"),
	"damerau_levenshtein":  distance("damerau_levenshtein"),
	"json_structure":       {"(j) AS system.main.json_structure(" + shallow("j") + ")"},
	"json_group_structure": {"(j) AS system.main.json_group_structure(" + shallow("j") + ")"},
	"json_contains":        {"(j, k) AS system.main.json_contains(" + shallow("j") + ", " + shallow("k") + ")"},
	"json_merge_patch": {
		"(j, k) AS system.main.json_merge_patch(" + shallow("j") + ", " + shallow("k") + ")",
		"(j, k, l) AS system.main.json_merge_patch(" + shallow("j") + ", " + shallow("k") + ", " + shallow("l") + ")",
	},
}

func distance(name string) []string {
	return []string{"(a, b) AS system.main." + name + "(CASE WHEN strlen(a) * strlen(b) > {max} THEN {error} ELSE a END, b)"}
}

// replacement passes the replacement of a pattern on unless it may stand for each
// character of the text.
func replacement(when string) string {
	return "CASE WHEN " + when + " AND (strlen(_naru.s) + 1) * strlen(_naru.r) > {max} THEN {error} ELSE _naru.r END"
}

// shallow passes a JSON text on unless it may be too deep.
func shallow(arg string) string {
	text := "CAST(" + arg + " AS VARCHAR)"
	return "CASE WHEN strlen(" + text + ") > {max} AND strlen(" + text + ") - strlen(system.main.replace(system.main.replace(" + text + ", '[', ''), '{', '')) > {max} THEN {error} ELSE " + arg + " END"
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
	limit, problem := largestValue, fmt.Sprintf("%s would make a value of more than %d characters or items", name, largestValue)
	switch name {
	case "range", "generate_series":
		problem += fmt.Sprintf("; in FROM, as in SELECT ... FROM %s(n), it has no limit", name)
	case "replace":
		limit = mostGrowth
		problem = fmt.Sprintf("replace would lengthen a text by more than %d bytes", limit)
	case "regexp_replace":
		limit = mostGrowth
		problem = fmt.Sprintf("regexp_replace takes no text and replacement the product of whose bytes is more than %d; shorten the text, as in left(text, 10000), or the replacement", limit)
	case "levenshtein", "editdist3", "damerau_levenshtein":
		limit = mostCells
		problem = fmt.Sprintf("%s of two texts the product of whose bytes is more than %d takes too much memory; compare their beginnings, as in left(text, 1000)", name, limit)
	case "json_structure", "json_group_structure", "json_contains", "json_merge_patch":
		limit = mostBrackets
		problem = fmt.Sprintf("%s does not take JSON of more than %d objects and lists, which may be too deep", name, limit)
	}
	fill := strings.NewReplacer("{max}", fmt.Sprint(limit), "{error}", "error("+literal(problem)+")")
	return "CREATE MACRO " + schema + "." + ident(name) + fill.Replace(strings.Join(guards[name], ", "))
}
