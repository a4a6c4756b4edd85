package iceberg

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	ice "github.com/apache/iceberg-go"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
)

// Beginning is what a table made by Begin has.
type Beginning struct {
	From lake.Ident // whose rows are copied; it need not exist
	// Keep chooses rows by their places; a row without one is kept. Nil: none are.
	Keep      func(at event.Position) bool
	Schema    *columnar.Schema // when no rows are copied
	Positions event.Positions
	Stream    string // see Commit
}

// copyBytes is about how large a file of copied rows is.
const copyBytes = 128 << 20

// Begin makes a table in one commit: with positions, and with rows of another. A table
// that is there already stays as it is.
func (l *Lake) Begin(ctx context.Context, t lake.Ident, b Beginning) error {
	handle := l.Table(t)
	state, err := handle.Load(ctx)
	if err != nil || state.Exists {
		return err
	}
	release := l.garbage.lease() // what is read stays
	defer release()
	schema, files, rows, err := l.copyRows(ctx, state.Location, b)
	if err != nil {
		return fmt.Errorf("make table %s of rows of %s: %w", t, b.From, err)
	}
	c := Commit{Base: state, Files: files, Schema: schema, Positions: b.Positions.Clone(), Stream: b.Stream, Rows: &rows}
	if len(files) > 0 { // what comes is put together as it was
		from, err := l.Table(b.From).Load(ctx)
		if err != nil {
			return fmt.Errorf("make table %s: %w", t, err)
		}
		c.Asked = []columnar.Arrangement{*from.Arrangement}
	}
	_, err = handle.Commit(ctx, c)
	return err
}

// copyRows writes files for the rows that are kept; a schema comes with them.
func (l *Lake) copyRows(ctx context.Context, location string, b Beginning) (_ *columnar.Schema, _ []columnar.DataFile, rows lake.Tally, err error) {
	h, err := l.current(ctx, b.From)
	if errors.Is(err, lake.ErrNoTable) || b.Keep == nil {
		return b.Schema, nil, rows, nil
	}
	if err != nil {
		return nil, nil, rows, err
	}
	if h.schemaErr != nil {
		return nil, nil, rows, h.schemaErr
	}
	c := &rowCopier{lake: l, from: b.From, keep: b.Keep, head: h, to: location, parts: map[string]*copiedPart{}}
	defer func() {
		if err == nil {
			return
		}
		for _, f := range c.out {
			l.removeQuietly(f.Path)
		}
	}()
	if err := c.all(ctx); err != nil {
		return nil, nil, rows, err
	}
	if len(c.out) == 0 {
		return b.Schema, nil, rows, nil
	}
	return h.schema, c.out, c.rows, nil
}

// rowCopier copies rows of one table.
type rowCopier struct {
	lake  *Lake
	from  lake.Ident
	keep  func(event.Position) bool
	head  *head
	to    string                 // location of the new table
	parts map[string]*copiedPart // by spec and folder of the partition
	out   []columnar.DataFile
	rows  lake.Tally
}

// copiedPart waits to become a file.
type copiedPart struct {
	folder string
	by     []columnar.PartitionField
	values []columnar.PartitionValue
	files  []columnar.Copied
	bytes  int64
}

