package web

import (
	"errors"
	"net/http"
	"strconv"
	"time"
)

// Error is an answer that a handler wants to give: a problem document and what
// belongs in the headers beside it.
type Error struct {
	Status     int
	Title      string
	Detail     string        // the place and the cure
	RetryAfter time.Duration // of 429 and 503; rounded up to whole seconds, at least 1
	Close      bool          // the connection cannot be used again
	Err        error         // the cause, for the log
}

func (e *Error) Error() string {
	s := e.Title
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Fail answers with err: as it says when it is an *Error, else with 503,
// because what nobody classed may pass. It returns the status given.
func Fail(w http.ResponseWriter, err error) int {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Status: http.StatusServiceUnavailable, Title: "unavailable", Detail: err.Error() + "; send the request again"}
	}
	h := w.Header()
	if e.RetryAfter > 0 || e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", RetrySeconds(e.RetryAfter))
	}
	if e.Close {
		h.Set("Connection", "close")
	}
	Problem(w, e.Status, e.Title, e.Detail)
	return e.Status
}

// RetrySeconds writes d for Retry-After: whole seconds, rounded up, at least 1.
func RetrySeconds(d time.Duration) string {
	return strconv.FormatInt(int64(max(1, (d+time.Second-1)/time.Second)), 10)
}
