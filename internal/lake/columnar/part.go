package columnar

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
)

// Parquet settings, with their reasons in docs/format/tables.md.
const (
	pageBytes   = 256 << 10
	zstdLevel   = 1
	bufferBytes = 64 << 10
	groupBytes  = 32 << 20 // of a row group gathered by append, compressed
)

// part is one Parquet file while it is written, and afterwards.
type part struct {
	schema *Schema
	path   string
	fields []Field
	arrow  *arrow.Schema

	mu     sync.Mutex // one goroutine writes, another may close it for want of room
	out    Output
	buf    *bufio.Writer
	sink   counted
	pq     *pqarrow.FileWriter
	bounds []bounds
	rows   int64
	run    run // of its rows, where it is sorted: the encoder's alone
	file   DataFile
	err    error
	closed bool

	// Of Writers, under its lock.
	open   bool
	pinned bool
}

// counted hides Close of the sink from the Parquet writer and counts bytes.
type counted struct {
	w io.Writer
	n int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// openPart begins a file. varied tells which text columns do not repeat
// themselves, by place among the written fields.
func openPart(create func(string) (Output, error), path string, sort []SortField, s *Schema, varied func(i int, f Field) bool, codec compress.Compression) (*part, error) {
	p := &part{schema: s, path: path, fields: s.written()}
	p.arrow = arrowSchema(p.fields)
	p.bounds = make([]bounds, len(p.fields))
	props := []parquet.WriterProperty{
		parquet.WithVersion(parquet.V2_6),
		parquet.WithDataPageVersion(parquet.DataPageV1),
		parquet.WithCompression(codec),
		parquet.WithCompressionLevel(zstdLevel),
		parquet.WithDataPageSize(pageBytes),
		parquet.WithMaxRowGroupLength(MaxChunkRows),
		parquet.WithStats(false),
		parquet.WithDictionaryDefault(false),
		parquet.WithCreatedBy("naru"),
	}
	for i, f := range p.fields {
		p.bounds[i].kind = f.Kind
		column := parquet.ColumnPath{f.Name}
		switch f.Kind {
		case Long, Int, Timestamp, Date:
			props = append(props, parquet.WithEncodingPath(column, parquet.Encodings.DeltaBinaryPacked), parquet.WithStatsPath(column, true))
		case Double, Bool:
			props = append(props, parquet.WithStatsPath(column, true))
		case String, JSON, Binary:
			// Else plain, although delta lengths would be a little smaller and
			// faster: Spark does not read those (docs/design/0003).
			if f.Kind == String && !varied(i, f) {
				props = append(props, parquet.WithDictionaryPath(column, true))
			}
			if slices.ContainsFunc(sort, func(o SortField) bool { return o.Source == f.ID }) {
				props = append(props, parquet.WithStatsPath(column, true)) // row groups without the value are passed over
			}
		default:
			element := parquet.ColumnPath{f.Name, "list", "element"}
			if f.Kind == ListString {
				props = append(props, parquet.WithDictionaryPath(element, true))
			}
		}
	}
	out, err := create(path)
	if err != nil {
		return nil, fmt.Errorf("create data file %s: %w", path, err)
	}
	p.out = out
	p.buf = bufio.NewWriterSize(out, bufferBytes)
	p.sink.w = p.buf
	p.pq, err = pqarrow.NewFileWriter(p.arrow, &p.sink, parquet.NewWriterProperties(props...), pqarrow.DefaultWriterProps())
	if err != nil {
		return nil, fmt.Errorf("begin data file %s: %w", path, errors.Join(err, out.Abort()))
	}
	return p, nil
}

// write appends one row group; arrays are in the order of the fields.
func (p *part) write(arrays []arrow.Array, rows int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.pq.NewRowGroupChecked(); err != nil {
		return fmt.Errorf("write data file %s: %w", p.path, err)
	}
	for i, a := range arrays {
		p.bounds[i].observe(a)
		if err := p.pq.WriteColumnData(a); err != nil {
			return fmt.Errorf("write data file %s, column %s: %w", p.path, p.fields[i].Name, err)
		}
	}
	p.rows += int64(rows)
	return nil
}

// close finishes the file and makes it durable; calls after the first only
// return what the first one did.
func (p *part) close() (DataFile, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		p.file, p.err = p.finish()
		p.pq, p.buf, p.bounds = nil, nil, nil
	}
	return p.file, p.err
}

func (p *part) finish() (DataFile, error) {
	err := p.pq.Close()
	if err == nil {
		err = p.buf.Flush()
	}
	if err != nil {
		return DataFile{}, fmt.Errorf("finish data file %s: %w", p.path, errors.Join(err, p.out.Abort()))
	}
	meta, err := p.pq.FileMetadata()
	if err != nil {
		return DataFile{}, fmt.Errorf("finish data file %s: %w", p.path, errors.Join(err, p.out.Abort()))
	}
	file := DataFile{Path: p.path, Rows: p.rows, Bytes: p.sink.n, Stats: make(map[int]ColumnStats, len(p.fields))}
	sizes := make([]int64, meta.Schema.NumColumns())
	for g := range meta.NumRowGroups() {
		rg := meta.RowGroup(g)
		for c := range sizes {
			chunk, err := rg.ColumnChunk(c)
			if err != nil {
				return DataFile{}, fmt.Errorf("finish data file %s: %w", p.path, errors.Join(err, p.out.Abort()))
			}
			sizes[c] += chunk.TotalCompressedSize()
			if c == 0 {
				at := chunk.DataPageOffset()
				if chunk.HasDictionaryPage() {
					at = min(at, chunk.DictionaryPageOffset())
				}
				file.SplitOffsets = append(file.SplitOffsets, at)
			}
		}
	}
	for i, f := range p.fields { // every field has one leaf
		if !f.Kind.IsList() {
			file.Stats[f.ID] = p.bounds[i].stats(sizes[i])
		}
	}
	err = p.out.Close()
	p.path = p.out.Path() // that is where abort would look for it
	file.Path = p.path
	return file, err
}

// abort forgets the file.
func (p *part) abort() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	p.pq, p.buf, p.bounds = nil, nil, nil
	return p.out.Abort()
}

// aborted tells whether nothing is left of the part.
func (p *part) aborted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed && p.file.Path == ""
}

// append adds rows to the row group begun by the last append, and begins the
// next one when it is full.
func (p *part) append(arrays []arrow.Array, rows int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, a := range arrays {
		p.bounds[i].observe(a)
	}
	rec := array.NewRecordBatch(p.arrow, arrays, int64(rows))
	defer rec.Release()
	if p.pq.RowGroupTotalBytesWritten() >= groupBytes {
		if err := p.pq.NewBufferedRowGroupChecked(); err != nil {
			return fmt.Errorf("write data file %s: %w", p.path, err)
		}
	}
	if err := p.pq.WriteBuffered(rec); err != nil {
		return fmt.Errorf("write data file %s: %w", p.path, err)
	}
	p.rows += int64(rows)
	return nil
}
