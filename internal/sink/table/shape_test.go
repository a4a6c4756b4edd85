package table

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/lake"
	"naru/internal/sink"
	"naru/internal/sink/sinktest"
)

// A contract that asks for a table gets it from its first event on: what came
// before stays where it is, also when all is read again from the start, and when
// the sink is opened anew behind either.
func TestTableOfContract(t *testing.T) {
	w := newWorld(t)
	w.cfg.KeepSnapshots = 100
	require.NoError(t, w.lake.KeepShapes(map[string]*lake.Shape{"new": {Table: "asked"}, "back": {Columns: []lake.ShapeColumn{{Path: "n", Kind: "long"}}}}))
	hashes := []string{"", "", "new", "new", "", "new", "back", "unknown", "new"}
	specs := make([]sinktest.Spec, len(hashes))
	for i, hash := range hashes {
		specs[i] = sinktest.Spec{ID: fmt.Sprintf("e%d", i), Type: "page_view", Data: `{"n":1}`, Contract: hash}
	}
	for upTo := 1; upTo <= len(specs); upTo++ {
		for range 2 { // the second time nothing is new
			w.restart()
			s := w.sink()
			require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, specs[:upTo]...)))
			_, err := s.(sink.Drainer).Drain(t.Context())
			require.NoError(t, err)
			require.NoError(t, s.Close())
		}
	}
	ids := func(name string) (out []string) {
		for _, id := range w.column(table(name), "_id") {
			out = append(out, id.(string))
		}
		slices.Sort(out)
		return out
	}
	require.Equal(t, []string{"e0", "e1", "e4", "e6", "e7"}, ids("page_view"))
	require.Equal(t, []string{"e2", "e3", "e5", "e8"}, ids("asked"))
}

// Types and promotions as the contract of each event has them.
func TestColumnsOfContract(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, w.lake.KeepShapes(map[string]*lake.Shape{"c": {Columns: []lake.ShapeColumn{
		{Path: "at", Kind: "timestamptz"}, {Path: "day", Kind: "date"}, {Path: "n", Kind: "long"}, {Path: "never", Kind: "double"}}}}))
	s := w.sink()
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0,
		sinktest.Spec{ID: "e0", Type: "a", Data: `{"at":"2026-01-31T09:00:00+09:00","day":"2026-01-31","n":7.0}`, Contract: "c"},
		sinktest.Spec{ID: "e1", Type: "a", Data: `{"at":"soon","n":7.5}`, Contract: "c"})))
	_, err := s.(sink.Drainer).Drain(t.Context())
	require.NoError(t, err)
	require.Equal(t, int64(2), w.tables.Status()[0].Rescued, "counted")
	require.NoError(t, s.Close())
	info, err := w.lake.Info(t.Context(), table("a"))
	require.NoError(t, err)
	types := map[string]string{}
	for _, c := range info.Columns {
		types[c.Name] = c.Type
	}
	for name, want := range map[string]string{"at": "timestamptz", "day": "date", "n": "long", "never": "double"} {
		require.Equal(t, want, types[name], name)
	}
	require.Equal(t, []any{"2026-01-31", nil}, w.column(table("a"), "day"))
	require.Equal(t, []any{nil, `{"at":"soon","n":7.5}`}, w.column(table("a"), "_rescued"))
}
