package jsonscan

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestAppendQuoted(t *testing.T) {
	for in, want := range map[string]string{
		"":                     `""`,
		"plain ünï 😀":          `"plain ünï 😀"`,
		"\"\\/\b\f\n\r\t":      `"\"\\/\u0008\u000c\n\r\t"`,
		"\x00\x1f\x7f\u2028":   `"\u0000\u001f\u007f` + "\u2028" + `"`,
		"a\xffb\xc3":           "\"a\ufffdb\ufffd\"",
		"\xed\xa0\x80\xf0\x9f": "\"" + strings.Repeat("\ufffd", 5) + "\"",
		"<b>&":                 `"<b>&"`,
	} {
		if got := string(AppendQuoted(nil, in)); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
		if got := string(AppendQuoted([]byte("x"), []byte(in))); got != "x"+want {
			t.Errorf("%q as bytes: %s, want x%s", in, got, want)
		}
	}
	if got := string(AppendQuotedHTML(nil, "<b>&\x80")); got != `"\u003cb\u003e\u0026`+"\ufffd\"" {
		t.Error(got)
	}
}

func FuzzAppendQuoted(f *testing.F) {
	f.Add("a\"\\\n\xff<é\x7f")
	f.Fuzz(func(t *testing.T, in string) {
		want := string([]rune(in)) // invalid bytes become U+FFFD one by one
		for _, out := range [][]byte{AppendQuoted(nil, in), AppendQuotedHTML(nil, in)} {
			var back string
			if err := json.Unmarshal(out, &back); err != nil || back != want {
				t.Fatalf("%q: %s reads back as %q, %v", in, out, back, err)
			}
		}
	})
}

func BenchmarkAppendQuoted(b *testing.B) {
	for name, text := range map[string]string{"ascii": strings.Repeat("GET /index.html?a=1 ", 50), "cyrillic": strings.Repeat("журнал и время ", 50), "json": strings.Repeat(`{"a":"b"},`, 100)} {
		in, buf := []byte(text), make([]byte, 0, 4096)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				buf = AppendQuoted(buf[:0], in)
			}
		})
	}
}
