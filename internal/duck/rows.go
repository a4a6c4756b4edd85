package duck

import (
	"context"
	"fmt"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/query"
)

// rows streams a result chunk by chunk.
type rows struct {
	columns []query.Column
	readers []column
	values  []any

	fetch func() (*duckdb.DataChunk, error) // the next chunk; nil at the end
	clean func(string) string               // over texts of an EXPLAIN, else nil
	size  int                               // rows in the chunk
	next  int                               // row to read
	err   error
	done  bool

	sent, maxRows   int64
	bytes, maxBytes int64

	fixed [][]any // rows that are not DuckDB's; then fetch is nil

	session *session
	leave   func()
}

// open reads the columns and the first chunk.
func (s *session) open(ctx context.Context, st *query.Statement, maxRows int64) (*rows, error) {
	r := &rows{session: s, maxRows: maxRows, maxBytes: int64(s.e.cfg.MaxResult)}
	if st.Explain {
		r.clean = s.explained
	}
	res := &s.result.res
	for i := range duckdb.ColumnCount(res) {
		t := duckdb.ColumnLogicalType(res, i)
		name, typ := duckdb.ColumnName(res, i), typeName(t)
		reader, err := newColumn(t)
		duckdb.DestroyLogicalType(&t)
		if err != nil {
			return nil, &query.Error{Class: query.ErrSQL, Text: fmt.Sprintf("column %q: %v", name, err)}
		}
		r.columns = append(r.columns, query.Column{Name: name, Type: typ})
		r.readers = append(r.readers, reader)
	}
	r.values = make([]any, len(r.columns))
	r.fetch = func() (*duckdb.DataChunk, error) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		chunk, err := s.result.next()
		if err != nil {
			return nil, s.fault(ctx, err)
		}
		return chunk, nil
	}
	if !r.fill() && r.err != nil {
		return nil, r.err
	}
	return r, nil
}

// fill gets the next chunk that is not empty.
func (r *rows) fill() bool {
	for !r.done {
		chunk, err := r.fetch()
		if err != nil || chunk == nil {
			r.err, r.done = err, true
			break
		}
		r.next, r.size = 0, int(duckdb.DataChunkGetSize(*chunk))
		if r.size > 0 {
			for i := range r.readers {
				r.readers[i].bind(duckdb.DataChunkGetVector(*chunk, duckdb.IdxT(i)))
			}
			return true
		}
	}
	return false
}

func (r *rows) Columns() []query.Column { return r.columns }

func (r *rows) Next() bool {
	if r.fetch == nil {
		if len(r.fixed) == 0 {
			return false
		}
		r.values, r.fixed = r.fixed[0], r.fixed[1:]
		return true
	}
	if r.next >= r.size && (r.done || !r.fill()) {
		return false
	}
	if r.sent++; r.sent > r.maxRows {
		return r.stop(fmt.Errorf("the answer has more than %d rows (query.max_rows) and was cut: add a LIMIT: %w", r.maxRows, fault.ErrLimit))
	}
	for i := range r.readers {
		r.values[i] = r.readers[i].value(r.next, &r.bytes)
		if text, ok := r.values[i].(string); ok && r.clean != nil {
			r.values[i] = r.clean(text)
		}
	}
	r.next++
	if r.bytes > r.maxBytes {
		return r.stop(fmt.Errorf("the answer has more than %d bytes (query.max_result) and was cut: %w", r.maxBytes, fault.ErrLimit))
	}
	return true
}

func (r *rows) stop(err error) bool {
	r.err, r.done, r.next, r.size = err, true, 0, 0
	return false
}

func (r *rows) Values() []any { return r.values }

func (r *rows) Err() error { return r.err }

// Close interrupts what still runs and gives back the leases and the place.
func (r *rows) Close() error {
	r.done, r.next, r.size, r.fixed = true, 0, 0, nil
	if r.session != nil {
		r.session.close()
		r.session = nil
	}
	if r.leave != nil {
		r.leave()
	}
	return nil
}

// tableRows answers SHOW TABLES.
func tableRows(tables []lake.Ident) *rows {
	r := &rows{columns: []query.Column{{Name: "namespace", Type: "VARCHAR"}, {Name: "name", Type: "VARCHAR"}}}
	for _, t := range tables {
		r.fixed = append(r.fixed, []any{t.Namespace, t.Name})
	}
	return r
}
