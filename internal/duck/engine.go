// Package duck answers SQL with DuckDB. It is the only importer of DuckDB.
//
// A query is parsed in an instance without data, judged by the gate, and run in
// another instance whose access to files is locked to the warehouse. It sees
// its tables as views in a catalog of its own, which is gone when its rows are
// closed, so no query leaves anything behind for another one.
package duck

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/query"
)

// Engine implements query.Engine over a lake.
type Engine struct {
	cfg    Config
	lake   lake.Tables
	log    *slog.Logger
	parser *parser
	slots  chan struct{}
	ids    atomic.Int64
	trim   trimmer

	mu struct {
		sync.Mutex
		due     time.Time // when the instance is to be renewed
		closed  bool
		current *instance
		running map[int64]context.CancelCauseFunc
	}
	work sync.WaitGroup // queries whose rows are not closed
}

var _ query.Engine = (*Engine)(nil)

var errClosed = fault.Transient(errors.New("the query engine is closed"))

// New makes an engine; Open starts it.
func New(cfg Config, tables lake.Tables, log *slog.Logger) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg, lake: tables, log: log, slots: make(chan struct{}, cfg.Concurrent)}
	e.trim = trimmer{after: trimAfter, trim: func() {
		e.renew(time.Now())
		giveBack()
	}}
	e.mu.running = map[int64]context.CancelCauseFunc{}
	return e, nil
}

// Open empties the folder for spilling and starts DuckDB.
func (e *Engine) Open() error {
	if err := emptyTemp(e.cfg.Temp); err != nil {
		return err
	}
	var err error
	if e.parser, err = openParser(); err != nil {
		return err
	}
	if e.mu.current, err = openInstance(e.cfg); err != nil {
		e.parser.close()
		return err
	}
	e.mu.due = time.Now().Add(renewAfter)
	return nil
}

// emptyTemp removes what an earlier process has spilled. It touches DuckDB's own
// files only: the folder may be somebody else's by a slip in the configuration.
func emptyTemp(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make folder for spilling: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "duckdb_temp_*"))
	if err != nil {
		return fmt.Errorf("empty folder for spilling: %w", err)
	}
	for _, f := range left {
		if err := os.RemoveAll(f); err != nil {
			return fmt.Errorf("empty folder for spilling: %w", err)
		}
	}
	return nil
}

// closeWait is how long Close waits for queries that it has cancelled.
const closeWait = 5 * time.Second

// Close cancels all queries and stops DuckDB. Rows still open are to be closed
// by their owners; when they do not within some seconds, or DuckDB does not heed
// the interrupt, Close says so and leaves its memory to the process's end.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.mu.closed {
		e.mu.Unlock()
		return nil
	}
	e.mu.closed = true
	for _, cancel := range e.mu.running {
		cancel(errClosed)
	}
	e.mu.Unlock()

	idle := make(chan struct{})
	go func() {
		e.work.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-time.After(closeWait):
		return fmt.Errorf("close query engine: queries are still running after %s", closeWait)
	}
	e.trim.close() // before the instance is taken: a trim may renew it
	e.mu.Lock()
	current := e.mu.current
	e.mu.Unlock()
	if current != nil {
		current.close()
	}
	if e.parser != nil {
		e.parser.close()
	}
	return nil
}

// grace is how long a cancelled query is waited for. One that does not heed the
// interrupt (the optimizer) keeps its place until it does; its client does not
// wait that long.
const grace = 300 * time.Millisecond

// Query implements query.Engine. The rows hold a place among the concurrent
// queries and leases on their tables until they are closed. A statement longer
// than Config.MaxSQL is fault.ErrLimit.
func (e *Engine) Query(ctx context.Context, q query.Query) (query.Rows, error) {
	if len(q.SQL) > int(e.cfg.MaxSQL) {
		return nil, fmt.Errorf("the statement has %d bytes, the limit is %d (query.max_sql): %w", len(q.SQL), e.cfg.MaxSQL, fault.ErrLimit)
	}
	st, err := query.NewStatement(q.SQL)
	if err != nil {
		return nil, err
	}
	ctx, leave, err := e.enter(ctx, limit(q.Timeout, e.cfg.Timeout.Std()))
	if err != nil {
		return nil, err
	}
	type outcome struct {
		rows *rows
		err  error
	}
	started := make(chan outcome, 1)
	go func() {
		r, err := e.start(ctx, st, limit(q.MaxRows, e.cfg.MaxRows))
		started <- outcome{r, err}
	}()
	finish := func(o outcome) (query.Rows, error) {
		if o.err != nil {
			leave()
			return nil, o.err
		}
		o.rows.leave = leave
		return o.rows, nil
	}
	select {
	case o := <-started:
		return finish(o)
	case <-ctx.Done():
	}
	patience := time.NewTimer(grace)
	defer patience.Stop()
	select {
	case o := <-started:
		if o.err == nil {
			o.rows.leave = leave
			return nil, errors.Join(context.Cause(ctx), o.rows.Close())
		}
		return finish(o)
	case <-patience.C:
	}
	go func() { // e.work counts it until leave
		if o := <-started; o.err == nil {
			o.rows.leave = leave
			_ = o.rows.Close()
		} else {
			leave()
		}
	}()
	return nil, context.Cause(ctx)
}

