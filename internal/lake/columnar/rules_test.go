package columnar

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/jsonscan"
)

// TestRules holds each rule of docs/format/tables.md: the data of some events
// in, the columns and the rows out.
func TestRules(t *testing.T) {
	long128 := strings.Repeat("n", 128)
	long129 := strings.Repeat("n", 129)
	for _, c := range []struct {
		name  string
		in    []string
		kinds string
		rows  []string
	}{
		{"scalars", []string{`{"s":"x","l":1,"d":1.5,"b":true}`},
			"s:string l:long d:double b:bool", []string{`s="x" l=1 d=1.5 b=true`}},
		{"null makes no column", []string{`{"a":null}`}, "", []string{""}},
		{"null is missing", []string{`{"a":1}`, `{"a":null}`, `{}`}, "a:long", []string{"a=1", "", ""}},
		{"columns in order of first appearance", []string{`{"b":1}`, `{"a":1,"b":2}`, `{"c":1}`},
			"b:long a:long c:long", []string{"b=1", "b=2 a=1", "c=1"}},
		{"white space everywhere", []string{" { \"a\" :\t1 ,\r\n\"b\" : [ 1 , 2 ] , \"c\" : { } } "},
			"a:long b:list<long>", []string{"a=1 b=[1 2]"}},

		// Numbers.
		{"int64 bounds are long", []string{`{"a":9223372036854775807}`, `{"a":-9223372036854775808}`, `{"a":-0}`},
			"a:long", []string{"a=9223372036854775807", "a=-9223372036854775808", "a=0"}},
		{"whole beyond int64 is rescued", []string{`{"a":9223372036854775808}`, `{"a":1}`, `{"a":-9223372036854775809}`}, "a:long",
			[]string{rescue(`{"a":9223372036854775808}`), "a=1", rescue(`{"a":-9223372036854775809}`)}},
		{"point or exponent is double", []string{`{"a":1.0,"b":1e3,"c":-2.5E-1}`},
			"a:double b:double c:double", []string{"a=1.0 b=1000.0 c=-0.25"}},
		{"a fraction promotes", []string{`{"a":1}`, `{"a":2.5}`, `{"a":3}`}, "a:double", []string{"a=1.0", "a=2.5", "a=3.0"}},
		{"1.0 is a fraction by its looks", []string{`{"a":1}`, `{"a":2.0}`}, "a:double", []string{"a=1.0", "a=2.0"}},
		{"promotion rescues what a double cannot hold", []string{`{"a":9007199254740993,"b":1,"x":[]}`, `{"a":9007199254740992}`, `{"a":0.5}`},
			"a:double b:long", []string{`_rescued="{\"x\":[],\"a\":9007199254740993}" b=1`, "a=9.007199254740992e+15", "a=0.5"}},
		{"promotion rescues MaxInt64", []string{`{"a":9223372036854775807}`, `{"a":0.5}`}, "a:double",
			[]string{rescue(`{"a":9223372036854775807}`), "a=0.5"}},
		{"whole in a double column", []string{`{"a":0.5}`, `{"a":9007199254740993}`, `{"a":18446744073709551616}`, `{"a":18446744073709551617}`, `{"a":1` + strings.Repeat("0", 400) + `}`},
			"a:double", []string{"a=0.5", rescue(`{"a":9007199254740993}`), "a=1.8446744073709552e+19", rescue(`{"a":18446744073709551617}`), rescue(`{"a":1` + strings.Repeat("0", 400) + `}`)}},
		{"beyond double", []string{`{"a":1e400}`, `{"a":1.5}`, `{"a":-1e999}`, `{"a":1e-999}`, `{"a":0e-999}`},
			"a:double", []string{rescue(`{"a":1e400}`), "a=1.5", rescue(`{"a":-1e999}`), rescue(`{"a":1e-999}`), "a=0.0"}},
		{"beyond double in a long column does not promote", []string{`{"a":1}`, `{"a":1e400}`}, "a:long", []string{"a=1", rescue(`{"a":1e400}`)}},

		// Strings.
		{"strings are never dates", []string{`{"a":"2026-01-01T00:00:00Z"}`}, "a:string", []string{`a="2026-01-01T00:00:00Z"`}},
		{"escapes", []string{`{"a":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"}`}, "a:string", []string{`a="\"\\/\b\f\n\r\té😀"`}},
		{"lone surrogates", []string{`{"a":"\ud83d","b":"\ude00\ud83dx","c":"\ud83d\u0041"}`}, "a:string b:string c:string",
			[]string{"a=\"\uFFFD\" b=\"\uFFFD\uFFFDx\" c=\"\uFFFDA\""}},
		{"NUL is kept", []string{`{"a":"x\u0000y"}`}, "a:string", []string{`a="x\u0000y"`}},
		{"invalid UTF-8", []string{"{\"a\":\"x\xffy\xc3\"}"}, "a:string", []string{"a=\"x\uFFFDy\uFFFD\""}},
		{"empty string is no null", []string{`{"a":""}`}, "a:string", []string{`a=""`}},

		// Objects.
		{"objects flatten", []string{`{"a":{"b":{"c":1},"d":"x"}}`}, "a_b_c:long a_d:string", []string{`a_b_c=1 a_d="x"`}},
		{"an empty object is nothing", []string{`{"a":{},"b":{"c":{}}}`, `{"a":1}`}, "a:long", []string{"", "a=1"}},
		{"object and scalar under one key", []string{`{"a":1}`, `{"a":{"b":2}}`, `{"a":3}`}, "a:long a_b:long", []string{"a=1", "a_b=2", "a=3"}},
		{"ten keys deep", []string{nest(10, "1")}, strings.Repeat("k_", 9) + "k:long", []string{strings.Repeat("k_", 9) + "k=1"}},
		{"eleven keys deep", []string{nest(11, "1"), nest(11, "{}")}, "",
			[]string{rescue(`{"` + strings.Repeat("k.", 9) + `k":{"k":1}}`), rescue(`{"` + strings.Repeat("k.", 9) + `k":{"k":{}}}`)}},
		{"an empty object at the last depth", []string{nest(10, "{}")}, "", []string{""}},

		// Arrays.
		{"lists", []string{`{"l":[1,-2],"d":[0.5],"s":["x",""],"b":[true,false]}`},
			"l:list<long> d:list<double> s:list<string> b:list<bool>", []string{`l=[1 -2] d=[0.5] s=["x" ""] b=[true false]`}},
		{"nulls in lists", []string{`{"l":[null,1,null]}`, `{"l":[null]}`}, "l:list<long>", []string{"l=[null 1 null]", "l=[null]"}},
		{"whole and fraction are double", []string{`{"a":[1,2.5]}`, `{"a":[3]}`, `{"a":[9007199254740993]}`}, "a:list<double>",
			[]string{"a=[1.0 2.5]", "a=[3.0]", rescue(`{"a":[9007199254740993]}`)}},
		{"a fraction does not promote a list", []string{`{"a":[1]}`, `{"a":[2.5]}`, `{"a":[2]}`}, "a:list<long>", []string{"a=[1]", rescue(`{"a":[2.5]}`), "a=[2]"}},
		{"numbers too large make no list", []string{`{"a":[99999999999999999999]}`, `{"b":[1e999]}`, `{"c":[9007199254740993,0.5]}`}, "",
			[]string{rescue(`{"a":[99999999999999999999]}`), rescue(`{"b":[1e999]}`), rescue(`{"c":[9007199254740993,0.5]}`)}},
		{"empty array without a column", []string{`{"a":[]}`, `{"a":[ null ]}`}, "", []string{rescue(`{"a":[]}`), rescue(`{"a":[ null ]}`)}},
		{"empty array in a list column", []string{`{"a":["x"]}`, `{"a":[ ]}`}, "a:list<string>", []string{`a=["x"]`, "a=[]"}},
		{"empty array in a scalar column", []string{`{"a":1}`, `{"a":[]}`}, "a:long", []string{"a=1", rescue(`{"a":[]}`)}},
		{"other arrays are JSON text as sent", []string{`{"a":[ {"b": 1} ],"c":[1,"x"],"d":[[1],[2]],"e":[true,1]}`},
			"a:json c:json d:json e:json", []string{`a="[ {\"b\": 1} ]" c="[1,\"x\"]" d="[[1],[2]]" e="[true,1]"`}},
		{"a JSON column takes all but objects", []string{`{"a":[{}]}`, `{"a":["x"]}`, `{"a":[]}`, `{"a":1e999}`, `{"a":"x"}`, `{"a":{"b":1}}`, `{"a":null}`},
			"a:json a_b:long", []string{`a="[{}]"`, `a="[\"x\"]"`, `a="[]"`, `a="1e999"`, `a="\"x\""`, "a_b=1", ""}},
		{"list and scalar conflict", []string{`{"a":[1]}`, `{"a":1}`, `{"a":["x"]}`, `{"a":[true]}`}, "a:list<long>",
			[]string{"a=[1]", rescue(`{"a":1}`), rescue(`{"a":["x"]}`), rescue(`{"a":[true]}`)}},
		{"half a list is taken back", []string{`{"a":["x","y"]}`, `{"a":["z",1]}`, `{"a":["w"]}`}, "a:list<string>",
			[]string{`a=["x" "y"]`, rescue(`{"a":["z",1]}`), `a=["w"]`}},

		// Conflicts.
		{"the first type wins", []string{`{"a":"x","b":1,"c":true,"d":0.5}`, `{"a":1,"b":"y","c":"z","d":true}`}, "a:string b:long c:bool d:double",
			[]string{`a="x" b=1 c=true d=0.5`, rescue(`{"a":1,"b":"y","c":"z","d":true}`)}},
		{"path in _rescued", []string{`{"a":{"b":{"c":1}}}`, `{"a":{"b":{"c":"x"}}}`}, "a_b_c:long", []string{"a_b_c=1", rescue(`{"a.b.c":"x"}`)}},
		{"dots and backslashes are escaped in paths", []string{`{"a.b":1,"c\\d":{"e":1}}`, `{"a.b":"x","c\\d":{"e":"y"}}`}, `a.b:long c\d_e:long`,
			[]string{`a.b=1 c\d_e=1`, rescue(`{"a\\.b":"x","c\\\\d.e":"y"}`)}},
		{"quotes and wide characters in keys", []string{`{"\"é":1}`, `{"\"\u00e9":2}`}, `"é:long`, []string{`"é=1`, `"é=2`}},
		{"a key twice", []string{`{"a":1,"a":2,"a":3}`, `{"a":4}`}, "a:long", []string{`_rescued="{\"a\":2,\"a\\\\2\":3}" a=1`, "a=4"}},
		{"a key twice, null first", []string{`{"a":null,"a":2}`}, "a:long", []string{"a=2"}},
		{"a key twice, objects", []string{`{"a":{"x":1},"a":{"x":2,"y":3}}`}, "a_x:long a_y:long", []string{`_rescued="{\"a.x\":2}" a_x=1 a_y=3`}},
		{"a key twice, no promotion", []string{`{"a":1,"a":1.5}`}, "a:long", []string{`_rescued="{\"a\":1.5}" a=1`}},
		{"rescued text can be parsed by all", []string{`{"a":1}`, "{\"a\":\"\\ud83d \\ud83d\\ude00 \\n \xff\"}"}, "a:long",
			[]string{"a=1", rescue("{\"a\":\"\\ufffd \\ud83d\\ude00 \\n \uFFFD\"}")}},

		// Names.
		{"collision by case", []string{`{"Name":1,"name":2}`, `{"name":3}`}, "Name:long", []string{`_rescued="{\"name\":2}" Name=1`, rescue(`{"name":3}`)}},
		{"collision by flattening", []string{`{"a":{"b":1},"a_b":2}`, `{"a_b":3,"a":{"B":4}}`}, "a_b:long", []string{`_rescued="{\"a_b\":2}" a_b=1`, rescue(`{"a_b":3,"a.B":4}`)}},
		{"collision with the envelope", []string{`{"_id":1,"_Time":2,"_rescued":3,"_extensions":4,"_partition":5}`, `{"_id":"x"}`}, "",
			[]string{rescue(`{"_id":1,"_Time":2,"_rescued":3,"_extensions":4,"_partition":5}`), rescue(`{"_id":"x"}`)}},
		{"collision of a nested path with the envelope", []string{`{"_received":{"at":1},"_":{"x":2}}`}, "__x:long", []string{`_rescued="{\"_received.at\":1}" __x=2`}},
		{"collision with names of Iceberg", []string{`{"_file":1,"_pos":1,"_time_day":1}`}, "", []string{rescue(`{"_file":1,"_pos":1,"_time_day":1}`)}},
		{"collision with a list's element", []string{`{"a":[1],"a.element":1}`, `{"b.element":1,"b":[1]}`, `{"b":1}`}, "a:list<long> b.element:long b:long",
			[]string{`_rescued="{\"a\\\\.element\":1}" a=[1]`, `_rescued="{\"b\":[1]}" b.element=1`, "b=1"}},
		{"names of any script, other underscores", []string{`{"이름":"x","_mine":1,"a b":2,"q\"":3}`}, `이름:string _mine:long a b:long q":long`, []string{`이름="x" _mine=1 a b=2 q"=3`}},
		{"names that cannot be", []string{`{"":1,"a\u0000":2,"b\n":3,"c":{"":{"d":4}},"x\u0085":5}`, `{"":6}`}, "",
			[]string{rescue(`{"":1,"a\u0000":2,"b\n":3,"c..d":4,"x` + "\u0085" + `":5}`), rescue(`{"":6}`)}},
		{"names of 128 bytes, and of more", []string{`{"` + long128 + `":1,"` + long129 + `":2,"a":{"` + long128 + `":3}}`}, long128 + ":long",
			[]string{fmt.Sprintf(`_rescued="{\"%s\":2,\"a.%s\":3}" %s=1`, long129, long128, long128)}},

		// Data that is no object.
		{"scalar data", []string{`5`, ` "x" `, `null`, `true`}, "data:long", []string{"data=5", rescue(`{"data":"x"}`), "", rescue(`{"data":true}`)}},
		{"array data", []string{`[1,2]`, `[]`}, "data:list<long>", []string{"data=[1 2]", "data=[]"}},
		{"no data", []string{``}, "", []string{""}},
		{"data that is no JSON", []string{`{"a":1}`, `{"a":2,"n":1,`, `{"a":2.5}}`, "{\"a\":\"\xff", `{"a":3}`}, "a:long data:string data_base64:string",
			[]string{"a=1", `data="{\"a\":2,\"n\":1,"`, `data="{\"a\":2.5}}"`, `data_base64="eyJhIjoi/w=="`, "a=3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newTable(t, NewSchema(), Options{})
			x.send(c.in...)
			require.Equal(t, c.kinds, x.kinds())
			x.commit()
			require.Equal(t, c.rows, x.rows())

			// The same with a commit behind each event.
			y := newTable(t, NewSchema(), Options{})
			for _, line := range c.in {
				y.send(line)
				y.commit()
			}
			require.Equal(t, c.kinds, y.kinds())
			require.Equal(t, c.rows, y.rows())
		})
	}
}

