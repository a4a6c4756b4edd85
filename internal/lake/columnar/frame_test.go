package columnar

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
)

// randomCells makes a column of a random kind, with nulls.
func randomCells(rng *rand.Rand, name string, rows int) Cells {
	kinds := []Kind{Bool, Long, Double, String, Timestamp, Date, 0}
	c := Cells{Field: Field{Name: name, Kind: kinds[rng.IntN(len(kinds))]}, Rows: rows, Ends: []int32{0}, Bools: make([]byte, (rows+7)/8)}
	texts := []string{"", "a", "ü \U0001F600", "\x00\"\\\n\u007f", "2026-01-02", "2026-01-02T03:04:05Z", "12", "a longer text than others have"}
	raw := []string{"1", "-0", "1.50", "1e400", "123456789012345678901234567890", `"x"`, "true", "[]", "[1,2]", `[1,"a"]`, "{}", `{"x":1,"y":{"z":[null]}}`, `{"x":"s"}`, `"2026-01-02"`}
	nulls := rng.IntN(3)
	for row := range rows {
		c.Longs = append(c.Longs, rng.Int64N(100)-50)
		if c.Field.Kind == Long && rng.IntN(5) == 0 {
			c.Longs[row] = []int64{math.MaxInt64, math.MinInt64, 1<<53 + 1}[rng.IntN(3)]
		}
		if c.Field.Kind == Timestamp {
			c.Longs[row] = []int64{0, -62_135_596_800_000_000, 253_402_300_799_999_999, 1_700_000_000_123_456}[rng.IntN(4)]
		}
		c.Ints = append(c.Ints, []int32{0, -719_162, 2_932_896, 20_000}[rng.IntN(4)])
		c.Doubles = append(c.Doubles, []float64{0, math.Copysign(0, -1), 1.5, 5, 1e21, 1 << 60, math.MaxFloat64, 5e-324, 0.1, -1e-7}[rng.IntN(10)])
		if rng.IntN(2) == 0 {
			c.Bools[row>>3] |= 1 << (row & 7)
		}
		if null := nulls == 1 && rng.IntN(3) == 0 || nulls == 2; null {
			c.SetNull(row)
		} else if c.Field.Kind == 0 {
			c.Text = append(c.Text, raw[rng.IntN(len(raw))]...)
		} else {
			c.Text = append(c.Text, texts[rng.IntN(len(texts))]...)
		}
		c.Ends = append(c.Ends, int32(len(c.Text)))
	}
	return c
}

// TestFrameAsJSON: rows that come as columns make the table that they would make as
// JSON, whatever has come before and between, and whatever their contract says.
func TestFrameAsJSON(t *testing.T) {
	names := []string{"a", "b", "c", "A", "a.b", "x_y", "x", "data", "_rescued", "_id", "é", "a\x00b", "quite a name"}
	var rescued, direct, promoted int64
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 9))
		kinds := []string{"bool", "long", "double", "string", "timestamptz", "date", "json", "list<long>"}
		shape := ""
		for _, name := range []string{"a", "b", "c", "x", "data", "x.y"} {
			if rng.IntN(2) == 0 {
				shape += name + ":" + kinds[rng.IntN(len(kinds))] + "! "
			}
		}
		opt := Options{Shape: someShapes{"c": shapeOf(shape)}.of, ChunkRows: 1 + rng.IntN(50), ChunkBytes: 1 << (10 + rng.IntN(8))}
		cells, text := newTable(t, NewSchema(), opt), newTable(t, NewSchema(), opt)
		hash := map[bool][]byte{true: []byte("c")}
		for range 1 + rng.IntN(6) {
			f := &Frame{Rows: 1 + rng.IntN(30)}
			for _, i := range rng.Perm(len(names))[:1+rng.IntN(6)] {
				f.Add(randomCells(rng, names[i], f.Rows))
			}
			agreed := rng.IntN(3) > 0
			for row := range f.Rows {
				if rng.IntN(4) == 0 {
					continue // the sink does not get it
				}
				data := f.AppendData(nil, row)
				require.True(t, json.Valid(data), "%s", data)
				e, other := cells.at(""), text.at(string(data))
				e.Data, e.Contract.Hash, other.Contract.Hash = nil, hash[agreed], hash[agreed]
				size, err := cells.b.AppendCells(e, f, row, testLog, 3)
				require.NoError(t, err)
				require.Less(t, size, len(data)+8*len(f.Columns)+1)
				require.NoError(t, text.b.Append(other, testLog, 3))
				direct++
			}
			if rng.IntN(2) == 0 {
				for _, x := range []*table{cells, text} {
					x.send(`{"a":1.5,"b":"text","x":{"y":[1]}}`)
				}
			}
			if rng.IntN(2) == 0 {
				cells.commit()
				text.commit()
			}
		}
		cells.commit()
		text.commit()
		said := fmt.Sprintf("seed %d, contract %s", seed, shape)
		require.Equal(t, text.schema, cells.schema, said)
		require.Equal(t, text.b.Counters(), cells.b.Counters(), said)
		require.Equal(t, text.b.TopRescued(), cells.b.TopRescued(), said)
		var all []string
		for _, f := range text.schema.Fields {
			all = append(all, f.Name)
			if f.Kind == Double {
				promoted++
			}
		}
		require.Equal(t, text.rows(all...), cells.rows(all...), said)
		rescued += text.b.Counters().Rescued
	}
	require.Positive(t, promoted)
	require.Greater(t, rescued, int64(100), "values that fit no column")
	require.Greater(t, direct, 5*rescued/10)
}

// TestFrameAfterReset: after Reset the builder does not put values where those of
// the schema before stood.
func TestFrameAfterReset(t *testing.T) {
	f := &Frame{Rows: 2}
	f.Add(Cells{Field: Field{Name: "n", Kind: Long}, Rows: 2, Longs: []int64{7, 8}})
	x := newTable(t, NewSchema(), Options{})
	add := func(row int) {
		e := x.at("")
		_, err := x.b.AppendCells(e, f, row, event.Incarnation{1}, 0)
		require.NoError(t, err)
	}
	x.send(`{"first":"a"}`)
	add(0)
	add(0) // it knows the place by now
	other := NewSchema()
	require.NoError(t, x.b.Reset(other))
	x.schema = other
	add(1)
	x.commit()
	require.Equal(t, []string{"n=8"}, x.rows("n"))
}

// TestFrameIsLetGo: a builder whose rows are committed holds none of their frames.
func TestFrameIsLetGo(t *testing.T) {
	x := newTable(t, NewSchema(), Options{})
	gone := make(chan struct{})
	func() {
		f := &Frame{Rows: 1}
		f.Add(Cells{Field: Field{Name: "n", Kind: Long}, Rows: 1, Longs: []int64{7}})
		runtime.AddCleanup(f, func(ch chan struct{}) { close(ch) }, gone)
		_, err := x.b.AppendCells(x.at(""), f, 0, event.Incarnation{1}, 0)
		require.NoError(t, err)
	}()
	x.commit()
	for range 100 {
		runtime.GC()
		select {
		case <-gone:
			require.Equal(t, []string{"n=7"}, x.rows("n"))
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatal("the frame is still there")
}