func limit[T int64 | time.Duration](asked, most T) T {
	if asked <= 0 || asked > most {
		return most
	}
	return asked
}

// enter waits for a place. The returned context ends with the time limit or
// with the engine, and then has that as its cause.
func (e *Engine) enter(ctx context.Context, timeout time.Duration) (context.Context, func(), error) {
	wait := time.NewTimer(e.cfg.Wait.Std())
	defer wait.Stop()
	select {
	case e.slots <- struct{}{}:
	default:
		select {
		case e.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		case <-wait.C:
			return nil, nil, &fault.RetryAfter{Err: fmt.Errorf("%w: %d are running (query.concurrent)", query.ErrTooMany, e.cfg.Concurrent), After: time.Second}
		}
	}
	e.mu.Lock()
	if e.mu.closed {
		e.mu.Unlock()
		<-e.slots
		return nil, nil, errClosed
	}
	id := e.ids.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	ctx, stop := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w: the query took longer than %s", query.ErrTimeout, timeout))
	e.mu.running[id] = cancel
	e.work.Add(1)
	e.mu.Unlock()

	return ctx, sync.OnceFunc(func() {
		stop()
		cancel(nil)
		e.mu.Lock()
		delete(e.mu.running, id)
		e.mu.Unlock()
		<-e.slots
		e.trim.queryEnded()
		e.work.Done()
	}), nil
}

// start judges the statement, takes leases on its tables and runs it up to its
// first rows, so that most errors come before the answer has begun.
func (e *Engine) start(ctx context.Context, st *query.Statement, maxRows int64) (*rows, error) {
	if err := e.parser.judge(ctx, st.Inner, st.Judge); err != nil {
		return nil, err
	}
	if st.ShowTables {
		tables, err := e.lake.Newest(ctx)
		if err != nil {
			return nil, e.ended(ctx, fmt.Errorf("list tables: %w", err))
		}
		return tableRows(tables), nil
	}
	s := &session{e: e}
	r, err := s.run(ctx, st, maxRows)
	if err != nil {
		s.close()
		return nil, err
	}
	return r, nil
}

// ended prefers the reason why ctx ended to the error that it led to.
func (e *Engine) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// instance gives the instance for the next query and opens a new one when the
// last has broken.
func (e *Engine) instance() (*instance, error) {
	e.mu.Lock() // opening under the lock: others need the same instance
	defer e.mu.Unlock()
	if e.mu.current.enter() {
		return e.mu.current, nil
	}
	in, err := openInstance(e.cfg)
	if err != nil {
		return nil, err
	}
	e.log.Warn("duckdb was started anew after an internal error")
	e.mu.current = in
	in.enter()
	return in, nil
}

// renewAfter is how long an instance serves. A GROUP BY leaves a kilobyte or more in
// lists of DuckDB's (what may be evicted) that it tidies only once they hold tens of
// thousands of entries, 16 MB; with the instance they go. It takes some 20 ms.
const renewAfter = time.Minute

// renew replaces an instance that has served long enough and has no query at the
// moment, so that there are never two with a limit of memory each.
func (e *Engine) renew(now time.Time) {
	e.mu.Lock() // all under the lock: closing the old one empties the folder for spilling
	defer e.mu.Unlock()
	if now.Before(e.mu.due) || e.mu.closed || !e.mu.current.idle() {
		return // soon again
	}
	e.mu.due = now.Add(renewAfter)
	in, err := openInstance(e.cfg)
	if err != nil {
		e.log.Warn("duckdb was not renewed and goes on as it is", "error", err)
		return
	}
	e.mu.current.close()
	e.mu.current = in
}

// broken tells whether DuckDB is unusable after this error.
func broken(text string) bool {
	return strings.HasPrefix(text, "INTERNAL Error") || strings.HasPrefix(text, "FATAL Error") || strings.Contains(text, "database has been invalidated")
}
