package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// ErrLocked: another process, or another Lock call, holds the lock.
var ErrLocked = errors.New("locked by another process")

// OS is the machine's file system.
func OS() FS { return osFS{} }

type osFS struct{}

const fileMode, dirMode = 0o640, 0o750

func (osFS) Create(path string) (File, error) {
	return openOS(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
}

func (osFS) Open(path string) (File, error) { return openOS(path, os.O_RDONLY) }

func (osFS) OpenReadWrite(path string) (File, error) { return openOS(path, os.O_RDWR) }

func openOS(path string, flag int) (File, error) {
	f, err := os.OpenFile(path, flag, fileMode)
	if err != nil {
		return nil, err
	}
	return &osFile{File: f}, nil
}

func (osFS) Remove(path string) error              { return os.Remove(path) }
func (osFS) Rename(from, to string) error          { return os.Rename(from, to) }
func (osFS) Stat(path string) (fs.FileInfo, error) { return os.Stat(path) }

// MkdirAll makes every new folder's entry durable too, so that a caller's
// SyncDir on the last one is enough.
func (osFS) MkdirAll(path string) error {
	path = filepath.Clean(path)
	var missing []string
	for p := path; ; p = filepath.Dir(p) {
		if _, err := os.Stat(p); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		missing = append(missing, p)
		if filepath.Dir(p) == p {
			break
		}
	}
	for _, p := range slices.Backward(missing) {
		if err := os.Mkdir(p, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := syncDir(filepath.Dir(p)); err != nil {
			return err
		}
	}
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		return &fs.PathError{Op: "mkdir", Path: path, Err: unix.ENOTDIR}
	}
	return err
}

func (osFS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (osFS) SyncDir(dir string) error { return syncDir(dir) }

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

func (osFS) Lock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	err = ignoringEINTR(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if err != nil {
		_ = f.Close() // nothing was written; the lock's error is the news
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	return f, nil // the lock goes with the descriptor
}

func (osFS) Free(path string) (int64, error) {
	var st unix.Statfs_t
	if err := ignoringEINTR(func() error { return unix.Statfs(path, &st) }); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// osFile adds to *os.File what it lacks. Fd would switch the file to blocking
// mode; for regular files that is what it is anyway.
type osFile struct{ *os.File }

// maxVector is the kernel's IOV_MAX.
const maxVector = 1024

func (f *osFile) WriteVAt(bufs [][]byte, off int64) error {
	rest := make([][]byte, 0, min(len(bufs), maxVector))
	i, done := 0, 0 // done: bytes of bufs[i] already written
	for {
		for i < len(bufs) && done == len(bufs[i]) {
			i, done = i+1, 0
		}
		if i == len(bufs) {
			return nil
		}
		rest = append(rest[:0], bufs[i][done:])
		for _, b := range bufs[i+1:] {
			if len(rest) == maxVector {
				break
			}
			if len(b) > 0 {
				rest = append(rest, b)
			}
		}
		n, err := unix.Pwritev(int(f.Fd()), rest, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return &fs.PathError{Op: "pwritev", Path: f.Name(), Err: err}
		}
		// The kernel may write less than asked (2 GiB, signals): go on behind it.
		off += int64(n)
		for n > 0 {
			step := min(n, len(bufs[i])-done)
			n, done = n-step, done+step
			if done == len(bufs[i]) {
				i, done = i+1, 0
			}
		}
	}
}

func (f *osFile) Sync() error {
	if err := ignoringEINTR(func() error { return unix.Fdatasync(int(f.Fd())) }); err != nil {
		return &fs.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}

func (f *osFile) Preallocate(size int64) error {
	if size <= 0 {
		return fmt.Errorf("preallocate %s: size %d", f.Name(), size)
	}
	err := ignoringEINTR(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		// No extents to reserve on this file system; the size alone will do.
		info, serr := f.Stat()
		if serr != nil {
			return serr
		}
		if info.Size() >= size {
			return nil
		}
		return f.Truncate(size)
	}
	if err != nil {
		return &fs.PathError{Op: "fallocate", Path: f.Name(), Err: err}
	}
	return nil
}

// ignoringEINTR repeats a system call that a signal interrupted: Go's own
// preemption signals do that.
func ignoringEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
