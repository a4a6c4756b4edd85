package columnar

import "io"

// DataFile is one finished Parquet file: what an Iceberg manifest says of it.
type DataFile struct {
	Path string
	// Arrangement is what the rows were put together by.
	Arrangement Arrangement
	// Partition has what all rows of the file share, one value for each of
	// Arrangement.Partition.
	Partition []PartitionValue
	// Sorted: the rows of the whole file stand in the order of Arrangement.Sort.
	Sorted bool
	Rows   int64
	Bytes  int64
	// Stats hold the metrics of the columns by field id; lists have none.
	Stats map[int]ColumnStats
	// SplitOffsets are the places in the file where its row groups begin.
	SplitOffsets []int64
}

// ColumnStats are a column's metrics over one file.
type ColumnStats struct {
	Size   int64 // bytes in the file, compressed
	Values int64 // nulls included
	Nulls  int64
	// Lower and Upper are bounds in Iceberg's single-value serialization, nil
	// when not known. Those of strings are cut to 16 characters, the upper one
	// rounded up.
	Lower, Upper []byte
}

// Output is a file being written. Exactly one of Close and Abort is called.
type Output interface {
	io.Writer
	// Close makes the file durable under its path; it does not exist there before.
	Close() error
	// Abort forgets it: nothing stays at the path.
	Abort() error
	// Path is where the file is, once Close has returned: its maker may have
	// added to the name that was asked for. When Close has failed, it may be
	// there or not.
	Path() string
}
