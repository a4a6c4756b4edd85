package iceberg

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"strings"

	iceio "github.com/apache/iceberg-go/io"

	"naru/internal/vfs"
)

// fileIO is the file access of iceberg-go and of our own writers on vfs. What
// Create and WriteFile have closed without an error is on disk under its final
// name, folder entry included: a catalog row may point at it.
//
// It is handed to iceberg-go as a value. Its global registry of schemes is not
// used, so several lakes live side by side in one process.
type fileIO struct{ fs vfs.FS }

var (
	_ iceio.WriteFileIO = fileIO{}
	_ iceio.ReadFileIO  = fileIO{}
)

// scheme begins all locations that naru writes. The path behind it is not
// percent-encoded: Hadoop's and PyIceberg's paths are taken literally too.
const scheme = "file://"

// localPath turns a location into a path of the file system.
func localPath(location string) (string, error) {
	p, had := strings.CutPrefix(location, scheme)
	if !had {
		// Java writes file:/path.
		p, had = strings.CutPrefix(location, "file:")
	}
	if !had && strings.Contains(location, "://") {
		return "", fmt.Errorf("open %s: only files of this machine can be read", location)
	}
	if !filepath.IsAbs(p) {
		return "", fmt.Errorf("open %s: not an absolute path", location)
	}
	return p, nil
}

// Open opens a file for reading. What has a checksum in its name is held
// against it first, except for data files.
func (f fileIO) Open(name string) (iceio.File, error) {
	p, err := localPath(name)
	if err != nil {
		return nil, err
	}
	if _, ok := nameSum(p); ok && !strings.HasSuffix(p, dataSuffix) {
		file, err := openVerified(f.fs, p)
		if err != nil {
			return nil, err
		}
		return file, nil
	}
	return f.fs.Open(p)
}

// ReadFile reads a whole file and holds it against the checksum in its name, if
// there is one.
func (f fileIO) ReadFile(name string) ([]byte, error) {
	p, err := localPath(name)
	if err != nil {
		return nil, err
	}
	file, err := f.fs.Open(p)
	if err != nil {
		return nil, err
	}
	b, err := readAll(file)
	if err == nil {
		err = verify(p, b)
	}
	return b, err
}

// readAll reads a file to its end and closes it.
func readAll(f vfs.File) ([]byte, error) {
	b, err := io.ReadAll(f)
	return b, errors.Join(err, f.Close())
}

// Remove removes a file. That a removal survives a power cut is not promised.
func (f fileIO) Remove(name string) error {
	p, err := localPath(name)
	if err != nil {
		return err
	}
	return f.fs.Remove(p)
}

// Create begins a file that appears under its name when it is closed.
func (f fileIO) Create(name string) (iceio.FileWriter, error) { return f.create(name) }

// createSummed begins a file whose name gets the checksum of its bytes when it
// is closed: see durableFile.Path.
func (f fileIO) createSummed(name string) (*durableFile, error) {
	d, err := f.create(name)
	if err != nil {
		return nil, err
	}
	d.summed = true
	return d, nil
}

// WriteFile writes a whole file durably.
func (f fileIO) WriteFile(name string, b []byte) error {
	w, err := f.create(name)
	if err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return errors.Join(err, w.Abort())
	}
	return w.Close()
}

const tempSuffix, dataSuffix = ".tmp", ".parquet"

func (f fileIO) create(name string) (*durableFile, error) {
	p, err := localPath(name)
	if err != nil {
		return nil, err
	}
	if err := f.fs.MkdirAll(filepath.Dir(p)); err != nil {
		return nil, err
	}
	file, err := f.fs.Create(p + tempSuffix)
	if err != nil {
		return nil, err
	}
	return &durableFile{fs: f.fs, path: p, temp: p + tempSuffix, file: file}, nil
}

// durableFile is written under a temporary name. Close syncs it, renames it
// and syncs its folder, in this order.
type durableFile struct {
	fs     vfs.FS
	path   string
	temp   string
	summed bool // the path gets the checksum
	sum    uint32
	file   vfs.File
	err    error // the first error; Close then leaves nothing under the final name
	done   bool
}

// Path is where the file is once Close has returned. When Close has failed it
// may be there or not.
func (d *durableFile) Path() string { return d.path }

func (d *durableFile) Write(b []byte) (int, error) {
	n, err := d.file.Write(b)
	if d.summed {
		d.sum = crc32.Update(d.sum, castagnoli, b[:n])
	}
	if err != nil && d.err == nil {
		d.err = err
	}
	return n, err
}

func (d *durableFile) ReadFrom(r io.Reader) (int64, error) {
	// The type without ReadFrom keeps io.Copy from calling this again.
	return io.Copy(struct{ io.Writer }{d}, r)
}

// Close publishes the file. A second call returns the result of the first.
func (d *durableFile) Close() error {
	if d.done {
		return d.err
	}
	if d.err != nil {
		return errors.Join(d.err, d.Abort())
	}
	d.done = true
	if d.summed {
		d.path = withSum(d.path, d.sum)
	}
	if d.err = d.file.Sync(); d.err != nil {
		d.err = errors.Join(d.err, d.file.Close(), d.fs.Remove(d.temp))
		return d.err
	}
	if d.err = d.file.Close(); d.err != nil {
		return d.err
	}
	if d.err = d.fs.Rename(d.temp, d.path); d.err != nil {
		return d.err
	}
	d.err = d.fs.SyncDir(filepath.Dir(d.path))
	return d.err
}

// Abort drops the file.
func (d *durableFile) Abort() error {
	if d.done {
		return nil
	}
	d.done = true
	if d.err == nil {
		d.err = errAborted
	}
	return errors.Join(d.file.Close(), d.fs.Remove(d.temp))
}

var errAborted = errors.New("file was given up")
