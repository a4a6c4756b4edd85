package columnar

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/lake"
)

// TestCuts proves that a table depends on the sequence of events alone: the
// same events, with commits, chunks, open files and promotions falling
// anywhere, give the same schema and the same rows.
func TestCuts(t *testing.T) {
	same := 0
	for seed := range uint64(10) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 7))
			events := randomEvents(rng, 40+rng.IntN(120))

			shapes := randomShapes(rng)
			whole := newTable(t, NewSchema(), Options{Shape: shapes.of})
			for _, e := range events {
				whole.append(e)
			}
			whole.commit()
			for _, f := range whole.files {
				whole.checkArrangement(f)
			}
			all := make([]string, 0, len(whole.schema.Fields))
			for _, f := range whole.schema.Fields {
				all = append(all, f.Name)
			}
			want := whole.rows(all...)

			// Rows do not depend on how files are laid out, but for numbers whose column
			// must keep its type then.
			plain := newTable(t, NewSchema(), Options{Shape: shapes.plain().of})
			for _, e := range events {
				plain.append(e)
			}
			plain.commit()
			if plain.schema.Equal(whole.schema) {
				same++
				require.Equal(t, plain.rows(all...), want)
			}

			for range 2 {
				opt := Options{
					ChunkRows: 1 + rng.IntN(40), ChunkBytes: 1 << (10 + rng.IntN(8)),
					Writers: NewWriters(1 + rng.IntN(3)), Shape: shapes.of, MaxPartitions: 1 + rng.IntN(10),
				}
				cut := newTable(t, NewSchema(), opt)
				for _, e := range events {
					cut.append(e)
					if rng.IntN(30) == 0 {
						cut.commit()
					}
					if rng.IntN(50) == 0 { // a restart: all that is left is the property
						cut.commit()
						s, err := ParseSchema(cut.schema.MarshalProperty())
						require.NoError(t, err)
						cut.b = NewBuilder(cut.fs, s, cut.opt)
					}
				}
				cut.commit()
				for _, f := range cut.files {
					cut.checkArrangement(f)
				}
				require.Equal(t, whole.opt.Arrangement, cut.opt.Arrangement)
				require.Equal(t, whole.schema, cut.schema)
				require.Equal(t, want, cut.rows(all...))
				require.Zero(t, opt.Writers.Open())
			}
		})
	}
	require.Greater(t, same, 3, "most are compared with a table that no contract lays out")
}

// TestCutsOneFileADay: chunks, evictions and schema changes leave one file for
// each day and commit, and no other file.
func TestCutsOneFileADay(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	events := randomEvents(rng, 400)
	x := newTable(t, NewSchema(), Options{ChunkRows: 7, Writers: NewWriters(2)})
	for _, e := range events {
		x.append(e)
	}
	x.commit()
	require.Len(t, x.files, days(events))
	require.Greater(t, x.made, 2*len(x.files), "parts were merged")
	want := make([]string, 0, len(x.files))
	total := int64(0)
	for _, f := range x.files {
		want = append(want, f.Path)
		total += f.Rows
		st, err := x.fs.Stat(f.Path)
		require.NoError(t, err)
		require.Equal(t, st.Size(), f.Bytes)
	}
	require.EqualValues(t, len(events), total)
	require.ElementsMatch(t, want, x.filesOn())
}

func days(events []*event.Event) int {
	set := map[int32]bool{}
	for _, e := range events {
		micros, _ := rowTime(e)
		set[int32(floor(micros, microsPerDay))] = true
	}
	return len(set)
}

func randomEvents(rng *rand.Rand, n int) []*event.Event {
	events := make([]*event.Event, n)
	ages := 1 + rng.IntN(4)
	for i := range events {
		e := &event.Event{
			ID: fmt.Appendf(nil, "id%d", rng.Uint32()), Source: []byte("s"), Type: []byte("t"), Offset: int64(i),
			ReceivedAt: received, Time: received.Add(-time.Duration(rng.IntN(ages)) * 24 * time.Hour),
		}
		switch rng.IntN(12) {
		case 0:
			e.Data = []byte(randomValue(rng, 0))
		case 1:
			e.Data = []byte(randomObject(rng, 0))
			e.Data = e.Data[:rng.IntN(len(e.Data)+1)]
		case 2:
			e.Extensions = attrs("x", fmt.Sprint(i))
			fallthrough
		default:
			e.Data = []byte(randomObject(rng, 0))
		}
		if rng.IntN(2) == 0 {
			e.Contract.Hash = fmt.Appendf(nil, "%d", rng.IntN(3))
		}
		events[i] = e
	}
	return events
}

// someShapes are shapes of contracts by the hashes of randomEvents.
type someShapes map[string]*lake.Shape

func (s someShapes) of(hash []byte) *lake.Shape { return s[string(hash)] }

// plain are the shapes without partition and order.
func (s someShapes) plain() someShapes {
	out := someShapes{}
	for hash, shape := range s {
		out[hash] = &lake.Shape{Columns: shape.Columns, Known: shape.Known}
	}
	return out
}

