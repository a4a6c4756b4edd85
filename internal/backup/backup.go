// Package backup copies a naru folder into another one, which is a naru folder
// itself: settings, log and tables, while a server works on the original or
// without one. docs/design/0008-backup.md says why the copy is exact.
package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"naru/internal/fault"
	"naru/internal/lake/iceberg"
	"naru/internal/quantity"
	"naru/internal/stream/seglog"
	"naru/internal/vfs"
)

// Layout says where things are in a naru folder, relative to it.
type Layout struct {
	Data  string   // everything that naru writes
	Log   string   // the segments
	Root  string   // the record of where the folder stands
	Plain []string // settings and project folders: copied as they are
}

// Options of one backup.
type Options struct {
	FS     vfs.FS
	Folder string // absolute
	Layout Layout
	// Lake is the folder's, opened to look only; nil when it has none.
	Lake *iceberg.Lake
	// To is the folder that is made, absolute. It must not exist, or be empty.
	To string
	// Root is the folder as which the copy is to be used. Usually the original
	// one; with another one the tables' paths are changed.
	Root string
	// Record is what the copy's record of where it stands says; nil: none.
	Record []byte
	// Rate limits the bytes written in a second; 0 does not.
	Rate quantity.Bytes
	// Progress is called now and then, from the goroutine of Run.
	Progress func(done, total int64)
	Logger   *slog.Logger
	// Catalog gives the copy of a catalog that is no file; nil in use.
	Catalog func(path string) iceberg.Catalog
}

// Report says what was made.
type Report struct {
	To       string             `json:"to"`
	Root     string             `json:"root"` // as which it can be used
	Files    int                `json:"files"`
	Bytes    int64              `json:"bytes"`
	Began    time.Time          `json:"began"`
	Seconds  float64            `json:"seconds"`
	Attempts int                `json:"attempts"` // more than one: retention was faster than the copy
	Log      *seglog.Copied     `json:"log,omitempty"`
	Lake     iceberg.CopiedLake `json:"lake"`
	// LeftOut are files of the data folder that naru does not know.
	LeftOut []string `json:"left_out,omitempty"`
}

// attempts bounds how often a backup begins anew because retention dropped what
// it needed.
const attempts = 5

// Run makes the backup. The folder To is there, whole and durable, when Run has
// returned without an error, and else is not.
func Run(ctx context.Context, o Options) (Report, error) {
	r, err := run(ctx, o)
	if err != nil {
		return r, fmt.Errorf("back up %s: %w", o.Folder, explain(o, err))
	}
	return r, nil
}

// explain adds the cure.
func explain(o Options, err error) error {
	switch {
	case errors.Is(err, seglog.ErrOvertaken):
		return fault.WithHint(err, "retention is faster than the copy: raise log.retain_bytes, or leave away --rate")
	case errors.Is(err, syscall.ENOSPC):
		return fault.WithHint(err, "make room on the disk of %s; nothing of the backup was left there", o.To)
	}
	return err
}

func run(ctx context.Context, o Options) (Report, error) {
	m := newMeter(ctx, o.Rate, o.Progress)
	b := &backup{Options: o, meter: m, report: Report{To: o.To, Root: o.Root, Began: m.began.UTC().Truncate(time.Millisecond)}}
	t, err := openTarget(o.FS, o.Folder, o.To)
	if err != nil {
		return b.report, err
	}
	b.dir = t.partial
	if err := b.fill(ctx); err != nil {
		return b.report, errors.Join(err, t.abandon())
	}
	if err := t.publish(); err != nil {
		return b.report, errors.Join(err, t.abandon())
	}
	b.report.Seconds = time.Since(m.began).Seconds()
	return b.report, nil
}

// backup is one being made.
type backup struct {
	Options
	meter  *meter
	dir    string // what is being filled
	report Report
}

func (b *backup) data() string { return filepath.Join(b.dir, b.Layout.Data) }

