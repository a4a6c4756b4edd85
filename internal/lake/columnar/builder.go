package columnar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

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
	start  *Schema // at the last Finish or Reset
	// arranged is how the rows to come are arranged, asked what contracts wanted
	// since the last Finish or Reset, which startArranged was at.
	arranged, startArranged *Arrangement
	asked                   []Arrangement

	paths *paths
	plain map[int]bool // text columns without a dictionary, by field id

	cur  *chunk // being filled
	next *chunk // being encoded, or waiting for its turn
	x    encoder
	both bool       // next was used since the last Finish
	held int64      // memory of next while it is being encoded
	busy chan error // holds the result of the encoding goroutine; nil when there is none
	rows int64
	err  error // sticky until Reset

	counters Counters
	top      topPaths

	// Of the row being read.
	inc       event.Incarnation
	partition int32
	log       []byte // inc as text
	data      []byte
	checked   bool // data was looked at as a whole
	broken    bool // and is no JSON
	rescued   rescued
	embedded  embedded
	known     known
	contract  []byte // hash of the row's contract
	shape     *shape // what it says of columns; nil: nothing
	shapes    map[*lake.Shape]*shape
	scan      scanner
	text      []byte // scratch, as the next two
	path      []byte
	keys      []byte
	frame     framing
	spelled   []byte // a value of it as JSON
}

// NewBuilder makes an empty builder. The schema is cloned; fs is where files
// that it has written are read again when they must be merged.
func NewBuilder(fs vfs.FS, schema *Schema, opt Options) *Builder {
	b := &Builder{fs: fs, opt: opt.withDefaults(), cur: &chunk{}, next: &chunk{}}
	b.x = encoder{opt: b.opt, files: map[string]*partFiles{}}
	b.arranged = b.opt.Arrangement
	b.adopt(schema.Clone())
	return b
}

// adopt begins anew with a schema.
func (b *Builder) adopt(s *Schema) {
	b.schema, b.start = s, s.Clone()
	s.addLater()
	b.paths = newPaths(s)
	b.plain = map[int]bool{idID: true}
	b.cur.reset(s, b.plain)
	b.contract, b.shape, b.shapes = b.contract[:0], nil, nil
	b.frame.of = nil // its nodes are of other paths
	fit := s.Fit(*b.arranged)
	b.arranged, b.asked = &fit, nil
	b.startArranged = b.arranged
}

// Append adds one event as one row. It copies what it keeps. Nothing in an
// event is an error: what fits no column goes to _rescued. An error comes
// from writing files; the builder can then only be Reset.
func (b *Builder) Append(e *event.Event, inc event.Incarnation, partition int32) error {
	if b.err != nil {
		return b.err
	}
	b.partition = partition
	b.envelope(e, inc, partition)
	switch b.schema.Layout {
	case Flat:
		b.flat(e)
	case Whole:
		b.whole(e)
	case Rejected:
		b.refusal(e)
	}
	return b.added()
}

// added ends a row.
func (b *Builder) added() error {
	b.cur.rows++
	b.rows++
	b.counters.Rows++
	if b.cur.rows >= b.opt.ChunkRows || b.cur.full(b.opt.ChunkBytes) {
		return b.flush()
	}
	return nil
}

// admit makes a column for a key, in the schema and in the current chunk.
func (b *Builder) admit(o *object, n *node, key []byte, kind Kind) *node {
	n = b.paths.admit(o, n, key, kind)
	b.cur.follow(b.schema)
	return n
}

// flush hands the current chunk to the encoding goroutine and goes on with the
// other one, waiting until that is free.
func (b *Builder) flush() error {
	if err := b.wait(); err != nil {
		return err
	}
	full := b.cur
	b.seal(full)
	b.cur, b.next, b.held, b.both = b.next, full, full.bytes(), true
	if b.arranged.isCopied() {
		b.held *= 2
	}
	b.cur.reset(b.schema, b.plain)
	b.cur.expect(full)
	busy := make(chan error, 1)
	b.busy = busy
	go func() { busy <- b.x.encode(full) }()
	return nil
}

// seal ends a chunk: what it was read by, and which texts vary too much for a
// dictionary.
func (b *Builder) seal(c *chunk) {
	c.schema, c.arranged = b.schema.Clone(), b.arranged
	for i, f := range b.schema.Fields {
		if c.cols[i] != nil && f.Kind == String && c.cols[i].dict == nil {
			b.plain[f.ID] = true
		}
	}
}

// wait until nothing is being encoded.
func (b *Builder) wait() error {
	if b.busy != nil {
		if err := <-b.busy; err != nil && b.err == nil {
			b.err = err
		}
		b.busy = nil
	}
	return b.err
}

// Schema is the schema with all that the rows so far needed. It is the
// builder's own: Clone to keep it.
func (b *Builder) Schema() *Schema { return b.schema }

