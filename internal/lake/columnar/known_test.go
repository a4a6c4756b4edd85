package columnar

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/lake"
)

// knownOf reads a tree: {"a":0} knows a, {"a":{"b":0}} of an object there b alone,
// {"a":[{"b":0}]} the same of items.
func knownOf(t testing.TB, text string) *lake.Known {
	var tree any
	require.NoError(t, json.Unmarshal([]byte(text), &tree))
	var read func(any) *lake.Known
	read = func(v any) *lake.Known {
		switch v := v.(type) {
		case map[string]any:
			k := &lake.Known{Fields: map[string]*lake.Known{}}
			for name, sub := range v {
				k.Fields[name] = read(sub)
			}
			return k
		case []any:
			return &lake.Known{Items: read(v[0])}
		}
		return nil
	}
	return read(tree)
}

func TestUnknownFieldsAreDiscarded(t *testing.T) {
	for _, c := range []struct {
		name, known, paths string
		data               string
		row                string
	}{
		{"all known", `{"a":0,"b":0}`, "", `{"a":1,"b":"x"}`, `a=1 b="x"`},
		{"nothing known", `{"z":0}`, "", ` { "a" : 1 , "b":[{}] } `, ``},
		{"first, middle, last", `{"a":0,"b":0}`, "", `{"x":1, "a":1 ,"y":{"a":1} , "b":2 ,"z":[1]}`, `a=1 b=2`},
		{"null, empty, twice", `{"a":0,"b":0}`, "", `{"x":null,"a":1,"x":2,"a":2,"b":{},"y":{}}`, `_rescued="{\"a\":2}" a=1`},
		{"nothing is rescued", `{"a":0}`, "", `{"_id":1,"A":2,"a":3,"":4}`, `a=3`},
		{"beneath an object", `{"o":{"p":{"a":0}}}`, "", `{"o":{"p":{"a":1,"x":1},"x":1},"p":1}`, `o_p_a=1`},
		{"any object", `{"o":0}`, "", `{"o":{"p":{"a":1}},"x":1}`, `o_p_a=1`},
		{"no object where one is known", `{"o":{"a":0}}`, "", `{"o":[{"x":1}]}`, `o="[{\"x\":1}]"`},
		{"no array where one is known", `{"l":[{"a":0}]}`, "", `{"l":{"x":1}}`, `l_x=1`},
		{"items", `{"l":[{"a":0}]}`, "", `{"l":[ {"a":1 , "x":2}, 3, {"x":4,"a":[5]} ,null, {"x":1}, {} ]}`, `l="[ {\"a\":1}, 3, {\"a\":[5]} ,null, {}, {} ]"`},
		{"items of items", `{"l":[[{"a":0}]]}`, "", `{"l":[[{"x":1,"a":1}],{"x":1},[]]}`, `l="[[{\"a\":1}],{\"x\":1},[]]"`},
		{"escaped names", `{"a.b":0,"é":0,"q\"":0}`, "", `{"a\u002eb":1,"\u00e9":2,"q\"":3,"a":{"b":4}}`, `a.b=1 é=2 q"=3`},
		{"a name that is no UTF-8", "{\"a\uFFFD\":0}", "", "{\"a\xff\":1,\"b\xff\":2}", "a\uFFFD=1"},
		{"JSON in a string", `{"v":{"a":0,"w":{"b":0}},"u":{"a":0}}`, `["v","v.w"]`, `{"v":" {\"x\":1,\"a\":2,\"w\":\"{\\\"x\\\":1,\\\"b\\\":2}\"}","u":"{\"x\":1}"}`, `v_a=2 v_w_b=2 u="{\"x\":1}"`},
		{"an array in a string", `{"v":[{"a":0}]}`, `["v"]`, `{"v":"[{\"a\":1,\"x\":2}]"}`, `v="[{\"a\":1}]"`},
		{"an unknown string of JSON", `{"a":0}`, `["v"]`, `{"v":"{\"a\":1}","a":2}`, `a=2`},
		{"no object", `{"a":0}`, "", `[{"x":1}]`, `data="[{\"x\":1}]"`},
		{"a number", `{"a":0}`, "", `7`, `data=7`},
		{"no JSON", `{"a":0}`, "", `{"x":1,"a":2`, `data="{\"x\":1,\"a\":2"`},
		{"no JSON behind it", `{"a":0}`, "", `{"x":1,"a":2}}`, `data="{\"x\":1,\"a\":2}}"`},
		{"no JSON in what is left out", `{"a":0}`, "", `{"x":01,"a":2}`, `data="{\"x\":01,\"a\":2}"`},
		{"a comma too many", `{"a":0}`, "", `{"a":2,"x":1,}`, `data="{\"a\":2,\"x\":1,}"`},
		{"a comma too few", `{"a":0}`, "", `{"a":2 "x":1}`, `data="{\"a\":2 \"x\":1}"`},
		{"items without an end", `{"a":[{"b":0}]}`, "", `{"a":[{"x":1},`, `data="{\"a\":[{\"x\":1},"`},
		{"items with a comma too many", `{"a":[{"b":0}]}`, "", `{"a":[{"x":1},]}`, `data="{\"a\":[{\"x\":1},]}"`},
		{"nothing", `{"a":0}`, "", ``, ``},
	} {
		t.Run(c.name, func(t *testing.T) {
			shape := &lake.Shape{Known: knownOf(t, c.known)}
			x := newTable(t, NewSchema(), Options{Shape: someShapes{"c": shape}.of})
			for range 2 {
				e := x.at(c.data)
				e.Contract.Hash, e.JSONStrings = []byte("c"), []byte(c.paths)
				x.append(e)
				require.Equal(t, c.data, string(e.Data), "the event is another's")
			}
			x.send(`{"x":1}`) // of no contract
			x.commit()
			require.Equal(t, []string{c.row, c.row}, x.rows()[:2])
			require.Contains(t, x.rows()[2], "x=1")
		})
	}
	x := newTable(t, NewWholeSchema(), Options{Shape: someShapes{"c": {Known: knownOf(t, `{"a":0,"v":{"b":0}}`)}}.of})
	for _, hash := range []string{"c", ""} {
		e := x.at(`{"a":1,"x":2,"v":"{\"x\":1,\"b\":2}"}`)
		e.Contract.Hash, e.JSONStrings = []byte(hash), []byte(`["v"]`)
		x.append(e)
	}
	x.commit()
	require.Equal(t, []string{`data="{\"a\":1,\"v\":{\"b\":2}}"`, `data="{\"a\":1,\"x\":2,\"v\":{\"x\":1,\"b\":2}}"`}, x.rows())
}

