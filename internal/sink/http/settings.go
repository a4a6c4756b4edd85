// Package http is the sink that posts rows to a URL, as NDJSON or JSON arrays.
// At least once: every row carries its key, by which the target knows it again.
package http

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/sink"
	"naru/internal/sink/request"
)

// Kind is this sink as pipelines have it.
func Kind() sink.Kind {
	return sink.Kind{
		Name:      "http",
		Short:     "url",
		Settings:  func() sink.Settings { s := DefaultSettings(); return &s },
		Guarantee: "at least once; every row carries its key (_key), the same whenever it is sent again",
	}
}

// Settings of one sink.
type Settings struct {
	URL    string `yaml:"url"`
	URLEnv string `yaml:"url_env"` // the variable that holds the URL, when the URL is a secret
	Method string `yaml:"method"`
	Format string `yaml:"format"` // ndjson or json
	// Batch and BatchBytes bound a request, in rows and in bytes before compression. A
	// row larger than BatchBytes goes alone.
	Batch      int            `yaml:"batch"`
	BatchBytes quantity.Bytes `yaml:"batch_bytes"`
	Compress   string         `yaml:"compress"` // none or gzip

	Headers    map[string]string `yaml:"headers"`
	HeadersEnv map[string]string `yaml:"headers_env"` // by header: the variable that holds its value
	HMAC       HMAC              `yaml:"hmac"`
	Key        string            `yaml:"key"` // member that holds a row's key; empty: none

	Timeout  quantity.Duration `yaml:"timeout"`  // of one request, its answer included
	Attempts int               `yaml:"attempts"` // of one request before the pipeline takes over
	// OnRefused says what an answer 400, 413 or 422 means: reject or stop.
	OnRefused string `yaml:"on_refused"`
	// Results: the answer says for each row what became of it.
	Results     bool           `yaml:"results"`
	AnswerBytes quantity.Bytes `yaml:"answer_bytes"` // the longest answer that is read

	wait func(context.Context, time.Duration) error // for tests
}

// HMAC signs requests when SecretEnv is set.
type HMAC struct {
	SecretEnv string `yaml:"secret_env"`
	Header    string `yaml:"header"`
}

// DefaultSettings are those of a sink of which only the URL is given.
func DefaultSettings() Settings {
	return Settings{
		Method: http.MethodPost, Format: ndjson,
		Batch:      500,
		BatchBytes: 4 * quantity.MiB, // below what proxies and API gateways take, mostly 6 to 10 MB
		Compress:   none,
		HMAC:       HMAC{Header: "Naru-Signature"},
		Key:        "_key",
		Timeout:    quantity.Duration(30 * time.Second),
		Attempts:   5, // some 8 s: what a restart of the target takes
		OnRefused:  reject, AnswerBytes: 4 * quantity.MiB,
	}
}

// The values of settings.
const (
	ndjson, jsonArray = "ndjson", "json"
	none, gzipped     = "none", "gzip"
	reject, stop      = "reject", "stop"
)

// ours are the headers that the sink sets itself.
var ours = []string{"Content-Length", "Content-Encoding", "Transfer-Encoding", "Host", "Connection", "Idempotency-Key"}

