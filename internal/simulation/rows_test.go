package simulation

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	parquet "github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	ice "github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	icetable "github.com/apache/iceberg-go/table"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/iceberg"
	"naru/internal/vfs"
)

// contents is a table as another engine would read it: through the catalog's
// row, the metadata file, the manifests and the Parquet files, with nothing of
// naru between.
type contents struct {
	positions event.Positions
	columns   map[string]string // name → type
	rows      []row
}

// row is a table's row: the values in text by column name; a null is not there.
type row map[string]string

func (r row) place() (place, error) {
	inc, err := event.ParseIncarnation(r["_log"])
	if err != nil {
		return place{}, err
	}
	n, err := strconv.ParseInt(r["_partition"], 10, 32)
	if err != nil {
		return place{}, err
	}
	off, err := strconv.ParseInt(r["_offset"], 10, 64)
	return place{inc, int32(n), off}, err
}

// place is where an event stands in its stream.
type place struct {
	log       event.Incarnation
	partition int32
	offset    int64
}

// reader reads tables from a disk. What it has read it remembers by the bytes.
type reader struct {
	parts map[uint64]part
	lists map[uint64][]string
}

// part is a Parquet file: the values by field id.
type part struct {
	rows   int
	values map[int][]*string
}

func newReader() *reader {
	return &reader{parts: map[uint64]part{}, lists: map[uint64][]string{}}
}

var seed = maphash.MakeSeed()

// bare is a disk as iceberg-go wants it.
type bare struct{ fs vfs.FS }

func (b bare) Open(name string) (iceio.File, error) {
	return b.fs.Open(strings.TrimPrefix(name, "file://"))
}

func (b bare) Remove(name string) error { return fmt.Errorf("remove %s: only reading", name) }

func readFile(fs vfs.FS, name string) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// all reads every table of a catalog.
func (r *reader) all(fs vfs.FS, rows iceberg.Catalog) (map[lake.Ident]*contents, error) {
	ctx := context.Background()
	idents, err := rows.List(ctx)
	if err != nil {
		return nil, err
	}
	out := map[lake.Ident]*contents{}
	for _, id := range idents {
		loc, err := rows.Location(ctx, id)
		if err != nil {
			return nil, err
		}
		if out[id], err = r.table(ctx, fs, id, loc); err != nil {
			return nil, fmt.Errorf("table %s: %w", id, err)
		}
	}
	return out, nil
}

