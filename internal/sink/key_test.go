package sink

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
)

func TestKey(t *testing.T) {
	at := event.Position{Incarnation: event.Incarnation{0x8f, 15: 0x2a}, Partition: 3, Offset: 1742}
	require.Equal(t, "a:8f00000000000000000000000000002a/3/1742/1", string(AppendKey([]byte("a:"), at, 1)))
	at.Partition, at.Offset = math.MaxInt32, math.MaxInt64
	require.LessOrEqual(t, len(AppendKey(nil, at, math.MaxInt32)), 74)
}
