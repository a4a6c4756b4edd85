package iceberg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"strings"

	iceio "github.com/apache/iceberg-go/io"

	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/vfs"
)

// copyIO opens files of the copy by the locations in its tables.
type copyIO struct{ c *lakeCopier }

func (f copyIO) Open(name string) (iceio.File, error) {
	rel, err := below(f.c.root, name)
	if err != nil {
		return nil, err
	}
	return f.c.lake.io.Open(f.c.to + rel)
}

func (f copyIO) Remove(string) error { return errors.ErrUnsupported }

// heldIO gives out the one file that was read.
type heldIO []byte

func (f heldIO) Open(string) (iceio.File, error) { return verifiedFile{bytes.NewReader(f), nil}, nil }
func (f heldIO) Remove(string) error             { return errors.ErrUnsupported }

// file copies a file that a table of the copy names, unless it is there.
func (c *lakeCopier) file(ctx context.Context, h *copiedHead, location string, size int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	rel, err := below(c.root, location)
	if err != nil {
		return err
	}
	if c.has(rel, size) {
		c.out.Files, c.out.Bytes = c.out.Files+1, c.out.Bytes+size
		return nil
	}
	from, to := c.lake.root+rel, c.to+rel
	if err := c.folder(to); err != nil {
		return err
	}
	sum := crc32.New(castagnoli)
	n, err := vfs.Copy(c.lake.fs, from, to, c.Pace, sum)
	if err != nil {
		return c.gone(ctx, h, from, err)
	}
	if n != size {
		return damaged(h.ident, from, fmt.Sprintf("it has %d bytes, its manifest says %d", n, size))
	}
	if want, ok := nameSum(from); ok && sum.Sum32() != want {
		return damaged(h.ident, from, wrongSum(from, sum.Sum32(), want).Error())
	}
	c.out.Files, c.out.Bytes = c.out.Files+1, c.out.Bytes+n
	return nil
}

// has tells whether the copy has the file: by an earlier pass, which syncs what
// it leaves.
func (c *lakeCopier) has(rel string, size int64) bool {
	info, err := c.lake.fs.Stat(c.to + rel)
	if err != nil || info.Size() != size {
		return false
	}
	c.dirs[filepath.Dir(c.to+rel)] = true
	return true
}

// read reads a small file of the original.
func (c *lakeCopier) read(ctx context.Context, h *copiedHead, location string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if _, err := c.rel(location); err != nil {
		return nil, err
	}
	b, err := c.lake.io.ReadFile(location)
	if err != nil {
		return nil, c.gone(ctx, h, location, err)
	}
	return b, nil
}

// gone decides what a missing file means: that the table has moved on, or that
// the lake is damaged.
func (c *lakeCopier) gone(ctx context.Context, h *copiedHead, name string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	now, lerr := c.lake.catalog.Location(ctx, h.ident)
	if lerr != nil && !errors.Is(lerr, lake.ErrNoTable) {
		return lerr
	}
	if lerr == nil && now == h.location {
		return damaged(h.ident, name, "the file is missing")
	}
	return fmt.Errorf("%w: %s", errVanished, name)
}

func damaged(t lake.Ident, location, reason string) error {
	p, err := localPath(location)
	if err != nil {
		p = location
	}
	return fault.WithHint(&fault.Corrupt{Path: p, Offset: -1, Reason: reason}, "`naru table fsck %s` names all that is damaged in the table, with the cures", t)
}

// rel is the part of a location of the original behind its warehouse.
func (c *lakeCopier) rel(location string) (string, error) { return below(c.lake.root, location) }

// below is the part of a location behind a warehouse's folder.
func below(root, location string) (string, error) {
	p, err := localPath(location)
	if err != nil {
		return "", err
	}
	rel, ok := strings.CutPrefix(filepath.Clean(p), root)
	if !ok || !strings.HasPrefix(rel, "/") {
		return "", fault.WithHint(fmt.Errorf("%s lies outside of %s", p, root), "only what is in the folder can be copied: drop the table from the catalog, or let its engine write it into the folder")
	}
	return rel, nil
}

// placeOf is where the copy has a file of the original.
func (c *lakeCopier) placeOf(location string) string {
	rel, err := c.rel(location)
	if err != nil {
		return location // it was asked before
	}
	return c.to + rel
}

// folder makes the folder of a file in the copy.
func (c *lakeCopier) folder(file string) error {
	dir := filepath.Dir(file)
	if c.dirs[dir] {
		return nil
	}
	c.dirs[dir] = true
	return c.lake.fs.MkdirAll(dir)
}

func (c *lakeCopier) writeAt(location string, b []byte) error { return c.write(c.placeOf(location), b) }

// write writes a small file of the copy. Its folder is synced at the end.
func (c *lakeCopier) write(path string, b []byte) error {
	if err := errors.Join(c.Pace(len(b)), c.folder(path)); err != nil {
		return err
	}
	f, err := c.lake.fs.Create(path)
	if err != nil {
		return err
	}
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	c.out.Files, c.out.Bytes = c.out.Files+1, c.out.Bytes+int64(len(b))
	return errors.Join(err, f.Close())
}
