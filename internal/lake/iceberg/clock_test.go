package iceberg

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A table's last commit may lie in the future, as when the clock was wrong and
// has been set back. Commits go on at once, those that change columns too, and
// the table's history keeps its order.
func TestClockSetBack(t *testing.T) {
	w := newWorld(t)
	h := w.lake.Table(views)
	w.lake.now = func() time.Time { return time.Now().Add(20 * 365 * 24 * time.Hour) }
	w.add(3)
	w.lake.now = time.Now
	w.add(2)
	s := load(t, h)
	next := withColumns(s.Schema, "late")
	c := work(t, h, s, 1, 6)
	c.Schema = next
	s, err := h.Commit(t.Context(), c)
	require.NoError(t, err)
	require.True(t, s.Schema.Equal(next))
	w.add(4)
	w.kill()
	w.open() // the metadata is read from its file
	v := w.view()
	defer v.Release()
	require.EqualValues(t, 10, v.Rows)
	last := int64(0)
	for _, snap := range load(t, w.lake.Table(views)).head.meta.Snapshots() {
		require.GreaterOrEqual(t, snap.TimestampMs, last)
		last = snap.TimestampMs
	}
}
