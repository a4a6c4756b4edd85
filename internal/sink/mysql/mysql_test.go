package mysql

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/quantity"
	"naru/internal/sink"
	"naru/internal/sink/relational"
	"naru/internal/sink/sinktest"
)

const reader = "pipeline/edits/mysql"

var databases atomic.Int64

// target is a database of its own on the real server.
type target struct {
	host, schema string
	conn         *client.Conn
}

func newTarget(t *testing.T) *target {
	u, err := url.Parse(sinktest.Engine(t, "mariadb"))
	require.NoError(t, err)
	x := &target{host: u.Host, schema: fmt.Sprintf("s%d_%d", os.Getpid(), databases.Add(1))}
	x.conn, err = client.Connect(u.Host, u.User.Username(), getenv("PASS"), "")
	require.NoError(t, err)
	t.Cleanup(func() { x.conn.Close() })
	x.exec(t, "SET NAMES utf8mb4", "CREATE DATABASE "+x.schema, "USE "+x.schema)
	return x
}

func getenv(name string) string {
	if name == "PASS" {
		return os.Getenv("NARU_TEST_MARIADB_PASSWORD")
	}
	return ""
}

// exec runs statements and gives the rows of the last one, values by '|'.
func (x *target) exec(t *testing.T, statements ...string) (rows []string) {
	t.Helper()
	for _, sql := range statements {
		r, err := x.conn.Execute(sql)
		require.NoError(t, err, sql)
		rows = nil
		if r.Resultset == nil {
			continue
		}
		for i := range r.RowNumber() {
			var vals []string
			for j := range r.ColumnNumber() {
				if null, err := r.IsNull(i, j); err == nil && null {
					vals = append(vals, "NULL")
					continue
				}
				v, err := r.GetString(i, j)
				require.NoError(t, err)
				vals = append(vals, strings.Clone(v))
			}
			rows = append(rows, strings.Join(vals, "|"))
		}
	}
	return rows
}

func (x *target) try(t *testing.T, change func(*Settings)) (sink.Sink, error) {
	s := defaults()
	s.URL, s.PasswordEnv, s.Table = "mysql://naru@"+x.host+"/"+x.schema, "PASS", "t"
	if change != nil {
		change(s)
	}
	require.NoError(t, s.Validate())
	return s.Open(t.Context(), sink.Env{Pipeline: "edits", Name: "mysql", Stream: sinktest.Stream, Reader: reader, Getenv: getenv})
}

func (x *target) open(t *testing.T, change func(*Settings)) sink.Sink {
	t.Helper()
	out, err := x.try(t, change)
	require.NoError(t, err)
	return out
}

