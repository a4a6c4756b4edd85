// Package client speaks to a running naru over HTTP: it is what the client
// commands of the CLI are made of.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"naru/internal/fault"
	"naru/internal/web"
)

// DefaultURL is where a server listens unless it is told otherwise.
const DefaultURL = "http://127.0.0.1:8080"

// maxAnswer bounds an answer that is read whole, in bytes.
const maxAnswer = 64 << 20

// Client calls one server. Safe for concurrent use.
type Client struct {
	base *url.URL
	http *http.Client
}

// New makes a client for the server at base, as in http://127.0.0.1:8080.
func New(base string) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fault.WithHint(fmt.Errorf("%q is not the address of a server", base),
			"give it as in --url %s, or in the variable NARU_URL", DefaultURL)
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	return &Client{base: u, http: &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		MaxIdleConnsPerHost:   2,
		IdleConnTimeout:       90 * time.Second,
		ResponseHeaderTimeout: 5 * time.Minute, // a query may think; its own limit is shorter
	}}}, nil
}

// URL is the server's address.
func (c *Client) URL() string { return c.base.String() }

// Problem is an error answer of the server (RFC 9457).
type Problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
}

func (p *Problem) Error() string {
	text := strconv.Itoa(p.Status) + " " + http.StatusText(p.Status)
	if p.Title != "" {
		text = p.Title + " (" + strconv.Itoa(p.Status) + ")"
	}
	if p.Detail != "" {
		text += ": " + p.Detail
	}
	return text
}

// call makes one request (path is escaped) and returns an answer with a status below 300, whose
// body the caller closes. An error that may pass is transient, and says when
// to come back if the server did.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, header http.Header, body []byte) (*http.Response, error) {
	target := c.base.String() + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	var payload io.Reader
	if body != nil {
		payload = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, payload)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.noAnswer(ctx, err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, problemOf(resp)
}

// noAnswer judges an error of the connection.
func (c *Client) noAnswer(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // the caller says what was tried
	}
	err = fmt.Errorf("ask %s: %w", c.base, err)
	return fault.WithHint(fault.Transient(err),
		"is the server running? start it with naru serve, or name it with --url")
}

// problemOf turns an error answer into an error of its class.
func problemOf(resp *http.Response) error {
	p := &Problem{Status: resp.StatusCode}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err == nil && (media != web.ProblemType || json.Unmarshal(text, p) != nil || p.Title == "") {
		p.Detail = firstLine(text) // not ours: a proxy's, or another server's
	}
	p.Status = resp.StatusCode
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
		return &fault.RetryAfter{Err: p, After: retryAfter(resp.Header.Get("Retry-After"))}
	}
	return p
}

func firstLine(text []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(strings.ToValidUTF8(string(text), "\ufffd")), "\n")
	return line[:min(len(line), 200)]
}

// retryAfter reads whole seconds or an HTTP date; 0 when there is none.
func retryAfter(s string) time.Duration {
	if n, err := strconv.Atoi(s); err == nil && n >= 0 {
		return time.Duration(min(n, 24*3600)) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}

// getJSON reads an answer that is one JSON document, as it stands.
func (c *Client) getJSON(ctx context.Context, path string) (json.RawMessage, error) {
	resp, err := c.call(ctx, http.MethodGet, path, nil, http.Header{"Accept": {"application/json"}}, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, c.noAnswer(ctx, err)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("the answer is larger than %d MiB: %w", maxAnswer>>20, fault.ErrLimit)
	case !json.Valid(body):
		return nil, fault.WithHint(errors.New("the answer is not JSON"), "is %s a naru server?", c.base)
	}
	return body, nil
}

// Status is the server's /v1/status.
func (c *Client) Status(ctx context.Context) (json.RawMessage, error) {
	return c.getJSON(ctx, "/v1/status")
}
