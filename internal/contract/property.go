package contract

import (
	"encoding/json"
	"strings"

	"go.yaml.in/yaml/v3"
)

var elementKeys = []string{"id", "name", "physicalType", "description", "businessName", "authoritativeDefinitions", "tags", "customProperties"}

var propertyKeys = append(append([]string{}, elementKeys...),
	"primaryKey", "primaryKeyPosition", "logicalType", "logicalTypeOptions", "physicalName", "required", "unique", "partitioned",
	"partitionKeyPosition", "classification", "encryptedName", "transformSourceObjects", "transformLogic", "transformDescription",
	"examples", "criticalDataElement", "relationships", "quality", "properties", "items")

var qualityKeys = []string{"id", "authoritativeDefinitions", "businessImpact", "customProperties", "description", "dimension", "method",
	"name", "schedule", "scheduler", "severity", "tags", "type", "unit", "metric", "rule", "arguments", "query", "engine", "implementation",
	"mustBe", "mustNotBe", "mustBeGreaterThan", "mustBeGreaterOrEqualTo", "mustBeLessThan", "mustBeLessOrEqualTo", "mustBeBetween", "mustNotBeBetween"}

// keys32 are what ODCS 3.2 adds to a property.
var keys32 = []string{"enum", "semanticType", "synonyms", "context"}

// mapType is known to be of ODCS 3.2 and not read.
const mapType = "map"

var piiWords = []string{"pii", "personal", "sensitive"}

var piiClasses = []string{"pii", "personal", "sensitive", "confidential", "restricted"}

// reader reads the properties of one event type.
type reader struct {
	*decoder
	c      *Contract
	budget int // fields that may still come
}

// properties reads a list of properties into the members of n.
func (r *reader) properties(b *block, n *node, prefix string, depth int) {
	seen := map[string]int{}
	for i, item := range b.items("properties") {
		m := r.property(item, b.item("properties", i), prefix, depth, true)
		if m == nil {
			continue
		}
		if first := seen[m.name]; first > 0 {
			r.fail(m.line, b.item("properties", i), "there is a property %s already, on line %d", m.name, first)
			continue
		}
		seen[m.name] = m.line
		n.members = append(n.members, m)
	}
}

// property reads one property, or the items of an array.
func (r *reader) property(item *yaml.Node, path, prefix string, depth int, named bool) *node {
	known := propertyKeys
	if r.v32 {
		known = append(append([]string{}, known...), keys32...)
	}
	b := r.block(item, path, known32(r, item, path, known))
	if b == nil {
		return nil
	}
	if r.budget--; r.budget < 0 {
		if r.budget == -1 {
			r.fail(b.line, path, "is beyond %d fields of one event type: describe the rest as an object without properties", MaxFields)
		}
		return nil
	}
	n := newNode()
	n.line = b.line
	n.name = b.text("name")
	if named && n.name == "" {
		b.fail("name", "is missing: it is the field's name in the event")
		return nil
	}
	if named && isPlain(n.name) {
		n.lit = `"` + n.name + `":`
	}
	n.path = prefix
	if named {
		n.path = join(prefix, escapePath(n.name))
	}
	if depth > MaxNesting {
		r.fail(b.line, path, "is nested deeper than %d levels: describe it as an object without properties", MaxNesting)
		return nil
	}
	field := len(r.c.Fields)
	r.c.Fields = append(r.c.Fields, Field{})
	f := Field{Path: n.path, Line: n.line, Description: b.text("description"), Classification: b.text("classification"), Tags: b.texts("tags")}

	n.kind = r.kindOf(b)
	n.physical = b.text("physicalType")
	n.required = b.bool("required")
	if b.lines["required"] > 0 {
		n.setLine(ruleRequired, b.lines["required"])
	}
	if b.lines["logicalType"] > 0 {
		n.setLine(ruleType, b.lines["logicalType"])
	}
	if b.bool("unique") {
		r.c.Unique = append(r.c.Unique, n.path)
		r.note(b.lines["unique"], b.at("unique"), "is a matter of the table: it is not checked event by event")
	}
	if b.bool("primaryKey") {
		r.c.PrimaryKey = append(r.c.PrimaryKey, n.path)
		r.note(b.lines["primaryKey"], b.at("primaryKey"), "is a matter of the table: it is not checked event by event")
	}
	r.personal(b, n, &f)
	r.options(b, n, &f)
	r.quality(b, n, &f)
	if v := b.get("enum"); v != nil {
		r.enum32(b, n, &f)
	}
	r.nested(b, n, depth)
	f.Type, f.Required, f.Personal = n.kind.String(), n.required, n.personal
	r.c.Fields[field] = f
	return n
}

