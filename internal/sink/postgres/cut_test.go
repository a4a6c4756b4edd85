package postgres

import (
	"context"
	"io"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/sink"
	"naru/internal/sink/sinktest"
)

// The connection is cut after any number of bytes.
func TestCutAnywhere(t *testing.T) {
	u, err := url.Parse(sinktest.Engine(t, "postgres"))
	require.NoError(t, err)
	for name, change := range map[string]func(*Settings){"append": func(*Settings) {}, "upsert": upsert("_id")} {
		t.Run(name, func(t *testing.T) {
			sinktest.Cut(t, u.Host, 40, func(t *testing.T) sinktest.CutTarget {
				x := newTarget(t)
				x.exec(t, `CREATE TABLE t ("_id" text PRIMARY KEY, a bigint CHECK (a <> 33))`)
				return sinktest.CutTarget{
					Open: func(addr string) (sink.Sink, error) {
						return x.try(t, func(s *Settings) { s.URL = strings.Replace(x.url, u.Host, addr, 1); change(s) })
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
					Close: func() { x.exec(t, "DROP SCHEMA "+x.schema+" CASCADE"); x.conn.Close(context.Background()) },
				}
			})
		})
	}
}

func TestKilled(t *testing.T) {
	require.NotErrorIs(t, sinktest.Killed(t, newTarget(t).database(t)), io.ErrUnexpectedEOF, "the server's word is told")
}

// Rows are not there without their positions.
func TestRowsWithPositions(t *testing.T) {
	x := newTarget(t)
	sinktest.Put(t, x.open(t, nil), sinktest.Table(0, "_id:string", `{}`))
	set := x.settings(nil)
	cfg, err := pgconn.ParseConfig(set.URL)
	require.NoError(t, err)
	cfg.Password = getenv("PGPASS")
	d, err := connect(t.Context(), cfg, set, reader)
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
