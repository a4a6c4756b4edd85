// Package sql serves POST /v1/sql: SQL in, rows out in the format that Accept
// asks for (DOOR.md).
package sql

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"naru/internal/fault"
	"naru/internal/query"
	"naru/internal/web"
)

// Handler answers statements with engine.
func Handler(engine query.Engine, cfg Config, log *slog.Logger) http.Handler {
	return &handler{engine: engine, cfg: cfg, log: log}
}

type handler struct {
	engine query.Engine
	cfg    Config
	log    *slog.Logger
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		web.Fail(w, &web.Error{Status: http.StatusMethodNotAllowed, Title: "method not allowed", Detail: r.Method + " is not taken at /v1/sql; use POST"})
		return
	}
	w.Header().Set("Vary", "Accept")
	format, ok := query.Negotiate(strings.Join(r.Header.Values("Accept"), ","))
	if !ok {
		web.Fail(w, &web.Error{Status: http.StatusNotAcceptable, Title: "not acceptable",
			Detail: "answers come as " + strings.Join(query.MediaTypes(), ", ") + "; Accept takes none of them"})
		return
	}
	sql, err := h.statement(w, r)
	if err != nil {
		web.Fail(w, err)
		return
	}
	// The query ends with the handler, whatever way that goes.
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	rows, err := h.engine.Query(ctx, query.Query{SQL: sql})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	defer rows.Close()
	h.answer(w, r, format, rows)
}

// answer streams the rows. What goes wrong before the first block has left
// becomes a problem document; later it becomes the last line of a body that is
// broken off, so that a cut answer never looks whole.
func (h *handler) answer(w http.ResponseWriter, r *http.Request, format query.Format, rows query.Rows) {
	out := &blocks{w: w, ctl: http.NewResponseController(w), timeout: h.cfg.WriteTimeout.Std(), media: format.MediaType()}
	enc := query.NewWriter(format, out)
	err := query.Copy(enc, rows)
	switch {
	case err == nil:
		out.rest()
		return
	case out.err != nil:
		h.log.Debug("sql client does not read", "remote", r.RemoteAddr, "error", out.err)
		panic(http.ErrAbortHandler)
	case !out.begun && !errors.Is(err, fault.ErrLimit):
		h.fail(w, r, err)
		return
	}
	if cut := enc.Cut(sentence(err)); cut != nil {
		h.log.Debug("sql client does not read", "remote", r.RemoteAddr, "error", cut)
	}
	panic(http.ErrAbortHandler)
}

// fail answers with a problem document.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := &web.Error{Detail: sentence(err), Err: err}
	var later *fault.RetryAfter
	switch {
	case r.Context().Err() != nil:
		panic(http.ErrAbortHandler) // the client has left
	case errors.Is(err, query.ErrRefused):
		e.Status, e.Title = http.StatusForbidden, "statement refused"
	case errors.Is(err, query.ErrSQL):
		e.Status, e.Title = http.StatusBadRequest, "SQL error"
	case errors.Is(err, query.ErrTimeout):
		e.Status, e.Title = http.StatusRequestTimeout, "time limit reached"
	case errors.Is(err, fault.ErrLimit):
		e.Status, e.Title = http.StatusRequestEntityTooLarge, "statement too long"
	case errors.Is(err, query.ErrTooMany):
		e.Status, e.Title, e.RetryAfter = http.StatusServiceUnavailable, "too many queries", time.Second
	case fault.IsTransient(err):
		h.log.Warn("query put off", "error", err)
		e.Status, e.Title, e.RetryAfter = http.StatusServiceUnavailable, "unavailable", time.Second
	default:
		h.log.Error("query failed", "error", err)
		e.Status, e.Title = http.StatusInternalServerError, "query failed"
	}
	if errors.As(err, &later) {
		e.RetryAfter = later.After
	}
	web.Fail(w, e)
}

// sentence is an error with its hint.
func sentence(err error) string {
	if hint := fault.HintOf(err); hint != "" {
		return fmt.Sprintf("%v\n\nHint: %s", err, hint)
	}
	return err.Error()
}

// blocks passes the encoder's blocks on, each with a deadline of its own.
type blocks struct {
	w       http.ResponseWriter
	ctl     *http.ResponseController
	timeout time.Duration
	media   string
	begun   bool
	err     error
}

func (b *blocks) Write(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if !b.begun {
		b.begun = true
		web.Head(b.w.Header(), b.media)
	}
	if err := b.ctl.SetWriteDeadline(time.Now().Add(b.timeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		b.err = err
		return 0, err
	}
	n, err := b.w.Write(p)
	if err == nil {
		if err = b.ctl.Flush(); errors.Is(err, http.ErrNotSupported) {
			err = nil
		}
	}
	b.err = err
	return n, err
}

// rest leaves the connection to the next request without a deadline: all but
// the end mark of the body has been handed over.
func (b *blocks) rest() { _ = b.ctl.SetWriteDeadline(time.Time{}) }
