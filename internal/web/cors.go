package web

import (
	"net/http"
	"strings"
)

// What the clients of event doors send and want to see.
const (
	corsMethods = "POST, GET, OPTIONS"
	corsHeaders = "Authorization, Content-Type, Content-Encoding, X-Retry-Count, AnonymousId, SP-Anonymous"
	corsExpose  = "Retry-After"
	corsMaxAge  = "3600"
)

// CORS lets pages of any origin post events to next: it answers preflight
// requests and names the caller's origin. It is for event doors only. Names of
// headers that a wildcard cannot cover beside credentials (PostHog-*, ce-*) are
// allowed as they are asked for.
func CORS(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		h := w.Header()
		if origin != "" {
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Allow-Credentials", "true")
			h.Set("Access-Control-Expose-Headers", corsExpose)
			h.Add("Vary", "Origin")
		}
		if r.Method != http.MethodOptions {
			next.ServeHTTP(w, r)
			return
		}
		if origin != "" {
			h.Set("Access-Control-Allow-Methods", corsMethods)
			h.Set("Access-Control-Allow-Headers", corsHeaders+asked(r.Header.Get("Access-Control-Request-Headers")))
			h.Set("Access-Control-Max-Age", corsMaxAge)
			h.Add("Vary", "Access-Control-Request-Headers")
		}
		h.Set("Allow", "POST, OPTIONS")
		w.WriteHeader(http.StatusNoContent)
	})
}

// asked picks the names of families that are allowed from what a browser asks for.
func asked(list string) string {
	var b strings.Builder
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		low := strings.ToLower(name)
		if (strings.HasPrefix(low, "posthog-") || strings.HasPrefix(low, "ce-")) && isToken(name) && b.Len() < 2048 {
			b.WriteString(", ")
			b.WriteString(name)
		}
	}
	return b.String()
}

func isToken(s string) bool {
	for _, c := range []byte(s) {
		if c != '-' && c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return s != ""
}
