// Package postgres is the sink that writes rows into a table of a PostgreSQL
// database, exactly once: the reader's positions are in the same transaction.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"naru/internal/fault"
	"naru/internal/sink"
	"naru/internal/sink/relational"
)

// Kind is the kind of sink `postgres`.
func Kind() sink.Kind {
	return sink.Kind{
		Name:      "postgres",
		Settings:  func() sink.Settings { return defaults() },
		Tabular:   func(sink.Settings) bool { return true },
		Guarantee: "exactly once; positions are in the transaction of the rows",
	}
}

// Settings of a sink.
type Settings struct {
	URL                 string `yaml:"url"`          // postgres://user@host:5432/database?sslmode=verify-full
	PasswordEnv         string `yaml:"password_env"` // the variable that has the password
	relational.Settings `yaml:",inline"`
}

func defaults() *Settings {
	return &Settings{Settings: relational.DefaultSettings()}
}

// longestName is what PostgreSQL keeps of a name, in bytes: it cuts off the rest.
const longestName = 63

// Owns says what only one sink may write to.
func (s *Settings) Owns(string) string { return s.Owned(s.URL) }

// Validate implements sink.Settings.
func (s *Settings) Validate() error {
	if err := s.validURL(); err != nil {
		return err
	}
	return s.Settings.Validate(validName)
}

func (s *Settings) validURL() error {
	if s.URL == "" {
		return errors.New("url: is missing, as in postgres://user@127.0.0.1:5432/database")
	}
	u, err := url.Parse(s.URL)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return errors.New("url: must be postgres://user@host:port/database") // without it: it may hold a password
	}
	if _, has := u.User.Password(); has || u.Query().Has("password") {
		return errors.New("url: has a password in it: name the environment variable that holds it by password_env")
	}
	if _, err := pgconn.ParseConfig(s.URL); err != nil {
		return fmt.Errorf("url: %w", err)
	}
	return nil
}

// validName tells what PostgreSQL would not keep of a name.
func validName(name string) error {
	switch {
	case name == "":
		return errors.New("a name is empty")
	case len(name) > longestName:
		return fmt.Errorf("%q has %d bytes, a name in PostgreSQL has at most %d", name, len(name), longestName)
	case strings.ContainsRune(name, 0):
		return fmt.Errorf("%q has a character U+0000, which no name in PostgreSQL has", name)
	}
	return nil
}

// Open implements sink.Settings.
func (s *Settings) Open(ctx context.Context, env sink.Env) (sink.Sink, error) {
	cfg, err := pgconn.ParseConfig(s.URL)
	if err != nil {
		return nil, fmt.Errorf("read url of %s: %w", env.Name, err)
	}
	if s.PasswordEnv != "" {
		if cfg.Password = env.Getenv(s.PasswordEnv); cfg.Password == "" {
			return nil, fault.WithHint(fmt.Errorf("open sink %s: the variable %s is not set", env.Name, s.PasswordEnv),
				"start naru serve with %s in its environment", s.PasswordEnv)
		}
	}
	cfg.RuntimeParams["client_encoding"] = "UTF8"
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "naru"
	}
	db, err := connect(ctx, cfg, s, env.Reader)
	if err != nil {
		return nil, err
	}
	sunk, err := relational.Open(ctx, db, relational.Config{Stream: env.Stream, Target: "table " + s.Table, Key: s.Key, RowKey: s.RowKey,
		StatementBytes: statementBytes, StatementRows: statementRows})
	if err != nil {
		return nil, err // not a nil *relational.Sink
	}
	return sunk, nil
}

// One COPY takes at most so much: what has a row that is refused is sent again by
// halves.
const (
	statementBytes = 1 << 20
	statementRows  = 5000
)
