package relational

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/sink"
	"naru/internal/sink/sinktest"
)

// server is a database that outlives its connections.
type server struct {
	rows      []map[string]any
	positions event.Positions
	refuse    map[string]bool
	holdsOn   bool // to its rows
	calls     int
	fail      func(call string, n int) (before, after error) // n counts all calls
}

func newServer() *server {
	return &server{positions: event.Positions{}, refuse: map[string]bool{}}
}

// conn is one connection to it.
type conn struct {
	*server
	open  bool // a transaction
	added []map[string]any
	gone  event.Positions // deleted in the transaction
	sizes []int           // rows of each Insert
}

func (c *conn) call(name string, do func() error) error {
	c.calls++
	var before, after error
	if c.fail != nil {
		before, after = c.fail(name, c.calls)
	}
	if before != nil {
		return before
	}
	if err := do(); err != nil {
		return err
	}
	return after
}

func (c *conn) Load(context.Context) (at event.Positions, err error) {
	err = c.call("load", func() error { at = c.positions.Clone(); return nil })
	return at, err
}

func (c *conn) Shape(context.Context, []event.Column) error {
	return c.call("shape", func() error { return nil })
}

func (c *conn) AppendRow(dst []byte, columns []event.Column, values []any) []byte {
	m := map[string]any{}
	for i, col := range columns {
		m[col.Name] = values[i]
	}
	line, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return append(append(dst, line...), '\n')
}

func (c *conn) Begin(ctx context.Context, at event.Positions) (have event.Positions, err error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	err = c.call("begin", func() error {
		c.open, have = true, event.Positions{}
		for inc, parts := range at {
			for p := range parts {
				if off, ok := c.positions.Get(inc, p); ok {
					have.Advance(event.Position{Incarnation: inc, Partition: p, Offset: off})
				}
			}
		}
		return nil
	})
	return have, err
}

func (c *conn) Insert(_ context.Context, _ []event.Column, rows []byte, n int) error {
	return c.call("insert", func() error {
		c.sizes = append(c.sizes, n)
		lines := bytes.Split(bytes.TrimSuffix(rows, []byte("\n")), []byte("\n"))
		if len(lines) != n || !c.open {
			return fmt.Errorf("%d rows, %d told, in a transaction: %t", len(lines), n, c.open)
		}
		var add []map[string]any
		for _, l := range lines {
			var m map[string]any
			if err := json.Unmarshal(l, &m); err != nil {
				return err
			}
			if id, _ := m["_id"].(string); c.refuse[id] {
				return &RowError{Err: errors.New("no such thing as " + id)}
			}
			add = append(add, m)
		}
		c.added = append(c.added, add...)
		return nil
	})
}

func (c *conn) Commit(_ context.Context, at event.Positions) error {
	return c.call("commit", func() error {
		for inc, parts := range at {
			for p, off := range parts {
				c.positions.Advance(event.Position{Incarnation: inc, Partition: p, Offset: off})
				c.positions[inc][p] = off // also back
			}
		}
		c.rows = slices.DeleteFunc(c.rows, func(m map[string]any) bool {
			at, _, err := sink.ParseKey(fmt.Sprint(m[rowKey]))
			off, ok := c.gone.Get(at.Incarnation, at.Partition)
			return err == nil && ok && at.Offset >= off
		})
		c.rows, c.added, c.gone, c.open = append(c.rows, c.added...), nil, nil, false
		return nil
	})
}

func (c *conn) Keyed(_ context.Context, column string) (keyed bool, err error) {
	err = c.call("keyed", func() error {
		keyed = !slices.ContainsFunc(c.rows, func(m map[string]any) bool { return m[column] == nil })
		return nil
	})
	return keyed, err
}

func (c *conn) Delete(_ context.Context, column string, from event.Positions) error {
	return c.call("delete", func() error {
		if !c.open || column != rowKey {
			return fmt.Errorf("delete by %s, in a transaction: %t", column, c.open)
		}
		if c.holdsOn {
			return &RowError{Err: errors.New("something refers to it")}
		}
		c.gone = from
		return nil
	})
}

const rowKey = "_key"

func keyed(c *Config) { c.RowKey = rowKey }

func (c *conn) Close() error { return nil }

func (srv *server) ids() (out []string) {
	for _, r := range srv.rows {
		id, _ := r["_id"].(string)
		out = append(out, id)
	}
	return out
}