// rescue is the row that has nothing but this in _rescued.
func rescue(json string) string {
	q := string(jsonscan.AppendQuoted(nil, []byte(json)))
	return "_rescued=" + q
}

// nest puts v under depth keys named k.
func nest(depth int, v string) string {
	return strings.Repeat(`{"k":`, depth) + v + strings.Repeat("}", depth)
}

func TestColumnLimit(t *testing.T) {
	x := newTable(t, NewSchema(), Options{})
	var fields []string
	for i := range 1000 {
		fields = append(fields, fmt.Sprintf(`"f%d":%d`, i, i))
	}
	x.send("{" + strings.Join(fields, ",") + "}")
	x.send(`{"f0":1,"f999":2,"new":{"er":null}}`)
	require.Len(t, x.b.Schema().Fields, MaxColumns-1, "one place is kept for _extensions")
	x.commit()
	rows := x.rows(ColumnRescued, "f0", "f988", "f989")
	require.Equal(t, `_rescued="{\"f989\":989,\"f990\":990,\"f991\":991,\"f992\":992,\"f993\":993,\"f994\":994,\"f995\":995,\"f996\":996,\"f997\":997,\"f998\":998,\"f999\":999}" f0=0 f988=988`, rows[0])
	require.Equal(t, `_rescued="{\"f999\":2}" f0=1`, rows[1])

	e := x.at(`{}`)
	e.Extensions = attrs("a", "b")
	x.append(e)
	require.Len(t, x.b.Schema().Fields, MaxColumns)
	x.commit()
	require.Equal(t, `_extensions="{\"a\":\"b\"}"`, x.rows(ColumnExtensions)[2])
}

