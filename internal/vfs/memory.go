package vfs

import (
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Memory is a file system in memory that keeps apart what is durable and what
// only the page cache and the running system see:
//
//   - a file's bytes and size are durable from File.Sync on;
//   - an entry of a folder (created, renamed, removed) from SyncDir on: syncing
//     a file does not make its name durable;
//   - folders are durable at once, since MkdirAll syncs the parents.
//
// CrashClone cuts the power. Inject makes calls fail.
type Memory struct {
	mu struct {
		sync.Mutex
		dirs     map[string]*folder
		locks    map[string]bool
		rules    []*Rule
		capacity int64
		syncs    int
		onSync   func(n int, op Op, path string)
	}
}

// folder holds entries; pending lists what SyncDir has not seen, oldest first.
type folder struct {
	durable, live map[string]*inode
	pending       []entryChange
}

// entryChange sets name to ino (nil removes it); a rename also removes from.
type entryChange struct {
	name, from string
	ino        *inode
}

// inode is a file's content. live is what reads return; durable is what the
// disk holds; pending turns one into the other.
type inode struct {
	durable, live []byte
	pending       []change
	modified      time.Time
	name          string // the last one it had: a rename while it is open counts
}

// change is a write of data at off, or, when data is nil, a new size.
type change struct {
	off  int64
	data []byte
	size int64
}

// NewMemory makes an empty file system; the folder "/" is there.
func NewMemory() *Memory {
	m := &Memory{}
	m.mu.dirs = map[string]*folder{"/": newFolder(), ".": newFolder()}
	m.mu.locks = map[string]bool{}
	m.mu.capacity = 1 << 40
	return m
}

func newFolder() *folder {
	return &folder{durable: map[string]*inode{}, live: map[string]*inode{}}
}

// OnSync calls fn at every File.Sync and SyncDir before it takes effect, with
// its number from 1 on: the place to cut the power. fn may call CrashClone.
func (m *Memory) OnSync(fn func(n int, op Op, path string)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.onSync = fn
}

// Syncs counts the calls of File.Sync and SyncDir so far.
func (m *Memory) Syncs() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.syncs
}

// SetCapacity sets the size of the disk: what does not fit fails with ENOSPC.
func (m *Memory) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.capacity = bytes
}

func (m *Memory) used() int64 {
	n := int64(0)
	for _, d := range m.mu.dirs {
		for _, ino := range d.live {
			n += int64(len(ino.live))
		}
	}
	return n
}

func (m *Memory) syncPoint(op Op, name string) {
	m.mu.Lock()
	m.mu.syncs++
	n, fn := m.mu.syncs, m.mu.onSync
	m.mu.Unlock()
	if fn != nil {
		fn(n, op, name)
	}
}

func failed(op Op, name string, err error) error {
	return &fs.PathError{Op: op.String(), Path: name, Err: err}
}

// find returns the folder and base name of a path. The caller holds the lock.
func (m *Memory) find(op Op, name string) (*folder, string, error) {
	name = path.Clean(name)
	d := m.mu.dirs[path.Dir(name)]
	if d == nil {
		return nil, "", failed(op, name, fs.ErrNotExist)
	}
	return d, path.Base(name), nil
}

// Create implements FS.
func (m *Memory) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fault(OpCreate, name); err != nil {
		return nil, err
	}
	d, base, err := m.find(OpCreate, name)
	if err != nil {
		return nil, err
	}
	if m.mu.dirs[path.Clean(name)] != nil {
		return nil, failed(OpCreate, name, syscall.EISDIR)
	}
	ino := d.live[base]
	if ino == nil {
		ino = &inode{modified: time.Now(), name: path.Clean(name)}
		d.live[base] = ino
		d.pending = append(d.pending, entryChange{name: base, ino: ino})
	} else {
		ino.resize(0)
	}
	return &memFile{fs: m, ino: ino, name: name, writable: true}, nil
}

// Open implements FS.
func (m *Memory) Open(name string) (File, error) { return m.open(name, false) }

// OpenReadWrite implements FS.
func (m *Memory) OpenReadWrite(name string) (File, error) { return m.open(name, true) }

func (m *Memory) open(name string, writable bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fault(OpOpen, name); err != nil {
		return nil, err
	}
	d, base, err := m.find(OpOpen, name)
	if err != nil {
		return nil, err
	}
	ino := d.live[base]
	if ino == nil {
		return nil, failed(OpOpen, name, fs.ErrNotExist)
	}
	return &memFile{fs: m, ino: ino, name: name, writable: writable}, nil
}

