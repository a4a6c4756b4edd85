package contract

import (
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"naru/internal/lake"
)

var rootKeys = []string{"version", "kind", "apiVersion", "id", "name", "tenant", "tags", "status", "servers", "dataProduct", "description",
	"domain", "schema", "support", "price", "team", "roles", "slaDefaultElement", "slaProperties", "authoritativeDefinitions",
	"customProperties", "contractCreatedTs"}

var objectKeys = append(append([]string{}, elementKeys...),
	"logicalType", "physicalName", "dataGranularityDescription", "properties", "relationships", "quality")

// The keys of customProperties that naru reads: of a file or an event type, and
// of a field.
var (
	typeProperties  = []string{"naru.mode", "naru.unknownFields", "naru.table", "naru.partition", "naru.sort", "naru.jsonStrings", "naru.jsonSchema"}
	fieldProperties = []string{"naru.pii", "naru.piiKeep", "naru.enum"}
)

var statuses = []string{"proposed", "draft", "active", "deprecated", "retired"}

var versions = []string{"v3.0.0", "v3.0.1", "v3.0.2", "v3.1.0", "v3.2.0"}

// contracts reads one file: a contract for each of its schema objects.
func (d *decoder) contracts(text []byte) []*Contract {
	n := d.document(text)
	if n == nil {
		return nil
	}
	b := d.block(n, "", rootKeys)
	if b == nil {
		return nil
	}
	d.head(b)
	var out []*Contract
	seen, sum := map[string]int{}, digest(text)
	for i, item := range b.items("schema") {
		c := d.object(b, item, b.item("schema", i), sum)
		if c == nil {
			continue
		}
		if first := seen[c.Type]; first > 0 {
			d.fail(c.Line, b.item("schema", i), "there is a type %s already, on line %d", c.Type, first)
			continue
		}
		seen[c.Type] = c.Line
		out = append(out, c)
	}
	if b.get("schema") == nil {
		d.note(b.line, "schema", "is missing, so the file is no contract of any event type: it is a list, each with name and properties")
	}
	d.formal(n)
	return out
}

// head checks what a file says about itself.
func (d *decoder) head(b *block) {
	switch v := b.text("apiVersion"); {
	case v == "":
		b.fail("apiVersion", "is missing: write apiVersion: v3.1.0")
	case !contains(versions, v):
		b.fail("apiVersion", "%q is not read: write v3.1.0 (%s are read)", cut(v, 20), strings.Join(versions, ", "))
	default:
		d.v32 = v == "v3.2.0"
	}
	if kind := b.text("kind"); kind != "DataContract" {
		b.fail("kind", "write kind: DataContract")
	}
	for _, need := range [][2]string{
		{"id", "a name or UUID that stays when the contract changes"},
		{"version", "the contract's own version, as in version: 1.0.0"},
		{"status", "one of " + strings.Join(statuses, ", ")},
	} {
		if key := need[0]; b.value[key] == nil {
			b.fail(key, "is missing: %s", need[1])
		} else if b.get(key) == nil {
			b.fail(key, "is empty: %s", need[1])
		}
	}
	if status := b.quiet("status"); status != "" && !contains(statuses, status) {
		d.note(b.lines["status"], "status", "%q is none of the standard's words (%s)%s; only retired means anything to naru: no event is judged", cut(status, 40), strings.Join(statuses, ", "), didYouMean(status, statuses))
	}
}

// object reads a schema object: the contract of one event type. b is the file,
// sum the digest of its bytes.
func (d *decoder) object(b *block, item *yaml.Node, path string, sum []byte) *Contract {
	o := d.block(item, path, objectKeys)
	if o == nil {
		return nil
	}
	typ := o.text("name")
	if typ == "" {
		o.fail("name", "is missing: it is the event type")
		return nil
	}
	c := &Contract{Type: typ, ID: b.quiet("id"), Version: b.quiet("version"), File: d.file, Line: o.line, Name: b.quiet("name"),
		Status: b.quiet("status"), Domain: b.quiet("domain"), Description: o.text("description"), Mode: Enforce, Unknown: Evolve}
	c.Tags = slices.Concat(b.quietTexts("tags"), o.texts("tags"))
	d.people(b, c)
	root := newNode()
	root.kind, root.line = objectKind, o.line
	r := &reader{decoder: d, c: c, budget: MaxFields}
	r.properties(o, root, "", 1)
	for i, q := range o.items("quality") {
		d.note(q.Line, o.item("quality", i), "is a matter of the table: it is not checked event by event")
	}
	parts := [][]byte{sum}
	for _, level := range []*block{b, o} { // what stands at the type goes before
		custom := d.custom(level, typeProperties)
		parts = append(parts, d.settings(custom, c, root)...)
	}
	if c.Unknown == Discard {
		// Once the door left such fields out. What a contract of then says of rows is
		// kept by its hash, and is not what it says now.
		parts = append(parts, digest([]byte("discarded fields are in the log")))
	}
	root.finish(false, c.Unknown)
	d.arrange(c, root)
	c.embed()
	c.envelope = envelopeOf(root)
	c.root, c.Hash = root, hashOf(append(parts, digest([]byte(typ)))...)
	c.takeShape()
	return c
}

