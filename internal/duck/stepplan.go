package duck

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/query"
	"naru/internal/transform"
)

// plan is steps that are one statement: each is a WITH query over the one before it.
type plan struct {
	steps []planStep
	joins bool
	all   bool            // some step takes all columns that there are
	names map[string]bool // that stand in steps, folded
	lists map[string]bool // of these, those that are lists
	using map[string]bool // of these, those of USING
	// Behind routes steps each one is the `where` of a sink. carry are attributes of the
	// event that these name, folded: steps before them may have left them out.
	routes int
	carry  []string
}

// planStep is a step that the gate has let pass.
type planStep struct {
	label  string // "2 filter"
	line   int
	to     string // the sink whose `where` it is
	judged *query.Step
	text   string   // over its input as _naru_N, N being its number
	tables []string // names of the WITH queries of its tables
	// instead is a text for where text does not fit the types of the columns.
	instead string
}

// inputName is what the rows are called that a step reads: those of the step
// before it, with 0 for the events.
func inputName(step int) string { return fmt.Sprintf("_naru_%d", step) }

// stepError is a step that cannot be: a mistake in the pipeline's file.
type stepError struct {
	line int
	step string
	err  error
}

func (e *stepError) Error() string { return fmt.Sprintf("%s: %v", stepNamed(e.step), e.err) }
func (e *stepError) Unwrap() error { return e.err }

// stepNamed is a step's label where it begins a message.
func stepNamed(label string) string {
	if label != "" && label[0] >= '0' && label[0] <= '9' {
		return "step " + label
	}
	return label
}

// plan judges steps; first is the number of the first one.
func (s *Steps) plan(ctx context.Context, steps []transform.Step, first int) (*plan, error) {
	parser, aggregates, err := s.parserOf()
	if err != nil {
		return nil, err
	}
	p := &plan{names: map[string]bool{}, lists: map[string]bool{}, using: map[string]bool{}, steps: make([]planStep, len(steps))}
	p.routes = slices.IndexFunc(steps, func(s transform.Step) bool { return s.To != "" })
	if p.routes < 0 {
		p.routes = len(steps)
	}
	if len(steps)-p.routes > transform.MostRoutes {
		return nil, fmt.Errorf("at most %d sinks may have a where", transform.MostRoutes)
	}
	// The last first: what a `where` names of the event goes through all steps.
	for i, step := range slices.Backward(steps) {
		one := planStep{label: step.Label(first + i), line: step.Line, to: step.To}
		wrong := func(err error) error { return &stepError{line: step.Line, step: one.label, err: err} }
		for _, file := range step.Files {
			if err := s.geo.Open(s.path(file)); err != nil {
				return nil, wrong(err)
			}
		}
		one.judged, one.tables, one.text, err = s.judge(ctx, parser, aggregates, step.SQL, i, p)
		if err == nil && step.Instead != "" {
			_, _, one.instead, err = s.judge(ctx, parser, aggregates, step.Instead, i, p)
		}
		if err != nil {
			if query.IsStatementError(err) {
				return nil, wrong(err)
			}
			return nil, err
		}
		p.joins = p.joins || one.judged.Joins
		p.all = p.all || one.judged.Stars
		for _, name := range one.judged.Names {
			p.names[foldName(name)] = true
		}
		for _, name := range one.judged.Using {
			p.using[foldName(name)] = true
		}
		for _, name := range one.judged.Lists {
			p.lists[foldName(name)] = true
		}
		if one.to != "" && p.routes > 0 {
			p.carries(one.judged.Names)
		}
		p.steps[i] = one
	}
	return p, nil
}

// carries notes which attributes of the event are among the names of a `where`.
func (p *plan) carries(names []string) {
	for _, name := range names {
		if name = foldName(name); event.InEnvelope(name) && !slices.Contains(p.carry, name) {
			p.carry = append(p.carry, name)
		}
	}
}

// carried are the columns that have them.
func (p *plan) carried() (list []string) {
	for _, name := range p.carry {
		list = append(list, query.Carried(name))
	}
	return list
}

// judge passes a step's text through the gate and gives it over the rows of the step
// before it. Steps are judged from the last to the first: p knows what is carried to
// those behind it.
func (s *Steps) judge(ctx context.Context, parser *parser, aggregates map[string]bool, sql string, before int, p *plan) (step *query.Step, tables []string, text string, err error) {
	if len(sql) > maxStepSQL {
		return nil, nil, "", &query.Error{Class: query.ErrSQL, Text: fmt.Sprintf("the statement has %d bytes, the limit is %d", len(sql), maxStepSQL)}
	}
	if step, err = query.NewStep(sql); err != nil {
		return nil, nil, "", err
	}
	err = parser.judge(ctx, step.Inner, func(tree []byte) error {
		if step.Carry = nil; before < p.routes {
			step.Carry = p.carried()
		}
		if err := step.Judge(tree, func(name string) bool { return aggregates[name] }); err != nil {
			return err
		}
		if before >= p.routes {
			if err := step.Route(query.RouteColumn(before - p.routes)); err != nil {
				return err
			}
		}
		for _, call := range step.Parts {
			if err := known(call.Function, call.Name, false); err != nil {
				return step.ErrorAt(query.ErrSQL, call.At, err.Error())
			}
		}
		for at := range step.Tables {
			tables = append(tables, fmt.Sprintf("_naru_%d_%d", before+1, at))
		}
		tree, err := step.Text(inputName(before), tables)
		if err == nil {
			text, err = parser.text(tree)
		}
		return err
	})
	return step, tables, text, err
}

// maxStepSQL is the longest step, in bytes.
const maxStepSQL = 256 << 10

