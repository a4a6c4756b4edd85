package app

import (
	"context"
	"net/http"
	"time"

	"naru/internal/collect/native"
	"naru/internal/contract"
	"naru/internal/dedupe"
	"naru/internal/lake"
	"naru/internal/obs"
	"naru/internal/pipeline"
	"naru/internal/query"
	"naru/internal/rejection"
	"naru/internal/serve/sql"
	"naru/internal/serve/status"
	"naru/internal/serve/tail"
	"naru/internal/sink/table"
	"naru/internal/stream"
	"naru/internal/vfs"
	"naru/internal/web"
)

// faces is what the server shows over HTTP.
type faces struct {
	options    Options
	folder     *holding
	fs         vfs.FS
	log        stream.Log
	lake       lake.Reader
	engine     query.Engine
	door       *native.Door
	contracts  *contract.Folder
	rejected   *rejection.Handler
	pipelines  *pipeline.Set // nil when none run
	configured *pipeline.Configured
	tables     *table.Tables
	judge      *dedupe.Judge // nil when none runs
	health     *health
	registry   *obs.Registry
	closing    chan struct{}
	started    time.Time
	url        string
}

// routes lists every path. Event doors are open to pages of all origins;
// everything else is guarded against other sites (DOOR, "Other sites").
func (f *faces) routes() http.Handler {
	logger := f.options.Logger
	cfg := f.options.Config
	report := f.report()
	status.Register(f.registry, report, logger)
	if f.configured != nil {
		f.configured.Register(f.registry)
	}
	guard := web.NewGuard(cfg.Listen.Hosts...)
	mux := &web.Mux{}

	f.door.Register(mux) // POST /v1/events
	mux.Handle(native.ValidatePath, guard.Wrap(f.door.Validator()), http.MethodPost)
	mux.Handle("/v1/sql", guard.Wrap(sql.Handler(f.engine, cfg.Query.Door(), logger)), http.MethodPost)
	mux.Handle(status.Path, guard.Wrap(status.Handler(report, logger)), http.MethodGet)
	mux.Handle(rejection.Path, guard.Wrap(f.rejected), http.MethodGet)
	mux.Handle(rejection.ReplayPath, guard.Wrap(f.rejected), http.MethodPost)
	mux.Handle(rejection.DiscardPath, guard.Wrap(f.rejected), http.MethodPost)
	mux.HandlePrefix(rejection.Path+"/", guard.Wrap(f.rejected), http.MethodGet) // one rejection
	mux.HandlePrefix(tail.Prefix, guard.Wrap(tail.New(cfg.Tail, f.log, f.closing, logger)), http.MethodGet)
	lines := guard.Wrap(&pipeline.Handler{Configured: f.configured, Logger: logger})
	mux.Handle(pipeline.Path, lines, http.MethodGet)
	mux.HandlePrefix(pipeline.Path+"/", lines, http.MethodGet, http.MethodPost) // one pipeline, and what changes it
	mux.Handle("/healthz", guard.Wrap(web.Healthz()), http.MethodGet)
	mux.Handle("/readyz", guard.Wrap(web.Readyz(
		web.Check{Name: "log", Ready: f.health.ready},
		web.Check{Name: "door", Ready: f.door.Ready},
	)), http.MethodGet)
	mux.Handle("/metrics", guard.Wrap(f.registry.Handler()), http.MethodGet)
	mux.Handle("/", guard.Wrap(page(f.options.Version)), http.MethodGet)
	return mux
}

// report is what /v1/status and the stream metrics are made of.
func (f *faces) report() *status.Source {
	s := &status.Source{
		Version: f.options.Version, Started: f.started, Log: f.log, Lake: f.lake,
		Unready:   func() error { return f.health.ready(context.Background()) },
		Contracts: func() status.Contracts { return contractStatus(f.contracts) },
		Folder: func() status.Folder {
			free, err := f.fs.Free(f.folder.Data())
			if err != nil {
				free = -1 // cannot be told
			}
			return status.Folder{ID: f.folder.ID, Root: string(f.folder.Folder), Free: free}
		},
	}
	if f.judge != nil {
		s.Dedupe = f.dedupe
	}
	if f.pipelines != nil {
		s.Pipelines = func() []status.Pipeline { return pipelineStatus(f.pipelines, f.configured) }
		s.Pending = func() []status.Pending {
			open := f.tables.Status()
			out := make([]status.Pending, len(open))
			for i, t := range open {
				out[i] = status.Pending{Table: t.Table, Rows: t.Rows, Since: t.Since, Error: t.Error, Hint: t.Hint}
			}
			return out
		}
	}
	return s
}
