package columnar

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzEvent reads any bytes three times: alone, behind an event that made
// other columns, and behind itself. Nothing panics, what encoding/json takes
// is taken and what it refuses is kept as text, and every leaf of an object is
// found again, in a column or in _rescued.
func FuzzEvent(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"a":1}`, `{"a":{"b":[1,2.5,null]},"a_b":"x"}`, `{"a":1.5,"b":9007199254740993,"c":1e999}`,
		`{"a":"\ud83d\u0000é\\","\"":true}`, `[1,{"a":[]}]`, `"x"`, `nul`, `{"a":1,"a":2}`, `{"":{"":1}}`,
		"{\"a\":\"\xff\",\"\xff\":1}", nest(12, `[{}]`), `{"a":01}`, `{"a":-}`, `{"a" : [ ] , "b":{ } }`, `{"data":1}`,
		`{"k":-0,"d":0e-5,"e":123456789012345678901234567890}`, `{"a.b":1,"a\\":{"b":2}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 || deep(data) {
			return
		}
		b := NewBuilder(nil, NewSchema(), Options{})
		x := &table{t: t, b: b}
		x.send(string(data), `{"a":"s","b":[1],"c":{"d":true},"e":0.5,"k":{"k":7}}`, string(data))
		require.Equal(t, 3, b.cur.rows)
		wantBad := int64(0)
		if !json.Valid(data) {
			wantBad = 2
		}
		require.Equal(t, wantBad, b.Counters().NotJSON, "as encoding/json judges")

		want := leaves(data)
		b.cur.close()
		for _, row := range []int{0, 2} {
			require.Equal(t, want, found(t, b, row), "row %d", row)
		}
		var back *Schema
		back, err := ParseSchema(b.Schema().MarshalProperty())
		require.NoError(t, err)
		require.Equal(t, b.Schema(), back)
		require.LessOrEqual(t, len(back.Fields), MaxColumns)
	})
}

// deep tells whether the nesting comes near the limit that encoding/json has
// and the scanner has not.
func deep(data []byte) bool {
	return bytes.Count(data, []byte("["))+bytes.Count(data, []byte("{")) > 9000
}

// leaves lists what must be found again, as sorted texts in a common form: for
// JSON the values that are neither null nor object, for all else the data.
func leaves(data []byte) []string {
	var all []string
	if !json.Valid(data) {
		return []string{"?"}
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	all = walk(d, all)
	slices.Sort(all)
	return all
}

func walk(d *json.Decoder, all []string) []string {
	t, err := d.Token()
	if err == io.EOF {
		return all
	}
	switch t {
	case json.Delim('{'):
		for d.More() {
			_, _ = d.Token()
			all = walk(d, all)
		}
		_, _ = d.Token()
	case json.Delim('['):
		var parts []string
		for d.More() {
			parts = append(parts, element(d))
		}
		_, _ = d.Token()
		all = append(all, "["+strings.Join(parts, " ")+"]")
	case nil:
	default:
		all = append(all, scalar(t))
	}
	return all
}

// element is the common form of a value inside an array: nested ones are told
// by their kind alone, their text is checked by TestRules.
func element(d *json.Decoder) string {
	t, _ := d.Token()
	switch t {
	case json.Delim('{'), json.Delim('['):
		for depth := 1; depth > 0; {
			switch t, _ := d.Token(); t {
			case json.Delim('{'), json.Delim('['):
				depth++
			case json.Delim('}'), json.Delim(']'):
				depth--
			}
		}
		return "nested"
	case nil:
		return "null"
	}
	return scalar(t)
}

// scalar writes numbers by their value where a double holds it, else as sent.
func scalar(t json.Token) string {
	n, ok := t.(json.Number)
	if !ok {
		j, _ := json.Marshal(t)
		return string(j)
	}
	raw := []byte(n)
	if isWhole(raw) {
		if v, ok := parseLong(raw); ok {
			raw = appendInt(v)
		}
		if v, ok := exactWhole(raw); ok {
			return formatDouble(v)
		}
		return string(raw)
	}
	if v, ok := parseFraction(raw); ok {
		return formatDouble(v)
	}
	return string(raw)
}

func formatDouble(v float64) string {
	if v == 0 {
		v = 0 // a long has no -0
	}
	j, _ := json.Marshal(v)
	return string(j)
}

func appendInt(v int64) []byte {
	j, _ := json.Marshal(v)
	return j
}

// found lists the leaves of a row in the same form.
func found(t *testing.T, b *Builder, row int) []string {
	var all []string
	opaque := false
	for i, f := range b.schema.Fields {
		col := b.cur.cols[i]
		if f.ID <= idOffset || col.isNull(row) {
			continue
		}
		if f.Name == ColumnRescued {
			text := col.textAt(row)
			require.True(t, json.Valid(text), "%q", text)
			d := json.NewDecoder(bytes.NewReader(text))
			d.UseNumber()
			_, _ = d.Token()
			seen := map[string]bool{}
			for d.More() {
				k, _ := d.Token()
				require.False(t, seen[k.(string)], "path %q twice in _rescued", k)
				seen[k.(string)] = true
				if bytes.HasPrefix([]byte(k.(string)), []byte("data")) && b.Counters().NotJSON > 0 {
					opaque = true
				}
				all = walk(d, all)
			}
			continue
		}
		if (f.Path == "data" || f.Path == "data_base64") && b.Counters().NotJSON > 0 {
			opaque = true
			continue
		}
		all = append(all, value(t, col, row))
	}
	if opaque {
		return []string{"?"}
	}
	slices.Sort(all)
	return all
}

func value(t *testing.T, col *column, row int) string {
	switch col.kind {
	case Long:
		return scalar(json.Number(appendInt(col.longs[row])))
	case Double:
		return formatDouble(col.doubles[row])
	case Bool:
		if col.bools[row>>3]&(1<<(row&7)) != 0 {
			return "true"
		}
		return "false"
	case String:
		j, _ := json.Marshal(string(col.textAt(row)))
		return string(j)
	case JSON:
		require.True(t, json.Valid(col.textAt(row)))
		return leaves(col.textAt(row))[0]
	default:
		var parts []string
		for at := col.ends[row]; at < col.ends[row+1]; at++ {
			if col.elem.isNull(int(at)) {
				parts = append(parts, "null")
			} else {
				parts = append(parts, value(t, col.elem, int(at)))
			}
		}
		return "[" + strings.Join(parts, " ") + "]"
	}
}

// FuzzProperty: any text gives a schema or an error, and a schema that can be
// used.
func FuzzProperty(f *testing.F) {
	f.Add(NewSchema().MarshalProperty())
	s := NewSchema()
	s.add("a_b", "a.b", ListString)
	s.add("c", `c\.d`, Double)
	f.Add(s.MarshalProperty())
	f.Add(`{"v":1,"layout":"flat","last":3,"fields":[{"i":1,"k":"long","p":"a.b.c"}]}`)
	f.Add(NewRejectedSchema().MarshalProperty())
	f.Add(NewWholeSchema().MarshalProperty())
	f.Fuzz(func(t *testing.T, property string) {
		s, err := ParseSchema(property)
		if err != nil {
			return
		}
		again, err := ParseSchema(s.MarshalProperty())
		require.NoError(t, err)
		require.Equal(t, s, again)
		b := NewBuilder(nil, s, Options{})
		x := &table{t: t, b: b}
		x.send(`{"a":{"b":{"c":1}},"x":[1]}`)
	})
}
