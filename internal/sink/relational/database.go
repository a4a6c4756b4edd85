// Package relational is what sinks into SQL databases with transactions have in
// common: rows and the reader's positions go into one transaction, so that reading
// again is exact, and a row that the database refuses for good is found by halving
// what was sent.
package relational

import (
	"context"

	"naru/internal/event"
)

// PositionsTable is the table beside the one that is written. It has the columns
// reader, incarnation, partition_no, next_offset and written_at.
const PositionsTable = "naru_positions"

// Database is one connection to a database, for one table and one reader. It is used
// by one goroutine at a time. After an error other than a *RowError it is only
// closed. Errors have their class and hint (package fault).
type Database interface {
	// Load returns the reader's positions as they were last committed.
	Load(ctx context.Context) (event.Positions, error)
	// Shape makes the table take these columns, or tells which it lacks. It is
	// called outside of transactions.
	Shape(ctx context.Context, columns []event.Column) error
	// AppendRow appends a row as Insert takes it. The values are those of row.Reader.
	AppendRow(dst []byte, columns []event.Column, values []any) []byte
	// Begin begins a transaction, locks the reader's positions in the partitions that
	// at names until the transaction ends, and returns them. Partitions without a
	// position are locked too.
	Begin(ctx context.Context, at event.Positions) (event.Positions, error)
	// Insert writes n rows that AppendRow has made one behind the other: all of them,
	// or none. After a *RowError the transaction goes on.
	Insert(ctx context.Context, columns []event.Column, rows []byte, n int) error
	// Commit stores positions, of these partitions alone, and ends the transaction. An
	// error leaves open whether it was committed.
	Commit(ctx context.Context, at event.Positions) error
	// Keyed tells whether every row of the table has a value in a column; also when there
	// is no such table.
	Keyed(ctx context.Context, column string) (bool, error)
	// Delete removes, in the open transaction, the rows whose key (sink.AppendKey) in a
	// column is of these places or lies behind them, in its life of the log and
	// partition. It takes its time: the statement's timeout is not its own.
	Delete(ctx context.Context, column string, from event.Positions) error
	// Close ends the connection; a transaction that is open is rolled back.
	Close() error
}

// RowError says that at least one of the rows is refused for good, by what it holds:
// sent again it is refused again.
type RowError struct{ Err error }

func (e *RowError) Error() string { return e.Err.Error() }
func (e *RowError) Unwrap() error { return e.Err }
