package columnar

import (
	"math"
	"strconv"
	"strings"
	"unsafe"
)

// parseLong reads a whole number; false when int64 cannot hold it.
func parseLong(raw []byte) (int64, bool) {
	d := raw
	if d[0] == '-' {
		d = d[1:]
	}
	if len(d) > 18 {
		v, err := strconv.ParseInt(view(raw), 10, 64)
		return v, err == nil
	}
	var v int64
	for _, c := range d {
		v = v*10 + int64(c-'0')
	}
	if len(d) != len(raw) {
		v = -v
	}
	return v, true
}

// exactLong gives v as a double; false when that is another number.
func exactLong(v int64) (float64, bool) {
	f := float64(v)
	return f, f < 1<<63 && int64(f) == v
}

// exactWhole reads a whole number of any size as a double; false when the
// double is another number.
func exactWhole(raw []byte) (float64, bool) {
	if v, ok := parseLong(raw); ok {
		f, exact := exactLong(v)
		if f == 0 && raw[0] == '-' {
			f = math.Copysign(0, -1)
		}
		return f, exact
	}
	if len(raw) > 310 { // beyond the largest double
		return 0, false
	}
	f, err := strconv.ParseFloat(view(raw), 64)
	return f, err == nil && strconv.FormatFloat(f, 'f', 0, 64) == string(raw)
}

// parseFraction reads a number with fraction or exponent; false when it is too
// large for a double, or so small that only zero is left of it.
func parseFraction(raw []byte) (float64, bool) {
	f, err := strconv.ParseFloat(view(raw), 64)
	if err != nil {
		return 0, false
	}
	if f == 0 {
		mantissa, _, _ := strings.Cut(strings.ToLower(string(raw)), "e")
		return f, !strings.ContainsAny(mantissa, "123456789")
	}
	return f, true
}

// view reads bytes as a string that does not outlive the call it is for.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
