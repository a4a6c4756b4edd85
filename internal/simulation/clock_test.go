package simulation

import (
	"sync/atomic"
	"time"
	"unsafe"
)

// clock is a wall clock that can be set. Its times have the true monotonic
// reading, as those of time.Now have when somebody sets the machine's clock.
type clock struct{ off atomic.Int64 }

func (c *clock) now() time.Time { return set(time.Now(), time.Duration(c.off.Load())) }

// set moves the wall part of t alone. There is no call for that: settimeofday is
// what does it. The layout is that of package time since Go 1.9.
func set(t time.Time, d time.Duration) time.Time {
	type parts struct {
		wall uint64
		ext  int64
	}
	moved := t.Add(d)
	from, to := (*parts)(unsafe.Pointer(&t)), (*parts)(unsafe.Pointer(&moved))
	const hasMonotonic = 1 << 63
	if from.wall&hasMonotonic != 0 && to.wall&hasMonotonic != 0 {
		to.ext = from.ext
	}
	return moved
}
