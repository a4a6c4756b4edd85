package columnar

import "naru/internal/lake"

// Options are what a Builder needs from its table.
type Options struct {
	// Path names a new file for rows of a day; it is called once for each file
	// and must never give the same path twice. Needed.
	Path func(day int32) string
	// Create opens the file at such a path. Needed. It is called from the
	// goroutine that encodes, one call at a time for each Builder.
	Create func(path string) (Output, error)
	// AllowPromotion says whether the long column with that field id may become
	// a double one, which costs a rewrite of the table's files. It is called
	// when the first fraction comes, and again at the next one when it said no;
	// nil allows always. Where it says no, the fraction goes to _rescued.
	AllowPromotion func(fieldID int) bool
	// Shape gives what the contract with that hash says of columns; nil from it:
	// nothing. A nil Shape knows of no contract.
	Shape func(hash []byte) *lake.Shape
	// Writers bounds the files open for writing over all builders; nil bounds
	// this builder by itself.
	Writers *Writers
	// ChunkRows is the largest row group (default 49,152, at most 122,880). Two
	// chunks are held in columns, one being filled and one being encoded, so half
	// the rows are half the memory, and less is left to encode at a commit; with
	// fewer still, dictionaries are written too often.
	ChunkRows int
	// ChunkBytes bounds the column buffers of one chunk; a Builder has two
	// (default 32 MiB). One event larger than that makes a chunk by itself.
	ChunkBytes int64
}

// Defaults of Options.
const (
	DefaultChunkRows  = 49_152
	MaxChunkRows      = 122_880
	DefaultChunkBytes = 32 << 20
)

func (o Options) withDefaults() Options {
	if o.ChunkRows <= 0 {
		o.ChunkRows = DefaultChunkRows
	}
	o.ChunkRows = min(o.ChunkRows, MaxChunkRows)
	if o.ChunkBytes <= 0 {
		o.ChunkBytes = DefaultChunkBytes
	}
	if o.Writers == nil {
		o.Writers = NewWriters(DefaultWriters)
	}
	return o
}
