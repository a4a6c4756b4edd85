package redis

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/sink"
	"naru/internal/sink/secure"
	"naru/internal/sink/sinktest"
	"naru/internal/vfs"
)

// server gives the address that a test runs on: Redis where test-world/engines/with
// has started it, else a double inside the process.
func server(t *testing.T) string {
	if os.Getenv("NARU_TEST_REDIS") != "" || os.Getenv("NARU_TEST_ENGINES") != "" {
		return sinktest.Engine(t, "redis")
	}
	return miniredis.RunT(t).Addr()
}

var number atomic.Int64

// settings of a sink with keys of its own, on a server: tests share a real one.
func settings(t *testing.T, address string) *Settings {
	s := defaults()
	own := fmt.Sprintf("%s-%d-%d", t.Name(), os.Getpid(), number.Add(1))
	s.Address, s.Key, s.PositionsKey = address, own+":rows", own+":positions"
	s.Timeout = quantity.Duration(5 * time.Second)
	return s
}

func env() sink.Env {
	return sink.Env{Pipeline: "edits", Name: "redis", Stream: sinktest.Stream, Reader: "pipeline/edits/redis", FS: vfs.OS(),
		Getenv: func(string) string { return "" }}
}

func opened(t *testing.T, s *Settings) sink.Sink {
	t.Helper()
	require.NoError(t, s.Validate())
	out, err := s.Open(t.Context(), env())
	require.NoError(t, err)
	t.Cleanup(func() { _ = out.Close() })
	return out
}

// ask sends one command to a server.
func ask(t *testing.T, s *Settings, args ...string) any {
	t.Helper()
	plain := *s
	plain.dial = nil
	dial, err := plain.dialer(env())
	require.NoError(t, err)
	c, err := dial(t.Context())
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	answer, err := c.do(t.Context(), args...)
	require.NoError(t, err, args)
	return answer
}

func texts(v any) (out []string) {
	for _, x := range v.([]any) {
		out = append(out, fmt.Sprint(x))
	}
	return out
}

// idsOf are the ids of what stands under the keys that begin with a prefix.
func idsOf(t *testing.T, s *Settings, prefix string) (ids []string) {
	t.Helper()
	id := func(text string) string {
		var v struct {
			ID string `json:"_id"`
		}
		_ = json.Unmarshal([]byte(text), &v)
		return v.ID
	}
	escaped := strings.NewReplacer("[", `\[`, "*", `\*`, "?", `\?`).Replace(prefix)
	for _, key := range texts(ask(t, s, "KEYS", escaped+"*")) {
		switch ask(t, s, "TYPE", key) {
		case "stream":
			for _, entry := range ask(t, s, "XRANGE", key, "-", "+").([]any) {
				for pair := range slices.Chunk(texts(entry.([]any)[1]), 2) {
					switch pair[0] {
					case "_id":
						ids = append(ids, pair[1])
					case "row":
						ids = append(ids, id(pair[1]))
					}
				}
			}
		case "hash":
			ids = append(ids, ask(t, s, "HGET", key, "_id").(string))
		case "string":
			if text := ask(t, s, "GET", key).(string); text != taken {
				ids = append(ids, id(text))
			}
		case "list":
			for _, text := range texts(ask(t, s, "LRANGE", key, "0", "-1")) {
				ids = append(ids, id(text))
			}
		}
	}
	slices.Sort(ids)
	return ids
}

// taken is the value of keys that the tests put in the sink's way.
const taken = "taken"

func TestConformance(t *testing.T) {
	for name, change := range map[string]func(*Settings){
		"stream": func(*Settings) {},
		"json":   func(s *Settings) { s.Format, s.Key = "json", s.Key+":{_type}:{_time:%Y%m%d}" },
		"hash":   func(s *Settings) { s.Mode, s.Key, s.TTL = modeHash, s.Key+":{_id}", quantity.Duration(time.Hour) },
		"string": func(s *Settings) { s.Mode, s.Key, s.TTL = modeString, s.Key+":{_id}", quantity.Duration(time.Hour) },
		"list":   func(s *Settings) { s.Mode, s.MaxLen = modeList, 1000 },
	} {
		t.Run(name, func(t *testing.T) {
			sinktest.Run(t, func(t *testing.T) sinktest.Harness {
				s := settings(t, server(t))
				prefix := s.Key
				change(s)
				h := sinktest.Harness{
					Exact: true,
					Open:  func(t *testing.T) sink.Sink { return opened(t, s) },
					IDs:   func(t *testing.T) []string { return idsOf(t, s, prefix) },
				}
				if name == "hash" {
					h.Refuse = func(ids ...string) {
						for _, id := range ids {
							ask(t, s, "SET", prefix+":"+id, taken)
						}
					}
				}
				return h
			})
		})
	}
}

