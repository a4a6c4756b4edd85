// Package jsonscan checks JSON text in one pass and tells where chosen
// top-level members stand, without trees and without allocation.
//
// It accepts exactly what encoding/json.Valid accepts: RFC 8259, at most
// MaxDepth levels, and any bytes inside strings that are not control
// characters: invalid UTF-8 passes through as it is.
package jsonscan

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// MaxDepth is the deepest nesting of arrays and objects.
const MaxDepth = 10000

// Kind is the kind of a JSON value.
type Kind uint8

// The kinds. A String has no escapes between its quotes, an Escaped one has.
const (
	None Kind = iota
	String
	Escaped
	Number
	True
	False
	Null
	Object
	Array
)

// Value is the place of a value: text[Start:End], quotes and brackets included.
type Value struct {
	Start, End int
	Kind       Kind
}

// Error says at which byte of the text the grammar was broken, and how. A
// Scanner owns its Error: it is valid until the next call.
type Error struct {
	Offset int
	Reason string
	// More: the text ended where something had to follow.
	More bool
}

func (e *Error) Error() string { return fmt.Sprintf("%s at byte %d", e.Reason, e.Offset) }

// Scanner scans values. It holds the nesting (1.2 KB), so keep one and reuse
// it. Not for concurrent use.
type Scanner struct {
	// Err describes the last failure.
	Err Error
	// Found are the members asked for in the last scan, indexed as Names has
	// them. A name that occurs twice counts with its first value that is not
	// null: the one that a table's column shows (EXACTNESS 5 keeps the others in
	// _rescued), so that _type, _time and _id agree with their columns.
	Found [MaxNames]Value
	// Has has bit i set when Found[i] is from the last scan.
	Has uint32

	// stack has one bit a level: 1 for an object.
	stack [MaxDepth/64 + 1]uint64
}

// Valid tells whether text is one JSON value with nothing but white space
// around it.
func (s *Scanner) Valid(text []byte) bool {
	end := s.Value(text, Space(text, 0), nil)
	if end < 0 {
		return false
	}
	if end = Space(text, end); end < len(text) {
		s.fail(end, "unexpected text behind the value")
		return false
	}
	return true
}

// Space returns the first place at or behind i that is not JSON white space.
func Space(text []byte, i int) int {
	for i < len(text) {
		switch text[i] {
		case ' ', '\t', '\n', '\r':
			i++
		default:
			return i
		}
	}
	return i
}

func (s *Scanner) fail(at int, reason string) int {
	s.Err = Error{Offset: at, Reason: reason}
	return -1
}

func (s *Scanner) failEnd(text []byte, reason string) int {
	s.Err = Error{Offset: len(text), Reason: reason, More: true}
	return -1
}

// The reasons. They are constants so that a failure allocates nothing.
const (
	endsInside   = "the JSON ends too early"
	wantValue    = "expected a JSON value"
	wantKey      = `expected a quoted member name`
	wantKeyOrEnd = `expected a quoted member name or "}"`
	wantColon    = `expected ":" behind the member name`
	wantCommaObj = `expected "," or "}" behind the member`
	wantCommaArr = `expected "," or "]" behind the element`
	badNumber    = "malformed number"
	badLiteral   = "expected true, false or null"
	badEscape    = "malformed escape in a string"
	badControl   = "a control character in a string must be escaped"
	tooDeep      = "nested deeper than 10000 levels"
)

