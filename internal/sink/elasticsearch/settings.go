// Package elasticsearch is the sink that writes rows as documents of Elasticsearch
// or OpenSearch, by the bulk interface that both have. A document's id is the row's
// key, so a row that is sent again is not there twice.
package elasticsearch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/row"
	"naru/internal/sink"
	"naru/internal/sink/request"
	"naru/internal/sink/secure"
)

// Kind is `elasticsearch` in `to:` of a pipeline.
func Kind() sink.Kind {
	return sink.Kind{
		Name:      "elasticsearch",
		Settings:  func() sink.Settings { return defaults() },
		Guarantee: "at least once; the key is the document's id (_id), so each row is there once",
	}
}

// Settings of one sink.
type Settings struct {
	URL string `yaml:"url"`
	// Index is a template of the index, alias or data stream: "edits-{_time:%Y.%m.%d}".
	Index string `yaml:"index"`
	// ID is a template of the document's id, for documents that later rows replace;
	// empty: the row's key, and documents are created only.
	ID string `yaml:"id"`
	// Envelope is the object with the attributes of the event; empty: it is left out.
	Envelope string `yaml:"envelope"`

	Batch      int               `yaml:"batch"`       // rows in a request, at most
	BatchBytes quantity.Bytes    `yaml:"batch_bytes"` // of a request; a larger row goes alone
	Timeout    quantity.Duration `yaml:"timeout"`     // of a request with its answer
	Attempts   int               `yaml:"attempts"`    // of a request before the pipeline takes over

	User        string `yaml:"user"`
	PasswordEnv string `yaml:"password_env"`
	// APIKeyEnv is the variable with an API key as Elasticsearch encodes it.
	APIKeyEnv string     `yaml:"api_key_env"`
	TLS       secure.TLS `yaml:"tls"`

	index, id *row.Template
	transport http.RoundTripper                                // of tests
	wait      func(ctx context.Context, d time.Duration) error // of tests
}

func defaults() *Settings {
	return &Settings{Envelope: "naru", Batch: 1000, BatchBytes: 5 << 20, Timeout: quantity.Duration(time.Minute), Attempts: 5}
}

// Validate implements sink.Settings.
func (s *Settings) Validate() error {
	u, err := url.Parse(s.URL)
	switch {
	case s.URL == "":
		return errors.New("url: is missing: http://HOST:9200")
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return errors.New("url: must be http://HOST:PORT or https://HOST:PORT")
	case u.User != nil:
		return errors.New("url: a password does not belong here: set user and password_env")
	case u.RawQuery != "" || u.Fragment != "":
		return errors.New("url: ends with the path")
	}
	if s.index, err = row.ParseTemplate(s.Index); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	if s.Index == "" {
		return errors.New(`index: is missing: a name, or one by date as in "edits-{_time:%Y.%m.%d}"`)
	}
	if len(s.index.Columns()) == 0 {
		if why := badIndex([]byte(s.Index)); why != "" {
			return fmt.Errorf("index: %q %s", s.Index, why)
		}
	}
	s.id = nil
	if s.ID != "" {
		if s.id, err = row.ParseTemplate(s.ID); err != nil {
			return fmt.Errorf("id: %w", err)
		}
		if len(s.id.Columns()) == 0 {
			return errors.New(`id: all rows would be one document: put a column in it, as in "{order_id}"`)
		}
	}
	if strings.HasPrefix(s.Envelope, "_") || strings.HasPrefix(s.Envelope, "@") {
		return errors.New("envelope: must not begin with _ or @, which the target keeps for itself")
	}
	if s.Batch < 1 || s.Batch > 100_000 {
		return errors.New("batch: must be between 1 and 100000")
	}
	if s.BatchBytes < 1<<10 || s.BatchBytes > 90<<20 { // the target takes 100 MB (http.max_content_length)
		return errors.New("batch_bytes: must be between 1KiB and 90MiB")
	}
	if d := s.Timeout.Std(); d < 100*time.Millisecond || d > time.Hour {
		return errors.New("timeout: must be between 100ms and 1h")
	}
	if s.Attempts < 1 || s.Attempts > 100 {
		return errors.New("attempts: must be between 1 and 100")
	}
	switch {
	case (s.User == "") != (s.PasswordEnv == ""):
		return errors.New("user: goes together with password_env, the variable with the password")
	case s.User != "" && s.APIKeyEnv != "":
		return errors.New("api_key_env: goes in place of user and password_env")
	}
	if s.TLS.Enabled && u.Scheme != "https" {
		return errors.New("tls.enabled: wants a url with https")
	}
	return s.TLS.Validate()
}

// badIndex says what is wrong with the name of an index; empty: nothing.
func badIndex(name []byte) string {
	switch {
	case len(name) == 0:
		return "is empty"
	case len(name) > 255:
		return "is longer than 255 bytes"
	case name[0] == '-' || name[0] == '_' || name[0] == '+' || name[0] == '.':
		return "begins with - _ + or ."
	}
	for _, c := range name {
		if c >= 'A' && c <= 'Z' || c <= ' ' || strings.IndexByte(`\/*?"<>|,#:`, c) >= 0 {
			return `is no name of an index: lower case letters, without blanks and \ / * ? " < > | , # :`
		}
	}
	return ""
}

// Open implements sink.Settings.
func (s *Settings) Open(ctx context.Context, env sink.Env) (sink.Sink, error) {
	if s.index == nil {
		if err := s.Validate(); err != nil {
			return nil, err
		}
	}
	secret := func(name string) (string, error) {
		v := env.Getenv(name)
		if v == "" {
			return "", fault.WithHint(fmt.Errorf("log in to %s: the environment variable %s is empty", s.place(), name), "start naru with it")
		}
		return v, nil
	}
	out := &Sink{cfg: s, end: event.Positions{}, header: http.Header{"Content-Type": {"application/x-ndjson"}, "Accept": {"application/json"}}}
	switch {
	case s.User != "":
		password, err := secret(s.PasswordEnv)
		if err != nil {
			return nil, err
		}
		r := http.Request{Header: out.header}
		r.SetBasicAuth(s.User, password)
	case s.APIKeyEnv != "":
		key, err := secret(s.APIKeyEnv)
		if err != nil {
			return nil, err
		}
		out.header.Set("Authorization", "ApiKey "+key)
	}
	transport := s.transport
	if transport == nil {
		encrypted, err := s.TLS.Config(env)
		if err != nil {
			return nil, err
		}
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.TLSClientConfig, t.MaxIdleConnsPerHost, t.DisableCompression = encrypted, 1, true
		transport = t
	}
	out.client = request.NewClient(transport)
	return out, out.greet(ctx)
}

// place is the url for people.
func (s *Settings) place() string { return strings.TrimRight(s.URL, "/") }
