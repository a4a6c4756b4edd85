package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"naru/internal/fault"
)

// Batch is one request to the native door.
type Batch struct {
	Stream, Type, Source string // empty: the server's defaults
	// Item i of the body gets the id IDPrefix + (FirstID+i). Without a prefix
	// the items have the ids that the server gives them.
	IDPrefix string
	FirstID  int64
	Body     []byte // NDJSON
}

// Rejected is one item that the door refused.
type Rejected struct {
	Index  int    `json:"index"` // in the request, from 0
	ID     string `json:"id,omitempty"`
	Reason string `json:"reason"`
	Detail string `json:"detail"`
}

// Answer of the door: the request is durable.
type Answer struct {
	Accepted int64      `json:"accepted"`
	Rejected []Rejected `json:"rejected"`
	// RejectedCount is there when Rejected lists only the first of them.
	RejectedCount int64 `json:"rejected_count"`
}

// Refusals is how many items the door refused, listed or not.
func (a *Answer) Refusals() int64 { return max(a.RejectedCount, int64(len(a.Rejected))) }

// Items is how many items the door found in the request.
func (a *Answer) Items() int64 { return a.Accepted + a.Refusals() }

// Append sends a batch once. A nil error means that it is durable; after a
// transient one nothing is known, and the same batch may be sent again.
func (c *Client) Append(ctx context.Context, b Batch) (*Answer, error) {
	q := url.Values{}
	for k, v := range map[string]string{"stream": b.Stream, "type": b.Type, "source": b.Source} {
		if v != "" {
			q.Set(k, v)
		}
	}
	if b.IDPrefix != "" {
		q.Set("id_prefix", b.IDPrefix)
		q.Set("id_first", strconv.FormatInt(b.FirstID, 10))
	}
	header := http.Header{"Content-Type": {"application/x-ndjson"}, "Accept": {"application/json"}}
	resp, err := c.call(ctx, http.MethodPost, "/v1/events", q, header, b.Body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, c.noAnswer(ctx, err)
	}
	var a Answer
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, fault.WithHint(fmt.Errorf("read the answer to a batch: %w", err), "is %s a naru server?", c.base)
	}
	if a.Items() == 0 {
		return nil, fault.WithHint(errors.New("the answer to a batch counts no events"), "is %s a naru server?", c.base)
	}
	return &a, nil
}

// TailOptions say what Tail gives.
type TailOptions struct {
	From   string // start, end, an offset, or a position as the server writes it
	Last   int    // instead of From: so many events before the end; -1: not set
	Follow bool   // go on with events as they come
}

// Tail reads events of a stream as NDJSON until the end, or for ever. The
// caller closes the body.
func (c *Client) Tail(ctx context.Context, stream string, o TailOptions) (io.ReadCloser, error) {
	q := url.Values{}
	switch {
	case o.From != "":
		q.Set("from", o.From)
	case o.Last >= 0:
		q.Set("last", strconv.Itoa(o.Last))
	}
	if o.Follow {
		q.Set("follow", "true")
	}
	resp, err := c.call(ctx, http.MethodGet, "/v1/streams/"+url.PathEscape(stream)+"/events", q,
		http.Header{"Accept": {"application/x-ndjson"}}, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Query asks /v1/sql and gives the answer as it comes, in the media type
// that accept names. The caller closes the body.
func (c *Client) Query(ctx context.Context, sql, accept string) (io.ReadCloser, error) {
	resp, err := c.call(ctx, http.MethodPost, "/v1/sql", nil,
		http.Header{"Content-Type": {"text/plain; charset=utf-8"}, "Accept": {accept}}, []byte(sql))
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}
