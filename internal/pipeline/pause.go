package pipeline

import (
	"errors"
	"fmt"
	"log/slog"

	"naru/internal/fault"
)

// Errors of what is asked of one pipeline.
var (
	// ErrNoPipeline: the folder has no pipeline of that name.
	ErrNoPipeline = errors.New("there is no such pipeline")
	// ErrBroken: there is one, and it has not been in force since the start.
	ErrBroken = errors.New("the pipeline is broken and not in force")
)

// find gives a pipeline at work.
func (c *Configured) find(name string) (*running, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, broken := c.mu.running[name], c.mu.broken[name]
	switch {
	case r != nil:
		return r, nil
	case name != "" && broken != nil:
		return nil, fault.WithHint(fmt.Errorf("%w: %w", ErrBroken, broken), "naru check names what is wrong")
	}
	return nil, fault.WithHint(fmt.Errorf("%q: %w", name, ErrNoPipeline), "naru pipeline ls lists them")
}

// Pause stops the sinks of a pipeline, or lets them go on. It is durable when it
// returns, and holds over restarts and changes of the file. Pausing waits for the
// sinks' last commits, at most as long as a stop does; what they do not cover is read
// again. The log keeps what a paused pipeline has not read.
func (c *Configured) Pause(name string, paused bool) error {
	r, err := c.find(name)
	if err != nil {
		return err
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	if r.ended {
		return fmt.Errorf("%q: %w", name, ErrNoPipeline)
	}
	if err := r.pause(paused); err != nil {
		return err
	}
	r.adjust()
	return nil
}

// pause writes it to the state. With changing held.
func (r *running) pause(paused bool) error {
	f := r.flow
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.state.Paused == paused && !r.unsure {
		return nil
	}
	next := *f.mu.state
	next.Paused = paused
	if err := r.keep(&next); err != nil {
		return err
	}
	f.logger.Info("paused or resumed", slog.Bool("paused", paused))
	return nil
}

// paused tells whether no sink is to run.
func (f *flow) paused() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.state.Paused
}
