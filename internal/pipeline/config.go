package pipeline

import (
	"errors"
	"time"

	"naru/internal/quantity"
)

// Config holds the settings of all pipelines.
type Config struct {
	// CommitInterval is how long rows may wait for their commit.
	CommitInterval quantity.Duration `yaml:"commit_interval"`
	// CommitBytes of rows held by a sink force a commit before the interval ends: the
	// data of events and 256 bytes for each. They are in files by then, but for the
	// last row group: it bounds what is read again after a crash.
	CommitBytes quantity.Bytes `yaml:"commit_bytes"`
	// ReadBytes is how much a reader takes from the log at once. In memory are one
	// such read for each partition, one that waits, and one that the sink works on. The sinks of all configured pipelines
	// share it, but for 64 KiB that each has in any case.
	ReadBytes quantity.Bytes `yaml:"read_bytes"`
	// Shared is how many bytes of rows all configured pipelines together keep for those
	// of their sinks that are a little behind; sinks further behind compute theirs again.
	Shared quantity.Bytes `yaml:"shared"`
	// DrainTimeout bounds the last commit at shutdown. What it does not cover is
	// loaded again at the next start.
	DrainTimeout quantity.Duration `yaml:"drain_timeout"`
	// BackoffMin and BackoffMax bound the pause after an error; it doubles.
	BackoffMin quantity.Duration `yaml:"backoff_min"`
	BackoffMax quantity.Duration `yaml:"backoff_max"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		CommitInterval: quantity.Duration(5 * time.Second),
		CommitBytes:    256 * quantity.MiB,
		ReadBytes:      2 * quantity.MiB,
		Shared:         8 * quantity.MiB,
		DrainTimeout:   quantity.Duration(20 * time.Second),
		BackoffMin:     quantity.Duration(100 * time.Millisecond),
		BackoffMax:     quantity.Duration(30 * time.Second),
	}
}

// Validate tells which value cannot work, by its key.
func (c Config) Validate() error {
	var errs []error
	check := func(bad bool, text string) {
		if bad {
			errs = append(errs, errors.New(text))
		}
	}
	check(c.CommitInterval <= 0, "commit_interval: must be more than 0, as in 5s")
	check(c.CommitBytes <= 0, "commit_bytes: must be more than 0, as in 64MiB")
	check(c.ReadBytes < 64*quantity.KiB, "read_bytes: must be at least 64KiB")
	check(c.Shared < 0, "shared: must not be negative")
	check(c.DrainTimeout < 0, "drain_timeout: must not be negative")
	check(c.BackoffMin <= 0, "backoff_min: must be more than 0, as in 100ms")
	check(c.BackoffMax < c.BackoffMin, "backoff_max: must be at least backoff_min")
	return errors.Join(errs...)
}
