package clickhouse

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/sink"
	"naru/internal/sink/sinktest"
)

const reader = "pipeline/edits/clickhouse"

var databases atomic.Int64

// target is a database of its own in the real engine.
type target struct {
	url, db string
	client  *client
	log     bytes.Buffer // what the sinks say
}

func newTarget(t *testing.T) *target {
	x := &target{url: sinktest.Engine(t, "clickhouse"), db: fmt.Sprintf("s%d_%d", os.Getpid(), databases.Add(1))}
	x.client = newClient(&Settings{URL: x.url, User: "naru", Timeout: quantity.Duration(time.Minute)}, getenv("PASS"))
	x.exec(t, "CREATE DATABASE "+x.db)
	return x
}

func getenv(name string) string {
	if name == "PASS" {
		return os.Getenv("NARU_TEST_CLICKHOUSE_PASSWORD")
	}
	return ""
}

// exec runs a statement, with %s the database, and gives its rows, values by '|'.
func (x *target) exec(t *testing.T, sql string) (out []string) {
	t.Helper()
	rows, err := x.client.query(t.Context(), strings.ReplaceAll(sql, "%s", x.db), nil)
	require.NoError(t, err)
	for _, r := range rows {
		out = append(out, strings.Join(r, "|"))
	}
	return out
}

func (x *target) try(t *testing.T, change func(*Settings)) (sink.Sink, error) {
	s := defaults()
	s.URL, s.User, s.PasswordEnv, s.Table = x.url, "naru", "PASS", x.db+".t"
	if change != nil {
		change(s)
	}
	require.NoError(t, s.Validate())
	return s.Open(t.Context(), sink.Env{Pipeline: "edits", Name: "clickhouse", Stream: sinktest.Stream, Reader: reader, Getenv: getenv,
		Logger: slog.New(slog.NewTextHandler(&x.log, nil))})
}

func (x *target) open(t *testing.T, change func(*Settings)) sink.Sink {
	t.Helper()
	out, err := x.try(t, change)
	require.NoError(t, err)
	return out
}

func (x *target) ids(t *testing.T) []string {
	if x.exec(t, "EXISTS TABLE %s.t")[0] == "0" {
		return nil
	}
	return x.exec(t, "SELECT _id FROM %s.t")
}

func TestConformance(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		x := newTarget(t)
		return sinktest.Harness{Exact: true, Tabular: true, Narrow: true, Typed: true,
			Open: func(t *testing.T) sink.Sink { return x.open(t, nil) },
			IDs:  x.ids,
			Refuse: func(ids ...string) {
				x.exec(t, "CREATE TABLE %s.t (_id String, CONSTRAINT refuse CHECK _id NOT IN ('"+strings.Join(ids, "', '")+"')) ENGINE = MergeTree ORDER BY tuple() SETTINGS non_replicated_deduplication_window = 10")
			},
		}
	})
}

func TestTypes(t *testing.T) {
	x := newTarget(t)
	s := x.open(t, nil)
	sinktest.Put(t, s, sinktest.Table(0, "_id:string _time:timestamptz b:bool l:long d:double s:string at:timestamptz day:date j:json",
		`{"b":true,"l":9223372036854775807,"d":1.7976931348623157e308,"s":"a\"b'\\N\t😀","at":"1900-01-01T00:00:00.000001Z","day":"2299-12-31","j":{"a":[1,null]}}`, `{}`))
	require.Equal(t, []string{`_id|Nullable(String)`, `_time|Nullable(DateTime64(6, \'UTC\'))`, `b|Nullable(Bool)`, `l|Nullable(Int64)`, `d|Nullable(Float64)`, `s|Nullable(String)`,
		`at|Nullable(DateTime64(6, \'UTC\'))`, `day|Nullable(Date32)`, `j|Nullable(String)`, `_key|String`},
		x.exec(t, "SELECT name, type FROM system.columns WHERE database = '%s' AND table = 't'"))
	require.Equal(t, []string{`0|true|9223372036854775807|1.7976931348623157e308|a"b\'\\N\t😀|1900-01-01 00:00:00.000001|2299-12-31|{"a":[1,null]}|a1000000000000000000000000000000/0/0/0`,
		`1|\N|\N|\N|\N|\N|\N|\N|a1000000000000000000000000000000/0/1/0`}, x.exec(t, "SELECT _id, b, l, d, s, at, day, j, _key FROM %s.t ORDER BY _id"))
	require.NoError(t, s.Close())
	require.Empty(t, x.log.String(), "a table that naru has made remembers its inserts")
}

