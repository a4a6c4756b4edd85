// Package mysql is the sink that writes rows into a table of a MariaDB or MySQL
// database, exactly once: the reader's positions are in the same transaction.
package mysql

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"unicode/utf8"

	"naru/internal/fault"
	"naru/internal/sink"
	"naru/internal/sink/relational"
)

// Kind is the kind of sink `mysql`.
func Kind() sink.Kind {
	return sink.Kind{
		Name:      "mysql",
		Settings:  func() sink.Settings { return defaults() },
		Tabular:   func(sink.Settings) bool { return true },
		Guarantee: "exactly once; positions are in the transaction of the rows",
	}
}

// Settings of a sink.
type Settings struct {
	URL                 string `yaml:"url"`          // mysql://user@host:3306/database
	PasswordEnv         string `yaml:"password_env"` // the variable that has the password
	TLS                 string `yaml:"tls"`          // verify, insecure or off; empty: verify unless the host is this machine
	relational.Settings `yaml:",inline"`
}

func defaults() *Settings {
	return &Settings{Settings: relational.DefaultSettings()}
}

// How the connection is encrypted.
const (
	tlsVerify   = "verify"
	tlsInsecure = "insecure"
	tlsOff      = "off"
)

// longestName is what a name may have, in characters.
const longestName = 64

// Owns says what only one sink may write to.
func (s *Settings) Owns(string) string { return s.Owned(s.URL) }

// Validate implements sink.Settings.
func (s *Settings) Validate() error {
	if _, err := s.server(); err != nil {
		return err
	}
	switch s.TLS {
	case "", tlsVerify, tlsInsecure, tlsOff:
	default:
		return fmt.Errorf("tls: %q is neither verify nor insecure nor off", s.TLS)
	}
	return s.Settings.Validate(validName)
}

// server is the url taken apart.
type server struct{ host, port, user, database string }

func (s *Settings) server() (server, error) {
	if s.URL == "" {
		return server{}, errors.New("url: is missing, as in mysql://user@127.0.0.1:3306/database")
	}
	u, err := url.Parse(s.URL)
	if err != nil || u.Scheme != "mysql" && u.Scheme != "mariadb" || u.Hostname() == "" {
		return server{}, errors.New("url: must be mysql://user@host:port/database") // without it: it may hold a password
	}
	if _, has := u.User.Password(); has {
		return server{}, errors.New("url: has a password in it: name the environment variable that holds it by password_env")
	}
	out := server{host: u.Hostname(), port: u.Port(), user: u.User.Username(), database: strings.TrimPrefix(u.Path, "/")}
	if out.port == "" {
		out.port = "3306"
	}
	switch {
	case out.user == "":
		return server{}, errors.New("url: names no user: mysql://user@host:port/database")
	case out.database == "" || strings.Contains(out.database, "/"):
		return server{}, errors.New("url: names no database: mysql://user@host:port/database")
	case u.RawQuery != "" || u.Fragment != "":
		return server{}, errors.New("url: takes no parameters; encryption is set by tls")
	}
	return out, nil
}

// encryption is TLS, or what it is without.
func (s *Settings) encryption(host string) string {
	if s.TLS != "" {
		return s.TLS
	}
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		return tlsOff
	}
	return tlsVerify
}

// validName tells what no table and no column may be called.
func validName(name string) error {
	switch n := utf8.RuneCountInString(name); {
	case name == "":
		return errors.New("a name is empty")
	case n > longestName:
		return fmt.Errorf("%q has %d characters, a name in MySQL has at most %d", name, n, longestName)
	case strings.HasSuffix(name, " "):
		return fmt.Errorf("%q ends with a space, which no name in MySQL does", name)
	case strings.ContainsFunc(name, func(r rune) bool { return r == 0 || r > 0xFFFF }):
		return fmt.Errorf("%q has a character that no name in MySQL has (U+0000, or one beyond U+FFFF)", name)
	}
	return nil
}

// Open implements sink.Settings.
func (s *Settings) Open(ctx context.Context, env sink.Env) (sink.Sink, error) {
	at, err := s.server()
	if err != nil {
		return nil, err
	}
	var password string
	if s.PasswordEnv != "" {
		if password = env.Getenv(s.PasswordEnv); password == "" {
			return nil, fault.WithHint(fmt.Errorf("open sink %s: the variable %s is not set", env.Name, s.PasswordEnv),
				"start naru serve with %s in its environment", s.PasswordEnv)
		}
	}
	db, err := connect(ctx, at, password, s, env.Reader)
	if err != nil {
		return nil, err
	}
	sunk, err := relational.Open(ctx, db, relational.Config{Stream: env.Stream, Target: "table " + s.Table, Key: s.Key, RowKey: s.RowKey,
		StatementBytes: min(statementBytes, db.packet/2), StatementRows: statementRows})
	if err != nil {
		return nil, err // not a nil *relational.Sink
	}
	return sunk, nil
}

// One INSERT takes at most so much: what has a row that is refused is sent again by
// halves.
const (
	statementBytes = 1 << 20
	statementRows  = 5000
)
