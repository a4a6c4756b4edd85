package columnar

import (
	"context"
	"errors"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/vfs"
)

// Builder gathers the rows of one table until they are committed. What comes
// out depends only on the sequence of events, not on where Finish cuts it. It
// is used by one goroutine at a time; full chunks are encoded by a goroutine
// of its own, which Finish and Reset wait for.
type Builder struct {
	fs     vfs.FS
	opt    Options
	schema *Schema
}

// NewBuilder makes an empty builder. The schema is cloned; fs is where files
// that it has written are read again when they must be merged.
func NewBuilder(fs vfs.FS, schema *Schema, opt Options) *Builder {
	return &Builder{fs: fs, schema: schema.Clone(), opt: opt.withDefaults()}
}

// Append adds one event as one row. It copies what it keeps. Nothing in an
// event is an error: what fits no column goes to _rescued. An error comes
// from writing files; the builder can then only be Reset.
func (b *Builder) Append(e *event.Event, inc event.Incarnation, partition int32) error {
	return errors.ErrUnsupported
}

// Schema is the schema with all that the rows so far needed. It is the
// builder's own: Clone to keep it.
func (b *Builder) Schema() *Schema { return b.schema }

// Rows is the number of rows since the last Finish or Reset.
func (b *Builder) Rows() int64 { return 0 }

// Bytes is the memory that the builder holds.
func (b *Builder) Bytes() int64 { return 0 }

// Finish writes what is buffered and returns the files of all rows since the
// last Finish or Reset, one for each day, sorted by day; all have the schema
// that Schema returns, and all are durable. Afterwards the builder is empty
// and goes on with that schema.
func (b *Builder) Finish(ctx context.Context) ([]DataFile, error) { return nil, errors.ErrUnsupported }

// Reset forgets all rows since the last Finish, removes their files, and goes
// on with schema; nil keeps the one it had at the last Finish or Reset.
func (b *Builder) Reset(schema *Schema) error { return errors.ErrUnsupported }

// Counters are what a builder has counted since it was made.
type Counters struct {
	Rows    int64
	Rescued int64 // values in _rescued
	// UnfitNumbers of Rescued are whole numbers that neither long nor double
	// can hold, or that lie in a double column and are not exact there.
	UnfitNumbers int64
	// Unpromoted of Rescued are fractions for a long column that may not
	// become double: the cure is `naru table alter`.
	Unpromoted   int64
	ClampedTimes int64 // event times replaced by the time of receipt
	NotJSON      int64 // events whose data is called JSON and is none
}

// Counters returns the counts.
func (b *Builder) Counters() Counters { return Counters{} }

// TopRescued lists the paths most often found in _rescued, most frequent
// first, at most 64; counts of rare paths may be too high, never too low.
func (b *Builder) TopRescued() []lake.PathCount { return nil }