func TestPage(t *testing.T) { sinktest.Page(t, Kind(), "../../../docs/sinks/redis.md") }

// Two writers of one reader: the one that is behind changes nothing, not even when
// the other has committed between its Prepare and its Commit.
func TestZombie(t *testing.T) {
	s := settings(t, server(t))
	a, b := sinktest.Events("a", 4), sinktest.Events("b", 3)
	first := sinktest.Batch(sinktest.Lives[0], 0, 0, a...)
	second := sinktest.Batch(sinktest.Lives[0], 0, first.Next, b...)
	old, older, young := opened(t, s), opened(t, s), opened(t, s)
	require.NoError(t, old.Write(t.Context(), first))
	require.NoError(t, older.Write(t.Context(), first))
	require.NoError(t, older.(sink.Preparer).Prepare(t.Context()))
	sinktest.Put(t, young, first)
	_, err := older.Commit(t.Context())
	require.ErrorContains(t, err, "was changed by somebody else")
	_, err = old.Commit(t.Context())
	require.ErrorContains(t, err, "this sink continues {}")
	require.Contains(t, fault.HintOf(err), "positions_key")
	_, err = old.Commit(t.Context())
	require.Error(t, err, "what has failed once commits nothing any more")
	sinktest.Put(t, young, second)
	require.Equal(t, sinktest.IDs(a, b), idsOf(t, s, s.Key))
}

// The connection is cut at any byte of the commit, also where its answer is lost.
func TestCutAnywhere(t *testing.T) {
	whole := cut(t, -1)
	points := []int{1}
	for n := whole / 20; n < whole-60; n += whole / 20 {
		points = append(points, n)
	}
	for n := whole - 60; n <= whole; n += 3 {
		points = append(points, n)
	}
	for _, n := range points {
		t.Run(fmt.Sprint(n), func(t *testing.T) { cut(t, n) })
	}
}

func cut(t *testing.T, n int) int {
	s := settings(t, server(t))
	w := sinktest.NewWire()
	s.dial = w.Dial
	a, b := sinktest.Events("a", 4), sinktest.Events("b", 3)
	first := sinktest.Batch(sinktest.Lives[0], 0, 0, a...)
	out := opened(t, s)
	sinktest.Put(t, out, first)

	before := w.Passed()
	w.CutAfter(n)
	require.NoError(t, out.Write(t.Context(), sinktest.Batch(sinktest.Lives[0], 0, first.Next, b...)))
	_, err := out.Commit(t.Context())
	t.Logf("cut after %d bytes: %v", n, err)
	whole := w.Passed() - before
	_ = out.Close()

	// A server may make what it was sent before the cut at any moment later, also
	// between the opening of the next sink and its commit: that one opens again, as the
	// pipeline does. It happens once at most.
	s.dial = nil
	all := sinktest.Batch(sinktest.Lives[0], 0, 0, slices.Concat(a, b)...)
	out = opened(t, s)
	require.NoError(t, out.Write(t.Context(), all))
	if _, err = out.Commit(t.Context()); err != nil {
		require.Regexp(t, "this sink continues|was changed by somebody else", err)
		require.True(t, fault.IsTransient(err), err)
		sinktest.Put(t, opened(t, s), all)
	}
	require.Equal(t, sinktest.IDs(a, b), idsOf(t, s, s.Key))
	return whole
}

// A server that hangs up on silent clients fails nothing.
func TestHangUpBetweenCommits(t *testing.T) {
	s := settings(t, server(t))
	w := sinktest.NewWire()
	s.dial = w.Dial
	out := opened(t, s)
	a := sinktest.Events("a", 4)
	sinktest.Put(t, out, sinktest.Batch(sinktest.Lives[0], 0, 0, a[:2]...))
	w.HangUp()
	sinktest.Put(t, out, sinktest.Batch(sinktest.Lives[0], 0, 2, a[2:]...))
	require.Equal(t, sinktest.IDs(a), idsOf(t, s, s.Key))
}