// without is an event's JSON without what k does not know: the same rule as
// onlyKnown in other words. Strings at paths hold JSON.
func without(raw []byte, k *lake.Known, path string, paths []string) []byte {
	var text string
	for _, p := range paths {
		var inner json.RawMessage
		if p == path && json.Unmarshal(raw, &text) == nil && json.Unmarshal([]byte(text), &inner) == nil && raw[0] == '"' && inner[0] != '"' {
			out, _ := json.Marshal(string(without(bytes.TrimSpace(inner), k, path+"!", paths)))
			return out
		}
	}
	if k == nil || k.Fields == nil && k.Items == nil {
		return raw
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	open, _ := dec.Token()
	isObject, isArray := open == json.Delim('{'), open == json.Delim('[')
	if !isObject && !isArray || isObject && k.Fields == nil || isArray && k.Items == nil {
		return raw
	}
	var parts []string
	for dec.More() {
		sub, name, ok := k.Items, "", true
		if isObject {
			key, _ := dec.Token()
			quoted, _ := json.Marshal(key)
			name = string(quoted) + ":"
			sub, ok = k.Fields[key.(string)]
			path := strings.TrimPrefix(strings.TrimSuffix(path, "!")+"."+key.(string), ".")
			var value json.RawMessage
			_ = dec.Decode(&value)
			if ok {
				parts = append(parts, name+string(without(value, sub, path, paths)))
			}
			continue
		}
		var item json.RawMessage
		_ = dec.Decode(&item)
		parts = append(parts, string(without(item, sub, "[]", paths)))
	}
	if isObject {
		return []byte("{" + strings.Join(parts, ",") + "}")
	}
	return []byte("[" + strings.Join(parts, ",") + "]")
}

var someKeys = []string{"a", "b", "A", "a_b", "a.b", "_id", "long", "", "é", `q"`, "n0", "n1"}

// randomOf writes a value in which most of what k knows may stand, among other things.
func randomOf(rng *rand.Rand, k *lake.Known, depth int) string {
	if k == nil || k.Fields == nil && k.Items == nil || depth > 0 && rng.IntN(6) == 0 {
		return randomValue(rng, depth)
	}
	var parts []string
	for range rng.IntN(5) {
		if k.Fields == nil {
			parts = append(parts, randomOf(rng, k.Items, depth+1))
			continue
		}
		key := someKeys[rng.IntN(len(someKeys))]
		quoted, _ := json.Marshal(key)
		parts = append(parts, string(quoted)+":"+randomOf(rng, k.Fields[key], depth+1))
	}
	if k.Fields == nil {
		return "[" + strings.Join(parts, ",") + "]"
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func randomKnown(rng *rand.Rand, depth int) *lake.Known {
	switch {
	case depth > 0 && rng.IntN(3) == 0 || depth > 4:
		return nil
	case depth > 0 && rng.IntN(3) == 0:
		return &lake.Known{Items: randomKnown(rng, depth+1)}
	}
	k := &lake.Known{Fields: map[string]*lake.Known{}}
	for _, key := range someKeys {
		if rng.IntN(2) == 0 {
			k.Fields[key] = randomKnown(rng, depth+1)
		}
	}
	return k
}

// TestDiscardIsRemoval: a table with discard has the rows, and the columns, that it
// would have if the events had come without the fields that are not known.
func TestDiscardIsRemoval(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 11))
			plain, discards := randomShapes(rng), someShapes{}
			for hash, s := range plain {
				with := *s
				with.Known = randomKnown(rng, 0)
				discards[hash] = &with
			}
			paths := []string{"a", "b", "a.b", "a.b.a"}[:rng.IntN(5)]
			header, err := json.Marshal(paths)
			require.NoError(t, err)
			schema := NewSchema()
			if seed%4 == 3 {
				schema = NewWholeSchema()
			}
			x, y := newTable(t, schema, Options{Shape: discards.of}), newTable(t, schema, Options{Shape: plain.of})
			for _, e := range randomEvents(rng, 100) {
				s := discards[string(e.Contract.Hash)]
				switch rng.IntN(4) {
				case 0:
					if s != nil { // much of what is known
						e.Data = []byte(randomOf(rng, s.Known, 0))
					}
				case 1: // a value becomes a string that holds it
					inner, err := json.Marshal(randomObject(rng, 0))
					require.NoError(t, err)
					e.Data = fmt.Appendf(nil, `{"n1":1,"a":%s,"b":{"a":%s,"A":1}}`, inner, inner)
				}
				e.JSONStrings = header
				x.append(e)
				removed := *e
				if s != nil && json.Valid(e.Data) && len(e.Data) > 0 && e.Data[0] == '{' {
					removed.Data = without(e.Data, s.Known, "", paths)
				}
				y.append(&removed)
				if rng.IntN(30) == 0 {
					x.commit()
					y.commit()
				}
			}
			x.commit()
			y.commit()
			require.Equal(t, y.schema, x.schema)
			require.Equal(t, y.rows(), x.rows())
			require.Equal(t, y.b.Counters(), x.b.Counters())
			require.Equal(t, y.b.TopRescued(), x.b.TopRescued())
		})
	}
}

