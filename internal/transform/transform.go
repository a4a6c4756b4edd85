// Package transform is the seam to the steps of a pipeline: what makes rows of
// events. Steps are row-wise: what becomes of an event depends on that event and on
// the tables that the steps join, never on which other events were read with it, so
// that reading again, in batches of other sizes, gives the same rows.
package transform

import (
	"context"

	"naru/internal/event"
	"naru/internal/problem"
)

// Engine computes steps.
type Engine interface {
	// Check finds everything in the steps that can be known without events; file is
	// the name by which mistakes are told.
	Check(ctx context.Context, file string, steps []Step, in Input) problem.List
	// Open makes steps ready to be applied. An error may go away (a table that is not
	// there yet); what cannot is found by Check.
	Open(ctx context.Context, steps []Step, in Input) (Transform, error)
}

// Input says what steps read.
type Input struct {
	Stream string
	// Types are those of the events, empty: all. The columns that are known of them
	// are those of their tables.
	Types []string
}

// Transform is steps at work. Apply may be called concurrently.
type Transform interface {
	// Apply computes the steps over the events of in for which take is true. An error
	// means that nothing came of the batch, and that the same call may succeed later:
	// an event on which a step cannot be computed is no error, it is in Refused.
	Apply(ctx context.Context, in *event.Batch, take func(*event.Event) bool) (*Applied, error)
	Close() error
}

// Applied is what has become of the events of a batch.
type Applied struct {
	// Batch has the rows (event.Batch.Rows, Columns) in the order of offsets, and the
	// same From, incarnation and partition as the batch that they were made of. So it
	// has Next, unless rows became too many at once: then it is lower, and events at
	// and behind it are still to be computed.
	Batch *event.Batch
	// Written and Filtered are events, not rows: those with at least one row, and
	// those with none although all steps could be computed.
	Written, Filtered int64
	Refused           []Refused // in the order of offsets
}

// Refused is an event on which a step could not be computed.
type Refused struct {
	Offset int64
	Step   string // its number from 1 and its kind, as in "2 filter"; or "where of SINK"
	To     string // the sink whose `where` it is, if it is one
	Detail string // what the step says
}

// By names the step in a message.
func (r Refused) By() string {
	if r.To != "" {
		return r.Step
	}
	return "step " + r.Step
}
