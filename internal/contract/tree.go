package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"naru/internal/jsonscan"
)

// Limits of events that JSON Schema judges: beyond them arithmetic and recursion
// would cost more than an event is worth.
const (
	maxTreeDepth     = 500
	maxTreeNumber    = 1000 // bytes
	maxTreeExponent  = 1000
	tooDeepForSchema = "nesting of at most 500 levels, so that JSON Schema can judge it"
	tooLongForSchema = "numbers of at most 1000 digits and an exponent of at most 1000, so that JSON Schema can judge them"
)

// treeBuilder builds what JSON Schema judges: of a name that stands twice the
// first value that is not null, objects put together, as columns have it.
type treeBuilder struct {
	s     *Scratch
	text  []byte
	limit string // why it could not be built
	end   int
}

// value builds the value at i; ok is false beyond a limit. The text is valid.
func (t *treeBuilder) value(i, depth int) (v any, ok bool) {
	i = jsonscan.Space(t.text, i)
	if depth > maxTreeDepth {
		t.limit = tooDeepForSchema
		return nil, false
	}
	switch jsonscan.KindAt(t.text[i]) {
	case jsonscan.Object:
		return t.object(i, depth)
	case jsonscan.Array:
		list := []any{}
		i = jsonscan.Space(t.text, i+1)
		for t.text[i] != ']' {
			v, ok := t.value(i, depth+1)
			if !ok {
				return nil, false
			}
			list = append(list, v)
			if i = jsonscan.Space(t.text, t.end); t.text[i] == ',' {
				i = jsonscan.Space(t.text, i+1)
			}
		}
		t.end = i + 1
		return list, true
	case jsonscan.String:
		return t.string(i), true
	case jsonscan.Number:
		t.end = jsonscan.NumberEnd(t.text, i)
		text := t.text[i:t.end]
		if !smallNumber(text) {
			t.limit = tooLongForSchema
			return nil, false
		}
		return json.Number(text), true
	case jsonscan.True:
		t.end = i + len("true")
		return true, true
	case jsonscan.False:
		t.end = i + len("false")
		return false, true
	}
	t.end = i + len("null")
	return nil, true
}

func (t *treeBuilder) object(i, depth int) (any, bool) {
	m := map[string]any{}
	i = jsonscan.Space(t.text, i+1)
	for t.text[i] != '}' {
		name := t.string(i)
		i = jsonscan.Space(t.text, t.end)
		v, ok := t.value(i+1, depth+1)
		if !ok {
			return nil, false
		}
		if first, twice := m[name]; twice {
			v = merge(first, v)
		}
		m[name] = v
		if i = jsonscan.Space(t.text, t.end); t.text[i] == ',' {
			i = jsonscan.Space(t.text, i+1)
		}
	}
	t.end = i + 1
	return m, true
}

func merge(first, second any) any {
	if first == nil {
		return second
	}
	a, ok1 := first.(map[string]any)
	b, ok2 := second.(map[string]any)
	if !ok1 || !ok2 {
		return first
	}
	for name, v := range b {
		if have, twice := a[name]; twice {
			v = merge(have, v)
		}
		a[name] = v
	}
	return a
}

// string reads the string at i. Bytes that are not UTF-8 become U+FFFD, as in
// columns.
func (t *treeBuilder) string(i int) string {
	end, escaped := jsonscan.StringEnd(t.text, i+1)
	t.end = end
	kind := jsonscan.String
	if escaped {
		kind = jsonscan.Escaped
	}
	t.s.text = jsonscan.AppendString(t.s.text[:0], t.text, jsonscan.Value{Start: i, End: end, Kind: kind})
	return validText(t.s.text)
}

// validText copies bytes, each that is not UTF-8 as U+FFFD.
func validText(b []byte) string {
	var out strings.Builder
	for _, r := range string(b) {
		out.WriteRune(r)
	}
	return out.String()
}

// smallNumber tells whether arithmetic on a number is cheap.
func smallNumber(text []byte) bool {
	if len(text) > maxTreeNumber {
		return false
	}
	if e := bytes.IndexAny(text, "eE"); e >= 0 {
		x := exponent(text[e+1:])
		return x <= maxTreeExponent && x >= -maxTreeExponent
	}
	return true
}

var errNumber = errors.New("has a number of more than 1000 digits or an exponent beyond 1000")

// checkNumbers looks through a JSON Schema for numbers that are too large.
func checkNumbers(v any) error {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range sortedKeys(v) {
			if err := checkNumbers(v[key]); err != nil {
				return err
			}
		}
	case []any:
		for _, one := range v {
			if err := checkNumbers(one); err != nil {
				return err
			}
		}
	case json.Number:
		if !smallNumber([]byte(v)) {
			return errNumber
		}
	}
	return nil
}

// canonicalText writes a JSON Schema, and the files behind it, so that two can be
// compared.
func canonicalText(doc any, files [][]byte) string {
	text, err := json.Marshal(doc)
	if err != nil {
		text = fmt.Append(nil, err) // cannot be: it was parsed
	}
	out := string(text)
	for _, f := range files {
		var small bytes.Buffer
		if json.Compact(&small, f) == nil {
			out += "\n" + small.String()
		}
	}
	return out
}

func shownTree(v any, hidden bool) string {
	if hidden {
		return hiddenValue
	}
	text, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return cut(string(text), maxShown)
}
