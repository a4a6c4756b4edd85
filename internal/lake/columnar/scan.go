package columnar

import (
	"encoding/binary"
	"math/bits"
)

// The scanner takes RFC 8259 JSON strictly, as encoding/json does: no control
// characters in strings, no leading zeros. Unlike it, nesting has no limit.
// Every function gets the place to begin at and returns the place behind what
// it read, or -1 when that is not JSON.

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

func skipSpace(d []byte, i int) int {
	for i < len(d) && (d[i] == ' ' || d[i] == '\n' || d[i] == '\r' || d[i] == '\t') {
		i++
	}
	return i
}

// scanString reads a string whose first character is at i, behind the quote.
// end is the place of the closing quote, -1 if there is none. escaped and
// wide tell whether escapes and bytes above 0x7f occur.
func scanString(d []byte, i int) (end int, escaped, wide bool) {
	var high uint64
	for i+8 <= len(d) {
		w := binary.LittleEndian.Uint64(d[i:])
		quote := w ^ ('"' * ones)
		slash := w ^ ('\\' * ones)
		// A byte's high bit is set where it is a quote, a backslash or below 0x20;
		// borrows make false hits above a true one only, and the lowest counts.
		hit := ((quote-ones)&^quote | (slash-ones)&^slash | (w-0x20*ones)&^w) & highs
		if hit == 0 {
			high |= w & highs
			i += 8
			continue
		}
		at := bits.TrailingZeros64(hit)
		high |= w & highs & (1<<(at&^7) - 1)
		i += at >> 3
		if d[i] == '"' {
			return i, escaped, high != 0
		}
		if d[i] != '\\' {
			return -1, escaped, high != 0
		}
		escaped = true
		if i = skipEscape(d, i); i < 0 {
			return -1, true, high != 0
		}
	}
	for i < len(d) {
		switch c := d[i]; {
		case c == '"':
			return i, escaped, high != 0
		case c == '\\':
			escaped = true
			if i = skipEscape(d, i); i < 0 {
				return -1, true, high != 0
			}
		case c < 0x20:
			return -1, escaped, high != 0
		default:
			high |= uint64(c & 0x80)
			i++
		}
	}
	return -1, escaped, high != 0
}

// skipEscape reads one escape that begins at i.
func skipEscape(d []byte, i int) int {
	if i+1 >= len(d) {
		return -1
	}
	switch d[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
		if i+6 > len(d) {
			return -1
		}
		for _, c := range d[i+2 : i+6] {
			if !isHex(c) {
				return -1
			}
		}
		return i + 6
	}
	return -1
}

func isHex(c byte) bool {
	return c-'0' < 10 || c|0x20 >= 'a' && c|0x20 <= 'f'
}

// scanNumber reads a number. whole tells whether it is written without
// fraction and exponent.
func scanNumber(d []byte, i int) (end int, whole bool) {
	if i < len(d) && d[i] == '-' {
		i++
	}
	switch {
	case i >= len(d):
		return -1, false
	case d[i] == '0':
		i++
	case d[i]-'1' < 9:
		i = skipDigits(d, i)
	default:
		return -1, false
	}
	whole = true
	if i < len(d) && d[i] == '.' {
		whole = false
		from := i + 1
		if i = skipDigits(d, from); i == from {
			return -1, false
		}
	}
	if i < len(d) && d[i]|0x20 == 'e' {
		whole = false
		i++
		if i < len(d) && (d[i] == '+' || d[i] == '-') {
			i++
		}
		from := i
		if i = skipDigits(d, from); i == from {
			return -1, false
		}
	}
	return i, whole
}

func skipDigits(d []byte, i int) int {
	for i < len(d) && d[i]-'0' < 10 {
		i++
	}
	return i
}

// scanWord reads one of true, false, null.
func scanWord(d []byte, i int) int {
	for _, word := range [...]string{"true", "false", "null"} {
		if len(d)-i >= len(word) && string(d[i:i+len(word)]) == word {
			return i + len(word)
		}
	}
	return -1
}

// scanner skips values; the stack is kept between calls.
type scanner struct{ stack []byte }

// skip reads one value of any kind, which begins at i without white space.
func (s *scanner) skip(d []byte, i int) int {
	s.stack = s.stack[:0]
	for {
		// A value begins here.
		if i >= len(d) {
			return -1
		}
		switch c := d[i]; c {
		case '{', '[':
			s.stack = append(s.stack, c)
			i = skipSpace(d, i+1)
			if i < len(d) && d[i] == c+2 { // '}' is '{'+2, ']' is '['+2
				break // empty: closed below
			}
			if c == '{' {
				if i = skipKey(d, i); i < 0 {
					return -1
				}
			}
			continue
		case '"':
			end, _, _ := scanString(d, i+1)
			if end < 0 {
				return -1
			}
			i = end + 1
		case 't', 'f', 'n':
			if i = scanWord(d, i); i < 0 {
				return -1
			}
		default:
			if i, _ = scanNumber(d, i); i < 0 {
				return -1
			}
		}
		// A value has ended: close what ends here, or go on to the next one.
		for {
			if len(s.stack) == 0 {
				return i
			}
			i = skipSpace(d, i)
			if i >= len(d) {
				return -1
			}
			open := s.stack[len(s.stack)-1]
			if d[i] == open+2 {
				s.stack = s.stack[:len(s.stack)-1]
				i++
				continue
			}
			if d[i] != ',' {
				return -1
			}
			i = skipSpace(d, i+1)
			if open == '{' {
				if i = skipKey(d, i); i < 0 {
					return -1
				}
			}
			break
		}
	}
}

// skipKey reads a key, its colon and the white space behind.
func skipKey(d []byte, i int) int {
	if i >= len(d) || d[i] != '"' {
		return -1
	}
	end, _, _ := scanString(d, i+1)
	if end < 0 {
		return -1
	}
	i = skipSpace(d, end+1)
	if i >= len(d) || d[i] != ':' {
		return -1
	}
	return skipSpace(d, i+1)
}

// valid tells whether d is one JSON text.
func (s *scanner) valid(d []byte) bool {
	i := s.skip(d, skipSpace(d, 0))
	return i >= 0 && skipSpace(d, i) == len(d)
}
