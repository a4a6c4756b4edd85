package jsonscan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

var samples = []string{
	``, ` `, `null`, `true`, `false`, `nul`, `tru`, `fals`, `nulll`, `0`, `-0`, `01`, `-`, `1.`, `.5`, `1e`, `1e+`, `1E-7`, `12.50e3`, `-12`, `+1`, `0x1`,
	`""`, `"a"`, `"a`, `"\`, `"\u12`, `"\u12g4"`, `"\u00e9"`, `"\x"`, "\"\x1f\"", "\"\x7f\"", "\"\xff\xfe\"", "\"a\nb\"", `"12345678"`, `"1234567\"8"`, `"123456789012345\\"`,
	`[]`, `[ ]`, `[1]`, `[1,]`, `[,1]`, `[1 2]`, `[`, `]`, `[}`, `{]`, `[[[]]]`, `[[],[[]]]`, `[1,[2,{"a":[3]}],4]`,
	`{}`, `{ }`, `{"a":1}`, `{"a" : 1 , "b" : [ ] }`, `{"a":1,}`, `{,}`, `{"a"}`, `{"a":}`, `{"a":1 "b":2}`, `{a:1}`, `{"a":1`, `{"a":{"b":{"c":{}}}}`, `{"a":1}}`, `{"a":1} x`,
	"\t{\r\n\"a\":\t1\n}\n", `{"a":[1,2,{"b":null}],"c":"\"}"}`, "\xef\xbb\xbf{}", `{"a":tru}`, `{"a":-}`, `{"a":1.5.5}`, `"𝄞\ud834\udd1e"`, "[\"\x00\"]", "{\"a\x01\":1}",
	`1 1`, `{"":""}`, `[1e999]`, `[123456789012345678901234567890]`,
}

func TestValidAgreesWithTheStandardLibrary(t *testing.T) {
	var s Scanner
	for _, text := range samples {
		if got, want := s.Valid([]byte(text)), json.Valid([]byte(text)); got != want {
			t.Errorf("%q: %v, encoding/json says %v (%v)", text, got, want, &s.Err)
		}
	}
	for _, depth := range []int{MaxDepth - 1, MaxDepth, MaxDepth + 1} {
		for _, brackets := range [][2]string{{"[", "]"}, {`{"a":`, `}`}} {
			inner := "1"
			text := []byte(strings.Repeat(brackets[0], depth) + inner + strings.Repeat(brackets[1], depth))
			if got, want := s.Valid(text), json.Valid(text); got != want {
				t.Errorf("%d × %s: %v, encoding/json says %v", depth, brackets[0], got, want)
			}
		}
	}
}

// mutate makes broken JSON from good JSON, so that random input gets deep.
func mutate(r *rand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	const alphabet = "{}[]\",:\\u0019eE+-. \n\ttruefalsn\x01\xff"
	for range 1 + r.IntN(3) {
		if len(b) == 0 {
			return []byte{alphabet[r.IntN(len(alphabet))]}
		}
		i := r.IntN(len(b))
		switch r.IntN(4) {
		case 0:
			b[i] = alphabet[r.IntN(len(alphabet))]
		case 1:
			b = append(b[:i], b[i+1:]...)
		case 2:
			b = append(b[:i+1], b[i:]...)
		case 3:
			b = b[:i]
		}
	}
	return b
}

func TestValidAgreesOnMutations(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var s Scanner
	corpus := append([]string{pageView}, samples...)
	for range 20000 {
		text := mutate(r, []byte(corpus[r.IntN(len(corpus))]))
		if got, want := s.Valid(text), json.Valid(text); got != want {
			t.Fatalf("%q: %v, encoding/json says %v (%v)", text, got, want, &s.Err)
		}
	}
}

const pageView = `{"event_id":"5a0e6ee4d1b2a0c3","type":"page","ts":"2026-01-01T00:00:00.043Z","anon_id":"u000123","session":"s0badcafe","path":"/docs/getting-started","referrer":"https://www.google.com/","dur_ms":2980,"context":{"browser":"Chrome","os":"Linux","country":"DE","width":1920}}`

func FuzzValid(f *testing.F) {
	for _, s := range samples {
		f.Add([]byte(s))
	}
	f.Add([]byte(pageView))
	f.Fuzz(func(t *testing.T, text []byte) {
		var s Scanner
		got, want := s.Valid(text), json.Valid(text)
		if got != want {
			t.Fatalf("%q: %v, encoding/json says %v (%v)", text, got, want, &s.Err)
		}
		if !got && (s.Err.Offset < 0 || s.Err.Offset > len(text) || s.Err.Reason == "") {
			t.Fatalf("%q: error %+v", text, s.Err)
		}
	})
}

