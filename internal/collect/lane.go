package collect

import (
	"time"

	"naru/internal/recordbatch"
	"naru/internal/stream"
)

// keepLane is the most memory that one buffer of a lane keeps between requests.
const keepLane = 4 << 20

// lane gathers the records of one stream-partition. It is compressed batch by
// batch as it fills, so its memory is that of the compressed records and one
// batch.
type lane struct {
	b        recordbatch.Builder
	received time.Time
	scratch  []byte // the batch finished last
	cut      []byte // batches finished before, one behind the other
	cuts     []cut
	count    int  // of all records
	first    int  // index of its first write
	charged  int  // bytes of the budget held for it
	large    bool // its buffers are too large to keep
}

type cut struct {
	end   int // in lane.cut
	count int32
}

func (l *lane) reset(received time.Time) {
	l.received = received
	l.b.Reset(received)
	l.cut, l.cuts, l.scratch = l.cut[:0], l.cuts[:0], l.scratch[:0]
	l.count, l.first, l.charged = 0, 0, 0
}

// trim drops buffers that are too large to keep.
func (l *lane) trim() {
	if l.large || cap(l.cut) > keepLane || cap(l.scratch) > keepLane {
		*l = lane{}
	}
}

// need is about what the lane's buffers take: the records, as much for their
// compressed form, and the batches cut before.
func (l *lane) need() int { return 2*l.b.Size() + len(l.cut) }

func (l *lane) add(key, value []byte, shared, own *recordbatch.Headers) {
	l.b.Append(key, value, shared, own)
	l.count++
	if size := l.b.Size(); size >= recordbatch.CutSize {
		l.large = l.large || size > keepLane
		count := l.b.Count()
		l.scratch = l.b.Finish(l.scratch[:0], recordbatch.Snappy)
		l.cut = append(l.cut, l.scratch...)
		l.cuts = append(l.cuts, cut{end: len(l.cut), count: count})
		l.b.Reset(l.received)
	}
}

// writes finishes the lane and appends its writes to dst.
func (l *lane) writes(dst []stream.Write, name string, partition int32, refusedFrom string) []stream.Write {
	l.first = len(dst)
	start := 0
	for _, c := range l.cuts {
		dst = append(dst, stream.Write{Stream: name, Partition: partition, Batch: l.cut[start:c.end:c.end], Count: c.count, RefusedFrom: refusedFrom})
		start = c.end
	}
	if n := l.b.Count(); n > 0 {
		l.scratch = l.b.Finish(l.scratch[:0], recordbatch.Snappy)
		dst = append(dst, stream.Write{Stream: name, Partition: partition, Batch: l.scratch, Count: n, RefusedFrom: refusedFrom})
	}
	return dst
}

// partitionOf chooses by the key's murmur2 hash, as Kafka's own producers do,
// so that a key keeps its partition when the log moves there.
func partitionOf(key []byte, partitions int32) int32 {
	if partitions <= 1 || key == nil {
		return 0
	}
	return int32(murmur2(key)&0x7fffffff) % partitions
}

// murmur2 is the 32-bit hash of Kafka's default partitioner
// (org.apache.kafka.common.utils.Utils.murmur2, seed 0x9747b28c).
func murmur2(b []byte) uint32 {
	const m = 0x5bd1e995
	h := uint32(0x9747b28c) ^ uint32(len(b))
	for len(b) >= 4 {
		k := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
		k *= m
		k ^= k >> 24
		k *= m
		h = h*m ^ k
		b = b[4:]
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(b[0])) * m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
