package duck

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/row"
	"naru/internal/transform"
)

// routed are steps with a `where` for each of sinks a, b, ...
func routed(steps []transform.Step, wheres ...string) []transform.Step {
	for i, w := range wheres {
		steps = append(steps, transform.Where(string(rune('a'+i)), w, 20+i))
	}
	return steps
}

// dumpTo shows rows with the sinks that they go to.
func dumpTo(out *transform.Applied, sinks int) string {
	var s strings.Builder
	for _, e := range out.Batch.Rows.Whole() {
		to := ""
		for n := range sinks {
			if e.To&(1<<n) != 0 {
				to += string(rune('a' + n))
			}
		}
		fmt.Fprintf(&s, "%d.%d %s → %s\n", e.Offset, e.Row, row.AppendJSON(nil, out.Batch.Columns, &e, out.Batch.Partition), to)
	}
	for _, r := range out.Refused {
		fmt.Fprintf(&s, "%d refused by %s: %s\n", r.Offset, r.By(), r.Detail)
	}
	return s.String()
}

// attributes are those that say nothing in these tests.
var attributes = regexp.MustCompile(`"_(id|source|time|received_at|partition|offset)":[^,}]*,?`)

// A `where` marks rows; attributes of the event are there whatever the steps have taken.
func TestRoutes(t *testing.T) {
	s := stepsFor(t, StepsDeps{})
	for _, c := range []struct {
		name  string
		steps []transform.Step
		where []string
		want  string
	}{
		{"without steps", nil, []string{"n > 1", "_type = 'edit'"}, `
0.0 {"_type":"edit","n":1,"s":"7"} → b
1.0 {"_type":"edit","n":2,"s":"x"} → ab
`},
		{"an attribute that is not taken", sqlSteps("SELECT n, s FROM input", "SELECT n FROM input"), []string{"_id = 'id-1'", "n = 1 AND _type = 'edit'", "_TYPE = 'view'"}, `
0.0 {"n":1} → b
1.0 {"n":2} → a
`},
		{"an attribute that is replaced", sqlSteps("SELECT n, 'view' AS _type FROM input"), []string{"_type = 'edit'", "_type = 'view'"}, `
0.0 {"_type":"view","n":1} → b
1.0 {"_type":"view","n":2} → b
`},
		{"of a WITH, of COLUMNS", sqlSteps("WITH w AS (SELECT COLUMNS('^n$') FROM input) SELECT * FROM w"), []string{"_offset = 1", "n + 1 = 2"}, `
0.0 {"n":1} → b
1.0 {"n":2} → a
`},
		{"a function before", []transform.Step{{Line: 1, Kind: "js", Script: &transform.Script{Code: "row => [{n: row.n}, {n: 5, _type: 'made'}]", Time: 1e9, Memory: 1 << 28}}}, []string{"_type = 'made'", "n < 2"}, `
0.0 {"_type":"edit","n":1} → b
0.1 {"_type":"made","n":5} → a
1.0 {"_type":"edit","n":2} → 
1.1 {"_type":"made","n":5} → a
`},
		{"rows of one event", sqlSteps("SELECT unnest([n, 10]) AS m FROM input"), []string{"m = 10", "NULL", "CASE WHEN m = 10 THEN NULL ELSE true END", "_offset"}, `
0.0 {"m":1} → c
0.1 {"m":10} → a
1.0 {"m":2} → cd
1.1 {"m":10} → ad
`},
		{"a step in it", sqlSteps("SELECT n FROM input"), []string{"EXISTS (SELECT * FROM range(3) r(x) WHERE x = n)", "n IN (SELECT unnest([2, 3])) -- and so on"}, `
0.0 {"n":1} → a
1.0 {"n":2} → ab
`},
		{"what cannot be computed", sqlSteps("SELECT s FROM input"), []string{"true", "CAST(s AS INTEGER) = 7", "false"}, `
0.0 {"s":"7"} → ab
1 refused by where of b: Conversion Error: Could not convert string 'x' to INT32 when casting from source column s
`},
		{"a column that nobody has had", sqlSteps("SELECT * FROM input"), []string{"nothing > 1", "nothing IS NULL"}, `
0.0 {"_type":"edit","n":1,"s":"7"} → b
1.0 {"_type":"edit","n":2,"s":"x"} → b
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			list := routed(c.steps, c.where...)
			require.Empty(t, s.Check(context.Background(), "p.yaml", list, transform.Input{Stream: "events"}))
			out := apply(t, openSteps(t, s, list), batchOf(t, 0, `{"n": 1, "s": "7"}`, `{"n": 2, "s": "x"}`))
			require.Equal(t, strings.TrimPrefix(c.want, "\n"), attributes.ReplaceAllString(dumpTo(out, len(c.where)), ""))
		})
	}
}

func TestRoutesThatCannotBe(t *testing.T) {
	s := stepsFor(t, StepsDeps{})
	for where, want := range map[string]string{
		"COLUMNS(*) > 1":          "p.yaml:20: to: where of a: * and COLUMNS cannot stand in a where: it is one condition over columns that it names",
		"unnest(items) > 1":       "p.yaml:20: to: where of a: UNNEST cannot stand in a where, which is about a row: list_contains(items, x) asks whether a list has an item",
		"count(n) > 1":            "p.yaml:20: to: where of a: the aggregate count cannot stand over input: which events are read together is chance",
		"random() > 0.5":          "p.yaml:20: to: where of a: the function random cannot stand in a step",
		"n > ":                    "p.yaml:20: to: where of a:",
		"n) OR (true":             "",
		"true) UNION (SELECT 1":   "p.yaml:20: to: where of a:",
		"m > 1":                   `p.yaml:20: to: where of a: Binder Error: Referenced column "m" not found in FROM clause`,
		"\"_naru\x01row\" = 0":    "p.yaml:20: to: where of a: the name \"_naru\\x01row\" is naru's own",
		"\"_naru\x01_type\" = ''": "p.yaml:20: to: where of a: the name \"_naru\\x01_type\" is naru's own",
	} {
		t.Run(where, func(t *testing.T) {
			wrong := s.Check(context.Background(), "p.yaml", routed(sqlSteps("SELECT n FROM input"), where), transform.Input{Stream: "events"})
			if want == "" {
				require.Empty(t, wrong)
				return
			}
			require.Len(t, wrong, 1)
			require.Contains(t, wrong[0].String(), want)
		})
	}
}
