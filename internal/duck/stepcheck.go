package duck

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"naru/internal/lake/columnar"
	"naru/internal/problem"
	"naru/internal/query"
	"naru/internal/spelling"
	"naru/internal/transform"
)

// Check implements transform.Engine. A table that does not exist is no mistake: it
// may come, and Open says so until then.
func (s *Steps) Check(ctx context.Context, file string, list []transform.Step, in transform.Input) (problems problem.List) {
	tell := func(line int, label, format string, args ...any) {
		key := "steps"
		if stepNamed(label) == label {
			key = "to" // it is the where of a sink
		}
		problems = append(problems, problem.Problem{File: file, Line: line, Key: key, Text: stepNamed(label) + fmt.Sprintf(format, args...)})
	}
	for i, step := range list { // each by itself, so that all that is wrong is told at once
		var err error
		if step.Script != nil {
			_, err = newCall(i+1, step)
		} else {
			_, err = s.plan(ctx, list[i:i+1], i+1)
		}
		if err != nil {
			var wrong *stepError
			if !errors.As(err, &wrong) {
				tell(step.Line, step.Label(i+1), " cannot be checked: %v", err)
				return problems
			}
			tell(wrong.line, wrong.step, ": %v", wrong.err)
		}
	}
	if len(problems) > 0 || len(list) == 0 {
		return problems
	}
	t, err := s.make(ctx, list, in)
	if err != nil {
		return nil // what is known of the lake cannot be read now
	}
	defer func() { _ = t.Close() }() // it always is nil
	g := t.mu.links[0].segment
	if err := g.check(ctx); err != nil {
		var wrong *stepError
		if errors.As(err, &wrong) && !g.unknown(err) {
			tell(wrong.line, wrong.step, ": %v", wrong.err)
		}
		return problems
	}
	for _, name := range g.absent {
		if near := g.near(name); near != "" {
			step := g.names(name)
			tell(step.line, step.label, ": no event has had the column %s: did you mean %s?", name, near)
		}
	}
	return problems
}

// check computes the steps over no event.
func (g *segment) check(ctx context.Context) error {
	if err := g.ready(ctx); err != nil {
		return err
	}
	a := &applying{ctx: ctx, segment: g}
	defer g.conn.interruptOn(ctx)()
	return a.none()
}

// unknown tells whether an error may be gone with the first events, or with a table.
func (g *segment) unknown(err error) bool {
	return errors.Is(err, errNoTable) || len(g.absent) > 0 && strings.Contains(err.Error(), "Binder Error: No function matches") || strings.Contains(err.Error(), "empty set of columns")
}

// near finds the known column that is one letter away from a name, unless the steps
// name that, too.
func (g *segment) near(name string) string {
	const shortest = 4
	if len(name) < shortest {
		return ""
	}
	for _, f := range g.stage.Schema().Fields {
		if !f.Dropped && f.Kind != columnar.Foreign && !g.plan.names[foldName(f.Name)] && spelling.Distance(foldName(f.Name), foldName(name)) == 1 {
			return f.Name
		}
	}
	return ""
}

// names finds the first step that names a column.
func (g *segment) names(column string) planStep {
	for _, s := range g.plan.steps {
		for _, name := range s.judged.Names {
			if foldName(name) == foldName(column) {
				return s
			}
		}
	}
	return g.plan.steps[0]
}

// Open implements transform.Engine.
func (s *Steps) Open(ctx context.Context, list []transform.Step, in transform.Input) (transform.Transform, error) {
	t, err := s.make(ctx, list, in)
	if err != nil {
		return nil, fmt.Errorf("open steps: %w", err)
	}
	g := t.mu.links[0].segment // what others read is known once events have come
	if err := g.ready(ctx); err != nil && (errors.Is(err, errNoTable) || !g.unknown(err)) {
		_ = t.Close() // it always is nil
		return nil, fmt.Errorf("open steps: %w", err)
	}
	return t, nil
}

// make makes the transform without a statement.
func (s *Steps) make(ctx context.Context, list []transform.Step, in transform.Input) (*steps, error) {
	if len(list) == 0 {
		list = []transform.Step{{Kind: "sql", SQL: "SELECT * FROM " + query.Input}}
	}
	links, err := s.links(ctx, list)
	if err != nil {
		return nil, err
	}
	schema := columnar.NewSchema()
	if s.deps.Schemas != nil {
		known, err := s.deps.Schemas(ctx, in.Stream, in.Types)
		if err != nil {
			return nil, fmt.Errorf("read columns of %s: %w", strings.Join(append(in.Types, in.Stream), ", "), err)
		}
		for _, k := range known {
			schema.Join(k)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return nil, errStepsClosed
	}
	s.open.Add(1)
	t := &steps{s: s}
	for i := range links {
		if links[i].plan != nil {
			links[i].segment = s.segment(links[i].plan, schema)
			schema = columnar.NewSchema()
		}
	}
	t.mu.links = links
	t.mu.idle = time.AfterFunc(s.cfg.Idle.Std(), t.rest)
	return t, nil
}

// links plans steps: those in SQL together, as far as no function stands between them.
// The first and the last link are SQL.
func (s *Steps) links(ctx context.Context, list []transform.Step) (links []link, err error) {
	everything := transform.Everything
	from := 0
	segment := func(to int) error {
		some, first := list[from:to], from+1
		if len(some) == 0 {
			some = everything
		}
		p, err := s.plan(ctx, some, first)
		links = append(links, link{plan: p})
		return err
	}
	for i, step := range list {
		if step.Script == nil {
			continue
		}
		if err := segment(i); err != nil {
			return nil, err
		}
		c, err := newCall(i+1, step)
		if err != nil {
			return nil, err
		}
		links = append(links, link{call: c})
		from = i + 1
	}
	err = segment(len(list))
	return links, err
}
