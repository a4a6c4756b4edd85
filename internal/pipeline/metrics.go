package pipeline

import (
	"context"

	"naru/internal/obs"
)

// Register shows the configured pipelines at every scrape.
func (c *Configured) Register(reg *obs.Registry) {
	labels := []string{"pipeline", "sink"}
	reg.Collect([]obs.Desc{
		{Name: "naru_pipeline_up", Help: "1 while a sink of a configured pipeline works, 0 while it tries again after an error or is paused.", Labels: labels},
		{Name: "naru_pipeline_lag_seconds", Help: "How long ago the oldest event was received that a sink has not committed; 0 at the end of the stream.", Labels: labels},
		{Name: "naru_pipeline_lag_events", Help: "Events of the stream that a sink has still to commit.", Labels: labels},
		{Name: "naru_pipeline_events_total", Help: "Events of the stream by what became of them at a sink: written, rejections, duplicates or filtered.", Labels: append(labels, "result"), Counter: true},
		{Name: "naru_pipeline_errors_total", Help: "Errors of a sink, each followed by another attempt.", Labels: labels, Counter: true},
		{Name: "naru_pipelines_broken", Help: "Files of pipelines/ that are not in force as they are now, because they are broken."},
	}, func(emit obs.Emit) {
		ctx, cancel := context.WithTimeout(context.Background(), reportTime)
		defer cancel()
		all, folder := c.Reports(ctx)
		broken := 0
		if folder != nil {
			broken++
		}
		for _, p := range all {
			if p.Broken != "" {
				broken++
			}
			for _, s := range p.Sinks {
				up := 0.0
				if s.State == Running {
					up = 1
				}
				emit("naru_pipeline_up", up, p.Name, s.Name)
				emit("naru_pipeline_lag_seconds", s.LagSeconds, p.Name, s.Name)
				emit("naru_pipeline_lag_events", float64(s.Lag), p.Name, s.Name)
				emit("naru_pipeline_errors_total", float64(s.Errors), p.Name, s.Name)
				for result, n := range map[string]int64{"written": s.Counts.Written, "rejections": s.Counts.Rejections, "duplicates": s.Counts.Duplicates, "filtered": s.Counts.Filtered} {
					emit("naru_pipeline_events_total", float64(n), p.Name, s.Name, result)
				}
			}
		}
		emit("naru_pipelines_broken", float64(broken))
	})
}
