package duck

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"naru/internal/fault"
	"naru/internal/geoip"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/query"
	"naru/internal/transform"
)

// Steps computes the steps of pipelines: it implements transform.Engine. All steps
// of a pipeline are one statement over the events of a batch (docs/design/0020),
// in an instance of DuckDB apart from that of queries. Safe for concurrent use.
type Steps struct {
	cfg  StepsConfig
	deps StepsDeps
	geo  geoip.Files

	mu struct {
		sync.Mutex
		closed     bool
		parser     *parser
		current    *instance
		aggregates map[string]bool
	}
	open sync.WaitGroup // transforms that are not closed
}

var _ transform.Engine = (*Steps)(nil)

// StepsDeps is what steps need of others.
type StepsDeps struct {
	// Lake has the tables that steps may join.
	Lake lake.Tables
	// Schemas gives the columns that are known of the events of a stream: those of
	// the tables of the types, of all types when there are none. Nil: nothing is
	// known before events come.
	Schemas func(ctx context.Context, stream string, types []string) ([]*columnar.Schema, error)
	// Shape gives what the contract with that hash says of columns; may be nil.
	Shape  func(hash []byte) *lake.Shape
	Logger *slog.Logger
}

var errStepsClosed = fault.Transient(errors.New("the engine of steps is closed"))

// NewSteps makes an engine; DuckDB starts with the first steps.
func NewSteps(cfg StepsConfig, deps StepsDeps) (*Steps, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure steps: %w", err)
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	return &Steps{cfg: cfg, deps: deps}, nil
}

// Close stops DuckDB. All transforms must have been closed.
func (s *Steps) Close() error {
	s.mu.Lock()
	s.mu.closed = true
	current, parser := s.mu.current, s.mu.parser
	s.mu.current, s.mu.parser = nil, nil
	s.mu.Unlock()
	s.open.Wait()
	if current != nil {
		current.close()
	}
	if parser != nil {
		parser.close()
	}
	return nil
}

// openInstance opens an instance that has the input and the guards.
func (s *Steps) openInstance() (*instance, error) {
	in, err := openInstanceWith(s.cfg.engine(), func(c *conn) error {
		if err := registerInput(c); err != nil {
			return err
		}
		if err := s.registerFunctions(c); err != nil {
			return err
		}
		setup := []string{"SET GLOBAL parquet_metadata_cache = true", "CREATE SCHEMA " + query.GuardSchema(), "CREATE SCHEMA " + copySchema}
		for _, name := range query.GuardedFunctions() {
			setup = append(setup, guardSQL("memory."+query.GuardSchema(), name))
		}
		return c.exec(strings.Join(setup, "; "))
	})
	if err != nil {
		return nil, err
	}
	return in, nil
}

// instance gives the instance for a transform, and opens a new one when the last
// has broken. Whoever gets it has entered it.
func (s *Steps) instance() (*instance, error) {
	s.mu.Lock() // opening under the lock: others need the same instance
	defer s.mu.Unlock()
	if s.mu.closed {
		return nil, errStepsClosed
	}
	if s.mu.current != nil && s.mu.current.enter() {
		return s.mu.current, nil
	}
	in, err := s.openInstance()
	if err != nil {
		return nil, err
	}
	if s.mu.current != nil {
		s.deps.Logger.Warn("duckdb of steps was started anew after an internal error")
	}
	s.mu.current = in
	in.enter()
	return in, nil
}

// parserOf gives the parser, and the names of DuckDB's aggregates.
func (s *Steps) parserOf() (*parser, map[string]bool, error) {
	s.mu.Lock() // opening under the lock: others need the same parser
	defer s.mu.Unlock()
	if s.mu.closed {
		return nil, nil, errStepsClosed
	}
	if s.mu.parser != nil {
		return s.mu.parser, s.mu.aggregates, nil
	}
	p, err := openParser()
	if err != nil {
		return nil, nil, err
	}
	names, err := p.texts("SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = 'aggregate'")
	if err != nil {
		p.close()
		return nil, nil, fmt.Errorf("list aggregates: %w", err)
	}
	s.mu.parser, s.mu.aggregates = p, map[string]bool{}
	for _, name := range names {
		s.mu.aggregates[name] = true
	}
	return s.mu.parser, s.mu.aggregates, nil
}

// texts runs a statement of our own and gives its first column.
func (p *parser) texts(sql string) (texts []string, err error) {
	c, err := p.db.connect()
	if err != nil {
		return nil, err
	}
	defer c.close()
	r, err := c.stream(sql)
	if err != nil {
		return nil, err
	}
	defer r.close()
	col := column{kind: duckdb.TypeVarchar}
	for {
		chunk, err := r.next()
		if err != nil || chunk == nil {
			return texts, err
		}
		col.bind(duckdb.DataChunkGetVector(*chunk, 0))
		for row := range int(duckdb.DataChunkGetSize(*chunk)) {
			texts = append(texts, string(col.bytes(row)))
		}
	}
}

// text turns a tree into a statement again.
func (p *parser) text(tree []byte) (string, error) {
	texts, err := p.texts("SELECT json_deserialize_sql(" + literal(string(tree)) + "::JSON)")
	if err != nil {
		return "", fmt.Errorf("write statement: %w", err)
	}
	return strings.Join(texts, ""), nil
}
