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
