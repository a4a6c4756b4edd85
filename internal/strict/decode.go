// Package strict reads YAML that people write into structs: every key must exist,
// every mistake is told with its line, all of them at once, with the key that was
// probably meant.
package strict

import (
	"encoding"
	"errors"
	"fmt"
	"io"
	"iter"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"naru/internal/problem"
)

// Node is a node of the document, for types that read themselves.
type Node = yaml.Node

// Reader is a type that reads itself from a node: one that takes several forms.
// It tells what is wrong by Decoder.Fail.
type Reader interface {
	ReadYAML(d *Decoder, n *Node, path string)
}

// Decoder fills a struct from YAML. Unlike yaml.Decoder it goes on after an
// error, so that one run names them all, and it remembers where each key
// stands, so that what is found later can be shown with its line.
type Decoder struct {
	// Unknown is asked before a key that does not exist is told; true: it has told
	// what is to be told.
	Unknown func(key, value *Node, path string) bool

	file     string
	keys     []string // all key paths that exist
	problems problem.List
	lines    map[string]int // by key path
}

// New makes a decoder for a file, by whose name mistakes are told, into the
// struct that into points to.
func New(file string, into any) *Decoder {
	d := &Decoder{file: file, lines: map[string]int{}}
	d.Know("", into)
	return d
}

// Know adds the keys of the struct that into points to, as they stand below path,
// to those among which the nearest is looked for.
func (d *Decoder) Know(path string, into any) {
	Walk(reflect.ValueOf(into).Elem(), path, func(at string, _ reflect.Value) { d.keys = append(d.keys, at) })
}

// Fail tells a mistake at a line, 0 for none, and a key path.
func (d *Decoder) Fail(line int, path, format string, args ...any) {
	d.problems = append(d.problems, problem.Problem{File: d.file, Line: line, Key: path, Text: fmt.Sprintf(format, args...)})
}

// Stands notes where a key stands that its reader has found by itself.
func (d *Decoder) Stands(path string, line int) { d.lines[path] = line }

// Problems is what has been told.
func (d *Decoder) Problems() problem.List { return d.problems }

// LineOf is where a key stands, or the block that it would stand in.
func (d *Decoder) LineOf(path string) int {
	for ; path != ""; path = Parent(path) {
		if line := d.lines[path]; line > 0 {
			return line
		}
	}
	return 0
}

// Text is YAML that Decode reads as v.
func Text(v any) ([]byte, error) { return yaml.Marshal(v) }

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

// Decode reads one document from text into the struct that into points to.
func (d *Decoder) Decode(text io.Reader, into any) {
	dec := yaml.NewDecoder(text)
	var doc, more yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return // nothing but comments
	} else if err != nil {
		d.syntax(err)
		return
	}
	d.value(doc.Content[0], "", reflect.ValueOf(into).Elem())
	switch err := dec.Decode(&more); {
	case err == nil:
		d.Fail(more.Line, "", "a second document begins here: one file holds one")
	case !errors.Is(err, io.EOF):
		d.syntax(err)
	}
}

func (d *Decoder) syntax(err error) {
	line, text := 0, err.Error()
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1]) // digits: it cannot fail
		text = text[len(m[0]):]
	}
	d.Fail(line, "", "not YAML: %s", strings.TrimPrefix(text, "yaml: "))
}

// Into reads a node into what into points to.
func (d *Decoder) Into(n *Node, path string, into any) {
	d.value(n, path, reflect.ValueOf(into).Elem())
}

// IntoKey reads a node into the field with that key of the struct that into points
// to: a short form of a block with one key.
func (d *Decoder) IntoKey(n *Node, path, key string, into any) {
	field, ok := FieldOf(reflect.ValueOf(into).Elem(), key)
	if !ok {
		panic("strict: " + path + " has no key " + key)
	}
	d.lines[Join(path, key)] = n.Line
	d.value(n, path, field)
}

// IsText tells whether a node is one value, no block and no list.
func IsText(n *Node) bool { return n.Kind == yaml.ScalarNode && n.Tag != "!!null" }

// Tree is what a node holds, as encoding/json has it: maps, slices, values.
func Tree(n *Node) (any, error) {
	var v any
	err := n.Decode(&v)
	return v, err
}

func (d *Decoder) value(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if path != "" {
		d.lines[path] = n.Line
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // left empty: the default
	}
	if r, ok := v.Addr().Interface().(Reader); ok {
		r.ReadYAML(d, n, path)
		return
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if text, ok := d.scalar(n, path, "one value"); ok {
			if err := u.UnmarshalText([]byte(text)); err != nil {
				d.Fail(n.Line, path, "%v", err)
			}
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, path, v.Elem())
	case reflect.Struct:
		d.block(n, path, v)
	case reflect.String:
		if text, ok := d.scalar(n, path, "a text"); ok {
			v.SetString(text)
		}
	case reflect.Bool:
		if text, ok := d.scalar(n, path, "true or false"); !ok {
			return
		} else if b, err := strconv.ParseBool(text); err != nil || text != "true" && text != "false" {
			d.Fail(n.Line, path, "%q is neither true nor false", text)
		} else {
			v.SetBool(b)
		}
	case reflect.Int, reflect.Int32, reflect.Int64:
		if text, ok := d.scalar(n, path, "a whole number"); !ok {
			return
		} else if i, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, v.Type().Bits()); err != nil {
			d.Fail(n.Line, path, "%q is not a whole number in its range", text)
		} else {
			v.SetInt(i)
		}
	case reflect.Float64:
		if text, ok := d.scalar(n, path, "a number"); !ok {
			return
		} else if f, err := strconv.ParseFloat(text, 64); err != nil {
			d.Fail(n.Line, path, "%q is not a number", text)
		} else {
			v.SetFloat(f)
		}
	case reflect.Slice:
		d.list(n, path, v)
	case reflect.Map:
		d.pairs(n, path, v)
	default:
		panic(fmt.Sprintf("strict: %s has the type %s, which the decoder does not know", path, v.Type()))
	}
}

