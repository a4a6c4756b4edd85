package duck

/*
#include <stdlib.h> // says whether the C library is glibc
#ifdef __GLIBC__
#include <malloc.h>
#endif

#ifdef __linux__
// Weak: a DuckDB that is built without jemalloc has none.
extern int duckdb_je_mallctl(const char *name, void *was, size_t *was_size, void *to, size_t to_size) __attribute__((weak));
#endif

static void naru_give_back(void) {
#ifdef __linux__
	if (duckdb_je_mallctl) {
		duckdb_je_mallctl("arena.4096.purge", NULL, NULL, NULL, 0); // 4096: all arenas
	}
#endif
#ifdef __GLIBC__
	malloc_trim(0);
#endif
}
*/
import "C"

import (
	"sync"
	"time"
)

// giveBack returns to the system what two allocators have kept of freed memory:
// the jemalloc inside DuckDB, which has trees, vectors and buffers, and the C
// library's, which has DuckDB's objects. A query takes some twenty kilobytes for
// each data file that it opens, in pieces; both would keep all of it, for each
// thread that came by. It takes about two milliseconds for 30 MB. Where there is
// another allocator, that one is left alone.
func giveBack() { C.naru_give_back() }

// trimmer calls trim once, some time after the last of several queries has ended.
type trimmer struct {
	after time.Duration
	trim  func()

	mu struct {
		sync.Mutex
		timer   *time.Timer
		pending bool
		closed  bool
	}
}

// trimAfter bounds how often memory is given back: often enough that one query a
// second leaves nothing, so seldom that many small ones do not pay for it.
const trimAfter = 500 * time.Millisecond

// queryEnded makes sure that trim is called soon.
func (t *trimmer) queryEnded() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.pending || t.mu.closed {
		return
	}
	t.mu.pending = true
	t.mu.timer = time.AfterFunc(t.after, t.run)
}

func (t *trimmer) run() {
	t.mu.Lock() // trimming under the lock: close waits for it
	defer t.mu.Unlock()
	t.mu.pending = false
	if !t.mu.closed {
		t.trim()
	}
}

// close waits for a trim under way and allows no further one.
func (t *trimmer) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.closed = true
	if t.mu.timer != nil {
		t.mu.timer.Stop()
	}
}
