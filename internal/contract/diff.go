package contract

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Verdict says what a change does to somebody.
type Verdict string

// The verdicts.
const (
	Compatible Verdict = "compatible"
	Breaking   Verdict = "breaking"
)

// Change is one difference between two contracts of a type.
type Change struct {
	Type  string `json:"type"`
	Field string `json:"field,omitempty"` // path; empty for the contract itself
	What  string `json:"what"`            // the rule or key, as in required
	Old   string `json:"old,omitempty"`
	New   string `json:"new,omitempty"`
	// Producers send events: a change breaks them when an event that was good is
	// refused. Consumers read rows: a change breaks them when rows can hold what
	// they could not before, or lack what they had.
	Producers Verdict `json:"producers"`
	Consumers Verdict `json:"consumers"`
	Why       string  `json:"why"`
}

// IsBreaking tells whether the change breaks anybody.
func (c *Change) IsBreaking() bool { return c.Producers == Breaking || c.Consumers == Breaking }

// differ collects the changes of one type.
type differ struct {
	typ string
	out []Change
}

func (d *differ) add(field, what, before, after string, producers, consumers bool, why string) {
	verdict := func(breaks bool) Verdict {
		if breaks {
			return Breaking
		}
		return Compatible
	}
	d.out = append(d.out, Change{Type: d.typ, Field: field, What: what, Old: cut(before, 200), New: cut(after, 200),
		Producers: verdict(producers), Consumers: verdict(consumers), Why: why})
}

// tighter and looser are the two ways in which a rule changes.
func (d *differ) tighter(field, what, before, after string) {
	d.add(field, what, before, after, true, false, "events that were good can be refused")
}

func (d *differ) looser(field, what, before, after string) {
	d.add(field, what, before, after, false, true, "rows can hold values that they could not before")
}

func (d *differ) other(field, what, before, after string) {
	d.add(field, what, before, after, true, true, "the two cannot be compared: both sides have to look")
}

// Diff gives the changes from one set of contracts to another: by type, the
// contract's own first, then its fields in the order of the files.
func Diff(before, after *Set) []Change {
	types := map[string]bool{}
	for _, s := range []*Set{before, after} {
		for typ := range s.byType {
			types[typ] = true
		}
	}
	var out []Change
	for _, typ := range sortedKeys(types) {
		d := &differ{typ: typ}
		a, b := before.For(typ), after.For(typ)
		switch {
		case a == nil:
			d.add("", "contract", "", b.Version, b.Mode == Enforce, false, "events of this type were not judged before")
		case b == nil:
			d.add("", "contract", a.Version, "", false, true, "nothing is promised any more")
		default:
			d.contract(a, b)
			if b.Mode == Observe {
				d.observed()
			}
		}
		out = append(out, d.out...)
	}
	return out
}

func (d *differ) contract(a, b *Contract) {
	if a.Mode != b.Mode {
		if b.Mode == Enforce {
			d.add("", "naru.mode", string(a.Mode), string(b.Mode), true, false, "events that break the contract are refused from now on")
		} else {
			d.add("", "naru.mode", string(a.Mode), string(b.Mode), false, true, "rows that break the contract come in from now on")
		}
	}
	if a.Unknown != b.Unknown {
		d.add("", "naru.unknownFields", string(a.Unknown), string(b.Unknown), b.Unknown == Freeze, b.Unknown == Discard,
			map[Unknown]string{Freeze: "events with further fields are refused", Discard: "further fields make no columns any more", Evolve: "further fields become columns"}[b.Unknown])
	}
	for _, key := range []struct{ what, before, after string }{
		{"naru.table", a.Table, b.Table},
		{"naru.jsonStrings", strings.Join(a.JSONStrings, ", "), strings.Join(b.JSONStrings, ", ")},
	} {
		if key.before != key.after {
			d.add("", key.what, key.before, key.after, false, true, "the columns are others, or elsewhere")
		}
	}
	for _, key := range []struct{ what, before, after string }{
		{"naru.partition", strings.Join(a.Partition, ", "), strings.Join(b.Partition, ", ")},
		{"naru.sort", strings.Join(a.Sort, ", "), strings.Join(b.Sort, ", ")},
	} {
		if key.before != key.after && key.after == "" {
			d.add("", key.what, key.before, key.after, false, false, "the table stays as it is: write none to end it")
		} else if key.before != key.after {
			d.add("", key.what, key.before, key.after, false, false, "new files are laid out so, old ones stay; neither events nor columns change")
		}
	}
	for _, key := range []struct{ what, before, after string }{
		{"version", a.Version, b.Version}, {"status", a.Status, b.Status}, {"owner", a.Owner, b.Owner},
	} {
		if key.before != key.after {
			d.add("", key.what, key.before, key.after, false, false, "neither events nor columns change")
		}
	}
	d.schema(a.schema, b.schema)
	d.fields(a, b)
}

// observed: nobody's events are refused by a contract that only observes.
func (d *differ) observed() {
	for i := range d.out {
		if c := &d.out[i]; c.Producers == Breaking {
			c.Producers = Compatible
			c.Why += "; but the contract observes: they are counted, not refused"
		}
	}
}

func (d *differ) schema(a, b *jsonSchema) {
	switch {
	case a == nil && b != nil:
		d.tighter("", "naru.jsonSchema", "", b.text)
	case a != nil && b == nil:
		d.looser("", "naru.jsonSchema", a.text, "")
	case a != nil && a.text != b.text:
		d.other("", "naru.jsonSchema", a.text, b.text)
	}
}

