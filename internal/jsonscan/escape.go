package jsonscan

import (
	"unicode/utf16"
	"unicode/utf8"
)

// AppendEscape appends what the escape at the beginning of s stands for and
// tells how many bytes of s it takes. s is part of a valid JSON string and
// begins with a backslash. A lone surrogate gives U+FFFD.
func AppendEscape(dst, s []byte) ([]byte, int) {
	switch c := s[1]; c {
	case 'b':
		return append(dst, '\b'), 2
	case 'f':
		return append(dst, '\f'), 2
	case 'n':
		return append(dst, '\n'), 2
	case 'r':
		return append(dst, '\r'), 2
	case 't':
		return append(dst, '\t'), 2
	case 'u':
		r, n, _ := UnicodeEscape(s)
		return utf8.AppendRune(dst, r), n
	default: // " \ /
		return append(dst, c), 2
	}
}

// UnicodeEscape reads \uXXXX, or a surrogate pair of two, at the beginning of
// s; n is its length. lone says that it is half a pair, which r cannot be: r is
// then U+FFFD.
func UnicodeEscape(s []byte) (r rune, n int, lone bool) {
	r = hex4(s[2:])
	if !utf16.IsSurrogate(r) {
		return r, 6, false
	}
	if len(s) >= 12 && s[6] == '\\' && s[7] == 'u' {
		if pair := utf16.DecodeRune(r, hex4(s[8:])); pair != utf8.RuneError {
			return pair, 12, false
		}
	}
	return utf8.RuneError, 6, true
}

func hex4(s []byte) rune {
	var r rune
	for _, c := range s[:4] {
		switch {
		case c <= '9':
			c -= '0'
		default:
			c = c | 0x20 - 'a' + 10
		}
		r = r<<4 | rune(c)
	}
	return r
}
