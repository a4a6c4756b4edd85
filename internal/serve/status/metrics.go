package status

import (
	"context"
	"log/slog"
	"time"

	"naru/internal/obs"
)

// scrapeTime bounds what a scrape waits for the log.
const scrapeTime = 5 * time.Second

// Register shows the terms of the equation at every scrape.
func Register(reg *obs.Registry, s *Source, log *slog.Logger) {
	reg.Collect(
		[]obs.Desc{
			{Name: "naru_stream_acknowledged_total", Help: "Events acknowledged for a stream, refused ones included.", Labels: []string{"stream"}, Counter: true},
			{Name: "naru_stream_events_total", Help: "Events of a stream by what became of them in a pipeline: written, rejected, duplicate, filtered, dropped_unread (by retention: log.drop_unread) or lost (by a repair of the log).",
				Labels: []string{"stream", "pipeline", "fate"}, Counter: true},
			{Name: "naru_stream_not_yet_written", Help: "Events of a stream that a pipeline has still to write.", Labels: []string{"stream", "pipeline"}},
			{Name: "naru_stream_cut", Help: "Events of a stream that a pipeline had written before a repair cut them off the log; no term of the equation has them.", Labels: []string{"stream", "pipeline"}},
			{Name: "naru_stream_balanced", Help: "1 while acknowledged = written + rejected + duplicate + filtered + dropped unread + lost + not yet written, else 0.", Labels: []string{"stream", "pipeline"}},
			{Name: "naru_stream_lag_seconds", Help: "Age of the oldest row of a stream that waits for its commit.", Labels: []string{"stream"}},
			{Name: "naru_dedupe_window_seconds", Help: "For how long back ids are known: dedupe.window, or less when the index is full (dedupe.index).", Labels: []string{"stream"}},
			{Name: "naru_dedupe_duplicates_total", Help: "Events that were judged to be duplicates.", Labels: []string{"stream"}, Counter: true},
			{Name: "naru_dedupe_id_conflicts_total", Help: "Events that were kept although their id was there before: their bytes are others.", Labels: []string{"stream"}, Counter: true},
			{Name: "naru_dedupe_ids", Help: "Ids remembered.", Labels: []string{"stream"}},
			{Name: "naru_dedupe_disk_bytes", Help: "Bytes of the files of ids (dedupe.index).", Labels: []string{"stream"}},
			{Name: "naru_dedupe_memory_bytes", Help: "Memory that finding ids takes.", Labels: []string{"stream"}},
			{Name: "naru_stream_bytes", Help: "Bytes of a stream in the log, roughly.", Labels: []string{"stream"}},
		},
		func(emit obs.Emit) {
			ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
			defer cancel()
			streams, err := s.Streams(ctx)
			if err != nil {
				log.Warn("no stream metrics", slog.Any("error", err))
				return
			}
			last := ""
			for _, st := range streams {
				if st.Stream != last { // once a stream, however many pipelines it has
					emit("naru_stream_acknowledged_total", float64(st.Acknowledged), st.Stream)
					emit("naru_stream_lag_seconds", st.Lag, st.Stream)
					emit("naru_stream_bytes", float64(st.Bytes), st.Stream)
					if d := st.Dedupe; d != nil {
						emit("naru_dedupe_window_seconds", d.Window, st.Stream)
						emit("naru_dedupe_duplicates_total", float64(d.Found), st.Stream)
						emit("naru_dedupe_id_conflicts_total", float64(d.Conflicts), st.Stream)
						emit("naru_dedupe_ids", float64(d.IDs), st.Stream)
						emit("naru_dedupe_disk_bytes", float64(d.Disk), st.Stream)
						emit("naru_dedupe_memory_bytes", float64(d.Memory), st.Stream)
					}
					last = st.Stream
				}
				balanced := 0.0
				if st.Balanced {
					balanced = 1
				}
				emit("naru_stream_not_yet_written", float64(st.NotYetWritten), st.Stream, st.Pipeline)
				emit("naru_stream_cut", float64(st.Cut), st.Stream, st.Pipeline)
				emit("naru_stream_balanced", balanced, st.Stream, st.Pipeline)
				for fate, n := range map[string]int64{"written": st.Written, "rejected": st.Rejections, "duplicate": st.Duplicates, "filtered": st.Filtered, "dropped_unread": st.DroppedUnread, "lost": st.Lost} {
					emit("naru_stream_events_total", float64(n), st.Stream, st.Pipeline, fate)
				}
			}
		})
}
