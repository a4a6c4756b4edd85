package elasticsearch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/sink"
	"naru/internal/sink/secure"
	"naru/internal/sink/sinktest"
	"naru/internal/vfs"
)

var life = sinktest.Lives[0]

const key = "a1000000000000000000000000000000/0/"

func settings(d *double) *Settings {
	s := defaults()
	s.URL, s.Index, s.Timeout = d.URL, "rows-{_time:%Y.%m.%d}", quantity.Duration(5*time.Second)
	s.wait = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	return s
}

func env() sink.Env {
	return sink.Env{Pipeline: "edits", Name: "elasticsearch", Stream: sinktest.Stream, FS: vfs.OS(), Getenv: func(string) string { return "" }}
}

func opened(t *testing.T, s *Settings) sink.Sink {
	t.Helper()
	require.NoError(t, s.Validate())
	out, err := s.Open(t.Context(), env())
	require.NoError(t, err)
	t.Cleanup(func() { _ = out.Close() })
	return out
}

// A double holds no row twice, so the suite runs as for an exact sink.
func TestConformance(t *testing.T) {
	for name, change := range map[string]func(*Settings){
		"plain": func(*Settings) {},
		"small": func(s *Settings) { s.Batch, s.BatchBytes = 3, 2<<10 },
		"types": func(s *Settings) { s.Index = "rows-{_type}" },
	} {
		t.Run(name, func(t *testing.T) {
			sinktest.Run(t, func(t *testing.T) sinktest.Harness {
				d := newDouble(t)
				s := settings(d)
				change(s)
				return sinktest.Harness{
					Exact: name != "small", // which sends before Commit
					Open:  func(t *testing.T) sink.Sink { return opened(t, s) },
					IDs:   func(*testing.T) []string { return d.ids() },
					Refuse: func(ids ...string) {
						for _, id := range ids {
							d.mu.refuse[id] = true
						}
					},
				}
			})
		})
	}
}

func TestPage(t *testing.T) { sinktest.Page(t, Kind(), "../../../docs/sinks/elasticsearch.md") }

func sorted(ids []string) []string {
	slices.Sort(ids)
	return ids
}

// The connection is cut at any byte: no row is missing and none is there twice.
func TestCutAnywhere(t *testing.T) {
	whole := cut(t, -1)
	for n := 1; n <= whole+40; n += whole/40 + 1 {
		cut(t, n)
	}
}

func cut(t *testing.T, n int) int {
	d := newDouble(t)
	s := settings(d)
	s.Attempts = 2
	w := sinktest.NewWire()
	s.transport = &http.Transport{DialContext: w.Dial}
	out := opened(t, s)
	before := w.Passed()
	w.CutAfter(n)
	a := sinktest.Events("a", 7)
	b := sinktest.Batch(life, 0, 0, a...)
	require.NoError(t, out.Write(t.Context(), b))
	_, err := out.Commit(t.Context())
	if err != nil {
		require.True(t, fault.IsTransient(err), err)
	}
	whole := w.Passed() - before
	_ = out.Close()
	s.transport = nil
	sinktest.Put(t, opened(t, s), b)
	require.Equal(t, sinktest.IDs(a), sorted(d.ids()), "cut after %d bytes: %v", n, err)
	return whole
}

// Two writers of one reader write the same documents.
func TestZombie(t *testing.T) {
	d := newDouble(t)
	s := settings(d)
	a := sinktest.Events("a", 5)
	b := sinktest.Batch(life, 0, 0, a...)
	old, young := opened(t, s), opened(t, s)
	require.NoError(t, old.Write(t.Context(), b))
	sinktest.Put(t, young, b)
	d.mu.docs["rows-2015.09.12"][key+"2/0"]["changed"] = true // by somebody, since
	_, err := old.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, sinktest.IDs(a), sorted(d.ids()))
	require.Equal(t, true, d.doc("rows-2015.09.12", key+"2/0")["changed"], "a document that is there is left alone")
	require.Empty(t, old.(sink.Refuser).Refused())
}

