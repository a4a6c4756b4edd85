// Package hottail shows events to queries as soon as they are durable: what the
// log has and a table's snapshot has not, as rows in small local files. It works
// when a query asks, reads the log by itself and shares nothing with the loader,
// so nobody pays for it who does not ask, and what stops a table from taking rows
// does not hide them. Why so: docs/design/0010-hot-tail.md.
package hottail

import (
	"errors"

	"naru/internal/quantity"
)

// Config bounds the hot tail.
type Config struct {
	// Memory bounds what all hot tails hold: column buffers and their files, which
	// are never synced and mostly in the page cache. What does not fit is committed
	// first. 0 turns the hot tail off: queries then see what is committed.
	Memory quantity.Bytes `yaml:"memory"`
	// Events is how far behind the log a table's rows may be for a query to bring
	// them up. Where the loader is further behind, queries see what is committed.
	Events int64 `yaml:"events"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{Memory: 96 * quantity.MiB, Events: 1_000_000} }

// Validate tells which value cannot work, by its key.
func (c Config) Validate() error {
	var errs []error
	if c.Memory < 0 || c.Memory > 0 && c.Memory < 8*quantity.MiB {
		errs = append(errs, errors.New("memory: must be at least 8MiB, or 0 to turn the hot tail off"))
	}
	if c.Events < 0 {
		errs = append(errs, errors.New("events: must not be negative"))
	}
	return errors.Join(errs...)
}
