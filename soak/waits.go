package main

import (
	"math"
	"sync"
	"time"
)

// waits are times of answers, in buckets that are 5 % wide: bounded however
// long a run takes.
type waits struct {
	mu      sync.Mutex
	buckets [400]int64
	n       int64
	most    time.Duration
}

const width = 1.05

func (w *waits) add(d time.Duration) {
	i := 0
	if us := float64(d) / float64(time.Microsecond); us > 1 {
		i = min(int(math.Log(us)/math.Log(width)), len(w.buckets)-1)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buckets[i]++
	w.n++
	w.most = max(w.most, d)
}

// quantile is right to 5 %; 0 when nothing was added.
func (w *waits) quantile(q float64) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n == 0 {
		return 0
	}
	left := int64(q * float64(w.n))
	for i, n := range w.buckets {
		if left -= n; left < 0 {
			return time.Duration(math.Pow(width, float64(i)+0.5) * float64(time.Microsecond))
		}
	}
	return w.most
}

func (w *waits) max() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.most
}

func (w *waits) count() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}
