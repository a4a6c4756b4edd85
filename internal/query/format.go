package query

import (
	"fmt"
	"io"
	"strings"

	"naru/internal/jsonscan"
)

// Format of an answer.
type Format string

// The formats. JSON, NDJSON, CSV and TSV are for programs and go over HTTP;
// Markdown and Table are for people and are made by the client.
const (
	JSON     Format = "json"
	NDJSON   Format = "ndjson"
	CSV      Format = "csv"
	TSV      Format = "tsv"
	Markdown Format = "markdown"
	Table    Format = "table"
)

// Formats lists them all, in the order in which help texts name them.
var Formats = []Format{Table, JSON, NDJSON, CSV, TSV, Markdown}

// ParseFormat reads a format's name.
func ParseFormat(name string) (Format, error) {
	var names []string
	for _, f := range Formats {
		if string(f) == lower(name) {
			return f, nil
		}
		names = append(names, string(f))
	}
	return "", fmt.Errorf("%q is not a format%s: choose one of %s", name, didYouMean(name, names), strings.Join(names, ", "))
}

// MediaType of the format, as Content-Type has it.
func (f Format) MediaType() string {
	switch f {
	case NDJSON:
		return "application/x-ndjson"
	case CSV:
		return "text/csv; charset=utf-8; header=present"
	case TSV:
		return "text/tab-separated-values; charset=utf-8"
	case Markdown:
		return "text/markdown; charset=utf-8"
	case Table:
		return "text/plain; charset=utf-8"
	}
	return "application/json"
}

// Writer writes one answer: Begin, Row for each row, and then End when the
// answer is whole or Cut when it is not. It writes in blocks of some ten
// kilobytes; nothing reaches the underlying writer before the first is full or
// the answer ends.
type Writer interface {
	Begin(columns []Column) error
	Row(values []any) error
	End() error
	// Cut ends the answer with a last line {"error": message}.
	Cut(message string) error
}

// NewWriter makes a writer of the format.
func NewWriter(f Format, w io.Writer) Writer {
	b := block{w: w}
	switch f {
	case NDJSON:
		return &ndjsonWriter{block: b}
	case CSV:
		return &delimitedWriter{block: b, append: appendCSV, sep: ','}
	case TSV:
		return &delimitedWriter{block: b, append: appendTSV, sep: '\t'}
	case Markdown:
		return &markdownWriter{block: b}
	case Table:
		return &tableWriter{block: b}
	}
	return &jsonWriter{block: b}
}

// Copy writes rows until they end. It calls End when they ended well; else it
// returns their error and leaves the last line to the caller, who may still be
// free to answer otherwise.
func Copy(w Writer, rows Rows) error {
	if err := w.Begin(rows.Columns()); err != nil {
		return err
	}
	for rows.Next() {
		if err := w.Row(rows.Values()); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return w.End()
}

// blockSize is how much a writer gathers.
const blockSize = 32 << 10

// block gathers small writes.
type block struct {
	w   io.Writer
	buf []byte
}

// spill writes the block when it is full.
func (b *block) spill() error {
	if len(b.buf) < blockSize {
		return nil
	}
	return b.flush()
}

func (b *block) flush() error {
	_, err := b.w.Write(b.buf)
	b.buf = b.buf[:0]
	return err
}

// cut writes the last line of an answer that is not whole.
func (b *block) cut(message string) error {
	if n := len(b.buf); n > 0 && b.buf[n-1] != '\n' {
		b.buf = append(b.buf, '\n')
	}
	b.buf = append(b.buf, `{"error": `...)
	b.buf = jsonscan.AppendQuoted(b.buf, message)
	b.buf = append(b.buf, "}\n"...)
	return b.flush()
}
