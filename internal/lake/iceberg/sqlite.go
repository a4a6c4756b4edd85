package iceberg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"naru/internal/fault"
	"naru/internal/lake"
)

// SQLiteCatalog keeps the rows in one SQLite file, in the layout of Iceberg's
// JdbcCatalog, schema version V1 (docs/format/lake-commits.md), so that Spark,
// Trino and PyIceberg can read it.
//
// synchronous=FULL is part of the promise: with WAL and NORMAL a committed row
// may vanish at a power cut, and the log's watermark would be ahead of a table.
type SQLiteCatalog struct {
	db   *sql.DB
	path string
}

const (
	createTables = `CREATE TABLE IF NOT EXISTS iceberg_tables (
	catalog_name VARCHAR(255) NOT NULL,
	table_namespace VARCHAR(255) NOT NULL,
	table_name VARCHAR(255) NOT NULL,
	metadata_location VARCHAR(1000),
	previous_metadata_location VARCHAR(1000),
	iceberg_type VARCHAR(5),
	PRIMARY KEY (catalog_name, table_namespace, table_name)
)`
	createNamespaces = `CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (
	catalog_name VARCHAR(255) NOT NULL,
	namespace VARCHAR(255) NOT NULL,
	property_key VARCHAR(255) NOT NULL,
	property_value VARCHAR(1000),
	PRIMARY KEY (catalog_name, namespace, property_key)
)`
	isTable = `catalog_name = '` + CatalogName + `' AND (iceberg_type = 'TABLE' OR iceberg_type IS NULL)`
)

// OpenSQLite opens or makes the catalog at path.
func OpenSQLite(ctx context.Context, path string) (*SQLiteCatalog, error) {
	// Pragmas in the DSN are set on every connection of the pool.
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)"}}
	dsn := (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String()
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("open catalog %s: %w", path, err)
	}
	// Commits are one at a time anyway; a few more connections let readers in.
	db.SetMaxOpenConns(4)
	for _, ddl := range []string{createTables, createNamespaces} {
		if _, err := db.ExecContext(ctx, ddl); err != nil {
			return nil, errors.Join(fmt.Errorf("open catalog %s: %w", path, broken(path, err)), db.Close())
		}
	}
	return &SQLiteCatalog{db: db, path: path}, nil
}

// broken makes an error of SQLite that tells of damage a *fault.Corrupt, and says
// what to do about a lock that others keep.
func broken(path string, err error) error {
	var se *sqlite.Error
	if errors.As(err, &se) && (se.Code()&0xff == sqlite3.SQLITE_CORRUPT || se.Code()&0xff == sqlite3.SQLITE_NOTADB) {
		f := CheckedFile{Kind: KindCatalog, Path: path}
		return fault.WithHint(&fault.Corrupt{Path: path, Offset: -1, Reason: err.Error()}, "%s", cureOf(f))
	}
	if errors.As(err, &se) && (se.Code()&0xff == sqlite3.SQLITE_BUSY || se.Code()&0xff == sqlite3.SQLITE_LOCKED) {
		return fault.WithHint(fault.Transient(err), "another process keeps %s locked: let it end its transaction or close the file (fuser %s names it)", path, path)
	}
	return err
}

// Check reads the whole file. SQLite has no checksums: a changed byte in a row
// shows only by what the row then leads to.
func (c *SQLiteCatalog) Check(ctx context.Context) (f CheckedFile, err error) {
	f = CheckedFile{Kind: KindCatalog, Path: c.path, Verdict: Unsummed, Offset: -1}
	bad := func(reason string) (CheckedFile, error) {
		f.Verdict, f.Reason = Damaged, reason
		return f, nil
	}
	rows, err := c.db.QueryContext(ctx, `PRAGMA integrity_check`)
	if err == nil {
		defer func() { err = errors.Join(err, rows.Close()) }()
		for rows.Next() {
			var text string
			if err := rows.Scan(&text); err != nil {
				return f, err
			}
			if text != "ok" {
				return bad(text)
			}
		}
		err = rows.Err()
	}
	var damage *fault.Corrupt
	if errors.As(broken(c.path, err), &damage) {
		return bad(damage.Reason)
	}
	return f, err
}

// Location implements Catalog.
func (c *SQLiteCatalog) Location(ctx context.Context, t lake.Ident) (string, error) {
	var loc sql.NullString
	err := c.db.QueryRowContext(ctx, `SELECT metadata_location FROM iceberg_tables
		WHERE `+isTable+` AND table_namespace = ? AND table_name = ?`, t.Namespace, t.Name).Scan(&loc)
	if errors.Is(err, sql.ErrNoRows) {
		return "", lake.ErrNoTable
	}
	if err != nil {
		return "", fmt.Errorf("look up %s in catalog: %w", t, broken(c.path, err))
	}
	return loc.String, nil
}

