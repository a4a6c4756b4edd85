package web

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestProblem(t *testing.T) {
	w := httptest.NewRecorder()
	Problem(w, 400, "not JSON", "at byte 3: \"x\"\n\xff<b>")
	if w.Code != 400 || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Fatalf("status %d, headers %v", w.Code, w.Header())
	}
	var got struct {
		Title, Detail string
		Status        int
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatalf("%v in %q", err, w.Body)
	}
	if got.Title != "not JSON" || got.Status != 400 || got.Detail != "at byte 3: \"x\"\n\ufffd<b>" {
		t.Fatalf("got %+v", got)
	}
}

func FuzzAppendJSONString(f *testing.F) {
	for _, s := range []string{"", "a", "\"\\\x00\x1f\x7f", "é\xc3", "\u2028<>&", strings.Repeat("x", 300)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		out := AppendJSONString(nil, s)
		if !utf8.Valid(out) {
			t.Fatalf("not UTF-8: %q", out)
		}
		var back string
		if err := json.Unmarshal(out, &back); err != nil {
			t.Fatalf("%v in %q", err, out)
		}
		if want := strings.ToValidUTF8(s, "\ufffd"); utf8.ValidString(s) && back != want {
			t.Fatalf("got %q, want %q", back, want)
		}
	})
}
