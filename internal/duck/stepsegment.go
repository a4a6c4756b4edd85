package duck

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/query"
)

// segment is steps at work that are one statement. Its memory, its connection and
// its statement are made with the first events and given back by rest. Not for
// concurrent use.
type segment struct {
	s     *Steps
	plan  *plan
	in    *input
	stage *columnar.Builder

	// What rest gives back.
	inst     *instance
	conn     *conn
	whole    *prepared
	prefixes []*prepared // by the number of steps
	instead  []bool      // by step: it is computed by its other text
	absent   []string    // columns that steps name and no event has had
	lost     []string    // attributes that a `where` names and steps before it leave out
	leases   []func()
	views    map[lake.Ident]string
	idents   [][]lake.Ident
	cutAt    time.Time

	from     *sources // of the stage's rows; nil: there are none
	expected int      // so many there will be, as there were before
	texts    int      // and so many bytes of from.text
	size     int      // of the data of the stage's rows
	fraction bool     // the event that was added last made a whole number a fraction
}

// prepared is a statement, and what its rows are.
type prepared struct {
	stmt    duckdb.PreparedStatement
	columns []outColumn // nil until it has run
	null    []bool      // by column: it has no type, because no event has had a value
}

func (p *prepared) close() { duckdb.DestroyPrepare(&p.stmt) }

func (s *Steps) segment(p *plan, schema *columnar.Schema) *segment {
	g := &segment{s: s, plan: p, in: newInput()}
	g.setStage(schema)
	return g
}

func (g *segment) setStage(schema *columnar.Schema) {
	// A fraction changes the type of a column. Events before it are computed with
	// the type that it had, so that it does not matter with which they are read.
	allow := func(int) bool {
		g.fraction = g.stage.Rows() > 0
		return !g.fraction
	}
	g.stage = columnar.NewReadStage(schema, allow, g.s.deps.Shape)
	g.in.stage = g.stage
}

// full tells whether the events are to be computed before another is added.
func (g *segment) full() bool { return g.from.len() >= chunkRows || g.size >= int(g.s.cfg.Batch) }

// add takes an event, and copies what it keeps. False: compute what is there, and
// add it again.
func (g *segment) add(e *event.Event, inc event.Incarnation, partition int32) (bool, error) {
	g.fraction = false
	if err := g.stage.Append(e, inc, partition); err != nil {
		return false, fmt.Errorf("read event: %w", err)
	}
	if g.fraction {
		g.stage.Drop()
		return false, nil
	}
	if g.from == nil {
		g.from = &sources{list: make([]source, 0, g.expected), text: make([]byte, 0, g.texts+g.texts/16)}
	}
	g.size += len(e.Data) + g.from.add(e)
	return true, nil
}

// clear forgets the events.
func (g *segment) clear() {
	if g.stage.Rows() > 0 { // cleared twice, it would let its buffers go
		g.stage.Clear()
	}
	if g.from != nil {
		g.expected, g.texts = len(g.from.list), len(g.from.text)
	}
	g.from, g.size = nil, 0 // rows have what it was
}

// rest gives back what is made anew with the next events.
func (g *segment) rest() {
	g.unprepare()
	g.release(g.leases)
	g.leases, g.views, g.idents = nil, nil, nil
	if g.conn != nil {
		g.conn.close()
		g.conn = nil
	}
	if g.inst != nil {
		if g.inst.leave() {
			g.inst.close()
		}
		g.inst = nil
	}
	g.clear()
	g.expected, g.texts = 0, 0
	g.setStage(g.stage.Schema())
}

func (g *segment) close() {
	g.rest()
	g.in.close()
}

func (g *segment) release(leases []func()) {
	for _, release := range leases {
		release()
	}
}

func (g *segment) unprepare() {
	for _, p := range append(g.prefixes, g.whole) {
		if p != nil {
			p.close()
		}
	}
	g.whole, g.prefixes = nil, nil
}

// own are columns that naru fills by itself; steps have them once they hold
// something, or are named.
var own = []string{columnar.ColumnRescued, columnar.ColumnExtensions, columnar.ColumnViolations}

