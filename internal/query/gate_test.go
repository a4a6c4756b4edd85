package query

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"naru/internal/lake"
)

// The trees below are what json_serialize_sql of DuckDB 1.5.5 gives; escapes
// and allowed statements are tested with DuckDB itself in internal/duck.
const plainTree = `{"error":false,"statements":[{"node":{"type":"SELECT_NODE","modifiers":[],"cte_map":{"map":[]},"select_list":[{"class":"STAR","type":"STAR","alias":"","query_location":7,"relation_name":"","exclude_list":[],"replace_list":[],"columns":false,"expr":null,"qualified_exclude_list":[],"rename_list":[]}],"from_table":{"type":"BASE_TABLE","alias":"","sample":null,"query_location":14,"schema_name":"events","table_name":"t","column_name_alias":[],"catalog_name":"","at_clause":null},"where_clause":null,"group_expressions":[],"group_sets":[],"aggregate_handling":"STANDARD_HANDLING","having":null,"sample":null,"qualify":null},"named_param_map":[]}]}`

func judge(t testing.TB, sql, tree string) (*Statement, error) {
	s, err := NewStatement(sql)
	if err != nil {
		t.Fatal(err)
	}
	return s, s.Judge([]byte(tree))
}

func TestJudge(t *testing.T) {
	s, err := judge(t, "SELECT * FROM events.t", plainTree)
	if err != nil || len(s.Refs) != 1 || s.Refs[0] != (Ref{"events", "t", 14}) {
		t.Errorf("refs %v, %v", s.Refs, err)
	}
}

// TestUnknownShapes: whatever a later DuckDB puts into its trees is refused.
func TestUnknownShapes(t *testing.T) {
	for _, change := range [][2]string{
		{`"type":"SELECT_NODE"`, `"type":"NEW_NODE"`},
		{`"having":null`, `"having":null,"new_clause":null`},
		{`"having":null`, `"having":{"class":"NEW","type":"NEW"}`},
		{`"having":null`, `"having":"text"`},
		{`"having":null`, `"having":[]`},
		{`"type":"BASE_TABLE"`, `"type":"NEW_REF"`},
		{`"type":"BASE_TABLE"`, `"type":"COLUMN_DATA"`},
		{`"type":"BASE_TABLE"`, `"type":"DELIM_GET"`},
		{`"at_clause":null`, `"at_clause":{"unit":"VERSION"}`},
		{`"at_clause":null`, `"at_clause":null,"on_conflict":{}`},
		{`"catalog_name":""`, `"catalog_name":"x"`},
		{`"class":"STAR"`, `"class":"NEW"`},
		{`"class":"STAR"`, `"class":"LAMBDA_REF"`},
		{`"expr":null`, `"expr":{"class":"FUNCTION","type":"FUNCTION","function_name":"new_function"}`},
		{`"exclude_list":[]`, `"exclude_list":[{"class":"SUBQUERY"}]`},
		{`"group_sets":[]`, `"group_sets":[{"node":{}}]`},
		{`"alias":""`, `"alias":{"class":"SUBQUERY"}`},
		{`"modifiers":[]`, `"modifiers":[{"type":"NEW_MODIFIER"}]`},
		{`"modifiers":[]`, `"modifiers":[{"type":"LIMIT_MODIFIER","limit":null,"offset":null,"ties":{}}]`},
		{`"modifiers":[]`, `"modifiers":{}`},
		{`"named_param_map":[]`, `"named_param_map":[1]`},
		{`"cte_map":{"map":[]}`, `"cte_map":{"map":[],"more":[]}`},
		{`"cte_map":{"map":[]}`, `"cte_map":{"map":[{"key":"a"}]}`},
		{`"cte_map":{"map":[]}`, `"cte_map":{"map":[{"key":"a","value":{"query":{"node":{"type":"INSERT_NODE"}}}}]}`},
		{`"cte_map":{"map":[]}`, `"cte_map":[]`},
		{`"statements":[{`, `"statements":[{"extra":1,`},
	} {
		tree := strings.Replace(plainTree, change[0], change[1], 1)
		if tree == plainTree {
			t.Fatalf("%s does not occur", change[0])
		}
		if _, err := judge(t, "SELECT * FROM events.t", tree); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", change[1], err)
		}
	}
	for _, tree := range []string{"", "null", "{", "[]", `{"error":false,"statements":[null]}`, `{"error":false,"statements":[{}]}`, strings.Repeat("[", 20000), `{"error":true,"error_type":"not implemented"}`, strings.Repeat(" ", MaxTree+1)} {
		s, err := judge(t, "SELECT 1", tree)
		if err == nil {
			t.Errorf("%.40q passed with %v", tree, s.Refs)
		}
	}
}

// TestEveryFieldIsWalked: a described field that is not in the walk order would
// be passed over in silence.
func TestEveryFieldIsWalked(t *testing.T) {
	families := []map[string]map[string]field{nodeFields, refFields, exprFields, modifierFields, partFields, {"statement": statementFields, "cte": cteFields}}
	for _, family := range families {
		for kind, fields := range family {
			for key, f := range fields {
				if f != plain && !slices.Contains(walkOrder, key) {
					t.Errorf("%s.%s is not in walkOrder", kind, key)
				}
				if f == part || f == parts {
					if _, ok := partFields[key]; !ok {
						t.Errorf("%s.%s is not described", kind, key)
					}
				}
			}
		}
	}
}

