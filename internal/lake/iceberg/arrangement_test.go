package iceberg

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	ice "github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
)

var kinds = []lake.ShapeColumn{{Path: "t", Kind: "timestamptz"}, {Path: "d", Kind: "date"}, {Path: "s", Kind: "string"}, {Path: "n", Kind: "long"}, {Path: "b", Kind: "bool"}}

// load appends events, one batch a commit, that were judged by the contract "c".
func (w *world) load(shape *lake.Shape, batches ...[]string) *State {
	w.t.Helper()
	h := w.lake.Table(views)
	for _, lines := range batches {
		s := load(w.t, h)
		schema := s.Schema
		if schema == nil {
			schema = columnar.NewSchema()
		}
		b := columnar.NewBuilder(w.fs, schema, columnar.Options{Writers: w.lake.Writers, Create: w.lake.CreateFile, Arrangement: s.Arrangement,
			MaxPartitions: w.cfg.MaxPartitions, Shape: func([]byte) *lake.Shape { return shape },
			Path:           func(folder string) string { return h.DataPath(s, folder) },
			AllowPromotion: func(id int) bool { return h.AllowPromotion(s, id) }})
		off, _ := s.Positions.Get(life, 0)
		for _, line := range lines {
			e := &event.Event{ID: fmt.Appendf(nil, "e%d", off), Offset: off, Data: []byte(line), ReceivedAt: time.Unix(1442016000, 0)}
			if shape != nil {
				e.Contract.Hash = []byte("c")
			}
			require.NoError(w.t, b.Append(e, life, 0))
			off++
		}
		c := Commit{Base: s, Asked: b.Asked(), Positions: at(off)}
		var err error
		c.Files, err = b.Finish(w.t.Context())
		require.NoError(w.t, err)
		c.Schema = b.Schema().Clone()
		_, err = h.Commit(w.t.Context(), c)
		require.NoError(w.t, err)
	}
	return load(w.t, h)
}

func partition(fields ...string) (out []lake.ShapePartition) {
	for _, f := range fields {
		p := lake.ShapePartition{}
		p.Transform, p.Path, _ = strings.Cut(f, " ")
		_, _ = fmt.Sscanf(p.Path, "%d %s", &p.N, &p.Path)
		out = append(out, p)
	}
	return out
}

// entries lists the files of a table: spec, values, rows and order, as manifests say.
func (w *world) entries() (out []string) {
	w.t.Helper()
	h, err := w.lake.load(w.t.Context(), views, nil)
	require.NoError(w.t, err)
	manifests, err := h.snap.Manifests(w.lake.io)
	require.NoError(w.t, err)
	for _, m := range manifests {
		spec := h.meta.PartitionSpecByID(int(m.PartitionSpecID()))
		for e, err := range m.Entries(w.lake.io, true) {
			require.NoError(w.t, err)
			f := e.DataFile()
			var values []string
			for _, p := range spec.Fields() {
				values = append(values, fmt.Sprintf("%s=%v", p.Name, f.Partition()[p.FieldID]))
			}
			one := fmt.Sprintf("%d %s rows %d", f.SpecID(), strings.Join(values, " "), f.Count())
			if id := f.SortOrderID(); id != nil {
				one += fmt.Sprintf(" order %d", *id)
			}
			out = append(out, one)
		}
	}
	slices.Sort(out)
	return out
}

