package columnar

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/lake"
)

// checkArrangement holds what a file says of its rows against them.
func (x *table) checkArrangement(f DataFile) {
	x.t.Helper()
	rows := readFile(x.t, x.fs, f.Path, x.schema)
	require.Len(x.t, f.Partition, len(f.Arrangement.Partition))
	for i, p := range f.Arrangement.Partition {
		field, ok := x.schema.ByID(p.Source)
		require.True(x.t, ok)
		for _, r := range rows {
			v, ok := r[field.Name]
			require.Equal(x.t, !ok, f.Partition[i].Null)
			if ok {
				require.Equal(x.t, p.text(field.Kind, f.Partition[i]), slowly(x.t, p, field.Kind, v), "%s of %s", p.Transform, v)
			}
		}
	}
	if !f.Sorted {
		return
	}
	for i := 1; i < len(rows); i++ {
		require.LessOrEqual(x.t, x.slowOrder(f.Arrangement.Sort, rows[i-1], rows[i]), 0, "rows %d and %d of %s", i-1, i, f.Path)
	}
}

// slowly makes a transform of a value as readFile gives it, as text.
func slowly(t testing.TB, p PartitionField, k Kind, v string) string {
	var text string
	if k == String {
		require.NoError(t, json.Unmarshal([]byte(v), &text))
	}
	if p.Transform == Bucket {
		b := []byte(text)
		if k != String {
			b = make([]byte, 8)
			n := wholeText(t, k, v)
			for i := range b {
				b[i] = byte(n >> (8 * i))
			}
		}
		return strconv.Itoa(int(murmur3(b)&0x7fffffff) % p.Buckets)
	}
	switch p.Transform {
	case Year:
		return strings.TrimLeft(v[:4], "0")
	case Month:
		return v[:7]
	case Day:
		return v[:10]
	case Hour:
		return strings.Replace(v[:13], "T", "-", 1)
	}
	if k == String {
		return text
	}
	return v
}

func wholeText(t testing.TB, k Kind, v string) int64 {
	switch k {
	case Timestamp:
		at, err := time.Parse(time.RFC3339Nano, v)
		require.NoError(t, err)
		return at.UnixMicro()
	case Date:
		at, err := time.Parse(time.DateOnly, v)
		require.NoError(t, err)
		return at.Unix() / 86400
	}
	n, err := strconv.ParseInt(v, 10, 64)
	require.NoError(t, err)
	return n
}

func (x *table) slowOrder(by []SortField, a, b map[string]string) int {
	for _, o := range by {
		field, _ := x.schema.ByID(o.Source)
		av, aok := a[field.Name]
		bv, bok := b[field.Name]
		n := 0
		switch {
		case !aok && !bok:
		case !aok:
			n = -1
		case !bok:
			n = 1
		case field.Kind == Double:
			af, _ := strconv.ParseFloat(av, 64)
			bf, _ := strconv.ParseFloat(bv, 64)
			if af < bf {
				n = -1
			} else if af > bf {
				n = 1
			}
		case field.Kind == String:
			var at, bt string
			require.NoError(x.t, json.Unmarshal([]byte(av), &at))
			require.NoError(x.t, json.Unmarshal([]byte(bv), &bt))
			n = strings.Compare(at, bt)
		case field.Kind == Bool:
			n = strings.Compare(av, bv) // false, true
		default:
			an, bn := wholeText(x.t, field.Kind, av), wholeText(x.t, field.Kind, bv)
			if an < bn {
				n = -1
			} else if an > bn {
				n = 1
			}
		}
		if n != 0 {
			if o.Descending {
				return -n
			}
			return n
		}
	}
	return 0
}

// The values of Iceberg's specification, appendix B.
func TestMurmur3(t *testing.T) {
	hash := func(k Kind, v int64) int64 {
		return PartitionField{Transform: Bucket, Buckets: 1 << 31}.number(k, v)
	}
	require.EqualValues(t, 2017239379, hash(Int, 34))
	require.EqualValues(t, 2017239379, hash(Long, 34))
	require.EqualValues(t, -653330422&0x7fffffff, hash(Date, 17486), "2017-11-16")
	require.EqualValues(t, -2047944441&0x7fffffff, hash(Timestamp, 1510871468000000), "2017-11-16T22:31:08")
	require.EqualValues(t, 1210000089, murmur3([]byte("iceberg")))
	require.EqualValues(t, 0, murmur3(nil))
}

