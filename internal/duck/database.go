package duck

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	duckdb "github.com/duckdb/duckdb-go-bindings"
)

// database is one in-memory instance of DuckDB.
//
// It is driven through the bindings of the C API and not through database/sql: only
// there can a result be streamed (the driver materialises it), an error behind
// the first row be seen (the driver takes it for the end), and a JSON or
// DECIMAL column keep its digits.
type database struct{ db duckdb.Database }

// option of an instance. Their order matters: once external access is off, some
// others cannot be set.
type option struct{ name, value string }

func openDatabase(options ...option) (*database, error) {
	var cfg duckdb.Config
	if duckdb.CreateConfig(&cfg) == duckdb.StateError {
		return nil, errors.New("open duckdb: no memory for its configuration")
	}
	defer duckdb.DestroyConfig(&cfg)
	for _, o := range options {
		if duckdb.SetConfig(cfg, o.name, o.value) == duckdb.StateError {
			return nil, fmt.Errorf("open duckdb: option %s=%s refused", o.name, o.value)
		}
	}
	d := &database{}
	var text string
	if duckdb.OpenExt("", &d.db, cfg, &text) == duckdb.StateError {
		return nil, fmt.Errorf("open duckdb: %s", text)
	}
	return d, nil
}

func (d *database) close() { duckdb.Close(&d.db) }

func (d *database) connect() (*conn, error) {
	c := &conn{}
	if duckdb.Connect(d.db, &c.c) == duckdb.StateError {
		return nil, errors.New("connect to duckdb: no connection")
	}
	return c, nil
}

// conn is a connection: one call at a time, except interrupt.
type conn struct{ c duckdb.Connection }

func (c *conn) close() { duckdb.Disconnect(&c.c) }

// exec runs our own statements.
func (c *conn) exec(sql string) error {
	var res duckdb.Result
	defer duckdb.DestroyResult(&res)
	if duckdb.Query(c.c, sql, &res) == duckdb.StateError {
		return errors.New(duckdb.ResultError(&res))
	}
	return nil
}

// interruptEvery: DuckDB forgets an interrupt when a phase begins, so it is said
// again until the call returns.
const interruptEvery = 50 * time.Millisecond

// interruptOn interrupts whatever the connection does once ctx ends, until stop
// is called. After stop nothing touches the connection any more.
func (c *conn) interruptOn(ctx context.Context) (stop func()) {
	done, exited := make(chan struct{}), make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		defer close(exited)
		tick := time.NewTicker(interruptEvery)
		defer tick.Stop()
		for {
			duckdb.Interrupt(c.c)
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	return sync.OnceFunc(func() {
		close(done)
		if !unhook() {
			<-exited
		}
	})
}

// stream starts a statement whose rows are computed as they are fetched.
func (c *conn) stream(sql string) (*result, error) {
	r := &result{}
	if duckdb.Prepare(c.c, sql, &r.stmt) == duckdb.StateError {
		err := errors.New(duckdb.PrepareError(r.stmt))
		r.close()
		return nil, err
	}
	var pending duckdb.PendingResult
	state := duckdb.PendingPreparedStreaming(r.stmt, &pending)
	defer duckdb.DestroyPending(&pending)
	if state == duckdb.StateError {
		err := errors.New(duckdb.PendingError(pending))
		r.close()
		return nil, err
	}
	r.open = true
	if duckdb.ExecutePending(pending, &r.res) == duckdb.StateError {
		err := errors.New(duckdb.ResultError(&r.res))
		r.close()
		return nil, err
	}
	return r, nil
}

// result is a statement under way.
type result struct {
	stmt  duckdb.PreparedStatement
	res   duckdb.Result
	open  bool
	chunk duckdb.DataChunk
}

// next fetches the next chunk, which is valid until the following call; nil at
// the end.
func (r *result) next() (*duckdb.DataChunk, error) {
	r.dropChunk()
	r.chunk = duckdb.FetchChunk(r.res)
	if r.chunk.Ptr == nil {
		if text := duckdb.ResultError(&r.res); text != "" {
			return nil, errors.New(text)
		}
		return nil, nil
	}
	return &r.chunk, nil
}

func (r *result) dropChunk() {
	if r.chunk.Ptr != nil {
		duckdb.DestroyDataChunk(&r.chunk)
		r.chunk = duckdb.DataChunk{}
	}
}

func (r *result) close() {
	r.dropChunk()
	if r.open {
		duckdb.DestroyResult(&r.res)
		r.open = false
	}
	duckdb.DestroyPrepare(&r.stmt)
}
