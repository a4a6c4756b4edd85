package columnar

// lexeme is what a JSON value is by its looks.
type lexeme uint8

const (
	lexString lexeme = iota
	lexWhole
	lexFraction
	lexBool
	lexArray
)

// parse reads e's JSON into the columns of the current row; false: it is not
// JSON, and columns may have been touched.
func (b *Builder) parse(d []byte) bool {
	i := skipSpace(d, 0)
	if i < len(d) && d[i] == '{' {
		i = b.object(d, i+1, b.paths.root)
	} else if i < len(d) {
		i = b.value(d, i, b.paths.root, b.paths.root.find([]byte("data")), []byte("data"))
	} else {
		return false
	}
	return i >= 0 && skipSpace(d, i) == len(d)
}

// object reads an object, i behind its brace, and returns the place behind
// the closing one; -1: not JSON.
func (b *Builder) object(d []byte, i int, o *object) int {
	i = skipSpace(d, i)
	if i < len(d) && d[i] == '}' {
		return i + 1
	}
	row := b.cur.rows
	next := 0
	for {
		var n *node
		var key []byte
		if next < len(o.nodes) {
			n = o.nodes[next]
			if lit := n.lit; lit != "" && len(d)-i > len(lit) && string(d[i:i+len(lit)]) == lit {
				i += len(lit)
			} else {
				n = nil
			}
		}
		if n == nil {
			if n, key, i = b.key(d, i, o); i < 0 {
				return -1
			}
		}
		if i < len(d) && d[i] <= ' ' {
			i = skipSpace(d, i)
		}
		if i >= len(d) {
			return -1
		}
		done := false
		if n != nil {
			next = n.at + 1
			switch {
			case n.obj != nil && d[i] == '{':
				if i = b.object(d, i+1, n.obj); i < 0 {
					return -1
				}
				done = true
			case n.col >= 0:
				// The two kinds that nearly all values are of; b.value does everything.
				switch col := b.cur.cols[n.col]; {
				case d[i] == '"' && col.kind == String:
					end, escaped, wide := scanString(d, i+1)
					if end < 0 {
						return -1
					}
					if col.begin(row) {
						if escaped || wide {
							b.text = appendDecoded(b.text[:0], d[i+1:end])
							col.putText(b.text)
						} else {
							col.putText(d[i+1 : end])
						}
						i, done = end+1, true
					}
				case col.kind == Long && d[i]-'0' < 10:
					end := i + 1
					v := int64(d[i] - '0')
					for end < len(d) && d[end]-'0' < 10 && end-i < 18 {
						v = v*10 + int64(d[end]-'0')
						end++
					}
					if (d[i] != '0' || end == i+1) && end < len(d) && (d[end] == ',' || d[end] == '}') && col.begin(row) {
						col.putLong(v)
						i, done = end, true
					}
				}
			}
		}
		if !done {
			if n != nil && key == nil {
				key = b.keyOf(n)
			}
			if i = b.value(d, i, o, n, key); i < 0 {
				return -1
			}
		}
		if i < len(d) && d[i] <= ' ' {
			i = skipSpace(d, i)
		}
		if i >= len(d) {
			return -1
		}
		if d[i] == '}' {
			return i + 1
		}
		if d[i] != ',' {
			return -1
		}
		i++
		if i < len(d) && d[i] <= ' ' {
			i = skipSpace(d, i)
		}
	}
}

// keyOf gives a node's key as bytes.
func (b *Builder) keyOf(n *node) []byte {
	b.keys = append(b.keys[:0], n.key...)
	return b.keys
}

// key reads a key and its colon. n is nil when the key has not come up
// before. key is decoded, and valid until the next one is read.
func (b *Builder) key(d []byte, i int, o *object) (n *node, key []byte, at int) {
	if i >= len(d) || d[i] != '"' {
		return nil, nil, -1
	}
	end, escaped, wide := scanString(d, i+1)
	if end < 0 {
		return nil, nil, -1
	}
	key = d[i+1 : end]
	if escaped || wide {
		key = appendDecoded(nil, key)
	}
	i = skipSpace(d, end+1)
	if i >= len(d) || d[i] != ':' {
		return nil, nil, -1
	}
	return o.find(key), key, i + 1
}

