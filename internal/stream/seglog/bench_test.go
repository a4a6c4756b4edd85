package seglog

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/stream"
	"naru/internal/vfs"
)

// benchBatch is a batch of about 40 KB.
func benchBatch() []byte {
	var b recordbatch.Builder
	b.Reset(time.UnixMilli(1_767_225_600_000))
	for i := range 100 {
		b.AppendEvent(&event.Event{ID: fmt.Appendf(nil, "%d", i), Source: []byte("/b"), Type: []byte("t"), Data: []byte(strings.Repeat("x", 330))})
	}
	return b.Finish(nil, recordbatch.None)
}

func benchLog(b *testing.B) *Log {
	cfg := DefaultConfig()
	cfg.Reserve = 0
	cfg.RetainBytes = 512 * quantity.MiB // so that segments are recycled
	cfg.Recycle = 512 * quantity.MiB
	return openLog(b, vfs.OS(), b.TempDir(), cfg)
}

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 8, 32} {
		b.Run(fmt.Sprintf("goroutines=%d", n), func(b *testing.B) {
			l := benchLog(b)
			defer l.Close()
			raw := benchBatch()
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			left := make(chan struct{}, 1<<20)
			var wg sync.WaitGroup
			b.ResetTimer()
			for range n {
				own := append([]byte(nil), raw...)
				wg.Go(func() {
					for range left {
						if _, err := l.Append(context.Background(), stream.Write{Stream: "events", Batch: own, Count: 100}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			for range b.N {
				left <- struct{}{}
			}
			close(left)
			wg.Wait()
			s := l.Stats()
			b.ReportMetric(float64(s.Frames)/float64(s.Syncs), "frames/sync")
		})
	}
}

func BenchmarkRead(b *testing.B) {
	l := benchLog(b)
	defer l.Close()
	raw := benchBatch()
	const batches = 2000
	for range batches / 10 {
		writes := make([]stream.Write, 10)
		for i := range writes {
			writes[i] = stream.Write{Stream: "events", Batch: append([]byte(nil), raw...), Count: 100}
		}
		if _, err := l.Append(context.Background(), writes...); err != nil {
			b.Fatal(err)
		}
	}
	benchRead(b, l, batches)
}

// Requests of 16 MB: every read comes to the same frames again.
func BenchmarkReadLargeFrames(b *testing.B) {
	l := benchLog(b)
	defer l.Close()
	raw := benchBatch()
	const batches = 800
	for range batches / 400 {
		writes := make([]stream.Write, 400)
		for i := range writes {
			writes[i] = stream.Write{Stream: "events", Batch: append([]byte(nil), raw...), Count: 100}
		}
		if _, err := l.Append(context.Background(), writes...); err != nil {
			b.Fatal(err)
		}
	}
	benchRead(b, l, batches)
}

func benchRead(b *testing.B, l *Log, batches int) {
	from, bytes := event.Position{}, 0
	b.ReportAllocs()
	for b.Loop() {
		batch, err := l.Read(context.Background(), "events", from, 1<<20)
		if err != nil {
			b.Fatal(err)
		}
		bytes += batch.Size()
		if from = batch.End(); from.Offset == int64(batches)*100 {
			from = event.Position{}
		}
	}
	b.ReportMetric(float64(bytes)/1e6/b.Elapsed().Seconds(), "MB/s")
}

func BenchmarkOpen(b *testing.B) {
	l := benchLog(b)
	raw := benchBatch()
	for range 3000 { // 120 MB in the last segment
		if _, err := l.Append(context.Background(), stream.Write{Stream: "events", Batch: raw, Count: 100}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
		var err error
		if l, err = Open(l.fs, l.dir, l.cfg, nil); err != nil {
			b.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}
