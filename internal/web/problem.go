// Package web holds what every HTTP face of naru shares: errors as
// application/problem+json, bodies read within limits, guards against other
// sites, and the server with its time limits and its drain. It knows nothing
// about events.
package web

import (
	"net/http"
	"strconv"

	"naru/internal/jsonscan"
)

// ProblemType is the media type of every error answer (RFC 9457).
const ProblemType = "application/problem+json"

// Problem answers with status and a problem document: {"title", "detail",
// "status"}. title says what is wrong in a few words, detail names the place and
// the cure. A body that was already begun cannot be turned into a problem: the
// caller must not have written anything yet.
func Problem(w http.ResponseWriter, status int, title, detail string) {
	body := make([]byte, 0, 64+len(title)+len(detail))
	body = append(body, `{"title": `...)
	body = AppendJSONString(body, title)
	body = append(body, `, "detail": `...)
	body = AppendJSONString(body, detail)
	body = append(body, `, "status": `...)
	body = strconv.AppendInt(body, int64(status), 10)
	body = append(body, "}\n"...)

	h := w.Header()
	Head(h, ProblemType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client has gone: nobody is left to tell
}

// Head sets the headers of an answer: what it is, which nobody is to guess otherwise,
// and that it is for the asker alone, not for caches.
func Head(h http.Header, media string) {
	h.Set("Content-Type", media)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
}

// AppendJSONString appends s as a JSON string, quotes included, in which not even
// HTML finds anything to do (jsonscan.AppendQuotedHTML).
func AppendJSONString(dst []byte, s string) []byte { return jsonscan.AppendQuotedHTML(dst, s) }
