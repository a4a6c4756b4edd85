package clickhouse

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"naru/internal/sink/request"
)

// client speaks ClickHouse's HTTP interface.
type client struct {
	http           *http.Client
	url            string
	user, password string
	timeout        time.Duration
	packed         bytes.Buffer
}

func newClient(s *Settings, password string) *client {
	return &client{url: strings.TrimSuffix(s.URL, "/") + "/", user: s.User, password: password, timeout: s.Timeout.Std(),
		http: request.NewClient(&http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: false, MaxIdleConns: 1, IdleConnTimeout: 30 * time.Second})}
}

// longestAnswer is how much of an answer is read.
const longestAnswer = 16 << 20

// serverError is what the server says.
type serverError struct {
	status, code int // code: ClickHouse's own; 0: none
	text         string
}

func (e *serverError) Error() string { return e.text }

// query runs a statement; data, if any, is what an INSERT inserts. The answer's rows
// are those of the format TabSeparated.
func (c *client) query(ctx context.Context, sql string, data []byte) ([][]string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	// wait_end_of_query: the status tells how it ended, not only how it began.
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"?wait_end_of_query=1&query="+url.QueryEscape(sql), nil)
	if err != nil {
		return nil, err
	}
	if data != nil {
		// Not for its size: a body that is cut off is never taken for a whole one.
		if err := c.pack(data); err != nil {
			return nil, err
		}
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(c.packed.Bytes())), int64(c.packed.Len())
		req.Header.Set("Content-Encoding", "gzip")
	}
	req.Header.Set("X-ClickHouse-User", c.user)
	if c.password != "" {
		req.Header.Set("X-ClickHouse-Key", c.password)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) { // it has the whole statement in it
			err = u.Err
		}
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, longestAnswer))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	code, _ := strconv.Atoi(resp.Header.Get("X-ClickHouse-Exception-Code")) // 0: it says none
	if resp.StatusCode != http.StatusOK || code != 0 {
		return nil, &serverError{status: resp.StatusCode, code: code, text: short(resp.Status, string(body))}
	}
	var rows [][]string
	for line := range strings.Lines(string(body)) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	return rows, nil
}

func (c *client) pack(data []byte) error {
	c.packed.Reset()
	w, err := gzip.NewWriterLevel(&c.packed, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return err
	}
	return w.Close()
}

// short is the message of an answer without what tells nothing.
func short(status, body string) string {
	body, _, _ = strings.Cut(strings.TrimSpace(body), " (version ")
	for {
		_, rest, ok := strings.Cut(body, "DB::Exception: ")
		if !ok {
			break
		}
		body = rest
	}
	body, _, _ = strings.Cut(body, ": While executing ")
	if body = strings.TrimSpace(body); body == "" {
		return status
	}
	if len(body) > 500 {
		body = strings.ToValidUTF8(body[:500], "") + " ..."
	}
	return body
}
