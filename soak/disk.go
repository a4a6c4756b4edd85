package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	ice "github.com/apache/iceberg-go"
	"modernc.org/sqlite"
)

// The lake as the disk holds it, read with none of naru's code: the catalog
// with SQLite, metadata as JSON, manifests with iceberg-go.

// diskTable is a table by its newest metadata file.
type diskTable struct {
	name     string // namespace.table
	rows     int64  // of the current snapshot
	commits  int64  // its sequence number
	manifest string // path of its manifest list; "" without a snapshot
	size     int64  // of the metadata file
}

// dataFile is one live data file of a snapshot.
type dataFile struct {
	path     string
	rows     int64
	snapshot int64  // that added it
	day      string // its partition
}

// open makes connections to one SQLite file.
type open string

func (o open) Connect(context.Context) (driver.Conn, error) { return o.Driver().Open(string(o)) }
func (o open) Driver() driver.Driver                        { return &sqlite.Driver{} }

// readCatalog reads the tables of a folder whose server is down. It works on a
// copy, so that SQLite's own recovery leaves the original as the kill left it.
func readCatalog(dir string) (tables []diskTable, err error) {
	scratch, err := os.MkdirTemp(filepath.Dir(dir), "catalog-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch)
	copied := filepath.Join(scratch, "catalog.db")
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(filepath.Join(dir, "data", "catalog.db"+suffix))
		if errors.Is(err, fs.ErrNotExist) {
			if suffix == "" {
				return nil, nil // killed before there was one
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(copied+suffix, b, 0o600); err != nil {
			return nil, err
		}
	}
	db := sql.OpenDB(open("file:" + copied))
	defer db.Close()
	rows, err := db.Query(`select table_namespace, table_name, metadata_location from iceberg_tables where catalog_name = 'naru' order by 1, 2`)
	if err != nil {
		if strings.Contains(err.Error(), "no such table") {
			return nil, nil
		}
		return nil, fmt.Errorf("read catalog: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var namespace, name, location string
		if err := rows.Scan(&namespace, &name, &location); err != nil {
			return nil, fmt.Errorf("read catalog: %w", err)
		}
		t, err := readMetadata(namespace+"."+name, local(location))
		if err != nil {
			return nil, err
		}
		tables = append(tables, t)
	}
	return tables, rows.Err()
}

// local turns a location into a path.
func local(location string) string {
	if u, err := url.Parse(location); err == nil && u.Scheme == "file" {
		return u.Path
	}
	return location
}

func readMetadata(name, path string) (diskTable, error) {
	t := diskTable{name: name}
	b, err := os.ReadFile(path)
	if err != nil {
		return t, fmt.Errorf("table %s: the catalog names a file that cannot be read: %w", name, err)
	}
	t.size = int64(len(b))
	var m struct {
		Current   *int64 `json:"current-snapshot-id"`
		Snapshots []struct {
			ID       int64             `json:"snapshot-id"`
			Sequence int64             `json:"sequence-number"`
			List     string            `json:"manifest-list"`
			Summary  map[string]string `json:"summary"`
		} `json:"snapshots"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return t, fmt.Errorf("table %s: %s: %w", name, path, err)
	}
	for _, s := range m.Snapshots {
		if m.Current != nil && s.ID == *m.Current {
			t.commits, t.manifest = s.Sequence, local(s.List)
			if t.rows, err = strconv.ParseInt(s.Summary["total-records"], 10, 64); err != nil {
				return t, fmt.Errorf("table %s: total-records: %w", name, err)
			}
		}
	}
	return t, nil
}

// files lists the data files of the table's current snapshot.
func (t diskTable) files() (out []dataFile, err error) {
	if t.manifest == "" {
		return nil, nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("table %s: %w", t.name, err)
		}
	}()
	list, err := os.Open(t.manifest)
	if err != nil {
		return nil, err
	}
	defer list.Close()
	manifests, err := ice.ReadManifestList(list)
	if err != nil {
		return nil, err
	}
	for _, m := range manifests {
		f, err := os.Open(local(m.FilePath()))
		if err != nil {
			return nil, err
		}
		entries, err := ice.ReadManifest(m, f, true)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("manifest %s: %w", m.FilePath(), err)
		}
		for _, e := range entries {
			d := e.DataFile()
			if d.ContentType() != ice.EntryContentData {
				return nil, fmt.Errorf("manifest %s: %s is no data file", m.FilePath(), d.FilePath())
			}
			out = append(out, dataFile{path: local(d.FilePath()), rows: d.Count(), snapshot: e.SnapshotID(), day: fmt.Sprint(d.Partition())})
		}
	}
	return out, nil
}

// checkFiles holds that no file is named twice, and that a commit added at
// most one file a day: what a snapshot added says so in its manifest entries
// for as long as the file lives, also when manifests were merged and the
// snapshot itself has expired.
func checkFiles(table string, files []dataFile, found *findings) {
	named := map[string]bool{}
	type slot struct {
		snapshot int64
		day      string
	}
	added := map[slot][]string{}
	for _, f := range files {
		if named[f.path] {
			found.add("table %s names the file %s twice", table, f.path)
		}
		named[f.path] = true
		s := slot{f.snapshot, f.day}
		added[s] = append(added[s], filepath.Base(f.path))
	}
	for s, names := range added {
		if len(names) > 1 {
			slices.Sort(names)
			found.add("table %s: snapshot %d added %d files for one day: %s", table, s.snapshot, len(names), strings.Join(names, " "))
		}
	}
}
