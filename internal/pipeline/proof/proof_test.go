package proof

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/pipeline/definition"
	"naru/internal/problem"
	"naru/internal/recordbatch"
	"naru/internal/sink"
	"naru/internal/transform"
)

// copier is an engine whose rows are the events: columns _type, _time and those that the
// first step lists. An event with the field bad is refused; one with rows: N gives N rows.
type copier struct{ opened []transform.Step }

func (c *copier) Check(context.Context, string, []transform.Step, transform.Input) problem.List {
	return nil
}

func (c *copier) Open(_ context.Context, steps []transform.Step, _ transform.Input) (transform.Transform, error) {
	if strings.Contains(steps[0].SQL, "nowhere") {
		return nil, errors.New("there is no table nowhere")
	}
	c.opened = steps
	return c, nil
}

func (c *copier) Close() error { return nil }

func (c *copier) Apply(_ context.Context, in *event.Batch, take func(*event.Event) bool) (*transform.Applied, error) {
	out := *in
	out.Raw, out.Rows = nil, &event.Rows{}
	out.Columns = []event.Column{{Name: "_id", Type: event.StringColumn}, {Name: "_type", Type: event.StringColumn}, {Name: "_time", Type: event.TimestampColumn}}
	for _, name := range strings.Fields(c.opened[0].SQL) {
		name, typ, _ := strings.Cut(name, ":")
		out.Columns = append(out.Columns, event.Column{Name: name, Type: event.ColumnType(typ)})
	}
	done := &transform.Applied{Batch: &out}
	var dec recordbatch.Decoder
	err := dec.EachIn(in, func(e *event.Event) error {
		if !take(e) {
			return nil
		}
		var f struct {
			Bad  bool
			Rows *int
		}
		if err := json.Unmarshal(e.Data, &f); err != nil {
			return err
		}
		if f.Bad {
			done.Refused = append(done.Refused, transform.Refused{Offset: e.Offset, Step: "1 sql", Detail: "it is bad"})
			return nil
		}
		n := 1
		if f.Rows != nil {
			n = *f.Rows
		}
		for i := range n {
			r := event.Event{ID: []byte(string(e.ID)), Type: []byte(string(e.Type)), Time: e.Time, Data: []byte(string(e.Data)), Offset: e.Offset, Row: int32(i)}
			if r.Time.IsZero() {
				r.Time = e.ReceivedAt
			}
			out.Rows.Add(r)
		}
		return nil
	})
	return done, err
}

type nowhere struct{}

func (nowhere) Validate() error                                   { return nil }
func (nowhere) Open(context.Context, sink.Env) (sink.Sink, error) { return nil, errors.New("no") }

var kinds = []sink.Kind{{Name: "nowhere", Settings: func() sink.Settings { return &nowhere{} }}}

// pipeline reads a pipeline with tests, in flow style.
func pipeline(t *testing.T, columns string, tests ...string) *definition.Definition {
	t.Helper()
	text := fmt.Sprintf("from: {types: [edit, view]}\nsteps: [{sql: %q}]\nto: [{nowhere: {}}]\ntests:\n- %s\n", columns, strings.Join(tests, "\n- "))
	def, wrong := definition.Parse("pipelines/p.yaml", "p", []byte(text), kinds)
	require.Empty(t, wrong)
	return def
}