// A server that has lost its last moments comes back with rows and positions of
// before: the sink notices, and what is read again is written again.
func TestServerSetBack(t *testing.T) {
	s := settings(t, server(t))
	out := opened(t, s)
	a := sinktest.Events("a", 6)
	sinktest.Put(t, out, sinktest.Batch(sinktest.Lives[0], 0, 0, a[:2]...))
	kept := ask(t, s, "HGETALL", s.PositionsKey)
	sinktest.Put(t, out, sinktest.Batch(sinktest.Lives[0], 0, 2, a[2:4]...))
	entries := ask(t, s, "XREVRANGE", s.Key, "+", "-", "COUNT", "2").([]any)
	for _, e := range entries {
		ask(t, s, "XDEL", s.Key, e.([]any)[0].(string))
	}
	ask(t, s, append([]string{"HSET", s.PositionsKey}, texts(kept)...)...)

	last := sinktest.Batch(sinktest.Lives[0], 0, 4, a[4:]...)
	require.NoError(t, out.Write(t.Context(), last))
	_, err := out.Commit(t.Context())
	require.ErrorContains(t, err, "this sink continues")
	out = opened(t, s)
	at, err := out.(sink.Resumer).Resume(t.Context(), sinktest.Stream)
	require.NoError(t, err)
	off, _ := at.Get(sinktest.Lives[0], 0)
	require.EqualValues(t, 2, off)
	sinktest.Put(t, out, sinktest.Batch(sinktest.Lives[0], 0, 2, a[2:]...))
	require.Equal(t, sinktest.IDs(a), idsOf(t, s, s.Key))
}

// A key that becomes something else behind Prepare's back fails its rows alone.
func TestKeyChangesBeforeTheCommit(t *testing.T) {
	s := settings(t, server(t))
	s.Mode, s.Key = modeHash, s.Key+":{_id}"
	out := opened(t, s)
	b := sinktest.Batch(sinktest.Lives[0], 0, 0, sinktest.Events("a", 3)...)
	require.NoError(t, out.Write(t.Context(), b))
	require.NoError(t, out.(sink.Preparer).Prepare(t.Context()))
	require.Empty(t, out.(sink.Refuser).Refused())
	prefix := strings.TrimSuffix(s.Key, "{_id}")
	ask(t, s, "SET", prefix+"a-1", taken)
	_, err := out.Commit(t.Context())
	require.NoError(t, err)
	refused := out.(sink.Refuser).Refused()
	require.Len(t, refused, 1)
	require.EqualValues(t, 1, refused[0].At.Offset)
	require.Contains(t, refused[0].Detail, "WRONGTYPE")
	require.Equal(t, []string{"a-0", "a-2"}, idsOf(t, s, prefix))
}

func TestValues(t *testing.T) {
	s := settings(t, server(t))
	s.Mode, s.Key, s.TTL = modeHash, s.Key+":{user}", quantity.Duration(time.Hour)
	out := opened(t, s)
	b := &event.Batch{Stream: sinktest.Stream, Incarnation: sinktest.Lives[0], Next: 9,
		Columns: []event.Column{{Name: "user", Type: event.LongColumn}, {Name: "name", Type: event.StringColumn}, {Name: "tags", Type: event.JSONColumn}, {Name: "_time", Type: event.TimestampColumn}},
		Rows: event.RowsOf(
			event.Event{Offset: 7, Time: time.Unix(0, 0), Data: []byte(`{"user":7,"name":"a\r\nb","tags":["x"]}`)},
			event.Event{Offset: 8, Time: time.Unix(1, 0), Data: []byte(`{"user":7,"name":"c"}`)},
			event.Event{Offset: 8, Row: 1, Data: []byte(`{"name":"nobody"}`)},
		)}
	sinktest.Put(t, out, b)
	key := strings.TrimSuffix(s.Key, "{user}") + "7"
	got := map[string]string{}
	for pair := range slices.Chunk(texts(ask(t, s, "HGETALL", key)), 2) {
		got[pair[0]] = pair[1]
	}
	require.Equal(t, map[string]string{"user": "7", "name": "c", "_time": "1970-01-01T00:00:01Z"}, got, "a null takes the field away")
	ttl := ask(t, s, "PTTL", key).(int64)
	require.Greater(t, ttl, int64(3_500_000))
	refused := out.(sink.Refuser).Refused()
	require.Len(t, refused, 1)
	require.Contains(t, refused[0].Detail, "user is null")
	require.EqualValues(t, 1, refused[0].Row)
}

func TestMaxLen(t *testing.T) {
	s := settings(t, server(t))
	s.Mode, s.MaxLen = modeList, 3
	sinktest.Put(t, opened(t, s), sinktest.Batch(sinktest.Lives[0], 0, 0, sinktest.Events("a", 9)...))
	require.Equal(t, []string{"a-6", "a-7", "a-8"}, idsOf(t, s, s.Key))
}

