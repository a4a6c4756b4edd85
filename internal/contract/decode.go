package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// decoder reads one contract file. It goes on after a mistake, so that one run
// names them all.
type decoder struct {
	file     string
	others   map[string][]byte // JSON Schemas by name
	problems Problems
	notes    Problems
	v32      bool // the file says that it is ODCS 3.2
}

// maxProblems is how many mistakes of one file are told.
const maxProblems = 500

func (d *decoder) fail(line int, path, format string, args ...any) {
	if len(d.problems) == maxProblems {
		d.problems = append(d.problems, Problem{File: d.file, Line: line, Text: "has more mistakes than these"})
	}
	if len(d.problems) > maxProblems {
		return
	}
	d.problems = append(d.problems, Problem{File: d.file, Line: line, Key: path, Text: fmt.Sprintf(format, args...)})
}

func (d *decoder) note(line int, path, format string, args ...any) {
	d.notes = append(d.notes, Problem{File: d.file, Line: line, Key: path, Text: fmt.Sprintf(format, args...)})
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// document reads the one document of a file; nil after a mistake.
func (d *decoder) document(text []byte) *yaml.Node {
	if len(text) > MaxFile {
		d.fail(0, "", "is larger than %d KiB: split it into files of one event type each", MaxFile>>10)
		return nil
	}
	if !utf8.Valid(text) {
		d.fail(0, "", "is not UTF-8: save it so")
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		d.fail(0, "", "is empty: naru contract init writes a first one")
		return nil
	} else if err != nil {
		d.syntax(err)
		return nil
	}
	switch err := dec.Decode(&more); {
	case err == nil:
		d.fail(more.Line, "", "a second document begins here: one file holds one; put the event types into its schema list")
	case !errors.Is(err, io.EOF):
		d.syntax(err)
	}
	left := MaxNodes
	if !d.bounded(doc.Content[0], MaxYAML, &left) {
		return nil
	}
	return doc.Content[0]
}

func (d *decoder) syntax(err error) {
	m := yamlLine.FindStringSubmatch(err.Error())
	line, rest := 0, err.Error()
	if m != nil {
		line, _ = strconv.Atoi(m[1]) // digits, or none
		rest = rest[len(m[0]):]
	}
	d.fail(line, "", "not YAML: %s", rest)
}

// bounded tells whether the tree, with what aliases stand for, is small enough
// to be walked.
func (d *decoder) bounded(n *yaml.Node, depth int, left *int) bool {
	if *left--; *left < 0 {
		d.fail(n.Line, "", "has more than %d values, those behind aliases included: split the file", MaxNodes)
		return false
	}
	if depth == 0 {
		d.fail(n.Line, "", "is nested deeper than %d levels", MaxYAML)
		return false
	}
	for _, c := range n.Content {
		if !d.bounded(c, depth-1, left) {
			return false
		}
	}
	return n.Kind != yaml.AliasNode || d.bounded(n.Alias, depth-1, left)
}

// plain is what stands behind an alias.
func plain(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a block of keys"
	case yaml.SequenceNode:
		return "a list"
	}
	if isNull(n) {
		return "nothing"
	}
	return "the value " + strconv.Quote(cut(n.Value, 60))
}

// block is a mapping whose keys have been looked at.
type block struct {
	d     *decoder
	path  string
	line  int
	keys  []string // in the order of the file
	value map[string]*yaml.Node
	lines map[string]int
}

// block reads a mapping. Keys that are not known are mistakes, unless known is
// nil. What is no mapping gives nil.
func (d *decoder) block(n *yaml.Node, path string, known []string) *block {
	line := n.Line
	n = plain(n)
	if n.Kind != yaml.MappingNode {
		d.fail(line, path, "wants a block of keys, not %s", kindName(n))
		return nil
	}
	b := &block{d: d, path: path, line: line, value: map[string]*yaml.Node{}, lines: map[string]int{}}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := plain(n.Content[i]), n.Content[i+1]
		name, at := key.Value, join(path, key.Value)
		switch {
		case key.Kind != yaml.ScalarNode:
			d.fail(key.Line, path, "a key must be one word")
		case key.Tag == "!!merge":
			d.fail(key.Line, path, "merge keys are not read: write the keys out, or use an alias for the whole block")
		case b.lines[name] > 0:
			d.fail(key.Line, at, "is set twice; the first time on line %d", b.lines[name])
		case known != nil && !contains(known, name):
			cure := didYouMean(name, known)
			if cure == "" && len(known) > 0 && len(known) <= 8 {
				cure = ": here " + strings.Join(known, ", ") + " can stand"
			}
			d.fail(key.Line, at, "unknown key%s", cure)
		default:
			b.keys = append(b.keys, name)
			b.value[name], b.lines[name] = val, key.Line
		}
	}
	return b
}