// The values that naru writes are those of Iceberg's transforms.
func TestTransformsAreIcebergs(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	w := newWorld(t)
	for i := range 150 {
		micros := rng.Int64N(4e17) - 62e15 - 2e17
		switch i {
		case 0:
			micros = -1
		case 1:
			micros = 0
		case 2:
			micros = -62135596800e6
		case 3:
			micros = 253402300799e6 + 999999
		}
		micros = min(max(micros, -62135596800e6), 253402300799e6)
		at := time.UnixMicro(micros).UTC()
		day := int32(math.Floor(float64(at.Unix()) / 86400))
		n := rng.Int64() >> rng.IntN(64) * (1 - 2*int64(i%2))
		text := strings.Repeat("나a🙂", rng.IntN(4)) + strings.Repeat("x", rng.IntN(5))
		line := fmt.Sprintf(`{"t":%q,"d":%q,"s":%q,"n":%d}`, at.Format("2006-01-02T15:04:05.999999Z"), at.Format(time.DateOnly), text, n)
		literals := map[string]ice.Literal{"t": ice.TimestampLiteral(micros), "d": ice.DateLiteral(day), "s": ice.StringLiteral(text), "n": ice.Int64Literal(n)}
		for _, asked := range [][]lake.ShapePartition{partition("year t", "month t", "day t", "hour t"), partition("year d", "month d", "day d", "identity d"),
			partition("bucket 7 t", "bucket 1000 d", "bucket 13 s", "bucket 16 n"), partition("identity s", "identity n")} {
			b := columnar.NewBuilder(w.fs, columnar.NewSchema(), columnar.Options{Create: w.lake.CreateFile, Shape: func([]byte) *lake.Shape {
				return &lake.Shape{Columns: kinds, Partition: asked}
			}, Path: func(folder string) string { return w.lake.dataPath("/data/x", folder) }})
			e := &event.Event{Data: []byte(line)}
			e.Contract.Hash = []byte("c")
			require.NoError(t, b.Append(e, life, 0))
			files, err := b.Finish(t.Context())
			require.NoError(t, err)
			f := files[0]
			require.Len(t, f.Partition, len(asked))
			for i, p := range f.Arrangement.Partition {
				want := transformOf(p).Apply(ice.Optional[ice.Literal]{Valid: true, Val: literals[asked[i].Path]})
				require.True(t, want.Valid)
				column, _ := b.Schema().ByID(p.Source)
				require.EqualValues(t, want.Val.Any(), partitionValue(p, column.Kind, f.Partition[i]), "%s of %s", p.Transform, line)
				require.IsType(t, want.Val.Any(), partitionValue(p, column.Kind, f.Partition[i]))
			}
		}
	}
}

// A contract that comes to a table that is there adds a spec and an order; old files
// keep theirs, and fields that stay keep their ids. All of that survives the merging
// of manifests and the rewriting of files.
func TestArrangementOfATableChanges(t *testing.T) {
	w := newWorld(t)
	w.load(nil, []string{`{"plain":1}`})
	shape := &lake.Shape{Columns: kinds, Partition: partition("day _time", "identity s", "identity b", "identity n"),
		Sort: []lake.ShapeSort{{Path: "n", Descending: true}}}
	s := w.load(shape, []string{`{"s":"a","b":true,"n":1}`, `{"s":"a","b":true,"n":1}`, `{"s":"","b":false,"n":-9223372036854775808}`, `{}`})
	require.Equal(t, 1, s.head.meta.DefaultPartitionSpec())
	require.Equal(t, 1, s.head.meta.DefaultSortOrder())
	want := []string{
		"0 _time_day=16690 rows 1",
		"1 _time_day=16690 s= b=false n=-9223372036854775808 rows 1 order 1",
		"1 _time_day=16690 s=<nil> b=<nil> n=<nil> rows 1 order 1",
		"1 _time_day=16690 s=a b=true n=1 rows 2 order 1",
	}
	require.Equal(t, want, w.entries())
	info, err := w.lake.Info(t.Context(), views)
	require.NoError(t, err)
	require.Equal(t, []string{"day(_time)", "s", "b", "n"}, info.Partition)
	require.Equal(t, []string{"n desc"}, info.Sort)
	first, second := s.head.meta.PartitionSpecByID(0), s.head.meta.PartitionSpecByID(1)
	require.Equal(t, first.Field(0).FieldID, second.Field(0).FieldID)
	require.Equal(t, 1003, second.Field(3).FieldID)

	shape.Partition, shape.Sort = partition("month t", "bucket 4 s", "identity d"), []lake.ShapeSort{{Path: "s"}, {Path: "t", Descending: true}}
	w.load(shape, []string{`{"t":"2026-01-31T00:00:00Z","d":"2026-01-30"}`, `{"t":"1969-12-31T00:00:00Z","s":"x"}`})
	shape.Partition, shape.Sort = partition("none"), []lake.ShapeSort{{Path: "none"}}
	w.load(shape, []string{`{"n":7}`})
	want = append(want, "2 _by_month_t=-1 _by_bucket4_s=3 d=<nil> rows 1 order 2", "2 _by_month_t=672 _by_bucket4_s=<nil> d=20483 rows 1 order 2", "3  rows 1")
	require.Equal(t, want, w.entries())

	// A promotion rewrites every file, and nothing but the column changes.
	s = w.load(nil, []string{`{"plain":1.5}`})
	want = append(want, "3  rows 1")
	require.Equal(t, want, w.entries())
	for _, f := range w.view().Files {
		require.True(t, strings.Contains(f.Path, "=") || strings.HasPrefix(filepath.Base(filepath.Dir(f.Path)), "data"), f.Path)
	}
	// A column that any file is arranged by does not become another one.
	n, _ := s.Schema.ByPath("n")
	require.False(t, w.lake.Table(views).AllowPromotion(s, n.ID))
	w.load(nil, []string{`{"n":2.5}`})
	s = load(t, w.lake.Table(views))
	n, _ = s.Schema.ByPath("n")
	require.Equal(t, columnar.Long, n.Kind)
	want = append(want, "3  rows 1")

	// Few manifests are left, those of each spec by itself.
	w.change(func(table.Metadata) []table.Update {
		return []table.Update{table.NewSetPropertiesUpdate(ice.Properties{table.ManifestMinMergeCountKey: "2"})}
	})
	for i := range 6 {
		shape.Partition, shape.Sort = partition("day _time", "identity s", "identity b", "identity n"), []lake.ShapeSort{{Path: "n", Descending: true}}
		if i%2 == 0 {
			shape.Partition = partition("none")
		}
		w.load(shape, []string{`{"n":1}`})
	}
	for range 3 {
		want = append(want, "3  rows 1 order 1", "1 _time_day=16690 s=<nil> b=<nil> n=1 rows 1 order 1")
	}
	slices.Sort(want)
	require.Equal(t, want, w.entries())
	s = load(t, w.lake.Table(views))
	require.Len(t, s.head.meta.PartitionSpecs(), 4)
	require.Len(t, s.head.meta.SortOrders(), 3)
	manifests, err := s.head.snap.Manifests(w.lake.io)
	require.NoError(t, err)
	require.LessOrEqual(t, len(manifests), 8)
	v := w.view()
	defer v.Release()
	unique(t, v)
	require.EqualValues(t, 16, v.Rows)
}

