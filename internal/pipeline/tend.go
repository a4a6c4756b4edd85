package pipeline

import (
	"context"
	"fmt"
)

// halt stops all sinks, as for a pause. With changing held.
func (r *running) halt() {
	r.mu.Lock()
	all := r.mu.sinks
	r.mu.sinks = map[string]*sinkRun{}
	r.mu.Unlock()
	for _, s := range all {
		s.cancel()
	}
	r.stopFills()
	for _, s := range all {
		<-s.done
	}
}

// tidy lets a pipeline forget what its sinks have passed, tries again what a rewind has
// left undone, and finishes backfills.
func (r *running) tidy(ctx context.Context) error {
	if err := r.tend(ctx); err != nil {
		return err
	}
	return r.flow.tidy(ctx)
}

// tend does what only one at a time may do to a pipeline. When somebody changes it,
// there is a next time.
func (r *running) tend(ctx context.Context) error {
	if !r.changing.TryLock() {
		return nil
	}
	finish, err := r.tendTo(ctx)
	if finish == nil {
		r.changing.Unlock()
		return err
	}
	go func() { // others need not wait for it; who stops the pipeline does
		defer r.changing.Unlock()
		finish()
	}()
	return err
}

func (r *running) tendTo(ctx context.Context) (finish func(), err error) {
	if r.ended {
		return nil, nil
	}
	if r.stuck {
		if err := r.goOn(ctx); err != nil {
			return nil, fmt.Errorf("go on with a rewind: %w", err)
		}
		r.adjust()
	}
	if swapped, err := r.swapAll(ctx); err != nil {
		return nil, err
	} else if swapped {
		r.adjust()
	}
	if err := r.clearFills(ctx); err != nil {
		return nil, err
	}
	if err := r.flow.judgedAgain(); err != nil {
		return nil, err
	}
	return r.watchFills(ctx), nil
}
