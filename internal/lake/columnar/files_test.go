package columnar

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/stretchr/testify/require"

	"naru/internal/vfs"
)

func TestStats(t *testing.T) {
	x := newTable(t, NewSchema(), Options{})
	long := strings.Repeat("é", 20)
	x.send(
		`{"l":5,"d":-0.0,"b":true,"s":"`+long+`","z":[1],"e":null}`,
		`{"l":-3,"d":0.0,"b":false,"s":"abc"}`,
		`{"j":[{}]}`,
	)
	x.commit()
	f := x.files[0]
	of := func(name string) ColumnStats {
		fd, ok := x.schema.byName(name)
		require.True(t, ok)
		return f.Stats[fd.ID]
	}
	le := func(v int64) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(v)) }

	l := of("l")
	require.Equal(t, []any{int64(3), int64(1), le(-3), le(5)}, []any{l.Values, l.Nulls, l.Lower, l.Upper})
	require.Positive(t, l.Size)
	d := of("d")
	require.Equal(t, le(int64(math.Float64bits(math.Copysign(0, -1)))), d.Lower)
	require.Equal(t, le(0), d.Upper)
	require.Equal(t, []byte{0}, of("b").Lower)
	require.Equal(t, []byte{1}, of("b").Upper)
	require.Equal(t, "abc", string(of("s").Lower))
	require.Equal(t, strings.Repeat("é", 15)+"ê", string(of("s").Upper), "cut to 16 characters and rounded up")
	require.Equal(t, le(received.UnixMicro()), of("_time").Lower)
	require.Equal(t, le(1), of("_offset").Lower)
	require.Equal(t, le(3), of("_offset").Upper)
	require.Equal(t, []byte{0, 0, 0, 0}, of("_partition").Upper)
	require.Equal(t, "test", string(of("_source").Upper))
	require.Nil(t, of("_id").Lower, "texts that do not repeat have no bounds")
	require.EqualValues(t, 3, of("_id").Values)
	require.Nil(t, of("j").Lower)
	require.EqualValues(t, 2, of("j").Nulls)
	require.EqualValues(t, 3, of("_subject").Nulls)
	require.Nil(t, of("_subject").Lower)
	z, _ := x.schema.byName("z")
	require.NotContains(t, f.Stats, z.ID, "lists have no metrics")
	require.Equal(t, []int64{4}, f.SplitOffsets)
}

func TestRoundUp(t *testing.T) {
	max := string(rune(0x10FFFF))
	sixteen := strings.Repeat("a", 15)
	for in, want := range map[string]string{
		"abc":                            "abc",
		sixteen + "a":                    sixteen + "a",
		sixteen + "az":                   sixteen + "b",
		sixteen + max + "z":              strings.Repeat("a", 14) + "b",
		strings.Repeat(max, 17):          "",
		sixteen + "\uD7FF" + "z":         sixteen + "\uE000",
		strings.Repeat("é", 16):          strings.Repeat("é", 16),
		strings.Repeat("é", 16) + "\x00": strings.Repeat("é", 15) + "ê",
	} {
		require.Equal(t, want, string(roundUp([]byte(in))), "%q", in)
	}
}

func TestRowGroups(t *testing.T) {
	x := newTable(t, NewSchema(), Options{ChunkRows: 100})
	for i := range 250 {
		x.send(fmt.Sprintf(`{"a":%d}`, i))
	}
	x.commit()
	require.Len(t, x.files, 1)
	f := x.files[0]
	require.EqualValues(t, 250, f.Rows)
	require.Len(t, f.SplitOffsets, 3)
	in, err := x.fs.Open(f.Path)
	require.NoError(t, err)
	r, err := file.NewParquetReader(in)
	require.NoError(t, err)
	defer r.Close()
	require.Equal(t, 3, r.NumRowGroups())
	for g, offset := range f.SplitOffsets {
		require.EqualValues(t, []int64{100, 100, 50}[g], r.MetaData().RowGroup(g).NumRows())
		c, err := r.MetaData().RowGroup(g).ColumnChunk(0)
		require.NoError(t, err)
		require.Equal(t, c.DataPageOffset(), offset)
	}
}