// A new table begins with what its first contract asks for.
func TestArrangementOfANewTable(t *testing.T) {
	w := newWorld(t)
	shape := &lake.Shape{Columns: kinds, Partition: partition("hour t"), Sort: []lake.ShapeSort{{Path: "s"}}}
	s := w.load(shape, []string{`{"t":"2026-01-31T23:00:00Z","s":"b"}`, `{"t":"2026-01-31T23:59:59Z","s":"a"}`})
	require.Equal(t, []string{"0 _by_hour_t=491639 rows 2 order 1"}, w.entries())
	require.Len(t, s.head.meta.PartitionSpecs(), 1)
	require.Equal(t, 1, s.head.meta.DefaultSortOrder())
	// It stays so without a contract, and after a restart.
	w.kill()
	w.open()
	w.load(nil, []string{`{"t":"2026-01-31T23:00:00Z"}`})
	require.Equal(t, []string{"0 _by_hour_t=491639 rows 1 order 1", "0 _by_hour_t=491639 rows 2 order 1"}, w.entries())
	shape.Partition, shape.Sort = partition("none"), []lake.ShapeSort{{Path: lake.None}}
	s = w.load(shape, []string{`{"s":"a"}`})
	require.Zero(t, s.head.meta.DefaultSortOrder())
	require.Equal(t, "1  rows 1", w.entries()[2])
}

// What contracts asked for is kept, also when another one came before a row was
// written so: whether a column may become another one is the same for the loader,
// the hot tail, and after a restart.
func TestAllThatWasAskedIsKept(t *testing.T) {
	w := newWorld(t)
	s := w.load(&lake.Shape{Columns: kinds}, []string{`{"n":1,"m":1,"o":1}`})
	h := w.lake.Table(views)
	field := func(path string) int {
		f, ok := s.Schema.ByPath(path)
		require.True(t, ok)
		return f.ID
	}
	require.True(t, h.AllowPromotion(s, field("n")))
	asked := []columnar.Arrangement{
		{Partition: []columnar.PartitionField{{Source: field("n"), Transform: columnar.Bucket, Buckets: 3}}},
		{Partition: columnar.DefaultPartition(), Sort: []columnar.SortField{{Source: field("m")}}},
		{Partition: columnar.DefaultPartition()},
	}
	next, _ := s.Positions.Get(life, 0)
	s, err := h.Commit(t.Context(), Commit{Base: s, Schema: s.Schema, Positions: at(next + 1), Asked: asked})
	require.NoError(t, err)
	require.Zero(t, s.head.meta.DefaultPartitionSpec())
	require.Equal(t, asked[2], *s.Arrangement)
	require.Equal(t, []bool{false, false, true}, []bool{h.AllowPromotion(s, field("n")), h.AllowPromotion(s, field("m")), h.AllowPromotion(s, field("o"))})
}

