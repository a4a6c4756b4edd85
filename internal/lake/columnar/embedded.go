package columnar

import (
	"bytes"
	"encoding/json"
)

// embedded unpacks strings that hold JSON, at the paths that the event's contract
// names (docs/format/tables.md): what they hold becomes columns as if it had been
// sent there.
type embedded struct {
	text  []byte // the header that root was made of
	root  embeddedAt
	out   []byte
	inner [][]byte // texts of strings, one for each level of strings within strings
}

// embeddedAt is a place on the way to such a string.
type embeddedAt struct {
	key  string
	here bool
	sub  []*embeddedAt
}

func (a *embeddedAt) at(key []byte) *embeddedAt {
	for _, s := range a.sub {
		if s.key == string(key) {
			return s
		}
	}
	return nil
}

// read takes over the paths of an event. Others than the last event's are rare.
func (m *embedded) read(text []byte) {
	if bytes.Equal(m.text, text) {
		return
	}
	m.text, m.root = append(m.text[:0], text...), embeddedAt{}
	var paths []string
	if json.Unmarshal(text, &paths) != nil {
		return // a foreign writer's
	}
	for _, path := range paths {
		at := &m.root
		for _, key := range splitPath(path) {
			next := at.at([]byte(key))
			if next == nil {
				next = &embeddedAt{key: key}
				at.sub = append(at.sub, next)
			}
			at = next
		}
		at.here = true
	}
}

// unpacked is the event's data with its embedded JSON unpacked. Data that is no
// JSON comes back as it is.
func (b *Builder) unpacked(data, paths []byte) []byte {
	m := &b.embedded
	m.read(paths)
	i := skipSpace(data, 0)
	if i >= len(data) || data[i] != '{' || len(m.root.sub) == 0 {
		return data
	}
	out, end := b.unpack(append(m.out[:0], data[:i]...), data, i, &m.root, 0)
	m.out = out
	if end < 0 {
		return data
	}
	return append(out, data[end:]...)
}

// unpack appends the object at d[i] and returns the place behind it; -1: that is
// not JSON.
func (b *Builder) unpack(dst, d []byte, i int, at *embeddedAt, level int) ([]byte, int) {
	from := i
	i = skipSpace(d, i+1)
	for i < len(d) && d[i] == '"' {
		end, escaped, wide := scanString(d, i+1)
		if end < 0 {
			return dst, -1
		}
		key := d[i+1 : end]
		if escaped || wide {
			key = appendDecoded(nil, key)
		}
		if i = skipSpace(d, end+1); i >= len(d) || d[i] != ':' {
			return dst, -1
		}
		if i = skipSpace(d, i+1); i >= len(d) {
			return dst, -1
		}
		next := at.at(key)
		switch {
		case next != nil && d[i] == '{' && next.sub != nil:
			dst = append(dst, d[from:i]...)
			if dst, i = b.unpack(dst, d, i, next, level); i < 0 {
				return dst, -1
			}
			from = i
		case next != nil && d[i] == '"' && next.here:
			end, _, _ := scanString(d, i+1)
			if end < 0 {
				return dst, -1
			}
			if text, ok := b.within(d[i+1:end], level); ok {
				dst = append(dst, d[from:i]...)
				if text[0] == '{' && next.sub != nil {
					dst, _ = b.unpack(dst, text, 0, next, level+1) // it is valid
				} else {
					dst = append(dst, text...)
				}
				from = end + 1
			}
			i = end + 1
		default:
			if i = b.scan.skip(d, i); i < 0 {
				return dst, -1
			}
		}
		if i = skipSpace(d, i); i < len(d) && d[i] == ',' {
			i = skipSpace(d, i+1)
			continue
		}
		break
	}
	if i >= len(d) || d[i] != '}' {
		return dst, -1
	}
	return append(dst, d[from:i+1]...), i + 1
}

// within gives the JSON that a string holds, without white space around it; false
// when it holds none, or only another string.
func (b *Builder) within(quoted []byte, level int) ([]byte, bool) {
	m := &b.embedded
	for len(m.inner) <= level {
		m.inner = append(m.inner, nil)
	}
	m.inner[level] = appendDecoded(m.inner[level][:0], quoted)
	text := bytes.Trim(m.inner[level], " \t\r\n")
	if len(text) == 0 || text[0] == '"' || !b.scan.valid(text) {
		return nil, false
	}
	return text, true
}
