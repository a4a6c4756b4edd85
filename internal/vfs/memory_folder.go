package vfs

import (
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"
)

// Folders are durable at once in memory, and so are their renames and removals.
// What is in them is as durable as it was.

// removeFolder removes an empty folder. The caller holds the lock.
func (m *Memory) removeFolder(dir string) error {
	if len(m.mu.dirs[dir].live) > 0 {
		return failed(OpRemove, dir, syscall.ENOTEMPTY)
	}
	for d := range m.mu.dirs {
		if d != dir && path.Dir(d) == dir {
			return failed(OpRemove, dir, syscall.ENOTEMPTY)
		}
	}
	delete(m.mu.dirs, dir)
	return nil
}

// renameFolder gives a folder, with all that is below it, a new name that
// nothing has. The caller holds the lock.
func (m *Memory) renameFolder(from, to string) error {
	parent := m.mu.dirs[path.Dir(to)]
	switch {
	case m.mu.dirs[to] != nil || parent.live[path.Base(to)] != nil:
		return failed(OpRename, to, fs.ErrExist)
	case strings.HasPrefix(to, from+"/"):
		return failed(OpRename, to, syscall.EINVAL)
	}
	for _, d := range slices.Collect(maps.Keys(m.mu.dirs)) {
		f := m.mu.dirs[d]
		rest, below := strings.CutPrefix(d, from)
		if !below || rest != "" && rest[0] != '/' {
			continue
		}
		delete(m.mu.dirs, d)
		m.mu.dirs[to+rest] = f
		for _, ino := range f.live {
			ino.name = path.Join(to+rest, path.Base(ino.name))
		}
	}
	return nil
}
