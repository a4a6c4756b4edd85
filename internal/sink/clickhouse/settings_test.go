package clickhouse

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/sink/sinktest"
)

func TestPage(t *testing.T) { sinktest.Page(t, Kind(), "../../../docs/sinks/clickhouse.md") }

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		want   string
		change func(*Settings)
	}{
		{"", func(*Settings) {}},
		{"", func(s *Settings) { s.Engine = "ReplicatedReplacingMergeTree('/tables/{uuid}', '{replica}')" }},
		{"url: is missing, as in http://127.0.0.1:8123", func(s *Settings) { s.URL = "" }},
		{"url: must be http://host:8123 or https://host:8443", func(s *Settings) { s.URL = "tcp://u:secret@h" }},
		{"url: has a password in it", func(s *Settings) { s.URL = "http://u:secret@h" }},
		{"url: has a password in it", func(s *Settings) { s.URL = "http://h/?password=secret" }},
		{"url: has a user in it", func(s *Settings) { s.URL = "http://u@h" }},
		{"url: takes no parameters", func(s *Settings) { s.URL = "http://h/?database=d" }},
		{"table: is missing", func(s *Settings) { s.Table = "" }},
		{`table: "a.b.c" is neither table nor database.table`, func(s *Settings) { s.Table = "a.b.c" }},
		{`engine: "MergeTree; DROP TABLE t" is none`, func(s *Settings) { s.Engine = "MergeTree; DROP TABLE t" }},
		{"row_key: _id is a column of the event's own", func(s *Settings) { s.RowKey = "_id" }},
		{"timeout: must be more than 0s", func(s *Settings) { s.Timeout = 0 }},
	} {
		s := defaults()
		s.URL, s.Table = "http://h:8123", "shop.orders"
		c.change(s)
		if err := s.Validate(); c.want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "secret")
		}
	}
}

func TestPasswordIsMissing(t *testing.T) {
	s := defaults()
	s.URL, s.Table, s.PasswordEnv = "http://127.0.0.1:1", "t", "SHOP_PASSWORD"
	sinktest.NoPassword(t, s)
}

func TestRow(t *testing.T) {
	columns := []event.Column{{Name: "_id", Type: event.StringColumn}, {Name: `a"b`, Type: event.LongColumn}, {Name: "x", Type: event.DoubleColumn}, {Name: "j", Type: event.JSONColumn},
		{Name: "at", Type: event.TimestampColumn}, {Name: "day", Type: event.DateColumn}, {Name: "no", Type: event.StringColumn}, {Name: "b", Type: event.BoolColumn}}
	var q queue
	q.columnsAre(columns)
	e := &event.Event{ID: []byte("i\xff"), Offset: 7, Row: 2, Data: []byte(`{"a\"b":-9223372036854775808,"x":1e300,"j":{"a":"\u0000"},"at":"2026-03-01T12:30:00.5+01:00","day":"2026-03-01","b":true}`)}
	at := event.Position{Incarnation: sinktest.Lives[0], Offset: 7}
	q.add(e, at, "_key")
	require.Equal(t, `{"_id":"i`+"\uFFFD"+`","a\"b":-9223372036854775808,"x":1e+300,"j":"{\"a\":\"\\u0000\"}","at":"2026-03-01T11:30:00.5Z","day":"2026-03-01","no":null,"b":true,"_key":"a1000000000000000000000000000000/0/7/2"}`+"\n", string(q.data))
	require.True(t, json.Valid(q.data))
	for i, data := range []string{`{"at":"1899-12-31T23:59:59Z"}`, `{"day":"2300-01-01"}`, `{"at":"1900-01-01T00:00:00Z","day":"2299-12-31"}`} {
		e.Data = []byte(data)
		q.add(e, at, "")
		require.Equal(t, i < 2, q.lines[i+1].refused != "", data)
	}
	require.Equal(t, 2, strings.Count(string(q.text(0, 4)), "\n"))
	require.Equal(t, "column at: 1899-12-31 is outside what ClickHouse holds, 1900 to 2299", q.lines[1].refused)
	q.lines[0].refused = "by the server"
	require.Equal(t, 1, strings.Count(string(q.text(0, 4)), "\n"))
}

func TestClassify(t *testing.T) {
	of := func(status, code int) error { return fmt.Errorf("insert: %w", &serverError{status, code, "m"}) }
	for _, code := range []int{6, 27, 38, 41, 53, 72, 117, 349, 469, 691} {
		require.True(t, refuses(of(400, code)), code)
	}
	for _, code := range []int{159, 202, 209, 210, 241, 242, 243, 252, 319, 394, 999} {
		require.False(t, refuses(of(500, code)), code)
		require.True(t, fault.IsTransient(classify(of(500, code))), code)
	}
	for _, code := range []int{16, 60, 81, 497, 516} {
		require.False(t, refuses(of(404, code)), code)
		require.False(t, fault.IsTransient(classify(of(404, code))), code)
		require.NotEmpty(t, fault.HintOf(classify(of(404, code))), code)
	}
	require.True(t, fault.IsTransient(classify(of(502, 0))), "a proxy")
	require.False(t, fault.IsTransient(classify(of(404, 0))), "another server")
	require.True(t, fault.IsTransient(classify(errors.New("connection reset by peer"))))
}

func TestShort(t *testing.T) {
	require.Equal(t, "Cannot parse input: expected '\"' before: 'x': (at row 1)", short("500 Internal Server Error",
		"Code: 27. DB::Exception: Code: 27. DB::Exception: Cannot parse input: expected '\"' before: 'x': (at row 1)\n: While executing ParallelParsingBlockInputFormat: data for INSERT was parsed from query. (CANNOT_PARSE) (version 26.9.2.1)."))
	require.Equal(t, "502 Bad Gateway", short("502 Bad Gateway", " \n"))
	require.Len(t, short("", strings.Repeat("x", 5000)), 504)
}

// The password goes nowhere else, and an answer is read to a bound.
func TestRedirect(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer other.Close()
	srv := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer srv.Close()
	s := defaults()
	s.URL = srv.URL
	_, err := newClient(s, "hunter2").query(t.Context(), "SELECT 1", nil)
	require.ErrorContains(t, err, "307")
	require.Contains(t, fault.HintOf(classify(err)), "see that url names the HTTP interface of ClickHouse")
}
