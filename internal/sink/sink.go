// Package sink is the seam to where events go. A sink author writes three
// methods and runs sinktest.Run; batching, retry, back-off, parallelism and
// positions belong to the pipeline.
package sink

import (
	"context"

	"naru/internal/event"
)

// Sink takes batches in log order. It is used by one goroutine at a time.
//
// Only what Commit reports is durable: after a crash the pipeline starts
// again from the positions of the last Commit, so a sink that is not a Resumer
// sees events again (at least once).
type Sink interface {
	// Write takes a batch, which may be without events: it then moves the
	// positions alone. It may keep the batch until Commit. An error means
	// that none of it can be relied on: the pipeline closes the sink, opens it
	// anew and reads again from the last committed positions.
	Write(ctx context.Context, b *event.Batch) error
	// Commit makes what was written durable, as far as the sink chooses (a sink
	// may hold back small parts), and returns the first positions not yet
	// covered by anything still held back. An error leaves what is durable
	// unknown: reopen, ask Resume, read again.
	Commit(ctx context.Context) (event.Positions, error)
	// Close releases what the sink holds; what was not committed is forgotten.
	Close() error
}

// Resumer is an optional power: the sink keeps positions beside the data, so
// that reading again is exact: events that it already holds are skipped.
type Resumer interface {
	// Resume returns, for one stream, positions from which reading again loses
	// nothing; nil when the sink has nothing of that stream.
	Resume(ctx context.Context, stream string) (event.Positions, error)
}

// Holder is an optional power: it counts the events in the spans that the sink
// holds durably. The pipeline asks when the log has dropped them before its
// watermark had passed them.
type Holder interface {
	Holds(ctx context.Context, spans []event.Span) (int64, error)
}

// Drainer is an optional power: Drain commits everything, also what Commit
// would hold back; used at shutdown.
type Drainer interface {
	Drain(ctx context.Context) (event.Positions, error)
}

// Pending is an optional power: bytes held and not yet committed, by which
// the pipeline decides to commit early.
type Pending interface {
	PendingBytes() int64
}
