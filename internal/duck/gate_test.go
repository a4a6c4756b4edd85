package duck

import (
	"context"
	"errors"
	"strings"
	"testing"

	"naru/internal/query"
)

// judged takes a statement through the gate and the names, and no further.
func judged(e *Engine, sql string) error {
	st, err := query.NewStatement(sql)
	if err != nil {
		return err
	}
	if err := e.parser.judge(context.Background(), st.Inner, st.Judge); err != nil {
		return err
	}
	tables, err := e.lake.List(context.Background())
	if err != nil {
		return err
	}
	names := query.NewNames(tables)
	for _, ref := range st.Refs {
		if _, err := names.Resolve(st, ref); err != nil {
			return err
		}
	}
	return nil
}

func TestGateEscapes(t *testing.T) {
	l := shop(t)
	e := open(t, l, l.dir)
	n := script(t, "../query/testdata/escapes", func(sql string) string {
		err := judged(e, sql)
		switch {
		case err == nil:
			t.Errorf("%s: passed the gate", sql)
			return "PASSED"
		case errors.Is(err, query.ErrRefused):
			return "refused: " + firstLine(err)
		case errors.Is(err, query.ErrSQL):
			return "error: " + firstLine(err)
		}
		t.Errorf("%s: %v", sql, err)
		return "?"
	})
	if n < 60 {
		t.Errorf("%d escapes, want at least 60", n)
	}
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

func TestGateAllowed(t *testing.T) {
	l := shop(t)
	e := open(t, l, l.dir)
	n := script(t, "../query/testdata/allowed", func(sql string) string {
		got, err := ask(e, sql)
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			return firstLine(err)
		}
		return strings.ReplaceAll(got, "\n\n", "\n")
	})
	if n < 60 {
		t.Errorf("%d allowed statements, want at least 60", n)
	}
}