// A partition field needs a name that no column has.
func TestPartitionNamesAreFree(t *testing.T) {
	schema := ice.NewSchema(0, ice.NestedField{ID: 1, Name: "a", Type: ice.PrimitiveTypes.Int64}, ice.NestedField{ID: 2, Name: "_a", Type: ice.PrimitiveTypes.Int64},
		ice.NestedField{ID: 3, Name: "_by_bucket4_a", Type: ice.PrimitiveTypes.Int64})
	r := newArranger(nil, schema)
	spec, err := r.spec([]columnar.PartitionField{{Source: 1, Transform: columnar.Bucket, Buckets: 4}, {Source: 2, Transform: columnar.Bucket, Buckets: 4}, {Source: 1, Transform: columnar.Identity}})
	require.NoError(t, err)
	require.Equal(t, []string{"_by_bucket4_a_2", "_by_bucket4_a_3", "a"}, []string{spec.Field(0).Name, spec.Field(1).Name, spec.Field(2).Name})
}

// Partitions that another engine has chosen and naru does not write are left to it.
func TestForeignPartitions(t *testing.T) {
	w := newWorld(t)
	w.load(nil, []string{`{"s":"a","n":1}`})
	w.change(func(meta table.Metadata) []table.Update {
		f, _ := meta.CurrentSchema().FindFieldByName("s")
		id := f.ID
		spec := ice.NewPartitionSpecID(1, ice.PartitionField{SourceIDs: []int{id}, FieldID: 1001, Name: "s_trunc", Transform: ice.TruncateTransform{Width: 3}})
		order, err := table.NewSortOrder(1, []table.SortField{{SourceIDs: []int{id}, Transform: ice.IdentityTransform{}, Direction: table.SortASC, NullOrder: table.NullsLast}})
		require.NoError(t, err)
		return []table.Update{table.NewAddPartitionSpecUpdate(&spec, false), table.NewSetDefaultSpecUpdate(1),
			table.NewAddSortOrderUpdate(&order), table.NewSetDefaultSortOrderUpdate(1)}
	})
	s := w.load(nil, []string{`{"s":"b"}`})
	require.Equal(t, []string{"0 _time_day=16690 rows 1", "0 _time_day=16690 rows 1"}, w.entries())
	require.Equal(t, 1, s.head.meta.DefaultPartitionSpec(), "theirs stays")
	info, err := w.lake.Info(t.Context(), views)
	require.NoError(t, err)
	require.Equal(t, []string{"truncate[3](s)"}, info.Partition)
}

// Files of earlier writers are found in every folder that a partition may have.
func TestOrphansInAllPartitions(t *testing.T) {
	w := newWorld(t)
	shape := &lake.Shape{Columns: kinds, Partition: partition("day _time", "identity s", "identity b", "identity n")}
	w.load(shape, []string{`{"s":"x","b":true,"n":1}`})
	var lost []string
	for _, folder := range []string{"", "_time_day=2015-09-12", "_time_day=2015-09-12/s=x/b=true/n=1"} {
		p := w.lake.dataPath(w.lake.tableFolder(views), folder)
		require.NoError(t, w.lake.io.WriteFile(p, []byte("PAR1")))
		lost = append(lost, p)
	}
	w.kill()
	w.open()
	n, err := w.lake.CollectOrphans(t.Context())
	require.NoError(t, err)
	require.Equal(t, len(lost), n)
	w.lake.CollectGarbage()
	for _, p := range lost {
		_, err := w.fs.Stat(p)
		require.Error(t, err, p)
	}
	v := w.view()
	defer v.Release()
	_, err = w.fs.Stat(v.Files[0].Path)
	require.NoError(t, err)
}
