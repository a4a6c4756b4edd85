package contract

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"naru/internal/jsonscan"
)

// Scratch is what Check works with. Keep one and reuse it; not for concurrent
// use. The zero value is ready.
type Scratch struct {
	// Again: the bytes come from the stream rejected and PII actions have changed
	// them. What an action has changed was judged before, and is not judged again.
	Again bool
	// Tell: LeftOut is wanted, the JSONPaths of what makes no column because unknown
	// fields are discarded; the first MaxViolations of them.
	Tell    bool
	LeftOut []string

	found []Violation
	way   []step
	scan  jsonscan.Scanner
	text  []byte   // the string that is being judged, escapes resolved
	key   []byte   // the same of a name
	seen  []uint64 // of objects with many members
	num   decimal
	canon canonicalizer
}

// Check judges an event: data is one JSON value. It returns what is wrong, in the
// order of the event, at most MaxViolations; nil when nothing is. The answer is
// valid until the scratch is used again, and holds no part of data.
//
// A name that stands twice: every value that it has is judged, null only when
// there is no other. So whatever a column takes of them has been judged.
func (c *Contract) Check(data []byte, s *Scratch) []Violation {
	s.found, s.way, s.seen, s.LeftOut = s.found[:0], s.way[:0], s.seen[:0], s.LeftOut[:0]
	i := jsonscan.Space(data, 0)
	if i < len(data) && data[i] != '{' {
		if i = s.scan.Value(data, i, nil); i >= 0 {
			s.breaks(c.root, ruleType, data[:i], wantKind[objectKind])
		}
	} else {
		i = s.object(c.root, data, i)
	}
	if i >= 0 {
		if i = jsonscan.Space(data, i); i < len(data) {
			i = -1
		}
	}
	if i < 0 {
		s.found, s.way, s.LeftOut = s.found[:0], s.way[:0], s.LeftOut[:0]
		reason := s.reason(data)
		s.add(Violation{Rule: ruleJSON, Path: "$", Want: "JSON; " + reason, Line: c.Line})
		return s.found
	}
	if c.schema != nil {
		s.checkSchema(c, data)
	}
	if len(s.found) == 0 {
		return nil
	}
	return s.found
}

// reason says why data is not JSON.
func (s *Scratch) reason(data []byte) string {
	if s.scan.Valid(data) {
		return "nesting is too deep" // cannot be: both scan alike
	}
	return s.scan.Err.Error()
}

// object judges the object at data[i] and returns the place behind it; -1: that
// is not JSON.
func (s *Scratch) object(n *node, data []byte, i int) int {
	if i >= len(data) {
		return -1
	}
	start := i
	var few uint64 // which members have had a value that is not null
	many := -1     // where in s.seen they stand instead
	if len(n.members) > 64 {
		many = len(s.seen)
		for range (len(n.members) + 63) / 64 {
			s.seen = append(s.seen, 0)
		}
	}
	count, next := 0, 0
	i = jsonscan.Space(data, i+1)
	if i < len(data) && data[i] == '}' {
		i++
	} else {
		for {
			var m *node
			at := -1
			if next < len(n.members) {
				if lit := n.members[next].lit; lit != "" && len(data)-i > len(lit) && string(data[i:i+len(lit)]) == lit {
					at, m, i = next, n.members[next], i+len(lit)
				}
			}
			if m == nil {
				var key []byte
				if key, i = s.name(data, i); i < 0 {
					return -1
				}
				if k, ok := n.index[string(key)]; ok {
					at, m = k, n.members[k]
				} else if n.frozen {
					s.unknown(n, key)
				} else if n.discard && s.Tell {
					s.leftOut(key)
				}
			}
			count++
			if i < len(data) && data[i] <= ' ' {
				i = jsonscan.Space(data, i)
			}
			if i >= len(data) {
				return -1
			}
			if m == nil {
				i = s.skip(data, i)
			} else {
				next = at + 1
				if data[i] != 'n' {
					if many < 0 {
						few |= 1 << at
					} else {
						s.seen[many+at>>6] |= 1 << (at & 63)
					}
				}
				i = s.member(m, data, i)
			}
			if i < 0 {
				return -1
			}
			if i < len(data) && data[i] <= ' ' {
				i = jsonscan.Space(data, i)
			}
			if i >= len(data) {
				return -1
			}
			if data[i] == '}' {
				i++
				break
			}
			if data[i] != ',' {
				return -1
			}
			if i++; i < len(data) && data[i] <= ' ' {
				i = jsonscan.Space(data, i)
			}
		}
	}
	for k, m := range n.members {
		if !m.required {
			continue
		}
		if many < 0 && few>>k&1 != 0 || many >= 0 && s.seen[many+k>>6]>>(k&63)&1 != 0 {
			continue
		}
		if s.Again && m.acts {
			continue
		}
		s.missing(n, m, data[start:i])
	}
	if many >= 0 {
		s.seen = s.seen[:many]
	}
	if n.minProps >= 0 || n.maxProps >= 0 {
		s.members(n, data, start, i, count)
	}
	return i
}

