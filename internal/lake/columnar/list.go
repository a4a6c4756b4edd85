package columnar

// elements calls each with every element of an array that is known to be
// valid, until it returns false; it returns what the last call did.
func elements(s *scanner, raw []byte, each func(raw []byte) bool) bool {
	i := skipSpace(raw, 1)
	for raw[i] != ']' {
		end := s.skip(raw, i)
		if !each(raw[i:end]) {
			return false
		}
		if i = skipSpace(raw, end); raw[i] == ',' {
			i = skipSpace(raw, i+1)
		}
	}
	return true
}

// isWhole tells whether a valid number is written without fraction and exponent.
func isWhole(raw []byte) bool {
	for _, c := range raw {
		if c == '.' || c|0x20 == 'e' {
			return false
		}
	}
	return true
}

// listKind is the column that an array asks for: a list when its elements are
// of one scalar type or null, JSON for all others. 0, none, for an array
// without any element that is not null, and for one whose numbers do not fit.
func listKind(s *scanner, raw []byte) Kind {
	var kind Kind
	unfit := false
	elements(s, raw, func(v []byte) bool {
		var k Kind
		switch c := v[0]; {
		case c == 'n':
			return true
		case c == '{' || c == '[':
			kind = JSON
			return false
		case c == '"':
			k = ListString
		case c == 't' || c == 'f':
			k = ListBool
		case isWhole(v):
			k = ListLong
			if _, ok := parseLong(v); !ok {
				unfit = true
			}
		default:
			k = ListDouble
			if _, ok := parseFraction(v); !ok {
				unfit = true
			}
		}
		switch {
		case kind == 0 || kind == k:
			kind = k
		case kind == ListLong && k == ListDouble || kind == ListDouble && k == ListLong:
			kind = ListDouble
		default:
			kind = JSON
			return false
		}
		return true
	})
	if kind == ListDouble && !unfit {
		unfit = !elements(s, raw, func(v []byte) bool {
			if v[0] == 'n' || !isWhole(v) {
				return true
			}
			_, exact := exactWhole(v)
			return exact
		})
	}
	if kind != JSON && unfit {
		return 0
	}
	return kind
}

// putList appends an array to a list column; false, and nothing appended,
// when an element does not fit.
func (b *Builder) putList(col *column, raw []byte) bool {
	e := col.elem
	before := e.n
	if !elements(&b.scan, raw, func(v []byte) bool { return b.putElement(e, v) }) {
		e.truncate(before)
		return false
	}
	b.cur.since += 9 * int64(e.n-before)
	col.putList()
	return true
}

func (b *Builder) putElement(e *column, v []byte) bool {
	c := v[0]
	if c == 'n' {
		e.pad(e.n + 1)
		return true
	}
	number := c == '-' || c-'0' < 10
	switch e.kind {
	case Bool:
		if c != 't' && c != 'f' {
			return false
		}
		e.putBool(c == 't')
	case String:
		if c != '"' {
			return false
		}
		b.text = appendDecoded(b.text[:0], v[1:len(v)-1])
		e.putText(b.text)
	case Long:
		if !number || !isWhole(v) {
			return false
		}
		n, ok := parseLong(v)
		if !ok {
			b.counters.UnfitNumbers++
			return false
		}
		e.putLong(n)
	default:
		if !number {
			return false
		}
		lex := lexFraction
		if isWhole(v) {
			lex = lexWhole
		}
		return b.putDouble(e, v, lex)
	}
	return true
}
