package query

import (
	"regexp"
	"slices"
	"strings"
)

// sized looks at functions that make a large value out of small ones.
func (g *gate) sized(obj map[string]any, name string) error {
	switch {
	case name == "replace" && !lengthens(obj):
		return nil // the usual one, and it shall cost no more
	case guarded[name] > 0:
		schema, _ := obj["schema"].(string)
		catalog, _ := obj["catalog"].(string)
		if catalog != "" || systemSchemas[lower(schema)] {
			return g.refuse(obj, "%s is refused with a schema before it: write the name alone", name)
		}
		if !slices.Contains(g.s.Guarded, name) {
			g.s.Guarded = append(g.s.Guarded, name)
		}
	case name == "printf" || name == "format":
		args, _ := obj["children"].([]any)
		if len(args) == 0 {
			return nil
		}
		text, ok := constantText(args[0])
		if !ok {
			return g.refuse(obj, "%s is refused with a format that is computed: write it as a text", name)
		}
		if wideFormat.MatchString(strings.ReplaceAll(text, "%%", "")) {
			return g.refuse(obj, "%s is refused with this width: four digits are the most, and they must stand in the format", name)
		}
	case jsonReaders[name]:
		args, _ := obj["children"].([]any)
		if len(args) < 2 {
			return nil
		}
		text, ok := constantText(args[1])
		if !ok {
			return g.refuse(obj, "%s is refused with a structure that is computed: write it as a text", name)
		}
		if strings.Count(text, "[")+strings.Count(text, "{") > largestStructure {
			return g.refuse(obj, "%s is refused with this structure: %d lists and objects are the most", name, largestStructure)
		}
	}
	return nil
}

// lengthens tells whether a call of replace may make its text longer.
func lengthens(call map[string]any) bool {
	args, _ := call["children"].([]any)
	if len(args) != 3 {
		return true
	}
	from, ok := constantText(args[1])
	to, both := constantText(args[2])
	return !ok || !both || len(to) > len(from)
}

// jsonReaders take a structure, which DuckDB turns into a type by recursion: one
// that is too deep would end the process.
var jsonReaders = map[string]bool{"json_transform": true, "json_transform_strict": true, "from_json": true, "from_json_strict": true}

const largestStructure = 400 // as deep as an expression may be

// constantText is the text of an expression that is nothing but one.
func constantText(v any) (string, bool) {
	obj, _ := v.(map[string]any)
	value, _ := obj["value"].(map[string]any)
	text, ok := value["value"].(string)
	return text, ok && obj["class"] == "CONSTANT"
}

// wideFormat finds widths that are large or come from an argument.
var wideFormat = regexp.MustCompile(`%[-+ #0-9.]*([0-9]{5}|\*)|\{[^{}]*[0-9]{5}|\{[^{}]+\{`)