// TestEncodings: only what all readers know, Spark's vectorized one included
// (docs/design/0003): whole numbers may be delta-coded, text may not.
func TestEncodings(t *testing.T) {
	x := newTable(t, NewSchema(), Options{})
	for i := range 3000 {
		x.send(fmt.Sprintf(`{"id":"%032d","n":%d,"f":0.5,"ok":true,"words":["a"],"any":[{"x":%d}]}`, i*i, i, i))
	}
	x.commit()
	in, err := x.fs.Open(x.files[0].Path)
	require.NoError(t, err)
	r, err := file.NewParquetReader(in)
	require.NoError(t, err)
	defer r.Close()
	for i := range r.MetaData().Schema.NumColumns() {
		c, err := r.MetaData().RowGroup(0).ColumnChunk(i)
		require.NoError(t, err)
		for _, e := range c.Encodings() {
			switch e {
			case parquet.Encodings.Plain, parquet.Encodings.RLE, parquet.Encodings.RLEDict, parquet.Encodings.PlainDict:
			case parquet.Encodings.DeltaBinaryPacked:
				require.NotEqual(t, parquet.Types.ByteArray, c.Type(), c.PathInSchema().String())
			default:
				t.Errorf("column %s is stored as %s", c.PathInSchema(), e)
			}
		}
	}
}

// TestFieldIDs: Iceberg matches columns by the ids in the file, elements of
// lists included.
func TestFieldIDs(t *testing.T) {
	x := newTable(t, NewSchema(), Options{})
	x.send(`{"a":["x"]}`)
	x.commit()
	in, err := x.fs.Open(x.files[0].Path)
	require.NoError(t, err)
	r, err := file.NewParquetReader(in)
	require.NoError(t, err)
	defer r.Close()
	root := r.MetaData().Schema.Root()
	for i, f := range x.schema.written() {
		require.Equal(t, f.Name, root.Field(i).Name())
		require.EqualValues(t, f.ID, root.Field(i).FieldID())
	}
	leaf := r.MetaData().Schema.Column(root.NumFields() - 1)
	require.Equal(t, "a.list.element", leaf.Path())
	require.EqualValues(t, 12, leaf.SchemaNode().FieldID())
	time := r.MetaData().Schema.Column(4)
	require.Equal(t, "Timestamp(isAdjustedToUTC=true, timeUnit=microseconds, is_from_converted_type=false, force_set_converted_type=false)", time.LogicalType().String())
}

func TestReset(t *testing.T) {
	x := newTable(t, NewSchema(), Options{ChunkRows: 2})
	x.send(`{"a":1}`)
	x.commit()
	x.send(`{"b":1}`, `{"b":2}`, `{"b":3}`, `{"c":0.5}`, `{"a":0.5}`)
	require.NoError(t, x.b.Reset(nil))
	require.Equal(t, x.schema, x.b.Schema(), "the schema of the last commit")
	require.Zero(t, x.b.Rows())
	require.Equal(t, []string{x.files[0].Path}, x.filesOn())
	require.Zero(t, x.b.opt.Writers.Open())
	x.send(`{"c":true}`)
	x.commit()
	require.Equal(t, []string{"a=1", "c=true"}, x.rows())

	s := x.schema.Clone()
	s.Fields[len(s.Fields)-1].Dropped = true
	require.NoError(t, x.b.Reset(s))
	x.schema = s
	x.send(`{"c":false,"d":1}`)
	x.commit()
	require.Equal(t, []string{"a=1", "", `_rescued="{\"c\":false}" d=1`}, x.rows(), "a dropped column is not made again")
}

// TestWriteErrors: whatever call fails, nothing is reported as written, and
// after Reset the same events give the same rows and no stray file.
func TestWriteErrors(t *testing.T) {
	boom := errors.New("disk on fire")
	for _, op := range []string{"create", "write", "close"} {
		for nth := range 8 {
			t.Run(fmt.Sprint(op, nth), func(t *testing.T) {
				x := newTable(t, NewSchema(), Options{ChunkRows: 2})
				left := nth
				armed := true
				hit := func(o string) error {
					if !armed || o != op {
						return nil
					}
					if left--; left >= 0 {
						return nil
					}
					return boom
				}
				create := x.opt.Create
				x.opt.Create = func(p string) (Output, error) {
					if err := hit("create"); err != nil {
						return nil, err
					}
					out, err := create(p)
					return &failing{Output: out, hit: hit}, err
				}
				x.b = NewBuilder(x.fs, x.schema, x.opt)
				run := func() ([]DataFile, error) {
					for i := range 9 {
						e := x.at(fmt.Sprintf(`{"a%d":%d,"t":"%s"}`, i/3, i, strings.Repeat("x", 40_000*i)))
						e.Time = received.Add(-time.Duration(i%2) * 24 * time.Hour)
						if err := x.b.Append(e, testLog, 0); err != nil {
							return nil, err
						}
					}
					return x.b.Finish(context.Background())
				}
				files, err := run()
				require.ErrorIs(t, err, boom)
				require.Empty(t, files)
				require.ErrorIs(t, x.b.Append(x.at("{}"), testLog, 0), boom, "the error stays until Reset")
				armed = false
				require.NoError(t, x.b.Reset(nil))
				require.Empty(t, x.filesOn())
				require.Zero(t, x.b.opt.Writers.Open())
				files, err = run()
				require.NoError(t, err)
				require.Len(t, files, 2)
			})
		}
	}
}