// Rows that the target has no room for are sent again, and they alone.
func TestItemsWithoutRoom(t *testing.T) {
	d := newDouble(t)
	full := map[string]int{key + "1/0": 1, key + "3/0": 2}
	d.item = func(id string) (int, string) {
		if full[id] > 0 {
			full[id]--
			return http.StatusTooManyRequests, "es_rejected_execution_exception"
		}
		return 0, ""
	}
	s := settings(d)
	a := sinktest.Events("a", 5)
	sinktest.Put(t, opened(t, s), sinktest.Batch(life, 0, 0, a...))
	require.Equal(t, sinktest.IDs(a), sorted(d.ids()))
	require.Equal(t, []int{5, 2, 1}, d.mu.requests)

	full[key+"7/0"] = 1000
	out := opened(t, s)
	require.NoError(t, out.Write(t.Context(), sinktest.Batch(life, 0, 5, sinktest.Events("b", 5)...)))
	_, err := out.Commit(t.Context())
	require.ErrorContains(t, err, "send 1 rows from a1000000-0000-0000-0000-000000000000/0/7")
	require.True(t, fault.IsTransient(err))
	_, err = out.Commit(t.Context())
	require.ErrorIs(t, err, errBroken)
}

// What is wrong with a row is a refusal; what is wrong with the target stops the sink.
func TestErrorsOfItems(t *testing.T) {
	for _, c := range []struct {
		status     int
		kind, hint string
		refused    bool
	}{
		{400, "document_parsing_exception", "", true},
		{400, "strict_dynamic_mapping_exception", "", true},
		{400, "illegal_argument_exception", "", true},
		{413, "too_large", "", true},
		{400, "index_closed_exception", "open the index", false},
		{400, "validation_exception", "number of shards", false},
		{401, "security_exception", "password_env", false},
		{403, "cluster_block_exception", "full disk", false},
		{404, "index_not_found_exception", "create the index", false},
	} {
		d := newDouble(t)
		d.item = func(id string) (int, string) {
			if id == key+"1/0" {
				return c.status, c.kind
			}
			return 0, ""
		}
		out := opened(t, settings(d))
		require.NoError(t, out.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 3)...)))
		_, err := out.Commit(t.Context())
		refused := out.(sink.Refuser).Refused()
		if !c.refused {
			require.ErrorContains(t, err, c.kind)
			require.Contains(t, fault.HintOf(err), c.hint)
			require.Empty(t, refused)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, []sink.Refusal{{At: event.Position{Incarnation: life, Offset: 1}, Detail: c.kind + ": as the test wants it"}}, refused)
		require.Equal(t, []string{"a-0", "a-2"}, sorted(d.ids()))
	}
}

// Answers to whole requests.
func TestErrorsOfRequests(t *testing.T) {
	for _, c := range []struct {
		status    int
		body      string
		transient bool
		err, hint string
	}{
		{503, ``, true, "503 Service Unavailable", ""},
		{429, `{"error":{"type":"circuit_breaking_exception","reason":"too much"}}`, true, "circuit_breaking_exception: too much", ""},
		{400, `{"error":"bad"}`, false, `"bad"`, "is url of the sink"},
		{401, `{"error":{"type":"security_exception","reason":"no"}}`, false, "security_exception: no", "api_key_env"},
		{404, ``, false, "404", "create the index"},
		{301, ``, false, "301", "redirects are not followed"},
		{200, `{"items":[]}`, true, "it has 0 results for 2 rows", ""},
		{200, `{"items":[{},{}]}`, true, "result 0 has 0 actions", ""},
		{200, `<html>`, true, "read answer: invalid character", ""},
	} {
		d := newDouble(t)
		var asked atomic.Int64
		d.answer = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodGet {
				return false
			}
			asked.Add(1)
			w.WriteHeader(c.status)
			fmt.Fprint(w, c.body)
			return true
		}
		s := settings(d)
		s.Attempts = 3
		out := opened(t, s)
		require.NoError(t, out.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 2)...)))
		_, err := out.Commit(t.Context())
		require.ErrorContains(t, err, c.err)
		require.Equal(t, c.transient, fault.IsTransient(err), err)
		require.Contains(t, fault.HintOf(err), c.hint)
		require.EqualValues(t, map[bool]int{true: 3, false: 1}[c.transient], asked.Load())
		require.Empty(t, d.ids())
	}
}

