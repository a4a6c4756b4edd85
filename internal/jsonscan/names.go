package jsonscan

import (
	"fmt"
	"slices"
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
		var n int
		dst, n = AppendEscape(dst, s[i:])
		i += n
	}
	return dst
}
