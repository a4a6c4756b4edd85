package app

import (
	"context"
	"log/slog"
	"time"

	"naru/internal/config"
	"naru/internal/dedupe"
	"naru/internal/serve/status"
	"naru/internal/stream"
	"naru/internal/vfs"
)

// openJudge makes the judge of duplicates, and the log as those see it who load it.
// The judge is nil when it is turned off or nothing is loaded: what is on record by
// then holds.
func openJudge(ctx context.Context, fsys vfs.FS, f config.Folder, o Options, log stream.Log, logger *slog.Logger) (*dedupe.Judge, *dedupe.Log, error) {
	if !o.Config.Dedupe.Enabled {
		return nil, dedupe.Recorded(log), nil
	}
	j := dedupe.New(o.Config.Dedupe, dedupe.Deps{FS: fsys, Dir: f.Dedupe(), Log: log, Logger: logger, Partitions: o.Config.Collect.Partitions})
	if err := j.Open(ctx); err != nil {
		return nil, nil, err
	}
	if !o.Pipelines {
		return nil, dedupe.Recorded(log), nil // it is judged when it is loaded
	}
	return j, j.Log(), nil
}

// patience is how long a query waits for verdicts on the newest events; then it sees
// what is committed. It is far more than a judge at work takes.
const patience = 2 * time.Second

// dedupe is what the status shows of the judge.
func (f *faces) dedupe() []status.Dedupe {
	all := f.judge.Status()
	out := make([]status.Dedupe, len(all))
	for i, s := range all {
		out[i] = status.Dedupe{Stream: s.Stream, Found: s.Duplicates, Conflicts: s.Conflicts, IDs: s.IDs, Disk: s.Disk, Memory: s.Memory,
			Window: s.Window, Configured: f.options.Config.Dedupe.Window.Std().Seconds(), Error: s.Error, Hint: s.Hint}
	}
	return out
}
