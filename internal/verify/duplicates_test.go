package verify

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/dedupe"
	"naru/internal/event"
	"naru/internal/quantity"
	"naru/internal/stream/seglog"
)

// judging lets a judge work on the log; stop ends it.
func (w *world) judging() (stop func()) {
	w.t.Helper()
	j := dedupe.New(dedupe.DefaultConfig(), dedupe.Deps{FS: w.fs, Dir: w.dir + "/dedupe", Log: w.log, Logger: quiet})
	require.NoError(w.t, j.Open(w.t.Context()))
	w.reading = j.Log()
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	return func() {
		cancel()
		require.NoError(w.t, <-done)
	}
}

// twice sends ten events, and the same ones again.
func (w *world) twice() {
	w.t.Helper()
	before := w.ids
	w.send("events", each(10, "a", "b")...)
	w.ids = before
	w.send("events", each(10, "a", "b")...)
}

// Duplicates are a term of their own, below the watermark; behind it they are not
// yet written.
func TestDuplicatesHaveNoRow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stop := w.judging()
	w.twice()
	w.load()
	w.twice()
	w.loadStream("events", false) // the tables lead
	stop()
	s := w.clean().Streams[0]
	require.Equal(t, [...]int64{40, 20, 10, 10}, [...]int64{s.Acknowledged, s.Written, s.Duplicates, s.NotYetWritten})
	w.open()
	stop = w.judging()
	w.load()
	stop()
	s = w.clean().Streams[0]
	require.Equal(t, [...]int64{40, 20, 20, 0}, [...]int64{s.Acknowledged, s.Written, s.Duplicates, s.NotYetWritten})
	require.Len(t, w.clean().Streams, 1, "verdicts are no stream of anybody's")
}

// A row of an event that was judged to be a duplicate is named.
func TestRowOfADuplicate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stop := w.judging()
	w.twice()
	w.load()
	stop()
	w.reading = nil // whoever loads now does not know of verdicts
	w.close()
	w.open()
	stop = w.judging()
	w.twice()
	stop()
	w.close()
	w.open()
	stop = w.judging() // all is judged when it has stopped
	_, err := w.reading.Read(t.Context(), "events", event.Position{Incarnation: w.incarnation(), Offset: 30}, 1<<20)
	require.NoError(t, err)
	stop()
	w.reading = nil
	w.load()
	kinds := map[Kind]int64{}
	for _, d := range w.verify(Options{}).Differences {
		kinds[d.Kind] += d.Count
	}
	require.EqualValues(t, 10, kinds[Judged], "%v", kinds)
}

// Where a repair has lost verdicts, duplicates look like events that are missing, and
// verify says why.
func TestVerdictsThatARepairLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Segment = 32 * quantity.KiB
	w.close()
	w.open()
	stop := w.judging()
	w.twice()
	w.load()
	for len(w.segments()) < 3 {
		w.send("other", padded(20)...)
		w.load()
	}
	stop()
	w.close()
	path := filepath.Join(w.logDir, w.segments()[0])
	at := int64(0)
	require.NoError(t, seglog.Frames(w.fs, path, func(f seglog.FrameInfo) error {
		if at == 0 && slices.ContainsFunc(f.Sections, func(s string) bool { return strings.HasPrefix(s, dedupe.StreamOf("events")+"/0: offsets") }) {
			at = f.Pos // the footer tells of it, too
		}
		return nil
	}))
	require.NotZero(t, at)
	f, err := w.fs.OpenReadWrite(path)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{0xff}, at+60)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = seglog.Repair(w.fs, w.logDir, w.cfg, quiet)
	require.NoError(t, err)
	w.open()
	r := w.wrong(false, "counts (-10)", "missing events.a 10-10,12-12,14-14,16-16,18-18", "missing events.b 11-11,13-13,15-15,17-17,19-19")
	require.True(t, slices.ContainsFunc(r.Explained, func(d Difference) bool {
		return d.Kind == Lost && strings.Contains(d.Detail, "given up verdicts on duplicates")
	}), "%+v", r.Explained)
}

// Retention takes events and the verdicts on them: as many as the watermark counts
// have no row, and nothing is missing.
func TestDuplicatesThatRetentionTook(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Segment = 32 * quantity.KiB
	w.cfg.RetainBytes = 3 * w.cfg.Segment
	w.close()
	w.open()
	stop := w.judging()
	sent, start := int64(0), int64(0)
	for start <= 100 {
		before, events := w.ids, padded(20)
		w.send("events", events...)
		w.ids = before
		w.send("events", events...)
		sent += 40
		w.load()
		st, err := w.log.Stat(t.Context(), "events")
		require.NoError(t, err)
		start = st.Ranges[0].Start
	}
	stop()
	s := w.clean().Streams[0]
	require.Equal(t, [...]int64{sent, sent / 2, sent / 2, 0}, [...]int64{s.Acknowledged, s.Written, s.Duplicates, s.NotYetWritten})
	require.Less(t, s.InLog, sent)
}
