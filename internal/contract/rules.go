package contract

import (
	"bytes"
	"fmt"
	"strings"

	"naru/internal/jsonscan"
)

// small judges a whole number that int64 holds; false: it must be looked at
// closely, or it breaks a rule.
func (s *Scratch) small(n *node, v int64) bool {
	if !n.checks {
		return true
	}
	return n.enum == nil && n.multipleOf == nil &&
		(n.min == nil || n.min.fits && v >= n.min.small) &&
		(n.max == nil || n.max.fits && v <= n.max.small) &&
		(n.aboveMin == nil || n.aboveMin.fits && v > n.aboveMin.small) &&
		(n.belowMax == nil || n.belowMax.fits && v < n.belowMax.small) &&
		(n.low == nil || n.low.fits && v >= n.low.small) &&
		(n.high == nil || n.high.fits && v <= n.high.small)
}

// number judges a number exactly, however it is written.
func (s *Scratch) number(n *node, raw []byte) {
	v := &s.num
	v.parse(raw)
	if n.kind == integerKind && !v.isWhole() {
		s.breaks(n, ruleType, raw, wantKind[integerKind])
		return
	}
	if n.low != nil && (v.compare(&n.low.decimal) < 0 || v.compare(&n.high.decimal) > 0) {
		s.breaks(n, ruleFormat, raw, fmt.Sprintf("%s, from %s to %s", n.formatName, n.low.text, n.high.text))
	}
	if n.min != nil && v.compare(&n.min.decimal) < 0 {
		s.breaks(n, ruleMinimum, raw, "at least "+n.min.text)
	}
	if n.aboveMin != nil && v.compare(&n.aboveMin.decimal) <= 0 {
		s.breaks(n, ruleExclusiveMinimum, raw, "more than "+n.aboveMin.text)
	}
	if n.max != nil && v.compare(&n.max.decimal) > 0 {
		s.breaks(n, ruleMaximum, raw, "at most "+n.max.text)
	}
	if n.belowMax != nil && v.compare(&n.belowMax.decimal) >= 0 {
		s.breaks(n, ruleExclusiveMaximum, raw, "less than "+n.belowMax.text)
	}
	if n.multipleOf != nil && !v.isMultipleOf(&n.multipleOf.decimal) {
		s.breaks(n, ruleMultipleOf, raw, "a multiple of "+n.multipleOf.text)
	}
	if n.enum != nil {
		s.enumOf(n, raw)
	}
}

func (e *enum) hasText(text []byte) bool {
	for _, p := range e.plain {
		if bytes.Equal(p, text) {
			return true
		}
	}
	return false
}

func (e *enum) want() string { return "one of " + cut(strings.Join(e.texts, ", "), maxShown) }

// inEnum looks a value up in its canonical form.
func (s *Scratch) inEnum(e *enum, raw []byte) bool {
	if e.plain != nil && raw[0] == '"' {
		return e.hasText(unescape(&s.text, raw))
	}
	canonical, ok := s.canonical(raw)
	if !ok {
		return false
	}
	_, found := e.set[string(canonical)]
	return found
}

func (s *Scratch) enumOf(n *node, raw []byte) {
	if !s.inEnum(n.enum, raw) {
		s.breaks(n, ruleEnum, raw, n.enum.want())
	}
}

func (n *node) wantNotNull() string {
	if want := n.want(); want != "" {
		return want
	}
	return "a value"
}

// missing tells that a required member is not there, or null.
func (s *Scratch) missing(n, m *node, raw []byte) {
	if len(s.found) >= MaxViolations {
		return
	}
	value := ""
	var members jsonscan.Members
	members.Reset(raw, 0, len(raw))
	for {
		name, _, ok := members.Next(&s.scan)
		if !ok {
			break
		}
		if string(jsonscan.Text(raw, name)) == m.name {
			value = "null"
			break
		}
	}
	s.add(Violation{Rule: ruleRequired, Path: s.where(m.name), Value: value, Want: m.wantNotNull(), Line: m.lineOf(ruleRequired)})
}

// unknown tells that a frozen object has a member that the contract has not.
func (s *Scratch) unknown(n *node, key []byte) {
	if len(s.found) >= MaxViolations {
		return
	}
	var known []string
	for _, m := range n.members {
		known = append(known, m.name)
	}
	name := nameOf(key)
	s.add(Violation{Rule: ruleUnknown, Path: s.where(name), Want: "no such field: the contract has none" + didYouMean(name, known), Line: n.line})
}

// leftOut tells that a member makes no column.
func (s *Scratch) leftOut(key []byte) {
	if len(s.LeftOut) < MaxViolations {
		s.LeftOut = append(s.LeftOut, s.where(nameOf(key)))
	}
}

func nameOf(key []byte) string { return validText(key[:min(len(key), 4*maxShown)]) }

// members judges how many members an object has; names that stand twice count
// once.
func (s *Scratch) members(n *node, data []byte, start, end, count int) {
	raw := data[start:end]
	if n.maxProps >= 0 && count > n.maxProps || count > 1 && n.minProps > 0 && count >= n.minProps {
		names := make(map[string]struct{}, count)
		var members jsonscan.Members
		members.Reset(raw, 0, len(raw))
		for {
			name, _, ok := members.Next(&s.scan)
			if !ok {
				break
			}
			names[string(jsonscan.Text(raw, name))] = struct{}{}
		}
		count = len(names)
	}
	if count < n.minProps {
		s.breaks(n, ruleMinProperties, raw, fmt.Sprintf("at least %d fields, not %d", n.minProps, count))
	}
	if n.maxProps >= 0 && count > n.maxProps {
		s.breaks(n, ruleMaxProperties, raw, fmt.Sprintf("at most %d fields, not %d", n.maxProps, count))
	}
}

// embedded judges the JSON that a string holds.
func (s *Scratch) embedded(n *node, raw []byte) {
	text := append([]byte{}, unescape(&s.text, raw)...)
	i := jsonscan.Space(text, 0)
	way, found, left := len(s.way), len(s.found), len(s.LeftOut)
	end := -1
	tell := s.Tell
	for _, at := range s.way {
		if at.n == nil { // within an array it stays text, whatever is in it
			s.Tell = false
		}
	}
	if i < len(text) && text[i] != '"' { // a string in a string is not unpacked again
		end = s.value(n, text, i)
	}
	s.Tell = tell
	if end < 0 || jsonscan.Space(text, end) < len(text) {
		s.way, s.found, s.LeftOut = s.way[:way], s.found[:found], s.LeftOut[:left]
		s.breaks(n, ruleJSON, raw, "a string that holds "+n.want()+" as JSON")
	}
}
