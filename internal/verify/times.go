package verify

import (
	"bytes"
	"strconv"
	"time"
)

// A contract may make a time of a text (docs/format/tables.md): the row then tells
// the moment, and not how it was written. So texts that are times count by their
// moment, in events and rows alike: what is finer than a microsecond makes no
// difference, and without an offset they are in UTC.

// appendText appends a text in canonical form.
func appendText(b, text []byte) []byte {
	at := len(b)
	b = appendString(b, text)
	return append(b[:at], asTime(b[at:])...)
}

// asTime gives the form of a moment to a text in canonical form that is a time.
func asTime(canonical []byte) []byte {
	if micros, ok := moment(canonical[1:]); ok {
		return appendMicros(canonical[:0], micros)
	}
	return canonical
}

func appendMicros(b []byte, micros int64) []byte {
	return strconv.AppendInt(append(b, 't'), micros, 10)
}

// moment reads 2026-01-31T09:00:00[.5][Z|+09:00], also with a blank for the T.
func moment(t []byte) (micros int64, ok bool) {
	const shape = "dddd-dd-ddTdd:dd:dd"
	if len(t) < len(shape) {
		return 0, false
	}
	for i := range len(shape) {
		c := t[i]
		switch shape[i] {
		case 'd':
			ok = '0' <= c && c <= '9'
		case 'T':
			ok = c == 'T' || c == 't' || c == ' '
		default:
			ok = c == shape[i]
		}
		if !ok {
			return 0, false
		}
	}
	number := func(from, to int) int {
		n, _ := strconv.Atoi(string(t[from:to])) // digits
		return n
	}
	year, month, day := number(0, 4), number(5, 7), number(8, 10)
	hour, minute, second := number(11, 13), number(14, 16), number(17, 19)
	date := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
	if date.Year() != year || int(date.Month()) != month || date.Day() != day || hour > 23 || minute > 59 || second > 60 {
		return 0, false
	}
	rest := t[len(shape):]
	if len(rest) > 0 && rest[0] == '.' {
		digits := rest[1:]
		if end := bytes.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
			digits = digits[:end]
		}
		if len(digits) == 0 {
			return 0, false
		}
		rest = rest[1+len(digits):]
		micros = int64(number(len(shape)+1, len(shape)+1+min(len(digits), 6)))
		for range 6 - min(len(digits), 6) {
			micros *= 10
		}
	}
	offset := 0 // minutes
	switch {
	case len(rest) == 0, len(rest) == 1 && rest[0]|0x20 == 'z':
	case len(rest) == 6 && (rest[0] == '+' || rest[0] == '-') && rest[3] == ':':
		zone, err := time.Parse("15:04", string(rest[1:]))
		if err != nil {
			return 0, false
		}
		if offset = zone.Hour()*60 + zone.Minute(); rest[0] == '-' {
			offset = -offset
		}
	default:
		return 0, false
	}
	if second == 60 && len(rest) > 0 && ((hour*60+minute-offset)%1440+1440)%1440 != 1439 {
		return 0, false
	}
	at := date.Add(time.Duration(hour*3600+minute*60+second-offset*60) * time.Second)
	if at.Before(firstTime) || at.After(lastTime) {
		return 0, false
	}
	return at.Unix()*1e6 + micros, true
}
