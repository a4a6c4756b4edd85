package hottail

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync/atomic"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/vfs"
)

const suffix = ".parquet"

// folder is where the files lie. It is emptied at the start: the log has it all.
type folder struct {
	fs    vfs.FS
	dir   string
	count atomic.Int64
	bytes atomic.Int64 // of all files
}

// empty makes the folder and removes what an earlier process has left.
func (d *folder) empty() error {
	if err := d.fs.MkdirAll(d.dir); err != nil {
		return fmt.Errorf("make folder of the hot tail: %w", err)
	}
	names, err := d.fs.List(d.dir)
	if err != nil {
		return fmt.Errorf("empty folder of the hot tail: %w", err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, suffix) {
			continue // not ours
		}
		if err := d.fs.Remove(filepath.Join(d.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("empty folder of the hot tail: %w", err)
		}
	}
	return nil
}

// path names a new file.
func (d *folder) path() string {
	return filepath.Join(d.dir, fmt.Sprintf("%d%s", d.count.Add(1), suffix))
}

// create begins a file. It is never synced: after a crash nobody looks for it.
func (d *folder) create(path string) (columnar.Output, error) {
	f, err := d.fs.Create(path)
	if err != nil {
		return nil, err
	}
	return &output{folder: d, path: path, file: f, buf: bufio.NewWriterSize(f, 256<<10)}, nil
}

type output struct {
	folder *folder
	path   string
	file   vfs.File
	buf    *bufio.Writer
}

func (o *output) Write(b []byte) (int, error) { return o.buf.Write(b) }
func (o *output) Path() string                { return o.path }

func (o *output) Close() error {
	if err := o.buf.Flush(); err != nil {
		return errors.Join(err, o.Abort())
	}
	if err := o.file.Close(); err != nil {
		return errors.Join(err, o.folder.fs.Remove(o.path))
	}
	return nil
}

func (o *output) Abort() error { return errors.Join(o.file.Close(), o.folder.fs.Remove(o.path)) }

// file is rows of one table. It is removed when its owner and all views have
// let it go.
type file struct {
	folder  *folder
	data    columnar.DataFile
	ends    event.Positions  // first offsets behind its rows
	schema  *columnar.Schema // of a finished file
	holders atomic.Int64
}

func (d *folder) add(data columnar.DataFile, ends event.Positions) *file {
	f := &file{folder: d, data: data, ends: ends}
	f.holders.Store(1)
	d.bytes.Add(data.Bytes)
	return f
}

func (f *file) hold() { f.holders.Add(1) }

// release never fails for a query's sake: a file that stays goes at the next start.
func (f *file) release() {
	if f.holders.Add(-1) > 0 {
		return
	}
	f.folder.bytes.Add(-f.data.Bytes)
	_ = f.folder.fs.Remove(f.data.Path)
}

func (f *file) view() lake.File {
	return lake.File{Path: f.data.Path, Rows: f.data.Rows, Bytes: f.data.Bytes}
}
