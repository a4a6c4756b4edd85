package app

import (
	"context"
	"log/slog"
	"sync/atomic"

	"naru/internal/config"
	"naru/internal/hottail"
	"naru/internal/lake"
	"naru/internal/lake/iceberg"
	"naru/internal/obs"
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
		Reader: func(stream string) string { return pipeline.Reader(stream) }, Flush: pipelines.Flush, Logger: logger})
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

// register shows what the hot tail does at every scrape.
func (r *reading) register(reg *obs.Registry) {
	if r.hot == nil {
		return
	}
	c := r.hot.Counts()
	reg.Collect(
		[]obs.Desc{
			{Name: "naru_hot_tail_bytes", Help: "Column buffers and files of rows that queries see before their commit (hot_tail.memory)."},
			{Name: "naru_hot_tail_rows_total", Help: "Rows read from the log for queries.", Counter: true},
			{Name: "naru_hot_tail_files_total", Help: "Small files written for queries.", Counter: true},
			{Name: "naru_hot_tail_flushes_total", Help: "Commits that queries asked for, since hot_tail.memory did not hold what is not committed.", Counter: true},
			{Name: "naru_hot_tail_behind_total", Help: "Queries that saw less than all acknowledged events, since the loader was too far behind (hot_tail.events) or its commit did not help.", Counter: true},
			{Name: "naru_hot_tail_failed_total", Help: "Queries that saw what is committed alone, since the hot tail could not be read or written.", Counter: true},
		},
		func(emit obs.Emit) {
			emit("naru_hot_tail_bytes", float64(r.hot.Bytes()))
			for name, n := range map[string]*atomic.Int64{"rows": &c.Rows, "files": &c.Files, "flushes": &c.Flushes, "behind": &c.Behind, "failed": &c.Failed} {
				emit("naru_hot_tail_"+name+"_total", float64(n.Load()))
			}
		})
}
