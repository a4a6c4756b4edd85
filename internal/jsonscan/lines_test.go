package jsonscan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// split gives the items of an NDJSON text: "+" marks objects, "!" other JSON,
// "?" what is not JSON, with the offset of the fault.
func split(text string) []string {
	var (
		l   Lines
		s   Scanner
		got []string
	)
	l.Reset([]byte(text))
	for {
		it, ok := l.Next(&s, nil)
		if !ok {
			return got
		}
		part := text[it.Start:it.End]
		var other *NotObject
		switch {
		case it.Err == nil:
			got = append(got, "+"+part)
		case errors.As(it.Err, &other):
			got = append(got, "!"+part)
		default:
			got = append(got, fmt.Sprintf("?%d:%s", s.Err.Offset, part))
		}
	}
}

func TestLines(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{" \n\r\n\t", nil},
		{"{}", []string{"+{}"}},
		{"{}\n{}\r\n\n{} {}{}\n", []string{"+{}", "+{}", "+{}", "+{}", "+{}"}},
		{"\xef\xbb\xbf{}\n", []string{"+{}"}},
		{"{\n \"a\": 1\n}\n{\"b\":2}", []string{"+{\n \"a\": 1\n}", `+{"b":2}`}},
		{"{\"a\":1\n{\"b\":2}\n", []string{`?6:{"a":1`, `+{"b":2}`}},
		{"{\"a\":tru}\n{\"b\":2}\n", []string{`?8:{"a":tru}`, `+{"b":2}`}},
		{"{\"a\":\"x\n{\"b\":2}\n", []string{"?7:{\"a\":\"x", `+{"b":2}`}},
		{"nonsense\r\n{\"b\":2}\n", []string{"?1:nonsense", `+{"b":2}`}},
		{"42\n\"x\"\n[1, 2]\nnull\ntrue\n{}", []string{"!42", `!"x"`, "![1, 2]", "!null", "!true", "+{}"}},
		{"{\"a\":1},\n{\"b\":2}", []string{`+{"a":1}`, "?7:,", `+{"b":2}`}},
		{"{} garbage {}\n{}", []string{"+{}", "?3:garbage {}", "+{}"}},
		{"1 2\n{}", []string{"?2:1 2", "+{}"}},
		{"{\"a\":[1,\n2,\n{\"c\":3}\n", []string{"?8:{\"a\":[1,", "?10:2,", `+{"c":3}`}},
		{"{\"a\":", []string{`?5:{"a":`}},
	} {
		if got := split(c.text); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%q:\n got %q\nwant %q", c.text, got, c.want)
		}
	}
}

// A body of lines that each open an object must not be read once per line.
func TestLinesStayLinear(t *testing.T) {
	line := `{"a":[` + strings.Repeat("1,", 500) + "\n"
	const lines = 20000
	var (
		l Lines
		s Scanner
		n int
	)
	text := []byte(strings.Repeat(line, lines))
	l.Reset(text)
	for {
		it, ok := l.Next(&s, nil)
		if !ok {
			break
		}
		if it.Err == nil {
			t.Fatal("an open object passed")
		}
		n++
	}
	if n != lines {
		t.Fatalf("%d items, want %d", n, lines)
	}
	if l.ahead > 0 || l.ahead < -len(text) {
		t.Errorf("%d bytes read ahead of %d", -l.ahead, len(text))
	}
}

// Items cover everything but white space, in order; objects are what
// encoding/json calls valid.
func FuzzLines(f *testing.F) {
	for _, s := range []string{"{}\n{}", "{\"a\":1\n{\"b\":2}\n", "{} x\n[1]\n", "{\n}\n{", pageView + "\n" + pageView, "\"\n{}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var (
			l Lines
			s Scanner
		)
		l.Reset(text)
		at := SkipMark(text)
		for {
			it, ok := l.Next(&s, nil)
			if !ok {
				break
			}
			if it.Start < at || it.End <= it.Start || it.End > len(text) {
				t.Fatalf("item [%d:%d] behind %d", it.Start, it.End, at)
			}
			if gap := bytes.Trim(text[at:it.Start], " \t\r\n"); len(gap) != 0 {
				t.Fatalf("skipped %q", gap)
			}
			part := text[it.Start:it.End]
			if it.Err == nil && (part[0] != '{' || !json.Valid(part)) {
				t.Fatalf("%q passed", part)
			}
			if it.Err != nil && part[0] == '{' && json.Valid(part) {
				t.Fatalf("%q was refused: %v", part, it.Err)
			}
			at = it.End
		}
		if rest := bytes.Trim(text[at:], " \t\r\n"); len(rest) != 0 {
			t.Fatalf("left %q", rest)
		}
	})
}

func TestElements(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`[]`, "end 2"},
		{`[ ]x`, "end 3"},
		{`[{"a":1}, 2 ,[{}]]`, `{"a":1}|2!|[{}]!|end 18`},
		{`[{}{}]`, `{}|expected "," or "]" behind the element at byte 3`},
		{`[{}[`, `{}|expected "," or "]" behind the element at byte 3`},
		{`[{},]`, `{}|expected a JSON value at byte 4`},
		{`[{}`, `{}|the JSON ends too early at byte 3`},
		{`[`, `the JSON ends too early at byte 1`},
		{`[{"a":tru}]`, `expected true, false or null at byte 9`},
	} {
		var (
			e   Elements
			s   Scanner
			got []string
		)
		e.Reset([]byte(c.text), 0)
		for {
			it, ok, err := e.Next(&s, nil)
			if err != nil {
				got = append(got, err.Error())
				break
			}
			if !ok {
				got = append(got, fmt.Sprintf("end %d", e.End()))
				break
			}
			part := c.text[it.Start:it.End]
			if it.Err != nil {
				part += "!"
			}
			got = append(got, part)
		}
		if g := strings.Join(got, "|"); g != c.want {
			t.Errorf("%s: %s, want %s", c.text, g, c.want)
		}
	}
}

// An array is well-formed exactly when encoding/json says so.
func FuzzElements(f *testing.F) {
	for _, s := range []string{`[]`, `[{},{}]`, `[1,[2],{"a":[]}]`, `[{}{}]`, `[[`, `[1,]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) == 0 || text[0] != '[' {
			return
		}
		var (
			e     Elements
			s     Scanner
			parts []json.RawMessage
		)
		e.Reset(text, 0)
		for {
			it, ok, err := e.Next(&s, nil)
			if err != nil {
				if json.Valid(text) {
					t.Fatalf("%q: %v", text, err)
				}
				return
			}
			if !ok {
				break
			}
			parts = append(parts, text[it.Start:it.End])
		}
		var want []json.RawMessage
		if err := json.Unmarshal(text[:e.End()], &want); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if len(want) != len(parts) {
			t.Fatalf("%q: %d elements, want %d", text, len(parts), len(want))
		}
		for i := range want {
			if !bytes.Equal(want[i], parts[i]) {
				t.Fatalf("%q: element %d is %q, want %q", text, i, parts[i], want[i])
			}
		}
	})
}
