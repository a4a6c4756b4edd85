package contract

import (
	"net/netip"
	"unicode/utf8"

	"naru/internal/jsonscan"
)

// DefaultKeep is how many characters naru.pii truncate leaves where naru.piiKeep
// does not say.
const DefaultKeep = 2

// Cleans tells whether the contract has PII actions: events of the type may be
// changed before they are stored.
func (c *Contract) Cleans() bool { return c.root.acts }

// Cleaner changes events before they are stored. Keep one and reuse it; not for
// concurrent use.
type Cleaner struct {
	keys *Keys
	mac  *mac // of the key in use; nil: there is none
	scan jsonscan.Scanner

	out     []byte
	changed bool
	text    []byte
	name    []byte
	inner   *Cleaner // for JSON within strings
}

// NewCleaner makes one that hashes with keys.
func NewCleaner(keys *Keys) *Cleaner {
	x := &Cleaner{keys: keys}
	if len(keys.keys) > 0 {
		x.mac = keys.macOf(0)
	}
	return x
}

// Clean does to an event what its contract says about personal data. It returns
// data itself when nothing is to be changed, else bytes that are valid until the
// cleaner is used again. ok is false when data is no JSON object: nothing can be
// found in it then.
//
// Where a field that is an object or an array with personal data in it holds
// anything else, or a string that should hold JSON does not, the value becomes
// null: what is in it cannot be told.
func (x *Cleaner) Clean(c *Contract, data []byte) (out []byte, changed, ok bool) {
	return x.clean(c.root, data)
}

// CleanEnvelope is Clean for a CloudEvent in JSON, whose data the contract
// describes.
func (x *Cleaner) CleanEnvelope(c *Contract, data []byte) (out []byte, changed, ok bool) {
	return x.clean(c.envelope, data)
}

// envelopeOf is the node of a CloudEvent in JSON around an event.
func envelopeOf(root *node) *node {
	data, base64, out := *root, newNode(), newNode()
	data.name = "data"
	base64.name, base64.pii, base64.acts = "data_base64", PIIDrop, true
	out.kind, out.acts = objectKind, root.acts
	out.members = []*node{&data, base64}
	out.index = map[string]int{"data": 0, "data_base64": 1}
	return out
}

func (x *Cleaner) clean(root *node, data []byte) (out []byte, changed, ok bool) {
	x.out, x.changed = x.out[:0], false
	i := jsonscan.Space(data, 0)
	if i >= len(data) || data[i] != '{' || !x.scan.Valid(data) {
		return data, false, false
	}
	x.object(root, data, i)
	if !x.changed {
		return data, false, true
	}
	return x.out, true, true
}

// object appends the object at d[i] and returns the place behind it. The JSON is
// valid.
func (x *Cleaner) object(n *node, d []byte, i int) int {
	x.out = append(x.out, '{')
	first := true
	i = jsonscan.Space(d, i+1)
	for d[i] != '}' {
		start := i
		end, escaped := jsonscan.StringEnd(d, i+1)
		key := d[i+1 : end-1]
		if escaped {
			x.name = jsonscan.AppendString(x.name[:0], d, jsonscan.Value{Start: i, End: end, Kind: jsonscan.Escaped})
			key = x.name
		}
		var m *node
		if k, ok := n.index[string(key)]; ok {
			m = n.members[k]
		}
		i = jsonscan.Space(d, jsonscan.Space(d, end)+1)
		switch {
		case m != nil && m.pii == PIIDrop && d[i] != 'n':
			x.changed = true
			i = x.scan.Value(d, i, nil)
		default:
			if !first {
				x.out = append(x.out, ',')
			}
			first = false
			if m == nil || !m.acts {
				i = x.scan.Value(d, i, nil)
				x.out = append(x.out, d[start:i]...)
				break
			}
			x.out = append(x.out, d[start:i]...)
			i = x.value(m, d, i)
		}
		if i = jsonscan.Space(d, i); d[i] == ',' {
			i = jsonscan.Space(d, i+1)
		}
	}
	x.out = append(x.out, '}')
	return i + 1
}

