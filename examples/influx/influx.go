// Package influx is a sink that writes rows to InfluxDB as line protocol:
//
//   - influx: {url: "http://127.0.0.1:8086/write?db=shop", measurement: orders}
package influx

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/recordbatch"
	"naru/internal/row"
	"naru/internal/sink"
)

// Kind is this sink as pipelines have it.
func Kind() sink.Kind {
	return sink.Kind{
		Name:      "influx",
		Settings:  func() sink.Settings { return &Settings{Measurement: "events"} },
		Tabular:   func(sink.Settings) bool { return true }, // it needs columns and their types
		Guarantee: "at least once; a point that comes again replaces itself, because its tag naru_key is the same",
	}
}

// Settings of one sink.
type Settings struct {
	URL         string `yaml:"url"`
	Measurement string `yaml:"measurement"`
	TokenEnv    string `yaml:"token_env"` // the variable that holds it
}

// Validate implements sink.Settings.
func (s *Settings) Validate() error {
	var errs []error
	if u, err := url.Parse(s.URL); err != nil || u.Host == "" {
		errs = append(errs, errors.New("url: must be http://HOST:PORT/write?db=NAME"))
	}
	if s.Measurement == "" {
		errs = append(errs, errors.New("measurement: must be a name"))
	}
	return errors.Join(errs...)
}

// Open implements sink.Settings.
func (s *Settings) Open(_ context.Context, env sink.Env) (sink.Sink, error) {
	return &Sink{cfg: *s, token: env.Getenv(s.TokenEnv), end: event.Positions{}}, nil
}

// Sink gathers lines and sends them at each commit.
type Sink struct {
	cfg   Settings
	token string
	dec   recordbatch.Decoder
	lines bytes.Buffer
	end   event.Positions // of everything written so far
}

// Write implements sink.Sink.
func (s *Sink) Write(ctx context.Context, b *event.Batch) error {
	rows := row.NewReader(b.Columns)
	err := s.dec.EachIn(b, func(e *event.Event) error {
		at := event.Position{Incarnation: b.Incarnation, Partition: b.Partition, Offset: e.Offset}
		s.line(b.Columns, rows.Values(e, b.Partition), sink.AppendKey(nil, e.Place(at), e.Row), e.Time)
		return nil
	})
	if err != nil {
		return err
	}
	s.end.Advance(b.End())
	if s.lines.Len() > 1<<20 {
		return s.send(ctx)
	}
	return nil
}

// What line protocol escapes.
var (
	inNames = strings.NewReplacer(",", `\,`, "=", `\=`, " ", `\ `)
	inTexts = strings.NewReplacer(`"`, `\"`, `\`, `\\`)
)

// line adds a row: measurement,tag field=value,... time.
func (s *Sink) line(columns []event.Column, values []any, key []byte, at time.Time) {
	fmt.Fprintf(&s.lines, "%s,naru_key=%s naru=true", inNames.Replace(s.cfg.Measurement), key)
	for i, v := range values {
		var text string
		switch v := v.(type) {
		case nil:
			continue
		case bool, float64:
			text = fmt.Sprint(v)
		case int64:
			text = strconv.FormatInt(v, 10) + "i"
		case time.Time:
			text = `"` + v.Format(row.TimeLayout) + `"`
		case json.RawMessage:
			text = `"` + inTexts.Replace(string(v)) + `"`
		case string:
			text = `"` + inTexts.Replace(v) + `"`
		}
		fmt.Fprintf(&s.lines, ",%s=%s", inNames.Replace(columns[i].Name), text)
	}
	fmt.Fprintf(&s.lines, " %d\n", at.UnixNano())
}

// send makes one request. What may pass by itself is transient; all else has a hint.
func (s *Sink) send(ctx context.Context) error {
	if s.lines.Len() == 0 {
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.cfg.URL, bytes.NewReader(s.lines.Bytes()))
	if err != nil {
		return fmt.Errorf("send lines: %w", err)
	}
	req.Header.Set("Authorization", "Token "+s.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fault.Transient(fmt.Errorf("send lines: %w", err))
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 300)) // for people
	switch err := fmt.Errorf("send lines: the server answers %s: %s", resp.Status, said); {
	case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500:
		return fault.Transient(err)
	case resp.StatusCode > 299:
		return fault.WithHint(err, "correct url, measurement or token_env of the sink")
	}
	s.lines.Reset()
	return nil
}

// Commit implements sink.Sink.
func (s *Sink) Commit(ctx context.Context) (event.Positions, error) {
	if err := s.send(ctx); err != nil {
		return nil, err
	}
	return s.end.Clone(), nil
}

// Close implements sink.Sink.
func (s *Sink) Close() error { return nil }
