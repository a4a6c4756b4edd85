package status

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"

	"naru/internal/web"
)

// Path of the report.
const Path = "/v1/status"

// Handler answers with the report as JSON.
func Handler(s *Source, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		report, err := s.Report(r.Context())
		var body []byte
		if err == nil {
			body, err = json.MarshalIndent(report, "", "  ")
		}
		if err != nil {
			if r.Context().Err() == nil {
				log.Warn("no status", slog.Any("error", err))
			}
			web.Fail(w, fmt.Errorf("report status: %w", err))
			return
		}
		body = append(body, '\n')
		web.Head(w.Header(), "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body) // the client may have gone
	})
}
