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
	return c.postPipeline(ctx, name, what, nil, []byte{})
}

// AskPipeline asks for what has a body ("rewind", "backfill", "backfill/cancel").
func (c *Client) AskPipeline(ctx context.Context, name, what string, ask any) (json.RawMessage, error) {
	body, err := json.Marshal(ask)
	if err != nil {
		return nil, err
	}
	return c.postPipeline(ctx, name, what, http.Header{"Content-Type": {"application/json"}}, body)
}

// PipelineBackfills are those of a pipeline that go on.
func (c *Client) PipelineBackfills(ctx context.Context, name string) (json.RawMessage, error) {
	return c.getJSON(ctx, "/v1/pipelines/"+url.PathEscape(name)+"/backfill")
}

func (c *Client) postPipeline(ctx context.Context, name, what string, header http.Header, body []byte) (json.RawMessage, error) {
	if header == nil {
		header = http.Header{}
	}
	header.Set("Accept", "application/json")
	resp, err := c.call(ctx, http.MethodPost, "/v1/pipelines/"+url.PathEscape(name)+"/"+what, nil, header, body)
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
