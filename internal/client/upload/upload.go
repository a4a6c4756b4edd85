// Package upload sends the records of one input to a door, in order, so that
// it can be broken off at any moment and continued: batches carry ids made of
// the input and the record's number, and what was acknowledged is kept in a
// small state file.
package upload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"naru/internal/client"
	"naru/internal/client/records"
	"naru/internal/fault"
)

// ErrInterrupted: the upload was asked to stop before the end. Everything that
// is counted in the result is acknowledged.
var ErrInterrupted = errors.New("interrupted")

// shownRefusals is how many refused items a Result describes.
const shownRefusals = 10

// Door takes batches; a *client.Client is one.
type Door interface {
	Append(context.Context, client.Batch) (*client.Answer, error)
}

// Source gives records; a *records.Reader is one.
type Source interface {
	Next(*records.Record) error
}

// Options of an upload.
type Options struct {
	Stream, Type, Source string        // as in client.Batch
	IDPrefix             string        // record N has the id IDPrefix + N, from 0
	BatchBytes           int           // a request is closed at so many bytes
	BatchRecords         int           // or at so many records
	Linger               time.Duration // or when its first record has waited so long
	// Blocking says that the source may wait for ever for its next record: then
	// Run does not wait for it when it ends early, and nobody must close it.
	Blocking bool
	// RetryFor is how long one batch may be tried again after errors that may pass.
	RetryFor time.Duration
	// Observe, if set, is called after every answer, and before every pause
	// with the error that is the reason for it.
	Observe func(r Result, pause time.Duration, reason error)
}

// DefaultOptions are those of naru send.
func DefaultOptions() Options {
	return Options{BatchBytes: 1 << 20, BatchRecords: 5000, Linger: 200 * time.Millisecond, RetryFor: time.Minute}
}

// Result says what was acknowledged, this time and in the runs before it.
type Result struct {
	Skipped  int64     `json:"skipped"`  // records acknowledged in earlier runs
	Records  int64     `json:"records"`  // records acknowledged now
	Accepted int64     `json:"accepted"` // events of these
	Rejected int64     `json:"rejected"`
	Repaired int64     `json:"repaired"` // records with text that was not UTF-8
	Refusals []Refusal `json:"refusals"` // the first few rejections
}

// Refusal describes one rejected item.
type Refusal struct {
	Record int64  `json:"record"`         // from 1
	Line   int64  `json:"line,omitempty"` // of the input; 0 when it cannot be told
	Reason string `json:"reason"`
	Detail string `json:"detail"`
}

// Upload is one input on its way.
type Upload struct {
	door   Door
	source Source
	opts   Options
	state  *State
	result Result
}

// New makes an upload that goes on from state, which may be nil.
func New(door Door, source Source, opts Options, state *State) *Upload {
	if state == nil {
		state = &State{}
	}
	return &Upload{door: door, source: source, opts: opts, state: state, result: Result{Refusals: []Refusal{}}}
}

// Run sends everything. When stop is closed the request in flight is still
// answered and counted, then Run returns ErrInterrupted; when ctx ends the
// request is cut, too.
func (u *Upload) Run(ctx context.Context, stop <-chan struct{}) (Result, error) {
	if err := u.skip(); err != nil {
		return u.result, err
	}
	feed := newFeed(u.source, u.opts)
	reading, end := context.WithCancel(ctx)
	read := make(chan struct{})
	go func() {
		defer close(read)
		feed.fill(reading)
	}()
	defer func() {
		if end(); !u.opts.Blocking {
			<-read
		}
	}()
	for {
		b, ok := feed.take(ctx, stop)
		if !ok {
			return u.result, ErrInterrupted
		}
		if b.records > 0 {
			answer, err := u.append(ctx, stop, b)
			if err == nil {
				err = u.acknowledged(b, answer)
			}
			if err != nil {
				return u.result, err
			}
		}
		switch {
		case b.err != nil:
			return u.result, b.err
		case b.last:
			return u.result, u.state.finish()
		}
	}
}

// skip passes over what earlier runs have sent.
func (u *Upload) skip() error {
	var rec records.Record
	for u.result.Skipped < u.state.Records {
		if err := u.source.Next(&rec); err != nil {
			if err == io.EOF {
				err = fault.WithHint(fmt.Errorf("the input ends after %d records, %d were sent earlier", u.result.Skipped, u.state.Records),
					"it is not the input that it was; --restart sends it from its beginning")
			}
			return err
		}
		u.result.Skipped++
	}
	return nil
}

// acknowledged counts an answer and makes it last.
func (u *Upload) acknowledged(b *batch, a *client.Answer) error {
	for _, r := range a.Rejected {
		if len(u.result.Refusals) == shownRefusals {
			break
		}
		u.result.Refusals = append(u.result.Refusals, b.refusal(r, u.state.Records, a.Items() == b.records))
	}
	u.result.Records += b.records
	u.result.Repaired += b.repaired
	u.result.Accepted += a.Accepted
	u.result.Rejected += a.Refusals()
	if err := u.state.advance(b.records, a); err != nil {
		return err
	}
	u.observe(0, nil)
	return nil
}

func (u *Upload) observe(pause time.Duration, reason error) {
	if u.opts.Observe != nil {
		u.opts.Observe(u.result, pause, reason)
	}
}

// append sends b until it is acknowledged or RetryFor is over. The ids make a
// second copy of a batch whose answer was lost recognisable.
func (u *Upload) append(ctx context.Context, stop <-chan struct{}, b *batch) (answer *client.Answer, err error) {
	req := client.Batch{Stream: u.opts.Stream, Type: u.opts.Type, Source: u.opts.Source,
		IDPrefix: u.opts.IDPrefix, FirstID: u.state.Items, Body: b.body}
	first, last := u.state.Records+1, u.state.Records+b.records
	r := retry{patience: u.opts.RetryFor, stop: stop, waiting: u.observe}
	err = r.do(ctx, func() error {
		if answer, err = u.door.Append(ctx, req); err != nil {
			return fmt.Errorf("send records %d-%d: %w", first, last, err)
		}
		return nil
	})
	return answer, err
}
