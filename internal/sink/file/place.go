package file

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"naru/internal/vfs"
)

// Target is where files are written, and where they go.
type Target struct {
	// Dir is the folder that they are written in: each in the folder below it that it
	// will be in, or, when Flat, all in Dir itself.
	Dir   string
	Flat  bool
	Place Place
}

// temp is where a file is while it is written.
func (t *Target) temp(p Published) string {
	if t.Flat {
		return filepath.Join(t.Dir, p.Temp)
	}
	return filepath.Join(t.Dir, p.Folder, p.Temp)
}

// Place makes finished files appear.
type Place interface {
	// Taken tells whether there is something already where a file will be.
	Taken(ctx context.Context, p Published) (bool, error)
	// Put brings a file from temp to where it will be: whole, or not at all. The same
	// file may be put again after a failure or a crash. fs.ErrNotExist tells that
	// nothing is at temp any more: it has been put before.
	Put(ctx context.Context, temp string, p Published) error
	// Remove takes a file away that has appeared; fs.ErrNotExist: somebody else has.
	Remove(ctx context.Context, folder, name string) error
	// Where names the place for people, the same one by the same name.
	Where() string
}

// Published is a file that appears: Name in Folder, written as Temp.
type Published struct {
	Folder string `json:"folder"`
	Temp   string `json:"temp"`
	Name   string `json:"name"`
}

// folder is a Place below a folder in which the files have been written: they are
// renamed. A rename within one folder is one step, also at a power cut.
type folder struct {
	fs   vfs.FS
	dir  string
	name string // as the settings have it
}

func (f folder) Where() string { return f.name }

func (f folder) Remove(_ context.Context, in, name string) error {
	return f.fs.Remove(filepath.Join(f.dir, in, name))
}

func (f folder) Taken(_ context.Context, p Published) (bool, error) {
	_, err := f.fs.Stat(filepath.Join(f.dir, p.Folder, p.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (f folder) Put(_ context.Context, temp string, p Published) error {
	return f.fs.Rename(temp, filepath.Join(filepath.Dir(temp), p.Name))
}
