package duck

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/transform"
)

func everyEvent(*event.Event) bool { return true }

// TestStepsManyRows: rows that are too many at once come in several parts, which
// together are all of them.
func TestStepsManyRows(t *testing.T) {
	cfg := DefaultStepsConfig()
	cfg.Rows, cfg.Memory = 64*quantity.KiB, 32*quantity.MiB
	s, err := NewSteps(cfg, StepsDeps{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	tr := openSteps(t, s, sqlSteps("SELECT a, unnest(range(n)) AS x FROM input"))
	const events, each = 300, 100
	var data []string
	for i := range events {
		data = append(data, fmt.Sprintf(`{"a": %d, "n": %d}`, i, each))
	}
	b := batchOf(t, 0, data...)
	at, parts := int64(0), 0
	for at < b.Next {
		part := *b
		part.From = at
		out := apply(t, tr, &part)
		require.Equal(t, at, out.Batch.From)
		require.Greater(t, out.Batch.Next, at)
		require.EqualValues(t, out.Batch.Next-at, out.Written)
		rows := out.Batch.Rows.Whole()
		require.Len(t, rows, int(out.Written)*each)
		require.Equal(t, at, rows[0].Offset)
		require.Equal(t, fmt.Sprintf(`{"a":%d,"x":%d}`, out.Batch.Next-1, each-1), string(rows[len(rows)-1].Data))
		at = out.Batch.Next
		parts++
	}
	require.Greater(t, parts, 10)

	// Those of one event alone.
	out := apply(t, tr, batchOf(t, 0, `{"a": 1, "n": 1}`, `{"a": 2, "n": 60000}`, `{"a": 3, "n": 2}`))
	require.Equal(t, []transform.Refused{{Offset: 1, Step: "1 sql", Detail: "the rows of this event take more than 64KiB (steps.rows)"}}, out.Refused)
	require.Equal(t, 3, out.Batch.Rows.Len())
}

// TestStepsMemory: an event whose rows DuckDB has no memory for is not refused: with
// more memory it could be computed.
func TestStepsMemory(t *testing.T) {
	cfg := DefaultStepsConfig()
	cfg.Memory = 32 * quantity.MiB
	s, err := NewSteps(cfg, StepsDeps{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	tr := openSteps(t, s, sqlSteps("SELECT a FROM input WHERE a < 5 OR (SELECT count(DISTINCT x::VARCHAR) FROM range(3000000) r(x) WHERE x % 7 < input.a) > 1"))
	_, err = tr.Apply(context.Background(), batchOf(t, 0, `{"a": 9}`), everyEvent)
	require.ErrorContains(t, err, "Out of Memory")
	require.True(t, fault.IsTransient(err))
	require.Contains(t, fault.HintOf(err), "steps.memory")
}

func TestStepsEnd(t *testing.T) {
	s := stepsFor(t, StepsDeps{})
	tr := openSteps(t, s, sqlSteps("SELECT a FROM input WHERE (SELECT count(*) FROM range(100000000000) r(x) WHERE x % 7 < input.a) > 1"))
	why := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(context.Background(), 200*time.Millisecond, why)
	defer cancel()
	_, err := tr.Apply(ctx, batchOf(t, 0, `{"a": 9}`, `{"a": 10}`), everyEvent)
	require.ErrorIs(t, err, why)
	require.NoError(t, tr.Close())
	_, err = tr.Apply(context.Background(), batchOf(t, 0, `{"a": 9}`), everyEvent)
	require.Error(t, err)
}

// TestStepsRest: what is given back when no events come is made anew.
func TestStepsRest(t *testing.T) {
	s := stepsFor(t, StepsDeps{})
	tr := openSteps(t, s, sqlSteps("SELECT a, nobody FROM input", "SELECT * FROM input WHERE a > 1"))
	for range 3 {
		require.Equal(t, "1.0 {\"a\":2}\nwritten 1 filtered 1", dump(apply(t, tr, batchOf(t, 0, `{"a": 1}`, `{"a": 2}`))))
		tr.(*steps).rest()
	}
	require.Zero(t, s.mu.current.mu.users)
}

// TestStepsManyRefused: whatever events cannot be computed, exactly these are refused.
func TestStepsManyRefused(t *testing.T) {
	s := stepsFor(t, StepsDeps{})
	tr := openSteps(t, s, sqlSteps("SELECT CAST(a AS BIGINT) AS a FROM input"))
	for _, every := range []int{1, 2, 3, 100, 999} {
		var data []string
		for i := range 1500 {
			text := fmt.Sprint(i)
			if i%every == every-1 {
				text = "x" + text
			}
			data = append(data, `{"a": "`+text+`"}`)
		}
		out := apply(t, tr, batchOf(t, 7, data...))
		require.Len(t, out.Refused, 1500/every)
		require.EqualValues(t, 1500-1500/every, out.Written)
		for i, r := range out.Refused {
			at := every*(i+1) - 1
			require.Equal(t, transform.Refused{Offset: int64(7 + at), Step: "1 sql", Detail: fmt.Sprintf("Conversion Error: Could not convert string 'x%d' to INT64 when casting from source column a", at)}, r)
		}
		for _, e := range out.Batch.Rows.Whole() {
			require.Equal(t, fmt.Sprintf(`{"a":%d}`, e.Offset-7), string(e.Data))
			require.Equal(t, fmt.Sprintf("id-%d", e.Offset), string(e.ID))
		}
	}
}

// TestStepsScriptInParts: what a function makes of rows does not depend on which are
// computed together, nor on where too many rows part a batch.
func TestStepsScriptInParts(t *testing.T) {
	list := stepsIn(t, `steps:
  - sql: SELECT a, unnest(range(a)) AS n FROM input WHERE a <> 4
  - js: "row => { if (row.a == 7 && row.n == 3) throw new Error('seven'); return row.n % 2 ? [row, row] : row }"
  - sql: SELECT a, n, CASE WHEN a = 9 AND n = 5 THEN error('nine') ELSE 'a text that takes some room' || repeat('x', 300) END AS s FROM input`)
	var data []string
	for i := range 60 {
		data = append(data, fmt.Sprintf(`{"a": %d}`, i%12))
	}
	b := batchOf(t, 0, data...)
	whole := apply(t, openSteps(t, stepsFor(t, StepsDeps{}), list), b)
	require.Len(t, whole.Refused, 10)
	require.EqualValues(t, 10, whole.Filtered)
	cfg := DefaultStepsConfig()
	cfg.Rows = 64 * quantity.KiB
	s, err := NewSteps(cfg, StepsDeps{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	tr := openSteps(t, s, list)
	all := &transform.Applied{Batch: &event.Batch{Columns: whole.Batch.Columns, Rows: &event.Rows{}}}
	parts := 0
	for at := int64(0); at < b.Next; parts++ {
		part := *b
		part.From = at
		out := apply(t, tr, &part)
		all.Batch.Rows.Add(out.Batch.Rows.Whole()...)
		all.Refused = append(all.Refused, out.Refused...)
		all.Written, all.Filtered = all.Written+out.Written, all.Filtered+out.Filtered
		require.Greater(t, out.Batch.Next, at)
		at = out.Batch.Next
	}
	require.Greater(t, parts, 2)
	require.Equal(t, rowsOf(whole), rowsOf(all))
}
