// Package rowfile writes rows of events into files: NDJSON, CSV, TSV, Avro,
// Parquet, and makes the folders of files of what stands in the rows.
package rowfile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"naru/internal/event"
	"naru/internal/row"
)

// Options say how a file is written.
type Options struct {
	Format   string // of Formats
	Compress string // of Compressions
}

// Formats and Compressions that there are.
var (
	Formats      = []string{"ndjson", "csv", "tsv", "avro", "parquet"}
	Compressions = []string{"none", "gzip", "zstd"}
)

// Validate tells what there is not; errors begin with the key, format or compress.
func (o Options) Validate() error {
	var errs []error
	if !slices.Contains(Formats, o.Format) {
		errs = append(errs, fmt.Errorf("format: %q is none of %s", o.Format, strings.Join(Formats, ", ")))
	}
	if !slices.Contains(Compressions, o.Compress) {
		errs = append(errs, fmt.Errorf("compress: %q is none of %s", o.Compress, strings.Join(Compressions, ", ")))
	}
	return errors.Join(errs...)
}

// Tabular tells whether files of the format have columns of their own.
func (o Options) Tabular() bool { return o.Format != "ndjson" }

// Extension is how names of such files end: ".csv.gz", ".parquet".
func (o Options) Extension() string {
	ext := "." + o.Format
	if o.Format == "avro" || o.Format == "parquet" {
		return ext // it is compressed inside
	}
	switch o.Compress {
	case "gzip":
		ext += ".gz"
	case "zstd":
		ext += ".zst"
	}
	return ext
}

// Writer writes one file. Not for concurrent use.
type Writer struct {
	out     counted
	enc     encoder
	columns []event.Column
	values  *row.Reader // nil: the format needs none
	rows    int64
}

// encoder is one format.
type encoder interface {
	append(e *event.Event, partition int32, values []any) error
	// held is the bytes that append has kept, about.
	held() int64
	// flush hands on what it has kept, as far as the format lets it.
	flush() error
	// finish writes the end of the file; what lies below is not closed.
	finish() error
}

type counted struct {
	w io.Writer
	n int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// New begins a file in w. Rows with other columns need another file, if the format
// is Tabular.
func New(w io.Writer, o Options, columns []event.Column) (*Writer, error) {
	f := &Writer{columns: columns}
	f.out.w = w
	if o.Tabular() {
		if len(columns) == 0 {
			return nil, fmt.Errorf("begin file: rows without columns cannot be %s", o.Format)
		}
		f.values = row.NewReader(columns)
	}
	var err error
	switch o.Format {
	case "ndjson":
		f.enc, err = newText(&f.out, o.Compress, &ndjson{columns: columns})
	case "csv":
		f.enc, err = newText(&f.out, o.Compress, &csv{columns: columns})
	case "tsv":
		f.enc, err = newText(&f.out, o.Compress, &tsv{columns: columns})
	case "avro":
		f.enc, err = newAvro(&f.out, o.Compress, columns)
	case "parquet":
		f.enc, err = newParquet(&f.out, o.Compress, columns)
	default:
		err = o.Validate()
	}
	if err != nil {
		return nil, fmt.Errorf("begin file: %w", err)
	}
	return f, nil
}

// Append adds a row.
func (f *Writer) Append(e *event.Event, partition int32) error {
	var values []any
	if f.values != nil {
		values = f.values.Values(e, partition)
		for i, v := range values {
			if at, ok := v.(time.Time); ok && f.columns[i].Type == event.DateColumn {
				values[i] = day(at.Unix() / 86400) // of midnight
			}
		}
	}
	f.rows++
	return f.enc.append(e, partition, values)
}

// day is a date, in days since 1970.
type day int32

func (d day) time() time.Time { return time.Unix(int64(d)*86400, 0).UTC() }

// Columns are those of the rows.
func (f *Writer) Columns() []event.Column { return f.columns }

// Rows is how many there are.
func (f *Writer) Rows() int64 { return f.rows }

// Held is the bytes in memory, about; Flush writes what can be written now.
func (f *Writer) Held() int64 { return f.enc.held() }

// Size is the bytes written and held, about what the file will have.
func (f *Writer) Size() int64 { return f.out.n + f.enc.held() }

// Flush makes memory free.
func (f *Writer) Flush() error { return f.enc.flush() }

// Finish writes the end of the file.
func (f *Writer) Finish() error { return f.enc.finish() }

// text is a format of lines, compressed as a whole.
type text struct {
	lines lines
	buf   *bufio.Writer
	zip   io.WriteCloser // nil: not compressed
	line  []byte
}

// lines makes the lines of a format.
type lines interface {
	header(dst []byte) []byte
	line(dst []byte, e *event.Event, partition int32, values []any) []byte
}

// bufferBytes is what a file of lines gathers before it is written.
const bufferBytes = 32 << 10

func newText(w io.Writer, compress string, l lines) (encoder, error) {
	t := &text{lines: l}
	switch compress {
	case "gzip":
		t.zip = gzip.NewWriter(w)
	case "zstd":
		z, err := zstd.NewWriter(w, zstdOptions...)
		if err != nil {
			return nil, fmt.Errorf("make zstd encoder: %w", err)
		}
		t.zip = z
	}
	if t.zip != nil {
		w = t.zip
	}
	t.buf = bufio.NewWriterSize(w, bufferBytes)
	_, err := t.buf.Write(l.header(nil))
	return t, err
}

// zstdOptions bound the memory of an encoder, of which each open file has one.
var zstdOptions = []zstd.EOption{zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1 << 20)}

func (t *text) append(e *event.Event, partition int32, values []any) error {
	t.line = t.lines.line(t.line[:0], e, partition, values)
	_, err := t.buf.Write(t.line)
	return err
}

func (t *text) held() int64 { return int64(t.buf.Buffered()) }

func (t *text) flush() error { return t.buf.Flush() }

func (t *text) finish() error {
	err := t.buf.Flush()
	if t.zip != nil {
		err = errors.Join(err, t.zip.Close())
	}
	return err
}
