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

// database is the target for what databases have in common.
func (x *target) database(t *testing.T) sinktest.Database {
	return sinktest.Database{
		Open: func(key ...string) sink.Sink {
			if len(key) > 0 {
				return x.open(t, upsert(key...))
			}
			return x.open(t, nil)
		},
		Keyed: func() sink.Sink { return x.open(t, keyed) },
		Impatient: func(d time.Duration) sink.Sink {
			return x.open(t, func(s *Settings) { s.Timeout = quantity.Duration(d) })
		},
		Exec: func(statements ...string) []string { return x.exec(t, strings.Join(statements, "; ")) },
		Kill: func() {
			x.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'naru' AND state LIKE 'idle in transaction%'")
		},
	}
}

func upsert(key ...string) func(*Settings) {
	return func(s *Settings) { s.Mode, s.Key = relational.Upsert, key }
}

func keyed(s *Settings) { s.RowKey = "_key" }

func TestConformance(t *testing.T) {
	keyedUpsert := func(s *Settings) { keyed(s); upsert("_id")(s) }
	for name, change := range map[string]func(*Settings){"append": nil, "upsert": upsert("_id"), "append keyed": keyed, "upsert keyed": keyedUpsert} {
		t.Run(name, func(t *testing.T) {
			sinktest.Run(t, func(t *testing.T) sinktest.Harness {
				x := newTarget(t)
				return sinktest.Harness{Exact: true, Tabular: true, Rewinds: map[string]sinktest.Rewinds{"append keyed": sinktest.Anywhere, "upsert keyed": sinktest.Wholly}[name], Narrow: true, Typed: true,
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

func TestTypes(t *testing.T) {
	x := newTarget(t)
	s := x.open(t, nil)
	sinktest.Put(t, s, sinktest.Table(0, "_id:string _time:timestamptz b:bool l:long d:double s:string at:timestamptz day:date j:json",
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
	sinktest.Put(t, s, sinktest.Table(0, `order:string a"b:long A"B:long "; user:string `+long+`:long`, `{"order":"1","a\"b":1,"A\"B":2,"user":"u","`+long+`":3}`))
	require.Equal(t, []string{"1|1|2|u|3"}, x.exec(t, `SELECT "order", "a""b", "A""B", "user", "`+long+`" FROM "select"""`))
	require.NoError(t, s.Write(t.Context(), sinktest.Table(1, "order:string "+long+"x:long", `{"order":"1"}`)))
	_, err := s.Commit(t.Context())
	require.ErrorContains(t, err, "has 64 bytes, a name in PostgreSQL has at most 63")
	require.Equal(t, `give it another name in the last step: SELECT "..." AS shorter`, fault.HintOf(err))
	require.NoError(t, s.Close())
}

func TestNewColumn(t *testing.T) { sinktest.NewColumn(t, newTarget(t).database(t)) }

func TestUpsert(t *testing.T) {
	x := newTarget(t)
	sinktest.Upsert(t, x.database(t))

	// The table decides what the same key is.
	x.exec(t, `CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false); CREATE TABLE u (name text COLLATE nocase UNIQUE, v bigint)`)
	s := x.open(t, func(s *Settings) { upsert("name")(s); s.Table = x.schema + ".u" })
	sinktest.Put(t, s, sinktest.Table(8, "name:string v:long", `{"name":"Ann","v":1}`, `{"name":"ANN","v":2}`))
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
	b := sinktest.Table(0, "n:long code:string must:string positive:long parent:long once:long j:json indexed:string",
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
	row := sinktest.Table(0, "_id:string a:long", `{"a":1}`)
	hint := func(s sink.Sink, err error) (string, string) {
		t.Helper()
		return sinktest.Stops(t, s, err, row)
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

func TestAnotherWriter(t *testing.T) { sinktest.AnotherWriter(t, newTarget(t).database(t)) }

func TestReaders(t *testing.T) {
	x := newTarget(t)
	sinktest.Put(t, x.open(t, nil), sinktest.Table(0, "_id:string", `{}`))
	s := x.settings(nil)
	other, err := s.Open(t.Context(), sink.Env{Stream: sinktest.Stream, Reader: "pipeline/other/postgres", Getenv: getenv})
	require.NoError(t, err)
	sinktest.Put(t, other, sinktest.Table(0, "_id:string", `{}`))
	require.Equal(t, []string{reader + "|1", "pipeline/other/postgres|1"}, x.exec(t, "SELECT reader, next_offset FROM naru_positions ORDER BY 1"))
	require.Len(t, x.ids(t), 2)
	require.NoError(t, other.Close())
}
