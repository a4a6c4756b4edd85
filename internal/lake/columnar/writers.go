package columnar

import (
	"slices"
	"sync"
)

// DefaultWriters is the number of Parquet files open for writing in a process.
const DefaultWriters = 64

// Writers bounds the Parquet files that are open for writing over all
// builders of a process: beyond the limit the least recently used one is
// closed, and its partition goes on in another part, merged by Finish. Safe for
// concurrent use.
type Writers struct {
	limit int

	mu    sync.Mutex
	free  sync.Cond // a part was unpinned, or its place given back
	parts []*part   // open, the least recently used first
	count int       // places taken; at times more than len(parts): one is being closed
}

// NewWriters allows limit open files, at least 1.
func NewWriters(limit int) *Writers {
	w := &Writers{limit: max(limit, 1)}
	w.free.L = &w.mu
	return w
}

// Open is the number of files open now.
func (w *Writers) Open() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}

// reserve takes a place, closing the least recently used file when there is
// none. Files that are being written right now are left alone: it waits.
func (w *Writers) reserve() {
	w.mu.Lock()
	for w.count >= w.limit {
		i := slices.IndexFunc(w.parts, func(p *part) bool { return !p.pinned })
		if i < 0 {
			w.free.Wait()
			continue
		}
		oldest := w.parts[i]
		w.drop(oldest)
		w.mu.Unlock()
		// An error stays with the part, and its owner meets it there.
		_, _ = oldest.close()
		w.mu.Lock()
		w.count--
	}
	w.count++
	w.mu.Unlock()
}

// cancel gives a reserved place back.
func (w *Writers) cancel() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count--
	w.free.Broadcast()
}

// enter puts a part into the place reserved for it, pinned.
func (w *Writers) enter(p *part) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.open, p.pinned = true, true
	w.parts = append(w.parts, p)
}

// pin keeps a part open while it is written, and makes it the most recently
// used; false when it was closed for want of room.
func (w *Writers) pin(p *part) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !p.open {
		return false
	}
	i := slices.Index(w.parts, p)
	w.parts = append(slices.Delete(w.parts, i, i+1), p)
	p.pinned = true
	return true
}

func (w *Writers) unpin(p *part) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.pinned = false
	w.free.Broadcast()
}

// leave takes a part out, with end, which closes or aborts it.
func (w *Writers) leave(p *part, end func() error) error {
	w.mu.Lock()
	held := p.open
	if held {
		w.drop(p)
	}
	w.mu.Unlock()
	err := end()
	if held {
		w.cancel()
	}
	return err
}

func (w *Writers) drop(p *part) {
	p.open = false
	i := slices.Index(w.parts, p)
	w.parts = slices.Delete(w.parts, i, i+1)
}
