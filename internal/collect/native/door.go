// Package native is naru's own front door, POST /v1/events: one JSON object, a
// JSON array or NDJSON, and CloudEvents in binary, structured and batched mode.
// DOOR.md says what it promises; docs/collect.md says it to users.
package native

import (
	"context"
	"net/http"
	"sync"
	"time"

	"naru/internal/collect"
	"naru/internal/event"
	"naru/internal/jsonscan"
	"naru/internal/web"
)

// Path is where the door is.
const Path = "/v1/events"

// ValidatePath is where events are judged and not stored.
const ValidatePath = "/v1/validate"

// DefaultSource is the source of plain events whose request names none.
const DefaultSource = Path

// Door is the handler.
type Door struct {
	engine  *collect.Engine
	metrics *collect.DoorMetrics
	dry     *collect.DoorMetrics // of ValidatePath
	plain   *fields              // by the configuration
	pool    sync.Pool
}

// New makes the door.
func New(e *collect.Engine) (*Door, error) {
	cfg := e.Config()
	f, err := newFields(cfg.TimeField, cfg.IDField)
	if err != nil {
		return nil, err
	}
	d := &Door{engine: e, metrics: e.Door("native"), dry: e.Door("validate"), plain: f}
	d.pool.New = func() any { return new(work) }
	return d, nil
}

// Register puts the door into mux, open to pages of all origins (web.CORS).
func (d *Door) Register(mux *web.Mux) {
	mux.Handle(Path, web.CORS(d), http.MethodPost, http.MethodOptions)
}

// ServeHTTP implements http.Handler.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	status := d.serve(w, r, false)
	d.metrics.Answered(status, time.Since(began))
}

// Validator is the handler of ValidatePath: it takes what the door takes, says of
// each event what the door would, and stores nothing.
func (d *Door) Validator() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		status := d.serve(w, r, true)
		d.dry.Answered(status, time.Since(began))
	})
}

// work is the scratch space of one request.
type work struct {
	req     *collect.Request
	params  params
	fields  *fields
	item    collect.Item
	lines   jsonscan.Lines
	array   jsonscan.Elements
	members jsonscan.Members
	ext     []event.Attr
	source  []byte // of plain events
	typ     []byte // of plain events when the request gives it, else nil
	timeBuf [80]byte
	typBuf  []byte
	idBuf   []byte
	out     []byte
}

// forget drops what points into the body, so that a pooled work keeps none alive.
func (wk *work) forget() {
	wk.req, wk.item = nil, collect.Item{}
	wk.lines.Reset(nil)
	wk.array.Reset(nil, 0)
	wk.members.Reset(nil, 0, 0)
	clear(wk.ext[:cap(wk.ext)])
	if cap(wk.out) > 1<<16 {
		wk.out = nil
	}
}

func (d *Door) serve(w http.ResponseWriter, r *http.Request, dry bool) int {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST, OPTIONS")
		return web.Fail(w, &web.Error{Status: http.StatusMethodNotAllowed, Title: "method not allowed", Detail: "send events with POST"})
	}
	wk := d.pool.Get().(*work)
	defer d.pool.Put(wk)
	if err := d.prepare(wk, r); err != nil {
		return web.Fail(w, err)
	}
	mode, err := readMode(r.Header)
	if err == nil && mode.isCloudEvents() {
		err = wk.params.forCloudEvents()
	}
	if err != nil {
		return web.Fail(w, err)
	}
	begin, metrics := d.engine.Begin, d.metrics
	if dry {
		begin, metrics = d.engine.DryRun, d.dry
	}
	req, err := begin(r.Context(), metrics, wk.params.stream)
	if err != nil {
		return web.Fail(w, err)
	}
	wk.req = req
	defer func() {
		wk.forget()
		req.Release()
	}()
	body, err := req.ReadBody(r)
	if err == nil {
		err = wk.take(mode, r.Header, body)
	}
	if err == nil && !dry {
		err = req.Append(r.Context())
	}
	if err != nil {
		return web.Fail(w, err)
	}
	if dry {
		return wk.report(w)
	}
	return wk.answer(w)
}

