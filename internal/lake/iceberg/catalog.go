package iceberg

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"naru/internal/lake"
)

// CatalogName stands in every catalog row. Spark, Trino and PyIceberg have to
// attach under this name.
const CatalogName = "naru"

// ErrConflict: the catalog has surely refused a Swap; nothing was changed.
var ErrConflict = errors.New("table was changed by someone else")

// Catalog keeps, for every table, where its newest metadata file lies. Safe for
// concurrent use.
type Catalog interface {
	// Location returns the table's metadata file; lake.ErrNoTable when there is none.
	Location(ctx context.Context, t lake.Ident) (string, error)
	// Swap moves the table from one metadata file to the next, durably; an empty
	// from creates the table. ErrConflict means that the table was not at from
	// and nothing was changed. After any other error it is unknown whether the
	// swap has happened, or will yet: look at Location.
	Swap(ctx context.Context, t lake.Ident, from, to string) error
	// Replace puts the table by in the place of t, and t, if it is there, in the place
	// of old: in one durable step, so that nobody ever sees neither. ErrConflict means
	// that there is no by, or already an old, and nothing was changed; any other error
	// leaves it unknown.
	Replace(ctx context.Context, t, by, old lake.Ident) error
	// Drop removes the table's row; its files stay.
	Drop(ctx context.Context, t lake.Ident) error
	// List names all tables, sorted by namespace and name.
	List(ctx context.Context) ([]lake.Ident, error)
	Close() error
}

// MemoryCatalog is a Catalog for tests: what Swap has returned is durable, and
// Clone is what a power cut would leave.
type MemoryCatalog struct {
	mu struct {
		sync.Mutex
		rows   map[lake.Ident]string
		copies map[string]*MemoryCatalog // by the path that CopyTo was given
	}
}

// NewMemoryCatalog returns an empty catalog.
func NewMemoryCatalog() *MemoryCatalog {
	c := &MemoryCatalog{}
	c.mu.rows = map[lake.Ident]string{}
	return c
}

// Clone copies the rows as they are now.
func (c *MemoryCatalog) Clone() *MemoryCatalog {
	n := NewMemoryCatalog()
	c.mu.Lock()
	defer c.mu.Unlock()
	for t, loc := range c.mu.rows {
		n.mu.rows[t] = loc
	}
	return n
}

// Location implements Catalog.
func (c *MemoryCatalog) Location(ctx context.Context, t lake.Ident) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	loc, ok := c.mu.rows[t]
	if !ok {
		return "", lake.ErrNoTable
	}
	return loc, nil
}

// Swap implements Catalog.
func (c *MemoryCatalog) Swap(ctx context.Context, t lake.Ident, from, to string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.rows[t] != from {
		return ErrConflict
	}
	c.mu.rows[t] = to
	return nil
}

// Replace implements Catalog.
func (c *MemoryCatalog) Replace(ctx context.Context, t, by, old lake.Ident) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next, ok := c.mu.rows[by]
	if _, taken := c.mu.rows[old]; !ok || taken {
		return ErrConflict
	}
	if was, ok := c.mu.rows[t]; ok {
		c.mu.rows[old] = was
	}
	c.mu.rows[t] = next
	delete(c.mu.rows, by)
	return nil
}

// Drop implements Catalog.
func (c *MemoryCatalog) Drop(_ context.Context, t lake.Ident) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.mu.rows[t]; !ok {
		return lake.ErrNoTable
	}
	delete(c.mu.rows, t)
	return nil
}

// List implements Catalog.
func (c *MemoryCatalog) List(context.Context) ([]lake.Ident, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]lake.Ident, 0, len(c.mu.rows))
	for t := range c.mu.rows {
		out = append(out, t)
	}
	slices.SortFunc(out, compareIdents)
	return out, nil
}

// Close implements Catalog.
func (c *MemoryCatalog) Close() error { return nil }

func compareIdents(a, b lake.Ident) int {
	if n := strings.Compare(a.Namespace, b.Namespace); n != 0 {
		return n
	}
	return strings.Compare(a.Name, b.Name)
}
