package records

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"naru/internal/fault"
)

type got struct {
	line, misfit string
	at           int64
}

func readAll(t *testing.T, in io.Reader, name string, format Format) ([]got, *Reader, error) {
	t.Helper()
	r, err := NewReader(in, name, format)
	if err != nil {
		return nil, nil, err
	}
	t.Cleanup(r.Close)
	var out []got
	for {
		var rec Record
		err := r.Next(&rec)
		if err == io.EOF {
			return out, r, nil
		}
		if err != nil {
			return out, r, err
		}
		if bytes.ContainsAny(rec.Line, "\r\n") {
			t.Fatalf("a record holds a line break: %q", rec.Line)
		}
		out = append(out, got{string(rec.Line), rec.Misfit, rec.At})
	}
}

func TestFormats(t *testing.T) {
	tests := []struct {
		name   string
		file   string
		format Format
		in     string
		want   []got
	}{
		{"ndjson", "x.ndjson", Auto, "{\"a\":1}\n\n  {\"a\": 2}\r\n{\"a\":3}", []got{
			{`{"a":1}`, "", 1}, {`{"a": 2}`, "", 3}, {`{"a":3}`, "", 4}}},
		{"ndjson keeps bad lines for the door", "x.jsonl", Auto, "{\"a\":1}\n{oops\n", []got{
			{`{"a":1}`, "", 1}, {`{oops`, "", 2}}},
		{"sniffed lines", "-", Auto, "\ufeff{\"a\":1}\n{oops\n", []got{{`{"a":1}`, "", 1}, {`{oops`, "", 2}}},
		{"array", "x.json", Auto, "\n [ {\"a\":1},\n\t{\n \"b\": \"x y\"},3 ]\n", []got{
			{`{"a":1}`, "", 2}, {`{"b":"x y"}`, "", 3}, {`3`, "", 4}}},
		{"empty array", "x.json", Auto, "[]", nil},
		{"objects over several lines", "x.json", Auto, "{\n \"a\": 1\n}\n{\"b\":2} {\"c\":3}", []got{
			{`{"a":1}`, "", 1}, {`{"b":2}`, "", 4}, {`{"c":3}`, "", 4}}},
		{"nothing", "x.json", Auto, "  \n", nil},
		{"nothing in csv", "x.csv", Auto, "", nil},
		{"csv values", "x.csv", Auto, "n,zip,ok,f,e,t\n12,00123,true,-0.5e3,,TRUE\n", []got{
			{`{"n":12,"zip":"00123","ok":true,"f":-0.5e3,"e":null,"t":"TRUE"}`, "", 2}}},
		{"csv quotes and breaks", "x.csv", Auto, "\ufeffa,b\r\n\"x, \"\"y\"\"\",\"line 1\nline 2\"\r\n1,2\r\n", []got{
			{`{"a":"x, \"y\"","b":"line 1\nline 2"}`, "", 2}, {`{"a":1,"b":2}`, "", 4}}},
		{"csv header repeated and empty", "x.csv", Auto, ",a,a,,a_2, b \n1,2,3,4,5,6\n", []got{
			{`{"column_1":1,"a":2,"a_3":3,"column_4":4,"a_2":5,"b":6}`, "", 2}}},
		{"csv rows that do not fit", "x.csv", Auto, "a,b\n1\n1,2,3\n\"x\"y,2\n7,8\n", []got{
			{`["1","1 values, the header names 2"]`, "1 values, the header names 2", 2},
			{`["1,2,3","3 values, the header names 2"]`, "3 values, the header names 2", 3},
			{`["\"x\"y,2","extraneous or missing \" in quoted-field at column 3"]`, `extraneous or missing " in quoted-field at column 3`, 4},
			{`{"a":7,"b":8}`, "", 5}}},
		{"tsv", "x.tsv", Auto, "a\tb\n1\tx,y\n", []got{{`{"a":1,"b":"x,y"}`, "", 2}}},
		{"named", "-", CSV, "a\n1\n", []got{{`{"a":1}`, "", 2}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, _, err := readAll(t, strings.NewReader(tt.in), tt.file, tt.format)
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(out) != fmt.Sprint(tt.want) {
				t.Errorf("got  %+v\nwant %+v", out, tt.want)
			}
		})
	}
}

// TestAPipeIsNotWaitedFor: one line is enough to tell the format and to give a
// record.
func TestAPipeIsNotWaitedFor(t *testing.T) {
	for _, first := range []string{"{\"a\":1}\n", "\n [{\"a\":1},"} {
		r, w := io.Pipe()
		go func() { _, _ = w.Write([]byte(first)) }() // and then nothing
		in, err := NewReader(r, "-", Auto)
		if err != nil {
			t.Fatal(err)
		}
		var rec Record
		if err := in.Next(&rec); err != nil || string(rec.Line) != `{"a":1}` {
			t.Errorf("%q: %q, %v", first, rec.Line, err)
		}
		w.Close()
	}
}