// arranged is a table whose events of the contract "c" ask for that.
func arranged(t *testing.T, columns string, partition []lake.ShapePartition, sort []lake.ShapeSort, opt Options) *table {
	s := shapeOf(columns)
	s.Partition, s.Sort = partition, sort
	opt.Shape = someShapes{"c": s}.of
	return newTable(t, NewSchema(), opt)
}

func by(transform, path string, n ...int) lake.ShapePartition {
	p := lake.ShapePartition{Transform: transform, Path: path}
	if len(n) > 0 {
		p.N = n[0]
	}
	return p
}

// folders lists the files of a table: folder, rows, and whether they are sorted.
func (x *table) folders() (out []string) {
	for _, f := range x.files {
		parts := strings.Split(strings.TrimPrefix(f.Path, "/lake/"), "/")
		one := fmt.Sprintf("%s %d", strings.Join(parts[:len(parts)-1], "/"), f.Rows)
		if f.Sorted {
			one += " sorted"
		}
		out = append(out, one)
		x.checkArrangement(f)
	}
	return out
}

func TestPartitions(t *testing.T) {
	x := arranged(t, "at:timestamptz day:date kind:string n:long ok:bool", []lake.ShapePartition{by("hour", "at"), by("identity", "kind")}, nil, Options{})
	x.agreed(`{"at":"2026-01-01T10:00:00Z","kind":"b"}`, `{"at":"2026-01-01T10:59:59.999999Z","kind":"b"}`, `{"at":"1969-12-31T23:59:59Z","kind":"a/../%"}`,
		`{"kind":"b"}`, `{"at":"2026-01-01T11:00:00Z"}`)
	x.commit()
	require.Equal(t, []string{
		"_by_hour_at=null/kind=b 1", "_by_hour_at=1969-12-31-23/kind=a_..__ 1",
		"_by_hour_at=2026-01-01-10/kind=b 2", "_by_hour_at=2026-01-01-11/kind=null 1"}, x.folders())
	// Events that no contract judged go where the table is.
	x.send(`{"kind":"c"}`)
	x.commit()
	require.Equal(t, "_by_hour_at=null/kind=c 1", x.folders()[4])
}

// Beyond the limit rows share a file that belongs to no partition.
func TestPartitionsAreBounded(t *testing.T) {
	x := arranged(t, "n:long", []lake.ShapePartition{by("bucket", "n", 1000)}, []lake.ShapeSort{{Path: "n", Descending: true}}, Options{MaxPartitions: 3, ChunkRows: 16})
	for i := range 50 {
		x.agreed(fmt.Sprintf(`{"n":%d}`, i))
	}
	x.commit()
	require.Len(t, x.files, 4)
	require.Empty(t, x.files[0].Arrangement.Partition)
	require.EqualValues(t, 47, x.files[0].Rows)
	require.False(t, x.files[0].Sorted, "of several row groups")
	require.Equal(t, 4, len(x.folders()))
	require.Len(t, x.rows(), 50)
}

func TestSort(t *testing.T) {
	lines := []string{`{"s":"b","d":1}`, `{"s":"\ud83d\ude00","d":-0.0}`, `{"d":0}`, `{"s":"b","d":-1e300}`, `{"s":"\uffee"}`, `{"s":"a","d":0.5}`}
	x := arranged(t, "s:string d:double", nil, []lake.ShapeSort{{Path: "s", Descending: true}, {Path: "d"}}, Options{})
	x.agreed(lines...)
	x.commit()
	require.Equal(t, []string{"_time_day=2026-03-01 6 sorted"}, x.folders())
	var got []string
	for _, r := range readFile(t, x.fs, x.files[0].Path, x.schema) {
		got = append(got, r["s"]+" "+r["d"])
	}
	require.Equal(t, []string{`"😀" -0.0`, "\"\uffee\" ", `"b" -1e+300`, `"b" 1.0`, `"a" 0.5`, " 0.0"}, got, "null is the last of a descending order")
}