func (d *Decoder) scalar(n *yaml.Node, path, want string) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		d.Fail(n.Line, path, "wants %s, not %s", want, KindName(n))
		return "", false
	}
	return n.Value, true
}

// KindName says what a node is, for people.
func KindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a block of keys"
	case yaml.SequenceNode:
		return "a list"
	}
	return "the value " + strconv.Quote(n.Value)
}

func (d *Decoder) list(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.Fail(n.Line, path, "wants a list, not %s: write [a, b]", KindName(n))
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		d.value(item, fmt.Sprintf("%s[%d]", path, i), out.Index(i))
	}
	v.Set(out)
}

// Pairs gives the keys of a block with their values; nothing of what is no block.
func Pairs(n *Node) iter.Seq2[*Node, *Node] {
	return func(yield func(key, value *Node) bool) {
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content) && yield(n.Content[i], n.Content[i+1]); i += 2 {
		}
	}
}

// Without is a block without one of its keys.
func Without(n *Node, key string) *Node {
	if n.Kind != yaml.MappingNode {
		return n
	}
	c := *n
	c.Content = nil
	for k, v := range Pairs(n) {
		if k.Value != key {
			c.Content = append(c.Content, k, v)
		}
	}
	return &c
}

// Items gives the entries of a list; nothing of what is no list.
func Items(n *Node) iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		for i := 0; n.Kind == yaml.SequenceNode && i < len(n.Content) && yield(n.Content[i]); i++ {
		}
	}
}

// pairs fills a map.
func (d *Decoder) pairs(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.Fail(n.Line, path, "wants a block of keys, not %s", KindName(n))
		return
	}
	out := reflect.MakeMap(v.Type())
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, one := n.Content[i], reflect.New(v.Type().Elem()).Elem()
		at := Join(path, key.Value)
		if out.MapIndex(reflect.ValueOf(key.Value)).IsValid() {
			d.Fail(key.Line, at, "is set twice")
			continue
		}
		d.value(n.Content[i+1], at, one)
		d.lines[at] = key.Line
		out.SetMapIndex(reflect.ValueOf(key.Value), one)
	}
	v.Set(out)
}

// block fills a struct from a mapping.
func (d *Decoder) block(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.Fail(n.Line, path, "wants a block of keys, not %s", KindName(n))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		name := key.Value
		at := Join(path, name)
		if first := seen[name]; first > 0 {
			d.Fail(key.Line, at, "is set twice; the first time on line %d", first)
			continue
		}
		seen[name] = key.Line
		field, ok := FieldOf(v, name)
		if !ok {
			d.unknown(key, val, path)
			continue
		}
		d.value(val, at, field)
		d.lines[at] = key.Line
	}
}

// unknown reports a key that does not exist, with the one that was meant.
func (d *Decoder) unknown(key, val *yaml.Node, path string) {
	at := Join(path, key.Value)
	if d.Unknown != nil && d.Unknown(key, val, path) {
		return
	}
	meant := nearest(at, d.keys)
	switch {
	case meant == "":
		d.Fail(key.Line, at, "unknown key")
	case Parent(meant) == path:
		d.Fail(key.Line, at, "unknown key; did you mean %s?", Leaf(meant))
	default:
		d.Fail(key.Line, at, "unknown key here; did you mean %s?", meant)
	}
}

// Walk calls fn for every key of a struct, blocks before what is in them.
func Walk(v reflect.Value, path string, fn func(path string, v reflect.Value)) {
	for name, field := range Fields(v) {
		at := Join(path, name)
		fn(at, field)
		if IsBlock(field) {
			Walk(field, at, fn)
		}
	}
}

// IsBlock tells a struct with keys of its own from one that is written as text.
func IsBlock(v reflect.Value) bool {
	_, text := v.Addr().Interface().(encoding.TextUnmarshaler)
	return v.Kind() == reflect.Struct && !text
}

// Fields gives the keys of a struct with their values, those of inlined structs
// among them. A field without a yaml tag has no key.
func Fields(v reflect.Value) iter.Seq2[string, reflect.Value] {
	return func(yield func(string, reflect.Value) bool) {
		for i := range v.NumField() {
			name, opts, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
			if opts == "inline" {
				for name, field := range Fields(v.Field(i)) {
					if !yield(name, field) {
						return
					}
				}
				continue
			}
			if name != "" && name != "-" && !yield(name, v.Field(i)) {
				return
			}
		}
	}
}

// FieldOf finds a key of a struct.
func FieldOf(v reflect.Value, name string) (reflect.Value, bool) {
	for n, field := range Fields(v) {
		if n == name {
			return field, true
		}
	}
	return reflect.Value{}, false
}

// At finds the value of a key path.
func At(v reflect.Value, path string) (reflect.Value, bool) {
	name, rest, more := strings.Cut(path, ".")
	field, ok := FieldOf(v, name)
	if !ok || !more {
		return field, ok
	}
	if !IsBlock(field) {
		return reflect.Value{}, false
	}
	return At(field, rest)
}

// Join makes a key path.
func Join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// Parent is the key path of the block that a key stands in.
func Parent(path string) string {
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		return path[:i]
	}
	return ""
}

// Leaf is the last name of a key path.
func Leaf(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }
