// Package redis is the sink that writes rows to Redis: to streams, hashes, strings
// or lists. Rows and positions are one transaction (MULTI), so it is exact for as
// long as the server keeps what it has taken.
package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/row"
	"naru/internal/sink"
	"naru/internal/sink/secure"
)

// Kind is `redis` in `to:` of a pipeline.
func Kind() sink.Kind {
	return sink.Kind{
		Name:     "redis",
		Settings: func() sink.Settings { return defaults() },
		Tabular: func(s sink.Settings) bool {
			cfg, ok := s.(*Settings)
			return ok && cfg.fields()
		},
		Guarantee: "exactly once: rows and positions are one transaction; how durable it is, the server says (appendfsync)",
	}
}

// How rows become values of Redis.
const (
	modeStream = "stream" // an entry of a stream
	modeHash   = "hash"   // fields of a hash
	modeString = "string" // a string
	modeList   = "list"   // an element at the end of a list
)

// Settings of one sink.
type Settings struct {
	Address string `yaml:"address"` // host:port
	DB      int    `yaml:"db"`
	Mode    string `yaml:"mode"`
	// Key is the key that a row goes to, a template: "user:{id}".
	Key string `yaml:"key"`
	// Format is how a row becomes an entry of a stream: fields, or json in one field.
	Format string `yaml:"format"`
	// MaxLen bounds streams and lists; 0: they grow.
	MaxLen int64 `yaml:"maxlen"`
	// TTL is how long hashes and strings stay; 0: for ever.
	TTL quantity.Duration `yaml:"ttl"`
	// PositionsKey is the hash with the positions; empty: made of the reader's name.
	PositionsKey string            `yaml:"positions_key"`
	Timeout      quantity.Duration `yaml:"timeout"` // of one answer
	User         string            `yaml:"user"`
	PasswordEnv  string            `yaml:"password_env"`
	TLS          secure.TLS        `yaml:"tls"`

	key  *row.Template
	dial func(ctx context.Context, network, address string) (net.Conn, error) // of tests
}

func defaults() *Settings {
	return &Settings{Address: "127.0.0.1:6379", Mode: modeStream, Format: "fields", Timeout: quantity.Duration(10 * time.Second)}
}

// fields tells whether the columns are stored one by one.
func (s *Settings) fields() bool {
	return s.Mode == modeHash || s.Mode == modeStream && s.Format == "fields"
}

// Validate implements sink.Settings.
func (s *Settings) Validate() error {
	if host, port, err := net.SplitHostPort(s.Address); err != nil || host == "" || port == "" {
		return fmt.Errorf("address: %q is no host:port", s.Address)
	}
	if s.DB < 0 {
		return errors.New("db: is a number from 0")
	}
	switch s.Mode {
	case modeStream, modeHash, modeString, modeList:
	default:
		return fmt.Errorf("mode: must be stream, hash, string or list, not %q", s.Mode)
	}
	if s.Key == "" {
		return errors.New(`key: is missing: the key that a row goes to, as in "edits" or "user:{id}"`)
	}
	t, err := row.ParseTemplate(s.Key)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	s.key = t
	if len(t.Columns()) == 0 && (s.Mode == modeHash || s.Mode == modeString) {
		return fmt.Errorf("key: all rows would go to the one %s %q: put a column in it, as in %q", s.Mode, s.Key, s.Key+":{id}")
	}
	if s.Format != "fields" && s.Format != "json" {
		return fmt.Errorf("format: must be fields or json, not %q", s.Format)
	}
	if s.MaxLen < 0 || s.MaxLen > 0 && s.Mode != modeStream && s.Mode != modeList {
		return errors.New("maxlen: is a number of entries, for the modes stream and list")
	}
	if s.TTL != 0 && (s.TTL.Std() < time.Millisecond || s.Mode != modeHash && s.Mode != modeString) {
		return errors.New("ttl: is at least 1ms, for the modes hash and string")
	}
	if d := s.Timeout.Std(); d < 100*time.Millisecond || d > 10*time.Minute {
		return errors.New("timeout: must be between 100ms and 10m")
	}
	if s.User != "" && s.PasswordEnv == "" {
		return errors.New("password_env: is missing: the environment variable with the password of user")
	}
	return s.TLS.Validate()
}

// positionsKey is the hash that has the positions of a sink.
func (s *Settings) positionsKey(env sink.Env) string {
	if s.PositionsKey != "" {
		return s.PositionsKey
	}
	return "naru:positions:" + env.Reader + ":" + env.Stream
}

// Open implements sink.Settings.
func (s *Settings) Open(ctx context.Context, env sink.Env) (sink.Sink, error) {
	if s.key == nil {
		if err := s.Validate(); err != nil {
			return nil, err
		}
	}
	dial, err := s.dialer(env)
	if err != nil {
		return nil, err
	}
	return open(ctx, s, env, dial)
}

// dialer makes connections that are logged in.
func (s *Settings) dialer(env sink.Env) (func(context.Context) (*conn, error), error) {
	password := ""
	if s.PasswordEnv != "" {
		if password = env.Getenv(s.PasswordEnv); password == "" {
			return nil, fault.WithHint(fmt.Errorf("log in to redis %s: the environment variable %s is empty", s.Address, s.PasswordEnv),
				"start naru with the password in %s", s.PasswordEnv)
		}
	}
	encrypted, err := s.TLS.Config(env)
	if err != nil {
		return nil, err
	}
	if encrypted != nil {
		if encrypted.ServerName, _, err = net.SplitHostPort(s.Address); err != nil {
			return nil, err
		}
	}
	dial := s.dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: s.Timeout.Std()}).DialContext
	}
	return func(ctx context.Context) (*conn, error) {
		raw, err := dial(ctx, "tcp", s.Address)
		if err != nil {
			return nil, fault.Transient(fmt.Errorf("reach redis: %w", err))
		}
		if encrypted != nil {
			raw = tls.Client(raw, encrypted)
		}
		c := newConn(raw, s.Timeout.Std())
		if err := c.login(ctx, s, password); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		return c, nil
	}, nil
}

func (c *conn) login(ctx context.Context, s *Settings, password string) error {
	if password != "" {
		args := []string{"AUTH", password}
		if s.User != "" {
			args = []string{"AUTH", s.User, password}
		}
		if _, err := c.do(ctx, args...); err != nil {
			return fault.WithHint(fmt.Errorf("log in to redis %s: %w", s.Address, err), "check user, and the password in %s", s.PasswordEnv)
		}
	}
	if s.DB != 0 {
		if _, err := c.do(ctx, "SELECT", fmt.Sprint(s.DB)); err != nil {
			return fmt.Errorf("select database %d of redis %s: %w", s.DB, s.Address, err)
		}
	}
	return nil
}