type failing struct {
	Output
	hit func(string) error
}

func (f *failing) Write(p []byte) (int, error) {
	if err := f.hit("write"); err != nil {
		return 0, err
	}
	return f.Output.Write(p)
}

func (f *failing) Close() error {
	if err := f.hit("close"); err != nil {
		return errors.Join(err, f.Abort())
	}
	return f.Output.Close()
}

// TestMergeLongRows: merging does not gather more than some megabytes.
func TestMergeLongRows(t *testing.T) {
	x := newTable(t, NewSchema(), Options{})
	long := make([]byte, 1<<20)
	for range 70 {
		for i := range long { // hardly compressible, and JSON
			long[i] = '?' + byte(rand.IntN(29))
		}
		x.send(`{"a":"` + string(long) + `"}`)
	}
	x.send(`{"b":1}`)
	x.commit()
	require.Len(t, x.files, 1)
	require.EqualValues(t, 71, x.files[0].Rows)
	require.Greater(t, len(x.files[0].SplitOffsets), 1)
	for _, r := range readFile(t, x.fs, x.files[0].Path, x.schema)[:70] {
		require.Len(t, r["a"], len(long)+2)
	}
}

// TestWritersShared: builders of many goroutines never have more files open
// than allowed, and all finish.
func TestWritersShared(t *testing.T) {
	const limit = 3
	w := NewWriters(limit)
	var mu sync.Mutex
	open, most := 0, 0
	count := func(d int) {
		mu.Lock()
		defer mu.Unlock()
		open += d
		most = max(most, open)
	}
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			fs := vfs.NewMemory()
			create := createOn(fs)
			made := 0
			b := NewBuilder(fs, NewSchema(), Options{
				Writers: w, ChunkRows: 5,
				Path: func(folder string) string { made++; return fmt.Sprintf("/lake/%s/%d", folder, made) },
				Create: func(p string) (Output, error) {
					count(1)
					out, err := create(p)
					return &counting{out, count}, err
				},
			})
			x := &table{t: t, fs: fs, b: b}
			for i := range 60 {
				e := x.at(fmt.Sprintf(`{"a":%d}`, i))
				e.Time = received.Add(-time.Duration((i+g)%4) * 24 * time.Hour)
				if err := b.Append(e, testLog, 0); err != nil {
					t.Error(err)
				}
			}
			files, err := b.Finish(context.Background())
			rows := int64(0)
			for _, f := range files {
				rows += f.Rows
			}
			if err != nil || len(files) != 4 || rows != 60 {
				t.Errorf("%v, %d files, %d rows", err, len(files), rows)
			}
		})
	}
	wg.Wait()
	require.Zero(t, w.Open())
	require.LessOrEqual(t, most, limit)
	require.Equal(t, limit, most, "the limit was reached")
}

type counting struct {
	Output
	count func(int)
}

func (c *counting) Close() error { defer c.count(-1); return c.Output.Close() }
func (c *counting) Abort() error { defer c.count(-1); return c.Output.Abort() }

// TestMemoryBounded: what a builder holds depends on its chunks, not on how
// much goes through it nor on how wide the table is.
func TestMemoryBounded(t *testing.T) {
	const limit = 1 << 20
	for name, line := range map[string]func(i int) string{
		"texts":   func(i int) string { return fmt.Sprintf(`{"a":"%d %s"}`, i, strings.Repeat("x", 500)) },
		"wide":    func(i int) string { return fmt.Sprintf(`{"c%d":%d}`, i%900, i) },
		"lists":   func(i int) string { return `{"a":[` + strings.Repeat("1,", 300) + `1]}` },
		"rescued": func(i int) string { return fmt.Sprintf(`{"a":1,"b%d":[],"a":"%s"}`, i, strings.Repeat("y", 200)) },
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBuilder(vfs.NewMemory(), NewSchema(), Options{
				ChunkBytes: limit,
				Path:       func(string) string { return "x" }, Create: func(string) (Output, error) { return &discard{}, nil },
			})
			x := &table{t: t, b: b}
			most := int64(0)
			for i := range 8_000 {
				x.send(line(i))
				if i%100 == 0 {
					most = max(most, b.Bytes())
				}
			}
			// Buffers grow by doubling, so each chunk may hold twice what it needs.
			require.LessOrEqual(t, most, int64(2*2*limit+limit))
			require.NoError(t, b.Reset(nil))
		})
	}
}

func TestFinishCancelled(t *testing.T) {
	x := newTable(t, NewSchema(), Options{})
	x.send(`{"a":1}`)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := x.b.Finish(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, x.b.Reset(nil))
	require.Empty(t, x.filesOn())
	files, err := x.b.Finish(context.Background())
	require.NoError(t, err)
	require.Empty(t, files)
}