func TestPromotionForbidden(t *testing.T) {
	allowed := false
	var asked []int
	x := newTable(t, NewSchema(), Options{AllowPromotion: func(id int) bool { asked = append(asked, id); return allowed }})
	x.send(`{"a":1}`, `{"a":1.5}`)
	require.Equal(t, Counters{Rows: 2, Unpromoted: 1}, withoutRescued(x.b.Counters()))
	x.commit()
	allowed = true
	x.send(`{"a":2.5}`)
	x.commit()
	require.Equal(t, []string{"a=1.0", rescue(`{"a":1.5}`), "a=2.5"}, x.rows())
	require.Equal(t, []int{11, 11}, asked)
	f, _ := x.schema.ByPath("a")
	require.Equal(t, Field{ID: 12, Name: "a", Path: "a", Kind: Double}, f)
	require.Equal(t, 12, x.schema.LastID)
}

func withoutRescued(c Counters) Counters {
	c.Rescued = 0
	return c
}

func TestCounters(t *testing.T) {
	x := newTable(t, NewSchema(), Options{})
	x.send(`{"a":1,"b":0.5}`, `{"a":"x","b":9007199254740993}`, `{"a":"y","c":99999999999999999999}`, `{"a":"z"`, `{"b":[]}`)
	require.Equal(t, Counters{Rows: 5, Rescued: 5, UnfitNumbers: 2, NotJSON: 1}, x.b.Counters())
	top := x.b.TopRescued()
	require.Equal(t, "a", top[0].Path)
	require.EqualValues(t, 2, top[0].Count)
	require.Len(t, top, 3)
	for i := range 500 { // the list of paths is bounded
		x.send(fmt.Sprintf(`{"r%d":[],"a":"x"}`, i))
	}
	top = x.b.TopRescued()
	require.Len(t, top, 64)
	require.Equal(t, "a", top[0].Path)
	require.GreaterOrEqual(t, top[0].Count, int64(502))
	require.EqualValues(t, 5+1000, x.b.Counters().Rescued)
}