// fill copies everything and checks it.
func (b *backup) fill(ctx context.Context) error {
	if err := b.FS.MkdirAll(b.data()); err != nil {
		return err
	}
	err := seglog.ErrOvertaken
	for b.report.Attempts = 0; b.report.Attempts < attempts && errors.Is(err, seglog.ErrOvertaken); {
		b.report.Attempts++
		err = b.copyData(ctx)
	}
	if err != nil {
		return err
	}
	if err := b.checkLake(ctx); err != nil {
		return err
	}
	for _, name := range b.Layout.Plain {
		if err := b.plain(name, 0); err != nil {
			return err
		}
	}
	if err := b.pipelines(); err != nil {
		return err
	}
	if b.Record != nil {
		if err := b.write(filepath.Join(b.dir, b.Layout.Root), b.Record); err != nil {
			return err
		}
	}
	if err := b.leftOut(); err != nil {
		return err
	}
	for _, dir := range []string{b.data(), b.dir} {
		if err := b.FS.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// copyData copies tables and log. The order is what makes the copy exact:
// first the readers' positions are noted, then the tables are copied, then the
// log. So every table has what lies below the positions, and the log has what
// any table has.
func (b *backup) copyData(ctx context.Context) error {
	log := filepath.Join(b.Folder, b.Layout.Log)
	hasLog, err := b.exists(log)
	if err != nil {
		return err
	}
	var marks *seglog.Marks
	room := func(n int64) error { return b.room(n) }
	if hasLog {
		if marks, err = seglog.ReadMarks(b.FS, log); err != nil {
			return err
		}
		room = func(n int64) error { return b.room(n + marks.Bytes) }
	}
	b.report.Lake = iceberg.CopiedLake{Tables: []iceberg.CopiedTable{}}
	if b.Lake != nil {
		b.report.Lake, err = b.Lake.Copy(ctx, iceberg.CopyOptions{
			To: b.data(), Root: filepath.Join(b.Root, b.Layout.Data), Pace: b.meter.take, Room: room})
	} else {
		err = room(0)
	}
	if err != nil {
		return err
	}
	b.report.Files, b.report.Bytes = b.report.Lake.Files, b.report.Lake.Bytes
	if !hasLog {
		return b.contracts()
	}
	to := filepath.Join(b.dir, b.Layout.Log)
	if err := b.empty(to); err != nil {
		return err
	}
	made, err := seglog.Copy(ctx, b.FS, log, to, marks, b.meter.take)
	if err != nil {
		return err
	}
	b.report.Log = &made
	b.report.Files, b.report.Bytes = b.report.Files+made.Files, b.report.Bytes+made.Bytes
	// Behind the log: every contract that a record of it names is known by then.
	if err := b.contracts(); err != nil {
		return err
	}
	return b.checkAhead(made)
}

// contracts copies what the lake knows of contracts.
func (b *backup) contracts() error {
	if b.Lake == nil {
		return nil
	}
	files, size, err := b.Lake.CopyShapes(b.data())
	b.report.Files, b.report.Bytes = b.report.Files+files, b.report.Bytes+size
	return err
}

// checkAhead refuses tables that have more than the log. The log's incarnation
// ends in the copy, and what is ahead of a closed one is taken for cut.
func (b *backup) checkAhead(made seglog.Copied) error {
	type part struct {
		stream string
		n      int32
	}
	ends := map[part]int64{}
	for _, s := range made.Streams {
		ends[part{s.Stream, s.Partition}] = s.End
	}
	for _, t := range b.report.Lake.Tables {
		if b.report.Lake.Refused[t.Table] != nil {
			continue // known, and remembered in the copy
		}
		of := cmp.Or(t.Stream, t.Table.Namespace)
		for n, offset := range t.Positions[made.Closed] {
			if end := ends[part{of, n}]; offset > end {
				return fault.WithHint(fmt.Errorf("table %s is ahead of the log: it has events up to %d of partition %d, the log ends at %d", t.Table, offset, n, end),
					"the log was reset or comes from an older backup: bring back the log that belongs to this table, or drop the table so that it is loaded anew")
			}
		}
	}
	return nil
}

// room checks that n more bytes fit before they are copied.
func (b *backup) room(n int64) error {
	b.meter.total = b.meter.done + n
	free, err := b.FS.Free(b.dir)
	if err != nil {
		return err
	}
	const margin = 16 << 20 // manifests, folders
	if free < n+margin {
		return fault.WithHint(fmt.Errorf("no room in %s: %s are free, the backup takes %s", filepath.Dir(b.To), quantity.Bytes(free), quantity.Bytes(n+margin)),
			"make room, or name a folder on another disk")
	}
	return nil
}

// pipelines copies which versions of pipelines hold from where on. What sinks keep
// beside that is of targets that the copy does not have.
func (b *backup) pipelines() error {
	at := filepath.Join(b.Layout.Data, pipelineState)
	names, err := b.FS.List(filepath.Join(b.Folder, at))
	if errors.Is(err, fs.ErrNotExist) || len(names) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	to := filepath.Join(b.dir, at)
	if err := b.FS.MkdirAll(to); err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".json") {
			continue
		}
		if err := b.plain(filepath.Join(at, name), 0); err != nil && !errors.Is(err, fs.ErrNotExist) { // it has just gone
			return err
		}
	}
	return b.FS.SyncDir(to)
}

