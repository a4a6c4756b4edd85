package columnar

import (
	"bytes"
	"encoding/binary"
	"math"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// boundRunes is how many characters of a string its bounds keep, Iceberg's own
// default truncate(16).
const boundRunes = 16

// bounds gathers the metrics of one column over a file.
type bounds struct {
	kind          Kind
	values, nulls int64
	any           bool // a value was seen, and all were looked at
	blind         bool // some values were not looked at
	lo, hi        int64
	flo, fhi      float64
	slo, shi      []byte
}

// observe takes the values of one array. Texts are looked at in dictionary
// form only: there it costs next to nothing, and where values hardly repeat
// bounds prune nothing.
func (s *bounds) observe(a arrow.Array) {
	s.values += int64(a.Len())
	nulls := a.NullN()
	s.nulls += int64(nulls)
	if nulls == a.Len() {
		return
	}
	switch a := a.(type) {
	case *array.Int64:
		observe(a.Int64Values(), a, nulls, s.long)
	case *array.Timestamp:
		observe(a.TimestampValues(), a, nulls, s.long)
	case *array.Int32:
		observe(a.Int32Values(), a, nulls, s.long)
	case *array.Date32:
		observe(a.Date32Values(), a, nulls, s.long)
	case *array.Float64:
		lo, hi := 0.0, 0.0
		first := true
		for i, v := range a.Float64Values() {
			if nulls > 0 && a.IsNull(i) {
				continue
			}
			if first || v < lo {
				lo = v
			}
			if first || v > hi {
				hi = v
			}
			first = false
		}
		if !s.any || lo < s.flo {
			s.flo = lo
		}
		if !s.any || hi > s.fhi {
			s.fhi = hi
		}
		s.any = true
	case *array.Boolean:
		for i := range a.Len() {
			if a.IsValid(i) {
				v := int64(0)
				if a.Value(i) {
					v = 1
				}
				s.long(v, v)
			}
		}
	case *array.Dictionary:
		words, ok := a.Dictionary().(*array.String)
		if !ok {
			s.blind = true
			return
		}
		codes, ok := a.Indices().(*array.Int32)
		if !ok {
			s.blind = true
			return
		}
		used := make([]bool, words.Len())
		for i, code := range codes.Int32Values() {
			if nulls == 0 || a.IsValid(i) {
				used[code] = true
			}
		}
		for i, u := range used {
			if u {
				s.word(words.Value(i))
			}
		}
	default:
		s.blind = true
	}
}

// observe finds the least and the greatest value.
func observe[T ~int64 | ~int32](values []T, a arrow.Array, nulls int, found func(lo, hi int64)) {
	var lo, hi T
	first := true
	for i, v := range values {
		if nulls > 0 && a.IsNull(i) {
			continue
		}
		if first {
			lo, hi, first = v, v, false
		}
		lo, hi = min(lo, v), max(hi, v)
	}
	found(int64(lo), int64(hi))
}

func (s *bounds) long(lo, hi int64) {
	if !s.any {
		s.lo, s.hi, s.any = lo, hi, true
		return
	}
	s.lo, s.hi = min(s.lo, lo), max(s.hi, hi)
}

func (s *bounds) word(v string) {
	if !s.any || v < string(s.slo) {
		s.slo = append(s.slo[:0], v...)
	}
	if !s.any || v > string(s.shi) {
		s.shi = append(s.shi[:0], v...)
	}
	s.any = true
}

// stats gives the metrics in Iceberg's form (spec, appendix D).
func (s *bounds) stats(size int64) ColumnStats {
	c := ColumnStats{Size: size, Values: s.values, Nulls: s.nulls}
	if !s.any || s.blind {
		return c
	}
	switch s.kind {
	case Long, Timestamp:
		c.Lower = binary.LittleEndian.AppendUint64(nil, uint64(s.lo))
		c.Upper = binary.LittleEndian.AppendUint64(nil, uint64(s.hi))
	case Int, Date:
		c.Lower = binary.LittleEndian.AppendUint32(nil, uint32(s.lo))
		c.Upper = binary.LittleEndian.AppendUint32(nil, uint32(s.hi))
	case Bool:
		c.Lower, c.Upper = []byte{byte(s.lo)}, []byte{byte(s.hi)}
	case Double:
		// -0 is less than +0 to Iceberg, equal to it in a comparison.
		lo, hi := s.flo, s.fhi
		if lo == 0 {
			lo = math.Copysign(0, -1)
		}
		if hi == 0 {
			hi = 0
		}
		c.Lower = binary.LittleEndian.AppendUint64(nil, math.Float64bits(lo))
		c.Upper = binary.LittleEndian.AppendUint64(nil, math.Float64bits(hi))
	case String:
		c.Lower = bytes.Clone(cutRunes(s.slo))
		c.Upper = roundUp(s.shi)
	}
	return c
}

func cutRunes(s []byte) []byte {
	at := 0
	for range boundRunes {
		if at >= len(s) {
			return s
		}
		_, n := utf8.DecodeRune(s[at:])
		at += n
	}
	return s[:at]
}

// roundUp cuts a string and raises its last character, so that the result is
// no less than s; nil when no character can be raised.
func roundUp(s []byte) []byte {
	cut := cutRunes(s)
	if len(cut) == len(s) {
		return append([]byte{}, s...)
	}
	for len(cut) > 0 {
		r, n := utf8.DecodeLastRune(cut)
		cut = cut[:len(cut)-n]
		if r == 0xD7FF { // surrogates are no characters
			r = 0xE000 - 1
		}
		if r < utf8.MaxRune {
			return utf8.AppendRune(append([]byte{}, cut...), r+1)
		}
	}
	return nil
}
