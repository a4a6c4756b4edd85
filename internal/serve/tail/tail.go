// Package tail shows the events of a stream as NDJSON, as they stand in the
// log: GET /v1/streams/STREAM/events.
package tail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/stream"
	"naru/internal/web"
)

// Config bounds what readers of streams cost.
type Config struct {
	// Clients that may read streams at a time; one more is told to come back.
	Clients int `yaml:"clients"`
	// ReadBytes is how much one client takes from the log at once.
	ReadBytes quantity.Bytes `yaml:"read_bytes"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{Clients: 32, ReadBytes: quantity.MiB} }

// Validate tells which value cannot work, by its key.
func (c Config) Validate() error {
	var errs []error
	if c.Clients < 1 {
		errs = append(errs, errors.New("clients: must be at least 1"))
	}
	if c.ReadBytes < quantity.KiB || c.ReadBytes > 64*quantity.MiB {
		errs = append(errs, errors.New("read_bytes: must be between 1KiB and 64MiB"))
	}
	return errors.Join(errs...)
}

// Handler answers requests for the events of a stream.
type Handler struct {
	cfg     Config
	log     stream.Log
	closing <-chan struct{}
	logger  *slog.Logger
	room    chan struct{}
}

// Prefix is the path below which the handler is to be mounted.
const Prefix = "/v1/streams/"

// New makes the handler. When closing is closed, answers that follow a stream
// end, so that they do not hold up the stop of the server.
func New(cfg Config, log stream.Log, closing <-chan struct{}, logger *slog.Logger) *Handler {
	return &Handler{cfg: cfg, log: log, closing: closing, logger: logger, room: make(chan struct{}, cfg.Clients)}
}

// ServeHTTP answers with NDJSON: one event a line, in the order of the log. An
// error behind the first byte is a last line {"error": ...} and a cut body.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, ok := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, Prefix), "/events")
	if !ok || name == "" {
		web.Fail(w, &web.Error{Status: http.StatusNotFound, Title: "no such path",
			Detail: "the events of a stream are at " + Prefix + "STREAM/events"})
		return
	}
	select {
	case h.room <- struct{}{}:
		defer func() { <-h.room }()
	default:
		web.Fail(w, &web.Error{Status: http.StatusServiceUnavailable, Title: "too many readers",
			Detail: fmt.Sprintf("%d clients read streams now, tail.clients allows no more; come back later", h.cfg.Clients)})
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() { // ends with the request
		select {
		case <-h.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	out := &lines{w: w, rc: http.NewResponseController(w)}
	err := h.answer(ctx, out, name, r.URL.Query())
	switch {
	case err == nil, r.Context().Err() != nil:
	case ctx.Err() != nil && out.begun:
		// The server stops: what was sent is whole.
	case ctx.Err() != nil:
		web.Fail(w, &web.Error{Status: http.StatusServiceUnavailable, Title: "stopping", Detail: "the server is being stopped"})
	case !out.begun:
		web.Fail(w, classed(err))
	default:
		h.logger.Warn("tail broke off", slog.String("stream", name), slog.Any("error", err))
		out.fail(err)
		panic(http.ErrAbortHandler) // a cut answer must not look whole
	}
}

// classed gives an error its status.
func classed(err error) error {
	e := &web.Error{Detail: err.Error(), Err: err}
	var damaged *fault.Corrupt
	switch {
	case errors.Is(err, stream.ErrNoStream):
		e.Status, e.Title = http.StatusNotFound, "no such stream"
		e.Detail += "; a stream exists from its first event, naru status lists them"
	case errors.Is(err, stream.ErrTrimmed):
		e.Status, e.Title = http.StatusGone, "events are gone"
		e.Detail += "; from=start begins at the oldest that is left"
	case errors.Is(err, stream.ErrBeyondEnd), errors.Is(err, stream.ErrUnknownIncarnation), errors.Is(err, errQuery):
		e.Status, e.Title = http.StatusBadRequest, "bad request"
	case fault.IsTransient(err), errors.Is(err, stream.ErrClosed), errors.Is(err, fault.ErrPoisoned):
		e.Status, e.Title = http.StatusServiceUnavailable, "unavailable"
	case errors.As(err, &damaged): // the same request will find the same bytes
		e.Status, e.Title = http.StatusInternalServerError, "damaged"
		e.Detail = fault.Sentence(err)
	default:
		return err
	}
	return e
}

// answer writes what was asked for.
func (h *Handler) answer(ctx context.Context, out *lines, name string, query map[string][]string) error {
	q, err := parseQuery(query)
	if err != nil {
		return err
	}
	st, err := h.log.Stat(ctx, name)
	if err != nil {
		return err
	}
	p := part{log: h.log, stream: name, number: q.partition, max: stream.Bytes(h.cfg.ReadBytes), stat: st}
	from, skip, err := p.begin(ctx, q)
	if err != nil {
		return err
	}
	write := func(e *event.Event) error {
		if skip > 0 {
			skip--
			return nil
		}
		if q.limit == 0 {
			return recordbatch.ErrStop
		}
		q.limit--
		return out.event(name, p.number, p.reading, e)
	}
	more := func() bool { return q.limit != 0 }
	if !from.Incarnation.IsZero() {
		if from, err = p.until(ctx, from, write, out.flush, more); err != nil {
			return err
		}
	}
	if err := out.flush(); err != nil || !q.follow {
		return err
	}
	for more() {
		if from, err = p.next(ctx, from, write); err != nil {
			return err
		}
		if err := out.flush(); err != nil {
			return err
		}
	}
	return nil
}

// lines writes events as lines of JSON.
type lines struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	buf   []byte
	begun bool
}

func (l *lines) event(stream string, partition int32, inc event.Incarnation, e *event.Event) error {
	l.buf = AppendEvent(l.buf, stream, partition, inc, e)
	if len(l.buf) < 64<<10 {
		return nil
	}
	return l.flush()
}

// flush sends what is there; the first time also the head of an empty answer.
func (l *lines) flush() error {
	if !l.begun {
		l.begun = true
		web.Head(l.w.Header(), "application/x-ndjson")
		l.w.WriteHeader(http.StatusOK)
	}
	_, err := l.w.Write(l.buf)
	l.buf = l.buf[:0]
	if err == nil {
		err = l.rc.Flush()
	}
	if err != nil {
		return fmt.Errorf("send events: %w", err)
	}
	return nil
}

func (l *lines) fail(err error) {
	text, merr := json.Marshal(map[string]string{"error": err.Error()})
	if merr != nil {
		return
	}
	l.buf = append(append(l.buf, text...), '\n')
	_ = l.flush() // the connection is cut in any case
}