func TestErrorsNameThePlace(t *testing.T) {
	tests := []struct{ name, file, in, want string }{
		{"array broken", "x.json", "[{\"a\":1},\n{\"a\":]", `read x.json: the value that begins on line 2: invalid character ']'`},
		{"array cut", "x.json", "[{\"a\":1},\n{\"a\"", `read x.json: line 2: the file ends in the middle of a value`},
		{"array without its end", "x.json", "[{\"a\":1}", `read x.json: line 1: the file ends in the middle`},
		{"behind the array", "x.json", "[1]\n2", `read x.json: line 2: something stands behind the end of the array`},
		{"unknown", "events.log", "hello", `read events.log: neither its name nor its first bytes tell the format`},
		{"header", "x.csv", "a,\"b\nc", `read x.csv: header: `},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := readAll(t, strings.NewReader(tt.in), tt.file, Auto)
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestCompressed(t *testing.T) {
	plain := []byte(strings.Repeat("{\"a\":1}\n", 10000))
	var gz, zst bytes.Buffer
	g := gzip.NewWriter(&gz)
	z, err := zstd.NewWriter(&zst)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []io.WriteCloser{g, z} {
		if _, err := w.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	twoMembers := append(bytes.Clone(gz.Bytes()), gz.Bytes()...)
	for name, tt := range map[string]struct {
		bytes []byte
		want  int
	}{
		"x.ndjson.gz": {gz.Bytes(), 10000}, "x.ndjson.zst": {zst.Bytes(), 10000},
		"renamed.ndjson": {gz.Bytes(), 10000}, "two.ndjson.gz": {twoMembers, 20000},
	} {
		out, r, err := readAll(t, bytes.NewReader(tt.bytes), name, Auto)
		if err != nil || len(out) != tt.want {
			t.Errorf("%s: %d records, %v; want %d", name, len(out), err, tt.want)
			continue
		}
		if r.Consumed() != int64(len(tt.bytes)) {
			t.Errorf("%s: consumed %d of %d bytes", name, r.Consumed(), len(tt.bytes))
		}
	}
	for name, cut := range map[string][]byte{"cut.ndjson.gz": gz.Bytes()[:gz.Len()-9], "cut.ndjson.zst": zst.Bytes()[:zst.Len()-3]} {
		if _, _, err := readAll(t, bytes.NewReader(cut), name, Auto); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: got %v, want an unexpected end", name, err)
		}
	}
}

// endless gives the prefix and then the same byte for ever.
type endless struct {
	prefix io.Reader
	b      byte
	given  int64
}

func (e *endless) Read(p []byte) (int, error) {
	if n, err := e.prefix.Read(p); err == nil {
		return n, nil
	}
	for i := range p {
		p[i] = e.b
	}
	e.given += int64(len(p))
	return len(p), nil
}

func TestRecordIsBounded(t *testing.T) {
	for name, tt := range map[string]struct{ file, prefix, hint string }{
		"line":           {"x.ndjson", "{\"a\":1}\n{\"b\":\"", "split"},
		"array element":  {"x.json", "[{\"a\":1},\n\"", "split"},
		"unclosed quote": {"x.csv", "a,b\n1,\"", "never closed"},
	} {
		t.Run(name, func(t *testing.T) {
			in := &endless{prefix: strings.NewReader(tt.prefix), b: 'x'}
			_, _, err := readAll(t, in, tt.file, Auto)
			if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "line 2") {
				t.Fatalf("got %v, want ErrTooLarge on line 2", err)
			}
			if !strings.Contains(fault.HintOf(err), tt.hint) {
				t.Errorf("hint %q lacks %q", fault.HintOf(err), tt.hint)
			}
			if in.given > 3*MaxRecord {
				t.Errorf("read %d bytes of an endless record", in.given)
			}
		})
	}
}

func TestNotUTF8IsCounted(t *testing.T) {
	r, err := NewReader(strings.NewReader("a,b\ncaf\xe9,1\nx,2\n"), "x.csv", Auto)
	if err != nil {
		t.Fatal(err)
	}
	var rec Record
	if err := r.Next(&rec); err != nil || !rec.Repaired || string(rec.Line) != "{\"a\":\"caf\ufffd\",\"b\":1}" {
		t.Errorf("got %q %+v %v", rec.Line, rec, err)
	}
	if err := r.Next(&rec); err != nil || rec.Repaired {
		t.Errorf("second row: %+v %v", rec, err)
	}
}

func TestWikipediaEdits(t *testing.T) {
	f, err := os.Open("../../../examples/wikipedia/wikipedia_edits.ndjson.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out, _, err := readAll(t, f, f.Name(), Auto)
	if err != nil || len(out) != 39244 {
		t.Fatalf("%d records, %v", len(out), err)
	}
}

func FuzzRecords(f *testing.F) {
	for _, s := range []string{"{\"a\":1}\n{", "[1,{\"a\":\n2}]", "a,b\n1,\"x\n", "a,,a\n1\n", "\x1f\x8b\x08", "\x28\xb5\x2f\xfd\x00"} {
		for _, format := range []string{"", "ndjson", "json", "csv", "tsv"} {
			f.Add([]byte(s), format)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, format string) {
		fm, err := ParseFormat(format)
		if err != nil {
			return
		}
		r, err := NewReader(bytes.NewReader(in), "x", fm)
		if err != nil {
			return
		}
		defer r.Close()
		for last := int64(0); ; {
			var rec Record
			if err := r.Next(&rec); err != nil {
				return
			}
			if len(rec.Line) == 0 || bytes.ContainsRune(rec.Line, '\n') {
				t.Fatalf("not a line: %q", rec.Line)
			}
			if r.Format() != NDJSON && !json.Valid(rec.Line) {
				t.Fatalf("not JSON: %q", rec.Line)
			}
			if rec.At < last {
				t.Fatalf("line %d after line %d", rec.At, last)
			}
			last = rec.At
		}
	})
}

func TestIsNumber(t *testing.T) {
	f := []string{"", "-", "01", "00", "+1", "1.", ".5", "1e", "1e+", "0x1", "1_000", "NaN", "Infinity", " 1", "1 ", "--1", "-01"}
	for _, s := range f {
		if isNumber(s) {
			t.Errorf("%q is taken for a number", s)
		}
	}
	for _, s := range []string{"0", "-0", "0.10", "10", "1e5", "1E-05", "-12.5e+10", "12345678901234567890"} {
		if !isNumber(s) || !json.Valid([]byte(s)) {
			t.Errorf("%q is not taken for a number", s)
		}
	}
}