func TestWhatDiffers(t *testing.T) {
	const columns = "n:long text:string at:timestamptz day:date list:json none:string"
	for name, c := range map[string]struct {
		test string
		want []string // where: want, got
	}{
		"numbers by value":          {`{input: [{n: 1}, {n: 2.50}, {n: 12345678901234567890}], rows: [{n: 1.0}, {n: 25e-1}, {n: 12345678901234567890}]}`, nil},
		"long whole numbers":        {`{input: [{n: 9007199254740993}], rows: [{n: 9007199254740992}]}`, []string{"row 1 n: 9007199254740992, 9007199254740993"}},
		"a text is no number":       {`{input: [{n: 1}], rows: [{n: "1"}]}`, []string{`row 1 n: "1", 1`}},
		"only named columns":        {`{input: [{n: 1, text: a}], rows: [{text: a}]}`, nil},
		"absent is null":            {`{input: [{n: 1, none: null}], rows: [{none: null, text: null}]}`, nil},
		"null is not something":     {`{input: [{n: 1}], rows: [{text: a, n: null}]}`, []string{`row 1 n: null, 1`, `row 1 text: "a", null`}},
		"moments":                   {`{input: [{at: "2026-01-31T09:00:00Z", day: "2026-01-31"}], rows: [{at: "2026-01-31T18:00:00+09:00", day: 2026-01-31}]}`, nil},
		"objects and lists":         {`{input: [{list: [1, {a: 2.0, b: null}]}], rows: [{list: [1.0, {a: 2}]}]}`, nil},
		"order of lists":            {`{input: [{list: [1, 2]}], rows: [{list: [2, 1]}]}`, []string{"row 1 list: [2,1], [1,2]"}},
		"no such column":            {`{input: [{n: 1}], rows: [{m: 1}]}`, []string{"row 1 m: 1, no such column; there are _id, _type, _time, n, text, at, day, list, none"}},
		"too few and too many rows": {`{input: [{n: 1, rows: 2}], rows: [{n: 1}]}`, []string{`row 2: no row, {"_id":"1","_type":"edit","_time":"2026-01-01T00:00:00Z","n":1,"rows":2}`}},
		"no row":                    {`{input: [{rows: 0}], rows: [{n: 1}]}`, []string{`row 1: {"n":1}, no row`}},
		"rows are compared":         {`{input: [{n: 1}]}`, []string{`row 1: no row, {"_id":"1","_type":"edit","_time":"2026-01-01T00:00:00Z","n":1}`}},
		"rejections":                {`{input: [{n: 1}, {bad: true}], rows: [{n: 1}], rejections: 1}`, nil},
		"a rejection too many":      {`{input: [{n: 1}, {bad: true}], rows: [{n: 1}]}`, []string{"rejections: 0, 1; event 2 by step 1 sql: it is bad"}},
		"a rejection too few":       {`{input: [{n: 1}], rows: [{n: 1}], rejections: 2}`, []string{"rejections: 2, 0"}},
		"envelope":                  {`{input: [{id: "a7", type: view, time: 2026-03-01T00:00:00+09:00, data: {n: 1}}], rows: [{_id: a7, _type: view, n: 1, _time: 2026-02-28T15:00:00Z}]}`, nil},
		"other types are not read":  {`{input: [{type: other, data: {n: 1}}], rows: []}`, nil},
		"no envelope":               {`{input: [{type: other, n: 1}], rows: [{_type: edit, n: 1}]}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			all := Run(t.Context(), &copier{}, "pipelines/p.yaml", pipeline(t, columns, c.test))
			require.Len(t, all, 1)
			var got []string
			for _, d := range all[0].Differences {
				got = append(got, d.Where+": "+d.Want+", "+d.Got)
			}
			require.Equal(t, c.want, got)
			require.Empty(t, all[0].Error)
			require.Equal(t, len(c.want) == 0, all[0].Passed)
		})
	}
}

func TestNamesAndPlaces(t *testing.T) {
	all := Run(t.Context(), &copier{}, "pipelines/p.yaml", pipeline(t, "n:long", "{name: one, input: [{n: 1}], rows: [{n: 1}]}", "{input: [{n: 1}], rows: [{n: 2}]}"))
	require.Equal(t, []string{"one", "2"}, []string{all[0].Test, all[1].Test})
	require.Equal(t, "pipelines/p.yaml:6", all[1].Place)
	require.True(t, all[0].Passed)
	require.False(t, all[1].Passed)

	all = Run(t.Context(), &copier{}, "pipelines/p.yaml", pipeline(t, "nowhere", "{input: [{n: 1}]}"))
	require.Equal(t, "there is no table nowhere", all[0].Error)
	require.False(t, all[0].Passed)
}

func TestWrongInputs(t *testing.T) {
	for input, want := range map[string]string{
		`{data: {}, typ: x}`:    "and typ is none of them",
		`{data: {}, time: now}`: "time wants a time as in 2026-01-31T00:00:00Z, not now",
		`{data: {}, id: 7}`:     "id wants a text, not 7",
	} {
		def := pipeline(t, "n:long", "{input: [{n: 1}, "+input+"]}")
		wrong := Check("pipelines/p.yaml", def)
		require.Len(t, wrong, 1, input)
		require.Contains(t, wrong.Error(), "pipelines/p.yaml:5: tests.input[1]: ")
		require.Contains(t, wrong.Error(), want)
		require.False(t, Run(t.Context(), &copier{}, "pipelines/p.yaml", def)[0].Passed)
	}
}

// Without steps, what a table would get is compared.
func TestPipelineWithoutSteps(t *testing.T) {
	def, wrong := definition.Parse("pipelines/p.yaml", "p", []byte("to: [{nowhere: {}}]\ntests: [{input: [{n: 1}], rows: [{_type: event}]}]\n"), kinds)
	require.Empty(t, wrong)
	engine := &copier{}
	require.True(t, Run(t.Context(), engine, "pipelines/p.yaml", def)[0].Passed)
	require.Equal(t, transform.Everything, engine.opened)
}
