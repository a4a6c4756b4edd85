package iceberg

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"

	ice "github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"

	"naru/internal/lake"
	"naru/internal/lake/columnar"
)

// snapshot checks a manifest list, its manifests and their files. Manifests in
// read have been looked into.
func (c *checker) snapshot(ctx context.Context, t lake.Ident, s table.Snapshot, current bool, read map[string]bool, found func(CheckedFile) error) error {
	if s.ManifestList == "" {
		return found(CheckedFile{Table: t, Kind: KindList, Path: fmt.Sprintf("snapshot %d", s.SnapshotID), Offset: -1, Verdict: Unsummed,
			Reason: "its manifests stand in the metadata file, which naru does not follow", Current: current})
	}
	r := ref{CheckedFile{Table: t, Kind: KindList, Current: current}, -1}
	var manifests []ice.ManifestFile
	ok, err := c.listed(&r, s.ManifestList, found, func(b []byte) (err error) {
		defer recovered(&err)
		manifests, err = ice.ReadManifestList(bytes.NewReader(b))
		return err
	})
	if err != nil || !ok {
		return err
	}
	for _, m := range manifests {
		if read[m.FilePath()] {
			continue
		}
		read[m.FilePath()] = true
		r := ref{CheckedFile{Table: t, Kind: KindManifest, Current: current}, m.Length()}
		var files []ref
		_, err := c.listed(&r, m.FilePath(), found, func(b []byte) (err error) {
			defer recovered(&err)
			files, err = c.entries(t, m, b, current)
			return err
		})
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := ctx.Err(); err != nil {
				return err
			}
			if c.seen[f.Path] {
				continue
			}
			if !f.Bad() {
				c.data(ctx, &f)
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := found(f.CheckedFile); err != nil {
				return err
			}
		}
	}
	return nil
}

// listed checks a manifest or a list of them; ok is false when it could not be
// read.
func (c *checker) listed(r *ref, location string, found func(CheckedFile) error, parse func([]byte) error) (ok bool, err error) {
	p, err := localPath(location)
	if err != nil {
		r.Path, r.Offset = location, -1
		c.judge(&r.CheckedFile, err)
		return false, found(r.CheckedFile)
	}
	r.Path = filepath.Clean(p)
	c.small(r, parse)
	return !r.Bad(), found(r.CheckedFile)
}

// entries reads a manifest that was read whole already.
func (c *checker) entries(t lake.Ident, m ice.ManifestFile, b []byte, current bool) ([]ref, error) {
	var out []ref
	for e, err := range m.Entries(oneFileIO{c.lake.io, m.FilePath(), b}, true) {
		if err != nil {
			return nil, err
		}
		d := e.DataFile()
		f := ref{CheckedFile{Table: t, Kind: KindData, Path: d.FilePath(), Current: current, Rows: d.Count(), Offset: -1}, d.FileSizeBytes()}
		f.FirstOffset, f.LastOffset = offsetsOf(d)
		if d.ContentType() != ice.EntryContentData {
			f.Kind = KindDeletes
		}
		if p, err := localPath(f.Path); err == nil {
			f.Path = filepath.Clean(p)
		} else {
			c.judge(&f.CheckedFile, err)
		}
		out = append(out, f)
	}
	return out, nil
}

// offsetsOf returns the lowest and the highest _offset in a data file, by its
// manifest; -1 when that does not say.
func offsetsOf(d ice.DataFile) (first, last int64) {
	lower, upper := d.LowerBoundValues()[columnar.OffsetID], d.UpperBoundValues()[columnar.OffsetID]
	if len(lower) != 8 || len(upper) != 8 {
		return -1, -1
	}
	return int64(binary.LittleEndian.Uint64(lower)), int64(binary.LittleEndian.Uint64(upper))
}

// data checks a data file.
func (c *checker) data(ctx context.Context, r *ref) {
	r.Verdict = Whole
	if _, ok := nameSum(r.Path); !ok {
		r.Verdict = Unsummed
	}
	info, err := c.lake.fs.Stat(r.Path)
	if err == nil {
		if r.Bytes = info.Size(); r.Bytes != r.length {
			err = wrongLength(r.Path, r.Bytes, r.length)
		}
	}
	if err == nil && !c.opt.Shallow {
		if r.Verdict == Whole {
			err = c.lake.checkSum(ctx, r.Path)
		} else if strings.HasSuffix(r.Path, dataSuffix) {
			var rows int64
			if rows, err = columnar.ReadThrough(ctx, c.lake.fs, r.Path); err == nil && rows != r.Rows {
				err = fmt.Errorf("it has %d rows, and should have %d", rows, r.Rows)
			}
		}
	}
	c.judge(&r.CheckedFile, err)
}

// files lists everything below a folder.
func (c *checker) files(ctx context.Context, dir string, out *[]string) error {
	for _, name := range c.lake.list(dir) {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := filepath.Join(dir, name)
		info, err := c.lake.fs.Stat(p)
		if err != nil {
			continue // gone meanwhile
		}
		if info.IsDir() {
			if err := c.files(ctx, p, out); err != nil {
				return err
			}
			continue
		}
		*out = append(*out, p)
	}
	return nil
}

// orphans reports what is in the warehouse and no table needs.
func (c *checker) orphans(ctx context.Context, files []string) error {
	for _, p := range files {
		if c.seen[p] || p == filepath.Join(c.lake.root, lockFile) {
			continue
		}
		info, err := c.lake.fs.Stat(p)
		if err != nil {
			continue // collected meanwhile
		}
		f := CheckedFile{Kind: KindUnknown, Path: p, Bytes: info.Size(), Offset: -1, Verdict: Orphan, Reason: "no table needs it"}
		rel, _ := strings.CutPrefix(p, c.lake.root+"/")
		if parts := strings.Split(rel, "/"); len(parts) > 2 {
			f.Table = lake.Ident{Namespace: parts[0], Name: parts[1]}
			if c.doubtful[filepath.Join(c.lake.root, parts[0], parts[1])] {
				f.Reason = "what is whole of its table does not need it; what is damaged may"
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.report(f); err != nil {
			return err
		}
	}
	return nil
}

// oneFileIO gives out one file from memory, so that what was checked is what is
// parsed.
type oneFileIO struct {
	iceio.IO
	name string
	b    []byte
}

func (f oneFileIO) Open(name string) (iceio.File, error) {
	if name != f.name {
		return f.IO.Open(name)
	}
	return verifiedFile{bytes.NewReader(f.b), nil}, nil
}
