package duck

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	duckdb "github.com/duckdb/duckdb-go-bindings"
	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/jsonscan"
	"naru/internal/lake/columnar"
	"naru/internal/transform"
)

// grammar makes row-wise statements over columns whose types it knows.
type grammar struct {
	r *rand.Rand
	// fails: statements may have expressions that cannot be computed on some rows.
	fails bool
	joins int
}

var propertyColumns = []struct{ name, kind string }{
	{"a", "n"}, {"b", "n"}, {"d", "f"}, {"s", "t"}, {"t", "t"}, {"ok", "b"}, {"tags", "l"},
}

func (g *grammar) one(list ...string) string { return list[g.r.IntN(len(list))] }

// expr is an expression of a kind: n whole number, f fraction, t text, b boolean.
func (g *grammar) expr(kind string, cols map[string]string, depth int) string {
	var names []string
	for name, k := range cols {
		if k == kind {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) > 0 && (depth <= 0 || g.r.IntN(3) == 0) {
		return g.one(names...)
	}
	sub := func(kind string) string { return g.expr(kind, cols, depth-1) }
	switch kind {
	case "n":
		if depth <= 0 {
			return strconv.Itoa(g.r.IntN(5))
		}
		if g.fails && g.r.IntN(3) == 0 {
			return "CAST(" + sub("t") + " AS BIGINT)"
		}
		return g.one("("+sub("n")+" + "+sub("n")+") % 1000003", "coalesce("+sub("n")+", 7)", "CASE WHEN "+sub("b")+" THEN "+sub("n")+" ELSE "+sub("n")+" END", "length("+sub("t")+")", "TRY_CAST("+sub("t")+" AS BIGINT)", "nullif("+sub("n")+", 3)", "abs("+sub("n")+" // 3)")
	case "f":
		if depth <= 0 {
			return "0.5::DOUBLE"
		}
		return g.one(sub("n")+" / 4.0::DOUBLE", "least("+sub("f")+", "+sub("f")+")", "round("+sub("f")+", 1)", "("+sub("f")+" / 3)")
	case "t":
		if depth <= 0 {
			return "'k" + strconv.Itoa(g.r.IntN(3)) + "'"
		}
		return g.one("upper("+sub("t")+")", "("+sub("t")+" || '-' || "+sub("t")+")", "left("+sub("t")+", 9)", "CAST("+sub("n")+" AS VARCHAR)", "replace("+sub("t")+", 'a', 'xyz')", "md5("+sub("t")+")", "concat_ws('/', "+sub("t")+", "+sub("n")+")")
	default:
		if depth <= 0 {
			return g.one("true", "false")
		}
		return g.one(sub("n")+" > "+sub("n"), sub("t")+" LIKE '%1%'", "("+sub("b")+" OR "+sub("b")+")", "NOT "+sub("b"), sub("t")+" IS NULL", sub("n")+" IN (1, 2, "+sub("n")+")", sub("f")+" < "+sub("f"), "EXISTS (SELECT 1 FROM range(4) r(x) WHERE x = "+sub("n")+")")
	}
}

// step makes a statement over cols and gives the columns that it makes.
func (g *grammar) step(cols map[string]string) (string, map[string]string) {
	next := map[string]string{}
	var list []string
	add := func(expr, name, kind string) {
		list = append(list, expr+" AS "+name)
		next[name] = kind
	}
	star := g.r.IntN(3) == 0
	if star {
		for name, kind := range cols {
			next[name] = kind
		}
	}
	for i := range 1 + g.r.IntN(4) {
		kind := g.one("n", "f", "t", "b")
		name := fmt.Sprintf("c%d%s", i, kind)
		if star {
			name = fmt.Sprintf("x%d%s%d", i, kind, g.r.IntN(1000))
		}
		if next[name] == "" {
			add(g.expr(kind, cols, 3), name, kind)
		}
	}
	if g.r.IntN(4) == 0 && cols["tags"] == "l" {
		add("unnest(tags)", "tag", "t")
	}
	if !star && cols["tags"] == "l" && g.r.IntN(2) == 0 {
		add("tags", "tags", "l")
	}
	g.joins++
	vn, vt := fmt.Sprintf("vn%d", g.joins), fmt.Sprintf("vt%d", g.joins)
	from := g.one("input", "input i", "(SELECT * FROM input) i", "input LEFT JOIN (VALUES (1, 'one'), (2, 'two'), (2, 'deux')) v("+vn+", "+vt+") ON "+vn+" = "+g.expr("n", cols, 1))
	if star {
		list = append([]string{g.one("*", "*", "COLUMNS(*)")}, list...)
		if strings.Contains(from, " v(") {
			next[vn], next[vt] = "n", "t"
		}
	}
	sql := "SELECT " + strings.Join(list, ", ") + " FROM " + from
	if g.r.IntN(2) == 0 {
		sql += " WHERE " + g.expr("b", cols, 2)
	}
	if g.r.IntN(5) == 0 {
		sql = "WITH w AS (" + sql + ") SELECT * FROM w"
	}
	return sql, next
}

// data makes an event's data, and the same as a row of SQL.
func (g *grammar) data(withNulls bool) (json, sql string) {
	null := func() bool { return withNulls && g.r.IntN(5) == 0 }
	var members, values []string
	add := func(name, j, s string) {
		if null() {
			values = append(values, "NULL")
			return
		}
		members, values = append(members, `"`+name+`": `+j), append(values, s)
	}
	for _, name := range []string{"a", "b"} {
		n := strconv.Itoa(g.r.IntN(9) - 2)
		add(name, n, n)
	}
	f := strconv.FormatFloat(float64(g.r.IntN(1000))/8+0.125, 'f', -1, 64)
	add("d", f, f+"::DOUBLE")
	for _, name := range []string{"s", "t"} {
		text := g.one("a", "12", "a longer text than twelve bytes", "7", "é", "")
		add(name, `"`+text+`"`, "'"+text+"'")
	}
	b := g.one("true", "false")
	add("ok", b, b)
	var items []string
	for range g.r.IntN(4) {
		items = append(items, g.one("x", "y", "a tag of more than twelve bytes"))
	}
	if len(items) == 0 {
		items = []string{"z"}
	}
	add("tags", `["`+strings.Join(items, `", "`)+`"]`, "['"+strings.Join(items, "', '")+"']")
	return "{" + strings.Join(members, ", ") + "}", "(" + strings.Join(values, ", ") + ")"
}

// knownColumns are those of propertyColumns as a table would have them.
func knownColumns(t testing.TB) func(context.Context, string, []string) ([]*columnar.Schema, error) {
	t.Helper()
	stage := columnar.NewStage(columnar.NewSchema(), nil, nil)
	require.NoError(t, stage.Append(&event.Event{Data: []byte(`{"a": 1, "b": 1, "d": 1.5, "s": "", "t": "", "ok": true, "tags": ["x"]}`)}, event.Incarnation{}, 0))
	return func(context.Context, string, []string) ([]*columnar.Schema, error) {
		return []*columnar.Schema{stage.Schema()}, nil
	}
}

// inCuts applies steps to a batch cut at random.
func inCuts(t testing.TB, r *rand.Rand, tr transform.Transform, data []string) *transform.Applied {
	t.Helper()
	all := &transform.Applied{Batch: &event.Batch{Partition: 3, Rows: &event.Rows{}}}
	for from := 0; from < len(data); {
		n := min(1+r.IntN(20), len(data)-from)
		part := apply(t, tr, batchOf(t, int64(from), data[from:from+n]...))
		all.Batch.Rows.Add(part.Batch.Rows.Whole()...)
		all.Refused = append(all.Refused, part.Refused...)
		all.Written, all.Filtered = all.Written+part.Written, all.Filtered+part.Filtered
		if len(part.Batch.Columns) > len(all.Batch.Columns) {
			all.Batch.Columns = part.Batch.Columns
		}
		from += n
	}
	return all
}

// rowsOf shows rows by their data alone.
func rowsOf(out *transform.Applied) string {
	var s strings.Builder
	for _, e := range out.Batch.Rows.Whole() {
		fmt.Fprintf(&s, "%d.%d %s %s %s\n", e.Offset, e.Row, e.ID, e.Time.Format(time.RFC3339Nano), e.Data)
	}
	for _, r := range out.Refused {
		fmt.Fprintf(&s, "%d refused by %s: %s\n", r.Offset, r.Step, r.Detail)
	}
	fmt.Fprintf(&s, "%d %d", out.Written, out.Filtered)
	return s.String()
}

func propertySeeds(t *testing.T) []uint64 {
	n := uint64(40)
	if testing.Short() {
		n = 10
	}
	var seeds []uint64
	start := rand.Uint64() >> 1
	for i := range n {
		seeds = append(seeds, start+i)
	}
	t.Logf("seeds from %d", start)
	seeds = append(seeds, 4243133700996807462) // a prefix with a constant that cannot be computed
	return seeds
}

// TestStepsInCuts: rows do not depend on which events are read together, whether
// they can be computed or not.
func TestStepsInCuts(t *testing.T) {
	s := stepsFor(t, StepsDeps{Schemas: knownColumns(t)})
	for _, seed := range propertySeeds(t) {
		g := &grammar{r: rand.New(rand.NewPCG(seed, 1)), fails: true}
		cols := map[string]string{}
		for _, c := range propertyColumns {
			cols[c.name] = c.kind
		}
		var texts []string
		for range 1 + g.r.IntN(3) {
			var text string
			text, cols = g.step(cols)
			texts = append(texts, text)
		}
		var data []string
		for range 60 {
			d, _ := g.data(true)
			data = append(data, d)
		}
		if len(s.Check(context.Background(), "p.yaml", sqlSteps(texts...), transform.Input{Stream: "events"})) > 0 {
			continue // a constant that cannot be computed
		}
		tr := openSteps(t, s, sqlSteps(texts...))
		whole := apply(t, tr, batchOf(t, 0, data...))
		require.Equal(t, rowsOf(whole), rowsOf(inCuts(t, g.r, tr, data)), "seed %d: %s", seed, strings.Join(texts, "\n"))
		routesAtRandom(t, s, g, cols, texts, data)
		require.EqualValues(t, len(data), whole.Written+whole.Filtered+int64(len(whole.Refused)))
	}
}

// routesAtRandom: a `where` lets those rows pass that a filter behind the steps does,
// whatever the cuts. Which events cannot be computed may differ: filters of DuckDB's may
// be computed before those of earlier steps.
func routesAtRandom(t *testing.T, s *Steps, g *grammar, cols map[string]string, texts, data []string) {
	t.Helper()
	in := transform.Input{Stream: "events"}
	var wheres []string
	for range 1 + g.r.IntN(3) {
		where := g.expr("b", cols, 2)
		wheres = append(wheres, g.one(where, "_offset % 3 = 1 OR "+where, where+" AND _type = 'edit'"))
	}
	list := routed(sqlSteps(texts...), wheres...)
	said := fmt.Sprintf("%s\nwhere %s", strings.Join(texts, "\n"), strings.Join(wheres, "\nwhere "))
	if len(s.Check(context.Background(), "p.yaml", list, in)) > 0 {
		return // a constant that cannot be computed
	}
	tr := openSteps(t, s, list)
	whole := apply(t, tr, batchOf(t, 0, data...))
	require.Equal(t, dumpTo(whole, len(wheres)), dumpTo(inCuts(t, g.r, tr, data), len(wheres)), said)
	for n, where := range wheres {
		filter := append(sqlSteps(texts...), transform.Step{Line: 1, Kind: "filter", SQL: transform.Where("", where, 1).SQL})
		if len(s.Check(context.Background(), "p.yaml", filter, in)) > 0 {
			continue // it names what the steps have not taken
		}
		alone := apply(t, openSteps(t, s, filter), batchOf(t, 0, data...))
		refused := map[int64]bool{}
		for _, r := range append(alone.Refused, whole.Refused...) {
			refused[r.Offset] = true
		}
		var want, got []string
		for _, e := range alone.Batch.Rows.Whole() {
			if !refused[e.Offset] {
				want = append(want, fmt.Sprintf("%d %s", e.Offset, e.Data))
			}
		}
		for _, e := range whole.Batch.Rows.Whole() {
			if e.To&(1<<n) != 0 && !refused[e.Offset] {
				got = append(got, fmt.Sprintf("%d %s", e.Offset, e.Data))
			}
		}
		// Rows of one event are in the order of their values where a step, or a `where`, asks a table.
		slices.Sort(want)
		slices.Sort(got)
		require.Equal(t, want, got, said)
	}
}

// TestStepsAsPlainSQL: rows are those of the same statements in DuckDB without naru.
func TestStepsAsPlainSQL(t *testing.T) {
	s := stepsFor(t, StepsDeps{Schemas: knownColumns(t)})
	db, err := openDatabase(option{"threads", "1"})
	require.NoError(t, err)
	defer db.close()
	for _, seed := range propertySeeds(t) {
		g := &grammar{r: rand.New(rand.NewPCG(seed, 2))}
		cols := map[string]string{}
		for _, c := range propertyColumns {
			cols[c.name] = c.kind
		}
		sql, last := "", "base"
		var texts []string
		for i := range 1 + g.r.IntN(3) {
			var text string
			text, cols = g.step(cols)
			texts = append(texts, text)
			with := fmt.Sprintf("WITH input AS (SELECT * FROM %s)", last)
			if rest, ok := strings.CutPrefix(text, "WITH "); ok {
				with, text = with+", ", rest
			}
			sql += fmt.Sprintf(", s%d AS (%s %s)", i, with, text)
			last = fmt.Sprintf("s%d", i)
		}
		var data, values []string
		for range 40 {
			d, v := g.data(true)
			data, values = append(data, d), append(values, v)
		}
		out := apply(t, openSteps(t, s, sqlSteps(texts...)), batchOf(t, 0, data...))
		require.Empty(t, out.Refused)

		c, err := db.connect()
		require.NoError(t, err)
		require.NoError(t, c.exec("CREATE OR REPLACE TABLE events (a BIGINT, b BIGINT, d DOUBLE, s VARCHAR, t VARCHAR, ok BOOLEAN, tags VARCHAR[]); INSERT INTO events VALUES "+strings.Join(values, ", ")))
		want := plainRows(t, c, "WITH base AS (SELECT * FROM events)"+sql+" SELECT * FROM "+last)
		c.close()
		var got []string
		for _, e := range out.Batch.Rows.Whole() {
			got = append(got, string(e.Data))
		}
		// A join gives its rows in any order.
		slices.Sort(got)
		slices.Sort(want)
		require.Equal(t, want, got, "seed %d: %s", seed, strings.Join(texts, "\n"))
	}
}

// plainRows are the rows of a statement as data of events.
func plainRows(t testing.TB, c *conn, sql string) (rows []string) {
	t.Helper()
	r, err := c.stream(sql)
	require.NoError(t, err, sql)
	defer r.close()
	columns, err := readColumns(&r.res, nil)
	require.NoError(t, err)
	for {
		chunk, err := r.next()
		require.NoError(t, err)
		if chunk == nil {
			return rows
		}
		for i := range columns {
			columns[i].col.bind(duckdb.DataChunkGetVector(*chunk, duckdb.IdxT(i)))
		}
		for n := range int(duckdb.DataChunkGetSize(*chunk)) {
			text := []byte{'{'}
			for i := range columns {
				value, err := columns[i].col.appendJSON(nil, n, true)
				require.NoError(t, err)
				if len(value) == 0 {
					continue
				}
				if len(text) > 1 {
					text = append(text, ',')
				}
				text = append(append(jsonscan.AppendQuoted(text, columns[i].Name), ':'), value...)
			}
			rows = append(rows, string(append(text, '}')))
		}
	}
}
