package table

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/quantity"
	"naru/internal/sink/sinktest"
)

func TestMemoryForcesCommit(t *testing.T) {
	w := newWorld(t)
	w.cfg.Memory = quantity.MiB
	w.cfg.CommitRate = 0.2
	w.restart()
	require.True(t, w.lake.Rate.Take(lake.Ident{}, time.Now(), time.Now())) // none left
	s := w.sink()
	long := make([]byte, 1<<20)
	for i := range long {
		long[i] = 'a' + byte(i*i%26)
	}
	var specs []sinktest.Spec
	for i := range 8 {
		specs = append(specs, sinktest.Spec{ID: fmt.Sprintf("e%d", i), Type: "big", Data: `{"x":"` + string(long) + `"}`})
	}
	b := sinktest.Batch(life, 0, 0, specs...)
	require.NoError(t, s.Write(t.Context(), b))
	require.Greater(t, s.(*Sink).PendingBytes(), int64(64<<20))
	done, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Positions{life: {0: b.Next}}, done)
	require.Zero(t, s.(*Sink).memory)
	require.Zero(t, s.(*Sink).PendingBytes())
	require.NoError(t, s.Close())
	w.requireIDs(numbers(8))
}
