package app

import (
	"fmt"
	"log/slog"
	"time"

	"naru/internal/config"
	"naru/internal/obs"
	"naru/internal/stream/seglog"
	"naru/internal/vfs"
)

// openLog opens the embedded log and shows what it does in logs and metrics.
func openLog(fsys vfs.FS, folder config.Folder, cfg seglog.Config, reg *obs.Registry, h *health, logger *slog.Logger) (*seglog.Log, error) {
	if err := fsys.MkdirAll(folder.Log()); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	cfg.Listener = observe(reg, h, logger)
	return seglog.Open(fsys, folder.Log(), cfg, logger)
}

// observe makes the listener that feeds logs, metrics and health.
func observe(reg *obs.Registry, h *health, logger *slog.Logger) seglog.Listener {
	syncs := reg.Counter("naru_log_syncs_total", "Groups of frames written and synced.")
	frames := reg.Counter("naru_log_frames_total", "Frames written.")
	bytes := reg.Counter("naru_log_bytes_total", "Bytes of frames written.")
	seconds := reg.HistogramVec("naru_log_sync_seconds", "Time of fdatasync.").WithLabelValues()
	rolled := reg.Counter("naru_log_segments_total", "Segments begun.")
	retired := reg.CounterVec("naru_log_retired_bytes_total", "Bytes of segments dropped by retention.", "reason")
	torn := reg.Counter("naru_log_torn_bytes_total", "Bytes of torn tails moved aside at start.")
	free := reg.Gauge("naru_log_disk_full", "1 while the disk has less free space than log.reserve.")
	return seglog.Listener{
		Synced: func(n int, size int64, took time.Duration) {
			syncs.Inc()
			frames.Add(float64(n))
			bytes.Add(float64(size))
			seconds.Observe(took.Seconds())
		},
		Rolled: func(r seglog.SegmentRolled) {
			rolled.Inc()
			logger.Debug("segment sealed", slog.Uint64("sealed", r.Sealed), slog.Uint64("begun", r.Begun),
				slog.Int64("bytes", r.Bytes), slog.Bool("recycled", r.Recycled), slog.Duration("took", r.Took))
		},
		Recovered: func(r seglog.Recovery) {
			torn.Add(float64(r.Torn))
			attrs := []any{slog.Bool("new", r.New), slog.Uint64("segment", r.Segment), slog.Int("frames", r.Frames),
				slog.Int64("bytes", r.Bytes), slog.Int("copied", r.Copied), slog.Duration("took", r.Took)}
			if r.Torn > 0 {
				logger.Warn("the log had a torn tail; it was moved aside",
					append(attrs, slog.Int64("torn_bytes", r.Torn), slog.String("file", r.TornFile))...)
				return
			}
			logger.Info("log open", attrs...)
		},
		Retired: func(r seglog.SegmentRetired) {
			retired.WithLabelValues(r.Reason).Add(float64(r.Bytes))
			attrs := []any{slog.Uint64("segment", r.Segment), slog.Int64("bytes", r.Bytes), slog.String("reason", r.Reason)}
			if len(r.Unread) > 0 {
				logger.Warn("retention dropped a segment before it was read, as log.drop_unread allows", append(attrs, slog.Any("readers", r.Unread))...)
				return
			}
			logger.Info("retention dropped a segment", attrs...)
		},
		Full: func(full bool, left int64) {
			h.full.Store(full)
			if !full {
				free.Set(0)
				logger.Info("the disk has room again", slog.Int64("free_bytes", left))
				return
			}
			free.Set(1)
			logger.Error("the disk is nearly full: no events are taken", slog.Int64("free_bytes", left),
				slog.String("hint", "free space, or shorten log.retain_age or log.retain_bytes"))
		},
		Poisoned: h.poison,
	}
}
