// Package pipeline moves events from a stream to a sink: read from the
// watermark, write, commit, move the watermark. It owns batching, retry,
// back-off and positions, so that a sink is three methods.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/sink"
	"naru/internal/stream"
)

// Opener makes a sink ready for one stream.
type Opener func(ctx context.Context, stream string) (sink.Sink, error)

// Pipeline brings one stream to one sink.
type Pipeline struct {
	name   string // also the reader's name in the log
	stream string
	cfg    Config
	log    stream.Log
	source source
	open   Opener
	logger *slog.Logger
	first  func(context.Context) (stream.Progress, error) // where it begins that the log does not know; nil: at the oldest
	asked  chan chan struct{}                             // commits asked for by Flush

	// Of the goroutine that runs.
	held  int64 // bytes in the sink
	limit int64 // of held: CommitBytes, or less where the disk had no room for so much

	mu struct {
		sync.Mutex
		status Status
	}
}

// Status is what a pipeline shows of itself.
type Status struct {
	Name   string `json:"name"`
	Stream string `json:"stream"`
	// Progress is the watermark in the log; its counts are the written,
	// refused, duplicate and filtered events below it.
	Progress stream.Progress `json:"progress"`
	// Held events are read and in the sink, but behind the watermark.
	Held       int64     `json:"held"`
	Committing bool      `json:"committing"`
	LastCommit time.Time `json:"last_commit,omitzero"`
	Commits    int64     `json:"commits"`
	Errors     int64     `json:"errors"`
	// LastError is empty while the pipeline works.
	LastError string `json:"last_error,omitempty"`
	Hint      string `json:"hint,omitempty"`
}

// New makes a pipeline. It starts nothing.
func New(name, streamName string, cfg Config, log stream.Log, open Opener, logger *slog.Logger) *Pipeline {
	p := &Pipeline{name: name, stream: streamName, cfg: cfg, log: log, open: open,
		source: plain{log, streamName, stream.Bytes(cfg.ReadBytes)},
		logger: logger.With(slog.String("pipeline", name)), asked: make(chan chan struct{})}
	p.limit = int64(cfg.CommitBytes)
	p.mu.status = Status{Name: name, Stream: streamName}
	return p
}

// Status is a copy.
func (p *Pipeline) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.status
}

// Flush asks for a commit of what is in the sink, and waits for it, whatever
// becomes of it. It waits in vain for a pipeline that does not run.
func (p *Pipeline) Flush(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case p.asked <- done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *Pipeline) update(f func(*Status)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.mu.status)
}

// Run works until ctx ends, then commits what it holds within the drain
// timeout. Errors are shown, logged and tried again after a pause; only a
// poisoned or closed log ends it early.
func (p *Pipeline) Run(ctx context.Context) error {
	pause := p.cfg.BackoffMin.Std()
	for {
		before := p.Status().Commits
		err := p.session(ctx)
		if errors.Is(err, fault.ErrPoisoned) || errors.Is(err, stream.ErrClosed) {
			return err
		}
		if ctx.Err() != nil {
			if err != nil {
				// No reason to call the stop a failure: nothing is lost.
				p.logger.Warn("stopped with events that are not committed; the next start reads them again",
					slog.Any("error", err), slog.String("hint", fault.HintOf(err)))
			}
			return nil
		}
		if errors.Is(err, errOvertaken) {
			continue // no trouble: the next session says what is gone
		}
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			p.limit = max(min(p.limit, p.held)/2, min(leastCommit, p.limit))
		}
		if p.Status().Commits > before {
			pause = p.cfg.BackoffMin.Std() // it had worked: this is a new trouble
		}
		p.update(func(s *Status) {
			s.Errors++
			s.LastError, s.Hint, s.Held, s.Committing = err.Error(), fault.HintOf(err), 0, false
		})
		if asked := (*fault.RetryAfter)(nil); errors.As(err, &asked) {
			pause = max(pause, min(asked.After, p.cfg.BackoffMax.Std()))
		}
		p.logger.Error("pipeline stopped; trying again", slog.Any("error", err),
			slog.String("hint", fault.HintOf(err)), slog.Duration("pause", pause))
		select {
		case <-time.After(pause - rand.N(pause/4+1)): // not all at once that wait for the same target
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, p.cfg.BackoffMax.Std())
	}
}

// leastCommit is what a full disk is always asked to take. Less of what waits may
// fit where all of it does not, and what is written lets the log go on: retention
// makes room of it.
const leastCommit = 1 << 20

