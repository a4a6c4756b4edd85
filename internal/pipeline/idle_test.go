package pipeline

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/quantity"
	"naru/internal/stream"
	"naru/internal/stream/memory"
)

// asked counts the questions to a log.
type asked struct {
	stream.Log
	n int
}

func (a *asked) Stat(ctx context.Context, name string) (stream.Stat, error) {
	a.n++
	return a.Log.Stat(ctx, name)
}

func (a *asked) Commit(ctx context.Context, w []stream.Write, reader string, at stream.Progress) error {
	a.n++
	return a.Log.Commit(ctx, w, reader, at)
}

// A pipeline that has nothing to do does nothing, and knows at once what comes: events,
// partitions, and that retention has dropped what it has not committed.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &asked{Log: memory.New()}
		s := newStore(false)
		cfg := testConfig()
		cfg.CommitInterval = quantity.Duration(time.Second)
		p := New("default/events", "events", cfg, log, s.open, quiet)
		appendEvents(t, log, "events", 0, 10)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		time.Sleep(time.Minute)
		s.want(t, 10)
		require.EqualValues(t, 1, p.Status().Commits)

		log.n = 0
		time.Sleep(24 * time.Hour)
		require.Zero(t, log.n, "it has asked the log")
		require.Equal(t, 1, s.calls["commit"], "it has bothered the sink")

		time.Sleep(time.Second / 4) // commits keep to their beat
		appendEvents(t, log, "events", 10, 10)
		time.Sleep(time.Second / 2)
		s.want(t, 10)
		appendEvents(t, log, "events", 20, 10)
		time.Sleep(time.Second / 2)
		s.want(t, 30)
		require.EqualValues(t, 2, p.Status().Commits)

		appendSparse(t, log, 7, 30, 5, 0)
		time.Sleep(time.Second)
		s.want(t, 35)
		appendEvents(t, log, "events", 35, 5)
		synctest.Wait()
		log.Log.(*memory.Log).Trim("events", 0, 35)
		synctest.Wait()
		s.want(t, 40) // with no second gone by
		require.EqualValues(t, 40, p.Status().Progress.Counts.Written)
		cancel()
		require.NoError(t, <-ended)
	})
}

// A pipeline whose sink could not be opened is well again once it is, although there
// is nothing to bring.
func TestIdleIsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, s := memory.New(), newStore(false)
		appendEvents(t, log, "events", 0, 10)
		_, stop := runSet(t, log, s.open)
		time.Sleep(time.Second)
		require.NoError(t, stop())
		s.fail = func(call string, n int) error {
			if call == "open" && n < 4 {
				return errors.New("not there yet")
			}
			return nil
		}
		set, stop := runSet(t, log, s.open)
		time.Sleep(time.Second)
		st := set.Status()[0]
		require.EqualValues(t, 2, st.Errors)
		require.Empty(t, st.LastError)
		require.NoError(t, stop())
	})
}
