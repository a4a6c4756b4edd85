package columnar

import "strings"

// node is one key of an object that has come up before: where its values go.
type node struct {
	key  string // decoded
	lit  string // the key as it usually stands in JSON, quotes and colon included; "" when it needs escapes
	path string
	at   int     // place among its object's nodes
	col  int     // index of the field that its path fills, -1 for none
	obj  *object // what lies beneath, nil for nothing
	// refused: the path can have no column: name, limit, or dropped.
	refused bool
}

// object is the keys of one JSON object in order of first appearance. Events
// of a type mostly repeat that order, so the reader compares each key with the
// expected one first.
type object struct {
	nodes  []*node
	index  map[string]*node // by key, once there are more than a few
	path   string
	prefix string // of column names: the keys above, each with '_' behind
	depth  int    // keys above
	unfit  bool   // a key above cannot be part of a column name
}

const indexFrom = 8

func (o *object) find(key []byte) *node {
	if o.index != nil {
		return o.index[string(key)]
	}
	for _, n := range o.nodes {
		if n.key == string(key) {
			return n
		}
	}
	return nil
}

// add makes the node of a key.
func (o *object) add(key string) *node {
	n := &node{key: key, at: len(o.nodes), col: -1, path: o.pathOf(key)}
	if isPlain(key) {
		n.lit = `"` + key + `":`
	}
	o.nodes = append(o.nodes, n)
	switch {
	case o.index != nil:
		o.index[key] = n
	case len(o.nodes) > indexFrom:
		o.index = make(map[string]*node, 2*indexFrom)
		for _, n := range o.nodes {
			o.index[n.key] = n
		}
	}
	return n
}

func (o *object) pathOf(key string) string {
	return string(o.appendPath(nil, []byte(key)))
}

func (o *object) appendPath(dst, key []byte) []byte {
	dst = append(dst, o.path...)
	return appendPath(dst, key, o.depth == 0)
}

// child makes the object beneath a key, without tying it to o.
func (o *object) child(key string) *object {
	return &object{
		path: o.pathOf(key), prefix: o.prefix + key + "_", depth: o.depth + 1,
		unfit: o.unfit || !fitKey(key),
	}
}

// isPlain tells whether a key stands in JSON as it is.
func isPlain(key string) bool {
	for i := range len(key) {
		if c := key[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x80 {
			return false
		}
	}
	return true
}

// paths finds the column of a JSON path, and makes new ones.
type paths struct {
	schema  *Schema
	root    *object
	names   map[string]bool // folded names that are taken
	columns int             // that count against MaxColumns
	refused int             // nodes that only remember a refusal
	fixed   [idRescued + 1]int
	ext     int // index of _extensions, -1 for none
	broken  int // of _violations
}

// maxRefused bounds what is remembered about paths without a column; beyond
// it the refusal is worked out anew each time.
const (
	maxRefused     = 1000
	maxRefusedPath = 1024 // bytes
)

// reserved are names that no JSON path may take, beside the envelope's: naru's
// own, the partition field's, and those that Iceberg keeps for itself, which
// make a table unreadable in Spark.
var reserved = []string{
	ColumnRescued, ColumnExtensions, ColumnViolations, DayField,
	"_file", "_pos", "_deleted", "_spec_id", "_row_id", "_last_updated_sequence_number",
	"_change_type", "_change_ordinal", "_commit_snapshot_id",
}

// reservedPrefix begins the names of partition fields, but for that of the default
// one and those of columns.
const reservedPrefix = "_by_"

func newPaths(s *Schema) *paths {
	p := &paths{schema: s, root: &object{}, names: map[string]bool{}, ext: -1, broken: -1}
	for _, name := range reserved {
		p.names[name] = true
	}
	for i := range p.fixed {
		p.fixed[i] = -1
	}
	for i, f := range s.Fields {
		if !f.Dropped {
			p.take(f.Name, f.Kind)
		}
		switch {
		case f.Kind == Foreign:
		case f.Path != "":
			p.bind(f.Path, i, f.Dropped)
		case f.Name == ColumnExtensions && !f.Dropped:
			p.ext = i
		case f.Name == ColumnViolations && !f.Dropped:
			p.broken = i
		case f.ID < len(p.fixed):
			p.fixed[f.ID] = i
		}
	}
	return p
}

// take marks a name as taken.
func (p *paths) take(name string, kind Kind) {
	folded := fold(name)
	p.names[folded] = true
	if kind.IsList() { // Iceberg names the element so
		p.names[folded+".element"] = true
	}
	p.columns++
}

// bind lets a known path fill field i.
func (p *paths) bind(path string, i int, dropped bool) {
	o := p.root
	keys := splitPath(path)
	for _, key := range keys[:len(keys)-1] {
		n := o.find([]byte(key))
		if n == nil {
			n = o.add(key)
		}
		if n.obj == nil {
			n.obj = o.child(key)
		}
		o = n.obj
	}
	key := keys[len(keys)-1]
	n := o.find([]byte(key))
	if n == nil {
		n = o.add(key)
	}
	if dropped {
		n.refused = true
		return
	}
	n.col = i
}

// admit makes a column for a key that has none and returns its node; nil when
// its values belong into _rescued. n is the key's node, nil when it has none.
func (p *paths) admit(o *object, n *node, key []byte, kind Kind) *node {
	name := o.prefix + string(key)
	if o.unfit || !fitKey(string(key)) || len(name) > MaxName || p.full() || p.names[fold(name)] || strings.HasPrefix(fold(name), reservedPrefix) {
		p.refuse(o, n, key)
		return nil
	}
	if kind.IsList() && p.names[fold(name)+".element"] {
		return nil
	}
	if n == nil {
		n = o.add(string(key))
	}
	n.col = len(p.schema.Fields)
	p.schema.add(name, n.path, kind)
	p.take(name, kind)
	return n
}

// full tells whether no column can be added. One place is kept for _extensions.
func (p *paths) full() bool {
	if p.ext < 0 {
		return p.columns >= MaxColumns-1
	}
	return p.columns >= MaxColumns
}

func (p *paths) refuse(o *object, n *node, key []byte) {
	if n == nil {
		if p.refused >= maxRefused || len(o.path)+len(key) > maxRefusedPath {
			return
		}
		p.refused++
		n = o.add(string(key))
	}
	n.refused = true
}

// extensions returns the index of the column _extensions, which it makes when
// there is none; -1 when somebody dropped it.
func (p *paths) extensions() int {
	return p.own(&p.ext, ColumnExtensions)
}

// violations is the same for _violations; -1 also when the table has no room.
func (p *paths) violations() int {
	if p.broken < 0 && p.full() {
		return -1
	}
	return p.own(&p.broken, ColumnViolations)
}

func (p *paths) own(at *int, name string) int {
	if *at >= 0 {
		return *at
	}
	for _, f := range p.schema.Fields {
		if f.Name == name && f.Dropped {
			return -1
		}
	}
	*at = len(p.schema.Fields)
	p.schema.add(name, "", JSON)
	p.columns++
	return *at
}
