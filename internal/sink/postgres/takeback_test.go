package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/sink/sinktest"
)

func TestRewindBesideOthers(t *testing.T) {
	sinktest.RewindBesideOthers(t, newTarget(t).database(t))
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
