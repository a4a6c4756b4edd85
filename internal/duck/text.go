package duck

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// infinite names the two timestamps that are no time.
func infinite(v int64) string {
	switch v {
	case math.MaxInt64:
		return "infinity"
	case -math.MaxInt64:
		return "-infinity"
	}
	return ""
}

const second, day = int64(time.Second), 24 * int64(time.Hour)

// dateText: days since 1970 as 2006-01-02.
func dateText(days int32) string {
	switch days {
	case math.MaxInt32:
		return "infinity"
	case -math.MaxInt32:
		return "-infinity"
	}
	t := time.Unix(int64(days)*86400, 0).UTC()
	return yearText(t) + t.Format("-01-02") + era(t)
}

// yearText has at least four digits; years before 1 count backwards from 1 BC.
func yearText(t time.Time) string {
	y := t.Year()
	if y < 1 {
		y = 1 - y
	}
	return fmt.Sprintf("%04d", y)
}

func era(t time.Time) string {
	if t.Year() < 1 {
		return " (BC)"
	}
	return ""
}

// timeText: nanoseconds since midnight as 15:04:05.999999999.
func timeText(nanos int64) string {
	s := fmt.Sprintf("%02d:%02d:%02d", nanos/(3600*second), nanos/(60*second)%60, nanos/second%60)
	if f := nanos % second; f != 0 {
		s += strings.TrimRight(fmt.Sprintf(".%09d", f), "0")
	}
	return s
}

// timeTZText: 40 bits of microseconds, 24 bits of offset counted down from
// +15:59:59.
func timeTZText(bits uint64) string {
	offset := 16*3600 - 1 - int64(bits&0xFFFFFF)
	s, sign := timeText(int64(bits>>24)*1000), "+"
	if offset < 0 {
		sign, offset = "-", -offset
	}
	s += fmt.Sprintf("%s%02d", sign, offset/3600)
	if offset%3600 != 0 {
		s += fmt.Sprintf(":%02d", offset/60%60)
	}
	if offset%60 != 0 {
		s += fmt.Sprintf(":%02d", offset%60)
	}
	return s
}

// timestampText: a time without a zone, so without a Z.
func timestampText(v int64, unit time.Duration) string {
	if s := infinite(v); s != "" {
		return s
	}
	perSecond := int64(time.Second / unit)
	sec, rest := v/perSecond, v%perSecond
	t := time.Unix(sec, rest*int64(unit)).UTC()
	return yearText(t) + t.Format("-01-02T15:04:05.999999999") + era(t)
}

// String is DuckDB's own text: 1 year 2 months 3 days 04:05:06.7.
func (i interval) String() string {
	var parts []string
	add := func(n int64, unit string) {
		if n == 0 {
			return
		}
		if n != 1 && n != -1 {
			unit += "s"
		}
		parts = append(parts, fmt.Sprintf("%d %s", n, unit))
	}
	add(int64(i.months/12), "year")
	add(int64(i.months%12), "month")
	add(int64(i.days), "day")
	if i.micros != 0 || len(parts) == 0 {
		sign, micros := "", uint64(i.micros)
		if i.micros < 0 {
			sign, micros = "-", -micros
		}
		s := fmt.Sprintf("%s%02d:%02d:%02d", sign, micros/3_600_000_000, micros/60_000_000%60, micros/1_000_000%60)
		if f := micros % 1_000_000; f != 0 {
			s += strings.TrimRight(fmt.Sprintf(".%06d", f), "0")
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, " ")
}

// uuidText: DuckDB stores a UUID with its first bit inverted, so that it sorts
// as an integer.
func uuidText(h hugeint) string {
	upper := uint64(h.upper) ^ 1<<63
	return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", upper>>32, upper>>16&0xFFFF, upper&0xFFFF, h.lower>>48, h.lower&0xFFFFFFFFFFFF)
}

// bitText: the first byte counts the unused bits at the head of the second.
func bitText(b []byte) string {
	if len(b) < 2 {
		return ""
	}
	s := make([]byte, 0, 8*len(b))
	for _, x := range b[1:] {
		for i := 7; i >= 0; i-- {
			s = append(s, '0'+x>>i&1)
		}
	}
	return string(s[min(int(b[0]), len(s)):])
}
