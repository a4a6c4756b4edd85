package contract

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	schemakind "github.com/santhosh-tekuri/jsonschema/v6/kind"
	"go.yaml.in/yaml/v3"
)

// jsonSchema is what a contract says by JSON Schema beyond ODCS.
type jsonSchema struct {
	schema *jsonschema.Schema
	line   int
	text   string // as one line of JSON, for comparing
}

// The drafts that are claimed: the suite of each is a test.
var drafts = map[string]*jsonschema.Draft{
	"https://json-schema.org/draft/2020-12/schema": jsonschema.Draft2020,
	"http://json-schema.org/draft-07/schema":       jsonschema.Draft7,
}

// root of the URLs that stand for files.
const filesURL = "naru:///"

// loader gives the JSON Schemas that were handed in, and remembers which.
type loader struct {
	others map[string][]byte
	above  string // "/" when the file's name is absolute
	used   [][]byte
	err    error
}

func (l *loader) Load(address string) (any, error) {
	name, ok := strings.CutPrefix(address, filesURL)
	if name, err := url.PathUnescape(name); ok && err == nil {
		if text, ok := l.others[l.above+name]; ok {
			l.used = append(l.used, text)
			return l.parse(text, l.above+name)
		}
		l.err = fmt.Errorf("refers to %s, which is not there: a JSON Schema is a .json file beside the contract or beneath its folder", l.above+name)
	} else {
		l.err = fmt.Errorf("refers to %s: nothing is fetched over the network; copy it beside the contract and refer to the file", cut(address, 100))
	}
	return nil, l.err
}

