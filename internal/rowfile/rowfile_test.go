package rowfile

import (
	"bytes"
	stdcsv "encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"github.com/twmb/avro/ocf"

	"naru/internal/event"
	"naru/internal/row"
	"naru/internal/sink/sinktest"
)

// written makes a file of n rows of sinktest.Columns.
func written(t *testing.T, o Options, n int64) []byte {
	t.Helper()
	require.NoError(t, o.Validate())
	var buf bytes.Buffer
	f, err := New(&buf, o, sinktest.Columns)
	require.NoError(t, err)
	for off := range n {
		e := sinktest.Row(fmt.Sprint("id,", off), off, 0)
		require.NoError(t, f.Append(&e, 0))
		if off%50 == 49 {
			require.NoError(t, f.Flush())
		}
	}
	require.Equal(t, n, f.Rows())
	require.NoError(t, f.Finish())
	return buf.Bytes()
}

// wants are the values of a row, by row.Reader.
func wants(off int64) []any {
	e := sinktest.Row(fmt.Sprint("id,", off), off, 0)
	return row.NewReader(sinktest.Columns).Values(&e, 0)
}

func unzipped(t *testing.T, o Options, b []byte) []byte {
	t.Helper()
	var r io.Reader = bytes.NewReader(b)
	switch o.Compress {
	case "gzip":
		z, err := gzip.NewReader(r)
		require.NoError(t, err)
		r = z
	case "zstd":
		z, err := zstd.NewReader(r)
		require.NoError(t, err)
		defer z.Close()
		r = z
	}
	out, err := io.ReadAll(r)
	require.NoError(t, err)
	return out
}

func TestLines(t *testing.T) {
	for _, compress := range Compressions {
		o := Options{Format: "ndjson", Compress: compress}
		lines := bytes.Split(bytes.TrimSuffix(unzipped(t, o, written(t, o, 200)), []byte("\n")), []byte("\n"))
		require.Len(t, lines, 200)
		for i, line := range lines {
			e := sinktest.Row(fmt.Sprint("id,", i), int64(i), 0)
			require.Equal(t, string(row.AppendJSON(nil, sinktest.Columns, &e, 0)), string(line))
		}

		o.Format = "csv"
		text := unzipped(t, o, written(t, o, 200))
		recs, err := stdcsv.NewReader(bytes.NewReader(text)).ReadAll()
		require.NoError(t, err)
		require.Len(t, recs, 201)
		require.Equal(t, []string{"_id", "_time", "n", "x", "yes", "Text é", "at", "day", "list", "_offset"}, recs[0])
		require.Equal(t, []string{"id,0", "2015-09-12T10:00:00.123456Z", "0", "0.5", "true", "id,0", "2026-03-01T12:30:00.123456Z", "2026-03-01", `[1,{"a":null}]`, "0"}, recs[1])
		require.Equal(t, []string{"id,2", "2015-09-12T10:00:02.123456Z", "1", "", "", "", "", "", "", "2"}, recs[3])
		require.Equal(t, []string{"id,4", "2015-09-12T10:00:04.123456Z", "-9223372036854775808", "1.7976931348623157e+308", "false", "\"a\",\tb\\\n\x00ü", "0001-01-01T00:00:00Z", "9999-12-31", `"text"`, "4"},
			recs[5], "encoding/csv reads CR LF within a field as LF")

		o.Format = "tsv"
		lines = bytes.Split(bytes.TrimSuffix(unzipped(t, o, written(t, o, 200)), []byte("\n")), []byte("\n"))
		require.Len(t, lines, 201)
		require.Equal(t, `id,2	2015-09-12T10:00:02.123456Z	1	\N	\N	\N	\N	\N	\N	2`, string(lines[3]))
		require.Equal(t, `id,4	2015-09-12T10:00:04.123456Z	-9223372036854775808	1.7976931348623157e+308	false	"a",\tb\\\r\n`+"\x00"+`ü	0001-01-01T00:00:00Z	9999-12-31	"text"	4`, string(lines[5]))
	}
	require.Equal(t, ".csv.gz", Options{"csv", "gzip"}.Extension())
	require.Equal(t, ".ndjson.zst", Options{"ndjson", "zstd"}.Extension())
	require.Equal(t, ".parquet", Options{"parquet", "zstd"}.Extension())
}

// Null and the empty text are two things, in every format that has only texts.
func TestNullAndEmpty(t *testing.T) {
	columns := []event.Column{{Name: "a", Type: event.StringColumn}, {Name: "=b", Type: event.StringColumn}}
	for format, want := range map[string]string{"csv": "a,=b\r\n\"\",=1+1\r\n,-1\r\n", "tsv": "a\t=b\n\t=1+1\n\\N\t-1\n"} {
		var buf bytes.Buffer
		f, err := New(&buf, Options{format, "none"}, columns)
		require.NoError(t, err)
		require.NoError(t, f.Append(&event.Event{Data: []byte(`{"a":"","=b":"=1+1"}`)}, 0))
		require.NoError(t, f.Append(&event.Event{Data: []byte(`{"=b":"-1"}`)}, 0))
		require.NoError(t, f.Finish())
		require.Equal(t, want, buf.String())
	}
	var buf bytes.Buffer
	f, err := New(&buf, Options{"csv", "none"}, columns[:1])
	require.NoError(t, err)
	require.NoError(t, f.Append(&event.Event{Data: []byte(`{}`)}, 0))
	require.NoError(t, f.Finish())
	require.Equal(t, "a\r\n\"\"\r\n", buf.String(), "a row of one null is a row")
}

