package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// The slow interpreter: the same contract, read as a plain YAML tree, over the
// same event, read by encoding/json, with big.Rat for numbers and package time
// for times. It shares no code with Check.

// pair is a member; names may stand twice.
type pair struct {
	name  string
	value any
}

func slowParse(t *testing.T, text []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var value func() any
	value = func() any {
		tok, err := d.Token()
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		switch tok {
		case json.Delim('{'):
			o := []pair{}
			for d.More() {
				name, _ := d.Token()
				o = append(o, pair{name.(string), value()})
			}
			_, _ = d.Token()
			return o
		case json.Delim('['):
			a := []any{}
			for d.More() {
				a = append(a, value())
			}
			_, _ = d.Token()
			return a
		}
		return tok
	}
	return value()
}

type slow struct{ out []string }

func (s *slow) breaks(rule, path string) { s.out = append(s.out, rule+" "+path) }

func (s *slow) object(path string, p map[string]any, o []pair) {
	props, _ := p["properties"].([]any)
	frozen := p["frozen"] == true && len(props) > 0
	for _, m := range o {
		known := false
		for _, one := range props {
			if q := one.(map[string]any); q["name"] == m.name {
				known = true
				q["frozen"] = p["frozen"]
				s.value(path+"."+m.name, q, m.value)
			}
		}
		if !known && frozen {
			s.breaks("unknownField", path+"."+m.name)
		}
	}
	for _, one := range props {
		q := one.(map[string]any)
		there := slices.ContainsFunc(o, func(m pair) bool { return m.name == q["name"] && m.value != nil })
		if q["required"] == true && !there {
			s.breaks("required", fmt.Sprint(path, ".", q["name"]))
		}
	}
	names := map[string]bool{}
	for _, m := range o {
		names[m.name] = true
	}
	s.size(path, "minProperties", "maxProperties", p, len(names))
}

func (s *slow) size(path, low, high string, p map[string]any, n int) {
	options, _ := p["logicalTypeOptions"].(map[string]any)
	if v, ok := options[low].(int); ok && n < v {
		s.breaks(low, path)
	}
	if v, ok := options[high].(int); ok && n > v {
		s.breaks(high, path)
	}
}

func (s *slow) value(path string, p map[string]any, v any) {
	if v == nil {
		return
	}
	options, _ := p["logicalTypeOptions"].(map[string]any)
	ok := false
	switch p["logicalType"] {
	case nil:
		ok = true
	case "object":
		if o, is := v.([]pair); is {
			s.object(path, p, o)
			return
		}
	case "array":
		if a, is := v.([]any); is {
			s.array(path, p, options, a)
			return
		}
	case "boolean":
		_, ok = v.(bool)
	case "string":
		var text string
		if text, ok = v.(string); ok {
			s.text(path, p, options, text)
		}
	case "integer", "number":
		var n json.Number
		if n, ok = v.(json.Number); ok {
			r, _ := new(big.Rat).SetString(string(n))
			if ok = p["logicalType"] == "number" || r.IsInt(); ok {
				s.number(path, options, r)
			}
		}
	case "timestamp":
		var text string
		if text, ok = v.(string); ok {
			at, err := time.Parse(time.RFC3339Nano, text)
			if ok = err == nil; ok {
				if from, is := options["minimum"].(string); is {
					if least, _ := time.Parse(time.RFC3339, from); at.Before(least) {
						s.breaks("minimum", path)
					}
				}
			}
		}
	case "date":
		var text string
		if text, ok = v.(string); ok {
			_, err := time.Parse(time.DateOnly, text)
			ok = err == nil
		}
	}
	if !ok {
		s.breaks("type", path)
		return
	}
	s.enum(path, p, v)
}

func (s *slow) enum(path string, p map[string]any, v any) {
	custom, _ := p["customProperties"].([]any)
	for _, one := range custom {
		list := one.(map[string]any)["value"].([]any)
		if !slices.ContainsFunc(list, func(w any) bool {
			text, _ := json.Marshal(w)
			return slowForm(v) == slowForm(slowNumber(string(text), w))
		}) {
			s.breaks("enum", path)
		}
	}
}

func slowNumber(text string, w any) any {
	if _, isText := w.(string); isText {
		return w
	}
	return json.Number(text)
}

// slowForm is equal for equal values.
func slowForm(v any) string {
	switch v := v.(type) {
	case json.Number:
		r, _ := new(big.Rat).SetString(string(v))
		return r.String()
	case []any:
		out := "["
		for _, one := range v {
			out += slowForm(one) + ","
		}
		return out
	case []pair:
		first := map[string]any{}
		for _, m := range v {
			if first[m.name] == nil {
				first[m.name] = m.value
			}
		}
		var out []string
		for name, one := range first {
			out = append(out, strconv.Quote(name)+slowForm(one))
		}
		slices.Sort(out)
		return "{" + strings.Join(out, ",")
	}
	return fmt.Sprintf("%T %q", v, fmt.Sprint(v))
}

