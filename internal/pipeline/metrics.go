package pipeline

import (
	"context"
	"sync"

	"naru/internal/obs"
	"naru/internal/stream"
)

// Register shows the configured pipelines at every scrape.
func (c *Configured) Register(reg *obs.Registry) {
	labels := []string{"pipeline", "sink"}
	var mu sync.Mutex
	shown := map[string]*tally{} // by reader
	reg.Collect([]obs.Desc{
		{Name: "naru_pipeline_up", Help: "1 while a sink of a configured pipeline works, 0 while it tries again after an error or is paused.", Labels: labels},
		{Name: "naru_pipeline_lag_seconds", Help: "How long ago the oldest event was received that a sink has not committed; 0 at the end of the stream.", Labels: labels},
		{Name: "naru_pipeline_lag_events", Help: "Events of the stream that a sink has still to commit.", Labels: labels},
		{Name: "naru_pipeline_events_total", Help: "Events of the stream by what became of them at a sink: written, rejections, duplicates or filtered.", Labels: append(labels, "result"), Counter: true},
		{Name: "naru_pipeline_errors_total", Help: "Errors of a sink, each followed by another attempt.", Labels: labels, Counter: true},
		{Name: "naru_pipeline_backfill_events", Help: "Events that the backfill of a sink has read, and those that it has still to read. While none goes on there is no value.", Labels: append(labels, "state")},
		{Name: "naru_pipelines_broken", Help: "Files of pipelines/ that are not in force as they are now, because they are broken."},
	}, func(emit obs.Emit) {
		ctx, cancel := context.WithTimeout(context.Background(), reportTime)
		defer cancel()
		// Held while reports are made: of two scrapes at once the older counts would
		// come second, and look like a rewind.
		mu.Lock()
		defer mu.Unlock()
		all, folder := c.Reports(ctx)
		before := shown
		shown = map[string]*tally{}
		broken := 0
		if folder != nil {
			broken++
		}
		for _, p := range all {
			if p.Broken != "" {
				broken++
			}
			for _, b := range p.Backfills {
				emit("naru_pipeline_backfill_events", float64(b.Done), p.Name, b.Sink, "read")
				emit("naru_pipeline_backfill_events", float64(max(b.Of-b.Done, 0)), p.Name, b.Sink, "left")
			}
			for _, s := range p.Sinks {
				reader := sinkReader(p.Name, s.Name)
				t := before[reader]
				if t == nil {
					t = &tally{}
				}
				shown[reader] = t
				if s.Positions != nil { // else nothing is known of its counts
					t.see(s.Counts)
				}
				counts := t.total()
				up := 0.0
				if s.State == Running {
					up = 1
				}
				emit("naru_pipeline_up", up, p.Name, s.Name)
				emit("naru_pipeline_lag_seconds", s.LagSeconds, p.Name, s.Name)
				emit("naru_pipeline_lag_events", float64(s.Lag), p.Name, s.Name)
				emit("naru_pipeline_errors_total", float64(s.Errors), p.Name, s.Name)
				for result, n := range map[string]int64{"written": counts.Written, "rejections": counts.Rejections, "duplicates": counts.Duplicates, "filtered": counts.Filtered} {
					emit("naru_pipeline_events_total", float64(n), p.Name, s.Name, result)
				}
			}
		}
		emit("naru_pipelines_broken", float64(broken))
	})
}

// tally makes counters of counts that begin anew with a rewind: what is shown never goes
// back while the server runs, and goes up by the events that are read again.
type tally struct{ base, last stream.Counts }

// see takes the counts as they are now.
func (t *tally) see(now stream.Counts) {
	if now.Written < t.last.Written || now.Rejections < t.last.Rejections || now.Duplicates < t.last.Duplicates || now.Filtered < t.last.Filtered {
		t.base = t.total().Minus(now)
	}
	t.last = now
}

func (t *tally) total() stream.Counts { return t.base.Plus(t.last) }
