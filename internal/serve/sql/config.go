package sql

import (
	"errors"
	"time"

	"naru/internal/quantity"
)

// Config of the door.
type Config struct {
	// MaxSQL is the longest statement; the engine has the same limit.
	MaxSQL quantity.Bytes `yaml:"max_sql"`
	// WriteTimeout is how long a client may take to read one block of its
	// answer before it is cut off and its query cancelled.
	WriteTimeout quantity.Duration `yaml:"write_timeout"`
}

// DefaultConfig gives the limits of DOOR.md.
func DefaultConfig() Config {
	return Config{MaxSQL: quantity.MiB, WriteTimeout: quantity.Duration(30 * time.Second)}
}

// Validate names the first setting that cannot work.
func (c Config) Validate() error {
	switch {
	case c.MaxSQL < 1:
		return errors.New("query.max_sql: must be at least 1B")
	case c.WriteTimeout <= 0:
		return errors.New("query.write_timeout: must be more than 0s")
	}
	return nil
}
