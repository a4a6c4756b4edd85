package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"naru/internal/fault"
)

// health is what the log has said of itself, for /readyz and the exit code.
type health struct {
	poisoned chan struct{} // closed by the first failure
	once     sync.Once
	err      error // valid once poisoned is closed
	full     atomic.Bool
}

func newHealth() *health { return &health{poisoned: make(chan struct{})} }

// poison notes why the log takes nothing any more.
func (h *health) poison(err error) {
	h.once.Do(func() {
		if !errors.Is(err, fault.ErrPoisoned) {
			err = fmt.Errorf("%w: %w", fault.ErrPoisoned, err)
		}
		h.err = err
		close(h.poisoned)
	})
}

// reason is why the log is poisoned, or nil.
func (h *health) reason() error {
	select {
	case <-h.poisoned:
		return h.err
	default:
		return nil
	}
}

var errDiskFull = errors.New("the disk has less free space than log.reserve")

// ready tells whether the log can take events.
func (h *health) ready(context.Context) error {
	if err := h.reason(); err != nil {
		return err
	}
	if h.full.Load() {
		return errDiskFull
	}
	return nil
}
