package http

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"naru/internal/fault"
	"naru/internal/sink"
	"naru/internal/sink/request"
)

// send sends rows until they are answered for: taken, refused, or dropped.
func (s *Sink) send(ctx context.Context, rows []one) error {
	a, err := s.deliver(ctx, rows)
	if err != nil {
		return err
	}
	switch {
	case a.OK():
		return nil
	case a.Status == http.StatusRequestEntityTooLarge && len(rows) > 1:
		half := len(rows) / 2
		if err := s.send(ctx, rows[:half]); err != nil {
			return err
		}
		return s.send(ctx, rows[half:])
	case a.Status == http.StatusBadRequest, a.Status == http.StatusRequestEntityTooLarge, a.Status == http.StatusUnprocessableEntity:
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
	switch a.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		hint = "the target wants other credentials: see headers_env and hmac of the sink"
	case http.StatusNotFound, http.StatusGone:
		hint = "the target has nothing at this path: correct url of the sink"
	case http.StatusMethodNotAllowed:
		hint = "the target does not take this method: correct method or url of the sink"
	case http.StatusUnsupportedMediaType:
		hint = "the target does not take this format: see format, compress and headers (Content-Type) of the sink"
	}
	if a.Status >= 300 && a.Status <= 399 {
		hint = "redirects are not followed: set url of the sink to where the target is now"
	}
	return fault.WithHint(s.fail(rows, errors.New(s.said(a))), "%s", hint)
}

// deliver makes attempts until there is an answer that will not pass. After the
// last one, or when the target wants a long pause, the pipeline takes over.
func (s *Sink) deliver(ctx context.Context, rows []one) (a *request.Answer, err error) {
	body, key, err := s.encode(rows)
	if err != nil {
		return nil, err
	}
	err = request.Attempts{Most: s.cfg.Attempts, Wait: s.cfg.wait}.Until(ctx, func() (after time.Duration, err error) {
		a, err = s.post(ctx, body, key)
		switch {
		case err != nil:
		case request.Passing(a.Status):
			after, err = a.RetryAfter, errors.New(s.said(a))
		case a.OK() && s.cfg.Results:
			var refused []sink.Refusal
			if refused, err = s.results(a.Body, rows); err == nil {
				s.refused = append(s.refused, refused...)
			}
		}
		return after, fault.Transient(s.fail(rows, err))
	})
	return a, err
}

// fail says which request had no success; nil: it had.
func (s *Sink) fail(rows []one, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("send %d rows from %s to %s: %w", len(rows), rows[0].at, s.place, err)
}

// said is what an answer says, for people.
func (s *Sink) said(a *request.Answer) string {
	if text := request.Short(string(a.Body)); text != "" {
		return fmt.Sprintf("the target answers %d: %s", a.Status, text)
	}
	return fmt.Sprintf("the target answers %d %s", a.Status, http.StatusText(a.Status))
}

// post makes one request.
func (s *Sink) post(ctx context.Context, body []byte, key string) (*request.Answer, error) {
	req, err := http.NewRequestWithContext(ctx, s.cfg.Method, s.url, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("make request: the url is not one") // err would show it
	}
	req.Header = s.header.Clone()
	req.Header.Set("Idempotency-Key", key)
	if s.secret != nil {
		req.Header.Set(s.cfg.HMAC.Header, sign(s.secret, time.Now(), body))
	}
	a, err := request.Do(s.client, req, s.cfg.Timeout, int64(s.cfg.AnswerBytes))
	switch {
	case err != nil:
		return nil, err
	case !a.OK() || a.Cut == nil:
		return a, nil
	case !errors.Is(a.Cut, fault.ErrLimit):
		return nil, a.Cut // was it done? the rows' keys tell
	case s.cfg.Results:
		return nil, fmt.Errorf("read answer: it is longer than answer_bytes, %s", s.cfg.AnswerBytes)
	}
	return a, nil
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
