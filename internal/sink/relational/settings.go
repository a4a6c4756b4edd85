package relational

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"naru/internal/quantity"
)

// Settings are what these sinks have in common, inlined into those of each.
type Settings struct {
	Table   string            `yaml:"table"`   // t, or schema.t
	Mode    string            `yaml:"mode"`    // append or upsert
	Key     []string          `yaml:"key"`     // of an upsert
	RowKey  string            `yaml:"row_key"` // a column that each row's place goes to; empty: none
	Create  bool              `yaml:"create"`  // tables and columns that are missing
	Timeout quantity.Duration `yaml:"timeout"`
}

// Modes.
const (
	Append = "append"
	Upsert = "upsert"
)

// DefaultSettings are those of a sink that sets nothing.
func DefaultSettings() Settings {
	return Settings{Mode: Append, Create: true, Timeout: quantity.Duration(time.Minute)}
}

// Validate tells what cannot work. name says what the database would not take as a
// name.
func (s *Settings) Validate(name func(string) error) error {
	if s.Table == "" {
		return errors.New("table: is missing: the table to write, as in orders or sales.orders")
	}
	if strings.Count(s.Table, ".") > 1 {
		return fmt.Errorf("table: %q has more than one dot: write schema.table", s.Table)
	}
	for part := range strings.SplitSeq(s.Table, ".") {
		if err := name(part); err != nil {
			return fmt.Errorf("table: %w", err)
		}
	}
	switch {
	case s.Mode != Append && s.Mode != Upsert:
		return fmt.Errorf("mode: %q is neither append nor upsert", s.Mode)
	case s.Mode == Upsert && len(s.Key) == 0:
		return errors.New("key: is missing: the columns by which mode upsert finds the row to replace, as in [_id]")
	case s.Mode == Append && len(s.Key) > 0:
		return errors.New("key: is of mode upsert alone: set mode: upsert, or leave the key out")
	}
	for i, column := range s.Key {
		if err := name(column); err != nil {
			return fmt.Errorf("key: %w", err)
		}
		if slices.Contains(s.Key[:i], column) {
			return fmt.Errorf("key: names %s twice", column)
		}
	}
	if s.RowKey != "" {
		if err := name(s.RowKey); err != nil {
			return fmt.Errorf("row_key: %w", err)
		}
		if slices.Contains(s.Key, s.RowKey) {
			return fmt.Errorf("row_key: %s is a column of key, and each row has one of its own", s.RowKey)
		}
	}
	if s.Timeout.Std() <= 0 {
		return errors.New("timeout: must be more than 0s")
	}
	return nil
}

// Owned is what no other sink may write: the values of RowKey in a table, by which a
// rewind deletes. address is the database's.
func (s *Settings) Owned(address string) string {
	if s.RowKey == "" {
		return ""
	}
	if u, err := url.Parse(address); err == nil { // who writes there does not matter
		address = u.Host + u.Path
	}
	return fmt.Sprintf("row_key %s of table %s in %s", s.RowKey, s.Table, address)
}

// Beside is the name of a table in the schema of Table.
func (s *Settings) Beside(name string) string {
	if schema, _, ok := strings.Cut(s.Table, "."); ok {
		return schema + "." + name
	}
	return name
}