// quiet reads a text of the file's head again, without complaining twice.
func (b *block) quiet(key string) string {
	n := b.get(key)
	if n == nil || n.Kind != yaml.ScalarNode {
		return ""
	}
	return n.Value
}

func (b *block) quietTexts(key string) (out []string) {
	n := b.get(key)
	if n == nil {
		return nil
	}
	for _, e := range n.Content {
		out = append(out, plain(e).Value)
	}
	return out
}

// custom reads customProperties. A name that begins with naru. must be one of
// those known; the others are anybody's, and come back too.
func (d *decoder) custom(b *block, known []string) map[string]*block {
	out := map[string]*block{}
	n := b.get("customProperties")
	if n == nil || n.Kind != yaml.SequenceNode {
		return out // formal says so
	}
	quiet := &decoder{file: d.file}
	for i, item := range n.Content {
		probe := quiet.block(item, "", nil)
		if probe == nil {
			continue
		}
		name := probe.quiet("property")
		if name == "" {
			continue
		}
		p := d.block(item, b.item("customProperties", i), []string{"id", "property", "value", "description"})
		if strings.HasPrefix(strings.ToLower(name), "naru.") && !contains(known, name) {
			cure := didYouMean(name, known)
			if contains(typeProperties, name) {
				cure = ": it stands at the file or the event type"
			} else if contains(fieldProperties, name) {
				cure = ": it stands at a field"
			}
			p.fail("property", "%q is none of %s%s", cut(name, 60), strings.Join(known, ", "), cure)
			continue
		}
		if out[name] != nil {
			p.fail("property", "%s is set twice; the first time on line %d", name, out[name].line)
			continue
		}
		out[name] = p
	}
	return out
}

// settings reads the custom properties of a file or an event type. It returns
// what the hash is to cover beside the file.
func (d *decoder) settings(custom map[string]*block, c *Contract, root *node) (parts [][]byte) {
	if p := custom["naru.mode"]; p != nil {
		c.Mode = word(p, "value", c.Mode, Enforce, Observe)
	}
	if p := custom["naru.unknownFields"]; p != nil {
		c.Unknown = word(p, "value", c.Unknown, Evolve, Freeze, Discard)
	}
	if p := custom["naru.table"]; p != nil {
		c.tableLine = p.line
		if c.Table = p.text("value"); !isTable(c.Table) || lake.TableName(c.Table) != c.Table {
			p.fail("value", "%q is no name of a table: letters in lower case, digits and _, a letter first, at most 128 bytes", cut(c.Table, 60))
		}
	}
	if p := custom["naru.partition"]; p != nil {
		c.Partition, c.partitionAt = p.texts("value"), p
	}
	if p := custom["naru.sort"]; p != nil {
		c.Sort, c.sortAt = p.texts("value"), p
	}
	if p := custom["naru.jsonStrings"]; p != nil {
		c.JSONStrings = p.texts("value")
		for _, path := range c.JSONStrings {
			n := d.named(p, path, root)
			switch {
			case n == nil:
			case n.kind != objectKind && n.kind != arrayKind:
				p.fail("value", "%s is described as %s: describe what its JSON holds, with logicalType: object or array", path, n.kind)
			default:
				n.isJSON = true
			}
		}
	}
	if p := custom["naru.jsonSchema"]; p != nil {
		var used [][]byte
		if c.schema, used = d.jsonSchema(p, c); c.schema != nil {
			for _, text := range used {
				parts = append(parts, digest(text))
			}
		}
	}
	d.ingestion(custom, c)
	return parts
}

// named finds a field by its path.
func (d *decoder) named(p *block, path string, root *node) *node {
	if n := root.find(path); n != nil {
		return n
	}
	if contains(envelope, path) {
		return nil
	}
	var known []string
	for _, m := range root.members {
		known = append(known, m.path)
	}
	p.fail("value", "there is no field %s%s", cut(path, 60), didYouMean(path, append(known, envelope...)))
	return nil
}

// envelope are the columns that every table has.
var envelope = []string{"_id", "_type", "_source", "_subject", "_time", "_received_at", "_log", "_partition", "_offset"}

// find gives the node of a path beneath n.
func (n *node) find(path string) *node {
	for _, m := range n.members {
		if m.path == path {
			return m
		}
		if strings.HasPrefix(path, m.path+".") {
			if found := m.find(path); found != nil {
				return found
			}
		}
		for in := m.items; in != nil && strings.HasPrefix(path, in.path); in = in.items {
			if path == in.path {
				return in
			}
			if found := in.find(path); found != nil {
				return found
			}
		}
	}
	return nil
}

func isTable(name string) bool {
	for i, r := range name {
		if i == 0 && !unicode.IsLetter(r) || r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) || unicode.ToLower(r) != r {
			return false
		}
	}
	return name != "" && len(name) <= 128 && name != "rejected"
}
