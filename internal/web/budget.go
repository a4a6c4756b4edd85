package web

import (
	"sync"
	"time"
)

// growWait is how long one request may wait for the others to give memory back.
const growWait = 5 * time.Second

// Budget bounds the bytes of all bodies in memory at a time.
//
// A request reserves what it knows it needs before it reads, and is refused at
// once when that is not free. A body whose size shows only while it is inflated
// grows; at most one of them waits at a time, and all others are refused, so
// what it waits for is always given back: nothing can deadlock.
//
// An eighth of the budget is for small bodies only (a 64th of it at most), so
// that a few huge or slow ones do not shut everybody else out.
type Budget struct {
	limit int64
	mu    struct {
		sync.Mutex
		used    int64
		needs   int64         // of the one that waits
		room    int64         // that it may fill
		granted chan struct{} // closed when it has got it; nil when none waits
	}
}

// NewBudget makes a budget of limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Limit is the size of the budget.
func (b *Budget) Limit() int64 { return b.limit }

// Used is what is reserved now.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.used
}

// Share is the most that one body can hold.
func (b *Budget) Share() int64 { return b.limit - b.limit/8 }

// room is how full the budget may become for the sake of a body of total bytes.
func (b *Budget) room(total int64) int64 {
	if total <= b.limit/64 {
		return b.limit
	}
	return b.Share()
}

// Reserve takes n bytes, or tells that they are not free.
func (b *Budget) Reserve(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.used+b.mu.needs+n > b.room(n) {
		return false
	}
	b.mu.used += n
	return true
}

// Grow takes n bytes more for a body that holds some already. It waits a while,
// or until done, when nobody else does.
func (b *Budget) Grow(done <-chan struct{}, held, n int64) bool {
	room := b.room(held + n)
	b.mu.Lock()
	if b.mu.used+b.mu.needs+n <= room {
		b.mu.used += n
		b.mu.Unlock()
		return true
	}
	if b.mu.granted != nil {
		b.mu.Unlock()
		return false
	}
	granted := make(chan struct{})
	b.mu.granted, b.mu.needs, b.mu.room = granted, n, room
	b.mu.Unlock()

	timer := time.NewTimer(growWait)
	defer timer.Stop()
	select {
	case <-granted:
		return true
	case <-timer.C:
	case <-done:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-granted: // it came at the same moment
		return true
	default:
	}
	b.mu.granted, b.mu.needs = nil, 0
	return false
}

// Release gives n bytes back.
func (b *Budget) Release(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.used -= n
	if b.mu.granted != nil && b.mu.used+b.mu.needs <= b.mu.room {
		b.mu.used += b.mu.needs
		close(b.mu.granted)
		b.mu.granted, b.mu.needs = nil, 0
	}
}
