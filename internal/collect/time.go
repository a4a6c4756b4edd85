package collect

import (
	"math"
	"strconv"
	"time"
)

// TimeText reads an event time: RFC 3339 with "T" or a blank, offset Z, ±hh,
// ±hhmm or ±hh:mm. It returns the time in strict RFC 3339: text itself where it
// already is, else written into buf[:0]. ok is false for anything else, for the
// year 0, which the calendars of engines do not have, and for the first moment of
// the year 1, which is how .NET and Go write that there is no time.
func TimeText(buf, text []byte) (out []byte, ok bool) {
	const dateTime = len("2006-01-02T15:04:05")
	if len(text) <= dateTime || len(text) > 64 {
		return nil, false
	}
	if text[4] != '-' || text[7] != '-' || text[13] != ':' || text[16] != ':' {
		return nil, false
	}
	century, ok1 := twoDigits(text, 0)
	year, ok2 := twoDigits(text, 2)
	month, ok3 := twoDigits(text, 5)
	day, ok4 := twoDigits(text, 8)
	hour, ok5 := twoDigits(text, 11)
	minute, ok6 := twoDigits(text, 14)
	second, ok7 := twoDigits(text, 17)
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6 && ok7) {
		return nil, false
	}
	year += 100 * century
	if year == 0 || string(text[:10]) == "0001-01-01" && hour+minute+second == 0 {
		return nil, false
	}
	if month < 1 || month > 12 || day < 1 || day > daysIn(year, month) || hour > 23 || minute > 59 || second > 60 {
		return nil, false
	}
	strict := text[10] == 'T' && second < 60
	if text[10] != 'T' && text[10] != 't' && text[10] != ' ' {
		return nil, false
	}
	i := dateTime
	if text[i] == '.' {
		for i++; i < len(text) && text[i]-'0' < 10; i++ {
		}
		if i == dateTime+1 || i == len(text) {
			return nil, false
		}
	}
	fraction := text[dateTime:i]
	offset, ok := readOffset(text[i:])
	if !ok {
		return nil, false
	}
	if strict && (text[i] == 'Z' || len(text)-i == len("+00:00")) {
		return text, true
	}
	if second == 60 { // a leap second: the moment behind it
		t := time.Date(year, time.Month(month), day, hour, minute, 59, 0, zone(offset)).Add(time.Second)
		return t.AppendFormat(buf[:0], time.RFC3339), true
	}
	out = append(buf[:0], text[:10]...)
	out = append(out, 'T')
	out = append(out, text[11:dateTime]...)
	out = append(out, fraction...)
	if offset == 0 {
		return append(out, 'Z'), true
	}
	sign := byte('+')
	if offset < 0 {
		sign, offset = '-', -offset
	}
	return append(out, sign, byte('0'+offset/600), byte('0'+offset/60%10), ':', byte('0'+offset%60/10), byte('0'+offset%10)), true
}

func zone(minutes int) *time.Location {
	if minutes == 0 {
		return time.UTC
	}
	return time.FixedZone("", minutes*60)
}

// readOffset reads the whole of s as an offset and gives it in minutes.
func readOffset(s []byte) (minutes int, ok bool) {
	if len(s) == 1 {
		return 0, s[0]|0x20 == 'z'
	}
	if len(s) < 3 || s[0] != '+' && s[0] != '-' {
		return 0, false
	}
	h, ok := twoDigits(s, 1)
	if !ok || h > 23 {
		return 0, false
	}
	m := 0
	switch {
	case len(s) == 3:
	case len(s) == 5:
		m, ok = twoDigits(s, 3)
	case len(s) == 6 && s[3] == ':':
		m, ok = twoDigits(s, 4)
	default:
		return 0, false
	}
	if !ok || m > 59 {
		return 0, false
	}
	minutes = 60*h + m
	if s[0] == '-' {
		minutes = -minutes
	}
	return minutes, true
}

func twoDigits(s []byte, i int) (int, bool) {
	if i+2 > len(s) {
		return 0, false
	}
	a, b := s[i]-'0', s[i+1]-'0'
	return int(a)*10 + int(b), a < 10 && b < 10
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// The magnitudes at which a number stops being seconds, milliseconds or
// microseconds since 1970: each is the year 5138 in its own unit and March 1973
// in the next.
const (
	secondsBelow = 1e11
	millisBelow  = 1e14
	microsBelow  = 1e17
)

// TimeNumber reads a JSON number as the seconds, milliseconds, microseconds or
// nanoseconds since 1970, by its magnitude, and writes the time in RFC 3339 into
// buf[:0]. ok is false beyond the years 1 to 9999.
func TimeNumber(buf, number []byte) (out []byte, ok bool) {
	whole, fraction, ok := splitDecimal(number)
	if !ok {
		f, err := strconv.ParseFloat(string(number), 64)
		if err != nil || math.Abs(f) >= math.MaxInt64 {
			return nil, false
		}
		trunc := math.Trunc(f)
		whole, fraction = int64(trunc), int64((f-trunc)*1e9)
	}
	size := whole
	if size < 0 {
		size = -size
	}
	var t time.Time
	switch {
	case size < secondsBelow:
		t = time.Unix(whole, fraction)
	case size < millisBelow:
		t = time.UnixMilli(whole).Add(time.Duration(fraction / 1e3))
	case size < microsBelow:
		t = time.UnixMicro(whole).Add(time.Duration(fraction / 1e6))
	default:
		t = time.Unix(whole/1e9, whole%1e9)
	}
	t = t.UTC()
	if y := t.Year(); y < 1 || y > 9999 || t.IsZero() {
		return nil, false
	}
	return t.AppendFormat(buf[:0], time.RFC3339Nano), true
}

// splitDecimal reads a number without exponent exactly: the whole part, and the
// fraction in billionths, both with the number's sign.
func splitDecimal(s []byte) (whole, fraction int64, ok bool) {
	sign := int64(1)
	if len(s) > 0 && s[0] == '-' {
		sign, s = -1, s[1:]
	}
	i := 0
	for ; i < len(s) && s[i]-'0' < 10; i++ {
		digit := int64(s[i] - '0')
		if whole > (math.MaxInt64-digit)/10 {
			return 0, 0, false
		}
		whole = whole*10 + digit
	}
	if i == 0 {
		return 0, 0, false
	}
	if i < len(s) {
		if s[i] != '.' {
			return 0, 0, false
		}
		unit := int64(1e8)
		for i++; i < len(s); i++ {
			if s[i]-'0' >= 10 {
				return 0, 0, false
			}
			fraction += unit * int64(s[i]-'0')
			unit /= 10
		}
	}
	return sign * whole, sign * fraction, true
}
