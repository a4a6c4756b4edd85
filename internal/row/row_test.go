package row

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
)

var at = time.Date(2026, 3, 1, 12, 30, 0, 123456000, time.UTC)

func TestValues(t *testing.T) {
	r := NewReader([]event.Column{{Name: "_id", Type: event.StringColumn}, {Name: "n", Type: event.LongColumn}, {Name: "x", Type: event.DoubleColumn},
		{Name: `q"s`, Type: event.StringColumn}, {Name: "b", Type: event.BoolColumn}, {Name: "at", Type: event.TimestampColumn},
		{Name: "day", Type: event.DateColumn}, {Name: "list", Type: event.JSONColumn}, {Name: "gone", Type: event.StringColumn},
		{Name: "_offset", Type: event.LongColumn}, {Name: "_subject", Type: event.StringColumn}})
	e := &event.Event{ID: []byte("a"), Offset: 7,
		Data: []byte(` {"n":12,"x":1.5,"q\"s":"a\nb","b":true,"at":"2026-03-01T12:30:00.123456Z","day":"2026-03-01","list":[1, {"a":null}],"more":1} `)}
	want := []any{"a", int64(12), 1.5, "a\nb", true, at, time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), json.RawMessage(`[1, {"a":null}]`), nil, int64(7), nil}
	require.Equal(t, want, r.Values(e, 0))
	require.Equal(t, []any{"b", nil, nil, nil, nil, nil, nil, nil, nil, int64(8), "s"}, r.Values(&event.Event{ID: []byte("b"), Offset: 8, Subject: []byte("s"), Data: []byte(`{"n":"x"}`)}, 0),
		"nothing of the row before is left, and what does not fit is null")
	require.Nil(t, r.Values(&event.Event{Data: []byte(`{"n":1`)}, 0)[1])
}

func TestAppendJSON(t *testing.T) {
	e := &event.Event{ID: []byte("a"), Type: []byte("t"), Source: []byte("s"), Time: at, ReceivedAt: at, Offset: 3, Data: []byte(` { "n" : 1 } `)}
	for _, c := range []struct {
		columns []event.Column
		data    string
		want    string
	}{
		{[]event.Column{{Name: "n", Type: event.LongColumn}, {Name: "_id", Type: event.StringColumn}}, `{"n":1}`, `{"_id":"a","n":1}`},
		{[]event.Column{{Name: "n", Type: event.LongColumn}}, `{}`, `{}`},
		{nil, ` { "n" : 1 } `, `{"_id":"a","_type":"t","_source":"s","_time":"2026-03-01T12:30:00.123456Z","_received_at":"2026-03-01T12:30:00.123456Z","_partition":2,"_offset":3, "n" : 1 }`},
		{[]event.Column{}, `[1]`, `{"data":[1]}`},
		{[]event.Column{}, "a\xffb", `{"data":"a` + "�" + `b"}`},
		{[]event.Column{}, ``, `{}`},
		{[]event.Column{}, "{\r\n \"n\": \"a\\n\"\n}\n", `{   "n": "a\n" }`},
	} {
		e.Data = []byte(c.data)
		got := string(AppendJSON(nil, c.columns, e, 2))
		require.Equal(t, c.want, got)
		require.True(t, json.Valid([]byte(got)))
	}
	e.Data, e.ContentType = []byte("{a\nb}"), []byte("text/plain")
	require.Equal(t, `{"data":"{a\nb}"}`, string(AppendJSON(nil, []event.Column{}, e, 2)))
}
