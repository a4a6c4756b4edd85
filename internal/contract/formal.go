package contract

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	schemakind "github.com/santhosh-tekuri/jsonschema/v6/kind"
	"go.yaml.in/yaml/v3"
)

// The JSON Schema of ODCS 3.1.0, as its authors publish it (Apache-2.0, see
// NOTICE).
//
//go:embed odcs-3.1.0.schema.json
var odcsText []byte

var odcsTree = sync.OnceValue(func() any {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(odcsText))
	if err != nil {
		panic(err) // a constant
	}
	return doc
})

var odcsSchema = sync.OnceValue(func() *jsonschema.Schema {
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	if err := c.AddResource("odcs.json", odcsTree()); err != nil {
		panic(err) // a constant
	}
	return c.MustCompile("odcs.json")
})

// keysAt gives the keys that the standard has at a place of its schema.
func keysAt(schemaURL string) []string {
	_, pointer, _ := strings.Cut(schemaURL, "#/")
	at := odcsTree()
	for token := range strings.SplitSeq(pointer, "/") {
		m, _ := at.(map[string]any)
		at = m[token]
	}
	m, _ := at.(map[string]any)
	properties, _ := m["properties"].(map[string]any)
	return sortedKeys(properties)
}

// noLoader reads nothing, neither from the disk nor from the network.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) { return nil, errors.New("nothing is fetched") }

// formal holds the file against the standard's own JSON Schema. What has been
// said of a place, or of a place above or beneath it, is not said again.
func (d *decoder) formal(n *yaml.Node) {
	before := len(d.problems)
	if before > maxProblems {
		return
	}
	doc := d.tree(n)
	if len(d.problems) > before {
		return
	}
	if d.v32 {
		to31(doc)
	}
	err := odcsSchema().Validate(doc)
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return
	}
	said := map[string]bool{}
	found := leaves(invalid, nil)
	slices.SortStableFunc(found, func(a, b *jsonschema.ValidationError) int {
		return slices.Compare(a.InstanceLocation, b.InstanceLocation)
	})
	for _, e := range found {
		path := pathAt(n, e.InstanceLocation)
		text := formalText(e)
		if _, unknown := e.ErrorKind.(*schemakind.FalseSchema); unknown {
			// A mistake elsewhere in a property makes the schema call its keys unknown.
			key := e.InstanceLocation[len(e.InstanceLocation)-1]
			if contains(propertyKeys, key) || contains(objectKeys, key) {
				continue
			}
		}
		if text == "" || d.said(path) || said[path] {
			continue
		}
		said[path] = true
		d.fail(lineAt(n, e.InstanceLocation), path, "%s (ODCS 3.1)", text)
	}
}

// said tells whether there is a problem already at a path, above or beneath it.
func (d *decoder) said(path string) bool {
	if path == "" && len(d.problems) > 0 {
		return true // what a file must have is said before
	}
	for _, p := range d.problems {
		if within(path, p.Key) || within(p.Key, path) {
			return true
		}
	}
	return false
}

// within tells whether path is at or beneath the place above.
func within(path, above string) bool {
	rest, ok := strings.CutPrefix(path, above)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// to31 takes out of a file of ODCS 3.2 what 3.1's schema does not know.
func to31(v any) {
	switch v := v.(type) {
	case map[string]any:
		if _, root := v["apiVersion"]; root {
			v["apiVersion"] = "v3.1.0"
		}
		if _, property := v["name"]; property {
			for _, key := range keys32 {
				delete(v, key)
			}
		}
		for _, one := range v {
			to31(one)
		}
	case []any:
		for _, one := range v {
			to31(one)
		}
	}
}

// leaves are the mistakes at the bottom of a validation error, in a stable order.
func leaves(e *jsonschema.ValidationError, out []*jsonschema.ValidationError) []*jsonschema.ValidationError {
	if len(e.Causes) == 0 {
		return append(out, e)
	}
	for _, c := range e.Causes {
		out = leaves(c, out)
	}
	return out
}

func formalText(e *jsonschema.ValidationError) string {
	switch k := e.ErrorKind.(type) {
	case *schemakind.Type:
		text := fmt.Sprintf("wants %s, not %s", strings.Join(k.Want, " or "), k.Got)
		if contains(k.Want, "string") && (k.Got == "number" || k.Got == "boolean") {
			text += ": put it into quotes"
		}
		return text
	case *schemakind.Required:
		return "lacks " + strings.Join(k.Missing, ", ")
	case *schemakind.Enum:
		var words []string
		for _, w := range k.Want {
			words = append(words, fmt.Sprint(w))
		}
		return fmt.Sprintf("%q is none of %s%s", cut(fmt.Sprint(k.Got), 40), strings.Join(words, ", "), didYouMean(fmt.Sprint(k.Got), words))
	case *schemakind.AdditionalProperties:
		slices.Sort(k.Properties)
		return "unknown key " + strings.Join(k.Properties, ", ") + didYouMean(k.Properties[0], keysAt(e.SchemaURL))
	case *schemakind.Format:
		return fmt.Sprintf("is no %s: %v", k.Want, k.Err)
	case *schemakind.FalseSchema:
		return "unknown key"
	case *schemakind.Pattern:
		return fmt.Sprintf("is to be written as %s", k.Want)
	case *schemakind.Const, *schemakind.Not, *schemakind.Group:
		return ""
	case *schemakind.UniqueItems:
		return fmt.Sprintf("items %d and %d are the same", k.Duplicates[0], k.Duplicates[1])
	case *schemakind.OneOf:
		return "more than one of the keys that exclude each other is set"
	}
	return strings.Join(e.ErrorKind.KeywordPath(), ".") + " of the standard is not kept"
}

// keyPath writes an instance location as problems have it.
func keyPath(location []string) string {
	var b strings.Builder
	for _, token := range location {
		if _, err := strconv.Atoi(token); err == nil && b.Len() > 0 {
			b.WriteString("[" + token + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(token)
	}
	return b.String()
}

// pathAt writes an instance location of a file as problems have it.
func pathAt(n *yaml.Node, location []string) string {
	path := ""
	for _, token := range location {
		n = plain(n)
		i, err := strconv.Atoi(token)
		switch {
		case n.Kind == yaml.SequenceNode && err == nil && i >= 0 && i < len(n.Content):
			n = n.Content[i]
			path += "[" + label(n, i) + "]"
			continue
		case n.Kind == yaml.MappingNode:
			for k := 0; k+1 < len(n.Content); k += 2 {
				if plain(n.Content[k]).Value == token {
					n = n.Content[k+1]
					break
				}
			}
		}
		path = join(path, token)
	}
	return path
}

// lineAt finds the line of an instance location.
func lineAt(n *yaml.Node, location []string) int {
	line := n.Line
	for _, token := range location {
		n = plain(n)
		var next *yaml.Node
		switch n.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				if plain(n.Content[i]).Value == token {
					line, next = n.Content[i].Line, n.Content[i+1]
				}
			}
		case yaml.SequenceNode:
			if i, err := strconv.Atoi(token); err == nil && i >= 0 && i < len(n.Content) {
				next = n.Content[i]
				line = next.Line
			}
		}
		if next == nil {
			return line
		}
		n = next
	}
	return line
}

// sortedKeys gives the keys of a map in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
