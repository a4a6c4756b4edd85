package dedupe

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/vfs"
)

// BenchmarkJudge is one event with an id of its own, from the log to its verdict.
func BenchmarkJudge(b *testing.B) {
	for name, share := range map[string]int{"new": 0, "all sent twice": 2} {
		b.Run(name, func(b *testing.B) {
			l := &lane{id: testLane, judge: New(DefaultConfig(), Deps{})}
			l.index = newIndex(vfs.OS(), b.TempDir(), DefaultConfig().shape(1), testLane, testLife, quiet)
			var raws [][]byte
			const events, batches = 500, 400
			var bld recordbatch.Builder
			for i := range batches {
				bld.Reset(time.UnixMilli(1))
				for j := range events {
					bld.AppendEvent(&event.Event{ID: fmt.Appendf(nil, "0198c0de-0000-7000-8000-%012d", i*events+j), Source: []byte("/shop"), Type: []byte("page"),
						ContentType: []byte("application/json"), Data: fmt.Appendf(nil, `{"user":"u%d","url":"https://example.org/page/%d","ms":%d,"agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36","country":"KR","ok":true,"text":"abcdefghijklmnopqrstuvwxyz"}`, i, j, i*j)})
				}
				raws = append(raws, bld.Finish(nil, recordbatch.Snappy))
			}
			b.ReportAllocs()
			n, round, offset := 0, 0, int64(0)
			for b.Loop() {
				raw := raws[n%batches]
				recordbatch.SetBaseOffset(raw, offset)
				v := finding{}
				l.asks = l.asks[:0]
				err := l.dec.Each(raw, func(e *event.Event) error {
					k := l.hash.key(e)
					if share == 0 {
						k.Hi += uint64(round) << 32 // another id each time
						k.Lo += uint64(round)
					}
					l.asks = append(l.asks, ask{k, l.hash.digest(e), e.Offset, 1})
					if len(l.asks) < atOnce {
						return nil
					}
					return l.judgeAll(&v)
				})
				if err == nil {
					err = l.judgeAll(&v)
				}
				if err != nil {
					b.Fatal(err)
				}
				offset += events
				if n++; n%batches == 0 {
					round++
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(offset), "ns/event")
			l.index.close()
		})
	}
}

// BenchmarkIndex is one new id among so many.
func BenchmarkIndex(b *testing.B) {
	for _, n := range []int{100_000, 4_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			x := newIndex(vfs.OS(), b.TempDir(), DefaultConfig().shape(1), testLane, testLife, quiet)
			rng := rand.New(rand.NewPCG(1, 1))
			o := int64(0)
			asks := make([]ask, 0, atOnce)
			put := func() {
				asks = append(asks, ask{Key{rng.Uint64(), rng.Uint64()}, 1, o, o / 1000})
				if o++; len(asks) < atOnce {
					return
				}
				x.warm(asks)
				for _, a := range asks {
					if _, err := x.judge(a.k, a.digest, a.offset, a.clock); err != nil {
						b.Fatal(err)
					}
				}
				asks = asks[:0]
			}
			for range n {
				put()
			}
			b.ReportAllocs()
			for b.Loop() {
				put()
			}
			x.close()
		})
	}
}
