package iceberg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"

	"naru/internal/lake"
)

// catalogCopy is the catalog of a copy while it is made.
type catalogCopy interface {
	Catalog
	// Relocate sets the place of a table's metadata file, and forgets the one
	// before.
	Relocate(ctx context.Context, t lake.Ident, location string) error
	// Rebase gives all other places in the catalog, such as those of namespaces and
	// of what List leaves out, through to, which answers false for those that stay.
	Rebase(ctx context.Context, to func(location string) (string, bool)) error
	// Strangers names the rows that List leaves out.
	Strangers(ctx context.Context) ([]string, error)
}

// isStranger: a row that List leaves out.
const isStranger = `NOT (` + isTable + ` AND table_namespace NOT LIKE '%.%')`

// CopyTo writes the catalog, as it is at one moment, to a new file. Writers do
// not wait for it. The file is synced by the caller, once the copy is closed.
func (c *SQLiteCatalog) CopyTo(ctx context.Context, path string) (catalogCopy, error) {
	if _, err := c.db.ExecContext(ctx, `VACUUM INTO ?`, path); err != nil {
		return nil, fmt.Errorf("copy catalog to %s: %w", path, err)
	}
	copied, err := openSQLiteFile(path, url.Values{"_pragma": {"busy_timeout(10000)", "journal_mode(DELETE)", "synchronous(FULL)"}})
	if err != nil {
		return nil, err
	}
	return copied, nil
}

// OpenSQLiteCopy opens the catalog of a folder that nobody writes to, and leaves
// no trace beside it.
func OpenSQLiteCopy(path string) (*SQLiteCatalog, error) {
	return openSQLiteFile(path, url.Values{"mode": {"ro"}, "immutable": {"1"}})
}

func openSQLiteFile(path string, q url.Values) (*SQLiteCatalog, error) {
	dsn := (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String()
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("open catalog %s: %w", path, err)
	}
	return &SQLiteCatalog{db: db, path: path}, nil
}

// Relocate implements catalogCopy.
func (c *SQLiteCatalog) Relocate(ctx context.Context, t lake.Ident, location string) error {
	res, err := c.db.ExecContext(ctx, `UPDATE iceberg_tables SET metadata_location = ?, previous_metadata_location = NULL
		WHERE `+isTable+` AND table_namespace = ? AND table_name = ?`, location, t.Namespace, t.Name)
	if err != nil {
		return fmt.Errorf("relocate %s in catalog: %w", t, err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return fmt.Errorf("relocate %s in catalog: %d rows, %w", t, n, errors.Join(err, lake.ErrNoTable))
	}
	return nil
}

// Rebase implements catalogCopy.
func (c *SQLiteCatalog) Rebase(ctx context.Context, to func(string) (string, bool)) error {
	for _, r := range []rowsOf{{"iceberg_tables", "metadata_location", isStranger}, {"iceberg_tables", "previous_metadata_location", isStranger},
		{"iceberg_namespace_properties", "property_value", "true"}} {
		if err := c.rebase(ctx, r, to); err != nil {
			return fmt.Errorf("relocate %s in catalog: %w", r.table, err)
		}
	}
	// Changed rows leave their old text behind in free space.
	if _, err := c.db.ExecContext(ctx, `VACUUM`); err != nil {
		return fmt.Errorf("relocate catalog: %w", err)
	}
	return nil
}

// rowsOf is a column of the rows that a condition names.
type rowsOf struct{ table, column, where string }

func (c *SQLiteCatalog) rebase(ctx context.Context, r rowsOf, to func(string) (string, bool)) (err error) {
	rows, err := c.db.QueryContext(ctx, `SELECT DISTINCT `+r.column+` FROM `+r.table+` WHERE `+r.column+` IS NOT NULL AND `+r.where)
	if err != nil {
		return err
	}
	moved := map[string]string{}
	for rows.Next() {
		var was string
		if err := rows.Scan(&was); err != nil {
			return errors.Join(err, rows.Close())
		}
		if now, ok := to(was); ok {
			moved[was] = now
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	for was, now := range moved {
		if _, err := c.db.ExecContext(ctx, `UPDATE `+r.table+` SET `+r.column+` = ? WHERE `+r.column+` = ? AND `+r.where, now, was); err != nil {
			return err
		}
	}
	return nil
}

// Strangers implements catalogCopy.
func (c *SQLiteCatalog) Strangers(ctx context.Context) (out []string, err error) {
	rows, err := c.db.QueryContext(ctx, `SELECT catalog_name || ': ' || table_namespace || '.' || table_name FROM iceberg_tables
		WHERE `+isStranger+` ORDER BY 1`)
	if err != nil {
		return nil, fmt.Errorf("list tables in catalog: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, fmt.Errorf("list tables in catalog: %w", err)
		}
		out = append(out, name)
	}
	return out, rows.Err()
}

// CopyTo implements the same for tests: there is no file, Copied has the copy.
func (c *MemoryCatalog) CopyTo(_ context.Context, path string) (catalogCopy, error) {
	made := c.Clone()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.copies == nil {
		c.mu.copies = map[string]*MemoryCatalog{}
	}
	c.mu.copies[path] = made
	return made, nil
}

// Copied is the last copy that was made to a path, nil if there is none.
func (c *MemoryCatalog) Copied(path string) *MemoryCatalog {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.copies[path]
}

// Relocate implements catalogCopy.
func (c *MemoryCatalog) Relocate(_ context.Context, t lake.Ident, location string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.rows[t] = location
	return nil
}

// Rebase implements catalogCopy: there is nothing else.
func (c *MemoryCatalog) Rebase(context.Context, func(string) (string, bool)) error { return nil }

// Strangers implements catalogCopy: it knows only what naru writes.
func (c *MemoryCatalog) Strangers(context.Context) ([]string, error) { return nil, nil }
