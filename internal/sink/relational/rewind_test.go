package relational

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/sink"
	"naru/internal/sink/sinktest"
)

// Whatever fails in a rewind: it is done as a whole or not at all, and done again it
// ends the same.
func TestRewindFails(t *testing.T) {
	first := rows(sinktest.Lives[0], 0, 0, sinktest.Events("a", 9)...)
	from := event.Positions{sinktest.Lives[0]: {0: 4}}
	old := []string{"a-0", "a-1", "a-2", "a-3", "a-4", "a-5", "a-6", "a-7", "a-8"}
	failed := map[string]bool{}
	for n := 1; n <= 10; n++ {
		srv := newServer()
		s, _ := open(t, srv, keyed)
		require.NoError(t, s.Write(t.Context(), first))
		_, err := s.Commit(t.Context())
		require.NoError(t, err)
		base := srv.calls
		srv.fail = func(call string, i int) (before, after error) {
			if i-base == (n+1)/2 {
				failed[call] = true
				if n%2 == 0 {
					return nil, errors.New("lost")
				}
				return errors.New("not sent"), nil
			}
			return nil, nil
		}
		rewind := func() error {
			s, err := Open(t.Context(), &conn{server: srv}, Config{Stream: sinktest.Stream, Target: "table t", RowKey: rowKey, StatementBytes: 1 << 20, StatementRows: 4})
			if err != nil {
				return err
			}
			return s.Rewind(t.Context(), from, false)
		}
		require.Error(t, rewind(), n)
		switch off, _ := srv.positions.Get(sinktest.Lives[0], 0); off {
		case 9:
			require.Equal(t, old, srv.ids(), n)
		default:
			require.Equal(t, old[:4], srv.ids(), n)
		}
		srv.fail = nil
		require.NoError(t, rewind())
		require.Equal(t, old[:4], srv.ids(), n)
		require.Equal(t, event.Positions{sinktest.Lives[0]: {0: 4}}, srv.positions, n)
	}
	require.Equal(t, map[string]bool{"load": true, "keyed": true, "begin": true, "delete": true, "commit": true}, failed)
}

// A sink that was overtaken by the rewind writes nothing any more.
func TestRewindFencesOff(t *testing.T) {
	srv := newServer()
	s, _ := open(t, srv, keyed)
	require.NoError(t, s.Write(t.Context(), rows(sinktest.Lives[0], 0, 0, sinktest.Events("a", 5)...)))
	_, err := s.Commit(t.Context())
	require.NoError(t, err)
	back, _ := open(t, srv, keyed)
	require.NoError(t, back.Rewind(t.Context(), event.Positions{sinktest.Lives[0]: {0: 2}}, false))
	require.NoError(t, s.Write(t.Context(), rows(sinktest.Lives[0], 0, 5, sinktest.Events("b", 5)...)))
	_, err = s.Commit(t.Context())
	require.ErrorContains(t, err, "another writer has moved partition 0 to 2")
	require.Equal(t, []string{"a-0", "a-1"}, srv.ids())
	require.Error(t, back.Write(t.Context(), rows(sinktest.Lives[0], 0, 2, sinktest.Events("b", 5)...)), "it is opened anew")

	// Nor does one take the database back that does not know it any more.
	late, _ := open(t, srv, keyed)
	s, _ = open(t, srv, keyed)
	require.NoError(t, s.Write(t.Context(), rows(sinktest.Lives[0], 0, 2, sinktest.Events("c", 5)...)))
	_, err = s.Commit(t.Context())
	require.NoError(t, err)
	require.ErrorContains(t, late.Rewind(t.Context(), event.Positions{sinktest.Lives[0]: {0: 1}}, false), "another writer has moved partition 0 to 7")
	require.Len(t, srv.ids(), 7)
}