// Value scans the value that begins at text[at], which must not be white
// space, and returns the place behind it. When the value is an object and
// names is not nil, the members of its top level that names lists are put into
// Found. It returns -1 after a failure, which Err describes.
func (s *Scanner) Value(text []byte, at int, names *Names) int {
	s.Has = 0
	var (
		i        = at
		depth    = 0
		slot     = -1 // of the member whose value is being read
		start    = 0
		kind     Kind
		c        byte
		end      int
		keyStart int
		esc      bool
		inObject bool
	)

value:
	if i >= len(text) {
		return s.failEnd(text, endsInside)
	}
	c = text[i]
	if c <= ' ' {
		i = Space(text, i)
		if i >= len(text) {
			return s.failEnd(text, endsInside)
		}
		c = text[i]
	}
	if depth == 1 && slot >= 0 {
		start = i
	}
	switch c {
	case '"':
		end, esc = scanString(text, i+1)
		if end < 0 {
			return s.failString(text, end)
		}
		kind = String
		if esc {
			kind = Escaped
		}
		i = end
	case '{':
		if depth >= MaxDepth {
			return s.fail(i, tooDeep)
		}
		s.stack[depth>>6] |= 1 << (depth & 63)
		depth++
		inObject = true
		i = Space(text, i+1)
		if i >= len(text) {
			return s.failEnd(text, endsInside)
		}
		if text[i] == '}' {
			goto pop
		}
		if text[i] != '"' {
			return s.fail(i, wantKeyOrEnd)
		}
		goto key
	case '[':
		if depth >= MaxDepth {
			return s.fail(i, tooDeep)
		}
		s.stack[depth>>6] &^= 1 << (depth & 63)
		depth++
		inObject = false
		i = Space(text, i+1)
		if i >= len(text) {
			return s.failEnd(text, endsInside)
		}
		if text[i] == ']' {
			goto pop
		}
		goto value
	case 't':
		if end = literal(text, i, "true"); end < 0 {
			return s.failLiteral(text, end)
		}
		i, kind = end, True
	case 'f':
		if end = literal(text, i, "false"); end < 0 {
			return s.failLiteral(text, end)
		}
		i, kind = end, False
	case 'n':
		if end = literal(text, i, "null"); end < 0 {
			return s.failLiteral(text, end)
		}
		i, kind = end, Null
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		if end = scanNumber(text, i); end < 0 {
			if ^end >= len(text) {
				return s.failEnd(text, endsInside)
			}
			return s.fail(^end, badNumber)
		}
		i, kind = end, Number
	default:
		return s.fail(i, wantValue)
	}

after: // a value has ended at i
	if depth == 1 && slot >= 0 {
		if s.Has>>slot&1 == 0 || s.Found[slot].Kind == Null {
			s.Found[slot] = Value{Start: start, End: i, Kind: kind}
			s.Has |= 1 << slot
		}
		slot = -1
	}
	if depth == 0 {
		return i
	}
	if i >= len(text) {
		return s.failEnd(text, endsInside)
	}
	c = text[i]
	if c <= ' ' {
		i = Space(text, i)
		if i >= len(text) {
			return s.failEnd(text, endsInside)
		}
		c = text[i]
	}
	if inObject {
		switch c {
		case ',':
			i++
			if i < len(text) && text[i] == '"' {
				goto key
			}
			i = Space(text, i)
			if i >= len(text) {
				return s.failEnd(text, endsInside)
			}
			if text[i] != '"' {
				return s.fail(i, wantKey)
			}
			goto key
		case '}':
			goto pop
		}
		return s.fail(i, wantCommaObj)
	}
	switch c {
	case ',':
		i++
		goto value
	case ']':
		goto pop
	}
	return s.fail(i, wantCommaArr)

key: // text[i] is the opening quote
	keyStart = i + 1
	end, esc = scanString(text, keyStart)
	if end < 0 {
		return s.failString(text, end)
	}
	if depth == 1 && names != nil {
		if !esc {
			slot = names.index(text[keyStart : end-1])
		} else {
			slot = names.indexEscaped(text[keyStart : end-1])
		}
	}
	i = end
	if i < len(text) && text[i] == ':' {
		i++
		goto value
	}
	i = Space(text, i)
	if i >= len(text) {
		return s.failEnd(text, endsInside)
	}
	if text[i] != ':' {
		return s.fail(i, wantColon)
	}
	i++
	goto value

pop: // text[i] closes an array or object
	kind = Array
	if inObject {
		kind = Object
	}
	i++
	depth--
	if depth > 0 {
		inObject = s.stack[(depth-1)>>6]>>((depth-1)&63)&1 != 0
	}
	goto after
}

