package definition

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/problem"
	"naru/internal/quantity"
	"naru/internal/sink"
	"naru/internal/vfs"
)

type table struct {
	Table string `yaml:"table"`
}

func (t *table) Validate() error                                   { return nil }
func (t *table) Open(context.Context, sink.Env) (sink.Sink, error) { return nil, nil }
func (t *table) Owns(string) string                                { return "table " + t.Table }

type hook struct {
	URL     string            `yaml:"url"`
	Batch   int               `yaml:"batch"`
	Headers map[string]string `yaml:"headers"`
}

type feed struct {
	Stream string `yaml:"stream"`
}

func (f *feed) Validate() error                                   { return nil }
func (f *feed) Open(context.Context, sink.Env) (sink.Sink, error) { return nil, nil }
func (f *feed) Feeds() string                                     { return f.Stream }

func TestCircles(t *testing.T) {
	all := append([]sink.Kind{{Name: "stream", Short: "stream", Settings: func() sink.Settings { return &feed{} }}}, kinds...)
	load := func(files map[string]string) problem.List {
		fsys := vfs.NewMemory()
		require.NoError(t, fsys.MkdirAll("/p/pipelines"))
		for name, text := range files {
			f, err := fsys.Create("/p/pipelines/" + name + ".yaml")
			require.NoError(t, err)
			_, err = f.Write([]byte(text))
			require.NoError(t, err)
			require.NoError(t, f.Close())
		}
		_, wrong, err := Load(fsys, "/p/pipelines", all)
		require.NoError(t, err)
		return wrong
	}
	require.Empty(t, load(map[string]string{"x": "from: {stream: a}\nto: [{stream: b}]", "y": "from: {stream: b}\nto: [{stream: c}]", "z": "from: {stream: a}\nto: [{stream: c}]"}))
	wrong := load(map[string]string{"x": "from: {stream: a}\nto: [{stream: b}]", "y": "from: {stream: b}\nto: [{table: t}, {stream: a}]", "z": "from: {stream: c}\nto: [{stream: c}]"})
	require.Equal(t, `pipelines/x.yaml:2: to[0]: events would go round for ever: a → b → a
pipelines/y.yaml:2: to[1]: events would go round for ever: b → a → b
pipelines/z.yaml:2: to[0]: events would go round for ever: c → c`, wrong.Error())
	require.Contains(t, load(map[string]string{"events": "to: [{table: t}]"}).Error(), "take another one")
	require.Contains(t, load(map[string]string{"x": "from: {stream: rejected}\nto: [{table: t}]"}).Error(), "is no stream for pipelines")
}

func (h *hook) Validate() error {
	if h.URL == "" {
		return errors.Join(errors.New("url: is missing"), errors.New("batch: too"))
	}
	return nil
}
func (h *hook) CommitsEvery(interval time.Duration) error {
	if interval > time.Minute {
		return fmt.Errorf("batch: not in %s", interval)
	}
	return nil
}
func (h *hook) Open(context.Context, sink.Env) (sink.Sink, error) { return nil, nil }

var kinds = []sink.Kind{
	{Name: "table", Short: "table", Settings: func() sink.Settings { return &table{} }},
	{Name: "http", Settings: func() sink.Settings { return &hook{Batch: 500} }},
}

func TestParse(t *testing.T) {
	def, wrong := Parse("pipelines/edits.yaml", "edits", []byte(`
from: {stream: web, types: [wikipedia_edit], start: 2026-01-31}
steps:
  - sql: SELECT channel FROM input
to:
  - table: human_edits
  - http: {url: "http://127.0.0.1:9000/hook", headers: {X-A: b}}
    name: hook
    every: 2s
    bytes: 1MiB
tests:
  - input: [{channel: "#en", added: 3, tags: [a, {b: null}]}]
    rows: [{channel: "#en"}]
`), kinds)
	require.Empty(t, wrong)
	require.Equal(t, "web", def.From.Stream)
	require.Equal(t, time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC), def.From.Start.At)
	require.Len(t, def.Steps, 1)
	require.Len(t, def.To, 2)
	require.Equal(t, "table", def.To[0].Name)
	require.Equal(t, &table{"human_edits"}, def.To[0].Settings)
	require.Equal(t, "hook", def.To[1].Name)
	require.Equal(t, &hook{URL: "http://127.0.0.1:9000/hook", Batch: 500, Headers: map[string]string{"X-A": "b"}}, def.To[1].Settings)
	require.Equal(t, quantity.Duration(2*time.Second), def.To[1].Every)
	require.Equal(t, quantity.MiB, def.To[1].Bytes)
	require.JSONEq(t, `{"channel": "#en", "added": 3, "tags": ["a", {"b": null}]}`, string(def.Tests[0].Input[0].JSON))
	require.True(t, json.Valid(def.Tests[0].Rows[0].JSON))

	other, _ := Parse("pipelines/edits.yaml", "edits", []byte("from: {stream: web, types: [wikipedia_edit]}\nsteps:\n  - sql: SELECT channel FROM input\nto: [{table: x}]\n"), kinds)
	require.Equal(t, def.Hash(), other.Hash(), "neither start nor sinks decide about rows")
	other, _ = Parse("pipelines/edits.yaml", "edits", []byte("from: {stream: web}\nsteps:\n  - sql: SELECT channel FROM input\nto: [{table: x}]\n"), kinds)
	require.NotEqual(t, def.Hash(), other.Hash())
}

