package jsonscan

// Members walks over the members of a JSON object that a scan has found valid.
type Members struct {
	text []byte
	pos  int
	end  int
}

// Reset begins with the object text[start:end].
func (m *Members) Reset(text []byte, start, end int) {
	*m = Members{text: text, pos: start + 1, end: end - 1}
}

// Next returns the next member: its name, quotes included, and its value. It
// uses s, so what s found before is gone.
func (m *Members) Next(s *Scanner) (name, value Value, ok bool) {
	i := Space(m.text, m.pos)
	if i < m.end && m.text[i] == ',' {
		i = Space(m.text, i+1)
	}
	if i >= m.end {
		return name, value, false
	}
	nameEnd, escaped := scanString(m.text, i+1)
	name = Value{Start: i, End: nameEnd, Kind: String}
	if escaped {
		name.Kind = Escaped
	}
	i = Space(m.text, nameEnd)
	i = Space(m.text, i+1) // behind the colon
	end := s.Value(m.text, i, nil)
	value = Value{Start: i, End: end, Kind: KindAt(m.text[i])}
	switch value.Kind {
	case String:
		for _, c := range m.text[i:end] {
			if c == '\\' {
				value.Kind = Escaped
				break
			}
		}
	}
	m.pos = end
	return name, value, true
}
