package memory_test

import (
	"testing"

	"naru/internal/sink"
	"naru/internal/sink/memory"
	"naru/internal/sink/sinktest"
)

func TestConformance(t *testing.T) {
	sinktest.Run(t, func(*testing.T) sinktest.Harness {
		target := memory.NewTarget()
		return sinktest.Harness{
			Exact: true,
			Open: func(t *testing.T) sink.Sink {
				s, err := target.Open(t.Context(), sinktest.Stream)
				if err != nil {
					t.Fatal(err)
				}
				return s
			},
			IDs: func(*testing.T) (ids []string) {
				for _, e := range target.Events(sinktest.Stream) {
					ids = append(ids, e.ID)
				}
				return ids
			},
		}
	})
}