func foldName(name string) string { return strings.ToLower(name) }

// sql is the statement of the first n steps over an input. absent are columns that
// steps name and no event has had: they are null. lost are those of p.carry that the
// steps before the routes have left out.
func (p *plan) sql(in *input, absent, lost []string, views map[lake.Ident]string, idents [][]lake.Ident, n int, instead []bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "WITH %s AS (SELECT *", inputName(0))
	for _, name := range absent {
		value := "NULL" // of no type: it takes the one that the expression around it wants
		switch {
		case p.lists[foldName(name)]:
			value = "CAST(NULL AS VARCHAR[])"
		case p.using[foldName(name)]: // without a type it would be INTEGER here, and so would the table's column
			value = "CAST(NULL AS VARCHAR)"
		}
		b.WriteString(", " + value + " AS " + ident(name))
	}
	for _, name := range p.carry {
		b.WriteString(", " + ident(name) + " AS " + ident(query.Carried(name)))
	}
	fmt.Fprintf(&b, " FROM %s(%d))", inputFunction, in.id)
	for i, s := range p.steps[:n] {
		for at, name := range s.tables {
			fmt.Fprintf(&b, ", %s AS NOT MATERIALIZED (%s)", name, views[idents[i][at]])
		}
		text := s.text
		if instead[i] {
			text = s.instead
		}
		if i == p.routes-1 && len(lost) > 0 {
			found := "SELECT *"
			for _, name := range lost {
				found += ", " + ident(query.Carried(name)) + " AS " + ident(name)
			}
			text = found + " FROM (" + text + ")"
		}
		fmt.Fprintf(&b, ", %s AS (%s)", inputName(i+1), text)
	}
	return b.String()
}

// rowsSQL and typesSQL follow sql: the rows of the first n steps, and one row that
// names the types of their columns.
func (p *plan) rowsSQL(n int, lost []string) string {
	if n < p.routes || len(p.carry) == 0 {
		return " SELECT * FROM " + inputName(n)
	}
	var without []string
	for _, name := range append(p.carried(), lost...) {
		without = append(without, ident(name))
	}
	return " SELECT * EXCLUDE (" + strings.Join(without, ", ") + ") FROM " + inputName(n)
}

func (p *plan) typesSQL(n int, lost []string) string {
	return " SELECT typeof(COLUMNS(t.*)) FROM (SELECT 1) LEFT JOIN (" + p.rowsSQL(n, lost) + ") t ON false"
}

// missing finds the column that DuckDB has not found; empty: it says something else.
func missing(text string) string {
	for _, re := range missingColumn {
		if m := re.FindStringSubmatch(text); m != nil {
			return strings.ReplaceAll(m[1], `""`, `"`)
		}
	}
	return ""
}

var missingColumn = []*regexp.Regexp{
	regexp.MustCompile(`^Binder Error: Referenced column "((?:[^"]|"")+)" not found in FROM clause`),
	regexp.MustCompile(`^Binder Error: Table "(?:[^"]|"")*" does not have a column named "((?:[^"]|"")+)"`),
	regexp.MustCompile(`^Binder Error: Column "((?:[^"]|"")+)" referenced that exists in the SELECT clause`), // under that name only there
	regexp.MustCompile(`^Binder Error: Values list "(?:[^"]|"")*" does not have a column named "((?:[^"]|"")+)"`),
	regexp.MustCompile(`^Binder Error: Column "((?:[^"]|"")+)" in (?:EXCLUDE|REPLACE|RENAME) list not found in FROM clause`),
	regexp.MustCompile(`^Binder Error: Column "((?:[^"]|"")+)" does not exist on (?:left|right) side of join`),
	regexp.MustCompile(`^Binder Error: Referenced table "((?:[^"]|"")+)" not found`), // of "a"."b": a may be a column
}

// mostAbsent bounds the columns that steps name and no event has had.
const mostAbsent = 256

// errNoTable says of an error that it is about a table that is not there.
var errNoTable = quiet{}

type quiet struct{}

func (quiet) Error() string { return "" }

// resolve finds the tables of the lake that the steps name. A name that no table
// has may be of one that the log alone knows.
func (p *plan) resolve(ctx context.Context, tables lake.Tables) (idents [][]lake.Ident, once []lake.Ident, err error) {
	if !slices.ContainsFunc(p.steps, func(s planStep) bool { return len(s.tables) > 0 }) {
		return make([][]lake.Ident, len(p.steps)), nil, nil
	}
	if tables == nil {
		return nil, nil, errors.New("list tables: there is no lake")
	}
	for _, list := range []func(context.Context) ([]lake.Ident, error){tables.List, tables.Newest} {
		known, lerr := list(ctx)
		if lerr != nil {
			return nil, nil, fmt.Errorf("list tables: %w", lerr)
		}
		if idents, once, err = p.resolveIn(query.NewNames(known)); err == nil {
			return idents, once, nil
		}
	}
	return nil, nil, err
}

func (p *plan) resolveIn(names *query.Names) (idents [][]lake.Ident, once []lake.Ident, err error) {
	for _, s := range p.steps {
		var of []lake.Ident
		for _, ref := range s.judged.Tables {
			t, err := names.Resolve(s.judged.Statement, ref)
			if err != nil {
				if strings.Contains(err.Error(), "there is no table") {
					err = fmt.Errorf("%w%w", err, errNoTable)
				}
				return nil, nil, &stepError{line: s.line, step: s.label, err: err}
			}
			of = append(of, t)
			if !slices.Contains(once, t) {
				once = append(once, t)
			}
		}
		idents = append(idents, of)
	}
	return idents, once, nil
}
