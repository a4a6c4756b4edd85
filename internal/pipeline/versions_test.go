package pipeline

import (
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
)

// A version that begins before an older one ends all that are older there: the next
// events are not theirs.
func TestVersionOfAPlace(t *testing.T) {
	inc := event.Incarnation{1}
	from := func(offset int64) version { return version{From: event.Positions{inc: {0: offset}}} }
	s := &state{Versions: []version{{}, from(9), from(276), from(59), from(234)}}
	for _, c := range []struct{ offset, version, end int64 }{
		{0, 0, 9}, {8, 0, 9}, {9, 1, 59}, {58, 1, 59}, {59, 3, 234}, {233, 3, 234}, {234, 4, -1}, {300, 4, -1},
	} {
		v, end := s.at(inc, 0, c.offset)
		require.EqualValues(t, c.version, v, c.offset)
		require.Equal(t, c.end, end, c.offset)
	}
	v, end := s.at(inc, 1, 0)
	require.Equal(t, 4, v, "a partition that nobody has read yet")
	require.EqualValues(t, -1, end)
}
