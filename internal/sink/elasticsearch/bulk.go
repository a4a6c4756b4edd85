package elasticsearch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"naru/internal/fault"
	"naru/internal/sink"
	"naru/internal/sink/request"
)

// The bulk interface: https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk
// and https://docs.opensearch.org/latest/api-reference/document-apis/bulk/.

// result is what became of one row.
type result struct {
	Status int `json:"status"`
	Error  *struct {
		Type   string `json:"type"`
		Reason string `json:"reason"`
		Cause  *struct {
			Reason string `json:"reason"`
		} `json:"caused_by"`
	} `json:"error"`
}

func (r *result) text() string {
	if r.Error == nil {
		return fmt.Sprintf("the target answers %d", r.Status)
	}
	text := r.Error.Type + ": " + r.Error.Reason
	if r.Error.Cause != nil && r.Error.Cause.Reason != "" {
		text += ": " + r.Error.Cause.Reason
	}
	return request.Short(text)
}

// setWrong are errors of items with status 400 that say nothing of the row: another
// one would have them too. They stop the sink, so that no row is lost for them.
var setWrong = map[string]string{
	"index_closed_exception": "open the index, or set index of the sink to another one",
	"validation_exception":   "the target has reached a limit of its own, such as its number of shards",
}

// hintOf says what to do about what stops the sink.
func hintOf(status int, kind string) string {
	switch {
	case setWrong[kind] != "":
		return setWrong[kind]
	case status == http.StatusUnauthorized:
		return "check user, password_env and api_key_env of the sink"
	case status == http.StatusForbidden:
		return "the user needs the right to create (with id: to index) documents in the index; an index that takes no writes is another reason, as on a full disk"
	case status == http.StatusNotFound:
		return "create the index, or let the target create it (action.auto_create_index), or correct url or index of the sink"
	case status >= 300 && status <= 399:
		return "redirects are not followed: set url of the sink to where the target is now"
	}
	return "the target refuses the request itself, not its rows: is url of the sink Elasticsearch or OpenSearch?"
}

// greet finds out at once whether the target is there and knows us.
func (s *Sink) greet(ctx context.Context) error {
	a, err := s.request(ctx, http.MethodGet, "/", nil)
	switch {
	case err != nil:
		return fault.Transient(fmt.Errorf("reach %s: %w", s.cfg.place(), err))
	case a.Status == http.StatusUnauthorized:
		return fault.WithHint(fmt.Errorf("reach %s: the target answers 401", s.cfg.place()), "%s", hintOf(a.Status, ""))
	case request.Passing(a.Status):
		return fault.Transient(fmt.Errorf("reach %s: the target answers %d", s.cfg.place(), a.Status))
	}
	return nil // what it says does not matter, and some users may not ask
}

// send sends rows until each is in the target or refused. Rows that the target had
// no room for are sent again alone, after a pause.
func (s *Sink) send(ctx context.Context, rows []one) error {
	err := request.Attempts{Most: s.cfg.Attempts, Wait: s.cfg.wait}.Until(ctx, func() (time.Duration, error) {
		again, after, err := s.try(ctx, rows)
		var stop *fault.Hint
		switch {
		case errors.Is(err, errTooLarge), errors.As(err, &stop), err == nil && len(again) == 0:
			return 0, err
		case err == nil:
			rows = again
			err = fmt.Errorf("%d rows had no room", len(again))
		}
		return after, fault.Transient(fmt.Errorf("send %d rows from %s to %s: %w", len(rows), rows[0].at, s.cfg.place(), err))
	})
	if !errors.Is(err, errTooLarge) {
		return err
	}
	half := len(rows) / 2
	if err := s.send(ctx, rows[:half]); err != nil {
		return err
	}
	return s.send(ctx, rows[half:])
}

var errTooLarge = errors.New("the request is too large")

