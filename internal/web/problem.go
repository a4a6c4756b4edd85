// Package web holds what every HTTP face of naru shares: errors as
// application/problem+json, bodies read within limits, guards against other
// sites, and the server with its time limits and its drain. It knows nothing
// about events.
package web

import (
	"net/http"
	"strconv"
	"unicode/utf8"
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
	h.Set("Content-Type", ProblemType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client has gone: nobody is left to tell
}

const hexDigits = "0123456789abcdef"

// AppendJSONString appends s as a JSON string, quotes included. What is not
// UTF-8 becomes U+FFFD, because JSON text must be UTF-8; the characters that
// HTML gives a meaning to are escaped, so that an error that quotes its input is
// harmless wherever it is shown.
func AppendJSONString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&' && c != 0x7f {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\ufffd"...)
			i++
			start = i
			continue
		}
		i += n
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
