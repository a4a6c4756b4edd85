package jsonscan

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestMembers(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{}`, ``},
		{`{ }`, ``},
		{`{"a":1,"b" : [1, {}] , "c\n":"x\"y","d":{"e":","},"f":null }`, `"a"=1/3 "b"=[1, {}]/8 "c\n"="x\"y"/2 "d"={"e":","}/7 "f"=null/6`},
	} {
		var (
			m   Members
			s   Scanner
			got []string
		)
		text := []byte("  " + c.text + " ")
		m.Reset(text, 2, 2+len(c.text))
		for {
			name, value, ok := m.Next(&s)
			if !ok {
				break
			}
			got = append(got, fmt.Sprintf("%s=%s/%d", text[name.Start:name.End], text[value.Start:value.End], value.Kind))
		}
		if g := strings.Join(got, " "); g != c.want {
			t.Errorf("%s: %s, want %s", c.text, g, c.want)
		}
	}
}

// Members sees what encoding/json sees.
func FuzzMembers(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1}`, `{"a":{"b":[]},"c":"\\"}`, `{"a":1,"a":2}`, `{ "\u0061" : "x" }`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var want map[string]json.RawMessage
		if json.Unmarshal(text, &want) != nil || want == nil {
			return
		}
		var (
			s Scanner
			m Members
		)
		start := Space(text, 0)
		end := s.Value(text, start, nil)
		m.Reset(text, start, end)
		got := map[string]string{}
		for {
			name, value, ok := m.Next(&s)
			if !ok {
				break
			}
			got[strings.ToValidUTF8(string(Text(text, name)), "\ufffd")] = string(text[value.Start:value.End])
		}
		if len(got) > len(want) {
			t.Fatalf("%q: %q, want %q", text, got, want)
		}
		for k, v := range want {
			if g, ok := got[k]; ok && g != string(v) {
				t.Fatalf("%q: %q is %q, want %q", text, k, g, v)
			}
		}
	})
}
