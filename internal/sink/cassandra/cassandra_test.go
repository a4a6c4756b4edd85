package cassandra

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"
	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/sink"
	"naru/internal/sink/sinktest"
	"naru/internal/vfs"
)

var life = sinktest.Lives[0]

var number atomic.Int64

// place is a keyspace, with a table of the test's own: of Apache Cassandra where
// test-world/engines/with has started it, else of a fake.
type place struct {
	cfg  *Settings
	fake *fake // nil: the real one
}

func real() bool {
	return os.Getenv("NARU_TEST_CASSANDRA") != "" || os.Getenv("NARU_TEST_ENGINES") != ""
}

func newPlace(t *testing.T) *place {
	p := &place{cfg: defaults()}
	p.cfg.Keyspace, p.cfg.Table, p.cfg.Create = "naru_test", fmt.Sprintf("t%d_%d", os.Getpid(), number.Add(1)), true
	p.cfg.Hosts = []string{"127.0.0.1:9042"}
	if !real() {
		p.fake = newFake()
		return p
	}
	p.cfg.Hosts = []string{sinktest.Engine(t, "cassandra")}
	p.query(t, `CREATE KEYSPACE IF NOT EXISTS naru_test WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}`)
	return p
}

func env() sink.Env {
	return sink.Env{Pipeline: "edits", Name: "cassandra", Stream: sinktest.Stream, Reader: fmt.Sprint("pipeline/edits/cassandra", os.Getpid()), FS: vfs.OS(),
		Getenv: func(string) string { return "" }}
}

// asks is the tests' own session with the real one.
var (
	asking  sync.Once
	asks    *session
	asksErr error
)

// query asks the real one.
func (p *place) query(t *testing.T, statement string) (out []string) {
	t.Helper()
	asking.Do(func() {
		plain := *p.cfg
		plain.dial, plain.Timeout = nil, quantity.Duration(20*time.Second)
		asks, asksErr = connect(&plain, env(), "")
	})
	require.NoError(t, asksErr)
	s := asks
	iter := s.cql.Query(statement).Iter()
	data, err := iter.RowData()
	require.NoError(t, err)
	for {
		row := map[string]any{}
		if !iter.MapScan(row) {
			break
		}
		var texts []string
		for _, c := range data.Columns {
			v := row[c]
			if at, ok := v.(time.Time); ok {
				v = at.UnixMilli()
			}
			texts = append(texts, fmt.Sprint(v))
		}
		out = append(out, strings.Join(texts, " "))
	}
	require.NoError(t, iter.Close(), statement)
	slices.Sort(out)
	return out
}

func (p *place) rows(t *testing.T, columns ...string) []string {
	t.Helper()
	if p.fake != nil {
		return p.fake.rows(p.cfg.Table, columns...)
	}
	return p.query(t, fmt.Sprintf("SELECT %s FROM naru_test.%s", list(columns), p.cfg.Table))
}

func (p *place) open(t *testing.T) (sink.Sink, error) {
	require.NoError(t, p.cfg.Validate())
	if p.fake != nil {
		return open(t.Context(), p.cfg, env(), p.fake)
	}
	return p.cfg.Open(t.Context(), env())
}

func (p *place) opened(t *testing.T) sink.Sink {
	t.Helper()
	s, err := p.open(t)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	for name, change := range map[string]func(*Settings){
		"rows": func(*Settings) {},
		"ids":  func(s *Settings) { s.Partition, s.Batch, s.InFlight = []string{"_id"}, 3, 2 },
	} {
		t.Run(name, func(t *testing.T) {
			sinktest.Run(t, func(t *testing.T) sinktest.Harness {
				p := newPlace(t)
				change(p.cfg)
				h := sinktest.Harness{
					Tabular: true, Typed: true, Exact: name == "rows", // small batches are sent before Commit
					Open: func(t *testing.T) sink.Sink { return p.opened(t) },
					IDs: func(t *testing.T) []string {
						if !real() && p.fake.tables[p.cfg.Table] == nil || real() && len(p.query(t, "SELECT table_name FROM system_schema.tables WHERE keyspace_name='naru_test' AND table_name='"+p.cfg.Table+"'")) == 0 {
							return nil // nothing was committed: there is no table
						}
						return p.rows(t, "_id")
					},
				}
				if p.fake != nil {
					h.Refuse = func(ids ...string) {
						for _, id := range ids {
							p.fake.refuse[id] = true
						}
					}
				}
				return h
			})
		})
	}
}

