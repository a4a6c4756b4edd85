package iceberg

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"

	"naru/internal/fault"
	"naru/internal/lake"
)

// Verdict is what Check found of a file.
type Verdict string

// The verdicts. Damaged and Missing are damage, the others are not.
const (
	Whole    Verdict = "whole"            // its bytes are those that its name promises
	Unsummed Verdict = "without checksum" // of another engine or an older naru: it can be read, as far as its format tells
	Damaged  Verdict = "damaged"
	Missing  Verdict = "missing"
	Orphan   Verdict = "orphan" // no table needs it
)

// FileKind is what a file is for.
type FileKind string

// The kinds of files.
const (
	KindCatalog  FileKind = "catalog"
	KindLake     FileKind = "lake"     // root, claims and refusals
	KindMetadata FileKind = "metadata" // the table's newest metadata file
	KindPrevious FileKind = "previous metadata"
	KindList     FileKind = "manifest list"
	KindManifest FileKind = "manifest"
	KindData     FileKind = "data"
	KindDeletes  FileKind = "deletes" // row-level, of another engine
	KindUnknown  FileKind = "unknown"
)

// CheckedFile is one file of the lake and what Check found of it.
type CheckedFile struct {
	Table   lake.Ident `json:"table,omitzero"`
	Kind    FileKind   `json:"kind"`
	Path    string     `json:"path"` // local
	Bytes   int64      `json:"bytes"`
	Verdict Verdict    `json:"verdict"`
	// Offset is the byte at which the damage shows; -1 when it cannot be known,
	// as from a checksum over the whole file.
	Offset int64  `json:"offset"`
	Reason string `json:"reason,omitempty"`
	Cure   string `json:"cure,omitempty"`
	// Current is true when the table's newest snapshot needs the file; others
	// serve only queries of the past.
	Current bool `json:"current,omitempty"`
	// Rows of a data file. Those of naru lie at FirstOffset to LastOffset of
	// their stream's partitions; both are -1 when the manifest does not say.
	Rows        int64 `json:"rows,omitempty"`
	FirstOffset int64 `json:"first_offset,omitempty"`
	LastOffset  int64 `json:"last_offset,omitempty"`
}

// Bad tells whether the file is damage.
func (f CheckedFile) Bad() bool { return f.Verdict == Damaged || f.Verdict == Missing }

// CheckOptions say what Check looks at.
type CheckOptions struct {
	// Tables to check; empty: all, and besides them the catalog, the lake's own
	// files and what no table needs.
	Tables []lake.Ident
	// Shallow leaves the content of data files alone: they must be there and of
	// the right length.
	Shallow bool
}

// Check walks everything that the tables' metadata leads to, of all snapshots,
// and calls fn once for each file, with its verdict. An error of fn ends it and
// is returned; damage is not an error.
//
// It may run beside a server that goes on committing and expiring: a file that
// is gone is missing only if the table as it is afterwards still needs it.
func (l *Lake) Check(ctx context.Context, opt CheckOptions, fn func(CheckedFile) error) error {
	c := &checker{lake: l, opt: opt, fn: fn, seen: map[string]bool{}, doubtful: map[string]bool{}}
	all := len(opt.Tables) == 0
	tables := opt.Tables
	var found []string
	if all {
		// Files first: what is written from now on is no orphan.
		if err := c.files(ctx, l.root, &found); err != nil {
			return err
		}
		if err := c.own(ctx); err != nil {
			return err
		}
		var err error
		if tables, err = l.catalog.List(ctx); err != nil {
			// A catalog that cannot be listed was reported by own.
			var bad *fault.Corrupt
			if errors.As(err, &bad) || c.catalogBad {
				return nil
			}
			return fmt.Errorf("check tables: %w", err)
		}
	}
	for _, t := range tables {
		if err := c.table(ctx, t); err != nil {
			return err
		}
	}
	if !all {
		return nil
	}
	return c.orphans(ctx, found)
}

type checker struct {
	lake       *Lake
	opt        CheckOptions
	fn         func(CheckedFile) error
	seen       map[string]bool // paths that have their verdict
	doubtful   map[string]bool // folders of tables whose lists could not all be read
	catalogBad bool
}