// name reads a name and its colon; the name has its escapes resolved and is valid
// until the next one.
func (s *Scratch) name(data []byte, i int) (key []byte, end int) {
	if i >= len(data) || data[i] != '"' {
		return nil, -1
	}
	end, escaped := jsonscan.StringEnd(data, i+1)
	if end < 0 {
		return nil, -1
	}
	key = data[i+1 : end-1]
	if escaped {
		s.key = jsonscan.AppendString(s.key[:0], data, jsonscan.Value{Start: i, End: end, Kind: jsonscan.Escaped})
		key = s.key
	}
	if end < len(data) && data[end] == ':' {
		return key, end + 1
	}
	end = jsonscan.Space(data, end)
	if end >= len(data) || data[end] != ':' {
		return nil, -1
	}
	return key, end + 1
}

// skip passes over a value that the contract says nothing of.
func (s *Scratch) skip(data []byte, i int) int {
	switch c := data[i]; {
	case c == '"':
		end, _ := jsonscan.StringEnd(data, i+1)
		return end
	case c == '-' || c-'0' < 10:
		return jsonscan.NumberEnd(data, i)
	}
	return s.scan.Value(data, i, nil)
}

// member judges the value of a member, or of an item.
func (s *Scratch) member(m *node, data []byte, i int) int {
	switch c := data[i]; {
	case s.Again && m.pii != PIINone:
		return s.skip(data, i)
	case c == '"' && m.kind == stringKind:
		end, escaped := jsonscan.StringEnd(data, i+1)
		if end < 0 || !m.checks || !escaped && m.short(data[i+1:end-1]) {
			return end
		}
		s.way = append(s.way, step{n: m})
		s.string(m, data[i:end])
		s.way = s.way[:len(s.way)-1]
		return end
	case (c == '-' || c-'0' < 10) && (m.kind == integerKind || m.kind == numberKind):
		end := jsonscan.NumberEnd(data, i)
		if end < 0 {
			return -1
		}
		if v, ok := smallWhole(data[i:end]); ok && s.small(m, v) {
			return end
		}
		s.way = append(s.way, step{n: m})
		s.number(m, data[i:end])
		s.way = s.way[:len(s.way)-1]
		return end
	}
	s.way = append(s.way, step{n: m})
	i = s.value(m, data, i)
	if i >= 0 {
		s.way = s.way[:len(s.way)-1]
	}
	return i
}

// short tells, where it can be told at a glance, that a text without escapes keeps
// all rules: a character has one to four bytes.
func (n *node) short(text []byte) bool {
	if n.pattern != nil || n.format != nil || n.maxLen >= 0 && len(text) > n.maxLen || n.minLen > (len(text)+3)/4 {
		return false
	}
	return n.enum == nil || n.enum.hasText(text)
}

// value judges a value of any kind and returns the place behind it.
func (s *Scratch) value(n *node, data []byte, i int) int {
	c := data[i]
	switch {
	case c == 'n' || n.kind == anyKind:
		end := s.skip(data, i)
		if end >= 0 && n.enum != nil && c != 'n' {
			s.enumOf(n, data[i:end])
		}
		return end
	case c == '{' && n.kind == objectKind:
		return s.object(n, data, i)
	case c == '[' && n.kind == arrayKind:
		return s.array(n, data, i)
	}
	end := s.skip(data, i)
	if end < 0 {
		return -1
	}
	raw := data[i:end]
	switch {
	case c == '"' && n.isJSON:
		s.embedded(n, raw)
	case c == '"' && n.kind == stringKind:
		s.string(n, raw)
	case c == '"' && n.kind.isTemporal():
		s.time(n, raw)
	case (c == '-' || c-'0' < 10) && (n.kind == integerKind || n.kind == numberKind):
		s.number(n, raw)
	case (c == 't' || c == 'f') && n.kind == booleanKind:
		if n.enum != nil {
			s.enumOf(n, raw)
		}
	default:
		s.breaks(n, ruleType, raw, n.want())
	}
	return end
}

