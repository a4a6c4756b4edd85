package columnar

// DefaultWriters is the number of Parquet files open for writing in a process.
const DefaultWriters = 64

// Writers bounds the Parquet files that are open for writing over all
// builders of a process: beyond the limit the least recently used one is
// closed, and its day goes on in another part, merged by Finish. Safe for
// concurrent use.
type Writers struct{ limit int }

// NewWriters allows limit open files, at least 1.
func NewWriters(limit int) *Writers { return &Writers{limit: max(limit, 1)} }
