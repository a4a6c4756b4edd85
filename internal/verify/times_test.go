package verify

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/lake"
)

// Tables and columns as contracts want them are what their events are held against.
func TestContracts(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, w.lake.KeepShapes(map[string]*lake.Shape{
		"one": {Columns: []lake.ShapeColumn{{Path: "at", Kind: "timestamptz", UTC: true}, {Path: "day", Kind: "date"}, {Path: "n", Kind: "long"}, {Path: "x.y", Kind: "double"}}},
		"two": {Table: "asked", Columns: []lake.ShapeColumn{{Path: "at", Kind: "timestamptz"}}}}))
	data := []string{
		`{"at":"2026-01-31T09:00:00.5+09:00","day":"2026-01-31","n":7.0,"x":{"y":1}}`,
		`{"at":"2026-01-31 09:00:00","day":"2026-1-31","n":7.5,"x":{"y":9007199254740993}}`,
		`{"at":"1969-12-31T23:59:59.1234567Z","day":null,"n":1e2,"at":"2026-01-31T10:00:00Z"}`,
		`{"at":"never","day":5,"n":"7","text":"2026-01-31T09:00:00Z","list":["2026-01-31T09:00:00Z"]}`,
		`{"at":"0000-01-01T00:00:00Z","day":"0000-01-01"}`,
		`{"at":"2016-12-31T23:59:60Z"}`,
		`"2026-01-31T09:00:00Z"`,
	}
	for _, contract := range []string{"", "one", "two", "one", "unknown"} {
		w.contract = contract
		for _, d := range data {
			w.send("events", ev{"page", d})
		}
		w.load()
	}
	list, err := w.lake.List(t.Context())
	require.NoError(t, err)
	require.Equal(t, []lake.Ident{{Namespace: "events", Name: "asked"}, {Namespace: "events", Name: "page"}}, list)
	w.clean()
}

// What a contract leaves out of rows is in the log, and no row is to have it; all else
// is in its row.
func TestUnknownFields(t *testing.T) {
	w := newWorld(t)
	known := &lake.Known{Fields: map[string]*lake.Known{
		"n": nil, "o": {Fields: map[string]*lake.Known{"a.b": nil, "any": nil}},
		"l": {Items: &lake.Known{Fields: map[string]*lake.Known{"a": {Items: &lake.Known{Fields: map[string]*lake.Known{"b": nil}}}}}},
	}}
	require.NoError(t, w.lake.KeepShapes(map[string]*lake.Shape{"one": {Known: known}}))
	data := []string{
		`{"n":1,"x":2,"o":{"a.b":1,"a":{"b":2},"any":{"x":[{"x":1}],"y":{}}},"l":[{"a":[{"b":1,"x":2},{"x":3}],"x":4},5,[{"x":6}]]}`,
		` { "x" : "n", "l" : {"a":[{"x":1}],"x":2}, "o":[{"x":1}], "n":{"x":1}, "o":{"x":1,"any":null} } `,
		`{"x":1}`, `[{"x":1}]`, `"x"`, `{"x":1,`, `{"n":1,"n":2,"x":1,"x":2,"_id":7,"N":8}`,
		`{"o":"{\"x\":1,\"any\":\"{\\\"x\\\":1}\"}","l":"[{\"a\":[{\"b\":1,\"x\":2}]},\"{}\"]","x":"{\"n\":1}","n":"{\"x\":1}"}`,
	}
	for _, w.contract = range []string{"", "one", "late"} {
		for _, w.paths = range []string{"", `["o","l","o.any","n"]`} {
			for _, d := range data {
				w.send("events", ev{"page", d})
			}
		}
		w.load()
	}
	w.clean()
	// Rows were made without the contract, and have what it leaves out.
	w.open()
	require.NoError(t, w.lake.KeepShapes(map[string]*lake.Shape{"late": {Known: known}}))
	w.wrong(true, "content events.page 32-32,40-40", "content events.page 33-33,41-41", "content events.page 34-34,39-39,42-42",
		"content events.page 38-38,46-46", "content events.page 47-47")
}

func TestMoment(t *testing.T) {
	for _, text := range []string{"2026-01-31T09:00:00Z", "2026-01-31 09:00:00.5+09:00", "1969-12-31t23:59:59.1234567z", "0001-01-01T00:00:00Z", "2000-02-29T12:00:00-12:30"} {
		canonical := []byte(text)
		canonical[10] = 'T'
		if canonical[len(text)-1] == 'z' {
			canonical[len(text)-1] = 'Z'
		}
		want, err := time.Parse(time.RFC3339Nano, string(canonical))
		require.NoError(t, err)
		got, ok := moment([]byte(text))
		require.True(t, ok, text)
		require.Equal(t, want.UnixMicro(), got, text)
	}
	for _, text := range []string{"", "x", "2026-01-31", "2026-02-30T09:00:00Z", "2026-01-31T24:00:00Z", "2026-01-31T09:00:60Z", "2026-01-31T09:00:00.Z", "2026-01-31T09:00:00+9", "2026-01-31T09:00:00+24:00", "0000-01-31T09:00:00Z", "2026-01-31T09:00:00Zz"} {
		_, ok := moment([]byte(text))
		require.False(t, ok, text)
	}
	require.NotEqual(t, string(appendText(nil, []byte("2026-01-31T09:00:00Z"))), string(appendText(nil, []byte("2026-01-31T09:00:01Z"))))
	require.Equal(t, "sx", string(appendText(nil, []byte("x"))))
}
