// Package vfs is the only door to the disk for every file that naru writes
// itself. The OS implementation is real; the memory one keeps durable and
// volatile bytes apart, so that tests can cut the power and make calls fail.
package vfs

import (
	"io"
	"io/fs"
)

// FS is a file system. Paths are absolute or relative to the process, with
// forward slashes. Errors are *fs.PathError where the OS gives one;
// errors.Is(err, fs.ErrNotExist) works.
type FS interface {
	// Create makes or truncates a file for reading and writing.
	Create(path string) (File, error)
	// Open opens for reading.
	Open(path string) (File, error)
	// OpenReadWrite opens an existing file for reading and writing.
	OpenReadWrite(path string) (File, error)
	Remove(path string) error
	Rename(from, to string) error
	MkdirAll(path string) error
	// List returns the names in a folder, sorted.
	List(dir string) ([]string, error)
	Stat(path string) (fs.FileInfo, error)
	// SyncDir makes creations, renames and removals in dir durable.
	SyncDir(dir string) error
	// Lock takes an exclusive advisory lock on path, creating it. It fails at
	// once with ErrLocked when another process (or Lock call) holds it.
	Lock(path string) (io.Closer, error)
	// Free returns the bytes left on the file system that holds path.
	Free(path string) (int64, error)
}

// File is an open file.
type File interface {
	io.Reader
	io.Writer
	io.ReaderAt
	io.WriterAt
	io.Seeker
	io.Closer
	// WriteVAt writes all buffers one behind the other at off. Short writes are errors.
	WriteVAt(bufs [][]byte, off int64) error
	// Sync makes the file's bytes, and its size, durable (fdatasync).
	Sync() error
	Truncate(size int64) error
	// Preallocate reserves blocks for the file and extends it to size bytes,
	// reading as zeros where never written.
	Preallocate(size int64) error
	Stat() (fs.FileInfo, error)
	Name() string
}
