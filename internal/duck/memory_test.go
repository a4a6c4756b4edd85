package duck

import (
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
		trims := 0
		tr := &trimmer{after: time.Second, trim: func() { trims++ }}
		tr.queryEnded()
		tr.queryEnded()
		if trims != 0 {
			t.Fatal("it trims at once")
		}
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if trims != 1 {
			t.Fatalf("%d trims after two queries that ended together, want 1", trims)
		}
		tr.queryEnded()
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if trims != 2 {
			t.Fatalf("%d trims after a third one, want 2", trims)
		}
		tr.queryEnded()
		tr.close()
		tr.queryEnded()
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if trims != 2 {
			t.Fatal("it trims after close")
		}
	})
	giveBack()
}
