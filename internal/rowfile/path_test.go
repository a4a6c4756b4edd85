package rowfile

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/jsonscan"
)

func TestPath(t *testing.T) {
	at := time.Date(2015, 9, 1, 7, 5, 3, 0, time.FixedZone("", 3600))
	e := &event.Event{ID: []byte("a/b"), Time: at, Data: []byte(`{"c":"web","n":-7,"x":1.5,"yes":true,"no":null,"day":"2026-03-01","at":"2026-03-01T00:00:00Z","o":{"a":1}}`)}
	columns := []event.Column{{Name: "_id", Type: event.StringColumn}, {Name: "_time", Type: event.TimestampColumn}, {Name: "c", Type: event.StringColumn}, {Name: "n", Type: event.LongColumn},
		{Name: "x", Type: event.DoubleColumn}, {Name: "yes", Type: event.BoolColumn}, {Name: "no", Type: event.StringColumn}, {Name: "day", Type: event.DateColumn}, {Name: "o", Type: event.JSONColumn}, {Name: "at", Type: event.TimestampColumn}}
	for _, c := range []struct{ template, want string }{
		{"", ""}, {"a/b", "a/b"},
		{"year={_time:%Y}/month={_time:%m}/day={_time:%d}/hour={_time:%H}/platform={c}", "year=2015/month=09/day=01/hour=06/platform=web"},
		{"{_time:%F %H-%M-%S %j %G-W%V %s 100%%}", "2015-09-01 06-05-03 244 2015-W36 1441087503 100%25"},
		{"{n}_{x}/{yes}_{no}/{gone}", "-7_1.5/true___null__/__null__"},
		{"{_id}", "a%2Fb"}, {"{day}/{day:%Y}/{at}/{at:%m}/{o}", "2026-03-01/2026/2026-03-01T00%3A00%3A00Z/03/%7B\"a\"%3A1%7D"},
	} {
		p, err := ParsePath(c.template)
		require.NoError(t, err)
		require.Equal(t, c.template, p.String())
		for _, cols := range [][]event.Column{columns, nil} {
			if strings.Contains(c.template, "gone") && cols != nil {
				_, err := p.Of(cols)
				require.EqualError(t, err, "path: there is no column gone; there are _id, _time, c, n, x, yes, no, day, o, at")
				continue
			}
			if strings.Contains(c.template, "{day}") && cols == nil {
				continue // both a text and a time: the time wins
			}
			of, err := p.Of(cols)
			require.NoError(t, err)
			require.Equal(t, strings.ReplaceAll(c.want, `"`, "%22"), string(of.Append(nil, e, 0)))
		}
	}
	p, err := ParsePath("{c:%Y}")
	require.NoError(t, err)
	_, err = p.Of(columns)
	require.EqualError(t, err, "path: the column c is string, no time: make it one in a step, as in c::TIMESTAMPTZ")
	of, err := p.Of(nil)
	require.NoError(t, err)
	require.Equal(t, Null, string(of.Append(nil, e, 0)), "of events as they came nobody knows before")
}

func TestPathMistakes(t *testing.T) {
	for template, want := range map[string]string{
		"/a": "a folder has no name", "a/": "a folder has no name", "a//b": "a folder has no name", "../a": "cannot begin with a point", ".a": "cannot begin with a point",
		"a{": "has a { without a }", "a}": "has a }", "{}": "wants {column}", "{a:}": "wants {column}", "{a:%Q}": "%Q is none of %Y", "{a:%}": "% is none of", "a\nb": "control character",
		"{a}{b}{c}": "may get 300 bytes long", strings.Repeat("a/", 16) + "a": "has 17 folders", "{a:" + strings.Repeat("x", 60) + "}": "is too long", `{a:\}`: "backslash",
	} {
		_, err := ParsePath(template)
		require.ErrorContains(t, err, want, template)
	}
}

// Whatever a value is, it is one folder's name, and two values are two folders.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"", ".", "..", "a/b", "%2F", Null, Empty, "a\x00b", "\xff", "ä\u202e", "con", "a.", " ", strings.Repeat("ü/", 200), strings.Repeat("%", 99), "~0123456789abcdef"} {
		f.Add(s, s+"x")
	}
	p, err := ParsePath("{a}")
	require.NoError(f, err)
	of, err := p.Of([]event.Column{{Name: "a", Type: event.StringColumn}})
	require.NoError(f, err)
	name := func(s string) string {
		return string(of.Append(nil, &event.Event{Data: append(jsonscan.AppendQuoted([]byte(`{"a":`), s), '}')}, 0))
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		a, b = strings.ToValidUTF8(a, "\uFFFD"), strings.ToValidUTF8(b, "\uFFFD")
		got := name(a)
		require.True(t, got != "" && len(got) <= longestValue && utf8.ValidString(got), "%q", got)
		require.False(t, strings.ContainsAny(got, "/\\\x00\n\r:*?\"<>|"), got)
		require.False(t, strings.HasPrefix(got, ".") || got == Null, got)
		require.Equal(t, a == b, got == name(b), "%q and %q", a, b)
	})
}
