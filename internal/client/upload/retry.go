package upload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"naru/internal/client"
	"naru/internal/fault"
)

// Pauses between attempts double from the first to the last.
const (
	firstPause = 200 * time.Millisecond
	lastPause  = 10 * time.Second
)

// Retry calls fn until it succeeds, gives an error that cannot pass, or has
// failed for as long as patience.
func Retry(ctx context.Context, patience time.Duration, fn func() error) error {
	r := retry{patience: patience}
	return r.do(ctx, fn)
}

type retry struct {
	patience time.Duration
	stop     <-chan struct{}                    // ends a pause; may be nil
	waiting  func(pause time.Duration, e error) // told before a pause; may be nil
}

func (r *retry) do(ctx context.Context, fn func() error) error {
	var since time.Time // of the first failure
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := fn()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ErrInterrupted
		case !mayPass(err):
			return err
		}
		if since.IsZero() {
			since = time.Now()
		}
		wait := pause/2 + rand.N(pause/2+1) // jitter: clients that fail together come back apart
		var later *fault.RetryAfter
		if errors.As(err, &later) {
			wait = max(wait, later.After)
		}
		if tried := time.Since(since); tried+wait > r.patience {
			return fmt.Errorf("gave up after %s: %w", tried.Round(time.Millisecond), err)
		}
		if r.waiting != nil {
			r.waiting(wait, err)
		}
		select {
		case <-time.After(wait):
		case <-r.stop:
			return ErrInterrupted
		case <-ctx.Done():
			return ErrInterrupted
		}
	}
}

// mayPass adds to the transient errors the stalled body, which says nothing
// about the next attempt.
func mayPass(err error) bool {
	var p *client.Problem
	return fault.IsTransient(err) || errors.As(err, &p) && p.Status == http.StatusRequestTimeout
}
