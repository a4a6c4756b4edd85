package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/sink"
	"naru/internal/sink/sinktest"
)

// rewindable asks a sink of its own.
func (x *target) rewindable(t *testing.T, from event.Positions) error {
	s := x.open(t, keyed)
	defer func() { require.NoError(t, s.Close()) }()
	_, err := s.(sink.Rewinder).Rewindable(t.Context(), from)
	return err
}

// Rows of others stay, whatever they have in the column; what refers to rows, or a right
// that is missing, is told before anything has changed.
func TestRewindBesideOthers(t *testing.T) {
	x := newTarget(t)
	x.exec(t, `CREATE TABLE t (a text PRIMARY KEY, _key varchar(80))`)
	from := event.Positions{sinktest.Lives[0]: {0: 1}}
	s := x.open(t, keyed)
	sinktest.Put(t, s, sinktest.Table(0, "a:string", `{"a":"0"}`, `{"a":"1"}`, `{"a":"2"}`))
	require.NoError(t, s.Close())
	life := "a1000000000000000000000000000000"
	x.exec(t, `INSERT INTO t VALUES ('x', 'x'), ('y', ''), ('z', '`+life+`/0/99999999999999999999999/0/1'), ('o', '`+life+`/10/5/0'), ('b', 'b1000000000000000000000000000000/0/5/0')`)
	x.exec(t, `INSERT INTO t VALUES ('null', NULL)`)
	err := x.rewindable(t, from)
	require.ErrorIs(t, err, sink.ErrStays)
	require.ErrorContains(t, err, "rows without a value in _key")
	x.exec(t, `DELETE FROM t WHERE _key IS NULL; CREATE TABLE child (a text REFERENCES t); INSERT INTO child VALUES ('2')`)
	err = x.rewindable(t, from)
	require.ErrorIs(t, err, sink.ErrStays)
	require.ErrorContains(t, err, "violates foreign key constraint")
	x.exec(t, `DROP TABLE child`)
	require.NoError(t, x.rewindable(t, from))
	require.Len(t, x.exec(t, `SELECT a FROM t`), 8, "it was only asked")
	s = x.open(t, keyed)
	require.NoError(t, s.(sink.Rewinder).Rewind(t.Context(), from, false))
	require.NoError(t, s.Close())
	require.Equal(t, []string{"0", "b", "o", "x", "y", "z"}, x.exec(t, `SELECT a FROM t ORDER BY a`))
	require.Equal(t, []string{"1"}, x.exec(t, `SELECT next_offset FROM naru_positions`))
}

func TestRewindNeedsARight(t *testing.T) {
	x := newTarget(t)
	s := x.open(t, keyed)
	sinktest.Put(t, s, sinktest.Table(0, "a:string", `{"a":"0"}`))
	require.NoError(t, s.Close())
	role := x.schema + "_poor"
	x.exec(t, `CREATE ROLE `+role+`; GRANT USAGE ON SCHEMA `+x.schema+` TO `+role+`; GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA `+x.schema+` TO `+role)
	t.Cleanup(func() { x.exec(t, `DROP OWNED BY `+role+`; DROP ROLE `+role) })
	set := x.settings(keyed)
	cfg, err := pgconn.ParseConfig(set.URL)
	require.NoError(t, err)
	cfg.Password = getenv("PGPASS")
	db, err := connect(t.Context(), cfg, set, reader)
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.exec(t.Context(), `SET ROLE `+role))
	_, err = db.Begin(t.Context(), event.Positions{})
	require.NoError(t, err)
	err = db.Delete(t.Context(), "_key", event.Positions{sinktest.Lives[0]: {0: 0}})
	require.ErrorContains(t, err, "permission denied")
	require.Contains(t, fault.HintOf(err), "GRANT the user of the url DELETE")
}
