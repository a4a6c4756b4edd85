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
