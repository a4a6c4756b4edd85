package records

import (
	"bufio"
	"bytes"
	"io"
)

// tape keeps what a decoder has read since the last record, so that the
// record's bytes and line can be told, and refuses to keep more than MaxRecord.
type tape struct {
	r     *bufio.Reader
	kept  []byte
	gone  int   // bytes of kept that are forgotten
	from  int64 // offset of kept[gone]
	lines int64 // line breaks before from
}

func (t *tape) Read(p []byte) (int, error) {
	if len(t.kept)-t.gone > MaxRecord {
		return 0, ErrTooLarge
	}
	n, err := t.r.Read(p)
	if t.gone > len(t.kept)/2 { // moved rarely: not once a record
		t.kept = append(t.kept[:0], t.kept[t.gone:]...)
		t.gone = 0
	}
	t.kept = append(t.kept, p[:n]...)
	return n, err
}

// firstByte is the first byte that is not white space; it consumes nothing
// but white space, which the caller's line numbers still count.
func (t *tape) firstByte() (byte, error) {
	for {
		b, err := t.r.ReadByte()
		if err != nil {
			return 0, err
		}
		switch b {
		case '\n':
			t.lines++
		case ' ', '\t', '\r':
		default:
			return b, t.r.UnreadByte()
		}
	}
}

// bytes gives what was read from offset from to offset to.
func (t *tape) bytes(from, to int64) []byte {
	kept := t.kept[t.gone:]
	lo, hi := max(from-t.from, 0), min(to-t.from, int64(len(kept)))
	if lo >= hi {
		return nil
	}
	return kept[lo:hi]
}

// lineAt is the line, from 1, of the byte at offset.
func (t *tape) lineAt(offset int64) int64 {
	return t.lines + 1 + int64(bytes.Count(t.bytes(t.from, offset), []byte{'\n'}))
}

// skip moves offset past the bytes in set, as far as they were read.
func (t *tape) skip(offset int64, set string) int64 {
	rest := t.bytes(offset, t.from+int64(len(t.kept)))
	return offset + int64(len(rest)-len(bytes.TrimLeft(rest, set)))
}

// forget drops what stands before offset.
func (t *tape) forget(offset int64) {
	drop := t.bytes(t.from, offset)
	t.lines += int64(bytes.Count(drop, []byte{'\n'}))
	t.gone += len(drop)
	t.from += int64(len(drop))
}

var _ io.Reader = (*tape)(nil)