// declared are the columns of the events as they are now.
func (g *segment) declared() []inputColumn {
	seen := map[string]bool{}
	for _, c := range g.in.columns {
		seen[c.name] = true
	}
	return g.in.declare(func(name string) bool {
		if g.plan.names[foldName(name)] || g.plan.all && (!slices.Contains(own, name) || seen[name]) {
			return true
		}
		return g.plan.all && g.holds(name)
	})
}

// holds tells whether a column of naru's own has a value in the stage.
func (g *segment) holds(name string) bool {
	for i, f := range g.stage.Schema().Fields {
		if f.Name != name || f.Path != "" {
			continue
		}
		cells, ok := g.stage.Cells(i)
		for row := 0; ok && row < cells.Rows; row++ {
			if !cells.Null(row) {
				return true
			}
		}
	}
	return false
}

// ready makes the statement, unless that of before still fits.
func (g *segment) ready(ctx context.Context) error {
	if err := g.connect(); err != nil {
		return err
	}
	if err := g.freshen(ctx); err != nil {
		return err
	}
	if columns := g.declared(); !slices.Equal(columns, g.in.columns) {
		g.unprepare()
		g.in.columns, g.instead = columns, make([]bool, len(g.plan.steps))
	}
	if g.whole != nil {
		return nil
	}
	var err error
	g.whole, err = g.prepare(len(g.plan.steps))
	return err
}

func (g *segment) connect() (err error) {
	if g.conn != nil {
		return nil
	}
	if g.inst, err = g.s.instance(); err != nil {
		return err
	}
	g.conn, err = g.inst.db.connect()
	return err
}

// prepare makes the statement of the first n steps. What they name and nothing has
// is a column that no event has had yet.
func (g *segment) prepare(n int) (*prepared, error) {
	g.absent = slices.DeleteFunc(g.absent, g.has)
	anew := false
	for _, name := range query.Constants {
		if g.plan.names[name] && !g.lacks(name) && !g.has(name) {
			g.absent = append(g.absent, name)
		}
	}
	for {
		p := &prepared{}
		with := g.plan.sql(g.in, g.absent, g.lost, g.views, g.idents, n, g.instead)
		if duckdb.Prepare(g.conn.c, with+g.plan.rowsSQL(n, g.lost), &p.stmt) != duckdb.StateError {
			if err := g.types(p, with+g.plan.typesSQL(n, g.lost)); err != nil {
				p.close()
				return nil, err
			}
			return p, nil
		}
		text := duckdb.PrepareError(p.stmt)
		p.close()
		name := missing(text)
		switch {
		case name != "" && len(g.absent) < mostAbsent && !g.has(name) && !g.lacks(name):
			g.absent = append(g.absent, name)
			continue
		case slices.Contains(g.plan.carry, foldName(name)) && !slices.Contains(g.lost, foldName(name)):
			g.lost = append(g.lost, foldName(name))
			continue
		case strings.Contains(text, "UNNEST() can only be applied") && g.otherwise(n):
			continue
		case len(g.absent) > 0 && !anew && strings.Contains(text, "Ambiguous reference"):
			g.absent, anew = nil, true // a table has the column by now
			continue
		}
		return nil, g.refused(n, text)
	}
}

// otherwise takes the other text of the next of the first n steps that has one.
func (g *segment) otherwise(n int) bool {
	for i, s := range g.plan.steps[:n] {
		if s.instead != "" && !g.instead[i] {
			g.instead[i] = true
			return true
		}
	}
	return false
}

// types finds the columns that have no type. DuckDB says that they are INTEGER.
func (g *segment) types(p *prepared, sql string) error {
	if len(g.absent) == 0 {
		return nil
	}
	g.in.lo, g.in.hi = 0, 0
	r, err := g.conn.stream(sql)
	if err != nil {
		return g.trouble(err.Error())
	}
	defer r.close()
	chunk, err := r.next()
	if err != nil || chunk == nil {
		return g.trouble(fmt.Sprint("types of columns: ", err))
	}
	name := column{kind: duckdb.TypeVarchar}
	for i := range duckdb.DataChunkGetColumnCount(*chunk) {
		name.bind(duckdb.DataChunkGetVector(*chunk, i))
		p.null = append(p.null, !name.null(0) && string(name.bytes(0)) == `"NULL"`)
	}
	return nil
}

