package columnar

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/lake"
)

// shapeOf reads "path:kind ..." ; a kind with ! is that of times that may be in UTC.
func shapeOf(text string) *lake.Shape {
	s := &lake.Shape{}
	for _, one := range strings.Fields(text) {
		path, kind, _ := strings.Cut(one, ":")
		kind, utc := strings.CutSuffix(kind, "!")
		s.Columns = append(s.Columns, lake.ShapeColumn{Path: path, Kind: kind, UTC: utc})
	}
	return s
}

// under makes a table whose events of the contract "c" have the shape.
func under(t *testing.T, shape string) *table {
	return newTable(t, NewSchema(), Options{Shape: someShapes{"c": shapeOf(shape)}.of})
}

// agreed sends events that were judged by "c".
func (x *table) agreed(lines ...string) {
	x.t.Helper()
	for _, line := range lines {
		e := x.at(line)
		e.Contract.Hash = []byte("c")
		x.append(e)
	}
}

func TestColumnsOfContract(t *testing.T) {
	for _, c := range []struct {
		name, shape, data string
		kinds, row        string
	}{
		{"all kinds", "b:bool n:long d:double s:string t:timestamptz day:date l:list<long> j:json",
			`{"n":1,"d":2,"t":"2026-01-31T09:00:00.5+09:00","day":"2026-01-31","l":[],"j":[{"a":1}],"s":"x","b":true}`,
			"n:long d:double t:timestamptz day:date l:list<long> j:json s:string b:bool",
			`n=1 d=2.0 t=2026-01-31T00:00:00.5Z day=2026-01-31 l=[] j="[{\"a\":1}]" s="x" b=true`},
		{"no event has it", "later:date o.p.q:long", `{"x":1}`, "x:long later:date o_p_q:long", "x=1"},
		{"null", "t:timestamptz", `{"t":null}`, "t:timestamptz", ""},
		{"whole all the same", "n:long", `{"n":1e3}`, "n:long", "n=1000"},
		{"whole, perhaps", "n:long", `{"n":7.00000000000000000001}`, "n:long", `_rescued="{\"n\":7.00000000000000000001}"`},
		{"not whole", "n:long", `{"n":1.5}`, "n:long", `_rescued="{\"n\":1.5}"`},
		{"too large", "n:long", `{"n":9223372036854775808}`, "n:long", `_rescued="{\"n\":9223372036854775808}"`},
		{"another type", "n:long s:string b:bool d:double t:timestamptz", `{"n":"1","s":1,"b":0,"d":"x","t":5}`,
			"n:long s:string b:bool d:double t:timestamptz", `_rescued="{\"n\":\"1\",\"s\":1,\"b\":0,\"d\":\"x\",\"t\":5}"`},
		{"no time", "t:timestamptz", `{"t":"yesterday"}`, "t:timestamptz", `_rescued="{\"t\":\"yesterday\"}"`},
		{"no such day", "t:date", `{"t":"2026-02-30"}`, "t:date", `_rescued="{\"t\":\"2026-02-30\"}"`},
		{"beyond calendars", "t:timestamptz d:date", `{"t":"0000-01-01T00:00:00Z","d":"0000-12-31"}`, "t:timestamptz d:date",
			`_rescued="{\"t\":\"0000-01-01T00:00:00Z\",\"d\":\"0000-12-31\"}"`},
		{"without an offset", "t:timestamptz", `{"t":"2026-01-31T09:00:00"}`, "t:timestamptz", `_rescued="{\"t\":\"2026-01-31T09:00:00\"}"`},
		{"without an offset, in UTC", "t:timestamptz!", `{"t":"2026-01-31T09:00:00"}`, "t:timestamptz", `t=2026-01-31T09:00:00Z`},
		{"finer than a microsecond", "t:timestamptz", `{"t":"1969-12-31T23:59:59.1234567Z"}`, "t:timestamptz", `t=1969-12-31T23:59:59.123456Z`},
		{"escapes", "t:date", `{"t":"2026\u002d01-31"}`, "t:date", `t=2026-01-31`},
		{"a list of other things", "l:list<long>", `{"l":[1,"x"]}`, "l:list<long>", `_rescued="{\"l\":[1,\"x\"]}"`},
		{"another path has the name", "a.b:date", `{"a_b":1,"a":{"b":"2026-01-31"}}`, "a_b:long", `_rescued="{\"a.b\":\"2026-01-31\"}" a_b=1`},
		{"a name of naru's", "_time:date", `{"_time":"2026-01-31"}`, "", `_rescued="{\"_time\":\"2026-01-31\"}"`},
		{"a name with a point", `a\.b:date`, `{"a.b":"2026-01-31"}`, "a.b:date", "a.b=2026-01-31"},
		{"a kind that is none", "n:foreign m:decimal(9,2) o:int", `{"n":1,"o":2}`, "n:long o:long", "n=1 o=2"},
		{"no JSON leaves no trace", "n:long", `{"n":1,`, "data:string", `data="{\"n\":1,"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := under(t, c.shape)
			x.agreed(c.data, c.data)
			require.Equal(t, c.kinds, x.kinds())
			x.commit()
			require.Equal(t, []string{c.row, c.row}, x.rows())
			if strings.HasPrefix(c.row, "_rescued") {
				require.Equal(t, 2*int64(strings.Count(c.row, `\":`)), x.b.Counters().Rescued, "counted")
			}
		})
	}
}

