package contract

import (
	"bytes"
	"slices"
	"unicode/utf8"

	"naru/internal/jsonscan"
)

// Bounds of what a sample remembers.
const (
	sampleFields = 1000 // fields
	sampleDepth  = 10   // levels of objects and arrays
	sampleValues = 12   // different strings of a field
	sampleValue  = 40   // bytes of one of them
)

// Sample is what some events of a type looked like. Draft makes a contract of it.
type Sample struct {
	scan   jsonscan.Scanner
	num    decimal
	root   *seen
	fields int
	bad    int
}

// NewSample makes an empty sample.
func NewSample() *Sample { return &Sample{root: &seen{}} }

// Events is how many events were added; Bad how many were no JSON objects.
func (s *Sample) Events() int { return s.root.objects }

// Bad is how many events were no JSON objects and were left out.
func (s *Sample) Bad() int { return s.bad }

// seen is what the values of one place looked like.
type seen struct {
	name   string
	last   int // the parent's object that had it last
	inside int // of the parent's objects had it, not null
	nulls  int

	strings, wholes, fractions, bools, objects, arrays int

	maxLen                int
	dates, stamps, clocks int // of the strings
	uuids                 int
	values                map[string]int // nil: too many
	manyValues            bool
	low, high             string // numbers
	members               []*seen
	index                 map[string]*seen
	items                 *seen
	depthCut              int
}

// Add looks at one event; what is no JSON object is counted and left out.
func (s *Sample) Add(data []byte) {
	if !s.scan.Valid(data) {
		s.bad++
		return
	}
	i := jsonscan.Space(data, 0)
	if data[i] != '{' {
		s.bad++
		return
	}
	s.object(s.root, data, i, jsonscanEnd(data), 0)
}

// jsonscanEnd is the place behind the last byte that is not white space.
func jsonscanEnd(data []byte) int {
	return len(bytes.TrimRight(data, " \t\r\n"))
}

func (s *Sample) object(n *seen, data []byte, start, end, depth int) {
	n.objects++
	var members jsonscan.Members
	members.Reset(data, start, end)
	for {
		name, v, ok := members.Next(&s.scan)
		if !ok {
			return
		}
		key := jsonscan.Text(data, name)
		m := n.index[string(key)]
		if m == nil {
			if s.fields >= sampleFields || len(key) == 0 || !utf8.Valid(key) {
				continue
			}
			s.fields++
			m = &seen{name: string(key)}
			if n.index == nil {
				n.index = map[string]*seen{}
			}
			n.index[m.name] = m
			n.members = append(n.members, m)
		}
		if v.Kind != jsonscan.Null && m.last != n.objects {
			m.last = n.objects
			m.inside++
		}
		s.value(m, data, v, depth+1)
	}
}

func (s *Sample) value(n *seen, data []byte, v jsonscan.Value, depth int) {
	raw := data[v.Start:v.End]
	switch v.Kind {
	case jsonscan.Null:
		n.nulls++
	case jsonscan.True, jsonscan.False:
		n.bools++
	case jsonscan.String, jsonscan.Escaped:
		n.text(jsonscan.Text(data, v))
	case jsonscan.Number:
		s.number(n, raw)
	case jsonscan.Object:
		if depth >= sampleDepth {
			n.objects, n.depthCut = n.objects+1, n.depthCut+1
			return
		}
		s.object(n, data, v.Start, v.End, depth)
	case jsonscan.Array:
		n.arrays++
		if depth >= sampleDepth {
			n.depthCut++
			return
		}
		s.items(n, data, v, depth)
	}
}

func (s *Sample) items(n *seen, data []byte, v jsonscan.Value, depth int) {
	if n.items == nil {
		n.items = &seen{}
	}
	for i := jsonscan.Space(data, v.Start+1); data[i] != ']'; {
		end := s.scan.Value(data, i, nil)
		item := jsonscan.Value{Start: i, End: end, Kind: jsonscan.KindAt(data[i])}
		if item.Kind == jsonscan.String && bytes.IndexByte(data[i:end], '\\') >= 0 {
			item.Kind = jsonscan.Escaped
		}
		if item.Kind != jsonscan.Null {
			n.items.inside++
		}
		s.value(n.items, data, item, depth+1)
		if i = jsonscan.Space(data, end); data[i] == ',' {
			i = jsonscan.Space(data, i+1)
		}
	}
}

func (n *seen) text(text []byte) {
	n.strings++
	n.maxLen = max(n.maxLen, utf8.RuneCount(text))
	if _, ok := readTime(rfcTimestamp, text); ok {
		n.stamps++
	} else if _, ok := readTime(rfcDate, text); ok {
		n.dates++
	} else if _, ok := readTime(rfcTime, text); ok {
		n.clocks++
	} else if isUUID(text) {
		n.uuids++
	}
	switch {
	case n.manyValues:
	case len(text) > sampleValue || !utf8.Valid(text) || len(n.values) == sampleValues && n.values[string(text)] == 0:
		n.manyValues, n.values = true, nil
	default:
		if n.values == nil {
			n.values = map[string]int{}
		}
		n.values[string(text)]++
	}
}

func (s *Sample) number(n *seen, raw []byte) {
	if bytes.ContainsAny(raw, ".eE") {
		n.fractions++
	} else {
		n.wholes++
	}
	if len(raw) > maxDigits {
		raw = raw[:1] // no range is made of it
		n.depthCut++
	}
	v := &s.num
	v.parse(raw)
	if n.low == "" {
		n.low, n.high = string(raw), string(raw)
		return
	}
	var other decimal
	if other.parse([]byte(n.low)); v.compare(&other) < 0 {
		n.low = string(raw)
	}
	if other.parse([]byte(n.high)); v.compare(&other) > 0 {
		n.high = string(raw)
	}
}

// kind is the one type of all values; anyKind when they had several.
func (n *seen) kind() kind {
	kinds := 0
	for _, c := range []int{n.strings, n.wholes + n.fractions, n.bools, n.objects, n.arrays} {
		if c > 0 {
			kinds++
		}
	}
	switch {
	case kinds != 1:
		return anyKind
	case n.bools > 0:
		return booleanKind
	case n.objects > 0:
		return objectKind
	case n.arrays > 0:
		return arrayKind
	case n.fractions > 0:
		return numberKind
	case n.wholes > 0:
		return integerKind
	case n.stamps == n.strings:
		return timestampKind
	case n.dates == n.strings:
		return dateKind
	case n.clocks == n.strings:
		return timeKind
	}
	return stringKind
}

// fewValues are the values of an enum: strings that come again and again.
func (n *seen) fewValues() (values []string) {
	if n.manyValues || len(n.values) < 2 || len(n.values) > 10 || n.strings < 50*len(n.values) {
		return nil
	}
	for v := range n.values {
		values = append(values, v)
	}
	slices.Sort(values)
	return values
}
