package table

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/lake/iceberg"
	"naru/internal/sink"
	"naru/internal/sink/sinktest"
	"naru/internal/stream"
	"naru/internal/vfs"
)

// streamLog knows one stream, so that a pipeline's name is free.
type streamLog struct{ *fakeLog }

func (l streamLog) Stat(ctx context.Context, name string) (stream.Stat, error) {
	if name != sinktest.Stream {
		return stream.Stat{}, stream.ErrNoStream
	}
	return l.fakeLog.Stat(ctx, name)
}

var (
	edits   = lake.Ident{Namespace: "p", Name: "edits"}
	editEnv = sink.Env{Pipeline: "p", Stream: sinktest.Stream, Logger: quiet}
)

// fill writes events first to last with a mark in their ids.
func fill(ctx context.Context, s sink.Settings, mark string, first, last int) error {
	k, err := s.Open(ctx, editEnv)
	if err != nil {
		return err
	}
	defer k.Close()
	var specs []sinktest.Spec
	for i := first; i <= last; i++ {
		specs = append(specs, sinktest.Spec{ID: fmt.Sprintf("%s%d", mark, i), Type: "edit", Data: fmt.Sprintf(`{"n":%d,"%s":true}`, i, mark)})
	}
	if err := k.Write(ctx, sinktest.Batch(life, 0, int64(first), specs...)); err != nil {
		return err
	}
	_, err = k.(sink.Drainer).Drain(ctx)
	return err
}

func marks(parts ...any) (out []any) {
	for i := 0; i < len(parts); i += 3 {
		for n := parts[i+1].(int); n <= parts[i+2].(int); n++ {
			out = append(out, fmt.Sprintf("%s%d", parts[i], n))
		}
	}
	return out
}

// backfillOnce is what a pipeline does: each step may have been done before.
func backfillOnce(ctx context.Context, tables *Tables) error {
	x, err := (&Settings{tables: tables}).Shadow("edits", "")
	if err != nil {
		return err
	}
	at := event.Positions{life: {0: 4}}
	if err := x.Make(ctx, editEnv, at, func(at event.Position) bool { return at.Offset < 4 }); err != nil {
		return err
	}
	if err := fill(ctx, x, "b", 2, 9); err != nil { // what it has it skips
		return err
	}
	return x.Swap(ctx, editEnv)
}

// requireCounted holds the rows of the table against what its commits say.
func (w *world) requireCounted() {
	w.t.Helper()
	a, err := w.lake.Audit(w.t.Context(), edits)
	require.NoError(w.t, err)
	defer a.Release()
	var have lake.Tally
	for _, f := range a.Files {
		_, err := columnar.ReadPlaces(w.t.Context(), w.fs, f.Path, columnar.PlacesOptions{}, func(p *columnar.Places) error {
			for i, off := range p.Offset {
				inc, err := event.ParseIncarnation(string(p.Log[i]))
				require.NoError(w.t, err)
				have.Add(event.Position{Incarnation: inc, Partition: p.Partition[i], Offset: off})
			}
			return nil
		})
		require.NoError(w.t, err)
	}
	require.Equal(w.t, &have, a.Committed)
}

func TestShadowReplacesATable(t *testing.T) {
	w := newWorld(t)
	w.tables = New(w.lake, streamLog{w.log}, quiet)
	ctx := t.Context()
	own := &Settings{Table: "edits", tables: w.tables}
	// Several files, so that some are copied whole, one in part and one not at all.
	for i := range 4 {
		require.NoError(t, fill(ctx, own, "a", i*2, i*2+1))
	}
	require.NoError(t, fill(ctx, own, "a", 8, 9))
	w.requireCounted()
	view, err := w.lake.View(ctx, edits)
	require.NoError(t, err)
	require.NoError(t, backfillOnce(ctx, w.tables))
	require.ElementsMatch(t, marks("a", 0, 3, "b", 4, 9), w.column(edits, "_id"))
	require.ElementsMatch(t, []any{"true", "true", "true", "true", nil, nil, nil, nil, nil, nil}, w.column(edits, "a"))
	state, err := w.lake.Table(edits).Load(ctx)
	require.NoError(t, err)
	require.Equal(t, event.Positions{life: {0: 10}}, state.Positions)
	x, err := own.Shadow("edits", "")
	require.NoError(t, err)
	require.NoError(t, x.Swap(ctx, editEnv), "done already")
	require.NoError(t, x.Drop(ctx, editEnv))
	require.NoError(t, x.Drop(ctx, editEnv))
	w.lake.CollectGarbage()
	for _, f := range view.Files {
		_, err := w.fs.Stat(f.Path)
		require.NoError(t, err, "somebody reads it")
	}
	view.Release()
	w.lake.CollectGarbage()
	for _, f := range view.Files {
		_, err := w.fs.Stat(f.Path)
		require.Error(t, err)
	}
	// The sink goes on where the new table stands, and a second backfill has a folder.
	require.NoError(t, fill(ctx, own, "c", 8, 12))
	require.ElementsMatch(t, marks("a", 0, 3, "b", 4, 9, "c", 10, 12), w.column(edits, "_id"))
	w.requireCounted()
	require.NoError(t, backfillOnce(ctx, w.tables))
	require.NoError(t, x.Drop(ctx, editEnv))
	require.ElementsMatch(t, marks("a", 0, 3, "b", 4, 9), w.column(edits, "_id"))
	list, err := w.lake.List(ctx)
	require.NoError(t, err)
	require.Equal(t, []lake.Ident{edits}, list)
	require.NoError(t, w.lake.Check(ctx, iceberg.CheckOptions{}, func(f iceberg.CheckedFile) error {
		require.False(t, f.Bad(), "%+v", f)
		return nil
	}))
}

