// Package query is the seam to the SQL engine, and the pure logic around it:
// the gate, the resolution of names and the formats of answers.
package query

import (
	"context"
	"errors"
	"time"
)

// Query is one statement with its limits.
type Query struct {
	SQL     string
	MaxRows int64         // 0: the engine's limit
	Timeout time.Duration // 0: the engine's limit
}

// Column of an answer. Type is DuckDB's name: BIGINT, VARCHAR, ...
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// Rows are streamed; the caller closes them. Not for concurrent use.
type Rows interface {
	Columns() []Column
	// Next moves to the next row; false at the end or on an error.
	Next() bool
	// Values of the current row, valid until Next: nil, bool, int64, uint64,
	// float64, string, []byte, time.Time, *big.Int, or []any and map[string]any
	// of these.
	Values() []any
	Err() error
	Close() error
}

// Engine answers SQL over the lake. Safe for concurrent use.
type Engine interface {
	Query(ctx context.Context, q Query) (Rows, error)
}

// Errors of an Engine.
var (
	// ErrRefused: the gate does not let this statement through (403).
	ErrRefused = errors.New("refused")
	// ErrSyntax: the statement is wrong (400); the text is DuckDB's, with the position.
	ErrSQL = errors.New("sql error")
	// ErrTimeout: the time limit was reached (408).
	ErrTimeout = errors.New("time limit reached")
	// ErrTooMany: no room for another query now (503, Retry-After).
	ErrTooMany = errors.New("too many queries at once")
)
