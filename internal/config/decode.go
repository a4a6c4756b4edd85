package config

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
)

// decoder fills a struct from YAML. Unlike yaml.Decoder it goes on after an
// error, so that one run names them all, and it remembers where each key
// stands, so that what Validate finds later can be shown with its line.
type decoder struct {
	file     string
	keys     []string // all key paths that exist
	problems Problems
	lines    map[string]int // by key path
}

func newDecoder(file string, into any) *decoder {
	d := &decoder{file: file, lines: map[string]int{}}
	walk(reflect.ValueOf(into).Elem(), "", func(path string, _ reflect.Value) { d.keys = append(d.keys, path) })
	return d
}

func (d *decoder) fail(line int, path, format string, args ...any) {
	d.problems = append(d.problems, Problem{File: d.file, Line: line, Key: path, Text: fmt.Sprintf(format, args...)})
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

// decode reads one document from text into the struct that into points to.
func (d *decoder) decode(text io.Reader, into any) {
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
		d.fail(more.Line, "", "a second document begins here: one file holds one")
	case !errors.Is(err, io.EOF):
		d.syntax(err)
	}
}

func (d *decoder) syntax(err error) {
	line, text := 0, err.Error()
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1]) // digits: it cannot fail
		text = text[len(m[0]):]
	}
	d.fail(line, "", "not YAML: %s", strings.TrimPrefix(text, "yaml: "))
}

func (d *decoder) value(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if path != "" {
		d.lines[path] = n.Line
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // left empty: the default
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if text, ok := d.scalar(n, path, "one value"); ok {
			if err := u.UnmarshalText([]byte(text)); err != nil {
				d.fail(n.Line, path, "%v", err)
			}
		}
		return
	}
	switch v.Kind() {
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
			d.fail(n.Line, path, "%q is neither true nor false", text)
		} else {
			v.SetBool(b)
		}
	case reflect.Int, reflect.Int32, reflect.Int64:
		if text, ok := d.scalar(n, path, "a whole number"); !ok {
			return
		} else if i, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, v.Type().Bits()); err != nil {
			d.fail(n.Line, path, "%q is not a whole number in its range", text)
		} else {
			v.SetInt(i)
		}
	case reflect.Float64:
		if text, ok := d.scalar(n, path, "a number"); !ok {
			return
		} else if f, err := strconv.ParseFloat(text, 64); err != nil {
			d.fail(n.Line, path, "%q is not a number", text)
		} else {
			v.SetFloat(f)
		}
	case reflect.Slice:
		d.list(n, path, v)
	default:
		panic(fmt.Sprintf("config: %s has the type %s, which the decoder does not know", path, v.Type()))
	}
}

func (d *decoder) scalar(n *yaml.Node, path, want string) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		d.fail(n.Line, path, "wants %s, not %s", want, kindName(n))
		return "", false
	}
	return n.Value, true
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a block of keys"
	case yaml.SequenceNode:
		return "a list"
	}
	return "the value " + strconv.Quote(n.Value)
}

func (d *decoder) list(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.fail(n.Line, path, "wants a list, not %s: write [a, b]", kindName(n))
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		d.value(item, fmt.Sprintf("%s[%d]", path, i), out.Index(i))
	}
	v.Set(out)
}

// block fills a struct from a mapping.
func (d *decoder) block(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.fail(n.Line, path, "wants a block of keys, not %s", kindName(n))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		name := key.Value
		at := join(path, name)
		if first := seen[name]; first > 0 {
			d.fail(key.Line, at, "is set twice; the first time on line %d", first)
			continue
		}
		seen[name] = key.Line
		field, ok := fieldOf(v, name)
		if !ok {
			d.unknown(key, val, path)
			continue
		}
		d.value(val, at, field)
		d.lines[at] = key.Line
	}
}

// unknown reports a key that does not exist, with the one that was meant.
func (d *decoder) unknown(key, val *yaml.Node, path string) {
	at := join(path, key.Value)
	if (path == "" || path == "log") && (key.Value == "streams" || key.Value == "stream") && d.streamRetention(val, at) {
		return
	}
	meant := nearest(at, d.keys)
	switch {
	case meant == "":
		d.fail(key.Line, at, "unknown key")
	case parent(meant) == path:
		d.fail(key.Line, at, "unknown key; did you mean %s?", leaf(meant))
	default:
		d.fail(key.Line, at, "unknown key here; did you mean %s?", meant)
	}
}

// streamRetention reports retention values of single streams: EXACTNESS 1
// has one rule for the folder, because segments hold all streams interleaved.
func (d *decoder) streamRetention(n *yaml.Node, path string) bool {
	found := false
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		at := join(path, key.Value)
		if strings.HasPrefix(key.Value, "retention") || strings.HasPrefix(key.Value, "retain") {
			d.fail(key.Line, at, "a stream has no retention of its own: one rule holds for the folder; set it in %s",
				strings.Join(d.retentionKeys(), " and "))
			found = true
			continue
		}
		found = d.streamRetention(val, at) || found
	}
	return found
}

func (d *decoder) retentionKeys() (out []string) {
	for _, k := range d.keys {
		if strings.HasPrefix(k, "log.retain_") {
			out = append(out, k)
		}
	}
	return out
}

// walk calls fn for every key of a struct, blocks before what is in them.
func walk(v reflect.Value, path string, fn func(path string, v reflect.Value)) {
	for name, field := range fields(v) {
		at := join(path, name)
		fn(at, field)
		if isBlock(field) {
			walk(field, at, fn)
		}
	}
}

// isBlock tells a struct with keys of its own from one that is written as text.
func isBlock(v reflect.Value) bool {
	_, text := v.Addr().Interface().(encoding.TextUnmarshaler)
	return v.Kind() == reflect.Struct && !text
}

// fields gives the keys of a struct with their values, those of inlined structs
// among them. A field without a yaml tag has no key.
func fields(v reflect.Value) iter.Seq2[string, reflect.Value] {
	return func(yield func(string, reflect.Value) bool) {
		for i := range v.NumField() {
			name, opts, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
			if opts == "inline" {
				for name, field := range fields(v.Field(i)) {
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

func fieldOf(v reflect.Value, name string) (reflect.Value, bool) {
	for n, field := range fields(v) {
		if n == name {
			return field, true
		}
	}
	return reflect.Value{}, false
}

// at finds the value of a key path.
func at(v reflect.Value, path string) (reflect.Value, bool) {
	name, rest, more := strings.Cut(path, ".")
	field, ok := fieldOf(v, name)
	if !ok || !more {
		return field, ok
	}
	if !isBlock(field) {
		return reflect.Value{}, false
	}
	return at(field, rest)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func parent(path string) string {
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		return path[:i]
	}
	return ""
}

func leaf(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }
