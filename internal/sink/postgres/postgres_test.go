package postgres

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/sink"
	"naru/internal/sink/relational"
	"naru/internal/sink/sinktest"
)

const reader = "pipeline/edits/postgres"

var schemas atomic.Int64

// target is a schema of its own on the real server.
type target struct {
	url, schema string
	conn        *pgconn.PgConn
}

func newTarget(t *testing.T) *target {
	x := &target{url: sinktest.Engine(t, "postgres"), schema: fmt.Sprintf("s%d_%d", os.Getpid(), schemas.Add(1))}
	cfg, err := pgconn.ParseConfig(x.url)
	require.NoError(t, err)
	cfg.Password = getenv("PGPASS")
	x.conn, err = pgconn.ConnectConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { x.conn.Close(context.Background()) })
	x.exec(t, "SET client_min_messages = error; CREATE SCHEMA "+x.schema+"; SET search_path = "+x.schema)
	return x
}

func getenv(name string) string {
	if name == "PGPASS" {
		return os.Getenv("NARU_TEST_POSTGRES_PASSWORD")
	}
	return ""
}

// exec runs statements and gives the rows of the last one, values by '|'.
func (x *target) exec(t *testing.T, sql string) (rows []string) {
	t.Helper()
	results, err := x.conn.Exec(context.WithoutCancel(t.Context()), sql).ReadAll()
	require.NoError(t, err)
	for _, r := range results[len(results)-1].Rows {
		var vals []string
		for _, v := range r {
			if v == nil {
				v = []byte("NULL")
			}
			vals = append(vals, string(v))
		}
		rows = append(rows, strings.Join(vals, "|"))
	}
	return rows
}

func (x *target) settings(change func(*Settings)) *Settings {
	s := defaults()
	s.URL, s.PasswordEnv, s.Table = x.url, "PGPASS", x.schema+".t"
	if change != nil {
		change(s)
	}
	return s
}

func (x *target) try(t *testing.T, change func(*Settings)) (sink.Sink, error) {
	s := x.settings(change)
	require.NoError(t, s.Validate())
	return s.Open(t.Context(), sink.Env{Pipeline: "edits", Name: "postgres", Stream: sinktest.Stream, Reader: reader, Getenv: getenv})
}

func (x *target) open(t *testing.T, change func(*Settings)) sink.Sink {
	t.Helper()
	out, err := x.try(t, change)
	require.NoError(t, err)
	return out
}

func (x *target) ids(t *testing.T) []string {
	if x.exec(t, "SELECT to_regclass('t')")[0] == "NULL" {
		return nil
	}
	return x.exec(t, `SELECT "_id" FROM t`)
}

func upsert(key ...string) func(*Settings) {
	return func(s *Settings) { s.Mode, s.Key = relational.Upsert, key }
}

func TestConformance(t *testing.T) {
	for name, change := range map[string]func(*Settings){"append": nil, "upsert": upsert("_id")} {
		t.Run(name, func(t *testing.T) {
			sinktest.Run(t, func(t *testing.T) sinktest.Harness {
				x := newTarget(t)
				return sinktest.Harness{Exact: true, Tabular: true, Narrow: true, Typed: true,
					Open: func(t *testing.T) sink.Sink { return x.open(t, change) },
					IDs:  x.ids,
					Refuse: func(ids ...string) {
						x.exec(t, `CREATE TABLE t ("_id" text PRIMARY KEY CHECK ("_id" NOT IN ('`+strings.Join(ids, "', '")+`')))`)
					},
				}
			})
		})
	}
}

// batch makes a batch of rows from their data, _id the number of the row from base on.
func batch(base int64, columns string, data ...string) *event.Batch {
	b := &event.Batch{Stream: sinktest.Stream, Incarnation: sinktest.Lives[0], From: base, Next: base + int64(len(data))}
	for def := range strings.FieldsSeq(columns) {
		name, kind, _ := strings.Cut(def, ":")
		b.Columns = append(b.Columns, event.Column{Name: name, Type: event.ColumnType(kind)})
	}
	for i, d := range data {
		e := sinktest.Row(fmt.Sprint(base+int64(i)), base+int64(i), 0)
		e.Data = []byte(d)
		b.Rows = append(b.Rows, e)
	}
	return b
}

func put(t *testing.T, s sink.Sink, batches ...*event.Batch) {
	t.Helper()
	for _, b := range batches {
		require.NoError(t, s.Write(t.Context(), b))
	}
	_, err := s.Commit(t.Context())
	require.NoError(t, err)
}

func TestTypes(t *testing.T) {
	x := newTarget(t)
	s := x.open(t, nil)
	put(t, s, batch(0, "_id:string _time:timestamptz b:bool l:long d:double s:string at:timestamptz day:date j:json",
		`{"b":true,"l":9223372036854775807,"d":0.1,"s":"a\"b\\N\t","at":"0001-01-01T00:00:00.000001Z","day":"9999-12-31","j":{"a":[1,null]}}`, `{}`))
	require.Equal(t, []string{`_id|text`, `_time|timestamp with time zone`, `b|boolean`, `l|bigint`, `d|double precision`, `s|text`, `at|timestamp with time zone`, `day|date`, `j|jsonb`},
		x.exec(t, `SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum`))
	require.Equal(t, []string{`0|t|9223372036854775807|0.1|a"b\N` + "\t" + `|0001-01-01 00:00:00.000001+00|9999-12-31|{"a": [1, null]}`, `1|NULL|NULL|NULL|NULL|NULL|NULL|NULL`},
		x.exec(t, `SET timezone = 'UTC'; SELECT "_id", b, l, d, s, at, day, j FROM t ORDER BY "_id"`))
	require.NoError(t, s.Close())
}

// What users call their columns is their own business.
func TestNames(t *testing.T) {
	x := newTarget(t)
	long := strings.Repeat("ü", 31) + "x"
	s := x.open(t, func(s *Settings) { s.Table, s.Mode, s.Key = x.schema+`.select"`, relational.Upsert, []string{"order"} })
	put(t, s, batch(0, `order:string a"b:long A"B:long "; user:string `+long+`:long`, `{"order":"1","a\"b":1,"A\"B":2,"user":"u","`+long+`":3}`))
	require.Equal(t, []string{"1|1|2|u|3"}, x.exec(t, `SELECT "order", "a""b", "A""B", "user", "`+long+`" FROM "select"""`))
	require.NoError(t, s.Write(t.Context(), batch(1, "order:string "+long+"x:long", `{"order":"1"}`)))
	_, err := s.Commit(t.Context())
	require.ErrorContains(t, err, "has 64 bytes, a name in PostgreSQL has at most 63")
	require.Equal(t, `give it another name in the last step: SELECT "..." AS shorter`, fault.HintOf(err))
	require.NoError(t, s.Close())
}

func TestNewColumn(t *testing.T) {
	x := newTarget(t)
	s := x.open(t, nil)
	put(t, s, batch(0, "_id:string a:long", `{"a":1}`), batch(1, "_id:string b:string a:long c:json", `{"a":2,"b":"x"}`))
	put(t, s, batch(2, "_id:string d:date", `{"d":"2026-01-01"}`))
	x.exec(t, "ALTER TABLE t DROP COLUMN d") // behind the sink's back
	require.NoError(t, s.Write(t.Context(), batch(3, "_id:string d:date", `{"d":"2026-01-01"}`)))
	_, err := s.Commit(t.Context())
	require.Equal(t, "add the column, or set create: true", fault.HintOf(err))
	require.NoError(t, s.Close())
	s = x.open(t, nil)
	put(t, s, batch(3, "_id:string d:date", `{"d":"2026-01-01"}`))
	require.Equal(t, []string{"0|1|NULL|NULL", "1|2|x|NULL", "2|NULL|NULL|NULL", "3|NULL|NULL|2026-01-01"}, x.exec(t, `SELECT "_id", a, b, d FROM t ORDER BY "_id"`))
	require.NoError(t, s.Close())
}

func TestUpsert(t *testing.T) {
	x := newTarget(t)
	s := x.open(t, upsert("k", "day"))
	put(t, s, batch(0, "k:string day:date v:long w:long", `{"k":"a","day":"2026-01-01","v":1,"w":1}`, `{"k":"b","day":"2026-01-01","v":2}`, `{"k":"a","day":"2026-01-01","v":3}`))
	put(t, s, batch(3, "k:string day:date v:long", `{"k":"b","day":"2026-01-01","v":4}`, `{"k":"a","day":"2026-01-02","v":5}`, `{"k":"b","day":"2026-01-01","v":6}`))
	put(t, s, batch(6, "k:string day:date", `{"k":"b","day":"2026-01-01"}`, `{"k":"c","day":"2026-01-01"}`))
	require.Equal(t, []string{"a|2026-01-01|3|NULL", "a|2026-01-02|5|NULL", "b|2026-01-01|6|NULL", "c|2026-01-01|NULL|NULL"}, x.exec(t, "SELECT k, day, v, w FROM t ORDER BY 1, 2"))
	require.NoError(t, s.Close())

	// The table decides what the same key is.
	x.exec(t, `CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false); CREATE TABLE u (name text COLLATE nocase UNIQUE, v bigint)`)
	s = x.open(t, func(s *Settings) { upsert("name")(s); s.Table = x.schema + ".u" })
	put(t, s, batch(8, "name:string v:long", `{"name":"Ann","v":1}`, `{"name":"ANN","v":2}`))
	require.Equal(t, []string{"2"}, x.exec(t, "SELECT v FROM u"))
	require.NoError(t, s.Close())
}

func TestRefusals(t *testing.T) {
	x := newTarget(t)
	x.exec(t, `CREATE TABLE parent (id bigint PRIMARY KEY); INSERT INTO parent VALUES (1);
CREATE TABLE t (n smallint, code varchar(3), must text NOT NULL DEFAULT 'x', positive bigint CHECK (positive > 0),
  parent bigint REFERENCES parent DEFERRABLE INITIALLY DEFERRED, once bigint UNIQUE DEFERRABLE INITIALLY DEFERRED, j jsonb, indexed text);
CREATE INDEX ON t (indexed);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.code = 'bad' THEN RAISE EXCEPTION 'code is bad'; END IF; RETURN NEW; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION refuse()`)
	long := strings.Builder{}
	for i := range 3000 {
		fmt.Fprintf(&long, "%x", i*i*7919%104729) // nothing that compresses well
	}
	s := x.open(t, nil)
	b := batch(0, "n:long code:string must:string positive:long parent:long once:long j:json indexed:string",
		`{"n":1,"must":"first"}`,
		`{"n":40000,"must":"a"}`,
		`{"code":"long","must":"a"}`,
		`{}`,
		`{"positive":0,"must":"a"}`,
		`{"parent":2,"must":"a"}`,
		`{"once":1,"must":"once"}`,
		`{"once":1,"must":"a"}`,
		`{"j":{"a":"\u0000"},"must":"a"}`,
		`{"must":"a\u0000b"}`,
		`{"code":"bad","must":"a"}`,
		`{"indexed":"`+long.String()+`","must":"a"}`,
		`{"parent":1,"must":"last"}`)
	require.NoError(t, s.Write(t.Context(), b))
	require.NoError(t, s.(sink.Preparer).Prepare(t.Context()))
	var got []string
	for _, r := range s.(sink.Refuser).Refused() {
		got = append(got, fmt.Sprint(r.At.Offset, " ", r.Detail))
	}
	require.Len(t, got, 10, got)
	for i, want := range []string{`1 value "40000" is out of range for type smallint (22003)`, `2 value too long for type character varying(3) (22001)`,
		`3 null value in column "must" of relation "t" violates not-null constraint (23502)`, `4 new row for relation "t" violates check constraint "t_positive_check" (23514)`,
		`5 insert or update on table "t" violates foreign key constraint "t_parent_fkey" (23503)`, `7 duplicate key value violates unique constraint "t_once_key" (23505)`,
		`8 unsupported Unicode escape sequence (22P05)`, `9 invalid byte sequence for encoding "UTF8": 0x00 (22021)`, `10 code is bad (P0001)`, `11 index row requires `} {
		require.Contains(t, got[i], want)
	}
	_, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"first", "once", "last"}, x.exec(t, "SELECT must FROM t"))
	require.NoError(t, s.Close())
}