// Swap implements Catalog.
func (c *SQLiteCatalog) Swap(ctx context.Context, t lake.Ident, from, to string) error {
	if from == "" {
		return c.create(ctx, t, to)
	}
	res, err := c.db.ExecContext(ctx, `UPDATE iceberg_tables
		SET metadata_location = ?, previous_metadata_location = ?, iceberg_type = 'TABLE'
		WHERE `+isTable+` AND table_namespace = ? AND table_name = ? AND metadata_location = ?`,
		to, from, t.Namespace, t.Name, from)
	if err != nil {
		return fmt.Errorf("update %s in catalog: %w", t, broken(c.path, err))
	}
	n, err := res.RowsAffected()
	if err != nil {
		return fmt.Errorf("update %s in catalog: %w", t, broken(c.path, err))
	}
	if n == 0 {
		return ErrConflict
	}
	return nil
}

func (c *SQLiteCatalog) create(ctx context.Context, t lake.Ident, to string) error {
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("create %s in catalog: %w", t, broken(c.path, err))
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	// The row by which the Java catalog knows that a namespace exists.
	if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO iceberg_namespace_properties VALUES (?, ?, 'exists', 'true')`,
		CatalogName, t.Namespace); err != nil {
		return fmt.Errorf("create namespace %s in catalog: %w", t.Namespace, err)
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO iceberg_tables
		(catalog_name, table_namespace, table_name, metadata_location, iceberg_type) VALUES (?, ?, ?, ?, 'TABLE')`,
		CatalogName, t.Namespace, t.Name, to)
	var se *sqlite.Error
	if errors.As(err, &se) && se.Code()&0xff == sqlite3.SQLITE_CONSTRAINT {
		return ErrConflict
	}
	if err != nil {
		return fmt.Errorf("create %s in catalog: %w", t, broken(c.path, err))
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("create %s in catalog: %w", t, broken(c.path, err))
	}
	return nil
}

// Replace implements Catalog.
func (c *SQLiteCatalog) Replace(ctx context.Context, t, by, old lake.Ident) error {
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("replace %s in catalog: %w", t, broken(c.path, err))
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	rename := func(from, to lake.Ident) (bool, error) {
		res, err := tx.ExecContext(ctx, `UPDATE iceberg_tables SET table_namespace = ?, table_name = ?
			WHERE `+isTable+` AND table_namespace = ? AND table_name = ?`, to.Namespace, to.Name, from.Namespace, from.Name)
		if err != nil {
			return false, err
		}
		n, err := res.RowsAffected()
		return n > 0, err
	}
	_, err = rename(t, old) // there may be none
	done := false
	if err == nil {
		done, err = rename(by, t)
	}
	var se *sqlite.Error
	if errors.As(err, &se) && se.Code()&0xff == sqlite3.SQLITE_CONSTRAINT || err == nil && !done {
		return ErrConflict
	}
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		return fmt.Errorf("replace %s in catalog: %w", t, broken(c.path, err))
	}
	return nil
}

// Drop implements Catalog.
func (c *SQLiteCatalog) Drop(ctx context.Context, t lake.Ident) error {
	res, err := c.db.ExecContext(ctx, `DELETE FROM iceberg_tables
		WHERE `+isTable+` AND table_namespace = ? AND table_name = ?`, t.Namespace, t.Name)
	if err != nil {
		return fmt.Errorf("drop %s in catalog: %w", t, broken(c.path, err))
	}
	if n, err := res.RowsAffected(); err == nil && n == 0 {
		return lake.ErrNoTable
	}
	return nil
}

// List implements Catalog. Namespaces of more than one level are other
// engines' and are left out: their dotted names cannot be told apart.
func (c *SQLiteCatalog) List(ctx context.Context) (out []lake.Ident, err error) {
	rows, err := c.db.QueryContext(ctx, `SELECT table_namespace, table_name FROM iceberg_tables
		WHERE `+isTable+` AND table_namespace NOT LIKE '%.%' ORDER BY 1, 2`)
	if err != nil {
		return nil, fmt.Errorf("list tables in catalog: %w", broken(c.path, err))
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var t lake.Ident
		if err := rows.Scan(&t.Namespace, &t.Name); err != nil {
			return nil, fmt.Errorf("list tables in catalog: %w", broken(c.path, err))
		}
		out = append(out, t)
	}
	return out, broken(c.path, rows.Err())
}

// Close implements Catalog.
func (c *SQLiteCatalog) Close() error { return c.db.Close() }
