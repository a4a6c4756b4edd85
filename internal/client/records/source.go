package records

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"naru/internal/fault"
)

// zstdWindow bounds what a hostile .zst makes the reader allocate.
const zstdWindow = 128 << 20

// Reader reads the records of one input. Not for concurrent use, except Consumed.
type Reader struct {
	name   string
	format Format
	in     *counter
	zstd   *zstd.Decoder
	dec    decoder
}

// NewReader begins to read in. name is what the input is called: it stands in
// errors, and its extension tells the format unless format does.
func NewReader(in io.Reader, name string, format Format) (*Reader, error) {
	r := &Reader{name: name, format: format, in: &counter{r: in}}
	plain, err := r.decompress()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	buf := bufio.NewReaderSize(plain, sniffSize)
	if bom, err := buf.Peek(3); err == nil && string(bom) == "\ufeff" {
		_, _ = buf.Discard(3) // was peeked: it is there
	}
	if r.format == Auto {
		if r.format, err = sniff(buf, name); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
	}
	switch r.format {
	case NDJSON:
		r.dec = newLines(buf)
	case JSON:
		r.dec = newValues(buf)
	case CSV, TSV:
		if r.dec, err = newRows(buf, r.format); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
	}
	return r, nil
}

// Format is the one that was given or found.
func (r *Reader) Format() Format { return r.format }

// Consumed is the number of bytes of the input, compressed as it is, that were
// read so far. It may be called at any time.
func (r *Reader) Consumed() int64 { return r.in.n.Load() }

// Next reads the next record into rec; io.EOF at the end.
func (r *Reader) Next(rec *Record) error {
	*rec = Record{}
	err := r.dec.next(rec)
	if err == nil || err == io.EOF {
		return err
	}
	return fmt.Errorf("read %s: %w", r.name, err)
}

// Close releases the decompressor; the input itself belongs to the caller.
func (r *Reader) Close() {
	if r.zstd != nil {
		r.zstd.Close()
	}
}

// decompress looks at the first bytes, not at the name: a file that was
// renamed is still what it is.
func (r *Reader) decompress() (io.Reader, error) {
	buf := bufio.NewReaderSize(r.in, 64<<10)
	magic, err := buf.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(buf)
		if err != nil {
			return nil, fmt.Errorf("unpack gzip: %w", err)
		}
		return &named{r: z, what: "unpack gzip"}, nil
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(buf, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			return nil, fmt.Errorf("unpack zstd: %w", err)
		}
		r.zstd = z
		return &named{r: z, what: "unpack zstd"}, nil
	}
	return buf, nil
}

// sniffSize is how much of the input is looked at to tell its format.
const sniffSize = 64 << 10

// sniff tells the format by the extension, then by the first bytes.
func sniff(buf *bufio.Reader, name string) (Format, error) {
	base := strings.ToLower(filepath.Base(name))
	for _, packed := range []string{".gz", ".zst"} {
		base = strings.TrimSuffix(base, packed)
	}
	switch filepath.Ext(base) {
	case ".ndjson", ".jsonl":
		return NDJSON, nil
	case ".csv":
		return CSV, nil
	case ".tsv":
		return TSV, nil
	}
	// No more is asked for than is needed: a pipe may give a line and wait.
	for n := 1; ; n = buf.Buffered() + 1 {
		head, err := buf.Peek(min(n, sniffSize))
		if err == nil {
			head, err = buf.Peek(buf.Buffered())
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return Auto, err
		}
		whole := err != nil || len(head) == sniffSize
		if f, ok := guess(head, whole); ok {
			return f, nil
		}
		if whole {
			return Auto, fault.WithHint(errors.New("neither its name nor its first bytes tell the format"),
				"name it with --format ndjson, json, csv or tsv")
		}
	}
}

// guess tells the format by the first bytes; whole says that there will be no
// more to look at.
func guess(head []byte, whole bool) (Format, bool) {
	head = bytes.TrimLeft(head, " \t\r\n")
	if len(head) == 0 {
		return NDJSON, whole // nothing in it: no records either
	}
	if head[0] == '[' {
		return JSON, true
	}
	line, _, ended := bytes.Cut(head, []byte("\n"))
	if head[0] != '{' || !ended && !whole {
		return Auto, false
	}
	// Objects that span lines are values; else a line is an event, and a bad one
	// is refused alone.
	line = bytes.TrimSpace(line)
	if ended && !json.Valid(line) && (len(line) == 1 || line[len(line)-1] == ',') {
		return JSON, true
	}
	return NDJSON, true
}

// counter counts the bytes that were read.
type counter struct {
	r io.Reader
	n atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// named says which step of reading an error belongs to.
type named struct {
	r    io.Reader
	what string
}

func (n *named) Read(p []byte) (int, error) {
	k, err := n.r.Read(p)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%s: %w", n.what, err)
	}
	return k, err
}
