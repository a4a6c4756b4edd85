package contract

import "regexp"

// kind is a logical type.
type kind uint8

const (
	anyKind kind = iota
	stringKind
	integerKind
	numberKind
	booleanKind
	dateKind
	timestampKind
	timeKind
	objectKind
	arrayKind
)

var kindNames = []string{"any", "string", "integer", "number", "boolean", "date", "timestamp", "time", "object", "array"}

func (k kind) String() string { return kindNames[k] }

func (k kind) isTemporal() bool { return k == dateKind || k == timestampKind || k == timeKind }

// wantKind is what a value of the type looks like in JSON.
var wantKind = []string{"", "a string", "a whole number", "a number", "true or false", "", "", "", "an object", "an array"}

// node is a property as Check uses it.
type node struct {
	name string
	lit  string // the name as it usually stands in JSON, quotes and colon included; "" when it needs escapes
	path string // as Field has it
	line int
	// rules are the lines of the rules that do not stand on the property's line.
	lines map[string]int

	kind     kind
	required bool
	personal bool // its value, or one above or beneath it, is not to be shown
	isJSON   bool // a string here is parsed as JSON first

	// What Clean does.
	pii  PII
	keep int  // characters that truncate leaves
	acts bool // something is done to it, or to what is beneath

	// Strings and times.
	minLen, maxLen int // in code points; -1 for none
	pattern        *regexp.Regexp
	patternText    string
	format         func([]byte) bool
	formatName     string
	layout         *layout
	utc            bool   // a time without an offset is in UTC
	physical       string // physicalType
	from, to       *edge  // of times
	enum           *enum

	// Numbers. low and high come from the format.
	low, high          *bound
	min, max           *bound
	aboveMin, belowMax *bound // exclusive
	multipleOf         *bound

	// Arrays.
	minItems, maxItems int // -1 for none
	unique             bool
	items              *node

	// Objects.
	minProps, maxProps int // -1 for none
	members            []*node
	index              map[string]int
	frozen             bool // what is not listed breaks the contract
	discard            bool // what is not listed makes no column

	checks bool // a scalar has rules beside its type
}

// edge is a bound of times.
type edge struct {
	moment
	text      string
	exclusive bool
}

// enum is the values that are allowed.
type enum struct {
	texts []string            // as JSON, in the order of the file
	plain [][]byte            // of strings, while they are few
	set   map[string]struct{} // in canonical form
}

const fewValues = 8

func newNode() *node {
	return &node{minLen: -1, maxLen: -1, minItems: -1, maxItems: -1, minProps: -1, maxProps: -1}
}

func (n *node) lineOf(rule string) int {
	if line := n.lines[rule]; line > 0 {
		return line
	}
	return n.line
}

func (n *node) setLine(rule string, line int) {
	if n.lines == nil {
		n.lines = map[string]int{}
	}
	n.lines[rule] = line
}

// child gives a member by name.
func (n *node) child(name string) *node {
	if i, ok := n.index[name]; ok {
		return n.members[i]
	}
	return nil
}

// finish prepares a node, and all beneath it, for Check. above says that
// something above is personal; the answer says whether something here is.
func (n *node) finish(above bool, unknown Unknown) bool {
	here := n.personal
	n.acts = n.pii != PIINone
	if n.items != nil {
		here = n.items.finish(above || n.personal, unknown) || here
		n.acts = n.acts || n.items.acts
	}
	n.index = make(map[string]int, len(n.members))
	for i, m := range n.members {
		n.index[m.name] = i
		here = m.finish(above || n.personal, unknown) || here
		n.acts = n.acts || m.acts
	}
	n.frozen = unknown == Freeze && len(n.members) > 0
	n.discard = unknown == Discard && len(n.members) > 0
	n.checks = n.minLen >= 0 || n.maxLen >= 0 || n.pattern != nil || n.format != nil || n.enum != nil || n.layout != nil ||
		n.low != nil || n.high != nil || n.min != nil || n.max != nil || n.aboveMin != nil || n.belowMax != nil || n.multipleOf != nil
	n.personal = here || above
	return here
}

// isPlain tells whether a name stands in JSON as it is.
func isPlain(name string) bool {
	for i := range len(name) {
		if c := name[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x80 {
			return false
		}
	}
	return true
}
