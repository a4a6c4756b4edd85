package memory_test

import (
	"testing"

	"naru/internal/stream"
	"naru/internal/stream/memory"
	"naru/internal/stream/streamtest"
)

func TestConformance(t *testing.T) {
	streamtest.Run(t, streamtest.Driver{
		Open: func(*testing.T) stream.Log { return memory.New() },
		Trim: func(_ *testing.T, l stream.Log, name string) { l.(*memory.Log).Trim(name, 0, 50) },
		Cut: func(_ *testing.T, l stream.Log) stream.Log {
			l.(*memory.Log).Cut()
			return l
		},
	})
}