func (d *differ) fields(a, b *Contract) {
	now := map[string]*Field{}
	for i := range b.Fields {
		now[b.Fields[i].Path] = &b.Fields[i]
	}
	was := map[string]*Field{}
	for i := range a.Fields {
		f := &a.Fields[i]
		was[f.Path] = f
		g := now[f.Path]
		switch {
		case g != nil:
			d.field(f, g)
		case covered(f.Path, now):
			// What it lay in changed its type or went away: said there.
		case b.Unknown == Freeze:
			d.add(f.Path, "field", f.Type, "", true, true, "events that have it are refused, and rows lack it")
		default:
			d.add(f.Path, "field", f.Type, "", false, true, "nobody promises the field any more: its column may be empty, or hold anything")
		}
	}
	for i := range b.Fields {
		g := &b.Fields[i]
		if was[g.Path] != nil || covered(g.Path, was) {
			continue
		}
		switch {
		case g.Required:
			d.add(g.Path, "field", "", g.Type, true, false, "events without it are refused")
		case a.Unknown == Freeze:
			d.add(g.Path, "field", "", g.Type, false, false, "it was refused before and need not be there")
		default:
			d.add(g.Path, "field", "", g.Type, false, false, "it need not be there; an event that had it as something else would be refused")
		}
	}
}

// covered tells whether the place that a path lies in is missing from the other
// side, or is no object or array there: then that is the change.
func covered(path string, other map[string]*Field) bool {
	for {
		i := max(strings.LastIndexByte(path, '.'), strings.LastIndex(path, "[]"))
		if i < 0 {
			return false
		}
		path = path[:i]
		if f := other[path]; f == nil || f.Type != "object" && f.Type != "array" {
			return true
		}
	}
}

// wider tells whether every value of one type is one of another.
func wider(from, to string) bool {
	return to == "any" || from == "integer" && to == "number" || to == "string" && (from == "date" || from == "timestamp" || from == "time")
}

func (d *differ) field(f, g *Field) {
	if f.Type != g.Type {
		switch {
		case wider(f.Type, g.Type):
			d.add(f.Path, "type", f.Type, g.Type, false, true, columnWhy(f, g))
		case wider(g.Type, f.Type):
			d.add(f.Path, "type", f.Type, g.Type, true, true, "events that were good can be refused; "+columnWhy(f, g))
		default:
			d.add(f.Path, "type", f.Type, g.Type, true, true, "all events with the old type are refused; "+columnWhy(f, g))
		}
		return
	}
	if f.Required != g.Required {
		if g.Required {
			d.tighter(f.Path, ruleRequired, "false", "true")
		} else {
			d.add(f.Path, ruleRequired, "true", "false", false, true, "the column can be null")
		}
	}
	rules := map[string][2]*Rule{}
	for i := range f.Rules {
		rules[f.Rules[i].Name] = [2]*Rule{&f.Rules[i], nil}
	}
	for i := range g.Rules {
		rules[g.Rules[i].Name] = [2]*Rule{rules[g.Rules[i].Name][0], &g.Rules[i]}
	}
	for _, name := range sortedKeys(rules) {
		d.rule(f.Path, name, rules[name][0], rules[name][1])
	}
	if f.PII != g.PII {
		d.add(f.Path, "naru.pii", string(f.PII), string(g.PII), false, true, "the column holds something else than before")
	}
	if f.Personal != g.Personal && f.PII == g.PII {
		d.add(f.Path, "personal", fmt.Sprint(f.Personal), fmt.Sprint(g.Personal), false, false, "neither events nor columns change")
	}
}

// columnWhy says what becomes of the column when the type of a field changes.
func columnWhy(f, g *Field) string {
	switch {
	case f.Column != "" && f.Column == g.Column:
		return "the column stays"
	case f.Column == "long" && g.Column == "double":
		return "the column becomes double with its first fraction"
	}
	return "a column that is there keeps its type, and what does not fit it goes to _rescued: naru.table with another name makes a new table"
}

func (d *differ) rule(path, name string, a, b *Rule) {
	switch {
	case a == nil:
		d.tighter(path, name, "", b.text())
	case b == nil:
		d.looser(path, name, a.text(), "")
	case name == ruleEnum:
		gone, come := without(a.Enum, b.Enum), without(b.Enum, a.Enum)
		if len(gone) > 0 {
			d.add(path, name, strings.Join(gone, ", "), "", true, false, "events with these values are refused")
		}
		if len(come) > 0 {
			d.add(path, name, "", strings.Join(come, ", "), false, true, "rows can hold values that nobody knew before")
		}
	case a.Value == b.Value:
	default:
		d.changed(path, name, a.Value, b.Value)
	}
}

func (r *Rule) text() string {
	if r.Name == ruleEnum {
		return strings.Join(r.Enum, ", ")
	}
	return r.Value
}

// changed compares the two values of a rule.
func (d *differ) changed(path, name, before, after string) {
	var order int
	numeric := strings.Trim(before+after, "0123456789.eE+-") == ""
	if numeric {
		x, y := newBound(before), newBound(after)
		order = y.compare(&x.decimal)
		if name == ruleMultipleOf {
			switch {
			case y.isMultipleOf(&x.decimal):
				d.tighter(path, name, before, after)
			case x.isMultipleOf(&y.decimal):
				d.looser(path, name, before, after)
			default:
				d.other(path, name, before, after)
			}
			return
		}
	}
	switch {
	case !numeric, order == 0:
		if !numeric || before != after && name == ruleFormat {
			d.other(path, name, before, after)
		}
	case contains([]string{ruleMinimum, ruleExclusiveMinimum, ruleMinLength, ruleMinItems, ruleMinProperties}, name) == (order > 0):
		d.tighter(path, name, before, after)
	default:
		d.looser(path, name, before, after)
	}
}

func without(list, those []string) (out []string) {
	for _, one := range list {
		if !slices.Contains(those, one) {
			out = append(out, one)
		}
	}
	slices.SortFunc(out, cmp.Compare)
	return out
}