// Validate implements sink.Settings.
func (s *Settings) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	oneOf := func(key, value string, list ...string) {
		if !slices.Contains(list, value) {
			wrong("%s: %q is none of %s", key, value, strings.Join(list, ", "))
		}
	}
	switch {
	case s.URL == "" && s.URLEnv == "":
		wrong("url: must be set, or url_env")
	case s.URL != "" && s.URLEnv != "":
		wrong("url: url_env is set too; leave one of them out")
	case s.URL != "":
		if err := checkURL(s.URL); err != nil {
			wrong("url: %w", err)
		}
	}
	oneOf("method", s.Method, http.MethodPost, http.MethodPut, http.MethodPatch)
	oneOf("format", s.Format, ndjson, jsonArray)
	oneOf("compress", s.Compress, none, gzipped)
	oneOf("on_refused", s.OnRefused, reject, stop)
	if s.Batch < 1 || s.Batch > 100_000 {
		wrong("batch: must be 1 to 100000 rows")
	}
	if s.BatchBytes < 1 || s.BatchBytes > 256*quantity.MiB {
		wrong("batch_bytes: must be 1B to 256MiB")
	}
	if s.AnswerBytes < quantity.KiB || s.AnswerBytes > 256*quantity.MiB {
		wrong("answer_bytes: must be 1KiB to 256MiB")
	}
	if s.Timeout.Std() < time.Millisecond || s.Timeout.Std() > time.Hour {
		wrong("timeout: must be 1ms to 1h")
	}
	if s.Attempts < 1 || s.Attempts > 100 {
		wrong("attempts: must be 1 to 100")
	}
	if s.Results && s.Key == "" {
		wrong("results: the answer names rows by their keys: set key to a name, as in _key")
	}
	if event.InEnvelope(s.Key) {
		wrong("key: %s is a column of events; take another name, as _key", s.Key)
	}
	for _, headers := range []struct {
		key  string
		list map[string]string
	}{{"headers", s.Headers}, {"headers_env", s.HeadersEnv}} {
		for name, value := range headers.list {
			switch canonical := http.CanonicalHeaderKey(name); {
			case !isToken(name):
				wrong("%s.%s: is not a name of a header", headers.key, name)
			case slices.Contains(ours, canonical) || s.HMAC.SecretEnv != "" && canonical == http.CanonicalHeaderKey(s.HMAC.Header):
				wrong("%s.%s: is set by the sink itself", headers.key, name)
			case strings.ContainsAny(value, "\r\n\x00"):
				wrong("%s.%s: must be one line", headers.key, name)
			}
		}
	}
	for name := range s.HeadersEnv {
		if _, twice := s.Headers[name]; twice {
			wrong("headers_env.%s: is in headers too", name)
		}
	}
	if s.HMAC.SecretEnv != "" && (!isToken(s.HMAC.Header) || slices.Contains(ours, http.CanonicalHeaderKey(s.HMAC.Header))) {
		wrong("hmac.header: %q cannot be the header of the signature", s.HMAC.Header)
	}
	return errors.Join(errs...)
}

// checkURL never says what the URL is: it may be a secret.
func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return errors.New(`must be http://HOST/PATH or https://HOST/PATH`)
	case u.User != nil:
		return errors.New("must be without user and password: put them into headers_env: {Authorization: VARIABLE}")
	case u.Fragment != "":
		return errors.New("must be without a fragment (#...)")
	}
	return nil
}

func isToken(name string) bool {
	return name != "" && strings.Trim(name, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// Open implements sink.Settings. It connects to nothing: the first request does.
func (s *Settings) Open(_ context.Context, env sink.Env) (sink.Sink, error) {
	text, err := s.URL, error(nil)
	if s.URLEnv != "" {
		if text, err = secret(env, "url_env", s.URLEnv); err != nil {
			return nil, err
		}
		if err := checkURL(text); err != nil {
			return nil, fmt.Errorf("open sink %s: the URL in %s %w", env.Name, s.URLEnv, err)
		}
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("open sink %s: parse its url", env.Name) // err would show it
	}
	out := &Sink{cfg: *s, url: text, place: u.Scheme + "://" + u.Host, end: event.Positions{}, header: http.Header{}}
	out.header.Set("Content-Type", map[string]string{ndjson: "application/x-ndjson", jsonArray: "application/json"}[s.Format])
	out.header.Set("User-Agent", "naru")
	for name, value := range s.Headers {
		out.header.Set(name, value)
	}
	for name, variable := range s.HeadersEnv {
		value, err := secret(env, "headers_env."+name, variable)
		if err != nil {
			return nil, err
		}
		if strings.ContainsAny(value, "\r\n\x00") {
			return nil, fmt.Errorf("open sink %s: the value in %s, for the header %s, must be one line", env.Name, variable, name)
		}
		out.header.Set(name, value)
	}
	if s.HMAC.SecretEnv != "" {
		value, err := secret(env, "hmac.secret_env", s.HMAC.SecretEnv)
		if err != nil {
			return nil, err
		}
		out.secret = []byte(value)
	}
	if s.Compress == gzipped {
		out.header.Set("Content-Encoding", "gzip")
	}
	out.client = request.NewClient(&http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           1,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // so that an answer is as long as it looks
	})
	return out, nil
}

// secret reads a variable that must be set.
func secret(env sink.Env, key, variable string) (string, error) {
	if v := env.Getenv(variable); v != "" {
		return v, nil
	}
	return "", fault.WithHint(fmt.Errorf("open sink %s: %s: the variable %s is empty", env.Name, key, variable),
		"set %s in the environment of naru serve, and start it again", variable)
}
