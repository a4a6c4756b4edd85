package contract

import (
	"fmt"
	"regexp"
	"strings"

	"naru/internal/jsonscan"
)

// Draft writes a contract that all events of the sample keep, to be read and
// changed by people: what was seen is not what is meant. Bounds have room: a
// number may be ten times as large as the largest, a text twice as long.
func (s *Sample) Draft(typ string) []byte {
	w := &drafter{}
	w.line(0, "# A draft from %s of type %s. Read it, change it, then", count(s.Events(), "event"), plainComment(typ))
	w.line(0, "# set status: active and say who the owner is.")
	w.line(0, "apiVersion: v3.1.0")
	w.line(0, "kind: DataContract")
	w.line(0, "id: %s", scalar(typ))
	w.line(0, "version: 0.1.0")
	w.line(0, "status: draft")
	w.line(0, "team:")
	w.line(1, "name: unknown # the team to ask")
	w.line(1, "members:")
	w.line(2, "- {username: unknown, role: owner}")
	w.line(0, "customProperties:")
	w.line(1, "- {property: naru.mode, value: observe} # enforce refuses what breaks the contract")
	w.line(0, "schema:")
	w.line(1, "- name: %s", scalar(typ))
	w.properties(2, s.root)
	return []byte(w.String())
}

type drafter struct{ strings.Builder }

func (w *drafter) line(depth int, format string, args ...any) {
	w.WriteString(strings.Repeat("  ", depth))
	fmt.Fprintf(w, format, args...)
	w.WriteByte('\n')
}

func (w *drafter) properties(depth int, n *seen) {
	if len(n.members) == 0 {
		return
	}
	w.line(depth, "properties:")
	for _, m := range n.members {
		w.line(depth+1, "- name: %s%s", scalar(m.name), m.hint())
		w.field(depth+2, m, m.inside == n.objects)
	}
}

// field writes what belongs to a property, or to the items of an array.
func (w *drafter) field(depth int, n *seen, required bool) {
	k := n.kind()
	if k == anyKind {
		if n.inside == 0 {
			w.line(depth, "# always null: say which type it is to be")
		} else {
			w.line(depth, "# several types: %s", n.kinds())
		}
	} else {
		w.line(depth, "logicalType: %s", k)
	}
	if required {
		w.line(depth, "required: true")
	} else if n.inside > 0 {
		w.line(depth, "required: false # null or missing at times")
	}
	switch k {
	case stringKind:
		w.text(depth, n)
	case integerKind, numberKind:
		w.number(depth, n)
	case objectKind:
		if n.depthCut == 0 {
			w.properties(depth, n)
		}
	case arrayKind:
		if n.items != nil && n.items.inside > 0 {
			w.line(depth, "items:")
			w.field(depth+1, n.items, n.items.nulls == 0)
		}
	}
}

func (w *drafter) text(depth int, n *seen) {
	if n.uuids == n.strings {
		w.line(depth, "logicalTypeOptions: {format: uuid}")
		return
	}
	if values := n.fewValues(); values != nil && n.hint() == "" {
		w.line(depth, "quality:")
		w.line(depth+1, "- metric: invalidValues")
		w.line(depth+2, "mustBe: 0")
		w.line(depth+2, "arguments:")
		w.line(depth+3, "validValues:")
		for _, v := range values {
			w.line(depth+4, "- %s # %s", scalar(v), count(n.values[v], "time"))
		}
		return
	}
	room := 16
	for room < 2*n.maxLen {
		room *= 2
	}
	w.line(depth, "logicalTypeOptions: {maxLength: %d} # seen: %d", room, n.maxLen)
}

func (w *drafter) number(depth int, n *seen) {
	if n.depthCut > 0 {
		return
	}
	low, high := newBound(n.low), newBound(n.high)
	if max(low.exp, high.exp) > 18 {
		return
	}
	least := "0"
	if low.negative {
		least = "-" + tenfold(&low.decimal)
	}
	most := "0"
	if !high.negative {
		most = tenfold(&high.decimal)
	}
	if least == most {
		most = "10"
	}
	w.line(depth, "logicalTypeOptions: {minimum: %s, maximum: %s} # seen: %s to %s", least, most, n.low, n.high)
}

// tenfold is the power of ten that is at least ten times v.
func tenfold(v *decimal) string {
	return "1" + strings.Repeat("0", max(int(v.exp)+1, 1))
}

func (n *seen) kinds() string {
	var out []string
	for _, k := range []struct {
		n    int
		name string
	}{{n.strings, "string"}, {n.wholes, "integer"}, {n.fractions, "number"}, {n.bools, "boolean"}, {n.objects, "object"}, {n.arrays, "array"}} {
		if k.n > 0 {
			out = append(out, fmt.Sprintf("%d × %s", k.n, k.name))
		}
	}
	return strings.Join(out, ", ")
}

var personalName = regexp.MustCompile(`(?i)(^|_|\b)(e?mail|phone|mobile|ip|ip_?addr(ess)?|password|ssn|birth(day|date)?|first_?name|last_?name|full_?name|address)(_|\b|$)|Email$|Phone$|IP$`)

// hint asks about fields whose name sounds like personal data.
func (n *seen) hint() string {
	if personalName.MatchString(n.name) {
		return " # personal data? then add tags: [pii], and naru.pii"
	}
	return ""
}

var simpleScalar = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// scalar writes a text as YAML.
func scalar(s string) string {
	switch strings.ToLower(s) {
	case "true", "false", "yes", "no", "on", "off", "y", "n", "null":
	default:
		if simpleScalar.MatchString(s) {
			return s
		}
	}
	return string(jsonscan.AppendQuoted(nil, s))
}

func plainComment(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, s)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
