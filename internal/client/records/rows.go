package records

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"naru/internal/fault"
	"naru/internal/web"
)

// rows are the rows of CSV (RFC 4180) or TSV behind a header. Each becomes one
// JSON object: a value that is a JSON number or boolean becomes one, an empty
// value null, everything else text; so leading zeros stay text.
type rows struct {
	tape *tape
	csv  *csv.Reader
	keys [][]byte // `"name":`, in order
	line []byte
}

func newRows(in *bufio.Reader, format Format) (*rows, error) {
	t := &tape{r: in}
	r := &rows{tape: t, csv: csv.NewReader(t)}
	r.csv.FieldsPerRecord = -1 // judged here: a row that does not fit is passed on
	r.csv.ReuseRecord = true
	if format == TSV {
		r.csv.Comma = '\t'
	}
	header, err := r.csv.Read()
	if errors.Is(err, io.EOF) {
		return r, nil // empty: no records
	}
	if err != nil {
		return nil, fault.WithHint(fmt.Errorf("header: %w", err), "the first line names the columns")
	}
	for _, name := range names(header) {
		r.keys = append(r.keys, append(web.AppendJSONString(nil, name), ':'))
	}
	t.forget(r.csv.InputOffset())
	return r, nil
}

// names gives every column a name of its own: an empty one is column_N, by
// its place from 1; the second of two equal ones gets _2 behind it, and so on.
func names(header []string) []string {
	out := make([]string, len(header))
	taken := map[string]bool{}
	for i, h := range header {
		if out[i] = strings.TrimSpace(h); out[i] != "" && !taken[out[i]] {
			taken[out[i]] = true
		} else {
			out[i] = "" // after all names that the file gives
		}
	}
	for i, h := range header {
		if out[i] != "" {
			continue
		}
		base := strings.TrimSpace(h)
		n := 2
		if base == "" {
			base, n = "column", i+1
		}
		for out[i] == "" || taken[out[i]] {
			out[i] = base + "_" + strconv.Itoa(n)
			n++
		}
		taken[out[i]] = true
	}
	return out
}

func (r *rows) next(rec *Record) error {
	if r.keys == nil {
		return io.EOF
	}
	start := r.csv.InputOffset()
	r.tape.forget(start)
	row, err := r.csv.Read()
	var parse *csv.ParseError
	switch {
	case err == nil:
		line, _ := r.csv.FieldPos(0)
		rec.At = int64(line)
		if len(row) == len(r.keys) {
			r.object(rec, row)
			return nil
		}
		rec.Misfit = fmt.Sprintf("%d values, the header names %d", len(row), len(r.keys))
	case errors.As(err, &parse):
		rec.At = int64(parse.StartLine)
		rec.Misfit = fmt.Sprintf("%v at column %d", parse.Err, parse.Column)
	case errors.Is(err, ErrTooLarge):
		return fault.WithHint(tooLarge(r.tape.lineAt(start)), "look for a quote that is opened there and never closed")
	default:
		return err // io.EOF too
	}
	raw := strings.Trim(string(r.tape.bytes(start, r.csv.InputOffset())), "\r\n")
	rec.Repaired = !utf8.ValidString(raw)
	r.line = web.AppendJSONString(append(r.line[:0], '['), raw)
	r.line = web.AppendJSONString(append(r.line, ','), rec.Misfit)
	r.line = append(r.line, ']')
	rec.Line = r.line
	return nil
}

// object writes the row as one JSON object.
func (r *rows) object(rec *Record, row []string) {
	line := append(r.line[:0], '{')
	for i, v := range row {
		if i > 0 {
			line = append(line, ',')
		}
		line = append(line, r.keys[i]...)
		switch {
		case v == "":
			line = append(line, "null"...)
		case v == "true" || v == "false" || isNumber(v):
			line = append(line, v...)
		default:
			rec.Repaired = rec.Repaired || !utf8.ValidString(v)
			line = web.AppendJSONString(line, v)
		}
	}
	r.line = append(line, '}')
	rec.Line = r.line
}

// isNumber tells whether s is a number by the grammar of RFC 8259, section 6.
func isNumber(s string) bool {
	digits := func() int {
		n := 0
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		s = s[n:]
		return n
	}
	s = strings.TrimPrefix(s, "-")
	leadingZero := strings.HasPrefix(s, "0")
	if n := digits(); n == 0 || leadingZero && n > 1 {
		return false
	}
	if strings.HasPrefix(s, ".") {
		s = s[1:]
		if digits() == 0 {
			return false
		}
	}
	if s != "" && (s[0] == 'e' || s[0] == 'E') {
		s = s[1:]
		if s != "" && (s[0] == '+' || s[0] == '-') {
			s = s[1:]
		}
		if digits() == 0 {
			return false
		}
	}
	return s == ""
}
