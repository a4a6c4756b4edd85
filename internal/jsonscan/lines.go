package jsonscan

import (
	"bytes"
	"math/bits"
)

func trailing(mask uint32) int { return bits.TrailingZeros32(mask) }

// Item is one part of a body that holds several values.
type Item struct {
	Start, End int // text[Start:End], no white space around it
	// Err is nil for an object, a *NotObject for another JSON value, and the
	// Scanner's *Error for what is not JSON.
	Err error
}

// NotObject is the error of an item that is JSON, but not an object.
type NotObject struct{ Kind Kind }

func (e *NotObject) Error() string { return "the item is " + e.Kind.article() + ", not an object" }

func (k Kind) article() string {
	switch k {
	case String, Escaped:
		return "a string"
	case Number:
		return "a number"
	case True, False:
		return "a boolean"
	case Null:
		return "null"
	case Array:
		return "an array"
	case Object:
		return "an object"
	}
	return "nothing"
}

// KindAt tells the kind of the value that begins with c.
func KindAt(c byte) Kind {
	switch c {
	case '{':
		return Object
	case '[':
		return Array
	case '"':
		return String
	case 't':
		return True
	case 'f':
		return False
	case 'n':
		return Null
	}
	if c == '-' || c-'0' < 10 {
		return Number
	}
	return None
}

// notObjects holds one error for each kind, so that none is allocated.
var notObjects = func() (all [Array + 1]*NotObject) {
	for k := range all {
		all[k] = &NotObject{Kind: Kind(k)}
	}
	return all
}()

// Lines splits NDJSON: objects separated by line breaks, other white space or
// nothing at all. An object may span lines. What is not an object is an item
// with an error that ends at the end of its line.
type Lines struct {
	text []byte
	pos  int
	// ahead is how many bytes failed objects may still be followed beyond their
	// own line. Without it a body of lines that each open an object would be
	// read once for every line; when it is used up, lines are judged alone.
	ahead int
}

// Reset begins at the start of text. A UTF-8 byte order mark is skipped.
func (l *Lines) Reset(text []byte) {
	*l = Lines{text: text, ahead: max(len(text), 1<<16)}
	l.pos = SkipMark(text)
}

// SkipMark returns the place behind a UTF-8 byte order mark, or 0.
func SkipMark(text []byte) int {
	if bytes.HasPrefix(text, []byte("\xef\xbb\xbf")) {
		return 3
	}
	return 0
}

// Next returns the next item; ok is false at the end. Members of an object that
// names lists are in s.Found.
func (l *Lines) Next(s *Scanner, names *Names) (item Item, ok bool) {
	text := l.text
	start := Space(text, l.pos)
	if start >= len(text) {
		l.pos = start
		return Item{}, false
	}
	if text[start] != '{' {
		end := lineEnd(text, start)
		l.pos = end
		end = trimEnd(text, start, end)
		item = Item{Start: start, End: end}
		switch {
		case !s.Valid(text[start:end]):
			s.Err.Offset += start
			item.Err = &s.Err
		default:
			item.Err = notObjects[KindAt(text[start])]
		}
		return item, true
	}
	if l.ahead > 0 {
		if end := s.Value(text, start, names); end >= 0 {
			l.pos = end
			return Item{Start: start, End: end}, true
		}
		end := lineEnd(text, start)
		if s.Err.Offset <= end {
			l.pos = end
			return Item{Start: start, End: trimEnd(text, start, end), Err: &s.Err}, true
		}
		l.ahead -= s.Err.Offset - end
	}
	// Judge the line alone: it is bad, and it says why within itself.
	end := lineEnd(text, start)
	if v := s.Value(text[:end], start, names); v >= 0 {
		l.pos = v
		return Item{Start: start, End: v}, true
	}
	l.pos = end
	return Item{Start: start, End: trimEnd(text, start, end), Err: &s.Err}, true
}

func lineEnd(text []byte, i int) int {
	if n := bytes.IndexByte(text[i:], '\n'); n >= 0 {
		return i + n
	}
	return len(text)
}

func trimEnd(text []byte, start, end int) int {
	for end > start && (text[end-1] == ' ' || text[end-1] == '\t' || text[end-1] == '\r') {
		end--
	}
	return end
}

// Elements walks over the elements of a JSON array.
type Elements struct {
	text   []byte
	pos    int  // at the opening bracket, later behind an element or the array
	inside bool // an element has been read
}

// Reset begins with the array at text[at], which must be "[". It scans nothing
// yet.
func (e *Elements) Reset(text []byte, at int) {
	*e = Elements{text: text, pos: at}
}

// Next returns the next element; ok is false at the end of the array or after a
// failure. After the end, err is nil and End is the place behind the array.
// Members of an element that is an object are in s.Found.
func (e *Elements) Next(s *Scanner, names *Names) (item Item, ok bool, err error) {
	text := e.text
	i := e.pos
	if e.inside {
		i = Space(text, i)
		if i >= len(text) {
			s.failEnd(text, endsInside)
			return item, false, &s.Err
		}
		switch text[i] {
		case ']':
			e.pos = i + 1
			return item, false, nil
		case ',':
		default:
			s.fail(i, wantCommaArr)
			return item, false, &s.Err
		}
	}
	i = Space(text, i+1)
	if !e.inside && i < len(text) && text[i] == ']' {
		e.pos = i + 1
		return item, false, nil
	}
	end := s.Value(text, i, names)
	if end < 0 {
		return item, false, &s.Err
	}
	e.pos, e.inside = end, true
	item = Item{Start: i, End: end}
	if text[i] != '{' {
		item.Err = notObjects[KindAt(text[i])]
	}
	return item, true, nil
}

// End is the place behind the array once Next has returned false without an error.
func (e *Elements) End() int { return e.pos }
