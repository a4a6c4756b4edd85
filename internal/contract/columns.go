package contract

import (
	"regexp"
	"strings"

	"naru/internal/lake"
)

// Shape is what the contract says of the table that its events go to; nil when it
// says nothing. It is never to be changed.
func (c *Contract) Shape() *lake.Shape { return c.shape }

// takeShape works out the shape, and notes which field becomes which column.
func (c *Contract) takeShape() {
	s := &lake.Shape{Table: c.Table, Partition: c.partition, Sort: c.sort}
	kinds := map[string]string{}
	c.root.columns(func(n *node, kind string) {
		kinds[n.path] = kind
		s.Columns = append(s.Columns, lake.ShapeColumn{Path: n.path, Kind: kind, UTC: kind == "timestamptz" && n.utc})
	})
	if c.Unknown == Discard {
		s.Known = c.root.known()
	}
	for i := range c.Fields {
		c.Fields[i].Column = kinds[c.Fields[i].Path]
	}
	if !s.IsZero() {
		c.shape = s
	}
}

// columns calls fn for the members that become columns of a type that is known
// from the contract, in their order.
func (n *node) columns(fn func(n *node, kind string)) {
	for _, m := range n.members {
		if m.kind == objectKind && m.pii == PIINone {
			m.columns(fn) // objects are flattened
			continue
		}
		if kind := m.column(); kind != "" {
			fn(m, kind)
		}
	}
}

// known is what rows have of a value of the node, where unknown fields are
// discarded; nil: all. As with freeze, an object without properties may hold anything.
func (n *node) known() *lake.Known {
	switch {
	case n.pii != PIINone: // a text stands there
	case n.kind == objectKind && len(n.members) > 0:
		k := &lake.Known{Fields: make(map[string]*lake.Known, len(n.members))}
		for _, m := range n.members {
			k.Fields[m.name] = m.known()
		}
		return k
	case n.kind == arrayKind && n.items != nil:
		if items := n.items.known(); items != nil {
			return &lake.Known{Items: items}
		}
	}
	return nil
}

// column is the kind of column that holds the node's values as they are stored, by
// its name in lake.ShapeColumn; "" where the data decide.
func (n *node) column() string {
	switch n.pii {
	case PIIDrop:
		return ""
	case PIIHash, PIITruncate, PIIIP:
		return "string"
	}
	switch n.kind {
	case stringKind, timeKind: // Spark has no time of day
		return "string"
	case integerKind:
		return "long"
	case numberKind:
		return "double"
	case booleanKind:
		return "bool"
	case dateKind:
		if n.layout == rfcDate && !isText(n.physical) {
			return "date"
		}
		return "string"
	case timestampKind:
		// Written in another way, or without an offset, it is kept as it is.
		if (n.layout == rfcTimestamp || n.layout == rfcEither && n.utc) && !isText(n.physical) {
			return "timestamptz"
		}
		return "string"
	case arrayKind:
		if n.items == nil {
			return ""
		}
		switch kind := n.items.column(); kind {
		case "string", "long", "double", "bool":
			return "list<" + kind + ">"
		case "date", "timestamptz":
			return "list<string>"
		}
		if n.items.kind == objectKind || n.items.kind == arrayKind {
			return "json"
		}
	}
	return ""
}

// physicalText are the types of texts that physicalType may name.
var physicalText = regexp.MustCompile(`^(?i:string|text|varchar|character varying|char|character|nvarchar|clob)\b`)

func isText(physical string) bool { return physicalText.MatchString(strings.TrimSpace(physical)) }

// tables names what is wrong with the tables that contracts ask for: one that two
// types would share, though one of them asks for it by name.
func tables(set map[string]*Contract) (problems Problems) {
	asked := map[string]*Contract{}
	for _, typ := range sortedKeys(set) {
		c := set[typ]
		if c.Table == "" {
			continue
		}
		if first := asked[c.Table]; first != nil {
			problems = append(problems, Problem{File: c.File, Line: c.tableLine, Key: "customProperties[naru.table].value",
				Text: "the table " + c.Table + " is that of the type " + first.Type + " already, in " + first.where() + ": give one of the two another name"})
			continue
		}
		asked[c.Table] = c
	}
	for _, typ := range sortedKeys(set) {
		c := set[typ]
		if other := asked[lake.TableName(typ)]; c.Table == "" && other != nil && other != c {
			problems = append(problems, Problem{File: other.File, Line: other.tableLine, Key: "customProperties[naru.table].value",
				Text: "the table " + other.Table + " is the own one of the type " + typ + ", in " + c.where() + ": take another name, or give that type a naru.table of its own"})
		}
	}
	return problems
}
