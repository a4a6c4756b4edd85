package jsonscan

import (
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"
)

// AppendQuoted appends s as a JSON string, quotes included. What is not UTF-8
// becomes U+FFFD, one for each invalid byte, because JSON text must be UTF-8.
// Control characters are escaped, and so is DEL, which a terminal would obey.
func AppendQuoted[T string | []byte](dst []byte, s T) []byte { return quote(dst, s, &quoted) }

// AppendQuotedHTML is AppendQuoted with <, > and & escaped too, so that an error
// that quotes its input is harmless wherever it is shown.
func AppendQuotedHTML[T string | []byte](dst []byte, s T) []byte {
	return quote(dst, s, &quotedHTML)
}

// quoted tells which bytes cannot stand as they are.
var quoted, quotedHTML = quotedBytes(`"\`), quotedBytes(`"\<>&`)

func quotedBytes(marks string) (set [256]bool) {
	for c := range byte(' ') {
		set[c] = true
	}
	set[0x7f] = true
	for i := range len(marks) {
		set[marks[i]] = true
	}
	return set
}

func quote[T string | []byte](dst []byte, s T, set *[256]bool) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start, seen := 0, byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		seen |= c
		if !set[c] {
			continue
		}
		if seen < utf8.RuneSelf { // ASCII up to here
			dst = append(dst, s[start:i]...)
		} else {
			dst, seen = AppendValid(dst, s[start:i]), 0
		}
		start = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(AppendValid(dst, s[start:]), '"')
}

// ASCII tells whether all bytes of s are ASCII.
func ASCII(s []byte) bool {
	for len(s) >= 8 {
		if binary.LittleEndian.Uint64(s)&0x8080808080808080 != 0 {
			return false
		}
		s = s[8:]
	}
	for _, c := range s {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// AppendValid appends s, invalid bytes as U+FFFD, one for each.
func AppendValid[T string | []byte](dst []byte, s T) []byte {
	from := len(dst)
	dst = append(dst, s...)
	if utf8.Valid(dst[from:]) {
		return dst
	}
	bad := string(dst[from:])
	dst = dst[:from]
	for _, r := range bad {
		dst = utf8.AppendRune(dst, r)
	}
	return dst
}

// AppendDouble appends a finite float64 so that it reads back the same, in exponent form
// only where the plain one is long.
func AppendDouble(dst []byte, f float64) []byte {
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		return strconv.AppendFloat(dst, f, 'e', -1, 64)
	}
	n := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
	for _, c := range dst[n:] {
		if c == '.' {
			return dst
		}
	}
	return append(dst, ".0"...) // a double stays one for whoever reads it
}
