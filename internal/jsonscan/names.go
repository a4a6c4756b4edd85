package jsonscan

import (
	"fmt"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxNames is the most names that one Names can hold.
const MaxNames = 24

// maxNameLen is the length in bytes beyond which the look-up by length ends.
const maxNameLen = 255

// Names is a set of member names to look for. It is made once and then only
// read, so it may be shared.
type Names struct {
	list  []string
	byLen [maxNameLen + 1]uint32 // bit i: list[i] has that length
}

// NewNames makes a set. The index of a name in list is its index in
// Scanner.Found; a name that stands twice in list keeps its first index.
func NewNames(list ...string) (*Names, error) {
	if len(list) > MaxNames {
		return nil, fmt.Errorf("look for %d member names: at most %d", len(list), MaxNames)
	}
	n := &Names{list: slices.Clone(list)}
	for i, name := range list {
		if len(name) > maxNameLen {
			return nil, fmt.Errorf("member name %.20q... has %d bytes: at most %d", name, len(name), maxNameLen)
		}
		if slices.Index(list, name) == i {
			n.byLen[len(name)] |= 1 << i
		}
	}
	return n, nil
}

// Index returns the place of name in the set, or -1.
func (n *Names) Index(name string) int { return slices.Index(n.list, name) }

// index returns the place of key, which has no escapes, or -1.
func (n *Names) index(key []byte) int {
	if len(key) > maxNameLen {
		return -1
	}
	for mask := n.byLen[len(key)]; mask != 0; mask &= mask - 1 {
		i := trailing(mask)
		if string(key) == n.list[i] {
			return i
		}
	}
	return -1
}

func (n *Names) indexEscaped(key []byte) int {
	if len(key) > 6*maxNameLen {
		return -1
	}
	var buf [6 * maxNameLen]byte
	return n.index(appendUnescaped(buf[:0], key))
}

// AppendString appends the characters of the string value v of text, escapes
// resolved. A surrogate without its other half becomes U+FFFD; bytes that are
// not UTF-8 stay.
func AppendString(dst, text []byte, v Value) []byte {
	return appendUnescaped(dst, text[v.Start+1:v.End-1])
}

// Text returns the characters of the string value v of text: a part of text
// itself where there are no escapes.
func Text(text []byte, v Value) []byte {
	if v.Kind == String {
		return text[v.Start+1 : v.End-1 : v.End-1]
	}
	return AppendString(make([]byte, 0, v.End-v.Start), text, v)
}

// appendUnescaped resolves the escapes of s, which a scan has found well-formed.
func appendUnescaped(dst, s []byte) []byte {
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			dst = append(dst, s[i])
			i++
			continue
		}
		c := s[i+1]
		i += 2
		switch c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r := hex4(s[i:])
			i += 4
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if i+6 <= len(s) && s[i] == '\\' && s[i+1] == 'u' {
					low = hex4(s[i+2:])
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, r)
		default: // " \ /
			dst = append(dst, c)
		}
	}
	return dst
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
