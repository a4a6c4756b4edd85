package table

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/lake/iceberg"
	"naru/internal/recordbatch"
	"naru/internal/sink/sinktest"
	"naru/internal/stream"
	"naru/internal/vfs"
)

// BenchmarkSink is an event's way from the log's batch into a committed table;
// a commit comes after every 200,000 events.
func BenchmarkSink(b *testing.B) {
	l, err := iceberg.Open(b.Context(), iceberg.DefaultConfig(), vfs.OS(), b.TempDir(), quiet)
	require.NoError(b, err)
	defer func() { require.NoError(b, l.Close()) }()
	s, err := New(l, &fakeLog{stat: stream.Stat{}}, quiet).Open(b.Context(), sinktest.Stream)
	require.NoError(b, err)
	const n = 1000
	var specs []sinktest.Spec
	for i := range n {
		specs = append(specs, sinktest.Spec{ID: fmt.Sprintf("0198f2a0-0000-7000-8000-%012d", i), Type: []string{"page_view", "click"}[i%2],
			Data: fmt.Sprintf(`{"user":"u%d","url":"https://example.org/page/%d","ms":%d,"ok":true,"country":"KR","agent":"Mozilla/5.0 (X11; Linux x86_64)","score":%d.5}`, i%100, i, i*7, i)})
	}
	batch := sinktest.Batch(life, 0, 0, specs...)
	events := int64(0)
	for b.Loop() {
		batch.From, batch.Next = events, events
		for _, raw := range batch.Raw {
			head, err := recordbatch.ReadHead(raw)
			require.NoError(b, err)
			recordbatch.SetBaseOffset(raw, batch.Next)
			batch.Next += int64(head.Count)
		}
		require.NoError(b, s.Write(b.Context(), batch))
		if events = batch.Next; events%200_000 == 0 {
			_, err := s.Commit(b.Context())
			require.NoError(b, err)
		}
	}
	_, err = s.Commit(b.Context())
	require.NoError(b, err)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(events), "ns/event")
}
