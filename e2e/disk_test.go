package e2e

import (
	"database/sql"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"
)

// diskTable is a table as the disk holds it, read without naru.
type diskTable struct {
	name     string // namespace.table
	metadata string // path of the current metadata file
	location string
	rows     int64 // of the current snapshot
	commits  int   // sequence number of the newest snapshot
}

// readCatalog reads the tables of a folder whose server is down. It works on a
// copy, so that SQLite's own recovery leaves the original as the kill left it.
func readCatalog(t testing.TB, dir string) map[string]diskTable {
	t.Helper()
	out := map[string]diskTable{}
	copied := filepath.Join(t.TempDir(), "catalog.db")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		b, err := os.ReadFile(filepath.Join(dir, "data", "catalog.db"+suffix))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied+suffix, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(copied); err != nil {
		return out // killed before there was one
	}
	db, err := sql.Open("sqlite", "file:"+copied)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(`select table_namespace, table_name, metadata_location from iceberg_tables where catalog_name = 'naru'`)
	if err != nil {
		if strings.Contains(err.Error(), "no such table") {
			return out
		}
		t.Fatalf("read catalog: %v", err)
	}
	defer rows.Close()
	for rows.Next() {
		var namespace, name, location string
		if err := rows.Scan(&namespace, &name, &location); err != nil {
			t.Fatal(err)
		}
		table := readMetadata(t, localPath(t, location))
		table.name = namespace + "." + name
		out[table.name] = table
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("read catalog: %v", err)
	}
	return out
}

// localPath turns a location of the catalog into a path.
func localPath(t testing.TB, location string) string {
	t.Helper()
	if !strings.HasPrefix(location, "file:") {
		return location
	}
	u, err := url.Parse(location)
	if err != nil {
		t.Fatal(err)
	}
	return u.Path
}

func readMetadata(t testing.TB, path string) diskTable {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("the catalog names a file that cannot be read: %v", err)
	}
	var m struct {
		Location  string `json:"location"`
		Current   *int64 `json:"current-snapshot-id"`
		Snapshots []struct {
			ID       int64             `json:"snapshot-id"`
			Sequence int               `json:"sequence-number"`
			Summary  map[string]string `json:"summary"`
		} `json:"snapshots"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	out := diskTable{metadata: path, location: localPath(t, m.Location)}
	for _, s := range m.Snapshots {
		if m.Current == nil || s.ID != *m.Current {
			continue
		}
		out.commits = s.Sequence
		if out.rows, err = strconv.ParseInt(s.Summary["total-records"], 10, 64); err != nil {
			t.Fatalf("%s: total-records: %v", path, err)
		}
	}
	return out
}

// commitLeft names a metadata file that a commit had begun to write and the
// catalog does not know yet: the proof that a commit was in flight. Only files
// since the time given count. "" when there is none.
func commitLeft(t testing.TB, dir string, tables map[string]diskTable, since time.Time) string {
	t.Helper()
	current := map[string]time.Time{} // metadata folder → time of the current file
	for _, table := range tables {
		info, err := os.Stat(table.metadata)
		if err != nil {
			t.Fatal(err)
		}
		current[filepath.Dir(table.metadata)] = info.ModTime()
	}
	found := ""
	lake := filepath.Join(dir, "data", "lake")
	err := filepath.Walk(lake, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() || filepath.Base(filepath.Dir(path)) != "metadata" {
			return err
		}
		at := info.ModTime()
		if at.After(since) && at.After(current[filepath.Dir(path)]) {
			found, _ = filepath.Rel(lake, path)
		}
		return nil
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return found
}
