package duck

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/transform"
)

func lakeSteps(t *testing.T, l *testLake, change ...func(*StepsConfig)) *Steps {
	t.Helper()
	cfg := DefaultStepsConfig()
	cfg.Warehouse, cfg.Refresh = l.dir, 0
	for _, f := range change {
		f(&cfg)
	}
	s, err := NewSteps(cfg, StepsDeps{Lake: lake.Snapshots{Reader: l}})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		require.Zero(t, l.leases.Load())
	})
	return s
}

func TestStepsJoinTables(t *testing.T) {
	t.Run("in memory", func(t *testing.T) { joinTables(t, func(*StepsConfig) {}) })
	t.Run("files", func(t *testing.T) { joinTables(t, func(c *StepsConfig) { c.Table = 0 }) })
}

func joinTables(t *testing.T, change func(*StepsConfig)) {
	l := newLake(t)
	v := l.table("events.geo", "1 country string", "2 name string", "3 n long")
	l.file(t, v, `SELECT * FROM (VALUES ('de', 'Germany', 1), ('fr', 'France', 2), ('fr', 'Frankreich', 3)) t(country, name, n)`, `country: 1, name: 2, n: 3`)
	v.Files[0].Bytes = 1
	s := lakeSteps(t, l, change)
	list := sqlSteps("SELECT page, name FROM input LEFT JOIN geo g USING (country)", "SELECT *, (SELECT max(n) FROM events.geo WHERE name = input.name) AS most, page IN (SELECT country FROM geo) AS known FROM input")
	tr := openSteps(t, s, list)
	b := batchOf(t, 5, `{"page": "a", "country": "fr"}`, `{"page": "b", "country": "kr"}`, `{"page": "de", "country": "de"}`)
	require.Equal(t, `5.0 {"page":"a","name":"France","most":2,"known":false}
5.1 {"page":"a","name":"Frankreich","most":3,"known":false}
6.0 {"page":"b","known":false}
7.0 {"page":"de","name":"Germany","most":1,"known":true}
written 3 filtered 0`, dump(apply(t, tr, b)))

	// A new snapshot.
	l.file(t, v, `SELECT 'kr' AS country, '한국' AS name, 9::BIGINT AS n`, `country: 1, name: 2, n: 3`)
	require.Contains(t, dump(apply(t, tr, b)), `6.0 {"page":"b","name":"한국","most":9,"known":false}`)

	// A file that cannot be read is not the events' fault.
	one := openSteps(t, s, list[:1])
	apply(t, one, b)
	require.NoError(t, os.Rename(v.Files[0].Path, v.Files[0].Path+".gone"))
	require.NoError(t, os.WriteFile(v.Files[1].Path, []byte("this is no Parquet file, whatever it is called"), 0o644))
	if s.cfg.Table > 0 { // what is in memory does not need them
		apply(t, one, b)
		v.Files = append(v.Files, lake.File{Path: v.Files[0].Path + ".none"})
	}
	for _, tr := range []transform.Transform{tr, one} {
		_, err := tr.Apply(context.Background(), b, everyEvent)
		require.Error(t, err)
		require.True(t, fault.IsTransient(err), "%v", err)
		require.NotContains(t, err.Error(), l.dir)
	}
}

// TestStepsTableToCome: a table that is not there yet is no mistake in the file.
func TestStepsTableToCome(t *testing.T) {
	l := newLake(t)
	s := lakeSteps(t, l)
	list := sqlSteps("SELECT * FROM input JOIN geo USING (country)")
	in := transform.Input{Stream: "events"}
	require.Empty(t, s.Check(context.Background(), "p.yaml", list, in))
	_, err := s.Open(context.Background(), list, in)
	require.ErrorContains(t, err, "there is no table geo")
	v := l.table("events.geo", "1 country string", "2 name string")
	l.file(t, v, `SELECT 'de' AS country, 'Germany' AS name`, `country: 1, name: 2`)
	tr := openSteps(t, s, list)
	require.Contains(t, dump(apply(t, tr, batchOf(t, 0, `{"country": "de"}`))), `"country":"de","name":"Germany"`)
}