func (s *slow) array(path string, p, options map[string]any, a []any) {
	items, _ := p["items"].(map[string]any)
	for i, v := range a {
		if items == nil {
			continue
		}
		items["frozen"] = p["frozen"]
		at := fmt.Sprintf("%s[%d]", path, i)
		s.value(at, items, v)
		if v == nil && items["required"] == true {
			s.breaks("required", at)
		}
	}
	s.size(path, "minItems", "maxItems", p, len(a))
	if options["uniqueItems"] == true {
		seen := map[string]bool{}
		for _, v := range a {
			seen[slowForm(v)] = true
		}
		if len(seen) < len(a) {
			s.breaks("uniqueItems", path)
		}
	}
}

func (s *slow) text(path string, p, options map[string]any, text string) {
	s.size(path, "minLength", "maxLength", p, utf8.RuneCountInString(text))
	if pattern, ok := options["pattern"].(string); ok && !regexp.MustCompile(pattern).MatchString(text) {
		s.breaks("pattern", path)
	}
}

func (s *slow) number(path string, options map[string]any, r *big.Rat) {
	of := func(key string) *big.Rat {
		v, ok := options[key]
		if !ok {
			return nil
		}
		n, _ := new(big.Rat).SetString(fmt.Sprint(v))
		return n
	}
	for key, bad := range map[string]func(int) bool{
		"minimum": func(c int) bool { return c < 0 }, "exclusiveMinimum": func(c int) bool { return c <= 0 },
		"maximum": func(c int) bool { return c > 0 }, "exclusiveMaximum": func(c int) bool { return c >= 0 },
	} {
		if n := of(key); n != nil && bad(r.Cmp(n)) {
			s.breaks(key, path)
		}
	}
	if n := of("multipleOf"); n != nil && !new(big.Rat).Quo(r, n).IsInt() {
		s.breaks("multipleOf", path)
	}
}

// dice makes random contracts, and events that nearly keep them.
type dice struct{ *rand.Rand }

func (d dice) one(of ...any) any { return of[d.IntN(len(of))] }

func (d dice) maybe() bool { return d.IntN(3) == 0 }

var names = []string{"a", "b", "c", "dd", "eé", "f\"g", "h i"}

func (d dice) property(depth int) map[string]any {
	p := map[string]any{}
	if d.maybe() {
		p["required"] = true
	}
	options := map[string]any{}
	set := func(key string, of ...any) {
		if d.maybe() {
			options[key] = d.one(of...)
		}
	}
	kind := d.one("string", "integer", "number", "boolean", "timestamp", "date", "object", "array", nil)
	if depth == 0 && (kind == "object" || kind == "array") {
		kind = "string"
	}
	switch kind {
	case "string":
		set("minLength", 0, 1, 2)
		set("maxLength", 2, 3, 5)
		set("pattern", "^a", "b$", "[0-9]", "é")
		if d.maybe() {
			p["customProperties"] = []any{map[string]any{"property": "naru.enum", "value": d.one([]any{"a"}, []any{"ab", "é1", ""})}}
		}
	case "integer", "number":
		set("minimum", -5, 0, 1)
		set("maximum", 7, 10, 100)
		set("exclusiveMinimum", -7, -6)
		set("exclusiveMaximum", 11, 101)
		set("multipleOf", 2, 3, 5)
		if kind == "number" {
			set("multipleOf", 0.1, 0.25, 3)
		} else if d.maybe() {
			p["customProperties"] = []any{map[string]any{"property": "naru.enum", "value": []any{1, 2, 30}}}
		}
	case "timestamp":
		set("minimum", "2026-01-01T00:00:00Z", "2026-06-01T12:00:00+09:00")
	case "object":
		p["properties"] = d.properties(depth - 1)
		set("minProperties", 1, 2)
		set("maxProperties", 2, 3)
	case "array":
		if !d.maybe() {
			p["items"] = d.property(depth - 1)
		}
		set("minItems", 1, 2)
		set("maxItems", 2, 3)
		set("uniqueItems", true, false)
	}
	if kind != nil {
		p["logicalType"] = kind
	}
	if len(options) > 0 && kind != nil {
		p["logicalTypeOptions"] = options
	}
	return p
}

func (d dice) properties(depth int) (list []any) {
	list = []any{}
	for _, i := range d.Perm(len(names))[:1+d.IntN(4)] {
		p := d.property(depth)
		p["name"] = names[i]
		list = append(list, p)
	}
	return list
}