// value appends the value at d[i] of a node that acts, and returns the place behind
// it.
func (x *Cleaner) value(n *node, d []byte, i int) int {
	c := d[i]
	switch {
	case c == 'n':
	case n.pii != PIINone:
		end := x.scan.Value(d, i, nil)
		x.act(n, d[i:end])
		return end
	case c == '{' && n.kind == objectKind:
		return x.object(n, d, i)
	case c == '[' && n.kind == arrayKind:
		return x.array(n, d, i)
	case c == '"' && n.isJSON:
		end := x.scan.Value(d, i, nil)
		x.embedded(n, d[i:end])
		return end
	default:
		x.null()
		return x.scan.Value(d, i, nil)
	}
	end := x.scan.Value(d, i, nil)
	x.out = append(x.out, d[i:end]...)
	return end
}

func (x *Cleaner) null() {
	x.out = append(x.out, "null"...)
	x.changed = true
}

func (x *Cleaner) array(n *node, d []byte, i int) int {
	if n.items == nil || !n.items.acts {
		end := x.scan.Value(d, i, nil)
		x.out = append(x.out, d[i:end]...)
		return end
	}
	x.out = append(x.out, '[')
	first := true
	i = jsonscan.Space(d, i+1)
	for d[i] != ']' {
		if n.items.pii == PIIDrop && d[i] != 'n' {
			x.changed = true
			i = x.scan.Value(d, i, nil)
		} else {
			if !first {
				x.out = append(x.out, ',')
			}
			first = false
			i = x.value(n.items, d, i)
		}
		if i = jsonscan.Space(d, i); d[i] == ',' {
			i = jsonscan.Space(d, i+1)
		}
	}
	x.out = append(x.out, ']')
	return i + 1
}

// act appends what stands for a personal value that is not null.
func (x *Cleaner) act(n *node, raw []byte) {
	isText := raw[0] == '"'
	switch n.pii {
	case PIIHash:
		if x.mac == nil {
			x.null() // cannot be: Keys.Allow has refused the contract
			return
		}
		value := raw
		if isText {
			if value = unescape(&x.text, raw); x.keys.isToken(value) {
				x.out = append(x.out, raw...)
				return
			}
		}
		x.out = append(x.mac.token(append(x.out, '"'), value), '"')
		x.changed = true
	case PIITruncate:
		if !isText {
			x.null()
			return
		}
		text := unescape(&x.text, raw)
		cut := 0
		for range n.keep {
			_, size := utf8.DecodeRune(text[cut:])
			cut += size
		}
		if cut >= len(text) {
			x.out = append(x.out, raw...)
			return
		}
		x.out = jsonscan.AppendQuoted(x.out, text[:cut])
		x.changed = true
	case PIIIP:
		if isText {
			if masked, ok := maskIP(string(unescape(&x.text, raw))); ok {
				if masked == string(raw[1:len(raw)-1]) {
					x.out = append(x.out, raw...)
					return
				}
				x.out = jsonscan.AppendQuoted(x.out, masked)
				x.changed = true
				return
			}
		}
		x.null()
	default: // drop, of what is neither a member nor an item
		x.null()
	}
}

// How much of an address stays: 24 bits of IPv4, 48 of IPv6.
const (
	keepIPv4 = 24
	keepIPv6 = 48
)

// maskIP sets the end of an address to zero; false when the text is none.
func maskIP(text string) (string, bool) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return "", false
	}
	a = a.Unmap().WithZone("")
	bits := keepIPv6
	if a.Is4() {
		bits = keepIPv4
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return "", false
	}
	return p.Addr().String(), true
}

// embedded appends a string that holds JSON, cleaned.
func (x *Cleaner) embedded(n *node, raw []byte) {
	if x.inner == nil {
		x.inner = &Cleaner{keys: x.keys, mac: x.mac}
	}
	in := x.inner
	in.out, in.changed = in.out[:0], false
	text := append([]byte{}, unescape(&x.text, raw)...)
	i := jsonscan.Space(text, 0)
	if i >= len(text) || text[i] == '"' || !in.scan.Valid(text) {
		x.null()
		return
	}
	in.value(n, text, i)
	if !in.changed {
		x.out = append(x.out, raw...)
		return
	}
	x.out = jsonscan.AppendQuoted(x.out, in.out)
	x.changed = true
}