func (c *rowCopier) all(ctx context.Context) error {
	manifests, err := c.lake.manifests(c.head)
	if err != nil {
		return withCure(c.from, err)
	}
	for _, m := range manifests {
		if m.ManifestContent() != ice.ManifestContentData {
			return unfit(ErrRowDeletes, "%s", rowDeletesCure)
		}
		spec := c.head.meta.PartitionSpecByID(int(m.PartitionSpecID()))
		if spec == nil {
			return fmt.Errorf("the table has no partition spec %d", m.PartitionSpecID())
		}
		for e, err := range m.Entries(c.lake.io, true) {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return fmt.Errorf("read manifest %s: %w", m.FilePath(), err)
			}
			if err := c.file(ctx, *spec, e.DataFile()); err != nil {
				return err
			}
		}
	}
	for _, p := range c.parts {
		if err := c.flush(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// file notes what is kept of one file.
func (c *rowCopier) file(ctx context.Context, spec ice.PartitionSpec, d ice.DataFile) error {
	f, err := newDataFile(d)
	if err != nil {
		return err
	}
	by, ok := partitionOf(spec)
	if !ok {
		return unfit(fmt.Errorf("%s is partitioned as naru does not write", f.Path), "let the engine that wrote the file write it again under one of naru's partition specs")
	}
	// Damage must not get a checksum of its own.
	if err := c.lake.checkSum(ctx, f.Path); err != nil {
		return c.lake.Table(c.from).damaged(err, KindData)
	}
	runs, n, err := columnar.RowsWhere(ctx, c.lake.fs, f.Path, func(log []byte, partition int32, offset int64) bool {
		inc, err := event.ParseIncarnation(string(log))
		if log == nil || err != nil {
			return true
		}
		at := event.Position{Incarnation: inc, Partition: partition, Offset: offset}
		if !c.keep(at) {
			return false
		}
		c.rows.Add(at)
		return true
	})
	if err != nil || n == 0 {
		return err
	}
	folder := ""
	if location, err := localPath(c.head.meta.Location()); err == nil {
		folder, _ = strings.CutPrefix(path.Dir(f.Path), filepath.Clean(location)+"/data/")
	}
	var values []columnar.PartitionValue
	for _, field := range spec.Fields() {
		if _, void := field.Transform.(ice.VoidTransform); !void {
			values = append(values, partitionValueOf(d.Partition()[field.FieldID]))
		}
	}
	key := fmt.Sprint(spec.ID(), values)
	p := c.parts[key]
	if p == nil {
		if strings.HasPrefix(folder, "/") {
			folder = "" // it lay elsewhere
		}
		p = &copiedPart{folder: folder, by: by, values: values}
		c.parts[key] = p
	}
	p.files = append(p.files, columnar.Copied{Path: f.Path, Rows: runs})
	if p.bytes += f.Bytes * n / max(f.Rows, 1); p.bytes >= copyBytes {
		return c.flush(ctx, p)
	}
	return nil
}

// flush writes a file of what waits.
func (c *rowCopier) flush(ctx context.Context, p *copiedPart) error {
	if len(p.files) == 0 {
		return nil
	}
	f, err := columnar.Copy(ctx, c.lake.fs, c.lake.CreateFile, p.files, c.lake.dataPath(c.to, p.folder), c.head.schema)
	f.Arrangement.Partition, f.Partition = p.by, p.values
	if f.Path != "" { // also when closing it has failed
		c.out = append(c.out, f)
	}
	p.files, p.bytes = nil, 0
	return err
}

// partitionValueOf is the way back of partitionValue.
func partitionValueOf(v any) columnar.PartitionValue {
	switch v := v.(type) {
	case ice.Date:
		return columnar.PartitionValue{Long: int64(v)}
	case int32:
		return columnar.PartitionValue{Long: int64(v)}
	case int64:
		return columnar.PartitionValue{Long: v}
	case string:
		return columnar.PartitionValue{Text: v}
	case bool:
		if v {
			return columnar.PartitionValue{Long: 1}
		}
		return columnar.PartitionValue{}
	}
	return columnar.PartitionValue{Null: true}
}

// Replace puts the table by in the place of t, which becomes old: readers see the one
// or the other. It does nothing when by is not there and t is: that is how it looks
// when it was done before.
func (l *Lake) Replace(ctx context.Context, t, by, old lake.Ident) error {
	if l.readOnly {
		return fmt.Errorf("replace %s: the lake is open read-only", t)
	}
	for try := 0; ; try++ {
		err := l.catalog.Replace(ctx, t, by, old)
		if err == nil {
			return nil
		}
		// Look at what is there before anything else: the answer may be lost.
		_, gone := l.catalog.Location(ctx, by)
		if errors.Is(gone, lake.ErrNoTable) {
			if _, there := l.catalog.Location(ctx, t); there == nil {
				return nil
			}
		}
		if errors.Is(err, ErrConflict) || try == maxUnclear || ctx.Err() != nil {
			return fault.Transient(fmt.Errorf("replace %s by %s: %w", t, by, err))
		}
	}
}

// droppedFile lists the folders of tables that Discard has taken from the catalog, until
// their files are gone. It has to outlive the process: else a folder with metadata that
// the catalog does not know is left alone.
const droppedFile = "dropped.json"

type droppedLine struct {
	Folder string `json:"folder"` // below the lake
}

// Discard removes a table and, after the last reader and gc_delay, its files. A table
// that is not there is no error.
func (l *Lake) Discard(ctx context.Context, t lake.Ident) error {
	h, err := l.current(ctx, t)
	if errors.Is(err, lake.ErrNoTable) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("drop %s: %w", t, err)
	}
	folder, err := localPath(h.meta.Location())
	if err != nil {
		return fmt.Errorf("drop %s: %w", t, err)
	}
	folder = filepath.Clean(folder)
	rel, inside := strings.CutPrefix(folder, l.root+"/")
	if inside {
		if err := l.noteDropped(rel); err != nil {
			return fmt.Errorf("drop %s: %w", t, err)
		}
	}
	if err := l.catalog.Drop(ctx, t); err != nil && !errors.Is(err, lake.ErrNoTable) {
		return fmt.Errorf("drop %s: %w", t, err)
	}
	l.mu.Lock()
	delete(l.mu.tables, t)
	l.mu.Unlock()
	if inside { // no file outside the warehouse is ours to remove
		l.garbage.add(l.now().Add(l.cfg.GCDelay.Std()), h.meta.Location(), l.ownFiles(folder))
	}
	return nil
}

// ownFiles lists what naru has written below a table's folder.
func (l *Lake) ownFiles(folder string) (out []string) {
	var walk func(dir string, levels int)
	walk = func(dir string, levels int) {
		for _, f := range l.list(dir) {
			if p := filepath.Join(dir, f); writerOf(f) != "" {
				out = append(out, p)
			} else if levels > 0 {
				walk(p, levels-1)
			}
		}
	}
	walk(filepath.Join(folder, "metadata"), 0)
	walk(filepath.Join(folder, "data"), partitionLevels)
	return out
}

func (l *Lake) noteDropped(folder string) error {
	l.dropped.Lock()
	defer l.dropped.Unlock()
	lines, err := readLines[droppedLine](l, droppedFile)
	if err != nil || slices.Contains(lines, droppedLine{folder}) {
		return err
	}
	return writeLines(l, droppedFile, append(lines, droppedLine{folder}))
}

// droppedFolders are those of Discard whose files are not yet gone. The ones that are,
// and those that a table of the catalog has, are forgotten.
func (l *Lake) droppedFolders(owned map[string]map[string]bool) (map[string]bool, error) {
	l.dropped.Lock()
	defer l.dropped.Unlock()
	lines, err := readLines[droppedLine](l, droppedFile)
	if err != nil || len(lines) == 0 {
		return nil, err
	}
	out := map[string]bool{}
	var left []droppedLine
	for _, one := range lines {
		folder := filepath.Join(l.root, one.Folder)
		if owned[folder] != nil || len(l.ownFiles(folder)) == 0 {
			continue
		}
		out[folder] = true
		left = append(left, one)
	}
	if len(left) == len(lines) {
		return out, nil
	}
	return out, writeLines(l, droppedFile, left)
}
