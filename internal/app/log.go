package app

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
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
	if gone, err := logGone(fsys, folder); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	} else if gone {
		logger.Warn("a new log begins beside tables of an earlier one: what that one had and they have not is lost", slog.String("log", folder.Log()),
			slog.String("hint", "if the log should be there, stop naru and bring it back; naru verify names the rows whose log is gone"))
	}
	cfg.Listener = observe(reg, h)
	return seglog.Open(fsys, folder.Log(), cfg, logger)
}

// logGone tells whether there are tables, but no log that they came from.
func logGone(fsys vfs.FS, folder config.Folder) (bool, error) {
	names, err := fsys.List(folder.Log())
	if err != nil || slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, ".seg") }) {
		return false, err
	}
	_, err = fsys.Stat(filepath.Join(folder.Data(), "lake", "claims.json")) // the first table's claim
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
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