func (x *target) ids(t *testing.T) []string {
	if len(x.exec(t, "SHOW TABLES LIKE 't'")) == 0 {
		return nil
	}
	return x.exec(t, "SELECT _id FROM t")
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
		Exec: func(statements ...string) []string { return x.exec(t, statements...) },
		Kill: func() {
			for _, id := range x.exec(t, "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND ID <> CONNECTION_ID()") {
				x.exec(t, "KILL "+id)
			}
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
				return sinktest.Harness{Exact: true, Tabular: true, Rewinds: map[string]sinktest.Rewinds{"append keyed": sinktest.Anywhere, "upsert keyed": sinktest.Wholly}[name], Typed: true,
					Open: func(t *testing.T) sink.Sink { return x.open(t, change) },
					IDs:  x.ids,
					Refuse: func(ids ...string) {
						x.exec(t, `CREATE TABLE t (_id VARCHAR(100) PRIMARY KEY CHECK (_id NOT IN ('`+strings.Join(ids, "', '")+`')))`)
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
		`{"b":true,"l":9223372036854775807,"d":1.7976931348623157e308,"s":"a\"b'\\N\t\u0000😀","at":"0001-01-01T00:00:00.000001Z","day":"9999-12-31","j":{"a":[1,null,"\u0000'\\"]}}`, `{}`))
	require.Equal(t, []string{"_id|longtext|utf8mb4_bin", "_time|datetime(6)|NULL", "b|tinyint(1)|NULL", "l|bigint(20)|NULL", "d|double|NULL", "s|longtext|utf8mb4_bin", "at|datetime(6)|NULL", "day|date|NULL", "j|longtext|utf8mb4_bin"},
		x.exec(t, "SELECT COLUMN_NAME, COLUMN_TYPE, COLLATION_NAME FROM information_schema.COLUMNS WHERE TABLE_NAME = 't' AND TABLE_SCHEMA = DATABASE() ORDER BY ORDINAL_POSITION"))
	require.Equal(t, []string{"0|1|9223372036854775807|1|a\"b'\\N\t\x00😀|0001-01-01 00:00:00.000001|9999-12-31|" + `{"a":[1,null,"\u0000'\\"]}`, `1|NULL|NULL|NULL|NULL|NULL|NULL|NULL`},
		x.exec(t, "SELECT _id, b, l, d = 1.7976931348623157e308, s, at, day, j FROM t ORDER BY _id"))
	require.NoError(t, s.Close())
}

// What users call their columns is their own business, as far as the server goes.
func TestNames(t *testing.T) {
	x := newTarget(t)
	long := strings.Repeat("ü", 64)
	s := x.open(t, func(s *Settings) { upsert("order")(s); s.Table = x.schema + ".select`" })
	sinktest.Put(t, s, sinktest.Table(0, "order:string a`b:long ;'user:string "+long+":long", "{\"order\":\"1\",\"a`b\":1,\";'user\":\"u\",\""+long+"\":3}"))
	require.Equal(t, []string{"1|1|u|3"}, x.exec(t, "SELECT `order`, `a``b`, `;'user`, `"+long+"` FROM `select```"))
	text, cure := sinktest.Stops(t, s, nil, sinktest.Table(1, "order:string "+long+"x:long", `{"order":"1"}`))
	require.Contains(t, text, "has 65 characters, a name in MySQL has at most 64")
	require.Equal(t, `give it another name in the last step: SELECT "..." AS shorter`, cure)
	text, _ = sinktest.Stops(t, x.open(t, nil), nil, sinktest.Table(1, "a:string A:long", `{}`))
	require.Contains(t, text, "MySQL takes the columns a and A for one")
}

func TestNewColumn(t *testing.T) {
	sinktest.NewColumn(t, newTarget(t).database(t))

	// The server takes names of columns in any case for one.
	x := newTarget(t)
	s := x.open(t, nil)
	sinktest.Put(t, s, sinktest.Table(0, "_id:string a:long", `{"a":1}`), sinktest.Table(1, "_id:string A:long", `{"A":2}`))
	require.Equal(t, []string{"0|1", "1|2"}, x.exec(t, "SELECT _id, a FROM t ORDER BY _id"))
	require.NoError(t, s.Close())
}

func TestUpsert(t *testing.T) {
	x := newTarget(t)
	sinktest.Upsert(t, x.database(t))

	// The table decides what the same key is; a number of its own stands in no way.
	x.exec(t, "CREATE TABLE u (id BIGINT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50) COLLATE utf8mb4_general_ci UNIQUE, v BIGINT, w BIGINT)")
	in := func(s *Settings) { upsert("name")(s); s.Table = "u" }
	s := x.open(t, in)
	sinktest.Put(t, s, sinktest.Table(8, "name:string v:long", `{"name":"Ann","v":1}`, `{"name":"ANN","v":2}`))
	require.Equal(t, []string{"2"}, x.exec(t, "SELECT v FROM u"))
	require.NoError(t, s.Close())

	x.exec(t, "ALTER TABLE u ADD UNIQUE other (v)")
	text, cure := sinktest.Stops(t, x.open(t, in), nil, sinktest.Table(10, "name:string v:long", `{"name":"Bob","v":2}`))
	require.Contains(t, text, "a row would also replace another one by the unique index other (v)")
	require.Contains(t, cure, "leave one of its columns out")
	x.exec(t, "ALTER TABLE u DROP INDEX other, DROP INDEX name")
	text, cure = sinktest.Stops(t, x.open(t, in), nil, sinktest.Table(10, "name:string", `{"name":"Bob"}`))
	require.Contains(t, text, "it has no unique index over its key")
	require.Equal(t, "ALTER TABLE `u` ADD UNIQUE (`name`)", cure)
}

func TestRefusals(t *testing.T) {
	x := newTarget(t)
	x.exec(t, "CREATE TABLE parent (id BIGINT PRIMARY KEY)", "INSERT INTO parent VALUES (1)",
		`CREATE TABLE t (n SMALLINT, code VARCHAR(3), must VARCHAR(20) NOT NULL, positive BIGINT CHECK (positive > 0),
 parent BIGINT REFERENCES parent (id), once BIGINT UNIQUE, j JSON, latin VARCHAR(10) CHARACTER SET latin1, day TIMESTAMP NULL)`,
		"CREATE TRIGGER refuse BEFORE INSERT ON t FOR EACH ROW BEGIN IF NEW.code = 'bad' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'code is bad'; END IF; END",
		"SET GLOBAL max_allowed_packet = 1048576")
	s := x.open(t, nil)
	b := sinktest.Table(0, "n:long code:string must:string positive:long parent:long once:long j:string latin:string day:timestamptz",
		`{"n":1,"must":"first"}`,
		`{"n":40000,"must":"a"}`,
		`{"code":"long","must":"a"}`,
		`{}`,
		`{"positive":0,"must":"a"}`,
		`{"parent":2,"must":"a"}`,
		`{"once":1,"must":"once"}`,
		`{"once":1,"must":"a"}`,
		`{"j":"no JSON","must":"a"}`,
		`{"latin":"한","must":"a"}`,
		`{"code":"bad","must":"a"}`,
		`{"day":"2100-01-01T00:00:00Z","must":"a"}`,
		`{"j":"`+strings.Repeat("x", 1<<20)+`","must":"a"}`,
		`{"parent":1,"must":"last"}`)
	b.Columns[6].Type = event.StringColumn
	require.NoError(t, s.Write(t.Context(), b))
	require.NoError(t, s.(sink.Preparer).Prepare(t.Context()))
	var got []string
	for _, r := range s.(sink.Refuser).Refused() {
		got = append(got, fmt.Sprint(r.At.Offset, " ", r.Detail))
	}
	for i, want := range []string{"1 Out of range value for column 'n' at row 1 (1264)", "2 Data too long for column 'code' at row 1 (1406)",
		"3 Column 'must' cannot be null (1048)", "4 CONSTRAINT `t.positive` failed", "5 Cannot add or update a child row: a foreign key constraint fails",
		"7 Duplicate entry '1' for key 'once' (1062)", "8 CONSTRAINT `t.j` failed", "9 Incorrect string value", "10 code is bad (1644)", "11 Incorrect datetime value",
		"12 as a statement it has 10"} {
		require.Greater(t, len(got), i, got)
		require.Contains(t, got[i], want)
	}
	require.Len(t, got, 11, got)
	_, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"first", "once", "last"}, x.exec(t, "SELECT must FROM t"))
	require.NoError(t, s.Close())
	x.exec(t, "SET GLOBAL max_allowed_packet = DEFAULT")
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
	require.Contains(t, cure, "set create: true, or run: CREATE TABLE IF NOT EXISTS `naru_positions` ( reader VARCHAR(255)")
	x.exec(t, strings.TrimPrefix(cure, "set create: true, or run: "))
	_, cure = stops(never)
	require.Equal(t, "set create: true, or run: CREATE TABLE IF NOT EXISTS `t` (`_id` LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, `a` BIGINT) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", cure)
	x.exec(t, "CREATE TABLE t (_id VARCHAR(10)) ENGINE = Aria")
	_, cure = stops(never)
	require.Equal(t, "set create: true, or run: ALTER TABLE `t` ADD COLUMN `a` BIGINT", cure)
	text, cure = stops(nil)
	require.Contains(t, text, "its engine has no transactions")
	require.Equal(t, "ALTER TABLE `t` ENGINE = InnoDB", cure)
	x.exec(t, cure, "ALTER TABLE t ADD COLUMN must INT NOT NULL")
	_, cure = stops(nil)
	require.Equal(t, "give the column a default, or add it to the last step", cure)
	_, cure = stops(func(s *Settings) { s.Table = "nowhere.t" })
	require.Contains(t, cure, "allow it to the user of the url, or run: CREATE TABLE")
	_, cure = stops(func(s *Settings) { s.URL = "mysql://naru@" + x.host + "/nowhere" })
	require.Equal(t, "create the database, or name another in url", cure)
	text, cure = stops(func(s *Settings) { s.URL = "mysql://nobody@" + x.host + "/" + x.schema })
	require.Contains(t, cure, "so that the user may log in")
	require.NotContains(t, text, getenv("PASS"))
	role := "r_" + x.schema
	x.exec(t, "CREATE USER "+role+" IDENTIFIED BY 'naru-test'", "GRANT SELECT ON "+x.schema+".* TO "+role)
	_, cure = stops(func(s *Settings) { s.URL = "mysql://" + role + "@" + x.host + "/" + x.schema })
	require.Contains(t, cure, "GRANT the user of the url SELECT, INSERT and UPDATE")
}

