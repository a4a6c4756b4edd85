package verify

import (
	"context"
	"strings"
	"testing"

	icetable "github.com/apache/iceberg-go/table"
	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/iceberg"
	"naru/internal/recordbatch"
	"naru/internal/sink"
	"naru/internal/sink/table"
)

// own is the table of a pipeline.
const own = "edits.own"

// fill brings the events of a stream to the table of a pipeline, in commits of so many
// events each: those of type b are filtered, those of type c have two rows.
func (w *world) fill(commits ...int) {
	w.t.Helper()
	ctx := w.t.Context()
	cfg := table.New(w.lake, w.log, quiet).Kind().Settings().(*table.Settings)
	cfg.Table = "own"
	s, err := cfg.Open(ctx, sink.Env{Pipeline: "edits", Name: "table", Stream: "events", Reader: "pipeline/edits/table", Logger: quiet})
	require.NoError(w.t, err)
	defer s.Close()
	state, err := w.lake.Table(ident(own)).Load(ctx)
	require.NoError(w.t, err)
	inc := w.incarnation()
	off, _ := state.Positions.Get(inc, 0)
	for _, n := range commits {
		b, err := w.log.Read(ctx, "events", event.Position{Incarnation: inc, Offset: off}, 1<<20)
		require.NoError(w.t, err)
		out := &event.Batch{Stream: "events", Incarnation: inc, From: off, Next: off + int64(n), Rows: &event.Rows{}}
		var dec recordbatch.Decoder
		require.NoError(w.t, dec.EachIn(b, func(e *event.Event) error {
			for row := range map[string]int32{"a": 1, "c": 2}[string(e.Type)] {
				if e.Offset >= off && e.Offset < out.Next {
					x := *e
					x.ID, x.Source, x.Type, x.Data, x.Row = []byte("i"), []byte("/s"), []byte("t"), []byte(`{"n":1}`), row
					out.Rows.Add(x)
				}
			}
			return nil
		}))
		require.NoError(w.t, s.Write(ctx, out))
		_, err = s.(interface {
			Drain(context.Context) (event.Positions, error)
		}).Drain(ctx)
		require.NoError(w.t, err)
		off = out.Next
	}
}

// filledWorld has a pipeline's table of six files: of the events 0, 2, 3 (two rows), 4, 6
// and 7 (two rows).
func filledWorld(t *testing.T) (*world, []lake.File) {
	w := newWorld(t)
	w.send("events", each(8, "a", "b", "a", "c")...)
	w.load()
	w.fill(1, 2, 1, 1, 2, 1)
	files := w.files(own)
	require.Len(t, files, 6)
	byOffset := map[int64]lake.File{}
	for _, f := range files {
		byOffset[w.offsets(f.Path)[0]] = f
	}
	return w, []lake.File{byOffset[0], byOffset[2], byOffset[3], byOffset[4], byOffset[6], byOffset[7]}
}

func is(files ...lake.File) func(string) bool {
	return func(p string) bool {
		for _, f := range files {
			if strings.HasSuffix(p, f.Path) {
				return true
			}
		}
		return false
	}
}

// A pipeline's table has the rows that its commits say.
func TestPipelineTable(t *testing.T) {
	t.Parallel()
	w, _ := filledWorld(t)
	r := w.clean()
	require.Equal(t, []Table{{Table: own, Rows: 8, Files: 6}}, r.Pipelines)
	require.Len(t, r.Streams, 1)
	w.open()
	w.send("events", each(2, "a")...)
	w.load()
	w.fill(2)
	require.EqualValues(t, 10, w.clean().Pipelines[0].Rows)
}

func TestPipelineTableBroken(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		harm func(w *world, files []lake.File)
		want []string
	}{
		"a row is doubled":       {func(w *world, f []lake.File) { w.snapshot(own, true, nil, f[1].Path) }, []string{"doubled edits.own 2-2"}},
		"rows are doubled":       {func(w *world, f []lake.File) { w.snapshot(own, true, nil, f[2].Path, f[5].Path) }, []string{"doubled edits.own (4)"}},
		"somebody doubles a row": {func(w *world, f []lake.File) { w.snapshot(own, false, nil, f[1].Path) }, []string{"doubled edits.own 2-2"}},
		"a row is missing":       {func(w *world, f []lake.File) { w.snapshot(own, true, is(f[3])) }, []string{"missing edits.own 4-4"}},
		"rows are missing":       {func(w *world, f []lake.File) { w.snapshot(own, true, is(f[0], f[5])) }, []string{"missing edits.own (3)"}},
		"others in their place":  {func(w *world, f []lake.File) { w.snapshot(own, true, is(f[0]), f[1].Path) }, []string{"counts edits.own"}},
		"a compaction loses one": {func(w *world, f []lake.File) {
			w.operation = icetable.OpReplace
			w.snapshot(own, false, is(f[0]))
		}, []string{"missing edits.own 0-0"}},
		"rows behind the positions": {func(w *world, _ []lake.File) {
			w.send("events", each(1, "b")...)
			w.load()
			w.slip(8)
		}, []string{"unclaimed edits.own 8-8"}},
		"rows of no event": {func(w *world, _ []lake.File) { w.slip(11) }, []string{"ahead edits.own 11-11"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, files := filledWorld(t)
			c.harm(w, files)
			w.wrong(false, c.want...)
		})
	}
}

// slip commits a row of an event, and counts it, under the positions that the table has.
func (w *world) slip(at int64) {
	w.t.Helper()
	e := &event.Event{ID: []byte("x"), Source: []byte("/s"), Type: []byte("t"), Data: []byte(`{"n":1}`), Offset: at, ReceivedAt: received, Time: received}
	files := w.build(own, w.incarnation(), e)
	h := w.lake.Table(ident(own))
	s, err := h.Load(w.t.Context())
	require.NoError(w.t, err)
	rows := &lake.Tally{}
	rows.Add(event.Position{Incarnation: w.incarnation(), Offset: at})
	_, err = h.Commit(w.t.Context(), iceberg.Commit{Base: s, Schema: s.Schema, Positions: s.Positions, Files: files, Rows: rows})
	require.NoError(w.t, err)
}

// What another engine has removed, and says so, is no fault; nor are rows from before
// they were counted.
func TestPipelineTableExplained(t *testing.T) {
	t.Parallel()
	w, files := filledWorld(t)
	w.snapshot(own, false, is(files[0], files[2]))
	r := w.clean()
	require.Equal(t, []string{"removed edits.own (3)"}, words(r.Explained))

	w, _ = filledWorld(t)
	more := w.build(own, w.incarnation(), &event.Event{ID: []byte("x"), Source: []byte("/s"), Type: []byte("t"), Data: []byte(`{"n":1}`), Offset: 1, ReceivedAt: received, Time: received})
	w.adopt(own, more...) // as an older naru does
	require.Contains(t, w.clean().Pipelines[0].Note, "is not known")
}
