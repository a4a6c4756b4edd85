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
	// float64, string, []byte, time.Time, *big.Int, json.Number, or []any and
	// Object of these. A json.Number is a DECIMAL with all its digits. A
	// time.Time is a point in time (TIMESTAMP WITH TIME ZONE) in UTC; DATE, TIME,
	// TIMESTAMP, INTERVAL, UUID, ENUM and BIT are text.
	Values() []any
	// Err tells why Next returned false before the end: ErrTimeout, the
	// context's error, fault.ErrLimit when the answer is longer than allowed, or
	// an error of the statement.
	Err() error
	Close() error
}

// Object is a STRUCT or a MAP: its members in their order.
type Object []Member

// Member of an Object. The key of a MAP stands as text.
type Member struct {
	Name  string
	Value any
}

// Engine answers SQL over the lake. Safe for concurrent use.
type Engine interface {
	Query(ctx context.Context, q Query) (Rows, error)
}

// Errors of an Engine.
var (
	// ErrRefused: the gate does not let this statement through (403).
	ErrRefused = errors.New("refused")
	// ErrSQL: the statement is wrong (400); the text is DuckDB's, with the position.
	ErrSQL = errors.New("sql error")
	// ErrTimeout: the time limit was reached (408).
	ErrTimeout = errors.New("time limit reached")
	// ErrTooMany: no room for another query now (503, Retry-After).
	ErrTooMany = errors.New("too many queries at once")
)