// lacks tells whether a column is known to be absent.
func (g *segment) lacks(name string) bool {
	return slices.ContainsFunc(g.absent, func(a string) bool { return foldName(a) == foldName(name) })
}

// has tells whether the events have a column.
func (g *segment) has(name string) bool {
	return slices.ContainsFunc(g.in.columns, func(c inputColumn) bool { return foldName(c.name) == foldName(name) })
}

// refused is what DuckDB says of a statement of n steps, told of the first step
// that it says it of.
func (g *segment) refused(n int, text string) error {
	if kind, _, _ := strings.Cut(text, " Error:"); kind != "Binder" && kind != "Catalog" && kind != "Parser" && kind != "Not implemented" && kind != "Invalid Input" && kind != "Conversion" && kind != "Syntax" {
		return g.trouble(text)
	}
	for k := 1; k < n; k++ {
		p, err := g.prepare(k)
		if err != nil {
			return err
		}
		p.close()
	}
	step := g.plan.steps[n-1]
	return &stepError{line: step.line, step: step.label, err: &query.Error{Class: query.ErrSQL, Text: g.plain(text)}}
}

// plain is DuckDB's message without what is said of the statement that naru has
// made of the steps.
func (g *segment) plain(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	text = strings.ReplaceAll(query.WithoutAdvice(text), "Invalid Input Error: "+ownFault, "")
	for _, dir := range g.s.cfg.engine().roots() {
		text = strings.ReplaceAll(text, dir, "<warehouse>")
	}
	return strings.ReplaceAll(text, query.GuardSchema()+".", "")
}

// trouble is an error that is nobody's fault but the machine's: the same call may
// succeed later.
func (g *segment) trouble(text string) error {
	if broken(text) {
		g.inst.spoil()
	}
	kind, _, _ := strings.Cut(text, " Error:")
	err := fault.Transient(fmt.Errorf("compute steps: %s", g.plain(text)))
	switch kind {
	case "Out of Memory":
		return fault.WithHint(err, "raise steps.memory, or lower steps.batch")
	case "IO":
		return fault.WithHint(&fault.RetryAfter{Err: err, After: diskPause}, "naru table fsck names files of tables that are missing or damaged, with the cure; and look whether the disk that holds the data has room")
	}
	return err
}

// freshen cuts the tables of the lake that steps join, now and then, and has the
// statement made anew when they have changed.
func (g *segment) freshen(ctx context.Context) error {
	if g.views != nil && (len(g.views) == 0 || time.Since(g.cutAt) < g.s.cfg.Refresh.Std()) {
		return nil
	}
	idents, once, err := g.plan.resolve(ctx, g.s.deps.Lake)
	if err != nil {
		return err
	}
	if len(once) == 0 {
		g.idents, g.views = idents, map[lake.Ident]string{}
		return nil
	}
	cuts, err := g.s.deps.Lake.Cut(ctx, once)
	if err != nil {
		return fault.Transient(fmt.Errorf("read tables of steps: %w", err))
	}
	var leases []func()
	bodies := make(map[lake.Ident]string, len(once))
	for i, v := range cuts {
		if err != nil {
			v.Release()
			continue
		}
		var letGo func()
		if bodies[once[i]], letGo, err = g.body(ctx, v); err == nil {
			leases = append(leases, letGo)
		}
	}
	if err != nil {
		g.release(leases)
		return err
	}
	changed := false
	for t, body := range bodies {
		changed = changed || g.views[t] != body
	}
	if changed || len(bodies) != len(g.views) {
		g.unprepare()
	}
	g.release(g.leases) // behind unprepare, because a statement may read it
	g.leases, g.views, g.idents, g.cutAt = leases, bodies, idents, time.Now()
	return nil
}
