package sinktest

import (
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/sink"
)

// Database is a target that speaks SQL, with nothing in it at first. Its sinks make the
// table t and its columns.
type Database struct {
	// Open opens the sink; with a key it upserts.
	Open func(key ...string) sink.Sink
	// Impatient opens one that waits no longer than that, and of which the server does
	// not hear longer than that.
	Impatient func(time.Duration) sink.Sink
	// Keyed opens one with row_key: _key.
	Keyed func() sink.Sink
	// Exec runs statements and gives the rows of the last one, values by '|', nulls NULL.
	Exec func(statements ...string) []string
	// Kill ends the connections of the sinks that are within a transaction.
	Kill func()
}

func (d Database) has(t *testing.T, query string, want ...string) {
	t.Helper()
	if got := d.Exec(query); !slices.Equal(got, want) {
		t.Fatalf("%s gives %q, want %q", query, got, want)
	}
}

// NewColumn brings columns that come later, and one that goes behind the sink's back.
func NewColumn(t *testing.T, d Database) {
	s := d.Open()
	Put(t, s, Table(0, "_id:string a:long", `{"a":1}`), Table(1, "_id:string b:string a:long c:json", `{"a":2,"b":"x"}`))
	Put(t, s, Table(2, "_id:string d:date", `{"d":"2026-01-01"}`))
	d.Exec("ALTER TABLE t DROP COLUMN d")
	more := Table(3, "_id:string d:date", `{"d":"2026-01-01"}`)
	if _, hint := Stops(t, s, nil, more); hint != "add the column, or set create: true" {
		t.Fatalf("the hint is %q", hint)
	}
	s = d.Open()
	Put(t, s, more)
	d.has(t, "SELECT _id, a, b, d FROM t ORDER BY _id", "0|1|NULL|NULL", "1|2|x|NULL", "2|NULL|NULL|NULL", "3|NULL|NULL|2026-01-01")
	closeSink(t, s)
}

// Upsert: of rows with the same key the last one counts, in one batch and over many; a
// column that it does not bring stays as it is.
func Upsert(t *testing.T, d Database) {
	s := d.Open("k", "day")
	Put(t, s, Table(0, "k:string day:date v:long w:long", `{"k":"a","day":"2026-01-01","v":1,"w":1}`, `{"k":"b","day":"2026-01-01","v":2}`, `{"k":"a","day":"2026-01-01","v":3}`))
	Put(t, s, Table(3, "k:string day:date v:long", `{"k":"b","day":"2026-01-01","v":4}`, `{"k":"a","day":"2026-01-02","v":5}`, `{"k":"b","day":"2026-01-01","v":6}`))
	Put(t, s, Table(6, "k:string day:date", `{"k":"b","day":"2026-01-01"}`, `{"k":"c","day":"2026-01-01"}`))
	d.has(t, "SELECT k, day, v, w FROM t ORDER BY 1, 2", "a|2026-01-01|3|NULL", "a|2026-01-02|5|NULL", "b|2026-01-01|6|NULL", "c|2026-01-01|NULL|NULL")
	closeSink(t, s)
}