func TestRetryAfter(t *testing.T) {
	d := newDouble(t)
	d.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			w.Header().Set("Retry-After", "120")
			w.WriteHeader(http.StatusTooManyRequests)
		}
		return r.Method == http.MethodPost
	}
	out := opened(t, settings(d))
	require.NoError(t, out.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 2)...)))
	_, err := out.Commit(t.Context())
	var after *fault.RetryAfter
	require.ErrorAs(t, err, &after)
	require.Equal(t, 2*time.Minute, after.After)
}

// A request that is too large goes in halves; a row that is too large is refused.
func TestTooLarge(t *testing.T) {
	d := newDouble(t)
	d.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.ContentLength > 1500 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return true
		}
		return false
	}
	out := opened(t, settings(d))
	all := append(sinktest.Events("a", 20), sinktest.Spec{ID: "large", Type: "x", Data: `{"text":"` + strings.Repeat("x", 2000) + `"}`})
	sinktest.Put(t, out, sinktest.Batch(life, 0, 0, all...))
	require.Equal(t, sinktest.IDs(all[:20]), sorted(d.ids()))
	refused := out.(sink.Refuser).Refused()
	require.Len(t, refused, 1)
	require.EqualValues(t, 20, refused[0].At.Offset)
}

func TestDocuments(t *testing.T) {
	d := newDouble(t)
	s := settings(d)
	s.Index = "rows"
	out := opened(t, s)
	sinktest.Put(t, out, sinktest.Batch(life, 0, 0,
		sinktest.Spec{ID: "a", Type: "t", Data: "{\"n\": {\n\"deep\": [1, null]}, \"s\": \"x\\ny\", \"none\": null}\n"},
		sinktest.Spec{ID: "b", Type: "t", Data: `{"@timestamp":"2020-01-01T00:00:00Z"}`},
		sinktest.Spec{ID: "c", Type: "t", Data: "no JSON \xff"},
		sinktest.Spec{ID: "d", Type: "t", Data: `[1,2]`},
		sinktest.Spec{ID: "e", Type: "t", Data: `{"_source":"mine"}`},
		sinktest.Spec{ID: "f", Type: "t", Data: `{"naru":1}`},
		sinktest.Spec{ID: "g", Type: "t"}))
	require.Equal(t, map[string]any{"n": map[string]any{"deep": []any{1.0, nil}}, "s": "x\ny", "@timestamp": "2015-09-12T09:59:00Z",
		"naru": map[string]any{"key": key + "0/0", "id": "a", "type": "t", "source": "/test", "received_at": "2015-09-12T10:00:00Z", "partition": 0.0, "offset": 0.0}}, d.doc("rows", key+"0/0"))
	require.Equal(t, "2020-01-01T00:00:00Z", d.doc("rows", key+"1/0")["@timestamp"])
	require.Equal(t, "no JSON \ufffd", d.doc("rows", key+"2/0")["data"])
	require.Equal(t, []any{1.0, 2.0}, d.doc("rows", key+"3/0")["data"])
	require.NotNil(t, d.doc("rows", key+"6/0"))
	refused := out.(sink.Refuser).Refused()
	require.Len(t, refused, 2)
	slices.SortFunc(refused, func(a, b sink.Refusal) int { return int(a.At.Offset - b.At.Offset) })
	require.Contains(t, refused[0].Detail, "metadata field")
	require.Contains(t, refused[1].Detail, "set envelope of the sink")
}

// With an id of the user's, later rows replace earlier ones.
func TestIDOfAColumn(t *testing.T) {
	d := newDouble(t)
	s := settings(d)
	s.Index, s.ID, s.Envelope = "orders", "order-{order}", ""
	columns := []event.Column{{Name: "order", Type: event.LongColumn}, {Name: "state", Type: event.StringColumn}}
	out := opened(t, s)
	sinktest.Put(t, out, &event.Batch{Stream: sinktest.Stream, Incarnation: life, Next: 3, Columns: columns, Rows: event.RowsOf(
		event.Event{Offset: 0, Time: time.Unix(0, 0), Data: []byte(`{"order":7,"state":"new"}`)},
		event.Event{Offset: 1, Time: time.Unix(1, 0), Data: []byte(`{"order":7,"state":"paid"}`)},
		event.Event{Offset: 2, Time: time.Unix(1, 0), Data: []byte(`{"state":"lost"}`)},
	)})
	require.Equal(t, map[string]any{"order": 7.0, "state": "paid", "@timestamp": "1970-01-01T00:00:01Z"}, d.doc("orders", "order-7"))
	refused := out.(sink.Refuser).Refused()
	require.Len(t, refused, 1)
	require.Contains(t, refused[0].Detail, "order is null")

	s.ID = "{gone}"
	out = opened(t, s)
	require.ErrorContains(t, out.Write(t.Context(), &event.Batch{Columns: columns, Rows: event.RowsOf(event.Event{})}), "the steps give no column gone")
}

