package table

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake/iceberg"
)

// parallelCommits of one sink: a commit waits mostly for the disk.
const parallelCommits = 4

// idleRelease is how long a table without rows keeps its buffers.
const idleRelease = 30 * time.Second

// Commit implements sink.Sink. Within the node's commit rate, tables that have
// waited longest go first; what is left waits and holds the returned positions
// back.
func (s *Sink) Commit(ctx context.Context) (event.Positions, error) { return s.commit(ctx, false) }

// Drain implements sink.Drainer: all tables, whatever the rate.
func (s *Sink) Drain(ctx context.Context) (event.Positions, error) { return s.commit(ctx, true) }

func (s *Sink) commit(ctx context.Context, all bool) (event.Positions, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.rejudge(ctx); err != nil {
		return nil, err
	}
	due := s.choose(all)
	for _, t := range due {
		s.pending -= t.bytes // when it fails, nothing is left of it either
		t.bytes = 0
	}
	var mu sync.Mutex
	var failed []failure
	var stopped []func()
	var well []*target
	var running sync.WaitGroup
	slots := make(chan struct{}, parallelCommits)
	for _, t := range due {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			err := t.commit(ctx, s.lake, s.end)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				well = append(well, t)
			case errors.Is(err, iceberg.ErrUnfit):
				stopped = append(stopped, func() { s.stop(t, err) })
			default:
				failed = append(failed, failure{t, err})
			}
		})
	}
	running.Wait()
	for _, stop := range stopped {
		stop()
	}
	errs := s.isolate(ctx, well, failed)
	s.account(append(due, s.releaseIdle()...))
	s.show()
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	done := s.covered()
	if s.gaps == nil { // else the mark keeps the place where the gap begins
		if err := s.lake.MoveMark(s.stream, done); err != nil {
			return nil, err
		}
	}
	if s.until != nil && behind(done, s.until) == nil {
		if err := s.lake.Reloaded(s.stream); err != nil {
			return nil, err
		}
		s.tables.logger.Info("stream is loaded again", slog.String("stream", s.stream), slog.String("up_to", s.until.String()))
		s.until = nil
	}
	return done, nil
}

// behind returns the places of until that done has not reached; nil when it has.
func behind(done, until event.Positions) (short event.Positions) {
	for inc, parts := range until {
		for partition, off := range parts {
			if have, ok := done.Get(inc, partition); ok && have >= off {
				continue
			}
			if short == nil {
				short = event.Positions{}
			}
			short.Advance(event.Position{Incarnation: inc, Partition: partition, Offset: off})
		}
	}
	return short
}

// failure is a commit that did not work, for a reason that may pass.
type failure struct {
	t   *target
	err error
}

// maxFailures is how often a table may fail one commit after the other while
// others of the stream succeed.
const maxFailures = 3

// isolate returns the errors that end the session. A table that fails again and
// again where others succeed is stopped instead: each new session reads from the
// watermark, which it holds, so in the long run none would get to new events.
func (s *Sink) isolate(ctx context.Context, well []*target, failed []failure) (errs []error) {
	s.tables.mu.Lock()
	for _, t := range well {
		delete(s.tables.mu.failures, t.ident)
	}
	again := map[*target]int{}
	for _, f := range failed {
		if len(well) > 0 && ctx.Err() == nil {
			s.tables.mu.failures[f.t.ident]++
			again[f.t] = s.tables.mu.failures[f.t.ident]
		}
	}
	s.tables.mu.Unlock()
	for _, f := range failed {
		n := again[f.t]
		if n < maxFailures {
			errs = append(errs, f.err)
			continue
		}
		s.stop(f.t, fault.WithHint(fmt.Errorf("%d commits failed, the last: %w", n, f.err),
			"cure the cause; the other tables go on, and this one is tried again by itself"))
		// Trying again is a new session, which reads from the watermark.
		f.t.patience = min(rejudgeInterval<<min(n-maxFailures, 6), time.Hour)
	}
	return errs
}

