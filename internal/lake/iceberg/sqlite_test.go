package iceberg

import (
	"database/sql"
	"path/filepath"
	"testing"

	ice "github.com/apache/iceberg-go"
	icesql "github.com/apache/iceberg-go/catalog/sql"
	"github.com/stretchr/testify/require"

	"naru/internal/vfs"
)

// Every connection that the catalog uses must sync at every commit.
func TestSQLiteIsFullySynchronous(t *testing.T) {
	c, err := OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "catalog.db"))
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	for range 4 { // the whole pool, all in use at once
		conn, err := c.db.Conn(t.Context())
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close()) }()
		var sync, busy int
		var journal string
		require.NoError(t, conn.QueryRowContext(t.Context(), "PRAGMA synchronous").Scan(&sync))
		require.NoError(t, conn.QueryRowContext(t.Context(), "PRAGMA journal_mode").Scan(&journal))
		require.NoError(t, conn.QueryRowContext(t.Context(), "PRAGMA busy_timeout").Scan(&busy))
		require.Equal(t, 2, sync, "synchronous must be FULL")
		require.Equal(t, "wal", journal)
		require.Equal(t, 10000, busy)
	}
}

// Another implementation of Iceberg's JDBC catalog reads our tables: columns,
// snapshots, positions and the files of a scan.
func TestOthersReadTheCatalog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	l, err := Open(t.Context(), DefaultConfig(), vfs.OS(), dir, quiet)
	require.NoError(t, err)
	h := l.Table(views)
	s := load(t, h)
	s, err = h.Commit(t.Context(), work(t, h, s, 3, 3))
	require.NoError(t, err)
	_, err = h.Commit(t.Context(), work(t, h, s, 2, 5))
	require.NoError(t, err)
	require.NoError(t, l.Close())

	db, err := sql.Open("sqlite", filepath.Join(dir, "catalog.db"))
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	cat, err := icesql.NewCatalog(CatalogName, db, icesql.SQLite, ice.Properties{})
	require.NoError(t, err)
	ok, err := cat.CheckNamespaceExists(t.Context(), []string{"events"})
	require.NoError(t, err)
	require.True(t, ok)
	tbl, err := cat.LoadTable(t.Context(), []string{"events", "page_view"})
	require.NoError(t, err)
	require.Equal(t, 2, tbl.Metadata().Version())
	require.Len(t, tbl.Metadata().Snapshots(), 2)
	require.Equal(t, "5", tbl.CurrentSnapshot().Summary.Properties["total-records"])
	tasks, err := tbl.Scan().PlanFiles(t.Context())
	require.NoError(t, err)
	require.Len(t, tasks, 2)
	require.EqualValues(t, 5, tasks[0].File.Count()+tasks[1].File.Count())

	// And naru goes on behind a commit that the other one makes.
	txn := tbl.NewTransaction()
	require.NoError(t, txn.SetProperties(ice.Properties{"owner": "them"}))
	_, err = txn.Commit(t.Context())
	require.NoError(t, err)
	l, err = Open(t.Context(), DefaultConfig(), vfs.OS(), dir, quiet)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	h = l.Table(views)
	s = load(t, h)
	require.Equal(t, at(5), s.Positions)
	s, err = h.Commit(t.Context(), work(t, h, s, 1, 6))
	require.NoError(t, err)
	require.Equal(t, "them", s.head.meta.Properties()["owner"])
}
