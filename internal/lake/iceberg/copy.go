package iceberg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	ice "github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"

	"naru/internal/event"
	"naru/internal/lake"
)

// CopyOptions say where a copy of the lake goes.
type CopyOptions struct {
	// To is the data folder of the copy, absolute. It holds no lake yet.
	To string
	// Root is the data folder as which the copy is to be used: tables hold
	// absolute paths. Usually the original's, for a copy that takes its place.
	Root string
	// Pace is called for every so many bytes before they are written; it may
	// wait, and its error ends the copy.
	Pace func(n int) error
	// Room is told how many bytes of data files are to be copied, before the
	// first one; its error ends the copy.
	Room func(n int64) error
}

// CopiedLake says what a copy holds.
type CopiedLake struct {
	Tables []CopiedTable `json:"tables"`
	Files  int           `json:"files"`
	Bytes  int64         `json:"bytes"`
	// Strangers are rows of the catalog that naru does not know, such as views of
	// other engines. The copy has the rows but not their files.
	Strangers []string `json:"strangers,omitempty"`
	// Refused are the tables that were ahead of the log.
	Refused map[lake.Ident]event.Positions `json:"-"`
}

// CopiedTable is one table as the copy has it.
type CopiedTable struct {
	Table     lake.Ident      `json:"table"`
	Rows      int64           `json:"rows"`
	Files     int             `json:"files"` // of data, of all snapshots
	Bytes     int64           `json:"bytes"` // of these
	Positions event.Positions `json:"positions"`
	Stream    string          `json:"stream,omitempty"` // that they are of, if it is not the namespace's
}

// errVanished: the table has moved on and a file was removed since.
var errVanished = errors.New("a file was removed while it was to be copied")

// copyPasses bounds how often a copy begins anew with the tables as they are
// then; what it has of data files stays.
const copyPasses = 20

// Copy copies the catalog, the lake's own files, and everything that any
// snapshot of any table needs. A server may be committing meanwhile. What stands
// in the copy is what a crash at one moment during the call would have left:
// catalog, claims and refusals are of that moment, and the files that they lead
// to do not change. All is durable, folders included, when Copy returns.
func (l *Lake) Copy(ctx context.Context, o CopyOptions) (CopiedLake, error) {
	c := &lakeCopier{lake: l, CopyOptions: o, to: filepath.Join(o.To, lakeFolder), root: filepath.Join(o.Root, lakeFolder)}
	var err error
	for range copyPasses {
		if err = c.pass(ctx); !errors.Is(err, errVanished) {
			break
		}
	}
	if err != nil {
		return c.out, fmt.Errorf("copy lake: %w", err)
	}
	return c.out, nil
}

// lakeCopier copies a lake.
type lakeCopier struct {
	lake *Lake
	CopyOptions
	to, root string // of the warehouse
	dirs     map[string]bool
	before   map[string][]string // metadata files that were there before the moment of the copy, by folder
	out      CopiedLake
}

// moved tells whether the copy's tables get other paths.
func (c *lakeCopier) moved() bool { return c.root != c.lake.root }

func (c *lakeCopier) pass(ctx context.Context) (err error) {
	c.out, c.dirs = CopiedLake{}, map[string]bool{}
	if err := c.lake.fs.MkdirAll(c.to); err != nil {
		return err
	}
	catalog, err := c.freeze(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if catalog != nil {
			err = errors.Join(err, catalog.Close())
		}
	}()
	if c.out.Strangers, err = catalog.Strangers(ctx); err != nil {
		return err
	}
	list, err := catalog.List(ctx)
	if err != nil {
		return err
	}
	tables := make([]*copiedHead, len(list))
	// What goes first in a lake that is written to comes first: metadata files,
	// then lists and manifests, then data.
	for i, t := range list {
		loc, err := catalog.Location(ctx, t)
		if err != nil {
			return err
		}
		tables[i] = &copiedHead{ident: t, location: loc}
		if err := c.metadata(ctx, tables[i]); err != nil {
			return fmt.Errorf("table %s: %w", t, err)
		}
	}
	total := int64(0)
	for _, h := range tables {
		if err := c.manifests(ctx, h); err != nil {
			return fmt.Errorf("table %s: %w", h.ident, err)
		}
		total += h.missing
		if c.moved() {
			if err := catalog.Relocate(ctx, h.ident, h.copied); err != nil {
				return err
			}
		}
	}
	if c.moved() {
		err := catalog.Rebase(ctx, func(location string) (string, bool) {
			to, err := c.rebase(location)
			return to, err == nil
		})
		if err != nil {
			return err
		}
	}
	if err := c.Room(total); err != nil {
		return err
	}
	for _, h := range tables {
		if err := c.data(ctx, h); err != nil {
			return fmt.Errorf("table %s: %w", h.ident, err)
		}
	}
	err = catalog.Close()
	catalog = nil
	if err != nil {
		return err
	}
	return c.settle()
}

