package records

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"naru/internal/fault"
)

// lines are the lines of NDJSON, as they stand. Blank ones are no records.
type lines struct {
	in  *bufio.Reader
	buf []byte
	at  int64
}

func newLines(in *bufio.Reader) *lines { return &lines{in: in} }

func (l *lines) next(rec *Record) error {
	for {
		l.at++
		line, err := l.read()
		if err != nil {
			return err
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			rec.Line, rec.At = line, l.at
			return nil
		}
	}
}

// read gives the next line, which aliases a buffer; io.EOF when none is left.
func (l *lines) read() ([]byte, error) {
	part, err := l.in.ReadSlice('\n')
	if err == nil {
		return part, nil
	}
	l.buf = append(l.buf[:0], part...)
	for errors.Is(err, bufio.ErrBufferFull) {
		if len(l.buf) > MaxRecord {
			return nil, tooLarge(l.at)
		}
		part, err = l.in.ReadSlice('\n')
		l.buf = append(l.buf, part...)
	}
	if err == io.EOF && len(l.buf) > 0 {
		return l.buf, nil // the last line may lack its break
	}
	return l.buf, err
}

func tooLarge(line int64) error {
	return fault.WithHint(fmt.Errorf("line %d: %w: more than %d MiB", line, ErrTooLarge, MaxRecord>>20),
		"split the record, or name the right --format")
}

// values are the elements of one array, or JSON values one behind the other,
// each made one line.
type values struct {
	tape  *tape
	dec   *json.Decoder
	raw   json.RawMessage
	line  bytes.Buffer
	array bool
	begun bool
	ended bool
}

func newValues(in *bufio.Reader) *values {
	t := &tape{r: in}
	return &values{tape: t, dec: json.NewDecoder(t)}
}

func (v *values) next(rec *Record) error {
	if !v.begun {
		if err := v.begin(); err != nil {
			return err
		}
	}
	if v.ended {
		return v.end()
	}
	if v.array && !v.dec.More() {
		if _, err := v.dec.Token(); err != nil {
			return v.broken(err)
		}
		v.ended = true
		return v.end()
	}
	if err := v.dec.Decode(&v.raw); err != nil {
		if err == io.EOF && !v.array {
			return io.EOF
		}
		return v.broken(err)
	}
	end := v.dec.InputOffset()
	rec.At = v.tape.lineAt(end - int64(len(v.raw)))
	v.tape.forget(end)
	rec.Line = v.raw
	if bytes.ContainsAny(v.raw, "\r\n") {
		v.line.Reset()
		if err := json.Compact(&v.line, v.raw); err != nil {
			return v.broken(err)
		}
		rec.Line = v.line.Bytes()
	}
	return nil
}

// begin takes the bracket of an array away.
func (v *values) begin() error {
	v.begun = true
	first, err := v.tape.firstByte()
	if err != nil {
		return err // io.EOF: nothing in it
	}
	if first == '[' {
		v.array = true
		if _, err := v.dec.Token(); err != nil {
			return v.broken(err)
		}
	}
	return nil
}

// end makes sure that nothing stands behind the array.
func (v *values) end() error {
	switch _, err := v.dec.Token(); {
	case err == io.EOF:
		return io.EOF
	case err == nil:
		return fmt.Errorf("line %d: something stands behind the end of the array", v.tape.lineAt(v.dec.InputOffset()-1))
	default:
		return v.broken(err)
	}
}

// broken names the line on which the value begins that could not be read.
// (The offset in a json.SyntaxError leaves the array's own punctuation out.)
func (v *values) broken(err error) error {
	line := v.tape.lineAt(v.tape.skip(v.dec.InputOffset(), ", \t\r\n"))
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, ErrTooLarge):
		return tooLarge(line)
	case err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF):
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("line %d: the file ends in the middle of a value: %w", line, err)
	case errors.As(err, &syntax):
		return fault.WithHint(fmt.Errorf("the value that begins on line %d: %w", line, err),
			"what stands before it can be sent; with --format ndjson every line is judged by itself")
	}
	return err
}
