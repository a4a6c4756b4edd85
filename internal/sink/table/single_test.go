package table

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/sink"
	"naru/internal/sink/sinktest"
	"naru/internal/stream"
)

// A table that is not there is filled from the oldest event that the log has, if rows
// were ever written: else the pipeline begins where it is told to.
func TestSingleResumes(t *testing.T) {
	w := newWorld(t)
	w.log.stat.Stream = "events"
	w.log.stat.Ranges = []stream.Range{{Incarnation: life, Start: 3, End: 9}}
	tables := pipelineLog{w.log}
	w.tables.log = tables
	env := sink.Env{Pipeline: "edits", Stream: "events", Reader: "pipeline/edits/table", Logger: quiet}
	open := func() *Single {
		s, err := (&Settings{Table: "own", tables: w.tables}).Open(t.Context(), env)
		require.NoError(t, err)
		return s.(*Single)
	}
	s := open()
	at, err := s.Resume(t.Context(), "events")
	require.NoError(t, err)
	require.Nil(t, at)
	b := sinktest.Batch(life, 0, 6, typed(0, "a", "a")...)
	b.Stream = "events"
	require.NoError(t, s.Write(t.Context(), b))
	done, err := s.Drain(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Positions{life: {0: 8}}, done)
	require.NoError(t, s.Close())

	w.log.written = 2
	s = open()
	at, err = s.Resume(t.Context(), "events")
	require.NoError(t, err)
	require.Nil(t, at, "it has its rows")
	require.NoError(t, s.Close())

	require.NoError(t, w.rows.Drop(t.Context(), s.to.ident))
	w.restart()
	w.tables.log = tables
	s = open()
	at, err = s.Resume(t.Context(), "events")
	require.NoError(t, err)
	require.Equal(t, event.Positions{life: {0: 3}}, at, "dropped: from the oldest that is left")
	require.NoError(t, s.Close())
}

// A row says where the event stands that it was made of, also where it comes from
// elsewhere: positions are those of the batch.
func TestSingleNamesTheEvent(t *testing.T) {
	w := newWorld(t)
	w.log.stat.Stream = "events"
	w.tables.log = pipelineLog{w.log}
	opened, err := (&Settings{Table: "own", tables: w.tables}).Open(t.Context(), sink.Env{Pipeline: "edits", Stream: "events", Reader: "pipeline/edits/table", Logger: quiet})
	require.NoError(t, err)
	s := opened.(*Single)
	b := sinktest.Batch(life, 0, 6, typed(0, "a")...)
	b.Stream, b.Partition = "events", 1<<20
	var dec recordbatch.Decoder
	rows := []event.Event{}
	require.NoError(t, dec.EachIn(b, func(e *event.Event) error {
		row := *e
		row.Origin = &event.Position{Incarnation: life, Partition: 3, Offset: 41}
		rows = append(rows, row)
		return nil
	}))
	b.Raw, b.Rows = nil, event.RowsOf(rows...)
	require.NoError(t, s.Write(t.Context(), b))
	done, err := s.Drain(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Positions{life: {1 << 20: 7}}, done)
	require.NoError(t, s.Close())
	require.Equal(t, []any{int32(3)}, w.column(s.to.ident, "_partition"))
	require.Equal(t, []any{int64(41)}, w.column(s.to.ident, "_offset"))
}

// pipelineLog has one stream, so that a pipeline's namespace is free.
type pipelineLog struct{ *fakeLog }

func (l pipelineLog) Stat(ctx context.Context, name string) (stream.Stat, error) {
	if name != l.stat.Stream {
		return stream.Stat{}, stream.ErrNoStream
	}
	return l.stat, nil
}