// A `where` decides about rows: it belongs to the steps, and no sink is another one for it.
func TestWhere(t *testing.T) {
	parse := func(to string) *Definition {
		def, wrong := Parse("p.yaml", "p", []byte("steps: [{filter: a}]\nto:\n"+to), kinds)
		require.Empty(t, wrong)
		return def
	}
	def := parse("  - table: a\n    where: added > 0\n  - {table: b, name: all}\n  - {http: {url: x}, where: _type = 'edit'}\n")
	routes := def.Routes()
	require.Len(t, routes, 2)
	require.Equal(t, []string{"http", "table"}, []string{routes[0].To, routes[1].To}, "by name, so that their order in the file does not matter")
	require.Equal(t, []int{6, 4}, []int{routes[0].Line, routes[1].Line})
	require.Len(t, def.Program(), 3)
	require.Equal(t, def.Hash(), parse("  - {http: {url: y}, where: _type = 'edit'}\n  - {table: a, where: added > 0}\n").Hash())
	for _, other := range []string{"  - {table: a, where: added > 1}\n  - {http: {url: x}, where: _type = 'edit'}\n", "  - table: a\n  - {http: {url: x}, where: _type = 'edit'}\n",
		"  - {table: a, name: b, where: added > 0}\n  - {http: {url: x}, where: _type = 'edit'}\n"} {
		require.NotEqual(t, def.Hash(), parse(other).Hash(), other)
	}
	require.Equal(t, parse("  - table: a\n").Hash(), parse("  - table: b\n").Hash())
	require.True(t, def.Sink("table").Same(parse("  - {table: a, where: other}\n").Sink("table")))
	require.True(t, def.Sink("table").Same(parse("  - table: a\n").Sink("table")))
	require.False(t, def.Sink("table").Same(parse("  - {table: b, where: added > 0}\n").Sink("table")))
	require.Nil(t, def.Sink("none"))
}

func TestMistakes(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "p.yaml: to: is missing: name at least one sink, as in `to: [{table: p}]`"},
		{"to: [{tabel: a}]", "p.yaml:1: to[0].tabel: there is no such sink; there are table, http, and the keys name, where, every and bytes"},
		{"to: [{table: a, http: {}}]", "p.yaml:1: to[0].http: this entry has a sink already, table: begin another one with -"},
		{"to: [{name: a}]", "p.yaml:1: to[0]: names no sink; there are table, http"},
		{"to: [a]", "p.yaml:1: to[0]: wants a block with the kind of the sink as its key, as in `- table: page_views`, not the value \"a\""},
		{"to: [{table: a}, {table: b}]", "p.yaml:1: to[1].name: two sinks are called table: give each a name of its own, which it keeps for good, because its positions go by it"},
		{"to:\n  - http:\n      batch: 3\n", "p.yaml:2: to[0].http.url: is missing\np.yaml:3: to[0].http.batch: too"},
		{"to:\n  - http: {ulr: a}\n", "p.yaml:2: to[0].http.ulr: unknown key; did you mean url?"},
		{"form: {}\nto: [{table: a}]", "p.yaml:1: form: unknown key; did you mean from?"},
		{"from: {start: soon}\nto: [{table: a}]", `p.yaml:1: from.start: "soon" is neither earliest nor latest nor a time, as in 2026-01-31T00:00:00Z or 2026-01-31`},
		{"from: {stream: _x}\nto: [{table: a}]", "p.yaml:1: from.stream: names that begin with _ are naru's own"},
		{"to:\n  - table: a\n    where: ''\n", "p.yaml:3: to[0].where: is empty: write a condition over columns of the rows, as in added > 0"},
		{"to: [{table: a, where: [b]}]", "p.yaml:1: to[0].where: wants a text"},
		{"to: [{table: a}]\ntests: [{input: [{a: 1}], rows: {tabel: []}}]", "p.yaml:2: tests[0].rows: there is no sink tabel; there are table"},
		{"to: [" + strings.Repeat("{table: a, where: b},", 65) + "]", "65 sinks have a where: at most 64 may"},
		{"to:\n  - http: {url: a, batch: 3}\n    every: 2m\n", "p.yaml:2: to[0].http.batch: not in 2m0s"},
		{"to: [{table: a, every: 0s}]", "p.yaml:1: to[0].every: must be more than 0, as in 1s"},
		{"to: [{table: a}]\ntests: [{rows: []}]", "p.yaml:2: tests[0].input: is missing: a test needs at least one event"},
		{"to: [", "p.yaml:1: not YAML: did not find expected node content"},
	} {
		_, wrong := Parse("p.yaml", "p", []byte(c.text), kinds)
		require.Contains(t, wrong.Error(), c.want, c.text)
	}
}

func TestLoad(t *testing.T) {
	fsys := vfs.NewMemory()
	require.NoError(t, fsys.MkdirAll("/p/pipelines"))
	for name, text := range map[string]string{"a.yaml": "to: [{table: t}]", "b.yml": "to: [{table: t}]", ".c.yaml": "?", "README.md": "x", "Up.yaml": "to: [{table: u}]"} {
		f, err := fsys.Create("/p/pipelines/" + name)
		require.NoError(t, err)
		_, err = f.Write([]byte(text))
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	all, wrong, err := Load(fsys, "/p/pipelines", kinds)
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, `pipelines/Up.yaml: a pipeline has the name of its file: lower case letters, digits, - and _, at most 63, a letter or digit first
pipelines/b.yml:1: to[0]: table t is written by pipeline a, sink table already: one sink for each`, wrong.Error())
	all, wrong, err = Load(fsys, "/none", kinds)
	require.NoError(t, err)
	require.Empty(t, all)
	require.Empty(t, wrong)
}