// A file of several row groups is sorted when they follow each other, whatever
// became of its parts.
func TestSortedFiles(t *testing.T) {
	x := arranged(t, "n:long", nil, []lake.ShapeSort{{Path: "n"}}, Options{ChunkRows: 2, Writers: NewWriters(1)})
	x.agreed(`{"n":2}`, `{"n":1}`, `{"n":2}`, `{"n":3}`, `{"n":4,"more":1}`)
	x.commit()
	require.Equal(t, []string{"_time_day=2026-03-01 5 sorted"}, x.folders())
	x.agreed(`{"n":2}`, `{"n":1}`, `{"n":1}`, `{"n":3}`, `{"n":4}`)
	x.commit()
	require.Equal(t, "_time_day=2026-03-01 5", x.folders()[1])
}

// A column that files are arranged by keeps its type: values in files of before
// and their partitions would not fit any more.
func TestArrangedColumnKeepsItsType(t *testing.T) {
	for _, sorted := range []bool{false, true} {
		x := arranged(t, "n:long", []lake.ShapePartition{by("bucket", "n", 4)}, nil, Options{})
		if sorted {
			x = arranged(t, "n:long", nil, []lake.ShapeSort{{Path: "n"}}, Options{})
		}
		x.agreed(`{"n":1}`)
		x.send(`{"n":1.5}`)
		x.commit()
		x.send(`{"n":2.5}`)
		x.commit()
		require.Equal(t, "n:long", x.kinds())
		require.Equal(t, []string{"n=1", `_rescued="{\"n\":1.5}"`, `_rescued="{\"n\":2.5}"`}, x.rows())
		require.EqualValues(t, 2, x.b.Counters().Unpromoted)
	}
}

// What does not fit the columns that are there changes nothing; neither does an
// event that is no JSON, before there are any.
func TestArrangementThatDoesNotFit(t *testing.T) {
	x := arranged(t, "at:timestamptz", []lake.ShapePartition{by("day", "at")}, []lake.ShapeSort{{Path: "at"}}, Options{})
	x.send(`{"at":1}`)
	x.agreed(`{"at":"2026-01-01T10:00:00Z"}`)
	x.commit()
	require.Equal(t, []string{"_time_day=2026-03-01 2 sorted"}, x.folders(), "a long can be sorted by, and is no time")
	x = arranged(t, "at:timestamptz", []lake.ShapePartition{by("day", "at")}, nil, Options{})
	x.agreed(`{"at`, `{"at":"2026-01-01T10:00:00Z"}`)
	x.commit()
	require.Equal(t, []string{"_by_day_at=null 1", "_by_day_at=2026-01-01 1"}, x.folders())
}

// A contract that says none takes away what there was; one that says nothing
// leaves it.
func TestArrangementIsTakenAway(t *testing.T) {
	x := newTable(t, NewSchema(), Options{Shape: someShapes{
		"c":       {Partition: []lake.ShapePartition{by("month", "_time")}, Sort: []lake.ShapeSort{{Path: "_id"}}},
		"nothing": shapeOf("a:long"),
		"none":    {Partition: []lake.ShapePartition{by("none", "")}, Sort: []lake.ShapeSort{{Path: "none"}}},
	}.of})
	for _, c := range []string{"c", "nothing", "none", "nothing", "c"} {
		e := x.at(`{"a":1}`)
		e.Contract.Hash = []byte(c)
		x.append(e)
		x.commit()
	}
	require.Equal(t, []string{"_by_month_time=2026-03 1 sorted", "_by_month_time=2026-03 1 sorted", " 1", " 1", "_by_month_time=2026-03 1 sorted"}, x.folders())
}

// No field makes a column of a name that a partition may need.
func TestNamesOfPartitionsAreKept(t *testing.T) {
	x := newTable(t, NewSchema(), Options{})
	x.send(`{"_by_hour_at":1,"_BY_x":2,"_b":3}`)
	x.commit()
	require.Equal(t, []string{`_rescued="{\"_by_hour_at\":1,\"_BY_x\":2}" _b=3`}, x.rows())
}