func TestAnotherWriter(t *testing.T) { sinktest.AnotherWriter(t, newTarget(t).database(t)) }

// The connection is cut after any number of bytes.
func TestCutAnywhere(t *testing.T) {
	u, err := url.Parse(sinktest.Engine(t, "mariadb"))
	require.NoError(t, err)
	for name, change := range map[string]func(*Settings){"append": func(*Settings) {}, "upsert": upsert("_id")} {
		t.Run(name, func(t *testing.T) {
			sinktest.Cut(t, u.Host, 40, func(t *testing.T) sinktest.CutTarget {
				x := newTarget(t)
				x.exec(t, "CREATE TABLE t (_id VARCHAR(100) PRIMARY KEY, a BIGINT CHECK (a <> 33))")
				return sinktest.CutTarget{
					Open: func(addr string) (sink.Sink, error) {
						return x.try(t, func(s *Settings) { s.URL = "mysql://naru@" + addr + "/" + x.schema; change(s) })
					},
					Values: func() (out []int64) {
						require.Equal(t, []string{"60"}, x.exec(t, "SELECT next_offset FROM naru_positions"))
						for _, r := range x.exec(t, "SELECT a FROM t") {
							n, err := strconv.ParseInt(r, 10, 64)
							require.NoError(t, err)
							out = append(out, n)
						}
						return out
					},
					Close: func() { x.exec(t, "DROP DATABASE "+x.schema); x.conn.Close() },
				}
			})
		})
	}
}

