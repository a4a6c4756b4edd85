package collect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"naru/internal/contract"
	"naru/internal/fault"
	"naru/internal/obs"
	"naru/internal/stream"
	"naru/internal/web"
)

// Deps are what an engine works with. Now may be nil: time.Now; Contracts: there
// are none; Keys: there are none; Watch: nobody looks on.
type Deps struct {
	Log       stream.Log
	Contracts Contracts
	Keys      *contract.Keys // that personal values are hashed with
	Watch     *Watch
	Registry  *obs.Registry
	Logger    *slog.Logger
	Now       func() time.Time
}

// Engine is shared by all front doors: one budget, one set of limits, one log.
type Engine struct {
	cfg       Config
	log       stream.Log
	contracts Contracts
	keys      *contract.Keys
	watch     *Watch // nil: nobody looks on
	logger    *slog.Logger
	now       func() time.Time
	budget    *web.Budget
	bodies    web.BodyReader
	metrics   *Metrics
	pool      sync.Pool // *Request

	warned atomic.Int64 // Unix second of the last warning about the log
	mu     struct {
		sync.RWMutex
		streams map[string]bool // that clients have posted to; nil until first asked
	}
}

// New makes an engine; it touches nothing yet.
func New(cfg Config, deps Deps) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure collect: %w", err)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Keys == nil {
		deps.Keys = &contract.Keys{}
	}
	budget := web.NewBudget(int64(cfg.InFlight))
	registerBudget(deps.Registry, budget)
	e := &Engine{
		cfg: cfg, log: deps.Log, contracts: deps.Contracts, keys: deps.Keys, watch: deps.Watch, logger: deps.Logger, now: deps.Now, budget: budget,
		bodies:  web.BodyReader{Max: int64(cfg.Body), MaxInflate: int64(cfg.Decompressed), Budget: budget, Weight: weigh, Section: "collect."},
		metrics: NewMetrics(deps.Registry),
	}
	e.pool.New = func() any { return newRequest(e) }
	return e, nil
}

// Config returns the configuration.
func (e *Engine) Config() Config { return e.cfg }

// Door returns the metrics for a door of that name.
func (e *Engine) Door(name string) *DoorMetrics { return e.metrics.Door(name) }

// Budget is the memory shared by all bodies.
func (e *Engine) Budget() *web.Budget { return e.budget }

// Begin starts a request to stream. The error is an *web.Error: 400 for a name
// that clients cannot post to. End every request with Release.
func (e *Engine) Begin(ctx context.Context, door *DoorMetrics, name string) (*Request, error) {
	if err := e.admit(ctx, name); err != nil {
		return nil, err
	}
	r := e.pool.Get().(*Request)
	r.begin(door, name, e.now())
	return r, nil
}

// admit checks the stream's name, and that clients do not make streams without
// end: each costs the log a partition, and the node a pipeline.
func (e *Engine) admit(ctx context.Context, name string) error {
	e.mu.RLock()
	known := e.mu.streams[name]
	e.mu.RUnlock()
	if known {
		return nil
	}
	if err := CheckStream(name); err != nil {
		return &web.Error{Status: http.StatusBadRequest, Title: "bad stream name", Detail: err.Error()}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.streams == nil {
		// Once, under the lock: the answer is in the log's memory.
		names, err := e.log.Streams(ctx)
		if err != nil {
			return e.logError(err)
		}
		e.mu.streams = make(map[string]bool, len(names))
		for _, n := range names {
			if CheckStream(n) == nil {
				e.mu.streams[n] = true
			}
		}
	}
	if e.mu.streams[name] || len(e.mu.streams) < e.cfg.Streams {
		return nil
	}
	return &web.Error{
		Status: http.StatusBadRequest, Title: "too many streams",
		Detail: fmt.Sprintf("stream %q does not exist, and there are %d already (collect.streams); post to one of those, or raise the limit", name, len(e.mu.streams)),
	}
}

// stored notes that a stream exists now.
func (e *Engine) stored(name string) {
	e.mu.RLock()
	known := e.mu.streams[name]
	e.mu.RUnlock()
	if !known {
		e.mu.Lock()
		e.mu.streams[name] = true
		e.mu.Unlock()
	}
}

// Ready tells whether the log answers: for /readyz.
func (e *Engine) Ready(ctx context.Context) error {
	if _, err := e.log.Streams(ctx); err != nil {
		return fmt.Errorf("ask log: %w", err)
	}
	return nil
}

// Retry times of what the log answers.
const (
	retrySoon     = 1 * time.Second
	retryFull     = 10 * time.Second
	retryPoisoned = 5 * time.Second // until the process has been started again
)

// logError turns an error of the log into an answer. Whatever may pass is 503.
func (e *Engine) logError(err error) error {
	if errors.Is(err, fault.ErrLimit) {
		return &web.Error{Status: http.StatusRequestEntityTooLarge, Title: "request too large for the log", Err: err,
			Detail: "the log does not take that much at once: " + fault.Sentence(err) + "; nothing was stored, send it in smaller requests"}
	}
	a := &web.Error{Status: http.StatusServiceUnavailable, Title: "log unavailable", RetryAfter: retrySoon, Err: err,
		Detail: "the log cannot take events at the moment; whether these were stored is not known, send the same request again after Retry-After"}
	var later *fault.RetryAfter
	switch {
	case errors.Is(err, fault.ErrPoisoned):
		a.Title, a.RetryAfter = "log stopped", retryPoisoned
		a.Detail = "the log has seen a failed write and the process is ending; whether these events were stored is not known, send the same request again after Retry-After"
	case errors.Is(err, stream.ErrFull):
		a.Title, a.RetryAfter = "disk full", retryFull
		a.Detail = "the disk of the log is nearly full and nothing was stored; free space or shorten the retention, then send the same request again"
	case errors.Is(err, stream.ErrClosed):
		a.Title, a.Detail = "stopping", "the log is closed; nothing was stored, send the same request again after Retry-After"
	case errors.As(err, &later):
		a.RetryAfter = later.After
	}
	// Once a second at most: a log that fails does so for every request.
	if now := e.now().Unix(); e.warned.Swap(now) != now {
		e.logger.Warn("append refused", "status", a.Status, "error", err)
	}
	return a
}
