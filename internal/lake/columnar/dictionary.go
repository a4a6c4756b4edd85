package columnar

import "github.com/cespare/xxhash/v2"

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
	used  int     // values coded
}

func newDictionary() *dictionary {
	return &dictionary{slots: make([]int32, 64), ends: make([]int32, 1, 16)}
}

func (d *dictionary) reset() {
	clear(d.slots)
	d.sums, d.text, d.ends = d.sums[:0], d.text[:0], d.ends[:1]
	d.last, d.used = 0, 0
}

func (d *dictionary) len() int { return len(d.sums) }

func (d *dictionary) bytes() int { return 4*cap(d.slots) + 4*cap(d.sums) + cap(d.text) + 4*cap(d.ends) }

func (d *dictionary) value(code int32) []byte {
	return d.text[d.ends[code]:d.ends[code+1]]
}

// code finds or adds v; false when the dictionary has grown too large for it.
func (d *dictionary) code(v []byte) (int32, bool) {
	d.used++
	if len(d.sums) > 0 && string(d.value(d.last)) == string(v) {
		return d.last, true
	}
	h := uint32(xxhash.Sum64(v))
	mask := uint32(len(d.slots) - 1)
	at := h & mask
	for d.slots[at] != 0 {
		code := d.slots[at] - 1
		if d.sums[code] == h && string(d.value(code)) == string(v) {
			d.last = code
			return code, true
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
	d.last = int32(n)
	if 2*(n+1) > len(d.slots) {
		d.rehash()
	}
	return int32(n), true
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
