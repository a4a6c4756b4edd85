// Package secure is how sinks encrypt their connections: the key `tls` of their
// settings.
package secure

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"naru/internal/sink"
)

// TLS says how connections are encrypted. Paths are relative to the project's folder.
type TLS struct {
	Enabled bool   `yaml:"enabled"`
	CA      string `yaml:"ca"`   // PEM; empty: the roots of the system
	Cert    string `yaml:"cert"` // PEM, with Key, where the target wants to know its clients
	Key     string `yaml:"key"`
}

// Validate tells what cannot work, beginning with the key.
func (t TLS) Validate() error {
	if !t.Enabled && (t.CA != "" || t.Cert != "" || t.Key != "") {
		return errors.New("tls.enabled: must be true for the other keys to mean anything")
	}
	if (t.Cert == "") != (t.Key == "") {
		return errors.New("tls: cert and key go together")
	}
	return nil
}

// Config reads the files. It is nil when connections are not encrypted.
func (t TLS) Config(env sink.Env) (*tls.Config, error) {
	if !t.Enabled {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		pem, err := read(env, t.CA)
		if err != nil {
			return nil, fmt.Errorf("read tls.ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read tls.ca: %s has no certificate in PEM", t.CA)
		}
	}
	if t.Cert != "" {
		cert, err := read(env, t.Cert)
		if err != nil {
			return nil, fmt.Errorf("read tls.cert: %w", err)
		}
		key, err := read(env, t.Key)
		if err != nil {
			return nil, fmt.Errorf("read tls.key: %w", err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("read tls.cert and tls.key: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// largest is more than any chain of certificates takes.
const largest = 1 << 20

func read(env sink.Env, path string) (_ []byte, err error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(env.Dir, path)
	}
	f, err := env.FS.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(io.NewSectionReader(f, 0, largest))
}