func (l *loader) parse(text []byte, name string) (any, error) {
	if len(text) > MaxFile {
		l.err = fmt.Errorf("%s is larger than %d KiB", name, MaxFile>>10)
		return nil, l.err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err == nil {
		err = checkDraft(doc)
	}
	if err == nil {
		err = checkNumbers(doc)
	}
	if err != nil {
		l.err = fmt.Errorf("%s: %w", name, err)
		return nil, l.err
	}
	return doc, nil
}

func checkDraft(doc any) error {
	m, _ := doc.(map[string]any)
	draft, there := m["$schema"].(string)
	if !there || drafts[strings.TrimSuffix(draft, "#")] != nil {
		return nil
	}
	return fmt.Errorf("is written in %q: drafts 2020-12 and 07 are read; set $schema to https://json-schema.org/draft/2020-12/schema", cut(draft, 80))
}

// jsonSchema reads the custom property naru.jsonSchema: a schema, {$ref: FILE},
// or FILE. It gives the bytes of the files that it used, too.
func (d *decoder) jsonSchema(p *block, c *Contract) (*jsonSchema, [][]byte) {
	v := p.get("value")
	if v == nil {
		p.fail("value", "is missing: a JSON Schema, or {$ref: FILE.json}")
		return nil, nil
	}
	var doc any
	before := len(d.problems)
	switch v.Kind {
	case yaml.ScalarNode:
		doc = map[string]any{"$ref": v.Value}
	case yaml.MappingNode:
		doc = d.tree(v)
	default:
		p.fail("value", "wants a JSON Schema or a file's name, not %s", kindName(v))
	}
	if len(d.problems) > before {
		return nil, nil
	}
	l := &loader{others: d.others}
	name := path.Clean(d.file)
	if strings.HasPrefix(name, "/") {
		l.above, name = "/", name[1:]
	}
	// The schema stands, by its URL, in the contract's folder, under a name that no file there has.
	base := filesURL + (&url.URL{Path: path.Dir(name)}).EscapedPath() + "/." + url.PathEscape(path.Base(name)+"."+c.Type)
	compiler := newCompiler(l)
	err := checkDraft(doc)
	if err == nil {
		err = compiler.AddResource(base, doc)
	}
	var schema *jsonschema.Schema
	if err == nil {
		schema, err = compiler.Compile(base)
	}
	if err != nil {
		line, text := schemaMistake(err, v, l)
		d.fail(line, p.at("value"), "%s", text)
		return nil, nil
	}
	return &jsonSchema{schema: schema, line: p.lines["value"], text: canonicalText(doc, l.used)}, l.used
}

func newCompiler(l jsonschema.URLLoader) *jsonschema.Compiler {
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(l)
	c.UseRegexpEngine(func(p string) (jsonschema.Regexp, error) { return compilePattern(p) })
	return c
}

// schemaMistake says what is wrong with a JSON Schema, and on which line of the
// contract.
func schemaMistake(err error, v *yaml.Node, l *loader) (line int, text string) {
	var (
		invalid *jsonschema.SchemaValidationError
		regex   *jsonschema.InvalidRegexError
		bad     *jsonschema.ValidationError
	)
	switch {
	case l.err != nil:
		return v.Line, l.err.Error()
	case errors.As(err, &regex):
		return v.Line, fmt.Sprintf("the pattern %q %v", cut(regex.Regex, 60), regex.Err)
	case errors.As(err, &invalid) && errors.As(invalid.Err, &bad):
		for _, e := range leaves(bad, nil) {
			if said := formalText(e); said != "" {
				if v.Kind == yaml.MappingNode {
					line = lineAt(v, e.InstanceLocation)
				}
				return max(line, v.Line), fmt.Sprintf("is no JSON Schema: %s %s", keyPath(e.InstanceLocation), said)
			}
		}
	}
	return v.Line, "is no JSON Schema: " + cut(strings.ReplaceAll(err.Error(), "\n", " "), 300)
}

// checkSchema judges by JSON Schema. It is slow beside the rest: it builds a tree.
func (s *Scratch) checkSchema(c *Contract, data []byte) {
	t := treeBuilder{s: s, text: data}
	doc, ok := t.value(0, 0)
	if !ok {
		s.add(Violation{Rule: ruleLimit, Path: "$", Want: t.limit, Line: c.schema.line})
		return
	}
	err := c.schema.schema.Validate(doc)
	var invalid *jsonschema.ValidationError
	if err == nil {
		return
	}
	if !errors.As(err, &invalid) {
		s.add(Violation{Rule: ruleSchema, Path: "$", Want: "a value that JSON Schema can judge", Line: c.schema.line})
		return
	}
	from := len(s.found)
	found := schemaLeaves(invalid, nil)
	slices.SortStableFunc(found, func(a, b *jsonschema.ValidationError) int {
		if n := slices.Compare(a.InstanceLocation, b.InstanceLocation); n != 0 {
			return n
		}
		return strings.Compare(a.SchemaURL, b.SchemaURL)
	})
	for _, e := range found {
		v := c.schemaViolation(e, doc)
		if !slices.Contains(s.found[from:], v) {
			s.add(v)
		}
	}
}

// schemaLeaves are the mistakes to show: alternatives are one mistake.
func schemaLeaves(e *jsonschema.ValidationError, out []*jsonschema.ValidationError) []*jsonschema.ValidationError {
	switch e.ErrorKind.(type) {
	case *schemakind.AnyOf, *schemakind.OneOf, *schemakind.Not, *schemakind.Contains, *schemakind.PropertyNames:
		return append(out, e)
	}
	if len(e.Causes) == 0 {
		return append(out, e)
	}
	for _, c := range e.Causes {
		out = schemaLeaves(c, out)
	}
	return out
}

// schemaViolation words a mistake without showing personal values.
func (c *Contract) schemaViolation(e *jsonschema.ValidationError, doc any) Violation {
	keyword := strings.Join(e.ErrorKind.KeywordPath(), ".")
	if keyword == "" {
		keyword = "false"
	}
	v := Violation{Rule: ruleSchema + "." + keyword, Line: c.schema.line}
	n, value, path := c.root, doc, []byte("$")
	hidden := false
	for _, token := range e.InstanceLocation {
		switch at := value.(type) {
		case map[string]any:
			path = appendStep(path, token)
			value = at[token]
			if n != nil {
				n = n.child(token)
			}
		case []any:
			i := atoi(token)
			path = fmt.Appendf(path, "[%d]", i)
			if value = nil; i < len(at) {
				value = at[i]
			}
			if n != nil {
				n = n.items
			}
		}
		hidden = hidden || n != nil && n.personal
	}
	v.Path = string(path)
	at, _ := url.Parse(e.SchemaURL)
	if at != nil {
		v.Want = schemaWant(e.ErrorKind) + " (JSON Schema #" + at.Fragment + ")"
	}
	switch e.ErrorKind.(type) {
	case *schemakind.Required, *schemakind.DependentRequired, *schemakind.Dependency, *schemakind.AdditionalProperties, *schemakind.FalseSchema:
	default:
		v.Value = shownTree(value, hidden || c.root == n && n.personal)
	}
	return v
}

func atoi(s string) (n int) {
	for i := range len(s) {
		n = n*10 + int(s[i]-'0')
	}
	return n
}

func schemaWant(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *schemakind.Type:
		return strings.Join(k.Want, " or ")
	case *schemakind.Required:
		return "the field " + strings.Join(k.Missing, ", ")
	case *schemakind.DependentRequired:
		return "with " + k.Prop + " also " + strings.Join(k.Missing, ", ")
	case *schemakind.Dependency:
		return "with " + k.Prop + " also " + strings.Join(k.Missing, ", ")
	case *schemakind.AdditionalProperties:
		slices.Sort(k.Properties)
		return "no field " + cut(strings.Join(k.Properties, ", "), maxShown)
	case *schemakind.Enum:
		var words []string
		for _, w := range k.Want {
			words = append(words, fmt.Sprint(w))
		}
		return "one of " + cut(strings.Join(words, ", "), maxShown)
	case *schemakind.Const:
		return cut(fmt.Sprint(k.Want), maxShown)
	case *schemakind.Format:
		return "the format " + k.Want
	case *schemakind.Pattern:
		return "the pattern " + k.Want
	case *schemakind.Minimum:
		return "at least " + k.Want.RatString()
	case *schemakind.Maximum:
		return "at most " + k.Want.RatString()
	case *schemakind.ExclusiveMinimum:
		return "more than " + k.Want.RatString()
	case *schemakind.ExclusiveMaximum:
		return "less than " + k.Want.RatString()
	case *schemakind.MultipleOf:
		return "a multiple of " + k.Want.RatString()
	case *schemakind.MinLength:
		return fmt.Sprintf("at least %d characters", k.Want)
	case *schemakind.MaxLength:
		return fmt.Sprintf("at most %d characters", k.Want)
	case *schemakind.MinItems:
		return fmt.Sprintf("at least %d items", k.Want)
	case *schemakind.MaxItems:
		return fmt.Sprintf("at most %d items", k.Want)
	case *schemakind.UniqueItems:
		return "items that all differ"
	case *schemakind.AnyOf:
		return "one of the alternatives of anyOf"
	case *schemakind.OneOf:
		return "exactly one of the alternatives of oneOf"
	case *schemakind.Not:
		return "not what stands under not"
	case *schemakind.FalseSchema:
		return "nothing here"
	}
	return "what the schema says"
}
