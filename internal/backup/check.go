package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"

	"naru/internal/fault"
	"naru/internal/lake/iceberg"
	"naru/internal/vfs"
)

// standIn is a file system on which a copied folder stands where it is to be
// used: paths in its tables lead to the copy.
type standIn struct {
	vfs.FS
	root, dir string
}

// StandIn gives a file system on which the folder dir is also at root. Only
// reading goes there.
func StandIn(fsys vfs.FS, root, dir string) vfs.FS {
	if root == dir {
		return fsys
	}
	return &standIn{FS: fsys, root: filepath.Clean(root), dir: filepath.Clean(dir)}
}

func (s *standIn) path(name string) string {
	name = filepath.Clean(name)
	rest, ok := below(name, s.root)
	if _, own := below(name, s.dir); !ok || own && len(s.dir) > len(s.root) { // the copy may lie in the folder
		return name
	}
	return s.dir + rest
}

// below tells what of name comes behind dir.
func below(name, dir string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(name, dir)
	return rest, ok && (rest == "" || rest[0] == '/')
}

// Open implements vfs.FS.
func (s *standIn) Open(path string) (vfs.File, error) { return s.FS.Open(s.path(path)) }

// Stat implements vfs.FS.
func (s *standIn) Stat(path string) (fs.FileInfo, error) { return s.FS.Stat(s.path(path)) }

// List implements vfs.FS.
func (s *standIn) List(dir string) ([]string, error) { return s.FS.List(s.path(dir)) }

// OpenLake opens the lake of a backup in dir, to look only, without leaving a
// trace in it. root and data are where its folder, and in it the data, is to be
// used. catalog is nil for the one in the backup.
func OpenLake(ctx context.Context, fsys vfs.FS, cfg iceberg.Config, dir, root, data string, catalog iceberg.Catalog, logger *slog.Logger) (*iceberg.Lake, error) {
	if catalog == nil {
		file := filepath.Join(dir, data, "catalog.db")
		if _, err := fsys.Stat(file); err != nil {
			return nil, err
		}
		var err error
		if catalog, err = iceberg.OpenSQLiteCopy(file); err != nil {
			return nil, err
		}
	}
	return iceberg.Open(ctx, cfg, StandIn(fsys, root, dir), filepath.Join(root, data), logger, iceberg.ReadOnly(), iceberg.WithCatalog(catalog))
}

// checkLake opens the copied tables and looks whether every file that any of
// them needs is there, with its length.
func (b *backup) checkLake(ctx context.Context) (err error) {
	if b.Lake == nil {
		return nil
	}
	var catalog iceberg.Catalog
	if b.Catalog != nil {
		catalog = b.Catalog(filepath.Join(b.data(), "catalog.db"))
	}
	copied, err := OpenLake(ctx, b.FS, b.Lake.Config(), b.dir, b.Root, b.Layout.Data, catalog, b.Logger)
	if err != nil {
		return fmt.Errorf("open the copy: %w", err)
	}
	defer func() { err = errors.Join(err, copied.Close()) }()
	return copied.Check(ctx, iceberg.CheckOptions{Shallow: true}, func(f iceberg.CheckedFile) error {
		if f.Bad() {
			return fmt.Errorf("check the copy: %w", &fault.Corrupt{Path: f.Path, Offset: f.Offset, Reason: f.Reason})
		}
		return nil
	})
}