// What users call their columns is their own business.
func TestNames(t *testing.T) {
	x := newTarget(t)
	s := x.open(t, func(s *Settings) { s.Table, s.OrderBy = x.db+".select`\\", []string{"order"} })
	sinktest.Put(t, s, sinktest.Table(0, "order:string a`b:long A`B:long ;'user\\:string a.b:long", "{\"order\":\"1\",\"a`b\":1,\"A`B\":2,\";'user\\\\\":\"u\",\"a.b\":3}"))
	require.Equal(t, []string{"1|1|2|u|3"}, x.exec(t, "SELECT order, `a\\`b`, `A\\`B`, `;'user\\\\`, `a.b` FROM %s.`select\\`\\\\`"))
	sinktest.Put(t, s, sinktest.Table(1, "order:string more:long", `{"order":"2","more":1}`))
	require.NoError(t, s.Write(t.Context(), sinktest.Table(2, "order:string", `{"order":null}`)))
	_, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.Len(t, s.(sink.Refuser).Refused(), 1, "a column of order_by is never null")
	require.ErrorContains(t, s.Write(t.Context(), sinktest.Table(3, "order:string _key:string", `{"order":"3"}`)), "the rows have a column _key of their own")
	require.NoError(t, s.Close())
}

func TestNewColumn(t *testing.T) {
	x := newTarget(t)
	sinktest.NewColumn(t, sinktest.Database{
		Open: func(...string) sink.Sink { return x.open(t, nil) },
		Exec: func(statements ...string) (rows []string) {
			for _, sql := range statements {
				rows = x.exec(t, strings.NewReplacer(" TABLE t ", " TABLE %s.t ", " FROM t ", " FROM %s.t ").Replace(sql))
			}
			for i := range rows {
				rows[i] = strings.ReplaceAll(rows[i], `\N`, "NULL")
			}
			return rows
		},
	})
}

func TestRefusals(t *testing.T) {
	x := newTarget(t)
	x.exec(t, "CREATE TABLE %s.t (n Int8, e Enum8('a' = 1), u Nullable(UUID), must String, positive Int64 DEFAULT 1, _key String, CONSTRAINT p CHECK positive > 0) ENGINE = MergeTree ORDER BY tuple() SETTINGS non_replicated_deduplication_window = 100")
	s := x.open(t, nil)
	columns := "n:long e:string u:string must:string positive:long"
	b := sinktest.Table(0, columns,
		`{"n":1,"e":"a","must":"first","positive":1}`,
		`{"n":1,"e":"b","must":"a","positive":1}`,
		`{"n":1,"e":"a","must":"a","positive":1,"u":"none"}`,
		`{"n":1,"e":"a","positive":1}`,
		`{"n":1,"e":"a","must":"a","positive":0}`,
		`{"n":1,"e":"a","must":"last","positive":1}`)
	require.NoError(t, s.Write(t.Context(), b))
	require.NoError(t, s.(sink.Preparer).Prepare(t.Context()))
	var got []string
	for _, r := range s.(sink.Refuser).Refused() {
		got = append(got, fmt.Sprint(r.At.Offset, " ", r.Detail))
	}
	require.Len(t, got, 4, got)
	for i, want := range []string{"1 ", "2 ", "3 ", "4 Constraint `p`"} {
		require.Contains(t, got[i], want)
	}
	require.NoError(t, s.Close()) // and no commit: the pipeline has put the refusals on record

	s = x.open(t, nil)
	b.Rows = b.Rows.Only(func(r *event.Row) bool { return r.Offset == b.Rows.List[0].Offset || r.Offset == b.Rows.List[5].Offset })
	sinktest.Put(t, s, b)
	require.Equal(t, []string{"first", "last"}, x.exec(t, "SELECT must FROM %s.t ORDER BY must"))
	require.NoError(t, s.Close())
}

// What is set wrong stops the sink and says what to do; no row is refused for it.
func TestStops(t *testing.T) {
	x := newTarget(t)
	never := func(s *Settings) { s.Create = false }
	row := sinktest.Table(0, "_id:string a:long", `{"a":1}`)
	stops := func(change func(*Settings)) (string, string) {
		t.Helper()
		s, err := x.try(t, change)
		return sinktest.Stops(t, s, err, row)
	}
	text, cure := stops(never)
	require.Contains(t, text, "there is no table")
	require.Contains(t, cure, "set create: true, or run: CREATE TABLE IF NOT EXISTS `"+x.db+"`.`naru_positions` (reader String")
	x.exec(t, strings.TrimPrefix(cure, "set create: true, or run: "))
	_, cure = stops(never)
	require.Equal(t, "set create: true, or run: CREATE TABLE IF NOT EXISTS `"+x.db+"`.`t` (`_id` Nullable(String), `a` Nullable(Int64), `_key` String) ENGINE = MergeTree ORDER BY tuple() SETTINGS non_replicated_deduplication_window = 1000", cure)
	x.exec(t, "CREATE TABLE %s.t (_id String, _key String) ENGINE = MergeTree ORDER BY tuple()")
	_, cure = stops(never)
	require.Equal(t, "set create: true, or run: ALTER TABLE `"+x.db+"`.`t` ADD COLUMN IF NOT EXISTS `a` Nullable(Int64)", cure)
	_, cure = stops(func(s *Settings) { s.Table = "nowhere.t" })
	require.Equal(t, "create the database, or name another in table", cure)
	text, cure = stops(func(s *Settings) { s.User = "nobody" })
	require.Equal(t, "set user and password_env so that the user may log in", cure)
	require.NotContains(t, text, getenv("PASS"))
	require.NotContains(t, x.log.String(), "does not remember")
	sinktest.Put(t, x.open(t, nil), sinktest.Table(0, "_id:string", `{}`))
	require.Contains(t, x.log.String(), "the table does not remember its inserts")
}

