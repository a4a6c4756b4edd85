package seglog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"naru/internal/recordbatch"
)

// Layout of a frame's head, in bytes from the start, little endian
// (docs/format/log.md):
//
//	 0 magic     "nar1"
//	 4 length    uint32  of the whole frame, head included, padding excluded
//	 8 crc32c    uint32  of everything from byte 12 on
//	12 kind      uint8
//	13           3 zero bytes
//	16 nonce     uint64  of the segment
//	24 sequence  uint64  one more than the frame before
//	32 synced    uint64  frames up to this sequence were on disk before this one was written;
//	                     in a lost frame free for its checksum (forge.go)
//	40 sections  uint32  in a checkpoint free for its checksum
//	44 table     uint32  bytes of the section table
//	48 section table, then the record batches of its writes, one behind the other
//
// Frames begin at multiples of 8.
const (
	magic     = "nar1"
	headSize  = 48
	crcOff    = 8
	bodyOff   = 12
	frameUnit = 8
)

type kind uint8

const (
	kindCheckpoint kind = 1 // body: docs/format/log.md, "Checkpoint"
	kindAppend     kind = 2
	kindCommit     kind = 3 // with a reader's progress, a forgotten reader or a trim
	kindPromise    kind = 4 // empty: for its synced field
	kindFooter     kind = 5 // index of the segment; carries the last frame's sequence again
	kindLost       kind = 6 // in the place of frames that a repair could not save, up to its sequence
)

func (k kind) String() string {
	switch k {
	case kindCheckpoint:
		return "checkpoint"
	case kindAppend:
		return "append"
	case kindCommit:
		return "commit"
	case kindPromise:
		return "promise"
	case kindFooter:
		return "footer"
	case kindLost:
		return "lost"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// data tells whether the frame holds record batches or progress.
func (k kind) data() bool { return k == kindAppend || k == kindCommit }

// head is the fixed part of a frame.
type head struct {
	length   int64
	crc      uint32
	kind     kind
	nonce    uint64
	sequence uint64
	synced   uint64
	sections int
	table    int // bytes
}

// errBadFrame: the bytes are not a frame of this segment. It never leaves the
// package.
var errBadFrame = errors.New("bad frame")

func badFrame(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errBadFrame}, args...)...)
}

func align(n int64) int64 { return (n + frameUnit - 1) &^ (frameUnit - 1) }

// end is the place of the next frame, seen from the start of this one.
func (h head) end() int64 { return align(h.length) }

// readHead reads the head at the start of b. It checks what can be checked
// without the rest.
func readHead(b []byte) (head, error) {
	if len(b) < headSize {
		return head{}, badFrame("%d bytes, a head has %d", len(b), headSize)
	}
	if string(b[:4]) != magic {
		return head{}, badFrame("magic %q", b[:4])
	}
	h := head{
		length:   int64(binary.LittleEndian.Uint32(b[4:])),
		crc:      binary.LittleEndian.Uint32(b[crcOff:]),
		kind:     kind(b[12]),
		nonce:    binary.LittleEndian.Uint64(b[16:]),
		sequence: binary.LittleEndian.Uint64(b[24:]),
		synced:   binary.LittleEndian.Uint64(b[32:]),
		sections: int(binary.LittleEndian.Uint32(b[40:])),
		table:    int(binary.LittleEndian.Uint32(b[44:])),
	}
	switch {
	case h.length < headSize || int64(h.table) > h.length-headSize || h.sections > h.table && h.kind != kindCheckpoint:
		return h, badFrame("length %d with a table of %d bytes and %d sections", h.length, h.table, h.sections)
	case h.kind < kindCheckpoint || h.kind > kindLost || b[13] != 0 || b[14] != 0 || b[15] != 0:
		return h, badFrame("kind %d", h.kind)
	}
	if h.kind == kindLost {
		h.synced = 0 // it promises nothing
	}
	return h, nil
}

// putHead writes the head of a frame to the start of b; the checksum is set
// last, by sealFrame or by the writer.
func putHead(b []byte, h head) {
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[4:], uint32(h.length))
	binary.LittleEndian.PutUint32(b[crcOff:], h.crc)
	b[12], b[13], b[14], b[15] = byte(h.kind), 0, 0, 0
	binary.LittleEndian.PutUint64(b[16:], h.nonce)
	binary.LittleEndian.PutUint64(b[24:], h.sequence)
	binary.LittleEndian.PutUint64(b[32:], h.synced)
	binary.LittleEndian.PutUint32(b[40:], uint32(h.sections))
	binary.LittleEndian.PutUint32(b[44:], uint32(h.table))
}

func putCRC(b []byte, crc uint32) { binary.LittleEndian.PutUint32(b[crcOff:], crc) }