func TestPage(t *testing.T) { sinktest.Page(t, Kind(), "../../../docs/sinks/cassandra.md") }

func batch(from int64, columns []event.Column, data ...string) *event.Batch {
	b := &event.Batch{Stream: sinktest.Stream, Incarnation: life, From: from, Next: from, Columns: columns, Rows: &event.Rows{}}
	for _, d := range data {
		b.Rows.Add(event.Event{ID: fmt.Appendf(nil, "e%d", b.Next), Offset: b.Next, Data: []byte(d)})
		b.Next++
	}
	return b
}

var users = []event.Column{{Name: "user", Type: event.LongColumn}, {Name: "state", Type: event.StringColumn}, {Name: "city", Type: event.StringColumn}}

// A writer that was thought dead wakes up and writes what is long out of date.
func TestZombie(t *testing.T) {
	p := newPlace(t)
	p.cfg.Partition = []string{"user"}
	old := p.opened(t)
	first := batch(0, users, `{"user":1,"state":"new","city":"a"}`, `{"user":2,"state":"new","city":"a"}`)
	require.NoError(t, old.Write(t.Context(), first))
	young := p.opened(t)
	sinktest.Put(t, young, first)
	sinktest.Put(t, young, batch(2, users, `{"user":1,"state":"paid"}`))
	_, err := old.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"1 paid <nil>", "2 new a"}, nils(p.rows(t, "user", "state", "city")), "the older row does not win, and the null of the newer one stays")

	// Read again from the beginning by another life of the process.
	sinktest.Put(t, p.opened(t), first)
	require.Equal(t, []string{"1 paid <nil>", "2 new a"}, nils(p.rows(t, "user", "state", "city")))

	// Unless that is wanted.
	p.cfg.Generation = 1
	sinktest.Put(t, p.opened(t), first)
	require.Equal(t, []string{"1 new a", "2 new a"}, nils(p.rows(t, "user", "state", "city")))
}

// nils makes nulls of the real one look like those of the fake.
func nils(rows []string) []string {
	for i, r := range rows {
		if strings.HasSuffix(r, " ") {
			rows[i] = r + "<nil>"
		}
	}
	return rows
}

// Two rows of one event under one key: the last counts, although both have its time.
func TestRowsOfOneEventUnderOneKey(t *testing.T) {
	p := newPlace(t)
	p.cfg.Partition, p.cfg.Batch = []string{"user"}, 1
	b := batch(0, users, `{"user":1,"state":"z"}`, `{"user":1,"state":"b"}`, `{"user":1,"state":"a"}`)
	b.Rows = sinktest.Changed(b.Rows, func(i int, e *event.Event) { e.Offset, e.Row = 0, int32(i) })
	sinktest.Put(t, p.opened(t), b)
	require.Equal(t, []string{"1 a"}, p.rows(t, "user", "state"))
}

// Requests fail, before or behind what they do: nothing is missing afterwards and
// nothing is there twice.
func TestLostRequests(t *testing.T) {
	a := sinktest.Events("a", 40)
	b := sinktest.AsRows(sinktest.Batch(life, 0, 0, a...))
	for n := range 40 {
		for _, done := range []bool{false, true} {
			p := &place{cfg: defaults(), fake: newFake()}
			p.cfg.Hosts, p.cfg.Keyspace, p.cfg.Table, p.cfg.Create, p.cfg.InFlight = []string{"h:1"}, "k", "t", true, 3
			asked := 0
			p.fake.insert = func([][]any) (error, bool) {
				if asked++; asked > n {
					return fault.Transient(errors.New("no answer")), done
				}
				return nil, true
			}
			s := p.opened(t)
			require.NoError(t, s.Write(t.Context(), b))
			_, err := s.Commit(t.Context())
			require.True(t, fault.IsTransient(err), err)
			_, err = s.Commit(t.Context())
			require.ErrorIs(t, err, errBroken)
			require.NoError(t, s.Close())
			p.fake.insert = nil
			sinktest.Put(t, p.opened(t), b)
			require.Len(t, p.rows(t, "_id"), 40)
		}
	}
}