func TestRewindBesideOthers(t *testing.T) {
	sinktest.RewindBesideOthers(t, newTarget(t).database(t))
}

func TestKilled(t *testing.T) { sinktest.Killed(t, newTarget(t).database(t)) }

// A call that is given up ends soon, and the connection with it.
func TestGivenUp(t *testing.T) {
	x := newTarget(t)
	sinktest.Put(t, x.open(t, nil), sinktest.Table(0, "_id:string", `{}`))
	x.exec(t, "SET autocommit = 0", "SELECT * FROM naru_positions FOR UPDATE")
	s := x.open(t, nil)
	require.NoError(t, s.Write(t.Context(), sinktest.Table(1, "_id:string", `{}`)))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begun := time.Now()
	_, err := s.Commit(ctx)
	require.Error(t, err)
	require.Less(t, time.Since(begun), 10*time.Second)
	require.NoError(t, s.Close())
}

// Rows are not there without their positions.
func TestRowsWithPositions(t *testing.T) {
	x := newTarget(t)
	sinktest.Put(t, x.open(t, nil), sinktest.Table(0, "_id:string", `{}`))
	set := defaults()
	set.URL, set.Table = "mysql://naru@"+x.host+"/"+x.schema, "t"
	to, err := set.server()
	require.NoError(t, err)
	d, err := connect(t.Context(), to, getenv("PASS"), set, reader)
	require.NoError(t, err)
	at := event.Positions{sinktest.Lives[0]: {0: 2}}
	columns := []event.Column{{Name: "_id", Type: event.StringColumn}}
	require.NoError(t, d.Shape(t.Context(), columns))
	_, err = d.Begin(t.Context(), at)
	require.NoError(t, err)
	require.NoError(t, d.Insert(t.Context(), columns, d.AppendRow(nil, columns, []any{"1"}), 1))
	d.states = "nowhere"
	require.ErrorContains(t, d.Commit(t.Context(), at), "write naru_positions")
	require.NoError(t, d.Close())
	require.Equal(t, []string{"0"}, x.ids(t))
}
