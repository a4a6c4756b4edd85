package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"naru/internal/event"
	"naru/internal/stream"
)

// Set runs the default pipeline of every stream, also of those that come later.
type Set struct {
	cfg    Config
	log    stream.Log
	open   Opener
	logger *slog.Logger

	mu struct {
		sync.Mutex
		pipelines map[string]*Pipeline // by stream
	}
}

// NewSet makes the set. It starts nothing.
func NewSet(cfg Config, log stream.Log, open Opener, logger *slog.Logger) *Set {
	s := &Set{cfg: cfg, log: log, open: open, logger: logger}
	s.mu.pipelines = map[string]*Pipeline{}
	return s
}

// Run works until ctx ends and all pipelines have drained. It returns early,
// with the cause, when the log is poisoned or closed.
func (s *Set) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	var failed struct {
		sync.Mutex
		errs []error
	}
	if err := s.forget(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		changed := s.log.Changed()
		names, err := s.log.Streams(ctx)
		if err != nil {
			cancel(err)
			failed.Lock()
			failed.errs = append(failed.errs, fmt.Errorf("list streams: %w", err))
			failed.Unlock()
			break
		}
		for _, p := range s.add(names) {
			running.Go(func() {
				if err := p.Run(ctx); err != nil {
					failed.Lock()
					failed.errs = append(failed.errs, fmt.Errorf("pipeline %s: %w", p.name, err))
					failed.Unlock()
					cancel(err)
				}
			})
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	running.Wait()
	return errors.Join(failed.errs...)
}

// Hold registers the readers of all streams, also of those that come later, until
// ctx ends, and reads nothing: retention keeps for them what they have not read.
func (s *Set) Hold(ctx context.Context) error {
	for {
		changed := s.log.Changed()
		names, err := s.log.Streams(ctx)
		if err != nil {
			return fmt.Errorf("list streams: %w", err)
		}
		for _, p := range s.add(names) {
			if _, err := p.begin(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("pipeline %s: %w", p.name, err)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// Reader names the reader of a stream's default pipeline; "" where it has none.
func Reader(streamName string) string {
	if event.Internal(streamName) {
		return ""
	}
	return stream.DefaultReader + streamName
}

// add returns new pipelines for streams that have none yet.
func (s *Set) add(streams []string) []*Pipeline {
	s.mu.Lock()
	defer s.mu.Unlock()
	var fresh []*Pipeline
	for _, name := range streams {
		if s.mu.pipelines[name] != nil || event.Internal(name) {
			continue
		}
		p := New(stream.DefaultReader+name, name, s.cfg, s.log, s.open, s.logger)
		s.mu.pipelines[name] = p
		fresh = append(fresh, p)
	}
	return fresh
}

// Flush asks the pipeline of a stream for a commit, and waits for it.
func (s *Set) Flush(ctx context.Context, streamName string) error {
	s.mu.Lock()
	p := s.mu.pipelines[streamName]
	s.mu.Unlock()
	if p == nil {
		return nil
	}
	return p.Flush(ctx)
}

// forget removes readers that left the configuration: they would hold
// retention back for ever.
func (s *Set) forget(ctx context.Context) error {
	known, ok := s.log.(stream.Readers)
	f, can := s.log.(stream.Forgetter)
	if !ok || !can {
		return nil
	}
	readers, err := known.Readers(ctx)
	if err != nil {
		return fmt.Errorf("list readers: %w", err)
	}
	// In order of their names, so that of a judge that was turned off the note goes
	// first that it had begun: turned on again it begins anew, whatever comes between.
	for _, name := range slices.Sorted(maps.Keys(readers)) {
		if owner, _ := ownerOf(name); owner != "" || strings.HasPrefix(name, stream.DefaultReader) {
			continue
		}
		s.logger.Warn("reader left the configuration; its positions are removed", slog.String("reader", name))
		if err := f.Forget(ctx, name); err != nil {
			return fmt.Errorf("forget reader %s: %w", name, err)
		}
	}
	return nil
}

// Status of all pipelines, by name.
func (s *Set) Status() []Status {
	s.mu.Lock()
	all := make([]*Pipeline, 0, len(s.mu.pipelines))
	for _, p := range s.mu.pipelines {
		all = append(all, p)
	}
	s.mu.Unlock()
	out := make([]Status, len(all))
	for i, p := range all {
		out[i] = p.Status()
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return out
}