// rejudge looks at stopped tables again. When one has been cured, the session
// has to begin anew: what the table did not take is read again.
func (s *Sink) rejudge(ctx context.Context) error {
	now := s.tables.now()
	for _, t := range s.names {
		if t.stopped == nil || now.Sub(t.judged) < max(t.patience, rejudgeInterval) {
			continue
		}
		t.judged = now
		st, err := s.tables.log.Stat(ctx, s.stream)
		if err != nil {
			return fmt.Errorf("look at stopped table %s again: %w", t.ident, err)
		}
		state, err := t.handle.Load(ctx)
		if err == nil {
			err = s.judge(t.ident, state, st)
		}
		if err == nil {
			return fault.Transient(fmt.Errorf("table %s, which was stopped, takes rows again: its events are read anew", t.ident))
		}
	}
	return nil
}

// rejudgeInterval is how often a stopped table is looked at again.
const rejudgeInterval = time.Minute

// choose picks the tables to commit now.
func (s *Sink) choose(all bool) []*target {
	var dirty, due []*target
	for _, t := range s.names {
		if t.rows > 0 || t.caughtUp(s.end) {
			dirty = append(dirty, t)
		}
	}
	now := s.tables.now()
	if s.over > 0 && s.memory > s.lake.FairShare() {
		// Bytes beyond the memory force commits, the largest first. They use up the
		// rate, so with each of them goes the table that has waited longest: else
		// small tables, and the watermark with them, might wait for ever.
		force := func(i int) {
			t := dirty[i]
			s.lake.Rate.Force(t.ident, now)
			due, dirty = append(due, t), slices.Delete(dirty, i, i+1)
		}
		for free := int64(0); len(dirty) > 0 && free < s.over; {
			largest := slices.MaxFunc(dirty, func(a, b *target) int { return cmp.Compare(a.held, b.held) })
			free += largest.held
			force(slices.Index(dirty, largest))
			if len(dirty) > 0 {
				oldest := slices.MinFunc(dirty, func(a, b *target) int { return a.since.Compare(b.since) })
				free += oldest.held
				force(slices.Index(dirty, oldest))
			}
		}
	}
	slices.SortFunc(dirty, func(a, b *target) int { return a.since.Compare(b.since) })
	for _, t := range dirty {
		if all {
			s.lake.Rate.Force(t.ident, now)
		} else if !s.lake.Rate.Take(t.ident, t.since, now) {
			continue
		}
		due = append(due, t)
	}
	return due
}

// releaseIdle gives back the buffers of tables that get no rows, and of all
// when memory is short. It returns whose.
func (s *Sink) releaseIdle() (released []*target) {
	now := s.tables.now()
	for _, t := range s.names {
		if t.builder == nil || t.rows > 0 {
			t.idle = time.Time{}
			continue
		}
		if t.idle.IsZero() {
			t.idle = now
		}
		if s.over > 0 || now.Sub(t.idle) >= idleRelease {
			t.release()
			released = append(released, t)
		}
	}
	return released
}

// covered returns the first positions not covered: the end of what was written,
// held back by tables that wait and by tables that are stopped.
func (s *Sink) covered() event.Positions {
	out := s.end.Clone()
	for _, t := range s.names {
		for _, held := range []event.Positions{t.oldest, t.blocked} {
			for inc, parts := range held {
				for partition, off := range parts {
					s.holdBack(out, event.Position{Incarnation: inc, Partition: partition, Offset: off})
				}
			}
		}
	}
	return out
}

// holdBack lowers out to at. Later lives of the log must not be covered while
// an earlier one is not: the watermark's reader goes on in the latest that it
// knows.
func (s *Sink) holdBack(out event.Positions, at event.Position) {
	lives := s.lives[at.Partition]
	for _, later := range lives[slices.Index(lives, at.Incarnation)+1:] {
		delete(out[later], at.Partition)
		if len(out[later]) == 0 {
			delete(out, later)
		}
	}
	if have, ok := out.Get(at.Incarnation, at.Partition); ok && have > at.Offset {
		out[at.Incarnation][at.Partition] = at.Offset
	}
}
