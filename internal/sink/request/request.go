// Package request is how sinks ask targets that speak HTTP: one request with its
// answer, and attempts with pauses between them while the answer may pass.
package request

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"naru/internal/fault"
	"naru/internal/quantity"
)

// Pauses between attempts.
const (
	pauseMin = 500 * time.Millisecond
	pauseMax = 30 * time.Second
	// LongestRetryAfter bounds what a target can ask for.
	LongestRetryAfter = 15 * time.Minute
)

// Answer is what a target says.
type Answer struct {
	Status     int
	Body       []byte
	Cut        error         // why Body is not all of it; nil: it is. fault.ErrLimit: it was too long
	RetryAfter time.Duration // what the target asks for; 0: nothing
}

// OK tells whether the target has taken the request.
func (a *Answer) OK() bool { return a.Status >= 200 && a.Status <= 299 }

// Passing tells whether the same may be answered otherwise later.
func Passing(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status >= 500
}

// NewClient makes a client that follows no redirects: they would send rows, and headers
// with secrets, to a place that nobody has named.
func NewClient(transport http.RoundTripper) *http.Client {
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// Do makes one request, which with its answer takes timeout at most, and reads up to
// longest bytes of the answer. An error never shows the URL, which may be a secret.
func Do(client *http.Client, req *http.Request, timeout quantity.Duration, longest int64) (*Answer, error) {
	ctx, cancel := context.WithTimeoutCause(req.Context(), timeout.Std(), fmt.Errorf("no answer within %s", timeout))
	defer cancel()
	resp, err := client.Do(req.WithContext(ctx))
	if err != nil {
		return nil, reason(ctx, err)
	}
	defer resp.Body.Close()
	a := &Answer{Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header, time.Now())}
	a.Body, err = io.ReadAll(io.LimitReader(resp.Body, longest+1))
	switch {
	case err != nil:
		a.Cut = fmt.Errorf("read answer: %w", reason(ctx, err))
	case int64(len(a.Body)) > longest:
		a.Body, a.Cut = a.Body[:longest], fmt.Errorf("read answer: it is longer than %d bytes: %w", longest, fault.ErrLimit)
	}
	return a, nil
}

// reason is why a request had no answer, without its URL.
func reason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// retryAfter reads the header of that name, seconds or a date; 0: there is none.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Duration(min(max(n, 0), int64(LongestRetryAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(at.Sub(now), 0), LongestRetryAfter)
	}
	return 0
}

// Short makes what a target says fit for a line.
func Short(text string) string {
	const longest = 500
	text = strings.ToValidUTF8(text[:min(len(text), longest)], "")
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
}

// Attempts are made until one succeeds or fails for good.
type Attempts struct {
	Most int
	Wait func(context.Context, time.Duration) error // nil: the pauses take their time
}

// Until calls try again while its error is transient. after, if not 0, is the pause that
// the target asks for. The error of the last attempt is returned, and so is one behind
// which the target wants a longer pause than 30 s (fault.RetryAfter): the pipeline
// takes over. When ctx ends, so do the attempts, with its cause.
func (a Attempts) Until(ctx context.Context, try func() (after time.Duration, err error)) error {
	for attempt := 1; ; attempt++ {
		after, err := try()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !fault.IsTransient(err) {
			return err
		}
		pause := jitter(min(pauseMin<<min(attempt-1, 10), pauseMax))
		if after > 0 {
			pause = after
		}
		if attempt >= a.Most || pause > pauseMax {
			if after > 0 {
				return &fault.RetryAfter{Err: err, After: after}
			}
			return err
		}
		wait := a.Wait
		if wait == nil {
			wait = rest
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

// jitter takes up to half away, so that those who were refused together do not come
// again together.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/2) }

func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