// ref is a file that something refers to.
type ref struct {
	CheckedFile
	length int64 // that it must have; -1 when nobody says
}

// report gives the verdict of a file, once.
func (c *checker) report(f CheckedFile) error {
	if c.seen[f.Path] {
		return nil
	}
	c.seen[f.Path] = true
	if f.Bad() {
		f.Cure = cureOf(f)
		switch f.Kind {
		case KindMetadata, KindList, KindManifest: // what it leads to is not known
			c.doubtful[filepath.Dir(filepath.Dir(f.Path))] = true
		}
	}
	return c.fn(f)
}

// cureOf tells what to do about damage.
func cureOf(f CheckedFile) string {
	reload := fmt.Sprintf("or load the table anew from what the log still has: stop the server and run naru table reload %s", f.Table)
	switch {
	case f.Kind == KindCatalog:
		return "stop the server and bring catalog.db back from a backup made with the tables; or move it and the folder lake away: all that the log still has is loaded anew"
	case f.Kind == KindLake && filepath.Base(f.Path) == rootFile:
		return "write the absolute path of that folder into it, one line"
	case f.Kind == KindLake:
		return "bring it back from a backup; without one: stop the server, move the file away, start, and have naru verify --deep say whether every event is in its table"
	case f.Kind == KindPrevious:
		return "no query needs it: it only lets the table go back to an earlier state; bring it back from a backup, or wait: after some more commits nothing refers to it"
	case !f.Current:
		return "only older snapshots need it: bring it back from a backup, or wait until they have expired"
	default:
		return "bring it back from a backup; " + reload
	}
}

// own checks the files that belong to no table.
func (c *checker) own(ctx context.Context) error {
	l := c.lake
	if checked, ok := l.catalog.(interface {
		Check(context.Context) (CheckedFile, error)
	}); ok {
		f, err := checked.Check(ctx)
		if err != nil {
			return fmt.Errorf("check catalog: %w", err)
		}
		c.catalogBad = f.Bad()
		if err := c.report(f); err != nil {
			return err
		}
	}
	for _, name := range []string{rootFile, claimsFile, RefusedFile, streamsFile, MarksFile, shapesFile, droppedFile} {
		f := CheckedFile{Kind: KindLake, Path: filepath.Join(l.root, name), Offset: -1, Verdict: Whole}
		b, err := l.io.ReadFile(f.Path)
		if errors.Is(err, fs.ErrNotExist) && name != rootFile {
			continue
		}
		f.Bytes = int64(len(b))
		if err == nil {
			switch name {
			case rootFile:
				if string(b) != l.root+"\n" {
					err = &fault.Corrupt{Path: f.Path, Offset: -1, Reason: "it is not one line with the path of the lake, " + l.root}
				}
			default:
				var summed bool
				if summed, err = c.lake.checkLines(f.Path, b); err == nil && !summed {
					f.Verdict = Unsummed
				}
			}
		}
		c.judge(&f, err)
		if err := c.report(f); err != nil {
			return err
		}
	}
	return nil
}

// judge turns an error into a verdict.
func (c *checker) judge(f *CheckedFile, err error) {
	if err == nil {
		return
	}
	var bad *fault.Corrupt
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Verdict, f.Reason = Missing, "it is not there"
	case errors.As(err, &bad):
		f.Verdict, f.Reason, f.Offset = Damaged, bad.Reason, bad.Offset
	default:
		f.Verdict, f.Reason = Damaged, err.Error()
	}
}

// maxWalks bounds how often a table is walked again because it has changed.
const maxWalks = 10

// table checks one table.
func (c *checker) table(ctx context.Context, t lake.Ident) error {
	missing := map[string]bool{} // when it was last looked at
	done := ""
	for walk := 1; ; walk++ {
		loc, err := c.lake.catalog.Location(ctx, t)
		if errors.Is(err, lake.ErrNoTable) && walk > 1 {
			return nil // dropped meanwhile
		}
		if err != nil {
			return fmt.Errorf("check table %s: %w", t, err)
		}
		// Whatever is still missing and needed by a head that was read later than
		// that was found is really missing: files do not come back.
		sure := func(p string) bool { return missing[p] || loc == done || walk == maxWalks }
		again := false
		err = c.walk(ctx, t, loc, func(f CheckedFile) error {
			if f.Verdict == Missing && !sure(f.Path) {
				missing[f.Path], again = true, true
				return nil
			}
			return c.report(f)
		})
		if err != nil {
			return err
		}
		if !again {
			return nil
		}
		done = loc
	}
}