func TestShadowBesideATable(t *testing.T) {
	w := newWorld(t)
	w.tables = New(w.lake, streamLog{w.log}, quiet)
	own := &Settings{Table: "edits", tables: w.tables}
	require.NoError(t, fill(t.Context(), own, "a", 0, 9))
	for name, want := range map[string]string{"edits": "the sink's own", "Other": "no name of a table", "_x": "no name of a table", "edits__old": "those of backfills"} {
		_, err := own.Shadow("edits", name)
		require.ErrorContains(t, err, want)
	}
	x, err := own.Shadow("edits", "other")
	require.NoError(t, err)
	there, err := x.Exists(t.Context(), editEnv)
	require.NoError(t, err)
	require.False(t, there)
	require.NoError(t, x.Make(t.Context(), editEnv, event.Positions{life: {0: 4}}, func(event.Position) bool { return true }))
	there, err = x.Exists(t.Context(), editEnv)
	require.NoError(t, err)
	require.True(t, there)
	require.NoError(t, fill(t.Context(), x, "b", 4, 6))
	require.ElementsMatch(t, marks("b", 4, 6), w.column(lake.Ident{Namespace: "p", Name: "other"}, "_id"))
	require.ElementsMatch(t, marks("a", 0, 9), w.column(edits, "_id"))
	require.Error(t, x.Swap(t.Context(), editEnv))
}

// Power is cut at every sync of a backfill: done again it comes to the same, and readers
// have the old rows or the new ones.
func TestPowerCutsOfABackfill(t *testing.T) {
	w := newWorld(t)
	w.tables = New(w.lake, streamLog{w.log}, quiet)
	for i := range 3 {
		require.NoError(t, fill(t.Context(), &Settings{Table: "edits", tables: w.tables}, "a", i*3, i*3+2))
	}
	type cut struct {
		fs   *vfs.Memory
		rows *iceberg.MemoryCatalog
	}
	var cuts []cut
	w.fs.(*vfs.Memory).OnSync(func(n int, _ vfs.Op, _ string) {
		rows := w.rows.Clone() // first: a row that is there has its files on disk already
		cuts = append(cuts, cut{w.fs.(*vfs.Memory).CrashClone(uint64(n)), rows})
	})
	require.NoError(t, backfillOnce(t.Context(), w.tables))
	x, err := (&Settings{tables: w.tables}).Shadow("edits", "")
	require.NoError(t, err)
	require.NoError(t, x.Drop(t.Context(), editEnv))
	w.fs.(*vfs.Memory).OnSync(nil)
	require.Greater(t, len(cuts), 15)
	before, after := marks("a", 0, 8), marks("a", 0, 3, "b", 4, 9)
	for i, c := range cuts {
		v := &world{t: t, fs: c.fs, rows: c.rows, cfg: w.cfg, log: w.log}
		v.open()
		v.tables = New(v.lake, streamLog{v.log}, quiet)
		if got := v.column(edits, "_id"); len(got) == len(before) {
			require.ElementsMatch(t, before, got, "cut %d", i)
		} else {
			require.ElementsMatch(t, after, got, "cut %d", i)
		}
		_, err := v.lake.CollectOrphans(t.Context())
		require.NoError(t, err)
		v.lake.CollectGarbage()
		if got := v.column(edits, "_id"); len(got) == len(before) {
			require.NoError(t, backfillOnce(t.Context(), v.tables), "cut %d", i)
		}
		x, err := (&Settings{tables: v.tables}).Shadow("edits", "")
		require.NoError(t, err)
		require.NoError(t, x.Drop(t.Context(), editEnv), "cut %d", i)
		require.ElementsMatch(t, after, v.column(edits, "_id"), "cut %d", i)
		v.requireCounted()
		list, err := v.lake.List(t.Context())
		require.NoError(t, err)
		require.Equal(t, []lake.Ident{edits}, list)
		require.NoError(t, v.lake.Close())
	}
}