// value reads the value of a key of o, which begins at i, and puts it where it
// belongs by the rules of docs/format/tables.md.
func (b *Builder) value(d []byte, i int, o *object, n *node, key []byte) int {
	var lex lexeme
	var end int
	switch d[i] {
	case '{':
		return b.nested(d, i, o, n, key)
	case 'n':
		return scanWord(d, i)
	case '"':
		end, _, _ = scanString(d, i+1)
		if end >= 0 {
			end++
		}
		lex = lexString
	case 't', 'f':
		end = scanWord(d, i)
		lex = lexBool
	case '[':
		end = b.scan.skip(d, i)
		lex = lexArray
	default:
		whole := false
		end, whole = scanNumber(d, i)
		lex = lexFraction
		if whole {
			lex = lexWhole
		}
	}
	if end < 0 {
		return -1
	}
	raw := d[i:end]
	col := -1
	if n != nil {
		col = n.col
	}
	if col < 0 && (n == nil || !n.refused) {
		kind := b.agreed(o, key)
		if kind == 0 {
			kind = b.kindOf(raw, lex)
		}
		if kind != 0 {
			if !b.trusted() {
				return -1
			}
			if n = b.admit(o, n, key, kind); n != nil {
				col = n.col
			}
		}
	}
	if col < 0 || !b.cur.cols[col].begin(b.cur.rows) || !b.put(col, raw, lex) {
		if b.broken {
			return -1
		}
		b.rescue(o, key, raw)
	}
	return end
}

// nested reads an object beneath a key.
func (b *Builder) nested(d []byte, i int, o *object, n *node, key []byte) int {
	if o.depth+2 > MaxDepth {
		end := b.scan.skip(d, i)
		if end >= 0 && d[skipSpace(d, i+1)] != '}' {
			b.rescue(o, key, d[i:end])
		}
		return end
	}
	if n != nil && n.obj != nil {
		return b.object(d, i+1, n.obj)
	}
	// Nothing has come up beneath this key so far. What comes now is tied to o
	// only if it brought something, so that empty objects leave no trace.
	name := string(key)
	child := o.child(name)
	if i = b.object(d, i+1, child); i >= 0 && len(child.nodes) > 0 {
		if n == nil {
			n = o.add(name)
		}
		n.obj = child
	}
	return i
}

// kindOf is the column that a value asks for; 0 when it makes none.
func (b *Builder) kindOf(raw []byte, lex lexeme) Kind {
	switch lex {
	case lexString:
		return String
	case lexBool:
		return Bool
	case lexWhole:
		if _, ok := parseLong(raw); ok {
			return Long
		}
		b.counters.UnfitNumbers++
		return 0
	case lexFraction:
		if _, ok := parseFraction(raw); ok {
			return Double
		}
		b.counters.UnfitNumbers++
		return 0
	default:
		return listKind(&b.scan, raw)
	}
}

// put appends a value that is not null to a column whose next row is the
// current one; false when it does not fit.
func (b *Builder) put(at int, raw []byte, lex lexeme) bool {
	col := b.cur.cols[at]
	switch col.kind {
	case JSON:
		b.text = appendJSON(b.text[:0], raw)
		col.putText(b.text)
		return true
	case String:
		if lex != lexString {
			return false
		}
		b.text = appendDecoded(b.text[:0], raw[1:len(raw)-1])
		col.putText(b.text)
		return true
	case Bool:
		if lex != lexBool {
			return false
		}
		col.putBool(raw[0] == 't')
		return true
	case Long:
		return b.putLong(at, raw, lex)
	case Double:
		return b.putDouble(col, raw, lex)
	case Timestamp, Date:
		return lex == lexString && b.putTime(at, raw)
	default:
		return lex == lexArray && b.putList(col, raw)
	}
}

func (b *Builder) putLong(at int, raw []byte, lex lexeme) bool {
	switch lex {
	case lexWhole:
		v, ok := parseLong(raw)
		if ok {
			b.cur.cols[at].putLong(v)
		} else {
			b.counters.UnfitNumbers++
		}
		return ok
	case lexFraction:
		if b.isAgreed(at) { // its contract keeps the column as it is
			v, ok := wholeOf(raw)
			if ok {
				b.cur.cols[at].putLong(v)
			}
			return ok
		}
		v, ok := parseFraction(raw)
		if !ok {
			b.counters.UnfitNumbers++
			return false
		}
		if !b.trusted() {
			return false
		}
		id := b.schema.Fields[at].ID
		if b.pinned(id) || b.opt.AllowPromotion != nil && !b.opt.AllowPromotion(id) {
			b.counters.Unpromoted++
			return false
		}
		b.promote(at)
		col := b.cur.cols[at]
		col.begin(b.cur.rows)
		col.putDouble(v)
		return true
	default:
		return false
	}
}

func (b *Builder) putDouble(col *column, raw []byte, lex lexeme) bool {
	v, ok := 0.0, false
	switch lex {
	case lexWhole:
		v, ok = exactWhole(raw)
	case lexFraction:
		v, ok = parseFraction(raw)
	default:
		return false
	}
	if !ok {
		b.counters.UnfitNumbers++
		return false
	}
	col.putDouble(v)
	return true
}

// trusted makes sure, before the schema changes, that the whole of the
// event's data is JSON: what is none leaves no trace.
func (b *Builder) trusted() bool {
	if !b.checked {
		b.checked = true
		b.broken = !b.scan.valid(b.data)
	}
	return !b.broken
}