// walk checks everything that one metadata file leads to.
func (c *checker) walk(ctx context.Context, t lake.Ident, loc string, found func(CheckedFile) error) error {
	head := ref{CheckedFile{Table: t, Kind: KindMetadata, Current: true}, -1}
	meta, err := c.metadata(head, loc, found)
	if err != nil || meta == nil {
		return err
	}
	for e := range meta.PreviousFiles() {
		if _, err := c.metadata(ref{CheckedFile{Table: t, Kind: KindPrevious}, -1}, e.MetadataFile, found); err != nil {
			return err
		}
	}
	snapshots := slices.Clone(meta.Snapshots())
	// The current one first, so that what it shares with others counts as its own.
	newest := meta.SnapshotByName(table.MainBranch)
	current := func(s table.Snapshot) bool { return newest != nil && s.SnapshotID == newest.SnapshotID }
	slices.SortStableFunc(snapshots, func(a, b table.Snapshot) int {
		switch {
		case current(a):
			return -1
		case current(b):
			return 1
		}
		return 0
	})
	read := map[string]bool{} // manifests
	for _, s := range snapshots {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.snapshot(ctx, t, s, current(s), read, found); err != nil {
			return err
		}
	}
	return nil
}

// metadata checks a metadata file and reads it; nil when it cannot be read.
func (c *checker) metadata(r ref, loc string, found func(CheckedFile) error) (table.Metadata, error) {
	p, err := localPath(loc)
	if err != nil {
		r.Path, r.Offset = loc, -1
		c.judge(&r.CheckedFile, err)
		return nil, found(r.CheckedFile)
	}
	r.Path = filepath.Clean(p)
	if c.seen[r.Path] && r.Kind == KindPrevious {
		return nil, nil
	}
	var meta table.Metadata
	c.small(&r, func(b []byte) (err error) {
		defer recovered(&err)
		fsys := func(context.Context) (iceio.IO, error) { return oneFileIO{c.lake.io, r.Path, b}, nil }
		tbl, err := table.NewFromLocation(context.Background(), []string{r.Table.Namespace, r.Table.Name}, r.Path, fsys, nil)
		if err == nil {
			meta = tbl.Metadata()
		}
		return err
	})
	return meta, found(r.CheckedFile)
}

// small reads a file whole, checks it, and has it parsed.
func (c *checker) small(r *ref, parse func([]byte) error) {
	r.Verdict, r.Offset = Whole, -1
	if _, ok := nameSum(r.Path); !ok {
		r.Verdict = Unsummed
	}
	f, err := c.lake.fs.Open(r.Path)
	var b []byte
	if err == nil {
		b, err = readAll(f)
		r.Bytes = int64(len(b))
	}
	if err == nil {
		err = verify(r.Path, b)
	}
	if r.length >= 0 && r.Bytes != r.length && (err == nil || r.Bytes > 0) {
		err = wrongLength(r.Path, r.Bytes, r.length)
	}
	if err == nil {
		err = parse(b)
	}
	c.judge(&r.CheckedFile, err)
}

func wrongLength(p string, got, want int64) error {
	return &fault.Corrupt{Path: p, Offset: min(got, want), Reason: fmt.Sprintf("it has %d bytes, and should have %d", got, want)}
}

// recovered turns a panic of a parser, over bytes that nothing vouches for, into
// an error.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("parse: %v", p)
	}
}

// checkSum reads a data file to its end and holds it against its name.
func (l *Lake) checkSum(ctx context.Context, p string) error {
	want, ok := nameSum(p)
	if !ok {
		return nil
	}
	f, err := l.fs.Open(p)
	if err != nil {
		return err
	}
	var sum uint32
	buf := make([]byte, 1<<20)
	for err == nil {
		if err = ctx.Err(); err == nil {
			var n int
			n, err = f.Read(buf)
			sum = crc32.Update(sum, castagnoli, buf[:n])
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if sum != want {
		return wrongSum(p, sum, want)
	}
	return nil
}
