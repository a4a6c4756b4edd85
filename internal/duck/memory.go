package duck

/*
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
static void naru_trim(void) { malloc_trim(0); }
#else
static void naru_trim(void) {}
#endif
*/
import "C"

import (
	"sync"
	"time"
)

// giveBack returns what the C library has kept of freed memory to the system.
// DuckDB frees some ten kilobytes for each data file that a query has read, in
// pieces, and glibc keeps them; with its arenas one for each thread, that adds up.
// Freeing 50 MB takes a millisecond or two. Other C libraries are left alone.
func giveBack() { C.naru_trim() }

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
