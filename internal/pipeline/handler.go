package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"naru/internal/fault"
	"naru/internal/web"
)

// Paths of the handler: all pipelines; one is Path/NAME, and what changes it stands
// behind its name.
const Path = "/v1/pipelines"

// List is the answer that shows all pipelines.
type List struct {
	Pipelines []Report `json:"pipelines"`
	// Broken is why the folder pipelines/ cannot be read; what is in force goes on.
	Broken string `json:"broken,omitempty"`
}

// Handler serves pipelines over HTTP.
type Handler struct {
	Configured *Configured // nil: this server runs none
	Logger     *slog.Logger
}

// reportTime bounds what a report or a scrape waits for the log.
const reportTime = 5 * time.Second

// errMethod: the path is there, for another method.
var errMethod = errors.New("method not allowed")

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.Configured == nil {
		web.Problem(w, http.StatusConflict, "no pipelines run", "the server was started with --no-pipelines")
		return
	}
	name, action, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, Path), "/"), "/")
	get := r.Method == http.MethodGet || r.Method == http.MethodHead
	var v any
	var err error
	switch {
	case name == "" && action == "":
		v = h.list(r.Context())
	case rereading(action):
		v, err = h.reread(w, r, name, action, get)
	case action == "" && !get, action != "" && get:
		err = errMethod
	case action == "":
		v, err = h.one(r.Context(), name)
	case action == "pause", action == "resume":
		if err = h.Configured.Pause(name, action == "pause"); err == nil {
			v, err = h.one(r.Context(), name)
		}
	default:
		web.Problem(w, http.StatusNotFound, "no such path", "a pipeline has "+Path+"/NAME/pause, resume, rewind, backfill and backfill/cancel")
		return
	}
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

func (h *Handler) list(ctx context.Context) List {
	ctx, cancel := context.WithTimeout(ctx, reportTime)
	defer cancel()
	all, broken := h.Configured.Reports(ctx)
	l := List{Pipelines: all}
	if l.Pipelines == nil {
		l.Pipelines = []Report{}
	}
	if broken != nil {
		l.Broken = broken.Error()
	}
	return l
}

func (h *Handler) one(ctx context.Context, name string) (Report, error) {
	ctx, cancel := context.WithTimeout(ctx, reportTime)
	defer cancel()
	return h.Configured.Report(ctx, name)
}

// fail answers with a problem document.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := &web.Error{Detail: fault.Sentence(err), Err: err}
	switch {
	case errors.Is(err, errMethod):
		e.Status, e.Title, e.Detail = http.StatusMethodNotAllowed, "method not allowed", "a pipeline is read with GET; what changes it wants POST"
	case errors.Is(err, ErrNoPipeline):
		e.Status, e.Title = http.StatusNotFound, "no such pipeline"
	case errors.Is(err, errBody):
		e.Status, e.Title = http.StatusBadRequest, "bad request"
	case errors.Is(err, ErrAsk):
		e.Status, e.Title = http.StatusConflict, "this cannot be done"
	case errors.Is(err, ErrBroken):
		e.Status, e.Title = http.StatusConflict, "the pipeline is broken"
	case fault.IsTransient(err), errors.Is(err, fault.ErrPoisoned):
		e.Status, e.Title, e.RetryAfter = http.StatusServiceUnavailable, "unavailable", time.Second
	default:
		h.Logger.Error("pipelines", slog.String("path", r.URL.Path), slog.Any("error", err))
		e.Status, e.Title = http.StatusInternalServerError, "it went wrong"
	}
	web.Fail(w, e)
}