func (r *reader) table(ctx context.Context, fs vfs.FS, id lake.Ident, loc string) (*contents, error) {
	open := func(context.Context) (iceio.IO, error) { return bare{fs}, nil }
	tbl, err := icetable.NewFromLocation(ctx, []string{id.Namespace, id.Name}, loc, open, nil)
	if err != nil {
		return nil, err
	}
	c := &contents{columns: map[string]string{}, positions: event.Positions{}}
	names := map[int]string{}
	for _, f := range tbl.Schema().Fields() {
		c.columns[f.Name], names[f.ID] = f.Type.String(), f.Name
		if l, ok := f.Type.(*ice.ListType); ok { // without the ids
			c.columns[f.Name] = "list<" + l.Element.String() + ">"
		}
	}
	snap := tbl.CurrentSnapshot()
	if snap == nil {
		return c, nil
	}
	if c.positions, err = event.ParsePositions(snap.Summary.Properties["naru.positions"]); err != nil {
		return nil, err
	}
	files, err := r.files(fs, snap)
	if err != nil {
		return nil, err
	}
	if slices.Sort(files); len(slices.Compact(slices.Clone(files))) != len(files) {
		return nil, fmt.Errorf("a file twice: %v", files)
	}
	for _, f := range files {
		p, err := r.part(fs, f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		rows := make([]row, p.rows)
		for i := range rows {
			rows[i] = row{}
		}
		for field, values := range p.values {
			name, ok := names[field]
			if !ok {
				continue // of a column that was retired
			}
			for i, v := range values {
				if v != nil {
					rows[i][name] = *v
				}
			}
		}
		c.rows = append(c.rows, rows...)
	}
	if total := snap.Summary.Properties["total-records"]; total != strconv.Itoa(len(c.rows)) {
		return nil, fmt.Errorf("%d rows, the summary says %s", len(c.rows), total)
	}
	return c, nil
}

// files lists the data files of a snapshot.
func (r *reader) files(fs vfs.FS, snap *icetable.Snapshot) (files []string, err error) {
	manifests, err := snap.Manifests(bare{fs})
	if err != nil {
		return nil, err
	}
	for _, m := range manifests {
		raw, err := readFile(fs, strings.TrimPrefix(m.FilePath(), "file://"))
		if err != nil {
			return nil, err
		}
		key := maphash.Bytes(seed, raw)
		list, known := r.lists[key]
		if !known {
			for e, err := range m.Entries(bare{fs}, true) {
				if err != nil {
					return nil, fmt.Errorf("%s: %w", m.FilePath(), err)
				}
				list = append(list, strings.TrimPrefix(e.DataFile().FilePath(), "file://"))
			}
			r.lists[key] = list
		}
		files = append(files, list...)
	}
	return files, nil
}

// orphans tells of a file below a table's folder that no snapshot needs.
func (r *reader) orphans(disk *vfs.Memory, rows iceberg.Catalog) error {
	ctx := context.Background()
	idents, err := rows.List(ctx)
	if err != nil {
		return err
	}
	needed, folders := map[string]bool{}, map[string]bool{}
	for _, id := range idents {
		loc, err := rows.Location(ctx, id)
		if err != nil {
			return err
		}
		open := func(context.Context) (iceio.IO, error) { return bare{disk}, nil }
		tbl, err := icetable.NewFromLocation(ctx, []string{id.Namespace, id.Name}, loc, open, nil)
		if err != nil {
			return err
		}
		// Newer metadata than the catalog's stays until the table has caught up: it
		// may tell that the table was set back.
		folder := strings.TrimPrefix(tbl.Location(), "file://")
		folders[folder] = true
		names, err := disk.List(folder + "/metadata")
		if err != nil {
			return err
		}
		for _, n := range names {
			if strings.HasSuffix(n, ".metadata.json") && n[:5] > path.Base(loc)[:5] {
				folders[folder] = false
			}
		}
		list := []string{loc}
		for e := range tbl.Metadata().PreviousFiles() {
			list = append(list, e.MetadataFile)
		}
		for _, s := range tbl.Metadata().Snapshots() {
			list = append(list, s.ManifestList)
			manifests, err := s.Manifests(bare{disk})
			if err != nil {
				return fmt.Errorf("snapshot %d of %s cannot be read: %w", s.SnapshotID, id, err)
			}
			for _, m := range manifests {
				list = append(list, m.FilePath())
			}
			files, err := r.files(disk, &s)
			if err != nil {
				return err
			}
			for _, f := range files {
				if _, err := disk.Stat(f); err != nil {
					return fmt.Errorf("snapshot %d of %s: %w", s.SnapshotID, id, err)
				}
			}
			list = append(list, files...)
		}
		for _, f := range list {
			needed[strings.TrimPrefix(f, "file://")] = true
		}
	}
	for line := range strings.Lines(disk.String()) {
		name, _, _ := strings.Cut(line, ": ")
		// A folder with metadata that the catalog does not know is somebody else's.
		folder, _, _ := strings.Cut(name, "/metadata/")
		folder, _, _ = strings.Cut(folder, "/data/naru-")
		folder, _, _ = strings.Cut(folder, "/data/_")
		if folders[folder] && !needed[name] {
			return fmt.Errorf("nobody needs %s, and it is not collected", name)
		}
	}
	return nil
}

func (r *reader) part(fs vfs.FS, name string) (part, error) {
	raw, err := readFile(fs, name)
	if err != nil {
		return part{}, err
	}
	key := maphash.Bytes(seed, raw)
	if p, ok := r.parts[key]; ok {
		return p, nil
	}
	pf, err := parquet.NewParquetReader(bytes.NewReader(raw))
	if err != nil {
		return part{}, err
	}
	defer pf.Close()
	rd, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		return part{}, err
	}
	tbl, err := rd.ReadTable(context.Background())
	if err != nil {
		return part{}, err
	}
	defer tbl.Release()
	p := part{rows: int(tbl.NumRows()), values: map[int][]*string{}}
	for i, f := range tbl.Schema().Fields() {
		text, ok := f.Metadata.GetValue("PARQUET:field_id")
		id, err := strconv.Atoi(text)
		if !ok || err != nil {
			return part{}, fmt.Errorf("column %s has no field id", f.Name)
		}
		for _, chunk := range tbl.Column(i).Data().Chunks() {
			for j := range chunk.Len() {
				p.values[id] = append(p.values[id], value(chunk, j))
			}
		}
	}
	r.parts[key] = p
	return p, nil
}

func value(a arrow.Array, i int) *string {
	if a.IsNull(i) {
		return nil
	}
	var s string
	switch a := a.(type) {
	case *array.String:
		s = strings.Clone(a.Value(i))
	case *array.Binary:
		s = string(a.Value(i))
	case *array.Dictionary:
		return value(a.Dictionary(), a.GetValueIndex(i))
	default:
		s = a.ValueStr(i)
	}
	return &s
}

// key names an event for ever: the connection that sent it, and its number there.
var keyText = regexp.MustCompile(`"k":"(c[0-9]+-[0-9]+)"`)

func keyOf(data []byte) string {
	if m := keyText.FindSubmatch(data); m != nil {
		return string(m[1])
	}
	return ""
}

// key finds the event's name in a row, whatever table it landed in.
func (r row) key() string {
	if k := r["k"]; k != "" {
		return k
	}
	for _, c := range []string{"data", "original"} {
		if k := keyOf([]byte(r[c])); k != "" {
			return k
		}
	}
	return ""
}
