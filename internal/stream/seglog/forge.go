package seglog

import "encoding/binary"

// A repair puts a frame of kind lost in the place of damaged ones, and must not
// change the checksum of the segment's frames, which the successor's checkpoint
// knows: it is the only proof that the frames around the damage are the ones that
// were written. So the lost frame is given the checksum that leads there. A
// checksum is linear, and four bytes of the frame are free for that.
// It is no weaker for it: any later change of a byte shows as in other frames.

// order is that of x modulo the CRC's polynomial, which is x+1 times a primitive
// one of degree 31.
const order = 1<<31 - 1

// unshiftOf is the inverse of shiftOf.
func unshiftOf(n int) uint32 {
	e := (order - uint64(n)*8%order) % order
	p := uint32(1) << 31
	for k := 0; e > 0; e, k = e>>1, k+1 {
		if e&1 != 0 {
			p = mulMod(powers[k], p)
		}
	}
	return p
}

// forge returns the four bytes f, little endian, such that the checksum of a
// string with the checksum crcA, f, and a string of n bytes with the checksum
// crcB is want.
func forge(crcA, crcB uint32, n int, want uint32) uint32 {
	head := mulMod(unshiftOf(n), want^crcB) // checksum of A and f
	f := head ^ mulMod(shiftOf(4), crcA)    // of f alone
	return ^mulMod(unshiftOf(4), ^f)
}

// linkOf returns the frame checksum that takes the chain from one value to
// another: nextChain(from, linkOf(from, to)) == to.
func linkOf(from, to uint32) uint32 { return ^from ^ mulMod(unshiftOf(4), ^to) }

// prevChain undoes nextChain.
func prevChain(chain, crc uint32) uint32 { return ^(mulMod(unshiftOf(4), ^chain) ^ crc) }

// Places of four free bytes in the heads of two kinds of frames.
const (
	balanceOfLost       = 32 // synced: a lost frame promises nothing
	balanceOfCheckpoint = 40 // sections: a checkpoint has none
)

// balance gives a sealed frame the checksum want, by its four free bytes at off.
func balance(b []byte, off int, want uint32) {
	tail := b[off+4:]
	f := forge(checksum(b[bodyOff:off]), checksum(tail), len(tail), want)
	binary.LittleEndian.PutUint32(b[off:], f)
	putCRC(b, want)
}
