package iceberg

import (
	"sync"
	"time"

	"naru/internal/lake"
)

// rateWindow is how many seconds' worth of commits may go at once: sinks come
// about every five seconds with all that they have.
const rateWindow = 5

// Rate bounds the node's table commits. It is fair: a table that has waited
// longer goes first, whichever sink it belongs to.
type Rate struct {
	perSecond float64

	mu struct {
		sync.Mutex
		tokens  float64
		at      time.Time
		waiting map[lake.Ident]wait // held back
	}
}

type wait struct{ since, asked time.Time }

// waitFor is how long room is left for a table that has waited longer but does
// not come again: its sink may be stuck, and must not hold others up.
const waitFor = 3 * rateWindow * time.Second

// NewRate allows perSecond commits a second on average.
func NewRate(perSecond float64) *Rate {
	r := &Rate{perSecond: perSecond}
	r.mu.tokens = r.burst()
	r.mu.waiting = map[lake.Ident]wait{}
	return r
}

func (r *Rate) burst() float64 { return max(1, r.perSecond*rateWindow) }

// Take asks for one commit of t, whose oldest uncommitted row is of since. When
// it answers false, t is remembered as waiting, and tables that came later
// leave room for it.
func (r *Rate) Take(t lake.Ident, since, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refill(now)
	older := 0.0
	for other, w := range r.mu.waiting {
		if other != t && w.since.Before(since) && now.Sub(w.asked) <= waitFor {
			older++
		}
	}
	if r.mu.tokens < older+1 {
		w, ok := r.mu.waiting[t]
		if !ok || since.Before(w.since) {
			w.since = since
		}
		w.asked = now
		r.mu.waiting[t] = w
		return false
	}
	r.mu.tokens--
	delete(r.mu.waiting, t)
	return true
}

// Force takes a commit that cannot wait; later ones wait for it.
func (r *Rate) Force(t lake.Ident, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refill(now)
	r.mu.tokens = max(r.mu.tokens-1, -r.burst())
	delete(r.mu.waiting, t)
}

// Forget removes a table whose sink was closed.
func (r *Rate) Forget(t lake.Ident) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mu.waiting, t)
}

func (r *Rate) refill(now time.Time) {
	if !r.mu.at.IsZero() && now.After(r.mu.at) {
		r.mu.tokens = min(r.burst(), r.mu.tokens+now.Sub(r.mu.at).Seconds()*r.perSecond)
	}
	r.mu.at = now
}