// StringEnd scans a string from behind its opening quote, which stands at
// text[i-1]. It returns the place behind the closing quote and whether escapes
// occur; -1 when that is no string.
func StringEnd(text []byte, i int) (end int, escaped bool) {
	if end, escaped = scanString(text, i); end < 0 {
		return -1, escaped
	}
	return end, escaped
}

// NumberEnd scans the number that begins at text[i] and returns the place
// behind it; -1 when that is no number.
func NumberEnd(text []byte, i int) int {
	if i >= len(text) {
		return -1
	}
	return max(scanNumber(text, i), -1)
}

const (
	ones   = 0x0101010101010101
	highs  = 0x8080808080808080
	quotes = '"' * ones
	slants = '\\' * ones
	blanks = ' ' * ones
)

// scanString scans from behind the opening quote to behind the closing one. A
// failure gives ^place, which is ^len(text) when the text ends inside.
func scanString(text []byte, i int) (end int, esc bool) {
	for {
		// Eight bytes at a time: a quote, a backslash or a control character
		// sets its byte's high bit. A borrow can only set bits above the first
		// hit, so the lowest one is right.
		for i+8 <= len(text) {
			w := binary.LittleEndian.Uint64(text[i:])
			hit := ((w ^ quotes) - ones) | ((w ^ slants) - ones) | (w - blanks)
			hit &= ^w & highs
			if hit != 0 {
				i += bits.TrailingZeros64(hit) >> 3
				break
			}
			i += 8
		}
		// Either a hit, or the last few bytes of the text.
		for i < len(text) && text[i] >= ' ' && text[i] != '"' && text[i] != '\\' {
			i++
		}
		if i >= len(text) {
			return ^len(text), esc
		}
		switch c := text[i]; {
		case c == '"':
			return i + 1, esc
		case c != '\\':
			return ^i, esc
		}
		esc = true
		if i+1 >= len(text) {
			return ^len(text), esc
		}
		switch text[i+1] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			i += 2
		case 'u':
			for j := i + 2; j < i+6; j++ {
				if j >= len(text) {
					return ^len(text), esc
				}
				if !isHex(text[j]) {
					return ^i, esc
				}
			}
			i += 6
		default:
			return ^i, esc
		}
	}
}

func (s *Scanner) failString(text []byte, end int) int {
	at := ^end
	switch {
	case at >= len(text):
		return s.failEnd(text, endsInside)
	case text[at] == '\\':
		return s.fail(at, badEscape)
	}
	return s.fail(at, badControl)
}

func isHex(c byte) bool {
	return c-'0' < 10 || c|0x20 >= 'a' && c|0x20 <= 'f'
}

// literal matches word at i; a failure gives ^place.
func literal(text []byte, i int, word string) int {
	if len(text)-i >= len(word) && string(text[i:i+len(word)]) == word {
		return i + len(word)
	}
	for j := range len(word) {
		if i+j >= len(text) || text[i+j] != word[j] {
			return ^(i + j)
		}
	}
	return ^i // not reached
}

func (s *Scanner) failLiteral(text []byte, end int) int {
	if ^end >= len(text) {
		return s.failEnd(text, endsInside)
	}
	return s.fail(^end, badLiteral)
}

// scanNumber scans a number at i; a failure gives ^place.
func scanNumber(text []byte, i int) int {
	if text[i] == '-' {
		i++
	}
	if i >= len(text) {
		return ^i
	}
	switch c := text[i]; {
	case c == '0':
		i++
	case c-'1' < 9:
		for i++; i < len(text) && text[i]-'0' < 10; i++ {
		}
	default:
		return ^i
	}
	if i < len(text) && text[i] == '.' {
		i++
		if i >= len(text) || text[i]-'0' >= 10 {
			return ^i
		}
		for i++; i < len(text) && text[i]-'0' < 10; i++ {
		}
	}
	if i < len(text) && text[i]|0x20 == 'e' {
		i++
		if i < len(text) && (text[i] == '+' || text[i] == '-') {
			i++
		}
		if i >= len(text) || text[i]-'0' >= 10 {
			return ^i
		}
		for i++; i < len(text) && text[i]-'0' < 10; i++ {
		}
	}
	return i
}