// Remove implements FS.
func (m *Memory) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fault(OpRemove, name); err != nil {
		return err
	}
	d, base, err := m.find(OpRemove, name)
	if err != nil {
		return err
	}
	if dir := path.Clean(name); m.mu.dirs[dir] != nil {
		return m.removeFolder(dir)
	}
	if d.live[base] == nil {
		return failed(OpRemove, name, fs.ErrNotExist)
	}
	delete(d.live, base)
	d.pending = append(d.pending, entryChange{name: base})
	return nil
}

// Rename implements FS. Between two folders, either entry may survive a crash
// without the other.
func (m *Memory) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fault(OpRename, from); err != nil {
		return err
	}
	src, old, err := m.find(OpRename, from)
	if err != nil {
		return err
	}
	dst, base, err := m.find(OpRename, to)
	if err != nil {
		return err
	}
	if m.mu.dirs[path.Clean(from)] != nil {
		return m.renameFolder(path.Clean(from), path.Clean(to))
	}
	ino := src.live[old]
	if ino == nil {
		return failed(OpRename, from, fs.ErrNotExist)
	}
	if path.Clean(from) == path.Clean(to) {
		return nil
	}
	delete(src.live, old)
	dst.live[base] = ino
	ino.name = path.Clean(to)
	if src == dst {
		src.pending = append(src.pending, entryChange{name: base, from: old, ino: ino})
		return nil
	}
	src.pending = append(src.pending, entryChange{name: old})
	dst.pending = append(dst.pending, entryChange{name: base, ino: ino})
	return nil
}

// MkdirAll implements FS.
func (m *Memory) MkdirAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fault(OpMkdir, name); err != nil {
		return err
	}
	for p := path.Clean(name); m.mu.dirs[p] == nil; p = path.Dir(p) {
		if d := m.mu.dirs[path.Dir(p)]; d != nil && d.live[path.Base(p)] != nil {
			return failed(OpMkdir, p, syscall.ENOTDIR)
		}
		m.mu.dirs[p] = newFolder()
	}
	return nil
}

// List implements FS.
func (m *Memory) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fault(OpList, dir); err != nil {
		return nil, err
	}
	dir = path.Clean(dir)
	d := m.mu.dirs[dir]
	if d == nil {
		return nil, failed(OpList, dir, fs.ErrNotExist)
	}
	names := slices.Collect(maps.Keys(d.live))
	for p := range m.mu.dirs {
		if p != dir && path.Dir(p) == dir {
			names = append(names, path.Base(p))
		}
	}
	slices.Sort(names)
	return names, nil
}

// Stat implements FS.
func (m *Memory) Stat(name string) (fs.FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fault(OpStat, name); err != nil {
		return nil, err
	}
	if m.mu.dirs[path.Clean(name)] != nil {
		return memInfo{name: path.Base(name), dir: true}, nil
	}
	d, base, err := m.find(OpStat, name)
	if err != nil {
		return nil, err
	}
	ino := d.live[base]
	if ino == nil {
		return nil, failed(OpStat, name, fs.ErrNotExist)
	}
	return ino.info(base), nil
}

// SyncDir implements FS.
func (m *Memory) SyncDir(dir string) error {
	m.syncPoint(OpSyncDir, dir)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fault(OpSyncDir, dir); err != nil {
		return err
	}
	d := m.mu.dirs[path.Clean(dir)]
	if d == nil {
		return failed(OpSyncDir, dir, fs.ErrNotExist)
	}
	d.durable, d.pending = maps.Clone(d.live), nil
	return nil
}

// Lock implements FS.
func (m *Memory) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fault(OpLock, name); err != nil {
		return nil, err
	}
	d, base, err := m.find(OpLock, name)
	if err != nil {
		return nil, err
	}
	name = path.Clean(name)
	if m.mu.locks[name] {
		return nil, failed(OpLock, name, ErrLocked)
	}
	if d.live[base] == nil {
		ino := &inode{modified: time.Now(), name: name}
		d.live[base] = ino
		d.pending = append(d.pending, entryChange{name: base, ino: ino})
	}
	m.mu.locks[name] = true
	return &memLock{fs: m, name: name}, nil
}

type memLock struct {
	fs   *Memory
	name string
}

func (l *memLock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	delete(l.fs.mu.locks, l.name)
	return nil
}

// Free implements FS.
func (m *Memory) Free(name string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fault(OpFree, name); err != nil {
		return 0, err
	}
	return max(m.mu.capacity-m.used(), 0), nil
}

// String lists all files with their live and durable sizes, for failing tests.
func (m *Memory) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	for _, dir := range slices.Sorted(maps.Keys(m.mu.dirs)) {
		d := m.mu.dirs[dir]
		for _, name := range slices.Sorted(maps.Keys(d.live)) {
			ino := d.live[name]
			b.WriteString(path.Join(dir, name) + ": " + ino.summary(d.durable[name] == ino) + "\n")
		}
	}
	return b.String()
}
