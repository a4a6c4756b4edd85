package seglog

import "hash/crc32"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

func update(crc uint32, b []byte) uint32 { return crc32.Update(crc, castagnoli, b) }

// The checksum of two byte strings, one behind the other, follows from their
// own checksums and the length of the second. So a frame's checksum covers
// every byte of its record batches without the writer reading them: a batch
// carries the checksum of all but its first 21 bytes, and the goroutine that
// appends has verified it. Source: zlib's crc32_combine, with the polynomial of
// CRC-32C.
const reflectedPoly = 0x82f63b78

var powers = func() (t [32]uint32) {
	p := uint32(1) << 30 // x
	for i := range t {
		t[i] = p
		p = mulMod(p, p)
	}
	return t
}()

// mulMod multiplies two polynomials modulo the CRC's.
func mulMod(a, b uint32) uint32 {
	p := uint32(0)
	for m := uint32(1) << 31; ; m >>= 1 {
		if a&m != 0 {
			p ^= b
			if a&(m-1) == 0 {
				return p
			}
		}
		b = b>>1 ^ -(b&1)&reflectedPoly
		if m == 1 {
			return p
		}
	}
}

// maxCombined is the most bytes that a checksum can be moved over.
const maxCombined = 1 << 28

// shiftOf is the operator that moves a checksum over n further bytes, at most
// maxCombined.
func shiftOf(n int) uint32 {
	p := uint32(1) << 31
	for k := 3; n > 0; n, k = n>>1, k+1 {
		if n&1 != 0 {
			p = mulMod(powers[k], p)
		}
	}
	return p
}

// combine returns the checksum of A and B from those of A and of B, and
// shiftOf(len(B)).
func combine(crcA, crcB, shift uint32) uint32 { return mulMod(shift, crcA) ^ crcB }
