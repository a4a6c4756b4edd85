package contract

import (
	"bytes"
	"math"
	"math/bits"
	"strconv"
)

// decimal is a JSON number, exactly: 0.digits × 10^exp, with digits that neither
// begin nor end with 0; zero has no digits. Digits may alias the text, so a
// decimal is valid as long as the text is.
type decimal struct {
	negative bool
	digits   []byte
	exp      int64 // saturates far beyond what a contract can name
	space    []byte
}

// farExponent is where exponents stop to be told apart.
const farExponent = math.MaxInt64 / 4

// parse reads a number that has been found well-formed.
func (v *decimal) parse(text []byte) {
	v.negative = len(text) > 0 && text[0] == '-'
	if v.negative {
		text = text[1:]
	}
	v.exp = 0
	if e := bytes.IndexAny(text, "eE"); e >= 0 {
		v.exp = exponent(text[e+1:])
		text = text[:e]
	}
	if point := bytes.IndexByte(text, '.'); point >= 0 {
		v.space = append(append(v.space[:0], text[:point]...), text[point+1:]...)
		v.digits = v.space
		v.exp += int64(point)
	} else {
		v.digits = text
		v.exp += int64(len(text))
	}
	for len(v.digits) > 0 && v.digits[0] == '0' {
		v.digits = v.digits[1:]
		v.exp--
	}
	for n := len(v.digits); n > 0 && v.digits[n-1] == '0'; n-- {
		v.digits = v.digits[:n-1]
	}
	if len(v.digits) == 0 {
		v.negative, v.exp = false, 0
	}
}

func exponent(text []byte) int64 {
	sign := int64(1)
	switch text[0] {
	case '-':
		sign, text = -1, text[1:]
	case '+':
		text = text[1:]
	}
	var n int64
	for _, c := range text {
		if n = n*10 + int64(c-'0'); n > farExponent {
			return sign * farExponent
		}
	}
	return sign * n
}

func (v *decimal) isWhole() bool { return v.exp >= int64(len(v.digits)) }

// compare gives -1, 0 or 1.
func (v *decimal) compare(w *decimal) int {
	switch {
	case len(v.digits) == 0 && len(w.digits) == 0:
		return 0
	case len(v.digits) == 0:
		return sign(!w.negative)
	case len(w.digits) == 0 || v.negative != w.negative:
		return sign(v.negative)
	}
	size := 0
	switch {
	case v.exp != w.exp:
		size = sign(v.exp < w.exp)
	default:
		size = bytes.Compare(v.digits, w.digits)
	}
	if v.negative {
		return -size
	}
	return size
}

func sign(less bool) int {
	if less {
		return -1
	}
	return 1
}

// isMultipleOf tells whether v / m is whole. m is not zero and has at most 18
// digits.
func (v *decimal) isMultipleOf(m *decimal) bool {
	if len(v.digits) == 0 {
		return true
	}
	// Both as whole numbers with an exponent.
	ve, me := v.exp-int64(len(v.digits)), m.exp-int64(len(m.digits))
	if ve < me {
		return false // v's last digit is not 0, so no number of tens divides it
	}
	var div uint64
	for _, c := range m.digits {
		div = div*10 + uint64(c-'0')
	}
	var rest uint64
	for _, c := range v.digits {
		rest = (rest*10 + uint64(c-'0')) % div // both below 10^18: no overflow
	}
	return mulMod(rest, powMod(10, uint64(ve-me), div), div) == 0
}

func mulMod(a, b, m uint64) uint64 {
	hi, lo := bits.Mul64(a%m, b%m)
	_, rest := bits.Div64(hi, lo, m)
	return rest
}

func powMod(base, n, m uint64) uint64 {
	out := uint64(1) % m
	for base %= m; n > 0; n >>= 1 {
		if n&1 != 0 {
			out = mulMod(out, base, m)
		}
		base = mulMod(base, base, m)
	}
	return out
}

// appendTo writes the number in its one form, so that equal numbers give equal
// bytes.
func (v *decimal) appendTo(dst []byte) []byte {
	if len(v.digits) == 0 {
		return append(dst, '0')
	}
	if v.negative {
		dst = append(dst, '-')
	}
	dst = append(append(dst, v.digits...), 'e')
	return strconv.AppendInt(dst, v.exp, 10)
}

// bound is a number of a contract.
type bound struct {
	decimal
	text  string
	small int64 // the number, when fits
	fits  bool
}

func newBound(text string) *bound {
	b := &bound{text: text}
	b.parse([]byte(text))
	v, err := strconv.ParseInt(text, 10, 64)
	b.small, b.fits = v, err == nil
	return b
}

// smallWhole reads a whole number of at most 18 digits without exponent.
func smallWhole(text []byte) (v int64, ok bool) {
	i := 0
	if text[0] == '-' {
		i = 1
	}
	if len(text)-i > 18 {
		return 0, false
	}
	for _, c := range text[i:] {
		if c-'0' > 9 {
			return 0, false
		}
		v = v*10 + int64(c-'0')
	}
	if i == 1 {
		v = -v
	}
	return v, true
}
