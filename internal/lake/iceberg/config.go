package iceberg

import (
	"errors"
	"time"

	"naru/internal/lake/columnar"
	"naru/internal/quantity"
)

// Config holds the lake's limits. They are the node's: all streams share them.
type Config struct {
	// CommitRate is how many table commits a second the node makes on average.
	// What waited longest goes first; five seconds' worth may go at once.
	CommitRate float64 `yaml:"commit_rate"`
	// MaxTables is the number of tables after which further types land in _other.
	MaxTables int `yaml:"max_tables"`
	// OpenWriters bounds the Parquet files open for writing.
	OpenWriters int `yaml:"open_writers"`
	// MaxPartitions is how many partitions one commit of a table may make files
	// for. Rows of further ones share a file without a partition.
	MaxPartitions int `yaml:"max_partitions"`
	// Memory bounds the rows of all tables that are in memory before they are
	// committed; beyond it the largest tables are committed at once.
	Memory quantity.Bytes `yaml:"memory"`
	// ExpireEvery commits the oldest snapshots are expired, so that
	// KeepSnapshots are left. It keeps commits flat.
	ExpireEvery   int `yaml:"expire_every"`
	KeepSnapshots int `yaml:"keep_snapshots"`
	// GCDelay is how long files that no snapshot needs any more stay for other
	// engines that may still read them. Own readers hold leases besides.
	GCDelay quantity.Duration `yaml:"gc_delay"`
	// PromoteLimit is the size of a table up to which its files are rewritten
	// when a whole-number column meets its first fraction.
	PromoteLimit quantity.Bytes `yaml:"promote_limit"`
	// Contracts bounds what is kept of contracts, each version that any event was
	// judged by, on disk and in memory. A contract beyond it does not come into force.
	Contracts quantity.Bytes `yaml:"contracts"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		CommitRate:    20,
		MaxTables:     1000,
		OpenWriters:   64,
		MaxPartitions: columnar.DefaultMaxPartitions,
		Memory:        128 * quantity.MiB,
		ExpireEvery:   50,
		KeepSnapshots: 20,
		GCDelay:       quantity.Duration(time.Hour),
		PromoteLimit:  quantity.GiB,
		Contracts:     64 * quantity.MiB,
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
	check(c.CommitRate <= 0, "commit_rate: must be more than 0, as in 20")
	check(c.MaxTables < 1, "max_tables: must be at least 1")
	check(c.OpenWriters < 1, "open_writers: must be at least 1")
	check(c.MaxPartitions < 1, "max_partitions: must be at least 1")
	check(c.Memory < quantity.MiB, "memory: must be at least 1MiB")
	check(c.ExpireEvery < 1, "expire_every: must be at least 1")
	check(c.KeepSnapshots < 1, "keep_snapshots: must be at least 1")
	check(c.GCDelay < 0, "gc_delay: must not be negative")
	check(c.PromoteLimit < 0, "promote_limit: must not be negative")
	check(c.Contracts < quantity.MiB, "contracts: must be at least 1MiB")
	return errors.Join(errs...)
}
