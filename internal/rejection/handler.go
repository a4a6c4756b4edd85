package rejection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"naru/internal/fault"
	"naru/internal/query"
	"naru/internal/web"
)

// Paths of the handler: the list, one (Path/LOG/PARTITION/OFFSET), and what
// changes states.
const (
	Path        = "/v1/rejected"
	ReplayPath  = Path + "/replay"
	DiscardPath = Path + "/discard"
)

// Ask is the body of a replay or discard: what to choose, and how.
type Ask struct {
	Filter
	All    bool `json:"all,omitempty"` // says that an empty filter is meant
	DryRun bool `json:"dry_run,omitempty"`
}

// Line is one line of the answer to a replay or discard, NDJSON: how far it is,
// then the result or why it ended early.
type Line struct {
	Progress *Result `json:"progress,omitempty"`
	Result   *Result `json:"result,omitempty"`
	Error    string  `json:"error,omitempty"`
}

// Handler serves rejections over HTTP.
type Handler struct {
	Rejections *Rejections
	Tables     *Tables
	Contact    func(typ string) Contact // nil: nobody is known
	Closing    <-chan struct{}          // closed when the server stops: pages that are begun are ended
	Logger     *slog.Logger
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == ReplayPath:
		h.change(w, r, h.Rejections.Replay)
	case r.URL.Path == DiscardPath:
		h.change(w, r, h.Rejections.Discard)
	case r.URL.Path == Path:
		h.list(w, r)
	default:
		d, err := h.Tables.Show(r.Context(), strings.TrimPrefix(r.URL.Path, Path+"/"), h.Contact)
		h.answer(w, r, d, err)
	}
}

func (h *Handler) list(w http.ResponseWriter, r *http.Request) {
	f, state, err := readFilter(r.URL.Query())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	l, err := h.Tables.List(r.Context(), f, state, h.Contact)
	h.answer(w, r, l, err)
}

// errAsk: the request cannot be understood.
var errAsk = errors.New("bad request")

// readFilter reads the query of a list.
func readFilter(q url.Values) (f Filter, state State, err error) {
	for name, values := range q {
		v := values[len(values)-1]
		switch name {
		case "id":
			f.ID = v
		case "type":
			f.Type = v
		case "reason":
			f.Reason = v
		case "rule":
			f.Rule = v
		case "path":
			f.Path = v
		case "stream":
			f.Stream = v
		case "source":
			f.Source = v
		case "pipeline":
			f.Pipeline = v
		case "state":
			err = state.UnmarshalText([]byte(v))
		case "since":
			f.Since, err = time.Parse(time.RFC3339, v)
		case "until":
			f.Until, err = time.Parse(time.RFC3339, v)
		default:
			err = errors.New("there is no such parameter; there are id, type, reason, rule, path, stream, source, pipeline, state, since and until")
		}
		if err != nil {
			return f, state, fmt.Errorf("%w: parameter %s: %w", errAsk, name, err)
		}
	}
	return f, state, nil
}

// maxAsk is the longest body of a replay or discard.
const maxAsk = 64 << 10

func readAsk(w http.ResponseWriter, r *http.Request) (Ask, error) {
	var a Ask
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAsk))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&a); err != nil {
		return a, fmt.Errorf(`%w: the body is to be a JSON object such as {"type": "page_view", "reason": "contract"}: %w`, errAsk, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return a, fmt.Errorf("%w: there is text behind the JSON object", errAsk)
	}
	if a.Empty() && !a.All {
		return a, fmt.Errorf(`%w: nothing is chosen; say what with type, reason, since and the like, or {"all": true} for all that are open`, errAsk)
	}
	if a.ID != "" {
		if _, err := ParseID(a.ID); err != nil {
			return a, err
		}
	}
	return a, nil
}

// answer writes one JSON document.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, v any, err error) {
	var body []byte
	if err == nil {
		body, err = json.Marshal(v)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	web.Head(w.Header(), "application/json")
	_, _ = w.Write(append(body, '\n')) // the client has gone
}

// change runs a replay or discard and tells how far it is.
func (h *Handler) change(w http.ResponseWriter, r *http.Request, do func(context.Context, Filter, bool, func(Result)) (Result, error)) {
	a, err := readAsk(w, r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	go func() { // ends with the request
		select {
		case <-h.Closing:
			cancel(fault.Transient(errors.New("the server is being stopped; ask again, what is done is done")))
		case <-ctx.Done():
		}
	}()
	out := &lines{w: w, ctl: http.NewResponseController(w), gone: func(err error) { cancel(fmt.Errorf("send progress: %w", err)) }}
	res, err := do(ctx, a.Filter, a.DryRun, func(r Result) { out.write(Line{Progress: &r}) })
	switch {
	case err == nil:
		out.write(Line{Result: &res})
	case r.Context().Err() != nil:
		panic(http.ErrAbortHandler)
	case ctx.Err() != nil:
		err = context.Cause(ctx)
		fallthrough
	default:
		if !out.begun {
			h.fail(w, r, err)
			return
		}
		out.write(Line{Error: fault.Sentence(err)})
		panic(http.ErrAbortHandler) // a cut answer must not look whole
	}
}

// lineTimeout is how long a client may take to read a line: a change that nobody
// hears of ends.
const lineTimeout = time.Minute

// lines writes NDJSON; each line goes out at once.
type lines struct {
	w     http.ResponseWriter
	ctl   *http.ResponseController
	gone  func(error) // told when the client does not read
	begun bool
}

func (l *lines) write(v Line) {
	if !l.begun {
		l.begun = true
		web.Head(l.w.Header(), "application/x-ndjson")
	}
	b, err := json.Marshal(v)
	if err != nil {
		return
	}
	err = l.ctl.SetWriteDeadline(time.Now().Add(lineTimeout))
	if err == nil || errors.Is(err, http.ErrNotSupported) {
		if _, err = l.w.Write(append(b, '\n')); err == nil {
			err = l.ctl.Flush()
		}
	}
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		l.gone(err)
	}
	_ = l.ctl.SetWriteDeadline(time.Time{}) // for the next request of the connection
}

// fail answers with a problem document.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // the client has left
	}
	e := &web.Error{Detail: fault.Sentence(err), Err: err}
	var later *fault.RetryAfter
	var known *web.Error
	switch {
	case errors.As(err, &known):
		web.Fail(w, known)
		return
	case errors.Is(err, errAsk), errors.Is(err, errName):
		e.Status, e.Title = http.StatusBadRequest, "bad request"
	case errors.Is(err, ErrNone):
		e.Status, e.Title = http.StatusNotFound, "no such rejection"
	case errors.Is(err, query.ErrTooMany), errors.Is(err, query.ErrTimeout), fault.IsTransient(err), errors.Is(err, fault.ErrPoisoned):
		e.Status, e.Title, e.RetryAfter = http.StatusServiceUnavailable, "unavailable", time.Second
	default:
		h.Logger.Error("rejections", "error", err)
		e.Status, e.Title = http.StatusInternalServerError, "it went wrong"
	}
	if errors.As(err, &later) {
		e.RetryAfter = later.After
	}
	web.Fail(w, e)
}
