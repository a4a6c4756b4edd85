package duck

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/lake/columnar"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
)

func smallRows(t *testing.T) *Steps {
	cfg := DefaultStepsConfig()
	cfg.Rows = 64 * quantity.KiB
	s, err := NewSteps(cfg, StepsDeps{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// TestStepsBoundRowsWithoutData: rows are bounded (steps.rows) that have no column of
// data, too.
func TestStepsBoundRowsWithoutData(t *testing.T) {
	tr := openSteps(t, smallRows(t), sqlSteps("SELECT input._id FROM input, range(3000000) r(x) WHERE x < n"))
	out := apply(t, tr, batchOf(t, 0, `{"n": 1}`, `{"n": 3000000}`))
	require.Len(t, out.Refused, 1, "%d rows", out.Batch.Rows.Len())
}

// TestStepsBoundReplacedAttributes: nor may what steps give for attributes be without bound.
func TestStepsBoundReplacedAttributes(t *testing.T) {
	tr := openSteps(t, smallRows(t), sqlSteps("SELECT n, repeat('s', 10000) || x AS _subject FROM (SELECT n, unnest(range(n)) AS x FROM input)"))
	out := apply(t, tr, batchOf(t, 0, `{"n": 1}`, `{"n": 1000}`))
	require.Len(t, out.Refused, 1, "%d rows, %d bytes", out.Batch.Rows.Len(), out.Batch.Rows.Size())
}

// TestStepsBoundWithoutHistory: whether the rows of an event are too many does not
// depend on which events came before it.
func TestStepsBoundWithoutHistory(t *testing.T) {
	steps := sqlSteps("SELECT *, unnest(range(n)) AS x FROM input")
	const asked = `{"n": 1000}`
	alone := apply(t, openSteps(t, smallRows(t), steps), batchOf(t, 1, asked))
	wide := `{"n": 1`
	for i := range 40 {
		wide += fmt.Sprintf(`, "f%d": %d`, i, i)
	}
	tr := openSteps(t, smallRows(t), steps)
	apply(t, tr, batchOf(t, 0, wide+"}"))
	behind := apply(t, tr, batchOf(t, 1, asked))
	require.Equal(t, alone.Refused, behind.Refused)
	require.Equal(t, alone.Batch.Rows.Len(), behind.Batch.Rows.Len())
}

// TestStepsKeepOffsetOfTime: an event that steps let pass has its time as it was sent.
func TestStepsKeepOffsetOfTime(t *testing.T) {
	var b recordbatch.Builder
	b.Reset(received)
	sent := time.Date(2026, 7, 1, 14, 0, 0, 123456789, time.FixedZone("", 2*3600))
	b.AppendEvent(&event.Event{ID: []byte("a"), Source: []byte("s"), Type: []byte("t"), Time: sent, Data: []byte(`{"a":1}`)})
	in := &event.Batch{Stream: "events", Incarnation: event.Incarnation{1}, Next: 1, Raw: [][]byte{b.Finish(nil, recordbatch.None)}}
	out := apply(t, openSteps(t, stepsFor(t, StepsDeps{}), sqlSteps("SELECT a FROM input")), in)
	require.Equal(t, sent.Format(time.RFC3339Nano), out.Batch.Rows.Whole()[0].Time.Format(time.RFC3339Nano))
}

// TestStepsTextIsUTF8: a text that is not UTF-8 comes to no sink as it is.
func TestStepsTextIsUTF8(t *testing.T) {
	for _, expr := range []string{`regexp_extract(a, '\C')`, `regexp_replace(a, '\C', '')`, `regexp_extract_all(a, '\C')[1]`, `string_split_regex(a, '\C')[1]`} {
		tr := openSteps(t, stepsFor(t, StepsDeps{}), sqlSteps("SELECT "+expr+" AS v FROM input"))
		out, err := tr.Apply(t.Context(), batchOf(t, 0, `{"a":"ü"}`), everyEvent)
		if err != nil {
			t.Logf("%s: %v", expr, err)
			continue
		}
		t.Logf("%s: refused %v", expr, out.Refused)
		for _, f := range out.Batch.Rows.Frames {
			for _, c := range f.(columnar.Framed).Cells().Columns {
				for row := range c.Rows {
					if c.Field.Kind == columnar.String && !c.Null(row) {
						require.Equal(t, strings.ToValidUTF8(string(c.TextAt(row)), "�"), string(c.TextAt(row)), expr)
					}
				}
			}
		}
	}
}

// TestStepsSizeOfFewRows: what a batch of few rows is said to take is what it takes.
func TestStepsSizeOfFewRows(t *testing.T) {
	data := make([]string, 40000)
	for i := range data {
		data[i] = fmt.Sprintf(`{"a":%d}`, i)
	}
	out := apply(t, openSteps(t, stepsFor(t, StepsDeps{}), sqlSteps("SELECT a FROM input WHERE a = 7")), batchOf(t, 0, data...))
	rows := out.Batch.Rows
	require.Equal(t, 1, rows.Len())
	require.Less(t, event.RowSize*cap(rows.List), 2*rows.Size(), "%d bytes of the list", event.RowSize*cap(rows.List))
}

// TestStepsSizeOfSingles: events that are computed one by one do not count for each
// other.
func TestStepsSizeOfSingles(t *testing.T) {
	var data []string
	for i := range 2000 {
		text := fmt.Sprint(i)
		if i%5 == 0 {
			text = "x"
		}
		data = append(data, `{"a": "`+text+`"}`)
	}
	out := apply(t, openSteps(t, stepsFor(t, StepsDeps{}), sqlSteps("SELECT CAST(a AS BIGINT) AS a FROM input")), batchOf(t, 0, data...))
	require.Len(t, out.Refused, 400)
	require.Less(t, out.Batch.Rows.Size(), 10<<20, "1600 rows of some bytes in %d frames", len(out.Batch.Rows.Frames))
}

// TestStepsTextCanBeRead: DuckDB reads a table that was made of what it gave.
func TestStepsTextCanBeRead(t *testing.T) {
	tr := openSteps(t, stepsFor(t, StepsDeps{}), sqlSteps(`SELECT regexp_extract(a, '\C') AS v FROM input`))
	out := apply(t, tr, batchOf(t, 0, `{"a":"ü"}`, `{"a":"ok"}`))
	stage := columnar.NewStage(columnar.NewSchema(), nil, nil)
	require.NoError(t, stage.Append(&event.Event{ID: []byte("a"), ReceivedAt: received, Data: []byte(`{"v":"text"}`)}, event.Incarnation{1}, 0))
	for i := range out.Batch.Rows.List {
		var e event.Event
		out.Batch.Rows.Head(i, &e)
		x := out.Batch.Rows.List[i]
		_, err := stage.AppendCells(&e, out.Batch.Rows.Frames[x.Frame].(columnar.Framed).Cells(), int(x.At), event.Incarnation{1}, 0)
		require.NoError(t, err)
	}
	path := filepath.Join(t.TempDir(), "x.parquet")
	_, err := stage.Dump(func(path string) (columnar.Output, error) {
		f, err := os.Create(path)
		return dumped{f}, err
	}, path)
	require.NoError(t, err)
	db, err := openDatabase(option{"threads", "1"})
	require.NoError(t, err)
	defer db.close()
	c, err := db.connect()
	require.NoError(t, err)
	defer c.close()
	r, err := c.stream("SELECT v FROM read_parquet('" + path + "')")
	require.NoError(t, err)
	defer r.close()
	_, err = r.next()
	require.NoError(t, err)
}

type dumped struct{ *os.File }

func (d dumped) Path() string { return d.Name() }
func (d dumped) Abort() error { return d.Close() }

// TestStepsRowsLetTheInputGo: rows that somebody keeps hold the events that they were
// made of no longer.
func TestStepsRowsLetTheInputGo(t *testing.T) {
	tr := openSteps(t, stepsFor(t, StepsDeps{}), sqlSteps("SELECT a FROM input"))
	in := batchOf(t, 0, `{"a":1}`)
	gone := make(chan struct{})
	runtime.AddCleanup(in, func(ch chan struct{}) { close(ch) }, gone)
	rows := apply(t, tr, in).Batch.Rows
	in = nil
	for range 100 {
		runtime.GC()
		select {
		case <-gone:
			require.Equal(t, 1, rows.Len())
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatal("the batch is still there", rows.Len())
}