func TestLargeCommit(t *testing.T) {
	s := settings(t, server(t))
	out := opened(t, s)
	var all []sinktest.Spec
	for i := range 20_000 {
		all = append(all, sinktest.Spec{ID: fmt.Sprintf("e-%05d", i), Type: "x", Data: `{"text":"` + strings.Repeat("y", 100) + `"}`})
	}
	sinktest.Put(t, out, sinktest.Batch(sinktest.Lives[0], 0, 0, all...))
	require.EqualValues(t, len(all), ask(t, s, "XLEN", s.Key))
}

func TestLogin(t *testing.T) {
	m := miniredis.RunT(t)
	m.RequireUserAuth("naru", "secret")
	s := settings(t, m.Addr())
	require.NoError(t, s.Validate())
	_, err := s.Open(t.Context(), env())
	require.ErrorContains(t, err, "NOAUTH")
	require.Contains(t, fault.HintOf(err), "password_env")
	s.User, s.PasswordEnv = "naru", "REDIS_PASSWORD"
	_, err = s.Open(t.Context(), env())
	require.ErrorContains(t, err, "REDIS_PASSWORD is empty")
	e := env()
	e.Getenv = func(string) string { return "wrong-one" }
	_, err = s.Open(t.Context(), e)
	require.ErrorContains(t, err, "WRONGPASS")
	require.NotContains(t, err.Error(), "wrong-one")
	e.Getenv = func(string) string { return "secret" }
	out, err := s.Open(t.Context(), e)
	require.NoError(t, err)
	require.NoError(t, out.Close())
}

func TestForeignPositions(t *testing.T) {
	s := settings(t, server(t))
	require.NoError(t, s.Validate())
	ask(t, s, "HSET", s.PositionsKey, "a", "b")
	_, err := s.Open(t.Context(), env())
	require.ErrorContains(t, err, `has the field "a" with "b"`)
	ask(t, s, "DEL", s.PositionsKey)
	ask(t, s, "SET", s.PositionsKey, taken)
	_, err = s.Open(t.Context(), env())
	require.ErrorContains(t, err, "WRONGTYPE")
	require.Contains(t, fault.HintOf(err), "is no hash")
}

func TestValidate(t *testing.T) {
	for want, change := range map[string]func(*Settings){
		`address: "redis" is no host:port`:       func(s *Settings) { s.Address = "redis" },
		"db: is a number":                        func(s *Settings) { s.DB = -1 },
		"mode: must be":                          func(s *Settings) { s.Mode = "set" },
		"key: is missing":                        func(s *Settings) { s.Key = "" },
		"key: all rows would go to the one hash": func(s *Settings) { s.Mode = modeHash },
		"key: \"a{\" has a brace":                func(s *Settings) { s.Key = "a{" },
		"format: must be":                        func(s *Settings) { s.Format = "xml" },
		"maxlen: is a number of entries":         func(s *Settings) { s.Mode, s.Key, s.MaxLen = modeString, "a{b}", 3 },
		"ttl: is at least 1ms":                   func(s *Settings) { s.TTL = quantity.Duration(time.Hour) },
		"timeout: must be":                       func(s *Settings) { s.Timeout = 1 },
		"password_env: is missing":               func(s *Settings) { s.User = "u" },
		"tls.enabled: must be true":              func(s *Settings) { s.TLS = secure.TLS{CA: "x"} },
	} {
		s := settings(t, "127.0.0.1:6379")
		change(s)
		require.ErrorContains(t, s.Validate(), want)
	}
	s := settings(t, "127.0.0.1:6379")
	require.True(t, Kind().Tabular(s))
	s.Format = "json"
	require.False(t, Kind().Tabular(s))
}

// What a server may answer, and what is no RESP2.
func TestRead(t *testing.T) {
	for text, want := range map[string]any{
		"+OK\r\n": "OK", ":12\r\n": int64(12), "$-1\r\n": nil, "*-1\r\n": nil, "$3\r\na\rb\r\n": "a\rb",
		"-ERR no\r\n": replyError("ERR no"), "*2\r\n:1\r\n*1\r\n+x\r\n": []any{int64(1), []any{"x"}},
	} {
		c, done := talk(text)
		got, err := c.read(0)
		done()
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "+\n", "x12\r\n", ":a\r\n", "$-2\r\n", "$99999999999\r\n", "$3\r\nab", "*99999999999\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n", strings.Repeat("x", 1<<16)} {
		c, done := talk(text)
		_, err := c.read(0)
		done()
		require.Error(t, err, text)
	}
}