// sealFrame makes b, a head's room followed by the body, a frame. It returns
// the frame and its checksum.
func sealFrame(b []byte, h head) ([]byte, uint32) {
	h.length = int64(len(b))
	putHead(b, h)
	crc := checksum(b[bodyOff:])
	putCRC(b, crc)
	return b, crc
}

// frame is a whole frame whose checksum has been verified.
type frame struct {
	head
	raw   []byte // valid until the scanner moves
	dirty int64  // place of a byte in its padding that is not zero, from its start; 0: there is none
}

// body is what stands behind the head of a checkpoint or footer.
func (f frame) body() []byte { return f.raw[headSize : headSize+f.table] }

// checkFrame verifies the checksum and the structure of the frame at the start
// of b, which holds at least its length.
func checkFrame(h head, b []byte) (frame, error) {
	b = b[:h.length]
	if got := checksum(b[bodyOff:]); got != h.crc {
		return frame{}, badFrame("checksum %08x, stored %08x", got, h.crc)
	}
	f := frame{head: h, raw: b}
	if h.kind == kindLost {
		return f, f.each(func(s section, _ int64) error {
			if s.typ != sectionName && s.typ != sectionGap && s.typ != sectionCounts {
				return badFrame("section type %d in a lost frame", s.typ)
			}
			return nil
		})
	}
	if !h.kind.data() {
		if int64(h.table) != h.length-headSize {
			return frame{}, badFrame("%s with %d bytes behind its body", h.kind, h.length-headSize-int64(h.table))
		}
		return f, nil
	}
	at := int64(headSize + h.table)
	err := f.each(func(s section, _ int64) error {
		at += int64(s.size)
		return nil
	})
	if err == nil && at != h.length {
		err = badFrame("batches end at %d of %d bytes", at, h.length)
	}
	return f, err
}

// each calls fn for every section with the place of its batch in the frame.
func (f frame) each(fn func(s section, batchAt int64) error) error {
	return eachSection(f.raw[headSize:headSize+f.table], f.sections, int64(headSize+f.table), f.length, fn)
}

func eachSection(table []byte, n int, batchAt, end int64, fn func(s section, batchAt int64) error) error {
	for range n {
		s, rest, err := nextSection(table)
		if err != nil {
			return err
		}
		table = rest
		if s.typ == sectionWrite && int64(s.size) > end-batchAt {
			return badFrame("a batch of %d bytes at %d, the frame ends at %d", s.size, batchAt, end)
		}
		if err := fn(s, batchAt); err != nil {
			return err
		}
		batchAt += int64(s.size)
	}
	if len(table) != 0 {
		return badFrame("%d bytes behind the last section", len(table))
	}
	return nil
}

// batchHeadSize is the part of a record batch that its own checksum leaves out
// (and that checksum).
const batchHeadSize = 21

func batchCRC(batch []byte) uint32 { return binary.BigEndian.Uint32(batch[17:]) }

// section types.
const (
	sectionName     = 1 // a new stream-partition: id, partition, stream
	sectionWrite    = 2 // id, refused from, base, count, last delta, size, max time
	sectionProgress = 3 // a reader's progress
	sectionForget   = 4 // a reader that is no more
	sectionTrim     = 5 // the oldest segment that is kept
	// In lost frames only: what the frames in whose place they stand changed.
	sectionGap    = 6 // id, base, next, events, bytes
	sectionCounts = 7 // id of any partition of a stream, acknowledged, refused
)

const (
	writeSectionSize  = 37
	gapSectionSize    = 37
	countsSectionSize = 21
)

var errShortSection = badFrame("a section ends early")

// section is one entry of a frame's table.
type section struct {
	typ       byte
	id        uint32 // sectionName, sectionWrite: dictionary id, from 1
	partition int32  // sectionName
	name      []byte // sectionName: stream; sectionForget: reader
	refused   uint32 // sectionWrite: id of the stream refused for, 0 for none
	base      int64  // sectionWrite
	count     uint32
	delta     uint32
	size      uint32
	maxTime   int64  // sectionWrite, ms
	body      []byte // sectionProgress
	oldest    uint64 // sectionTrim
	gap       gap    // sectionGap
	counts    counts // sectionCounts
}

// gap is what a lost frame says of a stream-partition: offsets [first, end).
type gap struct{ first, end, events, bytes int64 }

// counts are events of a stream.
type counts struct{ acknowledged, refused int64 }

// next is the first offset behind a write.
func (s section) next() int64 { return s.base + int64(s.delta) + 1 }

func appendNameSection(b []byte, id uint32, partition int32, stream string) []byte {
	b = append(b, sectionName)
	b = binary.LittleEndian.AppendUint32(b, id)
	b = binary.LittleEndian.AppendUint32(b, uint32(partition))
	b = append(b, byte(len(stream)))
	return append(b, stream...)
}

func nameSectionSize(stream string) int { return 10 + len(stream) }

