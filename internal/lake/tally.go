package lake

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"naru/internal/event"
)

// Tally sums the rows of a table by the places of their events. Two sets of rows with
// equal tallies have the same places, each as often, but for a chance of one in 2^64.
type Tally struct {
	Rows   int64
	Places uint64 // the sum of PlaceHash over all rows, modulo 2^64
}

// Add takes in a row of the event at a place.
func (t *Tally) Add(at event.Position) {
	t.Rows++
	t.Places += PlaceHash(at)
}

// Plus is the tally of both sets of rows together.
func (t Tally) Plus(o Tally) Tally { return Tally{t.Rows + o.Rows, t.Places + o.Places} }

// String is the number of rows and the sum in 16 hexadecimal digits, a blank between.
func (t Tally) String() string { return fmt.Sprintf("%d %016x", t.Rows, t.Places) }

// ParseTally reads what String gives.
func ParseTally(text string) (t Tally, err error) {
	rows, places, _ := strings.Cut(text, " ")
	if t.Rows, err = strconv.ParseInt(rows, 10, 64); err == nil {
		t.Places, err = strconv.ParseUint(places, 16, 64)
	}
	if err != nil || t.String() != text {
		return Tally{}, fmt.Errorf("parse tally %q: it is no number of rows and sum of places", text)
	}
	return t, nil
}

// PlaceHash of a place in a log is stored with tables: docs/format/lake-commits.md.
func PlaceHash(at event.Position) uint64 {
	h := mix(binary.BigEndian.Uint64(at.Incarnation[:8]))
	h = mix(h ^ binary.BigEndian.Uint64(at.Incarnation[8:]))
	h = mix(h ^ uint64(uint32(at.Partition)))
	return mix(h ^ uint64(at.Offset))
}

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
