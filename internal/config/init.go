package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"naru/internal/fault"
	"naru/internal/vfs"
)

// ignored is what git shall not see: everything that naru writes.
const ignored = "/data/\n"

// Init makes a folder a project: settings with every default, the folders that
// belong to git, and a .gitignore. It overwrites nothing, and it begins only
// if nothing is in the way.
func Init(fsys vfs.FS, f Folder) error {
	settings := []byte(Settings())
	files := []struct {
		path string
		text []byte
	}{
		{f.Settings(), settings},
		{filepath.Join(string(f), ".gitignore"), []byte(ignored)},
	}
	for _, p := range f.Projects() {
		// git keeps no empty folders: a line about its use keeps it.
		files = append(files, struct {
			path string
			text []byte
		}{filepath.Join(string(f), p.Name, ".gitkeep"), []byte(p.What + "\n")})
	}
	for _, file := range files {
		switch _, err := fsys.Stat(file.path); {
		case err == nil:
			return fault.WithHint(fmt.Errorf("%s: %w", file.path, fs.ErrExist),
				"nothing was changed; choose an empty folder, or use this one as it is")
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	for _, file := range files {
		if err := write(fsys, file.path, file.text); err != nil {
			return fmt.Errorf("write %s: %w", file.path, err)
		}
	}
	return nil
}

// write makes a new file durable, its folder entry included.
func write(fsys vfs.FS, path string, text []byte) (err error) {
	if err := fsys.MkdirAll(filepath.Dir(path)); err != nil {
		return err
	}
	f, err := fsys.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(path))
}
