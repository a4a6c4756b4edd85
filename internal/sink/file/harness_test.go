package file

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	parquet "github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"github.com/twmb/avro/ocf"

	"naru/internal/event"
	"naru/internal/sink"
	"naru/internal/sink/sinktest"
	"naru/internal/vfs"
)

// world is a disk with a project's folder.
type world struct {
	fs  *vfs.Memory
	cfg Settings
	now time.Time
}

func newWorld(change func(*Settings)) *world {
	w := &world{fs: vfs.NewMemory(), cfg: DefaultSettings(), now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	w.cfg.Dir = "out"
	if change != nil {
		change(&w.cfg)
	}
	w.cfg.now = func() time.Time { return w.now }
	return w
}

func (w *world) env() sink.Env {
	return sink.Env{Pipeline: "p", Name: "file", Stream: "events", Reader: "pipeline/p/file", Dir: "/p", State: "/p/data/sinks/p-file", FS: w.fs, Logger: slog.New(slog.DiscardHandler)}
}

func (w *world) open(t *testing.T) *Sink {
	t.Helper()
	require.NoError(t, w.cfg.Validate())
	s, err := w.cfg.Open(t.Context(), w.env())
	require.NoError(t, err)
	return s.(*Sink)
}

// files lists what is below out, with and without what is being written.
func (w *world) files(t *testing.T) (files, temps []string) {
	t.Helper()
	var walk func(dir string)
	walk = func(dir string) {
		names, err := w.fs.List(dir)
		if errors.Is(err, errNotThere) {
			return
		}
		require.NoError(t, err)
		for _, name := range names {
			at := path.Join(dir, name)
			info, err := w.fs.Stat(at)
			require.NoError(t, err)
			switch {
			case info.IsDir():
				walk(at)
			case strings.HasSuffix(name, tempSuffix):
				temps = append(temps, at)
			default:
				files = append(files, at)
			}
		}
	}
	walk("/p/out")
	return files, temps
}

// ids are those of all rows in files, read by the formats' own libraries.
func (w *world) ids(t *testing.T) (ids []string) {
	t.Helper()
	files, _ := w.files(t)
	for _, name := range files {
		ids = append(ids, idsOf(t, name, w.read(t, name))...)
	}
	return ids
}

func (w *world) read(t *testing.T, name string) []byte {
	t.Helper()
	f, err := w.fs.Open(name)
	require.NoError(t, err)
	b, err := io.ReadAll(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return b
}

func idsOf(t *testing.T, name string, b []byte) (ids []string) {
	t.Helper()
	switch {
	case strings.HasSuffix(name, ".gz"):
		z, err := gzip.NewReader(bytes.NewReader(b))
		require.NoError(t, err, name)
		b, err = io.ReadAll(z)
		require.NoError(t, err, name)
		name = strings.TrimSuffix(name, ".gz")
	case strings.HasSuffix(name, ".zst"):
		z, err := zstd.NewReader(bytes.NewReader(b))
		require.NoError(t, err, name)
		b, err = io.ReadAll(z)
		require.NoError(t, err, name)
		z.Close()
		name = strings.TrimSuffix(name, ".zst")
	}
	switch path.Ext(name) {
	case ".ndjson":
		dec := json.NewDecoder(bytes.NewReader(b))
		for {
			var one struct {
				ID string `json:"_id"`
			}
			err := dec.Decode(&one)
			if errors.Is(err, io.EOF) {
				return ids
			}
			require.NoError(t, err, name)
			ids = append(ids, one.ID)
		}
	case ".csv", ".tsv":
		recs, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
		if path.Ext(name) == ".tsv" {
			recs, err = nil, nil
			for line := range strings.SplitSeq(strings.TrimSuffix(string(b), "\n"), "\n") {
				recs = append(recs, strings.Split(line, "\t"))
			}
		}
		require.NoError(t, err, name)
		at := -1
		for i, column := range recs[0] {
			if column == "_id" {
				at = i
			}
		}
		for _, rec := range recs[1:] {
			ids = append(ids, rec[at])
		}
	case ".avro":
		r, err := ocf.NewReader(bytes.NewReader(b))
		require.NoError(t, err, name)
		for {
			var one map[string]any
			err := r.Decode(&one)
			if errors.Is(err, io.EOF) {
				return ids
			}
			require.NoError(t, err, name)
			ids = append(ids, one["_id"].(string))
		}
	case ".parquet":
		pf, err := parquet.NewParquetReader(bytes.NewReader(b))
		require.NoError(t, err, name)
		r, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
		require.NoError(t, err)
		table, err := r.ReadTable(t.Context())
		require.NoError(t, err, name)
		at := table.Schema().FieldIndices("_id")[0]
		for _, chunk := range table.Column(at).Data().Chunks() {
			for i := range chunk.Len() {
				ids = append(ids, chunk.(*array.String).Value(i))
			}
		}
	default:
		t.Fatalf("%s is no file of ours", name)
	}
	return ids
}

// asRows writes as the pipeline does to a kind that is tabular.
type asRows struct{ *Sink }

func (s asRows) Write(c ctx, b *event.Batch) error { return s.Sink.Write(c, sinktest.AsRows(b)) }
