package recordbatch

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"time"

	"github.com/klauspost/compress/s2"

	"naru/internal/event"
)

// CutSize is the size of a batch's uncompressed records at which a writer
// begins another batch: readers decompress whole batches.
const CutSize = 1 << 20

// minCompress is the size below which compressing costs more than it saves.
const minCompress = 1 << 10

// Headers are encoded record headers, to be built once and used for many records.
type Headers struct {
	n int
	b []byte
}

// Add appends one header.
func (h *Headers) Add(name, value string) {
	h.n++
	h.b = appendHeader(h.b, name, value)
}

// AddBytes appends one header.
func (h *Headers) AddBytes(name string, value []byte) {
	h.n++
	h.b = appendHeader(h.b, name, value)
}

// Reset empties h and keeps its memory.
func (h *Headers) Reset() { h.n, h.b = 0, h.b[:0] }

// Builder encodes records into one buffer. The zero value is ready after Reset;
// it is meant to be pooled. All records of a batch carry one time of receipt,
// unless At gives some an earlier one.
type Builder struct {
	buf   []byte
	count int32
	ms    int64
	delta int64 // of the records to come, to ms
	ids   bool
}

// Reset empties the builder and keeps its memory.
func (b *Builder) Reset(received time.Time) {
	b.buf, b.count, b.ms, b.delta, b.ids = b.buf[:0], 0, received.UnixMilli(), 0, false
}

// At gives the records to come a time of receipt of their own, until it is
// called again or the builder is reset. The batch keeps that of Reset as its
// base and latest time, by which retention goes.
func (b *Builder) At(received time.Time) { b.delta = received.UnixMilli() - b.ms }

// Identify says that a record of this batch has an id that naru has not made: it
// may be a duplicate. Batches without any are not looked into for that.
func (b *Builder) Identify() { b.ids = true }

// Count is the number of records so far.
func (b *Builder) Count() int32 { return b.count }

// Size is the number of uncompressed bytes so far.
func (b *Builder) Size() int { return len(b.buf) }

// Append adds a record with the headers shared followed by own. A nil key is
// stored as Kafka's null.
func (b *Builder) Append(key, value []byte, shared, own *Headers) {
	keyLen := int64(len(key))
	if key == nil {
		keyLen = -1
	}
	nHeaders, headerBytes := shared.n, len(shared.b)
	if own != nil {
		nHeaders += own.n
		headerBytes += len(own.b)
	}
	delta := int64(b.count)
	size := 1 + varintLen(b.delta) + varintLen(delta) + varintLen(keyLen) + len(key) +
		varintLen(int64(len(value))) + len(value) + varintLen(int64(nHeaders)) + headerBytes
	buf := binary.AppendVarint(b.buf, int64(size))
	if b.delta == 0 {
		buf = append(buf, 0, 0) // attributes; timestamp delta
	} else {
		buf = binary.AppendVarint(append(buf, 0), b.delta)
	}
	buf = binary.AppendVarint(buf, delta)
	buf = binary.AppendVarint(buf, keyLen)
	buf = append(buf, key...)
	buf = binary.AppendVarint(buf, int64(len(value)))
	buf = append(buf, value...)
	buf = binary.AppendVarint(buf, int64(nHeaders))
	buf = append(buf, shared.b...)
	if own != nil {
		buf = append(buf, own.b...)
	}
	b.buf = buf
	b.count++
}

// Finish appends the whole batch to dst, records compressed with codec (None
// or Snappy; small or incompressible ones are stored raw), and returns it. The
// base offset is 0. The builder may be reset at once.
func (b *Builder) Finish(dst []byte, codec Codec) []byte {
	start := len(dst)
	var head [HeadSize]byte
	dst = append(dst, head[:]...)
	used := None
	if codec == Snappy && len(b.buf) >= minCompress {
		// Encode straight behind the head where dst has room.
		need := s2.MaxEncodedLen(len(b.buf))
		if cap(dst)-len(dst) < need {
			grown := make([]byte, len(dst), len(dst)+need)
			copy(grown, dst)
			dst = grown
		}
		enc := s2.EncodeSnappy(dst[len(dst):len(dst)+need], b.buf)
		if len(enc) < len(b.buf) {
			dst = dst[:len(dst)+len(enc)]
			used = Snappy
		}
	}
	if used == None {
		dst = append(dst, b.buf...)
	}
	raw := dst[start:]
	binary.BigEndian.PutUint32(raw[lengthOff:], uint32(len(raw)-12))
	raw[magicOff] = 2
	attr := uint16(used)
	if b.ids {
		attr |= identified
	}
	binary.BigEndian.PutUint16(raw[attrOff:], attr)
	binary.BigEndian.PutUint32(raw[deltaOff:], uint32(max(b.count-1, 0)))
	binary.BigEndian.PutUint64(raw[baseTSOff:], uint64(b.ms))
	binary.BigEndian.PutUint64(raw[maxTSOff:], uint64(b.ms))
	for i := 43; i < countOff; i++ {
		raw[i] = 0xff // producer id, epoch and sequence: none
	}
	binary.BigEndian.PutUint32(raw[countOff:], uint32(b.count))
	binary.BigEndian.PutUint32(raw[crcOff:], crc32.Checksum(raw[attrOff:], castagnoli))
	return dst
}

func appendHeader[V string | []byte](dst []byte, name string, value V) []byte {
	dst = binary.AppendVarint(dst, int64(len(name)))
	dst = append(dst, name...)
	dst = binary.AppendVarint(dst, int64(len(value)))
	return append(dst, value...)
}

func varintLen(v int64) int {
	u := uint64(v<<1) ^ uint64(v>>63)
	return (bits.Len64(u|1) + 6) / 7
}

// AppendEvent adds e with all its attributes: the plain way, for everything
// that is not the hot path.
func (b *Builder) AppendEvent(e *event.Event) {
	var h Headers
	EventHeaders(&h, e)
	if !e.GeneratedID && e.Refusal == nil {
		b.Identify()
	}
	b.Append(e.Key, e.Data, &h, nil)
}
