package columnar

import "naru/internal/lake"

// Options are what a Builder needs from its table.
type Options struct {
	// Path names a new file in the folder of a partition, which is empty where
	// there is none; it is called once for each file and must never give the same
	// path twice. Needed.
	Path func(folder string) string
	// Create opens the file at such a path. Needed. It is called from the
	// goroutine that encodes, one call at a time for each Builder.
	Create func(path string) (Output, error)
	// AllowPromotion says whether the long column with that field id may become
	// a double one, which costs a rewrite of the table's files. It is called
	// when the first fraction comes, and again at the next one when it said no;
	// nil allows always. Where it says no, the fraction goes to _rescued.
	AllowPromotion func(fieldID int) bool
	// Shape gives what the contract with that hash says of columns, partition and
	// order; nil from it: nothing. A nil Shape knows of no contract.
	Shape func(hash []byte) *lake.Shape
	// Arrangement is that of the table, until a contract asks for another; the
	// zero one is DefaultPartition without an order.
	Arrangement *Arrangement
	// MaxPartitions is how many partitions the rows between two Finishes may make
	// (default 500). Rows of further ones share a file without a partition.
	MaxPartitions int
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
	// DefaultMaxPartitions is what one commit may make of files.
	DefaultMaxPartitions = 500
)

func (o Options) withDefaults() Options {
	if o.ChunkRows <= 0 {
		o.ChunkRows = DefaultChunkRows
	}
	o.ChunkRows = min(o.ChunkRows, MaxChunkRows)
	if o.ChunkBytes <= 0 {
		o.ChunkBytes = DefaultChunkBytes
	}
	if o.MaxPartitions <= 0 {
		o.MaxPartitions = DefaultMaxPartitions
	}
	if o.Arrangement == nil {
		o.Arrangement = &Arrangement{Partition: DefaultPartition()}
	}
	if o.Writers == nil {
		o.Writers = NewWriters(DefaultWriters)
	}
	return o
}