// rows makes a batch of events, as the pipeline does for a kind that is tabular.
func rows(life event.Incarnation, partition int32, base int64, specs ...sinktest.Spec) *event.Batch {
	return sinktest.AsRows(sinktest.Batch(life, partition, base, specs...))
}

var config = Config{Stream: sinktest.Stream, Target: "table t", StatementBytes: 1 << 20, StatementRows: 4}

func open(t *testing.T, srv *server, change func(*Config)) (*Sink, *conn) {
	cfg := config
	if change != nil {
		change(&cfg)
	}
	c := &conn{server: srv}
	s, err := Open(t.Context(), c, cfg)
	require.NoError(t, err)
	return s, c
}

func TestConformance(t *testing.T) {
	for name, rewinds := range map[string]sinktest.Rewinds{"plain": sinktest.Never, "keyed": sinktest.Anywhere, "upsert": sinktest.Wholly} {
		t.Run(name, func(t *testing.T) {
			change := func(cfg *Config) {
				if name != "plain" {
					cfg.RowKey = rowKey
				}
				if name == "upsert" {
					cfg.Key = []string{"_id"}
				}
			}
			sinktest.Run(t, func(*testing.T) sinktest.Harness {
				srv := newServer()
				return sinktest.Harness{Exact: true, Tabular: true, Rewinds: rewinds,
					Open: func(t *testing.T) sink.Sink { s, _ := open(t, srv, change); return s },
					IDs:  func(*testing.T) []string { return srv.ids() },
					Refuse: func(ids ...string) {
						for _, id := range ids {
							srv.refuse[id] = true
						}
					},
				}
			})
		})
	}
}

// Two sinks of one reader: the one that was overtaken changes nothing.
func TestAnotherWriter(t *testing.T) {
	srv := newServer()
	first := rows(sinktest.Lives[0], 0, 0, sinktest.Events("a", 5)...)
	for _, begun := range []bool{false, true} {
		zombie, _ := open(t, srv, nil)
		require.NoError(t, zombie.Write(t.Context(), first))
		s, _ := open(t, srv, nil)
		require.NoError(t, s.Write(t.Context(), first))
		_, err := s.Commit(t.Context())
		require.NoError(t, err)
		_, err = zombie.Commit(t.Context())
		require.ErrorContains(t, err, "another writer has moved partition 0 to", begun)
		require.True(t, fault.IsTransient(err), "it reads again from where the table is")
		require.Len(t, srv.rows, 5*(1+map[bool]int{true: 1}[begun]))
		require.Error(t, zombie.Write(t.Context(), first), "it is of no use any more")
		first = rows(sinktest.Lives[0], 0, first.Next, sinktest.Events("b", 5)...) // the second time there is a position
	}
	// A database that was set back is behind what this sink knows.
	s, _ := open(t, srv, nil)
	srv.positions[sinktest.Lives[0]][0] = 7
	require.NoError(t, s.Write(t.Context(), rows(sinktest.Lives[0], 0, 10, sinktest.Events("c", 1)...)))
	require.ErrorContains(t, s.Prepare(t.Context()), "to 7, this one continues from 10")
	s, _ = open(t, srv, nil)
	at, err := s.Resume(t.Context(), sinktest.Stream)
	require.NoError(t, err)
	require.Equal(t, event.Positions{sinktest.Lives[0]: {0: 7}}, at)
}

// Refusals are known before the commit, and nothing is committed by then.
func TestRefusedBeforeCommit(t *testing.T) {
	srv := newServer()
	srv.refuse["a-3"], srv.refuse["a-9"] = true, true
	s, c := open(t, srv, func(c *Config) { c.StatementRows = 100 })
	b := rows(sinktest.Lives[0], 0, 50, sinktest.Events("a", 12)...)
	require.NoError(t, s.Write(t.Context(), b))
	require.NoError(t, s.Prepare(t.Context()))
	require.Empty(t, srv.rows)
	require.Empty(t, srv.positions)
	at := event.Position{Incarnation: sinktest.Lives[0], Offset: 53}
	later := at
	later.Offset = 59
	require.Equal(t, []sink.Refusal{{At: at, Detail: "no such thing as a-3"}, {At: later, Detail: "no such thing as a-9"}}, s.Refused())
	require.Empty(t, s.Refused())
	require.Error(t, s.Write(t.Context(), b), "it would be committed without having been prepared")
	done, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Positions{b.Incarnation: {0: 62}}, done)
	require.Equal(t, []string{"a-0", "a-1", "a-2", "a-4", "a-5", "a-6", "a-7", "a-8", "a-10", "a-11"}, srv.ids(), "in their order")
	require.Less(t, len(c.sizes), 2*12)
	require.Empty(t, s.Refused())
}

