package query

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"time"
)

// ErrCut: the answer ended before its end, or with an error as its last line.
var ErrCut = errors.New("the answer was cut off")

// DecodeJSON reads an answer of format JSON as it arrives. The rows' types come
// back from the columns' (a HUGEINT is a *big.Int again, bytes are bytes); a
// STRUCT's members keep their order. An answer that is not whole ends with ErrCut
// and the server's reason. Closing the rows does not close r.
func DecodeJSON(r io.Reader) (Rows, error) {
	tail := &tailReader{r: r}
	d := &decoder{tail: tail, dec: json.NewDecoder(tail)}
	d.dec.UseNumber()
	if err := d.head(); err != nil {
		return nil, d.cut(err)
	}
	return d, nil
}

type decoder struct {
	tail    *tailReader
	dec     *json.Decoder
	columns []Column
	values  []any
	err     error
	done    bool
}

// head reads {"columns": [...], "rows": [
func (d *decoder) head() error {
	if err := d.expect(json.Delim('{'), "columns"); err != nil {
		return err
	}
	if err := d.dec.Decode(&d.columns); err != nil {
		return err
	}
	d.values = make([]any, len(d.columns))
	return d.expect("rows", json.Delim('['))
}

func (d *decoder) expect(tokens ...json.Token) error {
	for _, want := range tokens {
		got, err := d.dec.Token()
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%v stands where %v should", got, want)
		}
	}
	return nil
}

func (d *decoder) Columns() []Column { return d.columns }

func (d *decoder) Next() bool {
	if d.done {
		return false
	}
	if !d.dec.More() {
		d.done = true
		if err := d.expect(json.Delim(']'), json.Delim('}')); err != nil {
			d.err = d.cut(err)
		} else if _, err := d.dec.Token(); err != io.EOF {
			d.err = d.cut(err)
		}
		return false
	}
	var row []json.RawMessage
	err := d.dec.Decode(&row)
	if err == nil && len(row) != len(d.columns) {
		err = fmt.Errorf("a row has %d values for %d columns", len(row), len(d.columns))
	}
	for i := range row {
		if err == nil {
			d.values[i], err = decodeValue(row[i], d.columns[i].Type)
		}
	}
	if err != nil {
		d.done, d.err = true, d.cut(err)
		return false
	}
	return true
}

// cut prefers the error in the answer's last line to what the parser made of it.
func (d *decoder) cut(err error) error {
	_, drain := io.Copy(io.Discard, d.tail)
	last := bytes.TrimRight(d.tail.last, "\n")
	last = last[bytes.LastIndexByte(last, '\n')+1:]
	var line struct{ Error *string }
	if json.Unmarshal(last, &line) == nil && line.Error != nil {
		return fmt.Errorf("%w: %s", ErrCut, *line.Error)
	}
	if drain != nil {
		err = drain
	}
	if err == nil {
		err = errors.New("something follows its end")
	}
	return fmt.Errorf("%w: %w", ErrCut, err)
}

func (d *decoder) Values() []any { return d.values }
func (d *decoder) Err() error    { return d.err }
func (d *decoder) Close() error  { d.done = true; return nil }

// tailReader remembers the end of what it has read.
type tailReader struct {
	r    io.Reader
	last []byte
}

const tailSize = 64 << 10

func (t *tailReader) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.last = append(t.last, p[:n]...)
	if over := len(t.last) - tailSize; over > tailSize {
		t.last = append(t.last[:0], t.last[over:]...)
	}
	return n, err
}

// decodeValue gives a JSON value the Go type that Rows documents for typ. What
// stands inside lists and structs has no type of its own there: numbers become
// int64, *big.Int or float64 by their text.
func decodeValue(raw json.RawMessage, typ string) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	v, err := decodeAny(dec)
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case json.Number:
		if strings.HasPrefix(typ, "DECIMAL(") {
			return v, nil
		}
		return number(v, typ), nil
	case string:
		switch typ {
		case "TIMESTAMP WITH TIME ZONE":
			if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
				return t.UTC(), nil
			}
		case "BLOB", "GEOMETRY":
			if b, err := base64.StdEncoding.DecodeString(v); err == nil {
				return b, nil
			}
		}
	}
	return v, nil
}

func number(n json.Number, typ string) any {
	if typ == "DOUBLE" || typ == "FLOAT" {
		if f, err := n.Float64(); err == nil {
			return f
		}
	}
	if typ != "HUGEINT" && typ != "UHUGEINT" && typ != "BIGNUM" {
		if i, err := n.Int64(); err == nil {
			return i
		}
	}
	if b, ok := new(big.Int).SetString(string(n), 10); ok {
		if typ == "UBIGINT" && b.IsUint64() {
			return b.Uint64()
		}
		return b
	}
	if f, err := n.Float64(); err == nil {
		return f
	}
	return n
}

// decodeAny reads one value and keeps the order of members.
func decodeAny(dec *json.Decoder) (any, error) {
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			v, err := decodeAny(dec)
			if err != nil {
				return nil, err
			}
			list = append(list, nested(v))
		}
		_, err := dec.Token()
		return list, err
	case json.Delim('{'):
		o := Object{}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, err
			}
			name, ok := key.(string)
			if !ok {
				return nil, fmt.Errorf("%v is not a name", key)
			}
			v, err := decodeAny(dec)
			if err != nil {
				return nil, err
			}
			o = append(o, Member{name, nested(v)})
		}
		_, err := dec.Token()
		return o, err
	}
	return t, nil
}

func nested(v any) any {
	n, ok := v.(json.Number)
	if !ok {
		return v
	}
	if strings.ContainsAny(string(n), ".eE") {
		return n // as it was written: it may be a DECIMAL
	}
	return number(n, "")
}
