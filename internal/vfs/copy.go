package vfs

import (
	"errors"
	"io"
)

// copyChunk is how much Copy moves at once.
const copyChunk = 1 << 20

// Copy copies a file's bytes into a new file and syncs it; the entry in its
// folder is the caller's to sync. pace is called before every so many bytes; it
// may wait, and its error ends the copy. It returns the file's size.
func Copy(fs FS, from, to string, pace func(n int) error, through ...io.Writer) (size int64, err error) {
	in, err := fs.Open(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := fs.Create(to)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	also := io.MultiWriter(through...)
	for buf := make([]byte, copyChunk); ; {
		n, rerr := io.ReadFull(in, buf)
		if n > 0 {
			if err := pace(n); err != nil {
				return size, err
			}
			if _, err := out.WriteAt(buf[:n], size); err != nil {
				return size, err
			}
			if _, err := also.Write(buf[:n]); err != nil {
				return size, err
			}
			size += int64(n)
		}
		if errors.Is(rerr, io.EOF) || errors.Is(rerr, io.ErrUnexpectedEOF) {
			return size, out.Sync()
		}
		if rerr != nil {
			return size, rerr
		}
	}
}
