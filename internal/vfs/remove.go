package vfs

import (
	"errors"
	"io/fs"
	"path/filepath"
)

// RemoveAll removes a folder with what is in it, or a file; nothing is fine too.
func RemoveAll(fsys FS, path string) error {
	err := fsys.Remove(path)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	names, lerr := fsys.List(path)
	if lerr != nil {
		return err
	}
	for _, name := range names {
		if err := RemoveAll(fsys, filepath.Join(path, name)); err != nil {
			return err
		}
	}
	return fsys.Remove(path)
}