// What is set wrong stops the sink and says what to do; no row is refused for it.
func TestStops(t *testing.T) {
	x := newTarget(t)
	hint := func(s sink.Sink, err error) (string, string) {
		t.Helper()
		if err == nil {
			require.NoError(t, s.Write(t.Context(), batch(0, "_id:string a:long", `{"a":1}`)))
			_, err = s.Commit(t.Context())
			require.Empty(t, s.(sink.Refuser).Refused())
			require.NoError(t, s.Close())
		}
		require.Error(t, err)
		require.False(t, fault.IsTransient(err), err)
		return err.Error(), fault.HintOf(err)
	}
	try := func(change func(*Settings)) (sink.Sink, error) { return x.try(t, change) }
	never := func(s *Settings) { s.Create = false }

	text, cure := hint(try(never))
	require.Contains(t, text, "there is no table")
	require.Contains(t, cure, `set create: true, or run: CREATE TABLE IF NOT EXISTS "`+x.schema+`"."naru_positions" ( reader text NOT NULL`)
	x.exec(t, strings.TrimPrefix(cure, "set create: true, or run: "))
	_, cure = hint(try(never))
	require.Equal(t, `set create: true, or run: CREATE TABLE IF NOT EXISTS "`+x.schema+`"."t" ("_id" text, "a" bigint)`, cure)
	x.exec(t, `CREATE TABLE t ("_id" text)`)
	_, cure = hint(try(never))
	require.Equal(t, `set create: true, or run: ALTER TABLE "`+x.schema+`"."t" ADD COLUMN IF NOT EXISTS "a" bigint`, cure)
	_, cure = hint(try(upsert("_id")))
	require.Equal(t, "an upsert needs a primary key or a unique index over exactly the columns of key", cure)
	_, cure = hint(try(func(s *Settings) { s.Table = "nowhere.t" }))
	require.Contains(t, cure, "allow it to the user of the url, or run: CREATE TABLE")
	_, cure = hint(try(func(s *Settings) { s.URL = strings.Replace(s.URL, "/postgres?", "/nowhere?", 1) }))
	require.Equal(t, "create the database, or name another in url", cure)
	text, cure = hint(try(func(s *Settings) { s.URL = strings.Replace(s.URL, "naru@", "nobody@", 1) }))
	require.Contains(t, cure, "so that the user may log in")
	require.NotContains(t, text, getenv("PGPASS"))

	role := "r_" + x.schema
	x.exec(t, "CREATE ROLE "+role+" LOGIN PASSWORD 'naru-test'; GRANT USAGE ON SCHEMA "+x.schema+" TO "+role+"; GRANT ALL ON naru_positions TO "+role)
	_, cure = hint(try(func(s *Settings) { s.URL = strings.Replace(s.URL, "naru@", role+"@", 1) }))
	require.Contains(t, cure, "GRANT the user of the url INSERT")
}

// A writer that was overtaken changes nothing, and one that hangs in its transaction
// holds up the next one no longer than its timeout.
func TestAnotherWriter(t *testing.T) {
	x := newTarget(t)
	columns := "_id:string"
	within := func(d time.Duration) func(*Settings) {
		return func(s *Settings) { s.Timeout = quantity.Duration(d) }
	}
	zombie, s := x.open(t, nil), x.open(t, within(200*time.Millisecond))
	b := batch(0, columns, `{}`, `{}`)
	require.NoError(t, zombie.Write(t.Context(), b))
	require.NoError(t, s.Write(t.Context(), b))
	_, err := s.Commit(t.Context())
	require.NoError(t, err)
	_, err = zombie.Commit(t.Context())
	require.ErrorContains(t, err, "another writer has moved partition 0 to 2, this one continues from 0; nothing was written")
	require.Equal(t, []string{"2"}, x.exec(t, "SELECT count(*) FROM t"))
	require.NoError(t, zombie.Close())

	zombie = x.open(t, within(time.Second))
	c := batch(2, columns, `{}`)
	require.NoError(t, zombie.Write(t.Context(), c))
	require.NoError(t, zombie.(sink.Preparer).Prepare(t.Context()), "it stays in its transaction")
	require.NoError(t, s.Write(t.Context(), c))
	err = s.(sink.Preparer).Prepare(t.Context())
	require.Error(t, err)
	require.True(t, fault.IsTransient(err))
	require.NoError(t, s.Close())
	require.Eventually(t, func() bool { // the server ends the transaction of the one that says no more
		s := x.open(t, nil)
		defer s.Close()
		require.NoError(t, s.Write(t.Context(), c))
		_, err := s.Commit(t.Context())
		return err == nil
	}, 20*time.Second, time.Millisecond)
	_, err = zombie.Commit(t.Context())
	require.Error(t, err)
	require.Equal(t, []string{"3"}, x.exec(t, "SELECT count(*) FROM t"))
	require.NoError(t, zombie.Close())
}

func TestReaders(t *testing.T) {
	x := newTarget(t)
	put(t, x.open(t, nil), batch(0, "_id:string", `{}`))
	s := x.settings(nil)
	other, err := s.Open(t.Context(), sink.Env{Stream: sinktest.Stream, Reader: "pipeline/other/postgres", Getenv: getenv})
	require.NoError(t, err)
	put(t, other, batch(0, "_id:string", `{}`))
	require.Equal(t, []string{reader + "|1", "pipeline/other/postgres|1"}, x.exec(t, "SELECT reader, next_offset FROM naru_positions ORDER BY 1"))
	require.Len(t, x.ids(t), 2)
	require.NoError(t, other.Close())
}