// session opens the sink and works until something fails or ctx ends. Whatever
// a failed session held is read again by the next one: the watermark and the
// sink's own positions are all that lasts.
func (p *Pipeline) session(ctx context.Context) (err error) {
	// The sink's calls outlive ctx by the drain timeout, so that a stop does not
	// break off a write or a commit that would have been done in a moment.
	work, cancel := outlive(ctx, p.cfg.DrainTimeout.Std())
	defer cancel()
	led, err := p.begin(work)
	if err != nil {
		return err
	}
	out, err := p.open(work, p.stream)
	if err != nil {
		return fmt.Errorf("open sink of %s: %w", p.stream, err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()

	changed := p.log.Changed()
	st, err := p.log.Stat(work, p.stream)
	if err != nil {
		return fmt.Errorf("stat %s: %w", p.stream, err)
	}
	var resume event.Positions
	if r, ok := out.(sink.Resumer); ok {
		if resume, err = r.Resume(work, p.stream); err != nil {
			return fmt.Errorf("resume sink of %s: %w", p.stream, err)
		}
	}

	// The readers stop before the sink is closed: they share nothing with it,
	// but a session must leave no goroutine behind.
	readCtx, stop := context.WithCancel(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stop()
	batches, failed := make(chan handed, 1), make(chan error, 1)
	p.held = 0
	known := map[int32]bool{}
	begin := led.at.Positions.Clone()
	dirty := false // written to since the last commit that left nothing behind
	for _, g := range stream.Gaps(st, led.at) {
		if err := p.skip(work, out, led, g); err != nil {
			return err
		}
		begin.Advance(g.To)
		dirty = true
	}
	follow := func(st stream.Stat) error {
		from, err := p.starts(work, st, begin, resume)
		for partition, from := range from {
			if known[partition] {
				continue
			}
			known[partition] = true
			readers.Go(func() {
				if err := p.read(readCtx, from, batches); err != nil {
					select {
					case failed <- err:
					default: // one reason is enough
					}
				}
			})
		}
		return err
	}
	if err := follow(st); err != nil {
		return err
	}
	if !dirty && stream.Left(st, led.at) == 0 {
		p.update(func(s *Status) { s.LastError, s.Hint = "", "" }) // the sink is open, and nothing is left
	}

	take := func(b handed) error {
		held, err := p.passed(work, out, st, begin, b)
		if err != nil {
			return err
		}
		return p.write(work, out, led, b.portion, held)
	}
	// rest takes what readers have handed over by now: they go on meanwhile, so no more
	// than they all can have had in hand.
	rest := func() error {
		for range cap(batches) + len(known) {
			select {
			case b := <-batches:
				if err := take(b); err != nil {
					return err
				}
			default:
				return nil
			}
		}
		return nil
	}
	end := func() error {
		if err := rest(); err != nil {
			return err
		}
		return p.drain(work, out, led)
	}

	// Commits keep to the beats of one clock, but nothing ticks while there is nothing to
	// commit: of many pipelines most have nothing to do.
	opened, beat := time.Now(), p.cfg.CommitInterval.Std()
	var due <-chan time.Time
	for {
		if dirty && due == nil {
			due = time.After(beat - time.Since(opened)%beat)
		}
		overtaken := false
		var done chan struct{} // of who has asked for a commit
		select {
		case done = <-p.asked:
		case b := <-batches:
			if err := take(b); err != nil {
				return err
			}
			dirty = true
			if p.held < p.limit {
				continue
			}
		case <-due:
			due = nil
			if !dirty {
				continue // a commit came between
			}
		case <-changed:
			changed = p.log.Changed()
			if st, err := p.log.Stat(ctx, p.stream); err == nil {
				if err := follow(st); err != nil { // partitions that came since
					return err
				}
				overtaken = p.overtaken(st, begin, led)
			}
			if !overtaken {
				continue
			}
			if err := rest(); err != nil {
				return err
			}
		case err := <-failed:
			if errors.Is(err, errOvertaken) && ctx.Err() == nil {
				// What was read in time is not lost with the rest.
				if derr := end(); derr != nil {
					return derr
				}
				return err
			}
			if ctx.Err() == nil {
				return err
			}
			return end()
		case <-ctx.Done():
			return end()
		}
		err := p.commit(work, out, out.Commit, led)
		if done != nil {
			close(done)
		}
		if err != nil {
			return err
		}
		dirty = led.events > 0 || len(led.pending) > 0
		if overtaken {
			if st, err := p.log.Stat(ctx, p.stream); err == nil && p.overtaken(st, begin, led) {
				return errOvertaken // and the commit has not helped
			}
		}
	}
}

// begin loads the watermark. A reader that the log does not know yet is
// registered at once, so that retention keeps what it has not read.
func (p *Pipeline) begin(ctx context.Context) (*ledger, error) {
	at, err := p.log.Progress(ctx, p.name)
	if err != nil {
		return nil, fmt.Errorf("load watermark of %s: %w", p.name, err)
	}
	if at.Positions == nil {
		at = stream.Progress{Stream: p.stream, Positions: event.Positions{}, Events: map[int32]int64{}}
		if p.first != nil {
			if at, err = p.first(ctx); err != nil {
				return nil, fmt.Errorf("find where %s begins: %w", p.name, err)
			}
		}
		if err := p.log.Commit(ctx, nil, p.name, at); err != nil {
			return nil, fmt.Errorf("register reader %s: %w", p.name, err)
		}
	}
	led := newLedger(at)
	p.update(func(s *Status) { s.Progress, s.Held = led.progress(), 0 })
	return led, nil
}

// write hands a portion to the sink. held events before it were written earlier.
func (p *Pipeline) write(ctx context.Context, out sink.Sink, led *ledger, x *portion, held int64) error {
	// Behind a rewound start, what lies below the watermark was counted before.
	from := x.in.From
	if mark, ok := led.at.Positions.Get(x.in.Incarnation, x.in.Partition); ok {
		from = max(from, mark)
	}
	counts, err := x.counts(from)
	if err != nil {
		return err
	}
	if err := out.Write(ctx, x.out); err != nil {
		return fmt.Errorf("write %s at %s: %w", p.stream, x.in.End(), err)
	}
	if h, ok := out.(sink.Pending); ok {
		p.held = h.PendingBytes()
	}
	counts.Written += held
	led.wrote(x.in, counts, x.before)
	p.update(func(s *Status) { s.Held = led.events })
	return nil
}

// Appender is an optional power of a sink whose rows become events of the log: Appends
// returns, once, what the last Commit covers. It is appended in one atomic step with
// the watermark, so each row is there once.
type Appender interface {
	Appends() []stream.Write
}

// commit makes the sink's rows durable and then moves the watermark: in this
// order, because a watermark that leads would lose what it skips.
func (p *Pipeline) commit(ctx context.Context, out sink.Sink, sinkCommit func(context.Context) (event.Positions, error), led *ledger) error {
	p.update(func(s *Status) { s.Committing = true })
	defer p.update(func(s *Status) { s.Committing = false })
	prepared, err := p.prepare(ctx, out, led)
	if err != nil {
		return err
	}
	done, err := sinkCommit(ctx)
	if err != nil {
		return fmt.Errorf("commit sink of %s: %w", p.stream, err)
	}
	if r, ok := out.(sink.Refuser); ok && !prepared {
		// Before the watermark: read again, these rows are left out.
		told := refused(r.Refused())
		if err := p.source.settle(ctx, done, told); err != nil {
			return err
		}
		led.refuse(told)
	}
	var writes []stream.Write
	if a, ok := out.(Appender); ok {
		writes = append(writes, a.Appends()...)
	}
	if led.settle(done) || len(writes) > 0 {
		if err := p.log.Commit(ctx, writes, p.name, led.progress()); err != nil {
			return fmt.Errorf("append watermark of %s: %w", p.name, err)
		}
	}
	p.held, p.limit = 0, min(2*p.limit, int64(p.cfg.CommitBytes))
	p.update(func(s *Status) {
		s.Progress, s.Held = led.progress(), led.events
		s.LastCommit, s.LastError, s.Hint = time.Now(), "", ""
		s.Commits++
	})
	return nil
}

// prepare makes durable what has to be so before the sink's commit. It tells
// whether the sink has said what it refuses.
func (p *Pipeline) prepare(ctx context.Context, out sink.Sink, led *ledger) (told bool, err error) {
	var all refused
	x, ok := out.(sink.Preparer)
	if ok {
		if err := x.Prepare(ctx); err != nil {
			return false, fmt.Errorf("prepare sink of %s: %w", p.stream, err)
		}
		if r, refuses := out.(sink.Refuser); refuses {
			all = r.Refused()
		}
	}
	if err := p.source.settle(ctx, led.end(), all); err != nil {
		return false, err
	}
	led.refuse(all)
	return ok, nil
}

// drain commits everything that was written, within what is left of ctx.
func (p *Pipeline) drain(ctx context.Context, out sink.Sink, led *ledger) error {
	if len(led.pending) == 0 {
		return nil
	}
	commit := out.Commit
	if d, ok := out.(sink.Drainer); ok {
		commit = d.Drain
	}
	if err := p.commit(ctx, out, commit, led); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	return nil
}

// outlive returns a context that ends the given time after ctx does.
func outlive(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var timer *time.Timer
	var once sync.Mutex
	stop := context.AfterFunc(ctx, func() {
		once.Lock()
		defer once.Unlock()
		timer = time.AfterFunc(by, cancel)
	})
	return longer, func() {
		stop()
		once.Lock()
		defer once.Unlock()
		if timer != nil {
			timer.Stop()
		}
		cancel()
	}
}