// try makes one request. again are the rows that have to be sent again; after is the
// pause that the target asks for. An error with a hint will not pass by itself.
func (s *Sink) try(ctx context.Context, rows []one) (again []one, after time.Duration, err error) {
	var body []byte
	for _, r := range rows {
		body = append(body, r.lines...)
	}
	a, err := s.request(ctx, http.MethodPost, "/_bulk?filter_path=errors,items.*.status,items.*.error", body)
	if err != nil {
		return nil, 0, err
	}
	switch {
	case a.Status == http.StatusOK:
		again, err = s.judge(rows, a.Body)
		return again, a.RetryAfter, err
	case request.Passing(a.Status):
		return nil, a.RetryAfter, errors.New(said(a))
	case a.Status == http.StatusRequestEntityTooLarge && len(rows) > 1:
		return nil, 0, errTooLarge
	case a.Status == http.StatusRequestEntityTooLarge:
		s.refuse(rows[0], said(a))
		return nil, 0, nil
	}
	return nil, 0, fault.WithHint(fmt.Errorf("send rows from %s to %s: %s", rows[0].at, s.cfg.place(), said(a)), "%s", hintOf(a.Status, ""))
}

// judge goes through what became of each row.
func (s *Sink) judge(rows []one, body []byte) (again []one, err error) {
	var all struct {
		Items []map[string]*result `json:"items"`
	}
	if err := json.Unmarshal(body, &all); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if len(all.Items) != len(rows) {
		return nil, fmt.Errorf("read answer: it has %d results for %d rows", len(all.Items), len(rows))
	}
	var refused []sink.Refusal
	for i, item := range all.Items {
		var r *result
		for _, v := range item {
			r = v
		}
		if r == nil || len(item) != 1 {
			return nil, fmt.Errorf("read answer: result %d has %d actions", i, len(item))
		}
		kind := ""
		if r.Error != nil {
			kind = r.Error.Type
		}
		switch {
		case r.Status >= 200 && r.Status <= 299:
		case r.Status == http.StatusConflict && s.cfg.id == nil:
			// Created before: its id is the row's key, so it is this row.
		case request.Passing(r.Status), r.Status == http.StatusConflict:
			again = append(again, rows[i])
		case (r.Status == http.StatusBadRequest || r.Status == http.StatusRequestEntityTooLarge) && setWrong[kind] == "":
			refused = append(refused, sink.Refusal{At: rows[i].at, Row: rows[i].row, Detail: r.text()})
		default:
			return nil, fault.WithHint(fmt.Errorf("send row %s to %s: %s", rows[i].at, s.cfg.place(), r.text()), "%s", hintOf(r.Status, kind))
		}
	}
	s.waiting = append(s.waiting, refused...)
	return again, nil
}

func (s *Sink) refuse(r one, why string) {
	s.waiting = append(s.waiting, sink.Refusal{At: r.at, Row: r.row, Detail: why})
}

// said is what an answer says, for people.
func said(a *request.Answer) string {
	var v struct {
		Error json.RawMessage `json:"error"`
	}
	text := string(a.Body[:min(len(a.Body), 500)])
	if json.Unmarshal(a.Body, &v) == nil && len(v.Error) > 0 {
		text = string(v.Error)
		var e struct{ Type, Reason string }
		if json.Unmarshal(v.Error, &e) == nil && e.Type != "" {
			text = e.Type + ": " + e.Reason
		}
	}
	if text = request.Short(text); text == "" {
		return fmt.Sprintf("the target answers %d %s", a.Status, http.StatusText(a.Status))
	}
	return fmt.Sprintf("the target answers %d: %s", a.Status, text)
}

// longestAnswer bounds what is read of an answer: an item takes less than 2 KiB, with
// the text of an error.
func (s *Sink) longestAnswer() int64 { return int64(s.cfg.Batch)*2<<10 + 1<<20 }

func (s *Sink) request(ctx context.Context, method, path string, body []byte) (*request.Answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.cfg.place()+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = s.header
	a, err := request.Do(s.client, req, s.cfg.Timeout, s.longestAnswer())
	if err == nil {
		err = a.Cut
	}
	return a, err
}
