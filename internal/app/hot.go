package app

import (
	"context"
	"log/slog"

	"naru/internal/config"
	"naru/internal/hottail"
	"naru/internal/lake"
	"naru/internal/lake/iceberg"
	"naru/internal/pipeline"
	"naru/internal/stream"
	"naru/internal/vfs"
)

// reading is what queries read of the lake, and what runs beside that.
type reading struct {
	lake.Tables
	hot *hottail.Tail // nil: queries see what is committed
}

// openReading makes queries see the log's newest events, unless that is turned
// off or nobody commits them (pipelines is nil).
func openReading(cfg hottail.Config, fsys vfs.FS, f config.Folder, log stream.Log, l *iceberg.Lake, pipelines *pipeline.Set, logger *slog.Logger) (*reading, error) {
	if pipelines == nil || cfg.Memory == 0 {
		return &reading{Tables: lake.Snapshots{Reader: l}}, nil
	}
	hot := hottail.New(cfg, hottail.Deps{FS: fsys, Dir: f.HotTail(), Log: log, Lake: l,
		Reader: func(stream string) string { return pipeline.DefaultPrefix + stream }, Flush: pipelines.Flush, Logger: logger})
	if err := hot.Open(); err != nil {
		return nil, err
	}
	return &reading{Tables: hot, hot: hot}, nil
}

func (r *reading) run(ctx context.Context) error {
	if r.hot == nil {
		return nil
	}
	return r.hot.Run(ctx)
}
