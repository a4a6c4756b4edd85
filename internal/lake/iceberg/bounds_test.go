package iceberg

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/lake"
	"naru/internal/lake/columnar"
)

// A view's files carry the bounds that were committed, whether the list is carried
// on from commit to commit or read from manifests after a restart.
func TestViewHasBounds(t *testing.T) {
	w := newWorld(t)
	h := w.lake.Table(views)
	for i := range int64(3) {
		s := load(t, h)
		c := work(t, h, s, 1, i+1)
		c.Files[0].Stats[columnar.TimeID] = columnar.ColumnStats{Size: 4, Values: 1,
			Lower: binary.LittleEndian.AppendUint64(nil, uint64(i)), Upper: binary.LittleEndian.AppendUint64(nil, uint64(i+10))}
		_, err := h.Commit(t.Context(), c)
		require.NoError(t, err)
	}
	check := func() {
		v := w.view()
		defer v.Release()
		found := map[byte]bool{}
		for _, f := range v.Files {
			lower, upper := f.Bounds.Get(columnar.TimeID)
			require.Len(t, lower.Value, 8)
			require.Equal(t, lower.Value[0]+10, upper.Value[0])
			found[lower.Value[0]] = true
			none, _ := f.Bounds.Get(99)
			require.Equal(t, lake.Bound{}, none)
		}
		require.Equal(t, map[byte]bool{0: true, 1: true, 2: true}, found)
	}
	check()
	w.kill()
	w.open()
	check()
}