// What is wrong with the database is not the row's fault.
func TestFailureIsNoRefusal(t *testing.T) {
	srv := newServer()
	down := fault.Transient(errors.New("the server is shutting down"))
	srv.fail = func(call string, _ int) (error, error) {
		if call == "insert" {
			return down, nil
		}
		return nil, nil
	}
	s, _ := open(t, srv, nil)
	require.NoError(t, s.Write(t.Context(), rows(sinktest.Lives[0], 0, 0, sinktest.Events("a", 1)...)))
	require.ErrorIs(t, s.Prepare(t.Context()), down)
	require.Empty(t, s.Refused())
	require.Empty(t, srv.positions)
	_, err := s.Commit(t.Context())
	require.ErrorIs(t, err, down, "until it is opened anew")
}

func TestStatements(t *testing.T) {
	srv := newServer()
	s, c := open(t, srv, func(c *Config) { c.StatementRows, c.StatementBytes = 10, 600 })
	specs := sinktest.Events("a", 13)
	specs[5].ID = strings.Repeat("x", 5000)
	require.NoError(t, s.Write(t.Context(), rows(sinktest.Lives[0], 0, 0, specs...)))
	require.Positive(t, s.PendingBytes())
	_, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.Zero(t, s.PendingBytes())
	require.Len(t, srv.rows, 13)
	require.Contains(t, c.sizes, 1, "the long one goes alone")
	require.Less(t, slices.Max(c.sizes), 5)
}

func TestKey(t *testing.T) {
	srv := newServer()
	s, _ := open(t, srv, func(c *Config) { c.Key = []string{"n"} })
	b := &event.Batch{Stream: sinktest.Stream, Incarnation: sinktest.Lives[0], Next: 6, Columns: []event.Column{{Name: "_id", Type: event.StringColumn}, {Name: "n", Type: event.LongColumn}}, Rows: &event.Rows{}}
	for i := range int64(6) {
		e := sinktest.Row(fmt.Sprint(i), i, 0)
		if i%2 == 1 {
			e.Data = []byte(`{}`)
		}
		b.Rows.Add(e)
	}
	require.NoError(t, s.Write(t.Context(), b))
	require.NoError(t, s.Prepare(t.Context()))
	refused := s.Refused()
	require.Len(t, refused, 3)
	require.Equal(t, sink.Refusal{At: event.Position{Incarnation: b.Incarnation, Offset: 1}, Detail: "a column of the key is null"}, refused[0])
	_, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"0", "2", "4"}, srv.ids())

	b.Columns = b.Columns[:1]
	require.Equal(t, "add n to what the last step selects, or change key in the pipeline's file", fault.HintOf(s.Write(t.Context(), b)))
	b.Columns = []event.Column{}
	b.From, b.Next = 6, 7
	require.ErrorContains(t, s.Write(t.Context(), b), "the rows have no columns")
}

// Whatever call fails, before or after the database has done it: read again, each
// row is there once.
func TestFailuresAnywhere(t *testing.T) {
	for at := 1; at < 40; at++ {
		for _, late := range []bool{false, true} {
			srv := newServer()
			srv.refuse["a-3"] = true
			srv.fail = func(_ string, n int) (error, error) {
				if n != at {
					return nil, nil
				}
				if late {
					return nil, errors.New("lost answer")
				}
				return errors.New("lost"), nil
			}
			events, rng := sinktest.Events("a", 20), rand.New(rand.NewPCG(uint64(at), 1))
			mark, refused := int64(0), map[int64]bool{}
			for range 4 {
				c := &conn{server: srv}
				s, err := Open(t.Context(), c, config)
				for next := mark; err == nil && mark < 20; {
					n := min(1+rng.Int64N(9), 20-next)
					b := rows(sinktest.Lives[0], 0, next, events[next:next+n]...)
					if err = s.Write(t.Context(), b); err == nil {
						err = s.Prepare(t.Context())
					}
					if err != nil {
						break
					}
					for _, r := range s.Refused() {
						refused[r.At.Offset] = true
					}
					if _, err = s.Commit(t.Context()); err == nil {
						next, mark = b.Next, b.Next
					}
				}
			}
			require.Len(t, srv.rows, 19, "call %d, late %t", at, late)
			require.Equal(t, map[int64]bool{3: true}, refused)
		}
	}
}
