package columnar

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"testing"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/vfs"
)

// corpus reads the events of the file that NARU_CORPUS names (page views as
// bench/ makes them), or makes up some of the same shape.
func corpus(b *testing.B) [][]byte {
	var lines [][]byte
	if name := os.Getenv("NARU_CORPUS"); name != "" {
		f, err := os.Open(name)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			lines = append(lines, append([]byte{}, s.Bytes()...))
		}
		return lines
	}
	for i := range 200_000 {
		lines = append(lines, fmt.Appendf(nil, `{"event_id":"%016x","type":"page","ts":"2026-01-01T00:%02d:%02d.%03dZ","anon_id":"u%06d","session":"s%08x","path":"/products/%d","referrer":"https://www.example.com/","dur_ms":%d,"context":{"browser":"Chrome","os":"Linux","country":"DE","width":390}}`,
			uint64(i)*0x9e3779b97f4a7c15, i/60000%60, i/1000%60, i%1000, i*7919%50000, uint32(i)*2654435761, i%400, i*31%60000))
	}
	return lines
}

// discard is an Output that keeps nothing.
type discard struct{ n int }

func (d *discard) Write(p []byte) (int, error) { d.n += len(p); return len(p), nil }
func (d *discard) Close() error                { return nil }
func (d *discard) Abort() error                { return nil }
func (d *discard) Path() string                { return "x" }

func benchEvents(b *testing.B) []event.Event {
	lines := corpus(b)
	events := make([]event.Event, len(lines))
	for i, l := range lines {
		events[i] = event.Event{
			ID: l[13:29], Source: []byte("naru"), Type: []byte("page"), Data: l, Offset: int64(i),
			ContentType: []byte("application/json"), Time: received, ReceivedAt: received,
		}
	}
	return events
}

// BenchmarkAppend is JSON → columns.
func BenchmarkAppend(b *testing.B) { benchAppend(b, benchEvents(b)) }

// BenchmarkAppendContract is the same under a contract that makes a time of one field.
func BenchmarkAppendContract(b *testing.B) {
	events := benchEvents(b)
	for i := range events {
		events[i].Contract.Hash = []byte("0123456789abcdef0123456789abcdef")
	}
	benchAppend(b, events)
}

// BenchmarkAppendDiscard is the same under one that does not know one of the fields.
func BenchmarkAppendDiscard(b *testing.B) {
	events := benchEvents(b)
	for i := range events {
		events[i].Contract.Hash = []byte("0123456789abcdef0123456789abcdef")
	}
	benchAppend(b, events, `{"ts":0,"event_id":0,"type":0,"anon_id":0,"session":0,"path":0,"dur_ms":0,"context":{"browser":0,"os":0,"country":0,"width":0}}`)
}

func benchAppend(b *testing.B, events []event.Event, known ...string) {
	shape := shapeOf("ts:timestamptz event_id:string type:string anon_id:string session:string path:string referrer:string dur_ms:long context.width:long")
	for _, text := range known {
		shape.Known = knownOf(b, text)
	}
	x := NewBuilder(vfs.NewMemory(), NewSchema(), Options{Shape: func([]byte) *lake.Shape { return shape }})
	run := func() {
		for i := range events {
			if x.cur.rows == DefaultChunkRows-1 || x.cur.since > 1<<20 && false {
				x.cur.reset(x.schema, x.plain)
			}
			if err := x.Append(&events[i], testLog, 0); err != nil {
				b.Fatal(err)
			}
		}
		x.seal(x.cur)
		x.cur.reset(x.schema, x.plain)
	}
	run()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		run()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(events)), "ns/event")
}

// BenchmarkEncode is columns → Parquet.
func BenchmarkEncode(b *testing.B) {
	b.Run("day", func(b *testing.B) { benchEncode(b, nil, nil) })
	b.Run("none", func(b *testing.B) { benchEncode(b, partitionsOf("none"), nil) })
	b.Run("sorted", func(b *testing.B) {
		benchEncode(b, nil, []lake.ShapeSort{{Path: "anon_id"}, {Path: "ts", Descending: true}})
	})
	b.Run("buckets", func(b *testing.B) { benchEncode(b, partitionsOf("hour", "ts", "bucket", "anon_id"), nil) })
	b.Run("buckets sorted", func(b *testing.B) {
		benchEncode(b, partitionsOf("hour", "ts", "bucket", "anon_id"), []lake.ShapeSort{{Path: "anon_id"}, {Path: "ts", Descending: true}})
	})
}

// partitionsOf are transforms with their paths; 16 buckets.
func partitionsOf(texts ...string) (out []lake.ShapePartition) {
	for texts = append(texts, ""); len(texts) > 1; texts = texts[2:] {
		out = append(out, lake.ShapePartition{Transform: texts[0], N: 16, Path: texts[1]})
	}
	return out
}

func benchEncode(b *testing.B, partition []lake.ShapePartition, sort []lake.ShapeSort) {
	events := benchEvents(b)
	shape := shapeOf("ts:timestamptz anon_id:string")
	shape.Partition, shape.Sort = partition, sort
	out := &discard{}
	x := NewBuilder(vfs.NewMemory(), NewSchema(), Options{
		Path: func(string) string { return "x" }, Create: func(string) (Output, error) { return out, nil }, Shape: func([]byte) *lake.Shape { return shape },
	})
	rows := min(len(events), DefaultChunkRows-1)
	for range 2 {
		x.cur.reset(x.schema, x.plain)
		for i := range rows {
			events[i].Contract.Hash = []byte("c")
			if err := x.Append(&events[i], testLog, 0); err != nil {
				b.Fatal(err)
			}
		}
		x.seal(x.cur)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if err := x.x.encode(x.cur); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows), "ns/event")
	b.ReportMetric(float64(out.n)/float64(b.N*rows), "B/event")
}

// BenchmarkBuild is the whole way, both at once.
func BenchmarkBuild(b *testing.B) {
	events := benchEvents(b)
	x := NewBuilder(vfs.NewMemory(), NewSchema(), Options{
		Path: func(string) string { return "x" }, Create: func(string) (Output, error) { return &discard{}, nil },
	})
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		for i := range events {
			if err := x.Append(&events[i], testLog, 0); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := x.Finish(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(events)), "ns/event")
}
