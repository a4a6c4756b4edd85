package seglog

import "naru/internal/vfs"

// tapFS calls a hook before every call that changes the disk: a power cut comes
// at any of them, not only at syncs.
type tapFS struct {
	*vfs.Memory
	tap func(op vfs.Op, path string)
}

type tapFile struct {
	vfs.File
	fs *tapFS
}

func (t *tapFS) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &tapFile{f, t}, nil
}

func (t *tapFS) Create(path string) (vfs.File, error) {
	t.tap(vfs.OpCreate, path)
	return t.file(t.Memory.Create(path))
}

func (t *tapFS) Open(path string) (vfs.File, error) { return t.file(t.Memory.Open(path)) }

func (t *tapFS) OpenReadWrite(path string) (vfs.File, error) {
	return t.file(t.Memory.OpenReadWrite(path))
}

func (t *tapFS) Rename(from, to string) error {
	t.tap(vfs.OpRename, from)
	return t.Memory.Rename(from, to)
}

func (t *tapFS) Remove(path string) error {
	t.tap(vfs.OpRemove, path)
	return t.Memory.Remove(path)
}

func (t *tapFS) SyncDir(dir string) error {
	t.tap(vfs.OpSyncDir, dir)
	return t.Memory.SyncDir(dir)
}

func (f *tapFile) WriteAt(b []byte, off int64) (int, error) {
	f.fs.tap(vfs.OpWrite, f.Name())
	return f.File.WriteAt(b, off)
}

func (f *tapFile) WriteVAt(b [][]byte, off int64) error {
	f.fs.tap(vfs.OpWrite, f.Name())
	return f.File.WriteVAt(b, off)
}

func (f *tapFile) Sync() error {
	f.fs.tap(vfs.OpSync, f.Name())
	return f.File.Sync()
}

func (f *tapFile) Preallocate(size int64) error {
	f.fs.tap(vfs.OpAllocate, f.Name())
	return f.File.Preallocate(size)
}
