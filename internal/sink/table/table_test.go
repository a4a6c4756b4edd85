package table

import (
	"context"
	"io"
	"log/slog"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/iceberg"
	"naru/internal/sink"
	"naru/internal/sink/sinktest"
	"naru/internal/stream"
	"naru/internal/vfs"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// fakeLog says what the log has.
type fakeLog struct {
	stat    stream.Stat
	mark    event.Positions
	written int64
}

func (f *fakeLog) Stat(context.Context, string) (stream.Stat, error) { return f.stat, nil }

func (f *fakeLog) Progress(context.Context, string) (stream.Progress, error) {
	return stream.Progress{Positions: f.mark, Counts: stream.Counts{Written: f.written}}, nil
}

// world is a lake in memory with the tables' sinks over it.
type world struct {
	t      *testing.T
	fs     vfs.FS
	rows   *iceberg.MemoryCatalog
	cfg    iceberg.Config
	lake   *iceberg.Lake
	log    *fakeLog
	tables *Tables
	// strange: the lake may be another one than the log has known
	strange bool
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, fs: vfs.NewMemory(), rows: iceberg.NewMemoryCatalog(), cfg: iceberg.DefaultConfig(), log: &fakeLog{}}
	w.cfg.GCDelay = 0
	w.log.stat = stream.Stat{Stream: sinktest.Stream, Incarnation: sinktest.Lives[0],
		Ranges: []stream.Range{{Incarnation: sinktest.Lives[0], End: 1 << 40}}}
	w.open()
	t.Cleanup(func() { _ = w.lake.Close() })
	return w
}

func (w *world) open() {
	w.t.Helper()
	l, err := iceberg.Open(w.t.Context(), w.cfg, w.fs, "/data", quiet, iceberg.WithCatalog(w.rows))
	require.NoError(w.t, err)
	w.lake, w.tables = l, New(l, w.log, quiet)
	if !w.strange {
		require.NoError(w.t, l.Reloaded(sinktest.Stream)) // the lake is as old as the log
	}
}

func (w *world) restart() {
	w.t.Helper()
	require.NoError(w.t, w.lake.Close())
	w.open()
}

func (w *world) sink() sink.Sink {
	w.t.Helper()
	s, err := w.tables.Open(w.t.Context(), sinktest.Stream)
	require.NoError(w.t, err)
	return s
}

// column reads a column of all files of a table, nulls as nil.
func (w *world) column(id lake.Ident, name string) []any {
	w.t.Helper()
	v, err := w.lake.View(w.t.Context(), id)
	require.NoError(w.t, err)
	defer v.Release()
	field := 0
	for _, c := range v.Columns {
		if c.Name == name {
			field = c.FieldID
		}
	}
	require.NotZero(w.t, field, "no column %s", name)
	var out []any
	seen := map[string]bool{}
	for _, f := range v.Files {
		require.False(w.t, seen[f.Path], "file twice in the table")
		seen[f.Path] = true
		got := w.readFile(f.Path, int32(field))
		require.Len(w.t, got, int(f.Rows))
		out = append(out, got...)
	}
	return out
}

// readFile reads one column by its field id; nulls when the file lacks it.
func (w *world) readFile(path string, field int32) []any {
	f, err := w.fs.Open(path)
	require.NoError(w.t, err)
	pf, err := file.NewParquetReader(f)
	require.NoError(w.t, err)
	defer func() { _ = pf.Close() }()
	rd, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	require.NoError(w.t, err)
	tbl, err := rd.ReadTable(context.Background())
	require.NoError(w.t, err)
	defer tbl.Release()
	out := make([]any, 0, tbl.NumRows())
	for i, sf := range tbl.Schema().Fields() {
		if id, ok := sf.Metadata.GetValue("PARQUET:field_id"); !ok || id != itoa(field) {
			continue
		}
		for _, chunk := range tbl.Column(i).Data().Chunks() {
			for r := range chunk.Len() {
				out = append(out, value(chunk, r))
			}
		}
		return out
	}
	return make([]any, tbl.NumRows())
}

func itoa(n int32) string {
	b := []byte{}
	for ; n > 0; n /= 10 {
		b = append([]byte{byte('0' + n%10)}, b...)
	}
	return string(b)
}

func value(a arrow.Array, i int) any {
	if a.IsNull(i) {
		return nil
	}
	switch a := a.(type) {
	case *array.String:
		return a.Value(i)
	case *array.Binary:
		return string(a.Value(i))
	case *array.Int64:
		return a.Value(i)
	case *array.Int32:
		return a.Value(i)
	case *array.Float64:
		return a.Value(i)
	case *array.Dictionary:
		return value(a.Dictionary(), a.GetValueIndex(i))
	default:
		return a.ValueStr(i)
	}
}

// ids lists _id over all tables of the stream.
func (w *world) ids() (out []string) {
	w.t.Helper()
	list, err := w.lake.List(w.t.Context())
	require.NoError(w.t, err)
	for _, id := range list {
		if id.Namespace != sinktest.Stream {
			continue
		}
		for _, v := range w.column(id, "_id") {
			out = append(out, v.(string))
		}
	}
	return out
}

func TestConformance(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		w := newWorld(t)
		// Both lives belong to the log; the second is the current one where it is used.
		w.log.stat.Incarnation = event.Incarnation{}
		return sinktest.Harness{
			Exact: true,
			Open:  func(t *testing.T) sink.Sink { w.restart(); return w.sink() },
			IDs:   func(t *testing.T) []string { return w.ids() },
		}
	})
}
