package row

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
)

func TestTemplate(t *testing.T) {
	for _, c := range []struct {
		template, data string
		columns        []event.Column
		want, missing  string
	}{
		{"plain", ``, nil, "plain", ""},
		{"{_type}-{_time:%Y.%m.%d}", ``, nil, "page/view-2026.03.01", ""},
		{"a:{{{n}}}:{_type}:{n}", `{"n":7}`, nil, "a:{7}:page/view:7", ""},
		{"{s}", `{"s":"a\nb"}`, nil, "a\nb", ""},
		{"{l}", `{"l":[1,{"a":2}]}`, nil, `[1,{"a":2}]`, ""},
		{"{at:%H%M%S-%j}", `{"at":"2026-03-01T14:30:05+02:00"}`, nil, "123005-060", ""},
		{"{at:%H}", `{"at":7}`, nil, "", "at"},
		{"{n}", `{"n":null}`, nil, "", "n"},
		{"{x}{b}{d}", `{"x":1.5,"b":true,"d":"2026-03-01"}`, []event.Column{{Name: "x", Type: event.DoubleColumn}, {Name: "b", Type: event.BoolColumn},
			{Name: "d", Type: event.DateColumn}}, "1.5true2026-03-01T00:00:00Z", ""},
	} {
		tmpl, err := ParseTemplate(c.template)
		require.NoError(t, err)
		require.Equal(t, c.template, tmpl.String())
		columns, err := Pick(c.columns, tmpl.Columns())
		require.NoError(t, err)
		e := &event.Event{Type: []byte("page/view"), Time: at, Data: []byte(c.data)}
		got, missing := tmpl.Append(nil, NewReader(columns).Values(e, 0))
		require.Equal(t, c.missing, missing, c.template)
		if missing == "" {
			require.Equal(t, c.want, string(got))
		}
	}
	_, err := Pick([]event.Column{{Name: "a"}}, []string{"_id", "a", "b"})
	require.EqualError(t, err, "the steps give no column b")
	require.Equal(t, "x", string(AppendText([]byte("x"), json.RawMessage(nil))))
}

func TestTemplateMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"a{b":        `"a{b" has a brace without its other one: a brace that is meant is written twice`,
		"a}b":        `"a}b" has a brace without its other one: a brace that is meant is written twice`,
		"{}":         `"{}": {} wants the name of a column, as in {_type}`,
		"{_time:%Q}": `"{_time:%Q}": "%Q": of a time there are %Y %m %d %H %M %S and %j (the day of the year)`,
	} {
		_, err := ParseTemplate(text)
		require.EqualError(t, err, want)
	}
}