// AnotherWriter: a writer that was overtaken changes nothing, and one that hangs in its
// transaction holds up the next one no longer than its timeout.
func AnotherWriter(t *testing.T, d Database) {
	const columns = "_id:string"
	zombie, s := d.Open(), d.Impatient(500*time.Millisecond)
	b := Table(0, columns, `{}`, `{}`)
	if err := zombie.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	Put(t, s, b)
	_, err := zombie.Commit(t.Context())
	if err == nil || !strings.Contains(err.Error(), "another writer has moved partition 0 to 2, this one continues from 0; nothing was written") {
		t.Fatalf("the one that was overtaken: %v", err)
	}
	d.has(t, "SELECT count(*) FROM t", "2")
	closeSink(t, zombie)

	zombie = d.Impatient(2 * time.Second)
	c := Table(2, columns, `{}`)
	if err := zombie.Write(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := zombie.(sink.Preparer).Prepare(t.Context()); err != nil { // it stays in its transaction
		t.Fatal(err)
	}
	if err := s.Write(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := s.(sink.Preparer).Prepare(t.Context()); !fault.IsTransient(err) {
		t.Fatalf("the one that waits for it: %v", err)
	}
	closeSink(t, s)
	for deadline := time.Now().Add(time.Minute); ; { // the server ends the transaction of the one that says no more
		s := d.Open()
		if err := s.Write(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		_, err := s.Commit(t.Context())
		closeSink(t, s)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if _, err := zombie.Commit(t.Context()); err == nil {
		t.Fatal("the one that hung has committed")
	}
	d.has(t, "SELECT count(*) FROM t", "3")
	closeSink(t, zombie)
}

// RewindBesideOthers: a rewind leaves rows of others, whatever they have in the column.
// What refers to rows is told before anything has changed.
func RewindBesideOthers(t *testing.T, d Database) {
	from := event.Positions{Lives[0]: {0: 1}}
	ask := func() error {
		s := d.Keyed()
		defer closeSink(t, s)
		_, err := s.(sink.Rewinder).Rewindable(t.Context(), from)
		return err
	}
	stays := func(why string) {
		t.Helper()
		if err := ask(); !errors.Is(err, sink.ErrStays) || !strings.Contains(strings.ToLower(err.Error()), why) {
			t.Fatalf("Rewindable: %v, want %q", err, why)
		}
	}
	d.Exec("CREATE TABLE t (a varchar(50) PRIMARY KEY, _key varchar(80))")
	s := d.Keyed()
	Put(t, s, Table(0, "a:string", `{"a":"0"}`, `{"a":"1"}`, `{"a":"2"}`))
	closeSink(t, s)
	life, other := hex.EncodeToString(Lives[0][:]), hex.EncodeToString(Lives[1][:])
	d.Exec("INSERT INTO t VALUES ('x', 'x'), ('y', ''), ('z', '" + life + "/0/5/0/1'), ('o', '" + life + "/10/5/0'), ('b', '" + other + "/0/5/0')")
	d.Exec("INSERT INTO t VALUES ('null', NULL)")
	stays("rows without a value in _key")
	d.Exec("DELETE FROM t WHERE _key IS NULL")
	d.Exec("CREATE TABLE child (a varchar(50), FOREIGN KEY (a) REFERENCES t (a))")
	d.Exec("INSERT INTO child VALUES ('2')")
	stays("foreign key constraint")
	d.Exec("DROP TABLE child")
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	d.has(t, "SELECT count(*) FROM t", "8") // it was only asked
	s = d.Keyed()
	if err := s.(sink.Rewinder).Rewind(t.Context(), from, false); err != nil {
		t.Fatal(err)
	}
	closeSink(t, s)
	d.has(t, "SELECT a FROM t ORDER BY a", "0", "b", "o", "x", "y", "z")
	d.has(t, "SELECT next_offset FROM naru_positions", "1")
}

// Killed: the server ends the connection between the rows and their commit, whose error
// is returned.
func Killed(t *testing.T, d Database) error {
	s := d.Open()
	b := Table(0, "_id:string", `{}`, `{}`)
	if err := s.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := s.(sink.Preparer).Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.Kill()
	_, err := s.Commit(t.Context())
	if !fault.IsTransient(err) {
		t.Fatalf("Commit over a connection that was ended: %v", err)
	}
	closeSink(t, s)
	s = d.Open()
	Put(t, s, b)
	d.has(t, "SELECT _id FROM t ORDER BY _id", "0", "1")
	closeSink(t, s)
	return err
}

// NoPassword opens settings that want the password in the variable SHOP_PASSWORD, for a
// server that is not there: without it, and with it, which no error shows.
func NoPassword(t *testing.T, s sink.Settings) {
	t.Helper()
	_, err := s.Open(t.Context(), sink.Env{Name: "shop", Getenv: func(string) string { return "" }})
	if err == nil || !strings.Contains(err.Error(), "the variable SHOP_PASSWORD is not set") {
		t.Errorf("without the password: %v", err)
	}
	_, err = s.Open(t.Context(), sink.Env{Name: "shop", Getenv: func(string) string { return "hunter2" }})
	if !fault.IsTransient(err) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("without the server: %v", err)
	}
}
