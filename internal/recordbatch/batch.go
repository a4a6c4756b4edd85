// Package recordbatch writes and reads Kafka RecordBatch v2 byte strings, in
// which the log keeps events. Source: the Kafka protocol guide, "Record Batch";
// the mapping of events is the CloudEvents Kafka protocol binding, binary mode.
package recordbatch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Layout of the head, in bytes from the start, big endian:
//
//	 0 base offset      int64   set by the log; outside the checksum
//	 8 length           int32   bytes behind this field
//	12 leader epoch     int32   outside the checksum
//	16 magic            int8    2
//	17 crc32c           uint32  of everything from byte 21 on
//	21 attributes       int16   bits 0-2 codec, bit 3 timestamp type; ours: bit 8
//	23 last delta       int32   last offset - base offset
//	27 base timestamp   int64   ms; here: the time of receipt
//	35 max timestamp    int64
//	43 producer id      int64   -1
//	51 producer epoch   int16   -1
//	53 base sequence    int32   -1
//	57 count            int32
//	61 records
const (
	HeadSize  = 61
	lengthOff = 8
	magicOff  = 16
	crcOff    = 17
	attrOff   = 21
	deltaOff  = 23
	baseTSOff = 27
	maxTSOff  = 35
	countOff  = 57
)

// Codec is the compression of the records.
type Codec int16

// The codecs that naru writes (None, Snappy) and reads (also Zstd).
const (
	None   Codec = 0
	Snappy Codec = 2
	Zstd   Codec = 4
)

// identified is the bit of the attributes that says that a record of the batch
// may have an id of its own, one that naru has not made. Kafka has no use for it.
const identified = 1 << 8

// ErrMalformed: the bytes are not a record batch. The text says why.
var ErrMalformed = errors.New("malformed record batch")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Head is the fixed part of a batch.
type Head struct {
	BaseOffset   int64
	Size         int // whole batch in bytes, head included
	Codec        Codec
	LastDelta    int32
	BaseTimeMs   int64
	MaxTimeMs    int64
	Count        int32
	AppendedTime bool // all records carry MaxTimeMs
	Identified   bool // some record may have an id that naru has not made
}

// LastOffset is the offset of the batch's last record.
func (h Head) LastOffset() int64 { return h.BaseOffset + int64(h.LastDelta) }

// NextOffset is the first offset behind the batch.
func (h Head) NextOffset() int64 { return h.LastOffset() + 1 }

// ReadHead reads the head of the batch at the start of raw, which may be
// longer. It checks sizes, not the checksum.
func ReadHead(raw []byte) (Head, error) {
	if len(raw) < HeadSize {
		return Head{}, fmt.Errorf("%w: %d bytes, a head has %d", ErrMalformed, len(raw), HeadSize)
	}
	if raw[magicOff] != 2 {
		return Head{}, fmt.Errorf("%w: magic %d, want 2", ErrMalformed, raw[magicOff])
	}
	size := int64(binary.BigEndian.Uint32(raw[lengthOff:])) + 12
	if size < HeadSize || size > int64(len(raw)) {
		return Head{}, fmt.Errorf("%w: length says %d bytes, %d are there", ErrMalformed, size, len(raw))
	}
	attr := int16(binary.BigEndian.Uint16(raw[attrOff:]))
	h := Head{
		BaseOffset:   int64(binary.BigEndian.Uint64(raw)),
		Size:         int(size),
		Codec:        Codec(attr & 7),
		AppendedTime: attr&8 != 0,
		Identified:   attr&identified != 0,
		LastDelta:    int32(binary.BigEndian.Uint32(raw[deltaOff:])),
		BaseTimeMs:   int64(binary.BigEndian.Uint64(raw[baseTSOff:])),
		MaxTimeMs:    int64(binary.BigEndian.Uint64(raw[maxTSOff:])),
		Count:        int32(binary.BigEndian.Uint32(raw[countOff:])),
	}
	if h.Count < 0 || h.LastDelta < 0 || h.LastDelta < h.Count-1 {
		return Head{}, fmt.Errorf("%w: count %d with last delta %d", ErrMalformed, h.Count, h.LastDelta)
	}
	return h, nil
}

// Check verifies the checksum of the whole batch in raw.
func Check(raw []byte) (Head, error) {
	h, err := ReadHead(raw)
	if err != nil {
		return h, err
	}
	want := binary.BigEndian.Uint32(raw[crcOff:])
	if got := crc32.Checksum(raw[attrOff:h.Size], castagnoli); got != want {
		return h, fmt.Errorf("%w: checksum %08x, stored %08x", ErrMalformed, got, want)
	}
	return h, nil
}

// SetBaseOffset writes the base offset in place; the checksum leaves it out.
func SetBaseOffset(raw []byte, base int64) {
	binary.BigEndian.PutUint64(raw, uint64(base))
}

// Seal sets base offset and checksum of a whole batch whose records were changed
// in place.
func Seal(raw []byte, base int64) {
	SetBaseOffset(raw, base)
	binary.BigEndian.PutUint32(raw[crcOff:], crc32.Checksum(raw[attrOff:], castagnoli))
}

// CountFrom is the number of records in the batch at the start of raw at or
// behind offset from. Where offsets have gaps (Kafka's control records and
// compaction) only decoding tells; ok is then false unless from lies before
// the whole batch.
func CountFrom(raw []byte, from int64) (n int, ok bool, err error) {
	h, err := ReadHead(raw)
	if err != nil {
		return 0, false, err
	}
	switch {
	case from <= h.BaseOffset:
		return int(h.Count), true, nil
	case from > h.LastOffset():
		return 0, true, nil
	case h.LastDelta == h.Count-1:
		return int(h.NextOffset() - from), true, nil
	}
	return 0, false, nil
}