// A sink that has inserted and not said so: the next one inserts the same rows once
// more, as the same block, in whatever batches they come, and then what lies behind.
func TestInsertedAgain(t *testing.T) {
	x := newTarget(t)
	columns := "_id:string a:long"
	s := x.open(t, nil)
	b := sinktest.Table(10, columns, `{"a":0}`, `{"a":1}`, `{"a":2}`, `{"a":3}`)
	require.NoError(t, s.Write(t.Context(), b))
	require.NoError(t, s.(sink.Preparer).Prepare(t.Context()))
	require.Len(t, x.ids(t), 4)
	require.NoError(t, s.Close())

	s = x.open(t, nil)
	at, err := s.(sink.Resumer).Resume(t.Context(), sinktest.Stream)
	require.NoError(t, err)
	require.Equal(t, event.Positions{b.Incarnation: {0: 10}}, at)
	require.NoError(t, s.Write(t.Context(), sinktest.Table(10, columns, `{"a":0}`, `{"a":1}`)))
	done, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Positions{b.Incarnation: {0: 10}}, done, "it waits for the rest of what was put down")
	require.Positive(t, s.(sink.Pending).PendingBytes())
	// The steps have changed meanwhile: what was inserted stays as it was.
	sinktest.Put(t, s, sinktest.Table(12, columns+" more:string", `{"a":2,"more":"x"}`, `{"a":3,"more":"x"}`, `{"a":4,"more":"x"}`))
	require.Zero(t, s.(sink.Pending).PendingBytes())
	require.Equal(t, []string{`10|0|\N`, `11|1|\N`, `12|2|\N`, `13|3|\N`, "14|4|x"}, x.exec(t, "SELECT _id, a, more FROM %s.t ORDER BY _id"))
	require.Equal(t, []string{"14|15|1"}, x.exec(t, "SELECT from_offset, to_offset, done FROM %s.naru_positions FINAL"))
	require.NoError(t, s.Close())

	// A repair has cut the life off in the middle of what was put down.
	s = x.open(t, nil)
	require.NoError(t, s.Write(t.Context(), sinktest.Table(15, columns, `{"a":5}`, `{"a":6}`)))
	require.NoError(t, s.(sink.Preparer).Prepare(t.Context()))
	require.NoError(t, s.Close())
	s = x.open(t, nil)
	later := sinktest.Table(0, columns, `{"a":7}`)
	later.Incarnation = sinktest.Lives[1]
	sinktest.Put(t, s, sinktest.Table(15, columns, `{"a":5}`), later)
	require.Equal(t, []string{"0", "1", "2", "3", "4", "5", "6", "7"}, x.exec(t, "SELECT a FROM %s.t ORDER BY a"))
	require.NoError(t, s.Close())
}