// known32 tells a key of ODCS 3.2 in a file of 3.1 from one that is unknown, and
// gives the keys to accept.
func known32(r *reader, item *yaml.Node, path string, known []string) []string {
	item = plain(item)
	if r.v32 || item.Kind != yaml.MappingNode {
		return known
	}
	for i := 0; i+1 < len(item.Content); i += 2 {
		key := plain(item.Content[i])
		if contains(keys32, key.Value) {
			cure := "set apiVersion: v3.2.0"
			if key.Value == "enum" {
				cure += ", or list the values in a quality rule {metric: invalidValues, mustBe: 0, arguments: {validValues: [...]}}"
			}
			r.fail(key.Line, join(path, key.Value), "is of ODCS 3.2: %s", cure)
			known = append(append([]string{}, known...), key.Value)
		}
	}
	return known
}

func (r *reader) kindOf(b *block) kind {
	text := b.text("logicalType")
	if text == "" {
		switch {
		case b.value["properties"] != nil:
			return objectKind
		case b.value["items"] != nil:
			return arrayKind
		case b.value["logicalTypeOptions"] != nil && !r.meant(b.path, "logicalType"):
			b.fail("logicalTypeOptions", "needs logicalType: the options are those of a type")
		}
		return anyKind
	}
	for i, name := range kindNames[1:] {
		if name == text {
			return kind(i + 1)
		}
	}
	if text == mapType {
		b.fail("logicalType", "map is not read: use object, whose further members are free unless naru.unknownFields is freeze")
		return anyKind
	}
	b.fail("logicalType", "%q is none of %s%s", cut(text, 60), strings.Join(kindNames[1:], ", "), didYouMean(text, kindNames[1:]))
	return anyKind
}

// meant tells whether a key of a block was unknown and near to the one named.
func (r *reader) meant(path, key string) bool {
	for _, p := range r.problems {
		if parentPath(p.Key) == path && strings.HasSuffix(p.Text, didYouMean(key, []string{key})) {
			return true
		}
	}
	return false
}

func parentPath(path string) string { return path[:max(strings.LastIndexByte(path, '.'), 0)] }

// nested reads what is inside an object or an array.
func (r *reader) nested(b *block, n *node, depth int) {
	if b.value["properties"] != nil {
		if n.kind == objectKind {
			r.properties(b, n, n.path, depth+1)
		} else {
			b.fail("properties", "are those of an object: set logicalType: object, not %s", n.kind)
		}
	}
	if v := b.get("items"); v != nil {
		if n.kind == arrayKind {
			n.items = r.property(v, b.at("items"), n.path+"[]", depth+1, false)
		} else {
			b.fail("items", "are those of an array: set logicalType: array, not %s", n.kind)
		}
	}
	if n.kind != objectKind {
		return
	}
	// logicalTypeOptions.required names members that must be there.
	o := b.get("logicalTypeOptions")
	if o == nil || o.Kind != yaml.MappingNode {
		return
	}
	ob := (&decoder{}).block(o, "", nil)
	for _, name := range ob.texts("required") {
		var m *node
		for _, have := range n.members {
			if have.name == name {
				m = have
			}
		}
		if m == nil {
			m = newNode()
			m.name, m.line, m.path = name, ob.lines["required"], join(n.path, escapePath(name))
			if isPlain(name) {
				m.lit = `"` + name + `":`
			}
			n.members = append(n.members, m)
		}
		m.required = true
		for i := range r.c.Fields {
			if r.c.Fields[i].Path == m.path {
				r.c.Fields[i].Required = true
			}
		}
	}
}

// personal finds out whether values are personal data, and what is done to them.
func (r *reader) personal(b *block, n *node, f *Field) {
	for _, t := range f.Tags {
		n.personal = n.personal || contains(piiWords, strings.ToLower(t))
	}
	n.personal = n.personal || contains(piiClasses, strings.ToLower(f.Classification))
	custom := r.custom(b, fieldProperties)
	if p := custom["naru.pii"]; p != nil {
		f.PII = word(p, "value", PIINone, PIIDrop, PIIHash, PIITruncate, PIIIP)
		n.personal = true
		if (f.PII == PIITruncate || f.PII == PIIIP) && n.kind != stringKind {
			p.fail("value", "%s is for strings: set logicalType: string, or take hash or drop", f.PII)
		}
		n.pii, n.keep = f.PII, DefaultKeep
	}
	if p := custom["naru.piiKeep"]; p != nil {
		keep, ok := p.whole("value")
		switch {
		case f.PII != PIITruncate:
			p.fail("value", "says how many characters naru.pii truncate leaves, which is not set here")
		case ok && (keep < 0 || keep > 1000):
			p.fail("value", "%d is not between 0 and 1000", keep)
		case ok:
			n.keep = keep
		}
	}
	if n.personal && f.PII == PIINone {
		r.note(b.line, b.path, "holds personal data and is stored as it is: naru.pii drop, hash, truncate or ip says what to do with it")
	}
	if p := custom["naru.enum"]; p != nil {
		r.enum(p, "value", n, f)
	}
}