// The network dies at any byte.
func TestCutAnywhere(t *testing.T) {
	if !real() {
		t.Skip("needs Apache Cassandra: test-world/engines/with cassandra -- go test ...")
	}
	a := sinktest.Events("a", 9)
	b := sinktest.AsRows(sinktest.Batch(life, 0, 0, a...))
	whole := 0
	for i := -1; i < 12; i++ {
		p := newPlace(t)
		sinktest.Put(t, p.opened(t), sinktest.AsRows(sinktest.Batch(life, 0, 100, sinktest.Events("first", 1)...))) // makes the table
		w := sinktest.NewWire()
		p.cfg.dial, p.cfg.Timeout = w.Dial, quantity.Duration(500*time.Millisecond)
		s := p.opened(t)
		before := w.Passed()
		if i >= 0 {
			w.CutAfter(1 + whole*i/12)
		}
		err := s.Write(t.Context(), b)
		if err == nil {
			_, err = s.Commit(t.Context())
		}
		t.Logf("cut %d: %v", i, err)
		if i < 0 {
			require.NoError(t, err)
			whole = w.Passed() - before
		}
		_ = s.Close()
		p.cfg.dial, p.cfg.Timeout = nil, quantity.Duration(10*time.Second)
		sinktest.Put(t, p.opened(t), b)
		require.Len(t, p.rows(t, "_id"), 10)
	}
}

func TestRefusals(t *testing.T) {
	p := newPlace(t)
	p.cfg.Partition = []string{"user", "state"}
	s := p.opened(t)
	sinktest.Put(t, s, batch(0, users, `{"user":1,"state":"a"}`, `{"user":1}`, `{"user":1,"state":"`+strings.Repeat("x", 70_000)+`"}`, `{"user":1,"state":"b"}`))
	refused := s.(sink.Refuser).Refused()
	if p.fake == nil {
		require.Len(t, refused, 2, refused)
		require.Contains(t, refused[1].Detail, "65535")
	}
	require.Contains(t, refused[0].Detail, "column state of the primary key is null")
	require.EqualValues(t, 1, refused[0].At.Offset)
	require.Subset(t, p.rows(t, "user", "state"), []string{"1 a", "1 b"})
}

// Columns that come later are added, or missed.
func TestColumnsOfTheTable(t *testing.T) {
	p := newPlace(t)
	s := p.opened(t)
	sinktest.Put(t, s, batch(0, users[:2], `{"user":1,"state":"a"}`))
	sinktest.Put(t, s, batch(1, users, `{"user":2,"state":"b","city":"c"}`))
	require.Equal(t, []string{"1 a <nil>", "2 b c"}, nils(p.rows(t, "user", "state", "city")))
	p.cfg.Create = false
	s = p.opened(t)
	err := s.Write(t.Context(), batch(2, append(slices.Clone(users), event.Column{Name: "more", Type: event.LongColumn}), `{"user":3}`))
	require.ErrorContains(t, err, "it has no column more")
	require.Contains(t, fault.HintOf(err), "create: true")
	require.ErrorIs(t, s.Write(t.Context(), batch(2, users, `{}`)), errBroken)
	sinktest.Put(t, p.opened(t), batch(2, nil)) // no rows, no columns

	p.cfg.Table = "gone"
	_, err = p.open(t)
	require.ErrorContains(t, err, "it does not exist")
}

// A table that was changed under the sink is no reason to refuse rows.
func TestTableChangedMeanwhile(t *testing.T) {
	p := newPlace(t)
	s := p.opened(t)
	sinktest.Put(t, s, batch(0, users, `{"user":1,"state":"a","city":"c"}`))
	if p.fake != nil {
		p.fake.tables[p.cfg.Table] = slices.DeleteFunc(p.fake.tables[p.cfg.Table], func(c column) bool { return c.name == "city" })
	} else {
		p.query(t, "ALTER TABLE naru_test."+p.cfg.Table+" DROP city")
	}
	next := batch(1, users, `{"user":2,"state":"b","city":"d"}`)
	require.NoError(t, s.Write(t.Context(), next))
	_, err := s.Commit(t.Context())
	require.ErrorContains(t, err, "it was changed")
	require.Empty(t, s.(sink.Refuser).Refused())
	if p.fake != nil { // the real one takes a moment until it lets a column of that name come back
		sinktest.Put(t, p.opened(t), next)
		require.Equal(t, []string{"1 a", "2 b"}, p.rows(t, "user", "state"))
	}
}