func appendWriteSection(b []byte, s section) []byte {
	b = append(b, sectionWrite)
	b = binary.LittleEndian.AppendUint32(b, s.id)
	b = binary.LittleEndian.AppendUint32(b, s.refused)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.base))
	b = binary.LittleEndian.AppendUint32(b, s.count)
	b = binary.LittleEndian.AppendUint32(b, s.delta)
	b = binary.LittleEndian.AppendUint32(b, s.size)
	return binary.LittleEndian.AppendUint64(b, uint64(s.maxTime))
}

func appendProgressSection(b, body []byte) []byte {
	b = append(b, sectionProgress)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...)
}

func appendForgetSection(b []byte, reader string) []byte {
	b = append(b, sectionForget, byte(len(reader)))
	return append(b, reader...)
}

func appendTrimSection(b []byte, oldest uint64) []byte {
	return binary.LittleEndian.AppendUint64(append(b, sectionTrim), oldest)
}

func appendGapSection(b []byte, id uint32, g gap) []byte {
	b = binary.LittleEndian.AppendUint32(append(b, sectionGap), id)
	for _, n := range []int64{g.first, g.end, g.events, g.bytes} {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	return b
}

func appendCountsSection(b []byte, id uint32, c counts) []byte {
	b = binary.LittleEndian.AppendUint32(append(b, sectionCounts), id)
	b = binary.LittleEndian.AppendUint64(b, uint64(c.acknowledged))
	return binary.LittleEndian.AppendUint64(b, uint64(c.refused))
}

// nextSection reads the section at the start of b. Its slices alias b.
func nextSection(b []byte) (s section, rest []byte, err error) {
	if len(b) < 1 {
		return s, nil, errShortSection
	}
	s.typ = b[0]
	switch s.typ {
	case sectionName:
		if len(b) < 10 || len(b) < 10+int(b[9]) || b[9] == 0 {
			return s, nil, errShortSection
		}
		s.id = binary.LittleEndian.Uint32(b[1:])
		s.partition = int32(binary.LittleEndian.Uint32(b[5:]))
		end := 10 + int(b[9])
		s.name, rest = b[10:end], b[end:]
		if s.partition < 0 {
			return s, nil, badFrame("partition %d", s.partition)
		}
	case sectionWrite:
		if len(b) < writeSectionSize {
			return s, nil, errShortSection
		}
		s.id = binary.LittleEndian.Uint32(b[1:])
		s.refused = binary.LittleEndian.Uint32(b[5:])
		s.base = int64(binary.LittleEndian.Uint64(b[9:]))
		s.count = binary.LittleEndian.Uint32(b[17:])
		s.delta = binary.LittleEndian.Uint32(b[21:])
		s.size = binary.LittleEndian.Uint32(b[25:])
		s.maxTime = int64(binary.LittleEndian.Uint64(b[29:]))
		rest = b[writeSectionSize:]
		if s.base < 0 || s.base > math.MaxInt64-math.MaxUint32-1 || s.size < recordbatch.HeadSize || s.count == 0 {
			return s, nil, badFrame("a write of %d records in %d bytes at offset %d", s.count, s.size, s.base)
		}
	case sectionProgress:
		if len(b) < 5 || uint64(binary.LittleEndian.Uint32(b[1:])) > uint64(len(b)-5) {
			return s, nil, errShortSection
		}
		end := 5 + int(binary.LittleEndian.Uint32(b[1:]))
		s.body, rest = b[5:end], b[end:]
	case sectionForget:
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return s, nil, errShortSection
		}
		end := 2 + int(b[1])
		s.name, rest = b[2:end], b[end:]
	case sectionTrim:
		if len(b) < 9 {
			return s, nil, errShortSection
		}
		s.oldest, rest = binary.LittleEndian.Uint64(b[1:]), b[9:]
	case sectionGap:
		if len(b) < gapSectionSize {
			return s, nil, errShortSection
		}
		s.id = binary.LittleEndian.Uint32(b[1:])
		n := func(i int) int64 { return int64(binary.LittleEndian.Uint64(b[5+8*i:])) }
		s.gap, rest = gap{n(0), n(1), n(2), n(3)}, b[gapSectionSize:]
		if s.gap.first < 0 || s.gap.end < s.gap.first || s.gap.events < 0 || s.gap.bytes < 0 {
			return s, nil, badFrame("a gap from offset %d to %d", s.gap.first, s.gap.end)
		}
	case sectionCounts:
		if len(b) < countsSectionSize {
			return s, nil, errShortSection
		}
		s.id = binary.LittleEndian.Uint32(b[1:])
		s.counts = counts{int64(binary.LittleEndian.Uint64(b[5:])), int64(binary.LittleEndian.Uint64(b[13:]))}
		rest = b[countsSectionSize:]
	default:
		return s, nil, badFrame("section type %d", s.typ)
	}
	return s, rest, nil
}
