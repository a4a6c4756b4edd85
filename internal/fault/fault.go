// Package fault holds the error classes that cross package borders. A class is
// set where the error is born; whoever handles it asks with errors.Is or As.
//
// Bad data is not a fault: see event.Rejection.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// ErrTransient marks an error that may pass by itself: the same call may be
// made again unchanged.
var ErrTransient = errors.New("transient")

// ErrPoisoned marks a log that has seen a failed write or fsync. The process
// must end (exit code 3); the next start recovers from what the disk holds.
var ErrPoisoned = errors.New("log poisoned")

// ErrLimit marks a call that asked for more than a configured limit allows.
var ErrLimit = errors.New("limit exceeded")

// Transient marks err as one that may pass by itself.
func Transient(err error) error {
	if err == nil {
		return nil
	}
	return &classed{err: err, class: ErrTransient}
}

// IsTransient tells whether err may pass by itself.
func IsTransient(err error) bool { return errors.Is(err, ErrTransient) }

type classed struct{ err, class error }

func (c *classed) Error() string        { return c.err.Error() }
func (c *classed) Unwrap() error        { return c.err }
func (c *classed) Is(target error) bool { return target == c.class }

// RetryAfter is a transient error that says when to come back.
type RetryAfter struct {
	Err   error
	After time.Duration
}

func (r *RetryAfter) Error() string        { return r.Err.Error() }
func (r *RetryAfter) Unwrap() error        { return r.Err }
func (r *RetryAfter) Is(target error) bool { return target == ErrTransient }

// Corrupt names a place on disk whose bytes are not what was written.
type Corrupt struct {
	Path   string
	Offset int64 // bytes from the start of the file; -1 when the whole file is meant
	Reason string
}

func (c *Corrupt) Error() string {
	if c.Offset < 0 {
		return fmt.Sprintf("corrupt %s: %s", c.Path, c.Reason)
	}
	return fmt.Sprintf("corrupt %s at byte %d: %s", c.Path, c.Offset, c.Reason)
}

// Hint is an error with the sentence that tells the operator the cure.
type Hint struct {
	Err  error
	Text string
}

func (h *Hint) Error() string { return h.Err.Error() }
func (h *Hint) Unwrap() error { return h.Err }

// WithHint attaches the cure to err. The CLI prints it on a line of its own.
func WithHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Hint{Err: err, Text: fmt.Sprintf(format, args...)}
}

// HintOf returns the outermost hint in err's chain, or "".
func HintOf(err error) string {
	var h *Hint
	if errors.As(err, &h) {
		return h.Text
	}
	return ""
}

// Sentence is what err says, and behind it the hint if there is one.
func Sentence(err error) string {
	if hint := HintOf(err); hint != "" {
		return err.Error() + "; " + hint
	}
	return err.Error()
}