func TestTypes(t *testing.T) {
	p := newPlace(t)
	s := p.opened(t)
	sinktest.Put(t, s, batch(0, sinktest.Columns[2:9], `{"n":-9223372036854775808,"x":1.5,"yes":true,"at":"2026-03-01T12:30:00.123456Z","day":"2026-03-01","list":[1, {"a":null}],"Text é":"\"a\"\u0000"}`,
		`{"at":"0001-01-01T00:00:00Z","day":"0001-01-01"}`))
	if p.fake != nil {
		return
	}
	got := p.query(t, `SELECT n, x, yes, at, day, list, "Text é" FROM naru_test.`+p.cfg.Table)
	require.Equal(t, []string{`-9223372036854775808 1.5 true 1772368200123 1772323200000 [1, {"a":null}] "a"` + "\x00", `0 0 false -62135596800000 -62135596800000  `}, got)
}

func TestConvert(t *testing.T) {
	id := "0190f5e2-7c0a-7cc3-8f0e-2a5d41402abc"
	u, err := gocql.ParseUUID(id)
	require.NoError(t, err)
	at := time.UnixMilli(1_000_000)
	for _, c := range []struct {
		in   any
		cql  string
		want any // nil: it does not fit
	}{
		{"a", "text", "a"}, {int64(7), "text", "7"}, {"é", "ascii", nil}, {"a", "blob", []byte("a")},
		{true, "boolean", true}, {"true", "boolean", nil},
		{int64(7), "int", int32(7)}, {int64(math.MaxInt32), "int", int32(math.MaxInt32)}, {int64(1 << 31), "int", nil}, {int64(-1 << 31), "int", int32(math.MinInt32)},
		{int64(1 << 15), "smallint", nil}, {int64(-128), "tinyint", int8(-128)}, {int64(1 << 60), "bigint", int64(1 << 60)}, {1.5, "bigint", nil},
		{int64(7), "double", 7.0}, {int64(math.MaxInt64 - 1), "double", nil}, {1e300, "float", nil}, {1.5, "float", float32(1.5)}, {"x", "double", nil},
		{at, "timestamp", int64(1_000_000)}, {"2026-01-01", "date", nil},
		{id, "uuid", u}, {"x", "uuid", nil},
	} {
		got, _, err := convert(c.in, c.cql)
		require.Equal(t, c.want == nil, err != nil, "%v as %s: %v", c.in, c.cql, err)
		require.Equal(t, c.want, got)
	}
	sh, _ := newShape(defaults(), users, []column{{name: "user", kind: "partition_key", cql: "bigint"}, {name: "state", kind: "regular", cql: "frozen<list<text>>"}})
	require.ErrorContains(t, sh.writable(), "frozen<list<text>>")
}

func TestValidate(t *testing.T) {
	for want, change := range map[string]func(*Settings){
		"hosts: is missing":                func(s *Settings) { s.Hosts = nil },
		`hosts: "h" is no host:port`:       func(s *Settings) { s.Hosts = []string{"h"} },
		`keyspace: "" is no name`:          func(s *Settings) { s.Keyspace = "" },
		`table: "a-b" is no name`:          func(s *Settings) { s.Table = "a-b" },
		"table: naru_clocks is where":      func(s *Settings) { s.Table = clocks },
		"partition: is for tables that":    func(s *Settings) { s.Partition = []string{"a"} },
		"partition: is missing":            func(s *Settings) { s.Create, s.Cluster = true, []string{"a"} },
		"cluster: a column is in the key":  func(s *Settings) { s.Create, s.Partition, s.Cluster = true, []string{"a"}, []string{"a"} },
		"ttl: must be":                     func(s *Settings) { s.TTL = 1 },
		"generation: is a number":          func(s *Settings) { s.Generation = -1 },
		"consistency: must be":             func(s *Settings) { s.Consistency = "any" },
		"batch: must be":                   func(s *Settings) { s.Batch = 0 },
		"inflight: must be":                func(s *Settings) { s.InFlight = 0 },
		"timeout: must be":                 func(s *Settings) { s.Timeout = 0 },
		"user: goes together with passwor": func(s *Settings) { s.User = "u" },
		"tls.enabled: must be true":        func(s *Settings) { s.TLS.CA = "x" },
	} {
		s := defaults()
		s.Hosts, s.Keyspace, s.Table = []string{"127.0.0.1:9042"}, "k", "t"
		change(s)
		require.ErrorContains(t, s.Validate(), want)
	}
}
