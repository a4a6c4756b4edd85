package columnar

import (
	"bytes"
	"unicode/utf8"

	"naru/internal/jsonscan"
)

const replacement = "\uFFFD"

// appendDecoded appends the text of a JSON string, given without its quotes:
// escapes decoded (\u0000 stays a NUL), a lone surrogate and invalid UTF-8
// become U+FFFD, one for each invalid byte. s is known to be a valid string.
func appendDecoded(dst, s []byte) []byte {
	for len(s) > 0 {
		plain := bytes.IndexByte(s, '\\')
		if plain < 0 {
			return appendUTF8(dst, s)
		}
		dst = appendUTF8(dst, s[:plain])
		s = s[plain:]
		var n int
		dst, n = jsonscan.AppendEscape(dst, s)
		s = s[n:]
	}
	return dst
}

// appendUTF8 appends s, invalid bytes as U+FFFD.
func appendUTF8(dst, s []byte) []byte {
	for !utf8.Valid(s) {
		i := 0
		for i < len(s) {
			r, n := utf8.DecodeRune(s[i:])
			if r == utf8.RuneError && n == 1 {
				break
			}
			i += n
		}
		dst = append(dst, s[:i]...)
		dst = append(dst, replacement...)
		s = s[i+1:]
	}
	return append(dst, s...)
}

// appendJSON appends a JSON text as it was sent, except that every reader
// must be able to parse it: invalid UTF-8 and escaped lone surrogates become
// U+FFFD.
func appendJSON(dst, raw []byte) []byte {
	for {
		i := bytes.IndexByte(raw, '\\')
		if i < 0 {
			return appendUTF8(dst, raw)
		}
		dst = appendUTF8(dst, raw[:i])
		raw = raw[i:]
		n := 2
		if raw[1] == 'u' {
			var lone bool
			if _, n, lone = jsonscan.UnicodeEscape(raw); lone {
				dst = append(dst, `\ufffd`...)
				raw = raw[n:]
				continue
			}
		}
		dst = append(dst, raw[:n]...)
		raw = raw[n:]
	}
}
