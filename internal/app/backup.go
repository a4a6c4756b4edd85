package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"naru/internal/backup"
	"naru/internal/config"
	"naru/internal/fault"
	"naru/internal/lake/iceberg"
	"naru/internal/obs"
	"naru/internal/quantity"
	"naru/internal/vfs"
)

// BackupOptions say what a backup is to be.
type BackupOptions struct {
	To       string // the folder to make
	Root     string // where the copy is to be used; empty: where the original was made
	Rate     quantity.Bytes
	Progress func(done, total int64)
}

// Backup copies a folder, with or without a server on it. The folder may have
// been moved: what its tables name is looked for where it stands.
func Backup(ctx context.Context, f config.Folder, o BackupOptions) (_ backup.Report, err error) {
	fsys := vfs.OS()
	rec, err := recorded(fsys, f)
	if err != nil {
		return backup.Report{}, err
	}
	if _, err := fsys.Stat(f.Data()); errors.Is(err, fs.ErrNotExist) {
		return backup.Report{}, fault.WithHint(fmt.Errorf("back up %s: it holds no data", f), "name the folder of a project: naru backup TO DIR")
	}
	made := string(f)
	if rec != nil {
		made = rec.Root
	}
	to, err := filepath.Abs(o.To)
	if err != nil {
		return backup.Report{}, err
	}
	root := made
	if o.Root != "" {
		if root, err = filepath.Abs(o.Root); err != nil {
			return backup.Report{}, err
		}
	}
	opt := backup.Options{
		FS: fsys, Folder: string(f), Layout: layout(), To: to, Root: root, Rate: o.Rate, Progress: o.Progress, Logger: obs.Discard(),
	}
	if opt.Record, err = recordOfCopy(rec, root); err != nil {
		return backup.Report{}, err
	}
	if opt.Lake, err = lakeAt(ctx, fsys, f, made); err != nil {
		return backup.Report{}, fmt.Errorf("back up %s: %w", f, err)
	}
	if opt.Lake != nil {
		defer func() { err = errors.Join(err, opt.Lake.Close()) }()
	}
	return backup.Run(ctx, opt)
}

// recordOfCopy says where a copy stands. One that takes the original's place is
// the same folder; at another place it is one of its own.
func recordOfCopy(rec *RootRecord, root string) ([]byte, error) {
	switch {
	case rec == nil:
		return nil, nil
	case rec.Root == root:
		return rec.text()
	}
	return newRecord(root).text()
}

// lakeAt opens the tables of a folder to look only, wherever it stands now; nil
// when it has none.
func lakeAt(ctx context.Context, fsys vfs.FS, f config.Folder, made string) (*iceberg.Lake, error) {
	path := filepath.Join(f.Data(), "catalog.db")
	if _, err := fsys.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	catalog, err := iceberg.OpenSQLite(ctx, path)
	if err != nil {
		return nil, err
	}
	return iceberg.Open(ctx, iceberg.DefaultConfig(), backup.StandIn(fsys, made, string(f)), config.Folder(made).Data(), obs.Discard(),
		iceberg.ReadOnly(), iceberg.WithCatalog(catalog))
}

func layout() backup.Layout {
	const here = config.Folder("/")
	rel := func(path string) string { return path[1:] }
	l := backup.Layout{Data: rel(here.Data()), Log: rel(here.Log()), Root: rel(filepath.Join(here.Data(), rootFile)), Plain: []string{config.FileName}}
	for _, p := range here.Projects() {
		l.Plain = append(l.Plain, p.Name)
	}
	return l
}

// OpenBackup opens the tables of a backup to look only. On fsys its files are
// also below root, where the backup is to be used and where its tables say that
// they are. tables is nil when the backup has none.
func OpenBackup(ctx context.Context, f config.Folder) (tables *iceberg.Lake, fsys vfs.FS, root string, err error) {
	fsys = vfs.OS()
	rec, err := recorded(fsys, f)
	if err != nil {
		return nil, nil, "", err
	}
	if rec == nil {
		return nil, nil, "", fault.WithHint(fmt.Errorf("open backup %s: it has no record of where it was made", f), "name a folder that naru backup has made")
	}
	tables, err = backup.OpenLake(ctx, fsys, iceberg.DefaultConfig(), string(f), rec.Root, layout().Data, nil, obs.Discard())
	fsys = backup.StandIn(fsys, rec.Root, string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fsys, rec.Root, nil
	}
	return tables, fsys, rec.Root, err
}
