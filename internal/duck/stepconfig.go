package duck

import (
	"errors"
	"fmt"
	"time"

	"naru/internal/quantity"
)

// StepsConfig is the configuration of what computes the steps of pipelines.
type StepsConfig struct {
	// Memory that the steps of all pipelines together may use in DuckDB.
	Memory quantity.Bytes `yaml:"memory"`
	// Threads that they share, for what they read of tables.
	Threads int `yaml:"threads"`
	// Batch bounds the data of events that are computed at once.
	Batch quantity.Bytes `yaml:"batch"`
	// Rows bounds what is made of a batch of the log at once; the rest is computed when
	// that has been written. The rows of one event are never parted.
	Rows quantity.Bytes `yaml:"rows"`
	// Table is up to which size of its files a table that steps join is kept in memory,
	// and never more than an eighth of Memory; the files of larger ones are read again
	// for each batch.
	Table quantity.Bytes `yaml:"table"`
	// Refresh is how old the tables may be that steps read.
	Refresh quantity.Duration `yaml:"refresh"`
	// Idle is after how long without events a pipeline's steps give their memory back.
	Idle quantity.Duration `yaml:"idle"`

	// Warehouse and HotTail are as in Config.
	Warehouse string `yaml:"-"`
	HotTail   string `yaml:"-"`
	// Folder is where paths of files in steps begin.
	Folder string `yaml:"-"`
}

// DefaultStepsConfig leaves most of a machine to others.
func DefaultStepsConfig() StepsConfig {
	return StepsConfig{
		Memory:  256 * quantity.MiB,
		Threads: 1,
		Batch:   4 * quantity.MiB,
		Rows:    32 * quantity.MiB,
		Table:   16 * quantity.MiB,
		Refresh: quantity.Duration(5 * time.Second),
		Idle:    quantity.Duration(time.Minute),
	}
}

// Validate names what cannot work.
func (c StepsConfig) Validate() error {
	var errs []error
	for _, s := range []struct {
		name string
		ok   bool
		want string
	}{
		{"memory", c.Memory >= 32*quantity.MiB, "at least 32MiB"},
		{"threads", c.Threads >= 1 && c.Threads <= 64, "between 1 and 64"},
		{"batch", c.Batch >= 64*quantity.KiB && c.Batch <= quantity.GiB, "between 64KiB and 1GiB"},
		{"rows", c.Rows >= 64*quantity.KiB && c.Rows <= quantity.GiB, "between 64KiB and 1GiB"},
		{"table", c.Table >= 0, "not negative"},
		{"refresh", c.Refresh >= 0, "not negative"},
		{"idle", c.Idle >= quantity.Duration(time.Second), "at least 1s"},
	} {
		if !s.ok {
			errs = append(errs, fmt.Errorf("%s: must be %s", s.name, s.want))
		}
	}
	return errors.Join(errs...)
}

// engine is the configuration by which an instance for steps is opened.
func (c StepsConfig) engine() Config {
	return Config{Memory: c.Memory, Threads: c.Threads, Warehouse: c.Warehouse, HotTail: c.HotTail}
}