func (d *Door) prepare(wk *work, r *http.Request) error {
	p, err := readParams(r.URL.RawQuery)
	if err != nil {
		return err
	}
	wk.params, wk.fields = p, d.plain
	wk.source, wk.typ = defaultSource, nil
	if p.hasSrc {
		wk.source = []byte(p.source)
	}
	if p.hasType {
		wk.typ = []byte(p.typ)
	}
	if p.idField != "" && p.idField != d.plain.idName {
		// Rare: a table of 1 KB is made for the request.
		f, err := newFields(d.plain.timeName, p.idField)
		if err != nil {
			return badParam("id_field", err.Error())
		}
		wk.fields = f
	}
	return nil
}

// take reads the body's items into the request.
func (wk *work) take(m mode, h http.Header, body []byte) error {
	if m == binaryEvent {
		return wk.takeBinary(h, body)
	}
	if i := jsonscan.Space(body, jsonscan.SkipMark(body)); i == len(body) {
		return &web.Error{Status: http.StatusBadRequest, Title: "empty body", Detail: "the body has no event; send a JSON object, a JSON array of objects or NDJSON"}
	}
	switch m {
	case jsonLines:
		return wk.takeLines(body)
	case jsonText:
		return wk.takeJSON(body, false)
	case sniffed:
		return wk.takeJSON(body, true)
	case form:
		// curl -d says form of anything. A real form has neither bracket first.
		if c := body[jsonscan.Space(body, jsonscan.SkipMark(body))]; c != '{' && c != '[' {
			return unsupported("Content-Type is \"application/x-www-form-urlencoded\" and the body is not JSON")
		}
		return wk.takeJSON(body, true)
	case structuredEvent:
		return wk.takeStructured(body)
	default:
		return wk.takeBatch(body)
	}
}

var (
	jsonType    = []string{"application/json"}
	problemType = []string{web.ProblemType}
	noSniff     = []string{"nosniff"}
)

// answer tells what was stored: 200, or 422 when the client asked to be strict
// and every item was refused. With some stored it stays 200: a client that sent
// the request again for the sake of its status would store those twice.
func (wk *work) answer(w http.ResponseWriter) int {
	status := http.StatusOK
	out := append(wk.out[:0], '{')
	h := w.Header()
	h["Content-Type"] = jsonType
	h["X-Content-Type-Options"] = noSniff
	if wk.params.strict && wk.req.Rejected() > 0 && wk.req.Accepted() == 0 {
		status = http.StatusUnprocessableEntity
		h["Content-Type"] = problemType
		out = append(out, `"title": "every event was refused", "detail": "rejected says why, one by one; all are kept in the stream rejected; strict=1 asks for this status", "status": 422, `...)
	}
	out = wk.req.AppendResult(out)
	out = append(out, "}\n"...)
	wk.out = out
	w.WriteHeader(status)
	_, _ = w.Write(out) // the client has gone; its events are stored
	return status
}

// report tells what would have been stored: 200, or 422 when the client asked to
// be strict and something would be refused.
func (wk *work) report(w http.ResponseWriter) int {
	status := http.StatusOK
	out := append(wk.out[:0], '{')
	h := w.Header()
	h["Content-Type"] = jsonType
	h["X-Content-Type-Options"] = noSniff
	if wk.params.strict && wk.req.Invalid() > 0 {
		status = http.StatusUnprocessableEntity
		h["Content-Type"] = problemType
		out = append(out, `"title": "some events would be refused", "detail": "results says why, one by one; nothing was stored; strict=1 asks for this status", "status": 422, `...)
	}
	out = wk.req.AppendReport(out)
	out = append(out, "}\n"...)
	wk.out = out
	w.WriteHeader(status)
	_, _ = w.Write(out) // the client has gone
	return status
}

// Ready tells whether the door's log answers: the check behind /readyz.
func (d *Door) Ready(ctx context.Context) error { return d.engine.Ready(ctx) }