// A writer that was overtaken inserts nothing.
func TestAnotherWriter(t *testing.T) {
	x := newTarget(t)
	columns := "_id:string"
	zombie, s := x.open(t, nil), x.open(t, nil)
	b := sinktest.Table(0, columns, `{}`, `{}`)
	require.NoError(t, zombie.Write(t.Context(), b))
	sinktest.Put(t, s, b)
	_, err := zombie.Commit(t.Context())
	require.ErrorContains(t, err, "another writer has written partition 0 up to 2")
	require.True(t, fault.IsTransient(err))
	require.Error(t, zombie.Write(t.Context(), b))
	require.NoError(t, zombie.Close())
	require.Len(t, x.ids(t), 2)

	// It had put down what it inserts, and comes back when another has taken over.
	zombie = x.open(t, nil)
	c := sinktest.Table(2, columns, `{}`, `{}`)
	require.NoError(t, zombie.Write(t.Context(), c))
	z := zombie.(*Sink)
	l := life{c.Incarnation, 0}
	m, ok := z.next(l)
	require.True(t, ok)
	require.NoError(t, z.putDown(t.Context(), []life{l}, map[life]mark{l: m}))
	next := x.open(t, nil)
	sinktest.Put(t, next, c, sinktest.Table(4, columns, `{}`))
	require.NoError(t, z.insert(t.Context(), l, m, 2))
	require.Len(t, x.ids(t), 5, "its block has the name of the one that is there")
	require.NoError(t, zombie.Close())

	// Both looked at the same moment: one has the last word in naru_positions.
	one, two := x.open(t, nil).(*Sink), x.open(t, nil).(*Sink)
	d := sinktest.Table(5, columns, `{}`)
	require.NoError(t, one.Write(t.Context(), d))
	require.NoError(t, two.Write(t.Context(), d))
	m, _ = one.next(l)
	marks := map[life]mark{l: m}
	require.NoError(t, one.alone(t.Context(), []life{l}, one.marks, ""))
	require.NoError(t, two.alone(t.Context(), []life{l}, two.marks, ""))
	require.NoError(t, one.writeMarks(t.Context(), []life{l}, marks))
	require.NoError(t, two.writeMarks(t.Context(), []life{l}, marks))
	require.Error(t, one.alone(t.Context(), []life{l}, marks, one.writer))
	require.NoError(t, two.alone(t.Context(), []life{l}, marks, two.writer))
}

// The connection is cut after any number of bytes.
func TestCutAnywhere(t *testing.T) {
	u, err := url.Parse(sinktest.Engine(t, "clickhouse"))
	require.NoError(t, err)
	sinktest.Cut(t, u.Host, 40, func(t *testing.T) sinktest.CutTarget {
		x := newTarget(t)
		x.exec(t, "CREATE TABLE %s.t (_id String, a Int64, CONSTRAINT refuse CHECK a != 33) ENGINE = MergeTree ORDER BY tuple() SETTINGS non_replicated_deduplication_window = 10")
		return sinktest.CutTarget{
			Open: func(addr string) (sink.Sink, error) { return x.try(t, func(s *Settings) { s.URL = "http://" + addr }) },
			Values: func() (out []int64) {
				for _, r := range x.exec(t, "SELECT a FROM %s.t") {
					n, err := strconv.ParseInt(r, 10, 64)
					require.NoError(t, err)
					out = append(out, n)
				}
				return out
			},
			Close: func() { x.exec(t, "DROP DATABASE %s") },
		}
	})
}

// Without a memory of inserts rows may be there twice, and their keys tell.
func TestAtLeastOnce(t *testing.T) {
	x := newTarget(t)
	x.exec(t, "CREATE TABLE %s.t (_id String, _key String) ENGINE = MergeTree ORDER BY tuple()")
	b := sinktest.Table(0, "_id:string", `{}`, `{}`)
	s := x.open(t, nil)
	require.NoError(t, s.Write(t.Context(), b))
	require.NoError(t, s.(sink.Preparer).Prepare(t.Context()))
	require.NoError(t, s.Close())
	sinktest.Put(t, x.open(t, nil), b)
	require.Len(t, x.ids(t), 4)
	require.Equal(t, []string{"0", "1"}, x.exec(t, "SELECT _id FROM %s.t ORDER BY _id LIMIT 1 BY _key"))
}

func TestErrors(t *testing.T) {
	x := newTarget(t)
	_, err := x.client.query(t.Context(), "SELECT * FROM "+x.db+".none", nil)
	var said *serverError
	require.True(t, errors.As(err, &said))
	require.Equal(t, 60, said.code)
	require.NotContains(t, err.Error(), "DB::Exception")
}

// Rows that a rewind sends again are no blocks that the table has.
func TestRewindSendsAgain(t *testing.T) {
	x := newTarget(t)
	for i, want := range []string{"a0 a1", "a0 a1 b0 b1", "a0 a1 b0 b1 c0 c1"} {
		from := event.Positions{sinktest.Lives[0]: {0: 0}}
		if i > 0 {
			s := x.open(t, nil)
			require.ErrorIs(t, s.(sink.Rewinder).Rewind(t.Context(), from, false), sink.ErrStays)
			require.NoError(t, s.(sink.Rewinder).Rewind(t.Context(), from, true))
			require.NoError(t, s.Close())
		}
		mark := string(rune('a' + i))
		rows := sinktest.Table(0, "s:string", `{"s":"`+mark+`0"}`, `{"s":"`+mark+`1"}`)
		for range 2 { // read again, they are there once
			s := x.open(t, nil)
			sinktest.Put(t, s, rows)
			require.NoError(t, s.Close())
		}
		require.Equal(t, want, strings.Join(x.exec(t, "SELECT s FROM %s.t ORDER BY s"), " "))
	}
}
