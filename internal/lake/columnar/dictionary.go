package columnar

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"

	"github.com/cespare/xxhash/v2"
)

// A text column begins in dictionary form, and goes over to the plain one when
// its values turn out to be many: then hashing them costs more than it saves.
const (
	dictionaryMax   = 8192      // different values
	dictionaryBytes = 512 << 10 // of their text; Parquet's own limit is 1 MiB
	dictionaryTrial = 512       // from here on at most every second value may be a new one
)

// dictionary gives equal texts equal codes, in order of first appearance.
type dictionary struct {
	slots []int32  // code+1 by hash, 0 = free; a power of two, at most half full
	sums  []uint32 // a value's hash, by code
	text  []byte
	ends  []int32 // 0, then where each value ends
	last  int32   // code of the last value
	from  int32   // where its text begins
	to    int32   // and ends
	used  int     // values coded
}

func newDictionary() *dictionary {
	return &dictionary{slots: make([]int32, 64), ends: make([]int32, 1, 16)}
}

func (d *dictionary) reset() {
	clear(d.slots)
	d.sums, d.text, d.ends = d.sums[:0], d.text[:0], d.ends[:1]
	d.last, d.from, d.to, d.used = 0, 0, 0, 0
}

func (d *dictionary) len() int { return len(d.sums) }

func (d *dictionary) bytes() int { return 4*cap(d.slots) + 4*cap(d.sums) + cap(d.text) + 4*cap(d.ends) }

func (d *dictionary) value(code int32) []byte {
	return d.text[d.ends[code]:d.ends[code+1]]
}

// again tells whether v is the last value, which costs next to nothing to know
// and is true of most values of many columns.
func (d *dictionary) again(v []byte) bool {
	return string(d.text[d.from:d.to]) == string(v) && len(d.sums) > 0
}

// code finds or adds v; false when the dictionary has grown too large for it.
func (d *dictionary) code(v []byte) (int32, bool) {
	d.used++
	if d.again(v) {
		return d.last, true
	}
	h := hash(v)
	mask := uint32(len(d.slots) - 1)
	at := h & mask
	for d.slots[at] != 0 {
		code := d.slots[at] - 1
		if d.sums[code] == h {
			if string(d.value(code)) == string(v) {
				d.say(code)
				return code, true
			}
		}
		at = (at + 1) & mask
	}
	n := len(d.sums)
	if n >= dictionaryMax || len(d.text)+len(v) > dictionaryBytes || n >= dictionaryTrial && n > d.used/2 {
		return 0, false
	}
	d.text = append(d.text, v...)
	d.ends = append(d.ends, int32(len(d.text)))
	d.sums = append(d.sums, h)
	d.slots[at] = int32(n + 1)
	d.say(int32(n))
	if 2*(n+1) > len(d.slots) {
		d.rehash()
	}
	return int32(n), true
}

// say notes the last value: by places, because a slice would be a pointer to write for
// every value, which the collector wants to know of.
func (d *dictionary) say(code int32) {
	d.last, d.from, d.to = code, d.ends[code], d.ends[code+1]
}

// seed makes it impossible to send texts that are chosen to collide.
var seed = [2]uint64{rand.Uint64(), rand.Uint64()}

// hash is for texts that are mostly short: up to 16 bytes in one multiplication
// (as wyhash does), longer ones by XXH64.
func hash(v []byte) uint32 {
	var a, b uint64
	n := len(v)
	switch {
	case n > 16:
		a, b = xxhash.Sum64(v), 0
	case n >= 8:
		a, b = binary.LittleEndian.Uint64(v), binary.LittleEndian.Uint64(v[n-8:])
	case n >= 4:
		a, b = uint64(binary.LittleEndian.Uint32(v)), uint64(binary.LittleEndian.Uint32(v[n-4:]))
	case n > 0:
		a = uint64(v[0])<<16 | uint64(v[n/2])<<8 | uint64(v[n-1])
	}
	hi, lo := bits.Mul64(a^seed[0], b^seed[1]^uint64(n))
	return uint32(hi ^ lo)
}

func (d *dictionary) rehash() {
	d.slots = make([]int32, 4*len(d.slots))
	mask := uint32(len(d.slots) - 1)
	for code, h := range d.sums {
		at := h & mask
		for d.slots[at] != 0 {
			at = (at + 1) & mask
		}
		d.slots[at] = int32(code + 1)
	}
}
