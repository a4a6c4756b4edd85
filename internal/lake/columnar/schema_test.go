package columnar

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/lake"
)

func TestSchemaEnvelope(t *testing.T) {
	s := NewSchema()
	var types []string
	for i, c := range s.Columns() {
		require.Equal(t, i+1, c.FieldID)
		types = append(types, c.Name+" "+c.Type)
	}
	require.Equal(t, "_id string, _type string, _source string, _subject string, _time timestamptz, _received_at timestamptz, _log string, _partition int, _offset long, _rescued string",
		strings.Join(types, ", "))
	require.Equal(t, 10, s.LastID)
}

func TestProperty(t *testing.T) {
	s := NewSchema()
	s.add("a_b", "a.b", ListString)
	s.add("x", `we\.ird\\"<é>`, JSON)
	s.Fields[len(s.Fields)-1].Dropped = true
	s.Fields = append(s.Fields, Field{ID: 99, Name: "theirs", Kind: Foreign})
	s.LastID = 99
	text := s.MarshalProperty()
	require.Contains(t, text, `{"i":11,"k":"list<string>","p":"a.b","e":12}`, "a name that the path gives is left out")
	require.Contains(t, text, `{"i":13,"k":"json","p":"we\\.ird\\\\\"<é>","n":"x","x":true}`)
	back, err := ParseSchema(text)
	require.NoError(t, err)
	require.Equal(t, s, back)
	require.True(t, s.Equal(back))
	for _, fixed := range []*Schema{NewSchema(), NewRejectedSchema(), NewWholeSchema()} {
		back, err := ParseSchema(fixed.MarshalProperty())
		require.NoError(t, err)
		require.Equal(t, fixed, back)
	}

	good := NewSchema().MarshalProperty()
	for _, c := range []struct{ from, to, want string }{
		{`"v":1`, `"v":2`, "version 2"},
		{`"flat"`, `"round"`, `unknown layout "round"`},
		{`"k":"long"`, `"k":"wide"`, `unknown kind "wide"`},
		{`"i":9`, `"i":8`, "bad id 8"},
		{`"i":9`, `"i":11`, "bad id 11"},
		{`"i":9`, `"i":0`, "bad id 0"},
		{`{"i":9,"k":"long","n":"_offset"},`, ``, "_offset (id 9, long) is missing"},
		{`"n":"_offset"`, `"n":"_offset","e":3`, "bad id 3"},
		{`{"v"`, `["v"`, "parse table property naru.columns"},
	} {
		bad := strings.Replace(good, c.from, c.to, 1)
		require.NotEqual(t, good, bad)
		_, err := ParseSchema(bad)
		require.ErrorContains(t, err, c.want)
	}
}

func TestDiff(t *testing.T) {
	x := newTable(t, NewSchema(), Options{})
	x.send(`{"a":1,"b":2}`)
	x.commit()
	require.True(t, x.schema.Diff(x.b.Schema()).Empty())
	x.send(`{"a":0.5,"c":1,"d":["x"]}`, `{"c":0.5}`)
	to := x.b.Schema()
	c := x.schema.Diff(to)
	require.Equal(t, []Promotion{{From: Field{ID: 11, Name: "a", Path: "a", Kind: Long}, To: Field{ID: 13, Name: "a", Path: "a", Kind: Double}}}, c.Promoted)
	require.Equal(t, []Field{
		{ID: 17, Name: "c", Path: "c", Kind: Double},
		{ID: 15, ElementID: 16, Name: "d", Path: "d", Kind: ListString},
	}, c.Added, "a column that was promoted before its first commit is just new")
	f, ok := to.ByPath("a")
	require.True(t, ok)
	require.Equal(t, 13, f.ID)
	_, ok = to.ByID(11)
	require.False(t, ok)
	require.Equal(t, "_id _type _source _subject _time _received_at _log _partition _offset _rescued a b c d", names(to), "a promoted column keeps its place")
}

// TestAdopt: a renamed column keeps filling, a dropped one is not made again,
// one that was added by hand keeps its name for itself.
func TestAdopt(t *testing.T) {
	x := newTable(t, NewSchema(), Options{})
	x.send(`{"a":1,"b":2,"c":{"d":3}}`)
	x.commit()
	var cols []lake.Column
	for _, c := range x.schema.Columns() {
		switch c.Name {
		case "a":
			c.Name = "amount"
		case "b":
			continue
		}
		cols = append(cols, c)
	}
	cols = append(cols, lake.Column{FieldID: 20, Name: "Note", Type: "decimal(9,2)"})
	s := x.schema.Clone()
	require.NoError(t, s.Adopt(cols, 20))
	require.NoError(t, x.b.Reset(s))
	x.schema = s
	x.send(`{"a":4,"b":5,"c":{"d":6},"note":7,"amount":8,"new":9}`)
	x.commit()
	require.Equal(t, []string{
		"amount=1 c_d=3",
		`_rescued="{\"b\":5,\"note\":7,\"amount\":8}" amount=4 c_d=6 new=9`,
	}, x.rows())
	f, _ := x.schema.ByPath("new")
	require.Equal(t, 21, f.ID)

	again := x.schema.Clone()
	require.NoError(t, again.Adopt(append(cols, x.schema.Columns()[12:]...), 21))
	require.Equal(t, x.schema, again)

	for _, c := range []struct {
		cols []lake.Column
		want string
	}{
		{cols[1:], "has lost _id"},
		{append([]lake.Column{{FieldID: 1, Name: "_id", Type: "long"}}, cols[1:]...), `adopt column "_id": the table has type long`},
	} {
		require.ErrorContains(t, x.schema.Clone().Adopt(c.cols, 21), c.want)
	}
}

func TestPaths(t *testing.T) {
	for path, keys := range map[string][]string{
		"a": {"a"}, "a.b": {"a", "b"}, `a\.b.c`: {"a.b", "c"}, `a\\.b`: {`a\`, "b"}, "": {""}, ".": {"", ""}, "a.": {"a", ""},
	} {
		require.Equal(t, keys, splitPath(path), path)
		var back []byte
		for i, k := range keys {
			back = appendPath(back, []byte(k), i == 0)
		}
		require.Equal(t, path, string(back))
		require.Equal(t, strings.Join(keys, "_"), columnName(path))
	}
}