// enum reads a list of allowed values.
func (r *reader) enum(b *block, key string, n *node, f *Field) {
	items := b.items(key)
	switch {
	case n.enum != nil:
		b.fail(key, "the property has a list of allowed values already: keep one")
		return
	case len(items) == 0:
		b.fail(key, "wants a list of the values that are allowed")
		return
	case len(items) > MaxEnum:
		b.fail(key, "has %d values: at most %d; use a pattern", len(items), MaxEnum)
		return
	}
	e := &enum{set: map[string]struct{}{}}
	s := &Scratch{}
	for i, item := range items {
		item = plain(item)
		v := r.tree(item)
		if item.Kind != yaml.ScalarNode {
			r.fail(item.Line, b.item(key, i), "wants a text, a number, true or false, not %s", kindName(item))
			continue
		}
		if v == nil {
			r.fail(item.Line, b.item(key, i), "null is not listed: without required: true it is allowed anyway")
			continue
		}
		text, err := json.Marshal(v)
		if err != nil {
			r.fail(item.Line, b.item(key, i), "cannot be written as JSON: %v", err)
			continue
		}
		if want := fits(n.kind, text); want != "" {
			r.fail(item.Line, b.item(key, i), "%s is not %s, so no value could be it", text, want)
			continue
		}
		canonical, _ := s.canonical(text)
		if _, twice := e.set[string(canonical)]; twice {
			r.fail(item.Line, b.item(key, i), "%s stands here twice", text)
			continue
		}
		e.set[string(canonical)] = struct{}{}
		e.texts = append(e.texts, string(text))
		if str, ok := v.(string); ok {
			e.plain = append(e.plain, []byte(str))
		}
	}
	if len(e.plain) > fewValues || len(e.plain) < len(e.texts) {
		e.plain = nil
	}
	n.enum = e
	n.setLine(ruleEnum, b.lines[key])
	f.Rules = append(f.Rules, Rule{Name: ruleEnum, Enum: e.texts})
}

// fits says what a value of the type must look like when the JSON text does not.
func fits(k kind, text []byte) string {
	str := text[0] == '"'
	num := text[0] == '-' || text[0]-'0' < 10
	ok := true
	want := wantKind[k]
	switch k {
	case stringKind:
		ok = str
	case dateKind, timestampKind, timeKind:
		ok, want = str, "a string"
	case integerKind, numberKind:
		ok = num
		if num && k == integerKind {
			var v decimal
			v.parse(text)
			ok = v.isWhole()
		}
	case booleanKind:
		ok = text[0] == 't' || text[0] == 'f'
	case objectKind, arrayKind:
		ok = false
	}
	if ok {
		return ""
	}
	return want
}

// enum32 reads ODCS 3.2's list of {value, label}.
func (r *reader) enum32(b *block, n *node, f *Field) {
	list := &yaml.Node{Kind: yaml.SequenceNode, Line: b.lines["enum"]}
	for i, item := range b.items("enum") {
		if one := r.block(item, b.item("enum", i), []string{"value", "label", "description", "id", "tags", "customProperties"}); one != nil {
			if one.value["value"] == nil {
				one.fail("value", "is missing")
				continue
			}
			list.Content = append(list.Content, one.value["value"])
		}
	}
	lb := &block{d: b.d, path: b.path, line: b.line, value: map[string]*yaml.Node{"enum": list}, lines: b.lines}
	r.enum(lb, "enum", n, f)
}

// quality reads the rules that can be judged event by event: invalidValues that
// must be 0. All others are a matter of the table.
func (r *reader) quality(b *block, n *node, f *Field) {
	for i, item := range b.items("quality") {
		q := r.block(item, b.item("quality", i), qualityKeys)
		if q == nil {
			continue
		}
		must := q.get("mustBe")
		if q.text("metric") != "invalidValues" || must == nil || must.Value != "0" {
			r.note(q.line, q.path, "is a matter of the table: event by event only invalidValues with mustBe: 0 is checked")
			continue
		}
		v := q.get("arguments")
		if v == nil {
			q.fail("arguments", "is missing: validValues: [...] or pattern says which values are valid")
			continue
		}
		if a := r.block(v, q.at("arguments"), []string{"validValues", "pattern"}); a != nil {
			if a.value["validValues"] != nil {
				r.enum(a, "validValues", n, f)
			}
			if a.value["pattern"] != nil {
				r.pattern(a, n, f)
			}
		}
	}
}

// escapePath writes a name as part of a path.
func escapePath(name string) string {
	if !strings.ContainsAny(name, `.\`) {
		return name
	}
	return strings.NewReplacer(`\`, `\\`, `.`, `\.`).Replace(name)
}
