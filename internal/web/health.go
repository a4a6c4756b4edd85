package web

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// Check asks one part of the process whether it can do its work. It must be
// quick; its context ends after a second.
type Check struct {
	Name  string
	Ready func(context.Context) error
}

// Healthz answers that the process is alive.
func Healthz() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeStatus(w, http.StatusOK, []byte("{\"status\": \"ok\"}\n"))
	})
}

// Readyz answers whether events can be taken: 200, or 503 with the reasons.
func Readyz(checks ...Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		var reasons []byte
		for _, c := range checks {
			err := c.Ready(ctx)
			if err == nil {
				continue
			}
			if reasons != nil {
				reasons = append(reasons, ", "...)
			}
			reasons = append(reasons, `{"check": `...)
			reasons = AppendJSONString(reasons, c.Name)
			reasons = append(reasons, `, "reason": `...)
			reasons = AppendJSONString(reasons, err.Error())
			reasons = append(reasons, '}')
		}
		if reasons == nil {
			writeStatus(w, http.StatusOK, []byte("{\"status\": \"ready\", \"reasons\": []}\n"))
			return
		}
		w.Header().Set("Retry-After", "1")
		body := append([]byte(`{"status": "not ready", "reasons": [`), reasons...)
		writeStatus(w, http.StatusServiceUnavailable, append(body, "]}\n"...))
	})
}

func writeStatus(w http.ResponseWriter, status int, body []byte) {
	Head(w.Header(), "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