func TestNewStatement(t *testing.T) {
	for sql, want := range map[string][2]string{
		"SELECT 1":                            {"SELECT 1", "SELECT 1"},
		"EXPLAIN SELECT 1":                    {" SELECT 1", "EXPLAIN SELECT 1"},
		"explain analyze\nSELECT 1":           {"\nSELECT 1", "EXPLAIN ANALYZE\nSELECT 1"},
		"EXPLAIN(SELECT 1)":                   {"(SELECT 1)", "EXPLAIN(SELECT 1)"},
		"/*a*/EXPLAIN/*b*/ANALYZE/*c*/FROM t": {"/*c*/FROM t", "EXPLAIN ANALYZE         /*c*/FROM t"},
		"-- x\n/* /* */ */ EXPLAIN FROM t":    {" FROM t", "EXPLAIN                  FROM t"},
		"EXPLAINED":                           {"EXPLAINED", "EXPLAINED"},
		"\"EXPLAIN\" FROM t":                  {"\"EXPLAIN\" FROM t", "\"EXPLAIN\" FROM t"},
	} {
		s, err := NewStatement(sql)
		if err != nil || s.Inner != want[0] || s.Executable() != want[1] || len(s.Executable()) != len(sql) {
			t.Errorf("%q: inner %q, runs %q, %v", sql, s.Inner, s.Executable(), err)
		}
	}
}

func TestLongLines(t *testing.T) {
	s, err := NewStatement("SELECT " + strings.Repeat("x, ", 1000) + "nope" + strings.Repeat(", y", 1000))
	if err != nil {
		t.Fatal(err)
	}
	text := s.ErrorAt(ErrSQL, 7+3000, "bad").Error()
	lines := strings.Split(text, "\n")
	if len(text) > 500 || lines[2][strings.Index(lines[3], "^"):][:4] != "nope" {
		t.Errorf("the place is not shown:\n%s", text)
	}
}

func TestResolve(t *testing.T) {
	names := NewNames([]lake.Ident{{Namespace: "a", Name: "x"}, {Namespace: "b", Name: "x"}, {Namespace: "events", Name: "Y"}, {Namespace: "b", Name: "Y"}, {Namespace: "b", Name: "only"}, {Namespace: "events", Name: "z"}, {Namespace: "events", Name: "Z"}})
	s := &Statement{Text: "x"}
	for in, want := range map[Ref]string{
		{"", "y", -1}: "events.Y", {"B", "y", -1}: "b.Y", {"", "ONLY", -1}: "b.only", {"a", "X", -1}: "a.x", {"", "z", -1}: "events.z", {"", "Z", -1}: "events.Z",
		{"", "x", -1}: "ambiguous: it may be a.x or b.x", {"events", "x", -1}: "did you mean", {"", "w.parquet", -1}: "looks like a file", {"pg_catalog", "pg_class", -1}: "DuckDB's own", {"EVENTS", "z", -1}: "ambiguous",
	} {
		got, err := names.Resolve(s, in)
		if err != nil {
			if !strings.Contains(err.Error(), want) || !IsStatementError(err) {
				t.Errorf("%s: %v, want %s", in, err, want)
			}
		} else if got.String() != want {
			t.Errorf("%s is %s, want %s", in, got, want)
		}
	}
}

func FuzzJudge(f *testing.F) {
	f.Add("SELECT * FROM events.t", plainTree)
	f.Add("EXPLAIN SELECT 1", `{"error":true,"error_type":"parser","error_message":"x","position":"99999"}`)
	f.Add("x", `{"error":false,"statements":[{"node":{"type":"RECURSIVE_CTE_NODE","left":{},"right":null}}]}`)
	f.Fuzz(func(t *testing.T, sql, tree string) {
		s, err := NewStatement(sql)
		if err != nil {
			return
		}
		if s.Explain && len(s.Executable()) != len(sql) {
			t.Errorf("%q runs as %q", sql, s.Executable())
		}
		if err := s.Judge([]byte(tree)); err != nil && !IsStatementError(err) {
			t.Errorf("%q: %v", tree, err)
		}
		for _, r := range s.Refs {
			if r.At > len(sql) {
				t.Errorf("%v lies behind the statement", r)
			}
		}
	})
}

func FuzzErrorAt(f *testing.F) {
	f.Add("SELECT\n1", 3)
	f.Fuzz(func(t *testing.T, sql string, at int) {
		if err := errorAt(ErrSQL, sql, at, "x"); !errors.Is(err, ErrSQL) {
			t.Error(err)
		}
	})
}

// TestScripts: the files that internal/duck runs are where it looks for them.
func TestScripts(t *testing.T) {
	for _, name := range []string{"escapes", "allowed"} {
		content, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil || strings.Count(string(content), "\n----") < 60 {
			t.Errorf("%s: %v, %d statements", name, err, strings.Count(string(content), "\n----"))
		}
	}
}
