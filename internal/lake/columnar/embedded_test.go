package columnar

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEmbeddedJSON(t *testing.T) {
	for _, c := range []struct {
		name, paths string
		data        string
		row         string
	}{
		{"a mobile partner's", `["event_value"]`, `{"event_name":"view","event_value":"{\"content_list\":{\"comic_id\":321},\"n\":1.5}"}`,
			`event_name="view" event_value_content_list_comic_id=321 event_value_n=1.5`},
		{"none", ``, `{"v":"{\"a\":1}"}`, `v="{\"a\":1}"`},
		{"another field", `["w"]`, `{"v":"{\"a\":1}"}`, `v="{\"a\":1}"`},
		{"no JSON in it", `["v"]`, `{"v":"{a"}`, `v="{a"`},
		{"a string in it", `["v"]`, `{"v":"\"a\""}`, `v="\"a\""`},
		{"a control character in it", `["v"]`, `{"v":"{\"a\":\"\n\"}"}`, `v="{\"a\":\"\n\"}"`},
		{"empty", `["v"]`, `{"v":"","w":" "}`, `v="" w=" "`},
		{"white space around it", `["v"]`, `{ "v" : " {\"a\" : 1} \n" , "b":2}`, `v_a=1 b=2`},
		{"an array in it", `["v"]`, `{"v":"[1,2]"}`, `v=[1 2]`},
		{"null in it", `["v"]`, `{"v":"null","b":1}`, `b=1`},
		{"an empty object in it", `["v"]`, `{"v":"{}","b":1}`, `b=1`},
		{"beneath an object", `["a.v","b.c.d"]`, `{"a":{"v":"{\"x\":true}","w":"{}"},"b":{"c":{"d":"7"}},"v":"{\"x\":1}"}`, `a_v_x=true a_w="{}" b_c_d=7 v="{\"x\":1}"`},
		{"in each other", `["v","v.w","v.w.x"]`, `{"v":"{\"w\":\"{\\\"x\\\":\\\"[true]\\\",\\\"y\\\":1}\",\"z\":2}"}`, `v_w_x=[true] v_w_y=1 v_z=2`},
		{"escaped names", `["a\\.b"]`, `{"a\u002eb":"{\"c\":1}"}`, `a.b_c=1`},
		{"twice", `["v"]`, `{"v":"{\"a\":1}","v":"{\"b\":2}","v":{"c":3}}`, `v_a=1 v_b=2 v_c=3`},
		{"an object already", `["v"]`, `{"v":{"a":"{}"}}`, `v_a="{}"`},
		{"lone surrogates and bytes", `["v"]`, `{"v":"{\"a\":\"\\ud800\",\"b\":\"` + "\xff" + `\"}"}`, "v_a=\"\uFFFD\" v_b=\"\uFFFD\""},
		{"paths that are none", `{"v":1}`, `{"v":"{}"}`, `v="{}"`},
		{"no object", `["v"]`, `["{}"]`, `data=["{}"]`},
		{"no JSON", `["v"]`, `{"v":"{}",`, `data="{\"v\":\"{}\","`},
		{"no JSON behind it", `["v"]`, `{"v":"{\"a\":1}"}}`, `data="{\"v\":\"{\\\"a\\\":1}\"}}"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newTable(t, NewSchema(), Options{})
			for range 2 {
				e := x.at(c.data)
				e.JSONStrings = []byte(c.paths)
				x.append(e)
			}
			x.append(x.at(`{}`))
			x.commit()
			require.Equal(t, []string{c.row, c.row, ""}, x.rows())
		})
	}
}

// A string that was a column stays one; what it holds from then on has columns
// beneath it.
func TestEmbeddedJSONBehindText(t *testing.T) {
	x := newTable(t, NewSchema(), Options{})
	data := `{"v":"{\"a\":1}"}`
	x.send(data)
	e := x.at(data)
	e.JSONStrings = []byte(`["v"]`)
	x.append(e)
	x.append(x.at(data))
	x.commit()
	require.Equal(t, []string{`v="{\"a\":1}"`, `v_a=1`, `v="{\"a\":1}"`}, x.rows())
	x = newTable(t, NewWholeSchema(), Options{})
	x.append(e)
	x.commit()
	require.Equal(t, []string{`data="{\"v\":{\"a\":1}}"`}, x.rows())
}

func FuzzEmbeddedJSON(f *testing.F) {
	f.Add(`["v"]`, `{"v":"{\"a\":1}"}`)
	f.Add(`["v","v.w"]`, `{"v":"{\"w\":\"{\\\"x\\\":1}\"}"}`)
	f.Add(`["a.b"]`, `{"a":{"b":"[1]"},"a":"{}"}`)
	f.Fuzz(func(t *testing.T, paths, data string) {
		b := &Builder{}
		out := string(b.unpacked([]byte(data), []byte(paths)))
		if b.scan.valid([]byte(out)) != b.scan.valid([]byte(data)) {
			t.Fatalf("%q with %q became %q", data, paths, out)
		}
		if again := string(b.unpacked([]byte(out), []byte(`["\u0000never"]`))); again != out {
			t.Fatalf("%q became %q", out, again)
		}
	})
}