func TestErrorsNameThePlace(t *testing.T) {
	for _, c := range []struct {
		text, reason string
		offset       int
	}{
		{`{"a":tru}`, badLiteral, 8},
		{`{"a":1,}`, wantKey, 7},
		{`{a:1}`, wantKeyOrEnd, 1},
		{`{"a" 1}`, wantColon, 5},
		{`{"a":1;}`, wantCommaObj, 6},
		{`{"a":[1;]}`, wantCommaArr, 7},
		{`{"a":01}`, wantCommaObj, 6},
		{`{"a":-x}`, badNumber, 6},
		{`{"a":"\q"}`, badEscape, 6},
		{"{\"a\":\"x\ty\"}", badControl, 7},
		{`{"a":`, endsInside, 5},
		{`{"a":"xyz`, endsInside, 9},
		{`{"a":?}`, wantValue, 5},
		{`{} x`, "unexpected text behind the value", 3},
	} {
		var s Scanner
		if s.Valid([]byte(c.text)) {
			t.Errorf("%q is valid", c.text)
		}
		if s.Err.Reason != c.reason || s.Err.Offset != c.offset {
			t.Errorf("%q: %v, want %s at byte %d", c.text, &s.Err, c.reason, c.offset)
		}
	}
}

func mustNames(t testing.TB, list ...string) *Names {
	t.Helper()
	n, err := NewNames(list...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFound(t *testing.T) {
	names := mustNames(t, "type", "time", "@timestamp", "id", "ü", "time")
	for _, c := range []struct{ text, want string }{
		{`{"type":"a","time":1}`, `type="a"/1 time=1/3`},
		{` {"type" : "a\n" , "x":{"type":"inner"}, "@timestamp":[{"time":1}] }`[1:], `type="a\n"/2 @timestamp=[{"time":1}]/8`},
		{`{"type":1,"type":2}`, `type=1/3`},
		{`{"type":"a","type":null}`, `type="a"/1`},
		{`{"type":null,"type":"a","type":"b"}`, `type="a"/1`},
		{`{"type":null,"x":{"type":1}}`, `type=null/6`},
		{`{"\u0074ype":true,"\u00fc":null,"\ud800":1}`, `type=true/4 ü=null/6`},
		{`{"x":{"id":1},"id":{}}`, `id={}/7`},
		{`[{"type":1}]`, ``},
		{`{}`, ``},
		{`{"i\"d":1,"types":1,"typ":1}`, ``},
	} {
		var s Scanner
		end := s.Value([]byte(c.text), 0, names)
		if end != len(strings.TrimRight(c.text, " ")) {
			t.Errorf("%s: end %d (%v)", c.text, end, &s.Err)
		}
		var got []string
		for i, name := range names.list {
			if s.Has>>i&1 != 0 {
				v := s.Found[i]
				got = append(got, fmt.Sprintf("%s=%s/%d", name, c.text[v.Start:v.End], v.Kind))
			}
		}
		if g := strings.Join(got, " "); g != c.want {
			t.Errorf("%s: found %s, want %s", c.text, g, c.want)
		}
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{`"a"`, `"\ud834\udd1e"`, `"\ud834x"`, `"\ud834\u0041"`, `"\"\\\/\b\f\n\r\t\u00E9"`, `"\udc00\ud800"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var s Scanner
		names, _ := NewNames("k")
		doc := append(append([]byte(`{"k":`), text...), '}')
		if s.Value(doc, 0, names) != len(doc) || s.Has != 1 {
			return
		}
		v := s.Found[0]
		if v.Kind != String && v.Kind != Escaped {
			return
		}
		var want string
		if err := json.Unmarshal(doc[v.Start:v.End], &want); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		got := string(Text(doc, v))
		// encoding/json also replaces bytes that are not UTF-8; we keep them.
		if strings.ToValidUTF8(got, "\ufffd") != strings.ToValidUTF8(want, "\ufffd") && !bytes.ContainsFunc(text, func(r rune) bool { return r == '\ufffd' }) {
			t.Fatalf("%q: %q, want %q", text, got, want)
		}
	})
}

func TestNewNamesLimits(t *testing.T) {
	if _, err := NewNames(make([]string, MaxNames+1)...); err == nil {
		t.Error("too many names pass")
	}
	if _, err := NewNames(strings.Repeat("x", 300)); err == nil {
		t.Error("a name of 300 bytes passes")
	}
}

func TestScanAllocatesNothing(t *testing.T) {
	var s Scanner
	names := mustNames(t, "type", "ts", "id")
	text := []byte(pageView)
	bad := []byte(`{"a":[1,{"\u0074ype":"x"},tru]}`)
	if n := testing.AllocsPerRun(100, func() {
		s.Value(text, 0, names)
		s.Value(bad, 0, names)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkValue(b *testing.B) {
	var s Scanner
	names := mustNames(b, "type", "event", "time", "timestamp", "ts", "@timestamp", "event_time")
	text := []byte(pageView)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if s.Value(text, 0, names) < 0 {
			b.Fatal(&s.Err)
		}
	}
}
