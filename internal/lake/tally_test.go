package lake

import (
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
)

// The sums are stored: they are the same for ever.
func TestTally(t *testing.T) {
	var a, b Tally
	inc := event.Incarnation{1, 2, 3, 15: 9}
	places := []event.Position{{Incarnation: inc, Offset: 1}, {Incarnation: inc, Offset: 2}, {Incarnation: inc, Partition: 3, Offset: 1 << 40}, {Incarnation: inc, Offset: 1}}
	for i := range places {
		a.Add(places[i])
		b.Add(places[len(places)-1-i])
	}
	require.Equal(t, a, b, "in any order")
	require.Equal(t, "4 3e08052d17c27674", a.String())
	b.Add(places[0])
	require.NotEqual(t, a.Places, b.Places)
	require.Equal(t, b, a.Plus(Tally{1, PlaceHash(places[0])}))
	back, err := ParseTally(b.String())
	require.NoError(t, err)
	require.Equal(t, b, back)
	for _, wrong := range []string{"", "4", "4 12", "x 0000000000000000", "4 000000000000000g", "4  0000000000000000", "4 0000000000000000 "} {
		_, err := ParseTally(wrong)
		require.Error(t, err, "%q", wrong)
	}
	seen := map[uint64]bool{}
	for p := range int32(4) {
		for o := range int64(1000) {
			seen[PlaceHash(event.Position{Incarnation: inc, Partition: p, Offset: o})] = true
		}
	}
	require.Len(t, seen, 4000)
}