func randomShapes(rng *rand.Rand) someShapes {
	out := someShapes{}
	for i := range 2 { // the third is not known
		s := &lake.Shape{}
		paths := []string{"a", "b", "A", "a.b", `a\.b`, "n0", "n1", "never", "a.never", "long"}
		rng.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
		for _, p := range paths[:rng.IntN(len(paths))] {
			kinds := []Kind{Bool, Long, Long, Double, String, Timestamp, Date, ListLong, ListString, JSON, Binary}
			s.Columns = append(s.Columns, lake.ShapeColumn{Path: p, Kind: kinds[rng.IntN(len(kinds))].String(), UTC: rng.IntN(2) == 0})
		}
		randomArrangement(rng, s, paths)
		out[fmt.Sprint(i)] = s
	}
	return out
}

// randomArrangement asks for partitions and orders that fit the columns, or do not.
func randomArrangement(rng *rand.Rand, s *lake.Shape, paths []string) {
	paths = append(slices.Clone(paths), ColumnTime, ColumnReceivedAt, ColumnSource, ColumnID, ColumnOffset, ColumnTime)
	if rng.IntN(3) > 0 {
		for range 1 + rng.IntN(3) {
			names := []string{"identity", "identity", "year", "month", "day", "hour", "bucket", "bucket"}
			p := lake.ShapePartition{Transform: names[rng.IntN(len(names))], Path: paths[rng.IntN(len(paths))]}
			if p.Transform == "bucket" {
				p.N = 1 + rng.IntN(4)
			}
			s.Partition = append(s.Partition, p)
		}
		if rng.IntN(5) == 0 {
			s.Partition = []lake.ShapePartition{{Transform: lake.None}}
		}
	}
	if rng.IntN(3) > 0 {
		for range 1 + rng.IntN(3) {
			s.Sort = append(s.Sort, lake.ShapeSort{Path: paths[rng.IntN(len(paths))], Descending: rng.IntN(2) == 0})
		}
		if rng.IntN(5) == 0 {
			s.Sort = []lake.ShapeSort{{Path: lake.None}}
		}
	}
}

// randomObject writes an object whose keys and types clash often.
func randomObject(rng *rand.Rand, depth int) string {
	keys := []string{"a", "b", "A", "a_b", "a.b", "_id", "long", "", "é", `q\"`, "n0", "n1"}
	var parts []string
	for range rng.IntN(6) {
		parts = append(parts, fmt.Sprintf(`"%s":%s`, keys[rng.IntN(len(keys))], randomValue(rng, depth+1)))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func randomValue(rng *rand.Rand, depth int) string {
	scalars := []string{
		"1", "-7", "2.5", "9007199254740993", "9223372036854775807", "18446744073709551615", "1e300", "1e999", "0.0",
		`"x"`, `"y\u0000\ud83d"`, `""`, "true", "false", "null", "9007199254740995", "4611686018427387905",
		`"2026-01-31T09:00:00.5+09:00"`, `"2026-01-31"`, `"2026-01-31 09:00:00"`, "7.0",
	}
	switch k := rng.IntN(20); {
	case k == 0 && depth < 4, k == 1 && depth < 4:
		return randomObject(rng, depth)
	case k < 6:
		var parts []string
		for range rng.IntN(4) {
			if rng.IntN(8) == 0 && depth < 4 {
				parts = append(parts, randomValue(rng, depth+1))
			} else {
				parts = append(parts, scalars[rng.IntN(3)])
			}
		}
		return "[" + strings.Join(parts, ",") + "]"
	case k < 14: // mostly whole numbers, so that promotions come late
		return scalars[[]int{0, 1, 3, 4, 15, 16}[rng.IntN(6)]]
	default:
		return scalars[rng.IntN(len(scalars))]
	}
}

func TestRewrite(t *testing.T) {
	x := newTable(t, NewSchema(), Options{})
	x.send(`{"a":9007199254740993,"b":9007199254740993,"keep":[1,null],"s":"x"}`, `{"a":1,"b":2}`, `{"a":3,"x":[]}`)
	x.commit()
	old := x.files[0]
	from := x.schema
	x.send(`{"b":0.5,"new":true,"a":0.25}`)
	to := x.b.Schema()
	require.Len(t, from.Diff(to).Promoted, 2)

	f, err := Rewrite(context.Background(), x.fs, x.opt.Create, old.Path, "/lake/x/new", from, to)
	require.NoError(t, err)
	require.EqualValues(t, 3, f.Rows)
	var rows []string
	for _, r := range readFile(t, x.fs, f.Path, to) {
		rows = append(rows, fmt.Sprint(r["_rescued"], r["a"], r["b"], r["keep"], r["s"], r["new"], r["_offset"]))
	}
	require.Equal(t, []string{
		`"{\"b\":9007199254740993,\"a\":9007199254740993}"[1 null]"x"1`, `1.02.02`, `"{\"x\":[]}"3.03`,
	}, rows, "in the order of the promotions, as the builder rescues")
	a, _ := to.ByPath("a")
	require.EqualValues(t, 1, f.Stats[a.ID].Nulls)
	_, err = x.fs.Stat(old.Path)
	require.NoError(t, err, "the old file stays")

	_, err = Rewrite(context.Background(), x.fs, x.opt.Create, "/lake/none", "/lake/other", from, to)
	require.ErrorContains(t, err, "/lake/none")
	require.False(t, slices.Contains(x.filesOn(), "/lake/other"))
}