func TestRewindableSaysWhyNot(t *testing.T) {
	from := event.Positions{sinktest.Lives[0]: {0: 2}}
	ask := func(srv *server, from event.Positions, change func(*Config)) error {
		s, _ := open(t, srv, change)
		_, err := s.Rewindable(context.Background(), from)
		if err == nil { // what was tried is never committed
			_, err := s.Commit(t.Context())
			require.ErrorIs(t, err, errTried)
		}
		return err
	}
	srv := newServer()
	s, _ := open(t, srv, nil)
	require.NoError(t, s.Write(t.Context(), rows(sinktest.Lives[0], 0, 0, sinktest.Events("a", 5)...)))
	_, err := s.Commit(t.Context())
	require.NoError(t, err)
	upsert := func(c *Config) { c.RowKey, c.Key = rowKey, []string{"_id"} }

	err = ask(srv, from, nil)
	require.ErrorIs(t, err, sink.ErrStays)
	require.ErrorContains(t, err, "without row_key nothing in table t says which event a row is of")
	err = ask(srv, from, keyed)
	require.ErrorIs(t, err, sink.ErrStays, "rows from before row_key was set")
	require.ErrorContains(t, err, "has rows without a value in _key")
	require.NotEmpty(t, fault.HintOf(err))
	for _, r := range srv.rows {
		r[rowKey] = "somebody else's"
	}
	require.NoError(t, ask(srv, from, keyed))
	require.ErrorContains(t, ask(srv, from, upsert), "have replaced older ones")
	require.ErrorContains(t, ask(srv, event.Positions{sinktest.Lives[1]: {0: 0}}, upsert), "have replaced older ones", "rows of a log that is gone")
	require.NoError(t, ask(srv, event.Positions{sinktest.Lives[0]: {0: 0}}, upsert))
	srv.positions.Advance(event.Position{Incarnation: sinktest.Lives[0], Partition: sink.ReplayLane, Offset: 3})
	require.NoError(t, ask(srv, event.Positions{sinktest.Lives[0]: {0: 0}}, upsert), "it was sent replays")
	srv.holdsOn = true
	require.ErrorContains(t, ask(srv, from, keyed), "the database does not let rows of table t go: something refers to it")
	srv.holdsOn, srv.fail = false, func(call string, _ int) (error, error) {
		if call == "delete" {
			return errors.New("no route"), nil
		}
		return nil, nil
	}
	err = ask(srv, from, keyed)
	require.ErrorContains(t, err, "no route")
	require.NotErrorIs(t, err, sink.ErrStays, "it may work another time")
}

// A rewind was begun, and before it is done the settings have changed: rows that are not
// found any more do not come twice.
func TestRewindByOtherSettings(t *testing.T) {
	srv := newServer()
	s, _ := open(t, srv, keyed)
	require.NoError(t, s.Write(t.Context(), rows(sinktest.Lives[0], 0, 0, sinktest.Events("a", 5)...)))
	_, err := s.Commit(t.Context())
	require.NoError(t, err)
	from := event.Positions{sinktest.Lives[0]: {0: 2}}
	for _, change := range []func(*Config){nil, func(c *Config) { c.RowKey = "other" }} {
		s, _ := open(t, srv, change)
		err := s.Rewind(t.Context(), from, false)
		require.ErrorIs(t, err, sink.ErrStays)
		require.Contains(t, fault.HintOf(err), "as it was")
	}
	off, _ := srv.positions.Get(sinktest.Lives[0], 0)
	require.EqualValues(t, 5, off)
	s, _ = open(t, srv, keyed)
	require.NoError(t, s.Rewind(t.Context(), from, false))
	require.Equal(t, []string{"a-0", "a-1"}, srv.ids())
}

func TestRowKeyIsTaken(t *testing.T) {
	s, _ := open(t, newServer(), func(c *Config) { c.RowKey = "_ID" })
	require.ErrorContains(t, s.Write(t.Context(), rows(sinktest.Lives[0], 0, 0, sinktest.Events("a", 1)...)), "the rows have a column _ID of their own")
}
