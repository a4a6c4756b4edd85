package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
)

// RejectedGroups is the list of refused events, in groups: /v1/rejected with a query.
func (c *Client) RejectedGroups(ctx context.Context, q url.Values) (json.RawMessage, error) {
	path := "/v1/rejected"
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return c.getJSON(ctx, path)
}

// Rejection is one refused event, by its name.
func (c *Client) Rejection(ctx context.Context, id string) (json.RawMessage, error) {
	return c.getJSON(ctx, "/v1/rejected/"+(&url.URL{Path: id}).EscapedPath())
}

// ChangeRejected asks for a change of states ("replay" or "discard") and gives the
// answer as it comes: NDJSON. The caller closes it.
func (c *Client) ChangeRejected(ctx context.Context, what string, ask []byte) (io.ReadCloser, error) {
	resp, err := c.call(ctx, http.MethodPost, "/v1/rejected/"+what, nil,
		http.Header{"Content-Type": {"application/json"}, "Accept": {"application/x-ndjson"}}, ask)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}
