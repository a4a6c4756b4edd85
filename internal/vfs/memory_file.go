package vfs

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"path"
	"syscall"
	"time"
)

type memFile struct {
	fs       *Memory
	ino      *inode
	name     string
	pos      int64
	writable bool
	closed   bool
}

type memInfo struct {
	name     string
	size     int64
	modified time.Time
	dir      bool
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) ModTime() time.Time { return i.modified }
func (i memInfo) IsDir() bool        { return i.dir }
func (i memInfo) Sys() any           { return nil }
func (i memInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | dirMode
	}
	return fileMode
}

func (n *inode) info(name string) fs.FileInfo {
	return memInfo{name: name, size: int64(len(n.live)), modified: n.modified}
}

func (n *inode) summary(named bool) string {
	return fmt.Sprintf("%d bytes, %d durable, %d changes pending, name durable: %t", len(n.live), len(n.durable), len(n.pending), named)
}

func (n *inode) resize(size int64) {
	n.live = sized(n.live, size)
	n.pending = append(n.pending, change{size: size})
	n.modified = time.Now()
}

func (n *inode) write(b []byte, off int64) {
	n.live = put(n.live, b, off)
	n.pending = append(n.pending, change{off: off, data: bytes.Clone(b)})
	n.modified = time.Now()
}

// sized cuts b or extends it with zeros.
func sized(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		clear(b[size:])
		return b[:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

func put(b, data []byte, off int64) []byte {
	if end := off + int64(len(data)); end > int64(len(b)) {
		b = sized(b, end)
	}
	copy(b[off:], data)
	return b
}

func (c change) apply(b []byte) []byte {
	if c.data == nil {
		return sized(b, c.size)
	}
	return put(b, c.data, c.off)
}

// begin takes the lock and checks what every call checks; end releases it.
func (f *memFile) begin(op Op) (end func(), err error) {
	f.fs.mu.Lock()
	end = f.fs.mu.Unlock
	switch {
	case f.closed:
		err = failed(op, f.name, fs.ErrClosed)
	case op&(OpWrite|OpTruncate|OpAllocate) != 0 && !f.writable:
		err = failed(op, f.name, syscall.EBADF)
	default:
		err = f.fs.fault(op, f.ino.name)
	}
	return end, err
}

func (f *memFile) Read(b []byte) (int, error) {
	n, err := f.ReadAt(b, f.pos)
	f.pos += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

func (f *memFile) Write(b []byte) (int, error) {
	n, err := f.WriteAt(b, f.pos)
	f.pos += int64(n)
	return n, err
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	end, err := f.begin(OpRead)
	defer end()
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, failed(OpRead, f.name, syscall.EINVAL)
	}
	if off >= int64(len(f.ino.live)) {
		if len(b) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	n := copy(b, f.ino.live[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	if err := f.WriteVAt([][]byte{b}, off); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (f *memFile) WriteVAt(bufs [][]byte, off int64) error {
	end, err := f.begin(OpWrite)
	defer end()
	all := bytes.Join(bufs, nil)
	if err != nil {
		if short(err) && f.writable && !f.closed {
			f.ino.write(all[:len(all)/2], off)
		}
		return err
	}
	if off < 0 {
		return failed(OpWrite, f.name, syscall.EINVAL)
	}
	if len(all) == 0 {
		return nil
	}
	if err := f.room(OpWrite, off+int64(len(all))); err != nil {
		return err
	}
	f.ino.write(all, off)
	return nil
}

// room fails when the disk cannot hold the file with that size.
func (f *memFile) room(op Op, size int64) error {
	if grow := size - int64(len(f.ino.live)); grow > 0 && f.fs.used()+grow > f.fs.mu.capacity {
		return failed(op, f.name, syscall.ENOSPC)
	}
	return nil
}

// Sync makes pending changes durable. When a rule makes it fail, they are lost
// for good although reads go on to show them: so Linux behaves, which marks the
// pages clean.
func (f *memFile) Sync() error {
	f.fs.mu.Lock()
	name := f.ino.name
	f.fs.mu.Unlock()
	f.fs.syncPoint(OpSync, name)
	end, err := f.begin(OpSync)
	defer end()
	if f.closed {
		return err
	}
	if err == nil {
		for _, c := range f.ino.pending {
			f.ino.durable = c.apply(f.ino.durable)
		}
	}
	f.ino.pending = nil
	return err
}

func (f *memFile) Truncate(size int64) error {
	end, err := f.begin(OpTruncate)
	defer end()
	if err != nil {
		return err
	}
	if err := f.room(OpTruncate, size); err != nil {
		return err
	}
	f.ino.resize(size)
	return nil
}

func (f *memFile) Preallocate(size int64) error {
	end, err := f.begin(OpAllocate)
	defer end()
	if err != nil {
		return err
	}
	if size <= 0 {
		return failed(OpAllocate, f.name, syscall.EINVAL)
	}
	if err := f.room(OpAllocate, size); err != nil {
		return err
	}
	if size > int64(len(f.ino.live)) {
		f.ino.resize(size)
	}
	return nil
}

func (f *memFile) Seek(offset int64, whence int) (int64, error) {
	end, err := f.begin(OpStat)
	defer end()
	if err != nil {
		return 0, err
	}
	switch whence {
	case io.SeekCurrent:
		offset += f.pos
	case io.SeekEnd:
		offset += int64(len(f.ino.live))
	}
	if offset < 0 {
		return 0, failed(OpStat, f.name, syscall.EINVAL)
	}
	f.pos = offset
	return offset, nil
}

func (f *memFile) Stat() (fs.FileInfo, error) {
	end, err := f.begin(OpStat)
	defer end()
	if err != nil {
		return nil, err
	}
	return f.ino.info(path.Base(f.name)), nil
}

func (f *memFile) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return failed(OpClose, f.name, fs.ErrClosed)
	}
	f.closed = true
	return f.fs.fault(OpClose, f.ino.name)
}

func (f *memFile) Name() string { return f.name }