// What a table has stays, and events without a contract, or of another one, fill
// the columns as far as they fit.
func TestContractComesLater(t *testing.T) {
	x := under(t, "s:timestamptz n:double new:date")
	x.send(`{"s":"2026-01-31T09:00:00Z","n":1}`)
	x.agreed(`{"s":"2026-01-31T09:00:00Z","n":2,"new":"2026-02-01"}`)
	require.Equal(t, "s:string n:long new:date", x.kinds())
	x.agreed(`{"n":2.5}`) // a double is wanted, and long may become it
	x.send(`{"new":"2026-02-02","s":"x"}`, `{"new":"tomorrow"}`)
	require.Equal(t, "s:string n:double new:date", x.kinds())
	x.commit()
	require.Equal(t, []string{
		`s="2026-01-31T09:00:00Z" n=1.0`,
		`s="2026-01-31T09:00:00Z" n=2.0 new=2026-02-01`,
		`n=2.5`,
		`s="x" new=2026-02-02`,
		`_rescued="{\"new\":\"tomorrow\"}"`,
	}, x.rows())
}

// A whole-number column stays one only for events whose contract says so.
func TestContractKeepsLong(t *testing.T) {
	x := under(t, "n:long")
	x.agreed(`{"n":1.5}`)
	require.Equal(t, "n:long", x.kinds())
	x.send(`{"n":2.5}`)
	require.Equal(t, "n:double", x.kinds())
	x.agreed(`{"n":3.5}`)
	x.commit()
	require.Equal(t, []string{`_rescued="{\"n\":1.5}"`, `n=2.5`, `n=3.5`}, x.rows())
}

// A column that somebody dropped is not made again by the contract.
func TestContractAndDroppedColumn(t *testing.T) {
	x := under(t, "n:long d:date")
	x.agreed(`{}`)
	x.commit()
	s := x.schema.Clone()
	at := len(s.Fields) - 1
	require.Equal(t, "d", s.Fields[at].Name)
	s.Fields[at].Dropped = true
	require.NoError(t, x.b.Reset(s))
	x.agreed(`{"d":"2026-01-31","n":1}`)
	require.Equal(t, "n:long d:date", x.kinds())
	require.Equal(t, int64(1), x.b.Counters().Rescued)
}

// Bounds of dates are those of Iceberg: four bytes.
func TestBoundsOfDates(t *testing.T) {
	x := under(t, "d:date")
	x.agreed(`{"d":"1970-01-03"}`, `{"d":"1969-12-31"}`)
	x.commit()
	f, _ := x.schema.ByPath("d")
	stats := x.files[0].Stats[f.ID]
	require.Equal(t, []byte{0xff, 0xff, 0xff, 0xff}, stats.Lower)
	require.Equal(t, []byte{2, 0, 0, 0}, stats.Upper)
}

// Rows read back: what verify and merges do.
func TestReadDates(t *testing.T) {
	x := under(t, "d:date t:timestamptz")
	x.agreed(`{"d":"1970-01-03","t":"1970-01-01T00:00:01Z"}`)
	x.commit()
	var got []int64
	_, err := ReadRows(t.Context(), x.fs, x.files[0].Path, x.schema, func(r *Row) error {
		for _, v := range r.Values {
			if v.Field.Path != "" {
				got = append(got, v.Long)
			}
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, []int64{2, 1e6}, got)
}

// An event costs nothing more when the one before had the same contract.
func TestFollowAllocatesNothing(t *testing.T) {
	x := under(t, "a:long b:string")
	e := &event.Event{Type: []byte("t"), ReceivedAt: received, Data: []byte(`{"a":1,"b":"x"}`), Contract: event.Contract{Hash: []byte("c")}}
	x.append(e)
	require.Zero(t, testing.AllocsPerRun(100, func() { x.b.follow(e); x.b.settle() }))
}

// A builder that goes on with other columns, since somebody changed the table, has
// those of the contract again.
func TestContractAndResetColumns(t *testing.T) {
	x := under(t, "n:long d:date")
	x.agreed(`{}`)
	require.NoError(t, x.b.Reset(NewSchema()))
	x.agreed(`{}`)
	require.Equal(t, "n:long d:date", x.kinds())
}
