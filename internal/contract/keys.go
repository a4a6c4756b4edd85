package contract

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"regexp"
	"strings"

	"naru/internal/vfs"
)

// PIIConfig says where the keys are that personal values are hashed with.
type PIIConfig struct {
	// Keys are ID=file:PATH or ID=env:NAME. The first one hashes; the others are
	// older and only looked up.
	Keys []string `yaml:"keys"`
}

// DefaultPIIConfig has no keys.
func DefaultPIIConfig() PIIConfig { return PIIConfig{Keys: []string{}} }

// keyEntry is ID=file:PATH or ID=env:NAME.
var keyEntry = regexp.MustCompile(`^([a-z0-9][a-z0-9_-]{0,15})=(file|env):(.+)$`)

// Validate names what cannot work. It reads no key.
func (c PIIConfig) Validate() error {
	seen := map[string]bool{}
	for i, entry := range c.Keys {
		m := keyEntry.FindStringSubmatch(entry)
		switch {
		case m == nil:
			// The entry is not repeated: it may be a key, put here by mistake.
			return fmt.Errorf("keys: entry %d is neither ID=file:PATH nor ID=env:NAME; an ID is 1 to 16 of a-z 0-9 _ -", i+1)
		case seen[m[1]]:
			return fmt.Errorf("keys: the id %s stands there twice", m[1])
		}
		seen[m[1]] = true
	}
	return nil
}

// Limits of a key, in bytes.
const (
	minKey = 16
	maxKey = 4096
)

// Keys hash personal values. The zero value has none. Read-only once made.
type Keys struct {
	keys   []key
	secret []byte // of digests
}

type key struct {
	id     string
	secret []byte
}

// ErrNoKey: a contract wants values hashed and no key is configured.
var ErrNoKey = errors.New("naru.pii hash needs a key: set pii.keys in naru.yaml, as in pii: {keys: [\"k1=file:pii.key\"]}")

// LoadKeys reads the keys. Paths are relative to dir. secret stands in for a key in
// digests where there is none. No error has any part of a key.
func LoadKeys(fsys vfs.FS, dir string, cfg PIIConfig, getenv func(string) string, secret []byte) (*Keys, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("read pii.%w", err)
	}
	k := &Keys{secret: secret}
	for _, entry := range cfg.Keys {
		m := keyEntry.FindStringSubmatch(entry)
		one, err := readKey(fsys, dir, m[2], m[3], getenv)
		if err != nil {
			return nil, fmt.Errorf("read pii.keys, key %s: %w", m[1], err)
		}
		k.keys = append(k.keys, key{m[1], one})
	}
	if n := len(k.keys); n > 0 {
		// The oldest: digests stay the same while a new key is put before it.
		k.secret = k.keys[n-1].secret
	}
	return k, nil
}

func readKey(fsys vfs.FS, dir, kind, at string, getenv func(string) string) ([]byte, error) {
	var text []byte
	if kind == "env" {
		value := getenv(at)
		if value == "" {
			return nil, fmt.Errorf("the environment variable %s is not set", at)
		}
		text = []byte(value)
	} else {
		if !filepath.IsAbs(at) {
			at = filepath.Join(dir, at)
		}
		f, err := fsys.Open(at)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if text, err = io.ReadAll(io.LimitReader(f, maxKey+2)); err != nil {
			return nil, err
		}
	}
	text = bytes.TrimRight(text, "\r\n")
	if len(text) < minKey || len(text) > maxKey {
		return nil, fmt.Errorf("it has %d bytes: want %d to %d; make one with: openssl rand -hex 32", len(text), minKey, maxKey)
	}
	return text, nil
}

// Allow tells whether all that contracts want can be done with these keys.
func (k *Keys) Allow(s *Set) error { return allow(s, len(k.keys)) }

// Allow is the same before the keys are read.
func (c PIIConfig) Allow(s *Set) error { return allow(s, len(c.Keys)) }

func allow(s *Set, keys int) error {
	var problems Problems
	for _, c := range s.Contracts {
		if !c.InForce() || keys > 0 {
			continue
		}
		for i := range c.Fields {
			if f := &c.Fields[i]; f.PII == PIIHash {
				problems = append(problems, Problem{File: c.File, Line: f.Line, Key: "schema[" + c.Type + "]." + f.Path, Text: ErrNoKey.Error()})
			}
		}
	}
	if problems != nil {
		return problems
	}
	return nil
}

// Tokens gives what stands for a value under each key, the one in use first.
func (k *Keys) Tokens(value string) []string {
	var out []string
	for i := range k.keys {
		m := k.macOf(i)
		out = append(out, string(m.token(nil, []byte(value))))
	}
	return out
}

// mac hashes values with one key.
type mac struct {
	id string
	h  hash.Hash
	in [sha256.Size]byte
}

func (k *Keys) macOf(i int) *mac {
	return &mac{id: k.keys[i].id, h: hmac.New(sha256.New, k.keys[i].secret)}
}

// token appends KEYID:HEX: HMAC-SHA-256 of the value.
func (m *mac) token(dst, value []byte) []byte {
	m.h.Reset()
	m.h.Write(value)
	dst = append(append(dst, m.id...), ':')
	return hex.AppendEncode(dst, m.h.Sum(m.in[:0]))
}

// isToken tells whether a text is what Tokens gives for some value: it was hashed
// before.
func (k *Keys) isToken(text []byte) bool {
	id, sum, ok := bytes.Cut(text, []byte{':'})
	if !ok || len(sum) != 2*sha256.Size {
		return false
	}
	for _, c := range sum {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	for i := range k.keys {
		if k.keys[i].id == string(id) {
			return true
		}
	}
	return false
}

// digestBytes is the length of a digest.
const digestBytes = 8

// Digester makes digests that tell nothing of what they are made of to those who
// do not have the key. Not for concurrent use.
type Digester struct{ h hash.Hash }

// Digester makes one.
func (k *Keys) Digester() *Digester { return &Digester{hmac.New(sha256.New, k.secret)} }

// Append appends a digest in hex of parts, in their order.
func (d *Digester) Append(dst []byte, parts ...[]byte) []byte {
	d.h.Reset()
	var size [8]byte
	for _, p := range parts {
		n := len(p)
		for i := range size {
			size[i] = byte(n >> (8 * i))
		}
		d.h.Write(size[:])
		d.h.Write(p)
	}
	var sum [sha256.Size]byte
	return hex.AppendEncode(dst, d.h.Sum(sum[:0])[:digestBytes])
}

// String hides the keys from whoever prints them.
func (k *Keys) String() string {
	var ids []string
	for i := range k.keys {
		ids = append(ids, k.keys[i].id)
	}
	return "keys(" + strings.Join(ids, ", ") + ")"
}

// GoString is String.
func (k *Keys) GoString() string { return k.String() }