// pipelineState is the folder beneath the data folder (docs/format/pipelines.md).
const pipelineState = "pipelines"

// plain copies a file or folder of the project, if it is there.
func (b *backup) plain(name string, depth int) error {
	const deepest = 32 // links may go round in circles
	from, to := filepath.Join(b.Folder, name), filepath.Join(b.dir, name)
	info, err := b.FS.Stat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() {
		n, err := vfs.Copy(b.FS, from, to, b.meter.take)
		b.report.Files, b.report.Bytes = b.report.Files+1, b.report.Bytes+n
		return err
	}
	if !info.IsDir() {
		b.report.LeftOut = append(b.report.LeftOut, name)
		return nil
	}
	if depth == deepest {
		return fmt.Errorf("%s: more than %d folders deep", from, deepest)
	}
	if err := b.FS.MkdirAll(to); err != nil {
		return err
	}
	names, err := b.FS.List(from)
	if err != nil {
		return err
	}
	for _, child := range names {
		if err := b.plain(filepath.Join(name, child), depth+1); err != nil {
			return err
		}
	}
	return b.FS.SyncDir(to)
}

// known are the names in the data folder that a copy has or does not need:
// locks, the catalog's own helpers, what queries spill.
var known = map[string]bool{"root": true, "lock": true, "log": true, "lake": true, "spill": true, pipelineState: true,
	"catalog.db": true, "catalog.db-wal": true, "catalog.db-shm": true}

// leftOut names what else is in the data folder.
func (b *backup) leftOut() error {
	names, err := b.FS.List(filepath.Join(b.Folder, b.Layout.Data))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, name := range names {
		if !known[name] {
			b.report.LeftOut = append(b.report.LeftOut, filepath.Join(b.Layout.Data, name))
		}
	}
	return err
}

func (b *backup) exists(path string) (bool, error) {
	_, err := b.FS.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// empty makes a folder that holds nothing.
func (b *backup) empty(dir string) error {
	if err := vfs.RemoveAll(b.FS, dir); err != nil {
		return err
	}
	return b.FS.MkdirAll(dir)
}

func (b *backup) write(path string, text []byte) error {
	f, err := b.FS.Create(path)
	if err != nil {
		return err
	}
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	b.report.Files, b.report.Bytes = b.report.Files+1, b.report.Bytes+int64(len(text))
	return errors.Join(err, f.Close())
}
