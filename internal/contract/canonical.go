package contract

import (
	"bytes"
	"fmt"
	"slices"

	"naru/internal/jsonscan"
)

// maxUniqueDepth is how deep items may be nested to be compared.
const maxUniqueDepth = 64

// canonicalizer writes JSON values so that equal ones give equal bytes: numbers
// in one form, strings without escapes, members by name.
type canonicalizer struct {
	out   []byte
	num   decimal
	text  []byte
	scan  jsonscan.Scanner
	spans [][2]int
}

// canonical gives the canonical form of one value, valid until the next call; ok
// is false when it is nested too deep.
func (s *Scratch) canonical(raw []byte) (form []byte, ok bool) {
	c := &s.canon
	c.out = c.out[:0]
	ok = c.value(raw, 0, 0) >= 0
	return c.out, ok
}

// value writes the value at i of a valid text and returns the place behind it;
// -1 when it is nested too deep.
func (c *canonicalizer) value(text []byte, i, depth int) int {
	i = jsonscan.Space(text, i)
	if depth > maxUniqueDepth {
		return -1
	}
	switch jsonscan.KindAt(text[i]) {
	case jsonscan.String:
		return c.string(text, i)
	case jsonscan.Number:
		end := jsonscan.NumberEnd(text, i)
		c.num.parse(text[i:end])
		c.out = c.num.appendTo(append(c.out, '#'))
		return end
	case jsonscan.Array:
		c.out = append(c.out, '[')
		i = jsonscan.Space(text, i+1)
		for text[i] != ']' {
			if i = c.value(text, i, depth+1); i < 0 {
				return -1
			}
			c.out = append(c.out, ',')
			if i = jsonscan.Space(text, i); text[i] == ',' {
				i = jsonscan.Space(text, i+1)
			}
		}
		c.out = append(c.out, ']')
		return i + 1
	case jsonscan.Object:
		return c.object(text, i, depth)
	}
	end := c.scan.Value(text, i, nil)
	c.out = append(c.out, text[i:end]...)
	return end
}

// string writes its length first, so that no string can look like another value.
func (c *canonicalizer) string(text []byte, i int) int {
	end, escaped := jsonscan.StringEnd(text, i+1)
	plain := text[i+1 : end-1]
	if escaped {
		c.text = jsonscan.AppendString(c.text[:0], text, jsonscan.Value{Start: i, End: end, Kind: jsonscan.Escaped})
		plain = c.text
	}
	c.out = append(fmt.Appendf(c.out, "%d:", len(plain)), plain...)
	return end
}

// object writes the members by name; of a name that stands twice the first value
// that is not null.
func (c *canonicalizer) object(text []byte, i, depth int) int {
	type member struct{ name, value []byte }
	var members []member
	i = jsonscan.Space(text, i+1)
	for text[i] != '}' {
		from := len(c.out)
		i = c.string(text, i)
		name := bytes.Clone(c.out[from:])
		c.out = c.out[:from]
		i = jsonscan.Space(text, i) + 1
		if i = c.value(text, i, depth+1); i < 0 {
			return -1
		}
		members = append(members, member{name, bytes.Clone(c.out[from:])})
		c.out = c.out[:from]
		if i = jsonscan.Space(text, i); text[i] == ',' {
			i = jsonscan.Space(text, i+1)
		}
	}
	slices.SortStableFunc(members, func(a, b member) int { return bytes.Compare(a.name, b.name) })
	c.out = append(c.out, '{')
	for k := 0; k < len(members); {
		last := k
		for last+1 < len(members) && bytes.Equal(members[last+1].name, members[k].name) {
			last++
		}
		shown := k
		for shown < last && string(members[shown].value) == "null" {
			shown++
		}
		c.out = append(append(c.out, members[k].name...), members[shown].value...)
		k = last + 1
	}
	c.out = append(c.out, '}')
	return i + 1
}

// uniqueItems judges whether all items of an array differ.
func (s *Scratch) uniqueItems(n *node, raw []byte) {
	c := &s.canon
	c.out, c.spans = c.out[:0], c.spans[:0]
	i := jsonscan.Space(raw, 1)
	for raw[i] != ']' {
		from := len(c.out)
		if i = c.value(raw, i, 0); i < 0 {
			s.breaks(n, ruleUniqueItems, raw, fmt.Sprintf("items nested at most %d levels deep, so that they can be compared", maxUniqueDepth))
			return
		}
		c.spans = append(c.spans, [2]int{from, len(c.out)})
		if i = jsonscan.Space(raw, i); raw[i] == ',' {
			i = jsonscan.Space(raw, i+1)
		}
	}
	slices.SortFunc(c.spans, func(a, b [2]int) int { return bytes.Compare(c.out[a[0]:a[1]], c.out[b[0]:b[1]]) })
	for k := 1; k < len(c.spans); k++ {
		if bytes.Equal(c.out[c.spans[k-1][0]:c.spans[k-1][1]], c.out[c.spans[k][0]:c.spans[k][1]]) {
			s.breaks(n, ruleUniqueItems, raw, "items that all differ")
			return
		}
	}
}
