package contract

import (
	"fmt"

	"naru/internal/jsonscan"
)

// MaxViolations is how many violations of one event are told.
const MaxViolations = 20

// maxShown is how many bytes of a value are shown.
const maxShown = 100

// hiddenValue stands for a value that is personal data.
const hiddenValue = "(personal data)"

// The rules. They are stable: scripts match on them. Those of JSON Schema are
// jsonSchema. and the keyword.
const (
	ruleJSON             = "json"  // the event, or a string that should hold JSON, is none
	ruleLimit            = "limit" // it cannot be judged
	ruleType             = "type"
	ruleRequired         = "required"
	ruleUnknown          = "unknownField"
	ruleEnum             = "enum"
	rulePattern          = "pattern"
	ruleFormat           = "format"
	ruleMinLength        = "minLength"
	ruleMaxLength        = "maxLength"
	ruleMinimum          = "minimum"
	ruleMaximum          = "maximum"
	ruleExclusiveMinimum = "exclusiveMinimum"
	ruleExclusiveMaximum = "exclusiveMaximum"
	ruleMultipleOf       = "multipleOf"
	ruleMinItems         = "minItems"
	ruleMaxItems         = "maxItems"
	ruleUniqueItems      = "uniqueItems"
	ruleMinProperties    = "minProperties"
	ruleMaxProperties    = "maxProperties"
	ruleSchema           = "jsonSchema"
)

// Violation is one way in which an event breaks its contract.
type Violation struct {
	Rule  string `json:"rule"`
	Path  string `json:"path"`            // JSONPath (RFC 9535), as in $.items[3].sku
	Value string `json:"value,omitempty"` // the JSON that stands there, cut; personal data is hidden
	Want  string `json:"want"`
	Line  int    `json:"line"` // of the contract's file
}

func (v Violation) String() string {
	switch {
	case v.Rule == ruleRequired && v.Value == "":
		return fmt.Sprintf("%s is missing", v.Path)
	case v.Rule == ruleRequired:
		return fmt.Sprintf("%s is null: want %s", v.Path, v.Want)
	case v.Value == "":
		return fmt.Sprintf("%s: want %s", v.Path, v.Want)
	}
	return fmt.Sprintf("%s is %s: want %s", v.Path, v.Value, v.Want)
}

// appendStep puts a member's name behind a JSONPath.
func appendStep(path []byte, name string) []byte {
	simple := name != ""
	for i, r := range name {
		letter := r == '_' || r|0x20 >= 'a' && r|0x20 <= 'z' || r >= 0x80
		if !letter && (i == 0 || r < '0' || r > '9') {
			simple = false
			break
		}
	}
	if simple {
		return append(append(path, '.'), name...)
	}
	return append(jsonscan.AppendQuoted(append(path, '['), cut(name, maxShown)), ']')
}

// step is one place on the way to the value that is being judged.
type step struct {
	n     *node // of a member; nil for an item
	index int   // of an item
}

// where writes the path of the value that is being judged.
func (s *Scratch) where(end string) string {
	path := []byte("$")
	for _, at := range s.way {
		if at.n != nil {
			path = appendStep(path, at.n.name)
		} else {
			path = fmt.Appendf(path, "[%d]", at.index)
		}
	}
	if end != "" {
		path = appendStep(path, end)
	}
	return string(path)
}

// add keeps a violation while there is room.
func (s *Scratch) add(v Violation) {
	if len(s.found) < MaxViolations {
		s.found = append(s.found, v)
	}
}

// breaks tells that the value raw of n breaks a rule.
func (s *Scratch) breaks(n *node, rule string, raw []byte, want string) {
	if len(s.found) >= MaxViolations {
		return
	}
	s.add(Violation{Rule: rule, Path: s.where(""), Value: shown(n, raw), Want: want, Line: n.lineOf(rule)})
}

// shown is a value as it may be shown.
func shown(n *node, raw []byte) string {
	if n.personal {
		return hiddenValue
	}
	if len(raw) > maxShown {
		return validText([]byte(cut(string(raw), maxShown)))
	}
	return validText(raw)
}
