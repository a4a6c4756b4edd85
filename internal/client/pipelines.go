package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
)

// Pipelines is the server's /v1/pipelines.
func (c *Client) Pipelines(ctx context.Context) (json.RawMessage, error) {
	return c.getJSON(ctx, "/v1/pipelines")
}

// Pipeline is one pipeline, by its name.
func (c *Client) Pipeline(ctx context.Context, name string) (json.RawMessage, error) {
	return c.getJSON(ctx, "/v1/pipelines/"+url.PathEscape(name))
}

// ChangePipeline asks for a change ("pause", "resume") and gives the pipeline as it is
// then.
func (c *Client) ChangePipeline(ctx context.Context, name, what string) (json.RawMessage, error) {
	resp, err := c.call(ctx, http.MethodPost, "/v1/pipelines/"+url.PathEscape(name)+"/"+what, nil, http.Header{"Accept": {"application/json"}}, []byte{})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, c.noAnswer(ctx, err)
	}
	return text, nil
}