// Leaving out takes no memory of its own once it has some.
func TestOnlyKnownAllocatesNothing(t *testing.T) {
	x := newTable(t, NewSchema(), Options{Shape: someShapes{"c": {Known: knownOf(t, `{"a":0,"l":[{"b":0}]}`)}}.of})
	e := &event.Event{Type: []byte("t"), ReceivedAt: received, Data: []byte(`{"x":0,"a":1,"l":[{"x":1}]}`), Contract: event.Contract{Hash: []byte("c")}}
	x.append(e)
	require.Zero(t, testing.AllocsPerRun(100, func() { x.b.onlyKnown(e.Data) }))
	// As much as is sent by one that sends thousands of fields that nobody knows.
	var b strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&b, `"field %d":{"x":[%d]},`, i, i)
	}
	x.b.follow(e)
	require.Equal(t, `{"a":1}`, string(x.b.onlyKnown([]byte("{"+b.String()+`"a":1}`))))
	require.Equal(t, `{"a":1}`, string(x.b.onlyKnown([]byte(`{"a":1,`+strings.TrimSuffix(b.String(), ",")+"}"))))
}

func FuzzOnlyKnown(f *testing.F) {
	f.Add(`{"x":1, "a" : {"b":1,"x":[2]} ,"l":[{"x":1}]}`)
	f.Add(`{"a":1,}`)
	f.Add(`{"l":[{"a":{"x":1}},`)
	of := &lake.Shape{Known: knownOf(f, `{"a":{"b":0},"l":[{"a":{"b":0}}],"":0}`)}
	f.Fuzz(func(t *testing.T, data string) {
		b := &Builder{shape: &shape{of: of}}
		out := string(b.onlyKnown([]byte(data)))
		if b.scan.valid([]byte(out)) != b.scan.valid([]byte(data)) {
			t.Fatalf("%q became %q", data, out)
		}
		if again := string(b.onlyKnown([]byte(out))); again != out {
			t.Fatalf("%q became %q, then %q", data, out, again)
		}
	})
}
