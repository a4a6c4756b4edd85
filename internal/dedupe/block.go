package dedupe

import (
	"encoding/binary"
	"hash/crc32"
)

// Layout of a block of entries, little endian:
//
//	 0 "nde1"
//	 4 crc32c      uint32  of everything behind it
//	 8 before      uint32  crc32c of the block before, or of the file's head
//	12 count       uint32  entries
//	16 ordinal     int64   of the first entry
//	24 base        int64   offset of the first entry
//	32 next        int64   all ids below this offset are in this block or before it
//	40 clock       int64   ms, of the first entry
//	48 entries, 32 bytes each:
//	   0 key uint64 ×2 · 16 digest uint64 · 24 offset − base uint32 · 28 clock − clock of the first uint32
const (
	blockSize = 4096
	blockHead = 48
	entrySize = 32
	perBlock  = (blockSize - blockHead) / entrySize // 126
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var blockMagic = [4]byte{'n', 'd', 'e', '1'}

// block is one block's bytes.
type block [blockSize]byte

func (b *block) count() int         { return int(binary.LittleEndian.Uint32(b[12:])) }
func (b *block) ordinal() int64     { return int64(binary.LittleEndian.Uint64(b[16:])) }
func (b *block) base() int64        { return int64(binary.LittleEndian.Uint64(b[24:])) }
func (b *block) next() int64        { return int64(binary.LittleEndian.Uint64(b[32:])) }
func (b *block) clock() int64       { return int64(binary.LittleEndian.Uint64(b[40:])) }
func (b *block) crc() uint32        { return binary.LittleEndian.Uint32(b[4:]) }
func (b *block) before() uint32     { return binary.LittleEndian.Uint32(b[8:]) }
func (b *block) setCount(n int)     { binary.LittleEndian.PutUint32(b[12:], uint32(n)) }
func (b *block) setNext(n int64)    { binary.LittleEndian.PutUint64(b[32:], uint64(n)) }
func (b *block) sum() uint32        { return crc32.Checksum(b[8:], castagnoli) }
func (b *block) entry(i int) []byte { return b[blockHead+i*entrySize : blockHead+(i+1)*entrySize] }

// begin makes it an empty block.
func (b *block) begin(ordinal, base, clock int64) {
	*b = block{}
	copy(b[:], blockMagic[:])
	binary.LittleEndian.PutUint64(b[16:], uint64(ordinal))
	binary.LittleEndian.PutUint64(b[24:], uint64(base))
	binary.LittleEndian.PutUint64(b[32:], uint64(base))
	binary.LittleEndian.PutUint64(b[40:], uint64(clock))
}

// fits tells whether one more entry can stand in it.
func (b *block) fits(offset, clock int64) bool {
	const most = 1<<32 - 1
	return b.count() < perBlock && offset-b.base() <= most && clock-b.clock() <= most
}

// add puts an entry behind the others.
func (b *block) add(k Key, digest uint64, offset, clock int64) {
	n := b.count()
	e := b.entry(n)
	binary.LittleEndian.PutUint64(e, k.Hi)
	binary.LittleEndian.PutUint64(e[8:], k.Lo)
	binary.LittleEndian.PutUint64(e[16:], digest)
	binary.LittleEndian.PutUint32(e[24:], uint32(offset-b.base()))
	binary.LittleEndian.PutUint32(e[28:], uint32(clock-b.clock()))
	b.setCount(n + 1)
	b.setNext(offset + 1)
}

// at reads an entry.
func (b *block) at(i int) (k Key, digest uint64, offset, clock int64) {
	e := b.entry(i)
	k = Key{Hi: binary.LittleEndian.Uint64(e), Lo: binary.LittleEndian.Uint64(e[8:])}
	return k, binary.LittleEndian.Uint64(e[16:]), b.base() + int64(binary.LittleEndian.Uint32(e[24:])), b.clock() + int64(binary.LittleEndian.Uint32(e[28:]))
}

// seal computes the checksum.
func (b *block) seal(before uint32) {
	binary.LittleEndian.PutUint32(b[8:], before)
	binary.LittleEndian.PutUint32(b[4:], b.sum())
}

// sound tells whether the bytes are a block as it was written.
func (b *block) sound() bool {
	return [4]byte(b[:4]) == blockMagic && b.count() <= perBlock && b.crc() == b.sum()
}

// find looks for the entries of a key that are not older than since.
func (b *block) find(k Key, digest uint64, since int64) (same, other bool) {
	n := b.count()
	for i := range n {
		e := b[blockHead+i*entrySize:]
		if binary.LittleEndian.Uint64(e) != k.Hi || binary.LittleEndian.Uint64(e[8:]) != k.Lo {
			continue
		}
		if b.clock()+int64(binary.LittleEndian.Uint32(e[28:])) < since {
			continue
		}
		if binary.LittleEndian.Uint64(e[16:]) == digest {
			return true, other
		}
		other = true
	}
	return false, other
}
