package table

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
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

// pipelineLog has one stream, so that a pipeline's namespace is free.
type pipelineLog struct{ *fakeLog }

func (l pipelineLog) Stat(ctx context.Context, name string) (stream.Stat, error) {
	if name != l.stat.Stream {
		return stream.Stat{}, stream.ErrNoStream
	}
	return l.stat, nil
}