func TestAvro(t *testing.T) {
	for _, compress := range Compressions {
		r, err := ocf.NewReader(bytes.NewReader(written(t, Options{"avro", compress}, 200)))
		require.NoError(t, err)
		for off := int64(0); ; off++ {
			var got map[string]any
			err := r.Decode(&got)
			if errors.Is(err, io.EOF) {
				require.Equal(t, int64(200), off)
				break
			}
			require.NoError(t, err)
			want := map[string]any{}
			for i, v := range wants(off) {
				if raw, ok := v.(json.RawMessage); ok {
					v = string(raw)
				}
				want[avroName(sinktest.Columns[i].Name)] = v
			}
			require.Equal(t, want, got)
		}
	}
	require.JSONEq(t, `{"type":"record","name":"row","fields":[
		{"name":"a_b","type":["null","string"],"default":null},{"name":"a_b_2","doc":"a b","type":["null","long"],"default":null},
		{"name":"a_b_3","doc":"a-b","type":["null","boolean"],"default":null},{"name":"_1","doc":"1","type":["null","double"],"default":null}]}`,
		avroSchema([]event.Column{{Name: "a_b", Type: event.StringColumn}, {Name: "a b", Type: event.LongColumn}, {Name: "a-b", Type: event.BoolColumn}, {Name: "1", Type: event.DoubleColumn}}))
}

func TestParquet(t *testing.T) {
	for _, compress := range Compressions {
		b := written(t, Options{"parquet", compress}, 200)
		pf, err := file.NewParquetReader(bytes.NewReader(b))
		require.NoError(t, err)
		require.Equal(t, 4, pf.NumRowGroups())
		r, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
		require.NoError(t, err)
		table, err := r.ReadTable(t.Context())
		require.NoError(t, err)
		require.Equal(t, int64(200), table.NumRows())
		for i, c := range sinktest.Columns {
			require.Equal(t, c.Name, table.Schema().Field(i).Name)
			off := int64(0)
			for _, chunk := range table.Column(i).Data().Chunks() {
				for j := range chunk.Len() {
					want := wants(off)[i]
					off++
					if want == nil {
						require.True(t, chunk.IsNull(j))
						continue
					}
					switch a := chunk.(type) {
					case *array.Boolean:
						require.Equal(t, want, a.Value(j))
					case *array.Int64:
						require.Equal(t, want, a.Value(j))
					case *array.Float64:
						require.Equal(t, want, a.Value(j))
					case *array.Date32:
						require.Equal(t, want, a.Value(j).ToTime())
					case *array.Timestamp:
						require.Equal(t, want, time.UnixMicro(int64(a.Value(j))).UTC())
					case *array.String:
						require.Equal(t, fmt.Sprintf("%s", want), a.Value(j))
					default:
						t.Fatalf("%T", a)
					}
				}
			}
		}
	}
}

func TestMistakes(t *testing.T) {
	require.EqualError(t, Options{"xml", "lzma"}.Validate(), "format: \"xml\" is none of ndjson, csv, tsv, avro, parquet\ncompress: \"lzma\" is none of none, gzip, zstd")
	_, err := New(io.Discard, Options{"csv", "none"}, nil)
	require.EqualError(t, err, "begin file: rows without columns cannot be csv")
	for _, format := range Formats { // a disk that is full is an error, at the latest at the end
		f, err := New(&full{room: 300}, Options{format, "none"}, sinktest.Columns)
		for off := int64(0); err == nil && off < 100; off++ {
			e := sinktest.Row("a", off, 0)
			err = f.Append(&e, 0)
		}
		if err == nil {
			err = f.Finish()
		}
		require.ErrorIs(t, err, errFull, format)
	}
}

var errFull = errors.New("full")

type full struct{ room int }

func (f *full) Write(p []byte) (int, error) {
	if f.room -= len(p); f.room < 0 {
		return 0, errFull
	}
	return len(p), nil
}

// What a writer holds is about what it says.
func TestHeld(t *testing.T) {
	for _, format := range Formats {
		for _, compress := range Compressions {
			var buf bytes.Buffer
			f, err := New(&buf, Options{format, compress}, sinktest.Columns)
			require.NoError(t, err)
			most := int64(0)
			for off := range int64(20000) {
				e := sinktest.Row(strings.Repeat("x", 100), off, 0)
				require.NoError(t, f.Append(&e, 0))
				most = max(most, f.Held())
			}
			require.Less(t, most, int64(groupBytes+1<<20))
			require.NoError(t, f.Flush())
			require.Zero(t, f.Held())
			require.NoError(t, f.Finish())
			require.LessOrEqual(t, math.Abs(float64(f.Size())-float64(buf.Len())), 0.0)
		}
	}
}
