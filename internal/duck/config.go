package duck

import (
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	"naru/internal/quantity"
)

// Config of the engine for user SQL.
type Config struct {
	// Memory that all queries together may use; beyond it they spill to Temp.
	Memory quantity.Bytes `yaml:"memory"`
	// Threads that all queries share.
	Threads int `yaml:"threads"`
	// TempSize bounds what spills to disk.
	TempSize quantity.Bytes `yaml:"temp_size"`
	// Concurrent queries; one more waits for at most Wait.
	Concurrent int               `yaml:"concurrent"`
	Wait       quantity.Duration `yaml:"wait"`
	// Timeout of a query, from its start to its last row.
	Timeout quantity.Duration `yaml:"timeout"`
	// MaxRows and MaxResult bound an answer; a longer one is cut with an error.
	MaxRows   int64          `yaml:"max_rows"`
	MaxResult quantity.Bytes `yaml:"max_result"`
	// MaxSQL is the longest statement.
	MaxSQL quantity.Bytes `yaml:"max_sql"`

	// Warehouse is the folder below which all data files lie: the only one that
	// DuckDB may read.
	Warehouse string `yaml:"-"`
	// HotTail is the folder of rows that are not yet committed. Beside the
	// warehouse, DuckDB may read it. Empty: there is none.
	HotTail string `yaml:"-"`
	// Temp is the folder for spilling, emptied at Open.
	Temp string `yaml:"-"`
}

// DefaultConfig gives the limits for one machine that also collects events.
func DefaultConfig() Config {
	return Config{
		Memory:     quantity.GiB,
		Threads:    runtime.NumCPU(),
		TempSize:   8 * quantity.GiB,
		Concurrent: 8,
		Wait:       quantity.Duration(time.Second),
		Timeout:    quantity.Duration(time.Minute),
		MaxRows:    1_000_000,
		MaxResult:  quantity.GiB,
		MaxSQL:     quantity.MiB,
	}
}

// Validate names the first setting that cannot work.
func (c Config) Validate() error {
	for _, s := range []struct {
		name string
		ok   bool
		want string
	}{
		{"memory", c.Memory >= 64*quantity.MiB, "at least 64MiB"},
		{"threads", c.Threads >= 1, "at least 1"},
		{"temp_size", c.TempSize >= 0, "not negative"},
		{"concurrent", c.Concurrent >= 1, "at least 1"},
		{"wait", c.Wait >= 0, "not negative"},
		{"timeout", c.Timeout > 0, "more than 0s"},
		{"max_rows", c.MaxRows >= 1, "at least 1"},
		{"max_result", c.MaxResult >= quantity.KiB, "at least 1KiB"},
		{"max_sql", c.MaxSQL >= 1, "at least 1B"},
	} {
		if !s.ok {
			return fmt.Errorf("query.%s: must be %s", s.name, s.want)
		}
	}
	for name, dir := range map[string]string{"warehouse": c.Warehouse, "temp": c.Temp} {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("query: the %s folder %q is not an absolute path", name, dir)
		}
	}
	return nil
}

// roots are the names of the folders that DuckDB may read: as configured and, when
// a link leads there, the folder itself.
func (c Config) roots() []string {
	var roots []string
	for _, dir := range []string{c.Warehouse, c.HotTail} {
		if dir == "" {
			continue
		}
		roots = append(roots, dir)
		if real, err := filepath.EvalSymlinks(dir); err == nil && real != dir {
			roots = append(roots, real)
		}
	}
	return roots
}
