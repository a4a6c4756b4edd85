package columnar

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/vfs"
)

var (
	received = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	testLog  = event.Incarnation{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
)

// table is a builder with files in memory, and what was committed so far.
type table struct {
	t      testing.TB
	fs     *vfs.Memory
	b      *Builder
	opt    Options
	schema *Schema       // committed
	known  []Arrangement // of the table
	files  []DataFile
	made   int
	offset int64
}

// memFile is an Output on the memory file system.
type memFile struct {
	fs   vfs.FS
	f    vfs.File
	path string
}

func (m *memFile) Write(p []byte) (int, error) { return m.f.Write(p) }

func (m *memFile) Close() error {
	if err := m.f.Sync(); err != nil {
		return err
	}
	if err := m.f.Close(); err != nil {
		return err
	}
	from := m.path + ".tmp"
	m.path += "-named-when-closed"
	return m.fs.Rename(from, m.path)
}

func (m *memFile) Path() string { return m.path }

func (m *memFile) Abort() error {
	if err := m.f.Close(); err != nil {
		return err
	}
	return m.fs.Remove(m.path + ".tmp")
}

func createOn(fs vfs.FS) func(string) (Output, error) {
	return func(p string) (Output, error) {
		if err := fs.MkdirAll(path.Dir(p)); err != nil {
			return nil, err
		}
		f, err := fs.Create(p + ".tmp")
		if err != nil {
			return nil, err
		}
		return &memFile{fs: fs, f: f, path: p}, nil
	}
}

func newTable(t testing.TB, schema *Schema, opt Options) *table {
	x := &table{t: t, fs: vfs.NewMemory(), schema: schema.Clone()}
	opt.Path = func(folder string) string {
		x.made++
		return fmt.Sprintf("/lake/%s/%d.parquet", folder, x.made)
	}
	opt.Create = createOn(x.fs)
	if opt.AllowPromotion == nil {
		opt.AllowPromotion = func(id int) bool {
			return !slices.ContainsFunc(x.known, func(a Arrangement) bool { return a.Uses(id) })
		}
	}
	x.opt = opt
	x.b = NewBuilder(x.fs, schema, opt)
	return x
}

// at is an event with JSON data.
func (x *table) at(data string) *event.Event {
	x.offset++
	return &event.Event{
		ID: []byte(fmt.Sprintf("id-%d", x.offset)), Source: []byte("test"), Type: []byte("t"),
		Data: []byte(data), Offset: x.offset, ReceivedAt: received,
	}
}

func (x *table) append(e *event.Event) {
	x.t.Helper()
	require.NoError(x.t, x.b.Append(e, testLog, 0))
}

func (x *table) send(lines ...string) {
	x.t.Helper()
	for _, line := range lines {
		x.append(x.at(line))
	}
}

// commit finishes the builder as a committer does: old files are rewritten
// when a column was promoted.
func (x *table) commit() {
	x.t.Helper()
	x.known = append(x.known, x.b.Asked()...)
	if len(x.known) > 0 {
		x.opt.Arrangement = &x.known[len(x.known)-1]
	}
	files, err := x.b.Finish(context.Background())
	require.NoError(x.t, err)
	to := x.b.Schema().Clone()
	if len(x.schema.Diff(to).Promoted) > 0 {
		for i, f := range x.files {
			dst := x.opt.Path("anew")
			n, err := Rewrite(context.Background(), x.fs, x.opt.Create, f.Path, dst, x.schema, to)
			require.NoError(x.t, err)
			require.Equal(x.t, f.Rows, n.Rows)
			n.Arrangement, n.Partition, n.Sorted = f.Arrangement, f.Partition, f.Sorted
			x.files[i] = n
		}
	}
	x.schema = to
	x.files = append(x.files, files...)
	// What a table keeps is the property alone.
	back, err := ParseSchema(to.MarshalProperty())
	require.NoError(x.t, err)
	require.Equal(x.t, to, back)
}

// rows reads all committed files, each row as column=value in the order of
// the schema, nulls left out. Only columns that want names are shown; none
// named means all but the envelope.
func (x *table) rows(want ...string) []string {
	x.t.Helper()
	type row struct {
		offset int64
		text   string
	}
	var all []row
	for _, f := range x.files {
		for _, r := range readFile(x.t, x.fs, f.Path, x.schema) {
			var parts []string
			for _, fd := range x.schema.Fields {
				show := slices.Contains(want, fd.Name)
				if len(want) == 0 {
					show = fd.ID > idOffset
				}
				if v, ok := r[fd.Name]; ok && show {
					parts = append(parts, fd.Name+"="+v)
				}
			}
			var o int64
			_, err := fmt.Sscan(r[ColumnOffset], &o)
			require.NoError(x.t, err)
			all = append(all, row{o, strings.Join(parts, " ")})
		}
	}
	slices.SortStableFunc(all, func(a, b row) int { return int(a.offset - b.offset) })
	texts := make([]string, len(all))
	for i, r := range all {
		texts[i] = r.text
	}
	return texts
}

// kinds lists the data columns as name:kind.
func (x *table) kinds() string {
	var parts []string
	for _, f := range x.b.Schema().Fields {
		if f.Path != "" {
			parts = append(parts, f.Name+":"+f.Kind.String())
		}
	}
	return strings.Join(parts, " ")
}

// readFile reads a Parquet file; columns are matched by field id, as Iceberg
// readers do. Values are in JSON; nulls are absent.
func readFile(t testing.TB, fs vfs.FS, name string, s *Schema) []map[string]string {
	t.Helper()
	f, err := fs.Open(name)
	require.NoError(t, err)
	pf, err := file.NewParquetReader(f)
	require.NoError(t, err)
	defer pf.Close()
	r, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	require.NoError(t, err)
	tbl, err := r.ReadTable(context.Background())
	require.NoError(t, err)
	rows := make([]map[string]string, tbl.NumRows())
	for i := range rows {
		rows[i] = map[string]string{}
	}
	ids := map[int]Field{}
	for _, fd := range s.written() {
		ids[fd.ID] = fd
	}
	for c := range int(tbl.NumCols()) {
		af := tbl.Schema().Field(c)
		text, _ := af.Metadata.GetValue(fieldIDKey)
		var id int
		_, err := fmt.Sscan(text, &id)
		require.NoError(t, err)
		fd, ok := ids[id]
		if !ok {
			continue
		}
		require.True(t, af.Nullable)
		require.Equal(t, arrowField(fd).Type.String(), af.Type.String(), "type of %s", fd.Name)
		at := 0
		for _, a := range tbl.Column(c).Data().Chunks() {
			for i := range a.Len() {
				if a.IsValid(i) {
					rows[at][fd.Name] = cell(a, i)
				}
				at++
			}
		}
		require.Equal(t, len(rows), at)
	}
	return rows
}

func cell(a arrow.Array, i int) string {
	switch a := a.(type) {
	case *array.Int64:
		return fmt.Sprint(a.Value(i))
	case *array.Timestamp:
		return time.UnixMicro(int64(a.Value(i))).UTC().Format("2006-01-02T15:04:05.999999Z")
	case *array.Int32:
		return fmt.Sprint(a.Value(i))
	case *array.Date32:
		return time.Unix(int64(a.Value(i))*86400, 0).UTC().Format(time.DateOnly)
	case *array.Float64:
		v := fmt.Sprint(a.Value(i))
		if !strings.ContainsAny(v, ".e") {
			v += ".0"
		}
		return v
	case *array.Boolean:
		return fmt.Sprint(a.Value(i))
	case *array.String:
		j, _ := json.Marshal(a.Value(i))
		return string(j)
	case *array.Binary:
		return fmt.Sprintf("%x", a.Value(i))
	case *array.List:
		from, to := a.ValueOffsets(i)
		var parts []string
		for at := from; at < to; at++ {
			if a.ListValues().IsNull(int(at)) {
				parts = append(parts, "null")
			} else {
				parts = append(parts, cell(a.ListValues(), int(at)))
			}
		}
		return "[" + strings.Join(parts, " ") + "]"
	}
	panic(fmt.Sprintf("no cell for %T", a))
}

// filesOn lists all files on the file system, for what must not be left over.
func (x *table) filesOn() []string {
	var all []string
	days, err := x.fs.List("/lake")
	if err != nil {
		return nil
	}
	for _, d := range days {
		names, err := x.fs.List("/lake/" + d)
		require.NoError(x.t, err)
		for _, n := range names {
			all = append(all, "/lake/"+d+"/"+n)
		}
	}
	return all
}

var (
	_ io.Writer = (*memFile)(nil)
	_           = maps.Keys[map[string]int]
)