// Rows is the number of rows since the last Finish or Reset.
func (b *Builder) Rows() int64 { return b.rows }

// Finish writes what is buffered and returns the files of all rows since the
// last Finish or Reset, one for each partition, in the order of their values; all
// have the schema that Schema returns, and all are durable. Afterwards the builder is empty
// and goes on with that schema. After an error it can only be Reset.
func (b *Builder) Finish(ctx context.Context) ([]DataFile, error) {
	if err := b.wait(); err != nil {
		return nil, err
	}
	b.seal(b.cur)
	if err := b.x.encode(b.cur); err != nil {
		b.err = err
		return nil, err
	}
	files := make([]DataFile, 0, len(b.x.files))
	for _, key := range b.x.sorted() {
		f, err := b.finishPartition(ctx, b.x.files[key])
		if err != nil {
			b.err = err
			return nil, err
		}
		files = append(files, f)
	}
	clear(b.x.files)
	b.start, b.startArranged, b.asked = b.schema.Clone(), b.arranged, nil
	b.rows = 0
	b.cur.reset(b.schema, b.plain)
	b.rest()
	b.frame.of = nil // the rows of a batch that may be the last for long
	return files, nil
}

// rest lets the second chunk's buffers go when they were not needed; else they
// are emptied when it is their turn.
func (b *Builder) rest() {
	if !b.both {
		b.next = &chunk{}
	}
	b.both = false
}

// finishPartition makes one file of a partition's parts.
func (b *Builder) finishPartition(ctx context.Context, d *partFiles) (DataFile, error) {
	if err := ctx.Err(); err != nil {
		return DataFile{}, err
	}
	if err := b.x.finish(d); err != nil {
		return DataFile{}, err
	}
	var parts []source
	var all run
	for _, p := range d.done {
		if len(d.by.Sort) > 0 {
			all.follow(d.by.Sort, p.run)
		}
		f, err := p.close() // its result when it was closed for want of room
		if err != nil {
			return DataFile{}, err
		}
		if len(d.done) == 1 && p.schema.Equal(b.schema) {
			return d.describe(f, all), nil
		}
		parts = append(parts, source{path: f.Path, schema: p.schema})
	}
	b.opt.Writers.reserve()
	defer b.opt.Writers.cancel()
	f, unfit, err := merge(ctx, b.fs, b.opt.Create, parts, b.opt.Path(d.folder), d.by.Sort, b.schema)
	if err != nil {
		return DataFile{}, err
	}
	// From here on the merged file is the partition's, also for Reset.
	d.done = append(d.done, &part{path: f.Path, file: f, closed: true})
	for path, n := range unfit {
		if n > 0 {
			b.counters.Rescued += n
			b.counters.UnfitNumbers += n
			b.top.add([]byte(path), n)
		}
	}
	for _, p := range parts {
		if err := b.remove(p.path); err != nil {
			return DataFile{}, fmt.Errorf("remove merged data file: %w", err)
		}
	}
	return d.describe(f, all), nil
}

// describe says of a partition's file what is in it. all is the run of its rows.
func (d *partFiles) describe(f DataFile, all run) DataFile {
	f.Arrangement, f.Partition = d.by, d.values
	f.Sorted = len(d.by.Sort) > 0 && !all.broken
	return f
}

// Reset forgets all rows since the last Finish, removes their files, and goes
// on with schema; nil keeps the one it had at the last Finish or Reset. The
// builder is usable again even when an error is returned, which tells of files
// that could not be removed.
func (b *Builder) Reset(schema *Schema) error {
	_ = b.wait() // what went wrong is forgotten with the rows
	b.err = nil
	err := b.x.abort(b.remove)
	if schema == nil {
		schema = b.start
	}
	b.rows = 0
	b.arranged = b.startArranged
	b.adopt(schema.Clone())
	b.rest()
	return err
}

func (b *Builder) remove(path string) error {
	if err := b.fs.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Counters are what a builder has counted since it was made.
type Counters struct {
	Rows    int64
	Rescued int64 // values in _rescued
	// UnfitNumbers of Rescued are numbers that neither long nor double can
	// hold, or that lie in a double column and are not exact there.
	UnfitNumbers int64
	// Unpromoted of Rescued are fractions for a long column that may not
	// become double: the cure is `naru table alter`.
	Unpromoted   int64
	ClampedTimes int64 // event times replaced by the time of receipt
	NotJSON      int64 // events whose data is called JSON and is none
}

// Counters returns the counts.
func (b *Builder) Counters() Counters { return b.counters }

// TopRescued lists the paths most often found in _rescued, most frequent
// first, at most 64; counts of rare paths may be too high, never too low.
func (b *Builder) TopRescued() []lake.PathCount { return b.top.list() }