// event writes a value for p: mostly of its type.
func (d dice) event(p map[string]any) string {
	kind := p["logicalType"]
	if d.IntN(8) == 0 {
		kind = d.one("string", "integer", "number", "boolean", "object", "array", "null")
	}
	switch kind {
	case "string":
		return d.one(`""`, `"a"`, `"ab"`, `"\u0061b"`, `"b1"`, `"é1"`, `"\u00e91"`, `"😀😀"`, `"\ud83d\ude00"`, `"abcdef"`, `"7"`, `"2026-01-01"`).(string)
	case "integer":
		return d.one("0", "1", "2", "-5", "-6", "3e1", "30", "7", "10.0", "11", "100", "101", "1.5", "123456789012345678901234567890", "-0", "1E2", "12e-1").(string)
	case "number":
		return d.one("0.1", "0.25", "0.5", "1e-1", "0.3", "7.5", "-6.999999999999999999999", "11", "1e40", "100.25", "-7", "3", "0.30000000000000004").(string)
	case "boolean":
		return d.one("true", "false").(string)
	case "timestamp":
		return d.one(`"2026-01-01T00:00:00Z"`, `"2025-12-31T23:59:59.999Z"`, `"2026-06-01T12:00:00.5+09:00"`, `"2026-01-01T08:59:59+09:00"`, `"2026-02-30T00:00:00Z"`, `"2026-01-01"`).(string)
	case "date":
		return d.one(`"2026-01-31"`, `"2026-02-29"`, `"2024-02-29"`, `"26-01-01"`, `"2026-1-1"`).(string)
	case "object":
		props, _ := p["properties"].([]any)
		out, sep := "{", ""
		for _, one := range props {
			q := one.(map[string]any)
			for range d.one(0, 1, 1, 1, 1, 1, 1, 2).(int) {
				name, _ := json.Marshal(q["name"])
				out += sep + string(name) + d.one(":", " : ", ":\n").(string) + d.event(q)
				sep = d.one(",", " , ").(string)
			}
		}
		for d.maybe() {
			out += sep + `"` + d.one("z", "y").(string) + `":` + d.event(map[string]any{"logicalType": d.one("string", "object", "array", "number")})
			sep = ","
		}
		return out + "}"
	case "array":
		items, _ := p["items"].(map[string]any)
		out, sep := "[", ""
		for range d.IntN(4) {
			out += sep + d.event(items)
			sep = ","
		}
		return out + d.one("]", " ]").(string)
	case "null":
		return "null"
	}
	return d.one(`1`, `"x"`, `{"q":1}`, `[]`, `null`, `true`).(string)
}

// TestCheckAgainstInterpreter: over random contracts and events both say the same.
func TestCheckAgainstInterpreter(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	d := dice{rand.New(rand.NewPCG(seed, 1))}
	var s Scratch
	broken, kept := 0, 0
	for range 1500 {
		root := map[string]any{"name": "t", "properties": d.properties(3)}
		unknown := d.one("evolve", "freeze").(string)
		text, err := yaml.Marshal(map[string]any{"apiVersion": "v3.1.0", "kind": "DataContract", "id": "t", "version": "1", "status": "active",
			"customProperties": []any{map[string]any{"property": "naru.unknownFields", "value": unknown}}, "schema": []any{root}})
		if err != nil {
			t.Fatal(err)
		}
		set, problems := Compile([]File{{Name: "t.yaml", Data: text}})
		if problems != nil {
			if strings.Contains(problems.Error(), "is not a whole number") || strings.Contains(problems.Error(), "no value could be right") {
				continue
			}
			t.Fatalf("%v\n%s", problems, text)
		}
		plain := map[string]any{}
		if err := yaml.Unmarshal(text, &plain); err != nil {
			t.Fatal(err)
		}
		rules := plain["schema"].([]any)[0].(map[string]any)
		rules["frozen"] = unknown == "freeze"
		for range 10 {
			rules["logicalType"] = "object"
			event := d.event(rules)
			var got []string
			for _, v := range set.For("t").Check([]byte(event), &s) {
				got = append(got, v.Rule+" "+v.Path)
			}
			if len(got) == MaxViolations {
				continue
			}
			want := &slow{}
			if o, ok := slowParse(t, []byte(event)).([]pair); ok {
				want.object("$", rules, o)
			} else {
				want.breaks("type", "$")
			}
			for i, w := range want.out { // the interpreter's paths are not quoted
				for _, name := range names[4:] {
					w = strings.ReplaceAll(w, "."+name, string(appendStep(nil, name)))
				}
				want.out[i] = w
			}
			slices.Sort(got)
			slices.Sort(want.out)
			if !slices.Equal(got, want.out) {
				t.Fatalf("seed %d\n%s\n%s\ngot  %q\nwant %q", seed, text, event, got, want.out)
			}
			if len(got) > 0 {
				broken++
			} else {
				kept++
			}
		}
	}
	if broken < 1000 || kept < 500 {
		t.Errorf("%d broken, %d kept: the dice are loaded", broken, kept)
	}
}