// settle makes durable what is not yet.
func (c *lakeCopier) settle() error {
	if err := c.write(filepath.Join(c.to, rootFile), []byte(c.root+"\n")); err != nil {
		return err
	}
	path := filepath.Join(c.To, catalogFile)
	file, err := c.lake.fs.OpenReadWrite(path)
	if err == nil {
		var info fs.FileInfo
		if info, err = file.Stat(); err == nil {
			c.out.Files, c.out.Bytes = c.out.Files+1, c.out.Bytes+info.Size()
		}
		err = errors.Join(err, file.Sync(), file.Close())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a catalog in memory has no file
		return err
	}
	c.dirs[c.To] = true
	for dir := range c.dirs {
		if err := c.lake.fs.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// freeze copies the catalog as it is at one moment, with the claims, refusals and
// loaded streams of that moment: a claim decides to which table a row goes, and one that is
// older or newer than the tables could send rows past both.
func (c *lakeCopier) freeze(ctx context.Context) (catalogCopy, error) {
	source, ok := c.lake.catalog.(interface {
		CopyTo(ctx context.Context, path string) (catalogCopy, error)
	})
	if !ok {
		return nil, fmt.Errorf("a catalog of type %T cannot be copied", c.lake.catalog)
	}
	own := []string{claimsFile, RefusedFile, streamsFile, droppedFile}
	read := func() (files [][]byte, err error) {
		for _, name := range own {
			b, err := c.lake.io.ReadFile(filepath.Join(c.lake.root, name))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			files = append(files, b)
		}
		return files, nil
	}
	if err := c.copyMarks(); err != nil {
		return nil, err
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c.metadataFiles()
		before, err := read()
		if err != nil {
			return nil, err
		}
		path := filepath.Join(c.To, catalogFile)
		if err := c.lake.fs.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		catalog, err := source.CopyTo(ctx, path)
		if err != nil {
			return nil, err
		}
		after, err := read()
		if err != nil {
			return nil, errors.Join(err, catalog.Close())
		}
		if !slices.EqualFunc(before, after, bytes.Equal) {
			if err := catalog.Close(); err != nil {
				return nil, err
			}
			continue
		}
		for i, name := range own {
			if after[i] == nil {
				continue
			}
			if err := c.write(filepath.Join(c.to, name), after[i]); err != nil {
				return nil, errors.Join(err, catalog.Close())
			}
		}
		c.out.Refused, err = c.lake.readRefusals()
		if err != nil {
			return nil, errors.Join(err, catalog.Close())
		}
		return catalog, nil
	}
}

// metadataFiles notes the metadata files of all tables.
func (c *lakeCopier) metadataFiles() {
	c.before = map[string][]string{}
	l := c.lake
	for _, ns := range l.list(l.root) {
		for _, name := range l.list(filepath.Join(l.root, ns)) {
			folder := filepath.Join(l.root, ns, name, "metadata")
			for _, file := range l.list(folder) {
				if strings.HasSuffix(file, ".metadata.json") {
					c.before[folder] = append(c.before[folder], file)
				}
			}
		}
	}
}

// newer copies the metadata files that are newer than the catalog says: by them
// it is seen that the table's row was set back (lookAhead). Those that commits
// write after the moment of the copy are none of them.
func (c *lakeCopier) newer(ctx context.Context, h *copiedHead, meta table.Metadata) error {
	folder, err := localPath(meta.Location())
	if err != nil {
		return err
	}
	folder = filepath.Join(folder, "metadata")
	for _, name := range c.before[folder] {
		if metadataVersion(name) <= metadataVersion(h.location) {
			continue
		}
		b, err := c.lake.io.ReadFile(filepath.Join(folder, name))
		if err != nil {
			continue // damaged or gone, it tells nothing
		}
		if err := errors.Join(ctx.Err(), c.writeAt(filepath.Join(folder, name), b)); err != nil {
			return err
		}
	}
	return nil
}

// copiedHead is a table's newest metadata file and where the copy has it.
type copiedHead struct {
	ident    lake.Ident
	location string // in the original
	copied   string // location in the copy
	missing  int64  // bytes of data files that the copy lacks yet
}

// metadata copies the table's newest metadata file, and those before it that it
// names: those only where they stay, since they hold paths too.
func (c *lakeCopier) metadata(ctx context.Context, h *copiedHead) error {
	h.copied = h.location
	b, err := c.read(ctx, h, h.location)
	if err != nil {
		return err
	}
	if err := c.writeAt(h.location, b); err != nil || c.moved() {
		return err
	}
	meta, err := parseMetadata(h, b)
	if err != nil {
		return err
	}
	if err := c.newer(ctx, h, meta); err != nil {
		return err
	}
	for e := range meta.PreviousFiles() {
		b, err := c.read(ctx, h, e.MetadataFile)
		if err != nil {
			return err
		}
		if err := c.writeAt(e.MetadataFile, b); err != nil {
			return err
		}
	}
	return nil
}

func parseMetadata(h *copiedHead, b []byte) (_ table.Metadata, err error) {
	defer recovered(&err)
	fsys := func(context.Context) (iceio.IO, error) { return heldIO(b), nil }
	tbl, err := table.NewFromLocation(context.Background(), []string{h.ident.Namespace, h.ident.Name}, h.location, fsys, nil)
	if err != nil {
		return nil, damaged(h.ident, h.location, err.Error())
	}
	return tbl.Metadata(), nil
}

// manifests copies manifest lists and manifests, and counts the data behind them.
func (c *lakeCopier) manifests(ctx context.Context, h *copiedHead) error {
	b, err := c.lake.io.ReadFile(c.placeOf(h.location))
	if err != nil {
		return err
	}
	meta, err := parseMetadata(h, b)
	if err != nil {
		return err
	}
	folder, err := c.rel(meta.Location())
	if err != nil {
		return err
	}
	one := CopiedTable{Table: h.ident}
	head, err := newHead(h.location, meta)
	if err != nil {
		return err
	}
	one.Positions, one.Stream = head.positions, head.meta.Properties()[keyStream]
	one.Rows, _, _, _ = c.lake.totals(head)
	if c.moved() {
		c.lake.lookAhead(ctx, h.ident, head)
	}
	m := &mover{lakeCopier: c, head: head, folder: folder, lists: map[string]string{}, done: map[string]movedFile{}}
	counted := map[string]bool{}
	for _, s := range meta.Snapshots() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.ManifestList == "" {
			return fmt.Errorf("snapshot %d has no manifest list: of format version 1, which cannot be copied", s.SnapshotID)
		}
		list, err := c.read(ctx, h, s.ManifestList)
		if err != nil {
			return err
		}
		manifests, err := ice.ReadManifestList(bytes.NewReader(list))
		if err != nil {
			return damaged(h.ident, s.ManifestList, err.Error())
		}
		for _, file := range manifests {
			if _, done := m.done[file.FilePath()]; done {
				continue
			}
			b, err := c.read(ctx, h, file.FilePath())
			if err != nil {
				return err
			}
			if int64(len(b)) != file.Length() {
				return damaged(h.ident, file.FilePath(), fmt.Sprintf("it has %d bytes, its list says %d", len(b), file.Length()))
			}
			if err := m.manifest(file, b); err != nil {
				return err
			}
			err = eachDataFile(h.ident, file, b, func(f ice.DataFile) error {
				rel, err := c.rel(f.FilePath())
				if err != nil || counted[rel] {
					return err
				}
				counted[rel] = true
				one.Files, one.Bytes = one.Files+1, one.Bytes+f.FileSizeBytes()
				if !c.has(rel, f.FileSizeBytes()) {
					h.missing += f.FileSizeBytes()
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		if err := m.list(s.ManifestList, list); err != nil {
			return err
		}
	}
	c.out.Tables = append(c.out.Tables, one)
	h.copied, err = m.metadata(h, b)
	return err
}

// eachDataFile calls fn for the live files of a manifest.
func eachDataFile(t lake.Ident, m ice.ManifestFile, b []byte, fn func(ice.DataFile) error) error {
	entries, err := readManifest(m, b)
	if err != nil {
		return damaged(t, m.FilePath(), err.Error())
	}
	for _, e := range entries {
		if err := fn(e.DataFile()); err != nil {
			return err
		}
	}
	return nil
}

func readManifest(m ice.ManifestFile, b []byte) (_ []ice.ManifestEntry, err error) {
	defer recovered(&err)
	return ice.ReadManifest(m, bytes.NewReader(b), true)
}

// data copies the data files, and statistics of other engines, that the copy
// does not have yet.
func (c *lakeCopier) data(ctx context.Context, h *copiedHead) error {
	meta, err := c.copiedMetadata(h)
	if err != nil {
		return err
	}
	for s := range meta.Statistics() {
		if err := c.file(ctx, h, s.StatisticsPath, s.FileSizeInBytes); err != nil {
			return err
		}
	}
	for s := range meta.PartitionStatistics() {
		if err := c.file(ctx, h, s.StatisticsPath, s.FileSizeInBytes); err != nil {
			return err
		}
	}
	read := map[string]bool{}
	files := copyIO{c}
	for _, s := range meta.Snapshots() {
		manifests, err := s.Manifests(files)
		if err != nil {
			return err
		}
		for _, m := range manifests {
			if read[m.FilePath()] {
				continue
			}
			read[m.FilePath()] = true
			for e, err := range m.Entries(files, true) {
				if err != nil {
					return err
				}
				if err := c.file(ctx, h, e.DataFile().FilePath(), e.DataFile().FileSizeBytes()); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (c *lakeCopier) copiedMetadata(h *copiedHead) (table.Metadata, error) {
	fsys := func(context.Context) (iceio.IO, error) { return copyIO{c}, nil }
	tbl, err := table.NewFromLocation(context.Background(), []string{h.ident.Namespace, h.ident.Name}, h.copied, fsys, nil)
	if err != nil {
		return nil, err
	}
	return tbl.Metadata(), nil
}
