package duck

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	duckdb "github.com/duckdb/duckdb-go-bindings"
	"github.com/stretchr/testify/require"

	"naru/internal/query"
)

// Nothing of a data file stays in memory when its query has ended.
func TestNoFileStaysInMemory(t *testing.T) {
	l := shop(t)
	e := open(t, l, l.dir)
	for range 3 {
		if _, err := ask(e, "SELECT page, max(_time), sum(n) FROM page_view GROUP BY page"); err != nil {
			t.Fatal(err)
		}
	}
	in := e.mu.current
	in.mu.Lock()
	defer in.mu.Unlock()
	r, err := in.mu.admin.stream("SELECT coalesce(sum(memory_usage_bytes), 0)::BIGINT FROM duckdb_memory() WHERE tag IN ('EXTERNAL_FILE_CACHE', 'OBJECT_CACHE')")
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	chunk, err := r.next()
	if err != nil || chunk == nil {
		t.Fatal("no answer", err)
	}
	col := column{kind: duckdb.TypeBigInt}
	col.bind(duckdb.DataChunkGetVector(*chunk, 0))
	if n := col.value(0, new(int64)); n != int64(0) {
		t.Errorf("%v bytes of files stay in DuckDB's caches", n)
	}
}

func TestTrimmer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var trims atomic.Int64
		tr := &trimmer{after: time.Second, trim: func() { trims.Add(1) }}
		tr.queryEnded()
		tr.queryEnded()
		if trims.Load() != 0 {
			t.Fatal("it trims at once")
		}
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if trims.Load() != 1 {
			t.Fatalf("%d trims after two queries that ended together, want 1", trims.Load())
		}
		tr.queryEnded()
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if trims.Load() != 2 {
			t.Fatalf("%d trims after a third one, want 2", trims.Load())
		}
		tr.queryEnded()
		tr.close()
		tr.queryEnded()
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if trims.Load() != 2 {
			t.Fatal("it trims after close")
		}
	})
}

// anonymous is the memory of this process that no file backs, in bytes.
func anonymous(t *testing.T) int64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("it cannot be measured here:", err)
	}
	_, rest, _ := strings.Cut(string(status), "RssAnon:")
	var kb int64
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		t.Skip("it cannot be measured here:", err)
	}
	return kb << 10
}

// What a statement with thousands of names has taken goes back to the system.
func TestGiveBack(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("other allocators")
	}
	db, err := openDatabase(option{"threads", "1"})
	if err != nil {
		t.Fatal(err)
	}
	defer db.close()
	c, err := db.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	sql := "SELECT len([" + strings.TrimSuffix(strings.Repeat("'a name of forty characters, like a path', ", 10_000), ", ") + "])"
	giveBack()
	debug.FreeOSMemory()
	begin := anonymous(t)
	for range 3 {
		if err := c.exec(sql); err != nil {
			t.Fatal(err)
		}
	}
	debug.FreeOSMemory()
	most := anonymous(t) - begin
	giveBack()
	kept := anonymous(t) - begin
	t.Logf("%d KiB, then %d KiB", most>>10, kept>>10)
	if most < 10<<20 || kept > most/2 {
		t.Errorf("%d KiB of %d KiB are kept", kept>>10, most>>10)
	}
}

// What the C library keeps of freed memory goes back to the system, too: here that
// of instances that are closed.
func TestGiveBackOfTheCLibrary(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("other allocators")
	}
	begin := settled(t)
	var all []*database
	for range 10 {
		db, err := openDatabase(option{"threads", "1"})
		require.NoError(t, err)
		all = append(all, db)
	}
	most := settled(t) - begin
	for _, db := range all {
		db.close()
	}
	kept := settled(t) - begin
	t.Logf("%d KiB, then %d KiB", most>>10, kept>>10)
	if most < 10<<20 || kept > most/2 {
		t.Errorf("%d KiB of %d KiB are kept", kept>>10, most>>10)
	}
}

// settled is the anonymous memory of this process when all has gone back that can.
func settled(t *testing.T) int64 {
	t.Helper()
	giveBack()
	debug.FreeOSMemory()
	return anonymous(t)
}

// An instance is renewed when it is due and has no query, and not before.
func TestRenew(t *testing.T) {
	l := shop(t)
	e := open(t, l, l.dir)
	old := e.mu.current
	rows, err := e.Query(t.Context(), query.Query{SQL: "SELECT n FROM page_view"})
	require.NoError(t, err)
	e.renew(dueOf(e))
	require.Same(t, old, e.mu.current, "renewed under a query")
	for n := range 10 {
		require.True(t, rows.Next(), "row %d: %v", n, rows.Err())
	}
	require.NoError(t, rows.Close())
	e.renew(dueOf(e).Add(-1))
	require.Same(t, old, e.mu.current, "renewed too soon")

	due := dueOf(e)
	e.renew(due)
	require.NotSame(t, old, e.mu.current)
	require.Nil(t, old.db.db.Ptr, "the old instance is not closed")
	require.Equal(t, due.Add(renewAfter), dueOf(e))
	check(t, e, map[string]string{"SELECT count(*), sum(n) FROM page_view": "10,45"})

	e.mu.current.spoil() // by a query that has ended: the instance is closed
	broken := e.mu.current
	e.renew(dueOf(e))
	require.Same(t, broken, e.mu.current)
	check(t, e, map[string]string{"SELECT count(*), sum(n) FROM page_view": "10,45"})
}

// What GROUP BYs leave in DuckDB's lists goes with the instance.
func TestRenewalFreesMemory(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("other allocators")
	}
	l := shop(t)
	e := open(t, l, l.dir)
	groups := func(n int) {
		c, err := e.mu.current.db.connect()
		require.NoError(t, err)
		defer c.close()
		require.NoError(t, c.exec("PREPARE groups AS SELECT i % 3, count(*) FROM range(10) t(i) GROUP BY 1"))
		for range n {
			require.NoError(t, c.exec("EXECUTE groups"))
		}
	}
	groups(100) // what a process's first queries take stays
	e.renew(dueOf(e))
	begin := settled(t)
	groups(10_000)
	most := settled(t) - begin
	e.renew(dueOf(e))
	kept := settled(t) - begin
	t.Logf("%d KiB, then %d KiB", most>>10, kept>>10)
	if most < 4<<20 || kept > most*3/4 {
		t.Errorf("%d KiB of %d KiB are kept", kept>>10, most>>10)
	}
}

// dueOf is when the engine's instance is to be renewed.
func dueOf(e *Engine) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.mu.due
}
