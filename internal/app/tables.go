package app

import (
	"context"
	"fmt"

	"naru/internal/config"
	"naru/internal/lake/iceberg"
	"naru/internal/obs"
	"naru/internal/vfs"
)

// OpenTables opens the lake of a folder to look only, beside a running server
// or without one. It is fs.ErrNotExist when the folder has none. What is behind
// a table is one row of the SQLite catalog, which any number of processes may
// read, and files that do not change; so no server needs to be asked.
func OpenTables(ctx context.Context, f config.Folder, cfg iceberg.Config) (*iceberg.Lake, error) {
	fsys := vfs.OS()
	rec, err := Whereabouts(fsys, f)
	if err != nil {
		return nil, err
	}
	if rec != nil {
		f = config.Folder(rec.Root)
	}
	if _, err := fsys.Stat(f.Lake()); err != nil {
		return nil, fmt.Errorf("open tables: %w", err)
	}
	return iceberg.Open(ctx, cfg, fsys, f.Data(), obs.Discard(), iceberg.ReadOnly())
}