// want says what a value of the node looks like.
func (n *node) want() string {
	if n.layout != nil {
		return n.layout.name
	}
	return wantKind[n.kind]
}

// unescape resolves the escapes of a string, in text where there are any.
func unescape(text *[]byte, raw []byte) []byte {
	in := raw[1 : len(raw)-1]
	if bytes.IndexByte(in, '\\') < 0 {
		return in
	}
	*text = jsonscan.AppendString((*text)[:0], raw, jsonscan.Value{End: len(raw), Kind: jsonscan.Escaped})
	return *text
}

func (s *Scratch) string(n *node, raw []byte) {
	if !n.checks {
		return
	}
	text := unescape(&s.text, raw)
	if n.minLen >= 0 || n.maxLen >= 0 {
		size := utf8.RuneCount(text)
		if size < n.minLen {
			s.breaks(n, ruleMinLength, raw, fmt.Sprintf("at least %d characters, not %d", n.minLen, size))
		}
		if n.maxLen >= 0 && size > n.maxLen {
			s.breaks(n, ruleMaxLength, raw, fmt.Sprintf("at most %d characters, not %d", n.maxLen, size))
		}
	}
	if n.enum != nil {
		if !n.enum.hasText(text) && !s.inEnum(n.enum, raw) {
			s.breaks(n, ruleEnum, raw, n.enum.want())
		}
	}
	if n.pattern != nil && !n.pattern.Match(text) {
		s.breaks(n, rulePattern, raw, "the pattern "+n.patternText)
	}
	if n.format != nil && !n.format(text) {
		s.breaks(n, ruleFormat, raw, "the format "+n.formatName)
	}
}

func (s *Scratch) time(n *node, raw []byte) {
	c, ok := readTime(n.layout, unescape(&s.text, raw))
	if !ok {
		rule := ruleType
		if n.lines[ruleFormat] > 0 {
			rule = ruleFormat
		}
		s.breaks(n, rule, raw, n.layout.name)
		return
	}
	if e := n.from; e != nil {
		if d := c.compare(e.moment); d < 0 || d == 0 && e.exclusive {
			s.breaks(n, pick(e.exclusive, ruleExclusiveMinimum, ruleMinimum), raw, pick(e.exclusive, "after ", "not before ")+e.text)
		}
	}
	if e := n.to; e != nil {
		if d := c.compare(e.moment); d > 0 || d == 0 && e.exclusive {
			s.breaks(n, pick(e.exclusive, ruleExclusiveMaximum, ruleMaximum), raw, pick(e.exclusive, "before ", "not after ")+e.text)
		}
	}
	if n.enum != nil {
		s.enumOf(n, raw)
	}
}

func pick(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}

// array judges the items of the array at data[i].
func (s *Scratch) array(n *node, data []byte, i int) int {
	start, count := i, 0
	at := len(s.way)
	s.way = append(s.way, step{})
	i = jsonscan.Space(data, i+1)
	if i < len(data) && data[i] == ']' {
		i++
	} else {
		for {
			if i = jsonscan.Space(data, i); i >= len(data) {
				return -1
			}
			s.way[at].index = count
			if n.items == nil {
				i = s.skip(data, i)
			} else if s.Again && n.items.acts && (n.items.pii != PIINone || data[i] == 'n') {
				i = s.skip(data, i)
			} else {
				item := i
				if i = s.value(n.items, data, i); i >= 0 && data[item] == 'n' && n.items.required {
					s.breaks(n.items, ruleRequired, data[item:i], n.items.wantNotNull())
				}
			}
			if i < 0 {
				return -1
			}
			count++
			if i = jsonscan.Space(data, i); i >= len(data) {
				return -1
			}
			if data[i] == ']' {
				i++
				break
			}
			if data[i] != ',' {
				return -1
			}
			i++
		}
	}
	s.way = s.way[:at]
	if count < n.minItems {
		s.breaks(n, ruleMinItems, data[start:i], fmt.Sprintf("at least %d items, not %d", n.minItems, count))
	}
	if n.maxItems >= 0 && count > n.maxItems {
		s.breaks(n, ruleMaxItems, data[start:i], fmt.Sprintf("at most %d items, not %d", n.maxItems, count))
	}
	if n.unique && count > 1 {
		s.uniqueItems(n, data[start:i])
	}
	return i
}