func TestLogin(t *testing.T) {
	d := newDouble(t)
	s := settings(d)
	s.User, s.PasswordEnv = "naru", "ES_PASSWORD"
	require.NoError(t, s.Validate())
	_, err := s.Open(t.Context(), env())
	require.ErrorContains(t, err, "ES_PASSWORD is empty")
	e := env()
	e.Getenv = func(name string) string { return "secret-" + name }
	d.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, _ := r.BasicAuth(); user == "naru" && password == "secret-ES_PASSWORD" || r.Header.Get("Authorization") == "ApiKey secret-ES_KEY" {
			return false
		}
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	out, err := s.Open(t.Context(), e)
	require.NoError(t, err)
	sinktest.Put(t, out, sinktest.Batch(life, 0, 0, sinktest.Events("a", 1)...))
	s.User, s.PasswordEnv, s.APIKeyEnv = "", "", "ES_KEY"
	out, err = s.Open(t.Context(), e)
	require.NoError(t, err)
	sinktest.Put(t, out, sinktest.Batch(life, 0, 1, sinktest.Events("b", 1)...))
	s.APIKeyEnv = "OTHER"
	_, err = s.Open(t.Context(), e)
	require.ErrorContains(t, err, "the target answers 401")
	require.NotContains(t, err.Error(), "secret-")
}

// A target that hangs holds up a stop for no moment.
func TestStopDuringAHang(t *testing.T) {
	d := newDouble(t)
	arrived, over := make(chan struct{}), make(chan struct{})
	d.answer = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet {
			return false
		}
		close(arrived)
		<-over
		return true
	}
	defer close(over)
	out := opened(t, settings(d))
	require.NoError(t, out.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 1)...)))
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-arrived; cancel(errors.New("the server stops")) }()
	_, err := out.Commit(ctx)
	require.ErrorContains(t, err, "the server stops")
}

func TestValidate(t *testing.T) {
	for want, change := range map[string]func(*Settings){
		"url: is missing":                     func(s *Settings) { s.URL = "" },
		"url: must be http://":                func(s *Settings) { s.URL = "es:9200" },
		"url: a password does not belong":     func(s *Settings) { s.URL = "http://u:p@es:9200" },
		"url: ends with the path":             func(s *Settings) { s.URL = "http://es:9200?a=b" },
		"index: is missing":                   func(s *Settings) { s.Index = "" },
		`index: "Rows" is no name of an inde`: func(s *Settings) { s.Index = "Rows" },
		`index: "_a" begins with`:             func(s *Settings) { s.Index = "_a" },
		`index: "{a" has a brace`:             func(s *Settings) { s.Index = "{a" },
		"id: all rows would be one document":  func(s *Settings) { s.ID = "a" },
		"envelope: must not begin":            func(s *Settings) { s.Envelope = "_naru" },
		"batch: must be":                      func(s *Settings) { s.Batch = 0 },
		"batch_bytes: must be":                func(s *Settings) { s.BatchBytes = 1 << 30 },
		"timeout: must be":                    func(s *Settings) { s.Timeout = 1 },
		"attempts: must be":                   func(s *Settings) { s.Attempts = 0 },
		"user: goes together":                 func(s *Settings) { s.User = "u" },
		"api_key_env: goes in place of":       func(s *Settings) { s.User, s.PasswordEnv, s.APIKeyEnv = "u", "p", "k" },
		"tls.enabled: wants a url with https": func(s *Settings) { s.TLS = secure.TLS{Enabled: true} },
	} {
		s := defaults()
		s.URL, s.Index = "http://127.0.0.1:9200", "rows"
		change(s)
		require.ErrorContains(t, s.Validate(), want)
	}
}