func contains(words []string, word string) bool {
	for _, w := range words {
		if w == word {
			return true
		}
	}
	return false
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func (b *block) at(key string) string { return join(b.path, key) }

// get gives the value of a key; nil when it is not there or null.
func (b *block) get(key string) *yaml.Node {
	n := b.value[key]
	if n == nil || isNull(plain(n)) {
		return nil
	}
	return plain(n)
}

func (b *block) fail(key, format string, args ...any) {
	line := b.lines[key]
	if line == 0 {
		line = b.line
	}
	b.d.fail(line, b.at(key), format, args...)
}

// text gives a text; "" when there is none.
func (b *block) text(key string) string {
	n := b.get(key)
	switch {
	case n == nil:
		return ""
	case n.Kind != yaml.ScalarNode:
		b.fail(key, "wants a text, not %s", kindName(n))
		return ""
	case n.Tag != "!!str" && n.Tag != "!!timestamp":
		b.fail(key, "wants a text: put it into quotes, %q", n.Value)
		return ""
	}
	return n.Value
}

func (b *block) bool(key string) bool {
	n := b.get(key)
	if n == nil {
		return false
	}
	if n.Tag != "!!bool" {
		b.fail(key, "wants true or false, not %s", kindName(n))
		return false
	}
	return strings.EqualFold(n.Value, "true")
}

// whole gives a whole number from 0; ok is false when there is none.
func (b *block) whole(key string) (v int, ok bool) {
	n := b.get(key)
	if n == nil {
		return 0, false
	}
	v, err := strconv.Atoi(n.Value)
	if n.Tag != "!!int" || err != nil || v < 0 || v > 1<<40 {
		b.fail(key, "wants a whole number from 0, not %s", kindName(n))
		return 0, false
	}
	return v, true
}

// items gives the elements of a list with their paths.
func (b *block) items(key string) (nodes []*yaml.Node) {
	n := b.get(key)
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		b.fail(key, "wants a list, not %s", kindName(n))
		return nil
	}
	return n.Content
}

// item is the path of an element: by its name where it has one, else by its
// index.
func (b *block) item(key string, i int) string {
	return b.at(key) + "[" + label(plain(b.value[key]).Content[i], i) + "]"
}

// label names an element of a list.
func label(n *yaml.Node, i int) string {
	n = plain(n)
	for k := 0; n.Kind == yaml.MappingNode && k+1 < len(n.Content); k += 2 {
		if key, v := plain(n.Content[k]).Value, plain(n.Content[k+1]); (key == "name" || key == "property") && v.Kind == yaml.ScalarNode && labelText.MatchString(v.Value) {
			return v.Value
		}
	}
	return strconv.Itoa(i)
}

var labelText = regexp.MustCompile(`^[\pL_][\pL\pN_./ -]{0,60}$`)

// texts gives a list of texts; one text alone counts as a list of one.
func (b *block) texts(key string) (out []string) {
	n := b.get(key)
	if n != nil && n.Kind == yaml.ScalarNode {
		return []string{b.text(key)}
	}
	for i, e := range b.items(key) {
		if e = plain(e); e.Kind != yaml.ScalarNode {
			b.d.fail(e.Line, b.item(key, i), "wants a text, not %s", kindName(e))
			continue
		}
		out = append(out, e.Value)
	}
	return out
}

// word gives one of the words that are allowed; standard when there is none.
func word[W ~string](b *block, key string, standard W, allowed ...W) W {
	text := b.text(key)
	if text == "" {
		return standard
	}
	var words []string
	for _, w := range allowed {
		if string(w) == text {
			return w
		}
		words = append(words, string(w))
	}
	b.fail(key, "%q is none of %s%s", cut(text, 60), strings.Join(words, ", "), didYouMean(text, words))
	return standard
}

// Bounds of a number in a contract: what is beyond is a slip, and costs time to
// compute with.
const (
	maxDigits   = 400
	maxExponent = 1000
)

// number gives a YAML number as JSON writes it.
func number(n *yaml.Node) (text string, ok bool) {
	tag := n.Tag
	if tag == "!!str" && n.Style == 0 && n.Value != "" && json.Valid([]byte(n.Value)) {
		tag = "!!float" // 1e400, which no float64 holds
	}
	switch tag {
	case "!!int":
		i, ok := new(big.Int).SetString(strings.ReplaceAll(n.Value, "_", ""), 0)
		if !ok || len(n.Value) > maxDigits {
			return "", false
		}
		return i.String(), true
	case "!!float":
		text = strings.TrimPrefix(strings.ReplaceAll(n.Value, "_", ""), "+")
		if !json.Valid([]byte(text)) {
			f, err := strconv.ParseFloat(text, 64)
			if text = strconv.FormatFloat(f, 'g', -1, 64); err != nil || !json.Valid([]byte(text)) {
				return "", false
			}
		}
		var v decimal
		v.parse([]byte(text))
		return text, len(text) <= maxDigits && v.exp < maxExponent && v.exp > -maxExponent
	}
	return "", false
}

// tree gives a YAML value as encoding/json would give its JSON: for the JSON
// Schemas.
func (d *decoder) tree(n *yaml.Node) any {
	n = plain(n)
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			m[plain(n.Content[i]).Value] = d.tree(n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, e := range n.Content {
			list[i] = d.tree(e)
		}
		return list
	}
	switch n.Tag {
	case "!!null":
		return nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true")
	case "!!int", "!!float":
		text, ok := number(n)
		if !ok {
			d.fail(n.Line, "", "%s is not a number of at most %d digits", cut(n.Value, 40), maxDigits)
			return json.Number("0")
		}
		return json.Number(text)
	case "!!str":
		if text, ok := number(n); ok {
			return json.Number(text)
		}
	}
	return n.Value
}

// cut shortens a text at a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
