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

// openLog opens the embedded log and shows in metrics what it does.
func openLog(fsys vfs.FS, folder config.Folder, cfg seglog.Config, reg *obs.Registry, h *health, logger *slog.Logger) (*seglog.Log, error) {
	if err := fsys.MkdirAll(folder.Log()); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	cfg.Listener = observe(reg, h)
	return seglog.Open(fsys, folder.Log(), cfg, logger)
}

// observe makes the listener that feeds metrics and health; the log itself
// writes what people should read.
func observe(reg *obs.Registry, h *health) seglog.Listener {
	syncs := reg.Counter("naru_log_syncs_total", "Groups of frames written and synced.")
	frames := reg.Counter("naru_log_frames_total", "Frames written.")
	bytes := reg.Counter("naru_log_bytes_total", "Bytes of frames written.")
	seconds := reg.HistogramVec("naru_log_sync_seconds", "Time of fdatasync.").WithLabelValues()
	rolled := reg.Counter("naru_log_segments_total", "Segments begun.")
	retired := reg.CounterVec("naru_log_retired_bytes_total", "Bytes of segments dropped by retention.", "reason")
	torn := reg.Counter("naru_log_torn_bytes_total", "Bytes of torn tails moved aside at start.")
	full := reg.Gauge("naru_log_disk_full", "1 while the disk has less free space than log.reserve.")
	return seglog.Listener{
		Synced: func(n int, size int64, took time.Duration) {
			syncs.Inc()
			frames.Add(float64(n))
			bytes.Add(float64(size))
			seconds.Observe(took.Seconds())
		},
		Rolled:    func(seglog.SegmentRolled) { rolled.Inc() },
		Recovered: func(r seglog.Recovery) { torn.Add(float64(r.Torn)) },
		Retired:   func(r seglog.SegmentRetired) { retired.WithLabelValues(r.Reason).Add(float64(r.Bytes)) },
		Full: func(is bool, _ int64) {
			h.full.Store(is)
			if full.Set(0); is {
				full.Set(1)
			}
		},
		Poisoned: h.poison,
	}
}
