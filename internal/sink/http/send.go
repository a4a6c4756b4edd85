package http

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
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
	"naru/internal/sink"
)

// Pauses between attempts.
const (
	pauseMin = 500 * time.Millisecond
	pauseMax = 30 * time.Second
	// longestRetryAfter bounds what a target can ask for.
	longestRetryAfter = 15 * time.Minute
)

// answer is what the target said.
type answer struct {
	status     int
	body       []byte
	retryAfter time.Duration
}

func (a *answer) ok() bool { return a.status >= 200 && a.status <= 299 }

// passing tells whether the same request may be answered otherwise later.
func (a *answer) passing() bool {
	switch a.status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return a.status >= 500
}

// send sends rows until they are answered for: taken, refused, or dropped.
func (s *Sink) send(ctx context.Context, rows []one) error {
	a, err := s.deliver(ctx, rows)
	if err != nil {
		return err
	}
	switch {
	case a.ok():
		return nil
	case a.status == http.StatusRequestEntityTooLarge && len(rows) > 1:
		half := len(rows) / 2
		if err := s.send(ctx, rows[:half]); err != nil {
			return err
		}
		return s.send(ctx, rows[half:])
	case a.status == http.StatusBadRequest, a.status == http.StatusRequestEntityTooLarge, a.status == http.StatusUnprocessableEntity:
		if s.cfg.OnRefused == reject {
			detail := s.said(a)
			for _, r := range rows {
				s.refused = append(s.refused, sink.Refusal{At: r.at, Row: r.row, Detail: detail})
			}
			return nil
		}
		return fault.WithHint(s.fail(rows, errors.New(s.said(a))), "on_refused is stop: correct the steps or the target; on_refused: reject puts such rows among the rejections")
	}
	hint := "the target refuses the request itself, not its rows: correct url, method or headers of the sink"
	switch a.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		hint = "the target wants other credentials: see headers_env and hmac of the sink"
	case http.StatusNotFound, http.StatusGone:
		hint = "the target has nothing at this path: correct url of the sink"
	case http.StatusMethodNotAllowed:
		hint = "the target does not take this method: correct method or url of the sink"
	case http.StatusUnsupportedMediaType:
		hint = "the target does not take this format: see format, compress and headers (Content-Type) of the sink"
	}
	if a.status >= 300 && a.status <= 399 {
		hint = "redirects are not followed: set url of the sink to where the target is now"
	}
	return fault.WithHint(s.fail(rows, errors.New(s.said(a))), "%s", hint)
}

// deliver makes attempts until there is an answer that will not pass. After the
// last one, or when the target wants a long pause, the pipeline takes over.
func (s *Sink) deliver(ctx context.Context, rows []one) (*answer, error) {
	body, key, err := s.encode(rows)
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		a, err := s.post(ctx, body, key)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		pause := jitter(min(pauseMin<<min(attempt-1, 10), pauseMax))
		switch {
		case err != nil:
		case a.passing():
			err = errors.New(s.said(a))
			if a.retryAfter > 0 {
				pause = a.retryAfter
			}
		case a.ok() && s.cfg.Results:
			refused, rerr := s.results(a.body, rows)
			if rerr == nil {
				s.refused = append(s.refused, refused...)
				return a, nil
			}
			err = rerr
		default:
			return a, nil
		}
		err = s.fail(rows, err)
		if attempt >= s.cfg.Attempts || pause > pauseMax {
			if a != nil && a.retryAfter > 0 {
				return nil, &fault.RetryAfter{Err: err, After: a.retryAfter}
			}
			return nil, fault.Transient(err)
		}
		if err := s.cfg.wait(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// fail says which request had no success.
func (s *Sink) fail(rows []one, err error) error {
	return fmt.Errorf("send %d rows from %s to %s: %w", len(rows), rows[0].at, s.place, err)
}

// said is what an answer says, for people.
func (s *Sink) said(a *answer) string {
	const longest = 300
	text := string(a.body[:min(len(a.body), longest)])
	text = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, ""), func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
	if text == "" {
		return fmt.Sprintf("the target answers %d %s", a.status, http.StatusText(a.status))
	}
	return fmt.Sprintf("the target answers %d: %s", a.status, text)
}

// post makes one request.
func (s *Sink) post(ctx context.Context, body []byte, key string) (*answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.Timeout.Std(), fmt.Errorf("no answer within %s", s.cfg.Timeout))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, s.cfg.Method, s.url, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("make request: the url is not one") // err would show it
	}
	req.Header = s.header.Clone()
	req.Header.Set("Idempotency-Key", key)
	if s.secret != nil {
		req.Header.Set(s.cfg.HMAC.Header, sign(s.secret, time.Now(), body))
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, reason(ctx, err)
	}
	defer resp.Body.Close()
	a := &answer{status: resp.StatusCode, retryAfter: retryAfter(resp.Header, time.Now())}
	limit := int64(s.cfg.AnswerBytes)
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil && a.ok():
		return nil, fmt.Errorf("read answer: %w", reason(ctx, err)) // was it done? the rows' keys tell
	case int64(len(a.body)) > limit && a.ok() && s.cfg.Results:
		return nil, fmt.Errorf("read answer: it is longer than answer_bytes, %s", s.cfg.AnswerBytes)
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

// sign gives the header of the signature: "t=SECONDS,v1=HEX", HEX being the
// HMAC-SHA-256 of "SECONDS." and the body as it is sent. So Stripe signs webhooks:
// https://docs.stripe.com/webhooks#verify-manually.
func sign(secret []byte, now time.Time, body []byte) string {
	seconds := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(seconds + "."))
	mac.Write(body)
	return "t=" + seconds + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// retryAfter reads the header of that name, seconds or a date; 0: there is none.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Duration(min(max(n, 0), int64(longestRetryAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(at.Sub(now), 0), longestRetryAfter)
	}
	return 0
}

// jitter takes up to half away, so that those who were refused together do not come
// again together.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/2) }

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
