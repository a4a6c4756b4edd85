package config

import (
	_ "embed"
	"encoding"
	"fmt"
	"reflect"
	"strings"

	"naru/internal/strict"
)

// keysText says of every key what it is for: "path: sentence", further lines
// of a sentence indented. A test checks that none is missing and none is left over.
//
//go:embed keys.txt
var keysText string

// Key is one setting.
type Key struct {
	Path    string
	Doc     string
	Default string // as it is written in YAML; "" for a block
	Block   bool
	Varies  string // what the default depends on, if it is not the same everywhere
}

// varying defaults are made of the machine.
var varying = map[string]string{
	"query.threads": "the number of cores",
}

// Keys lists every setting with its default, in the order of the file.
func Keys() []Key {
	docs := keyDocs()
	var keys []Key
	def := Default()
	strict.Walk(reflect.ValueOf(&def).Elem(), "", func(path string, v reflect.Value) {
		k := Key{Path: path, Doc: docs[path], Varies: varying[path]}
		if k.Block = strict.IsBlock(v); !k.Block {
			k.Default = text(v)
		}
		keys = append(keys, k)
	})
	return keys
}

func keyDocs() map[string]string {
	docs := map[string]string{}
	at := ""
	for line := range strings.Lines(keysText) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "":
		case strings.HasPrefix(line, " "):
			docs[at] += " " + strings.TrimSpace(line)
		default:
			path, doc, _ := strings.Cut(line, ": ")
			at, docs[path] = path, doc
		}
	}
	return docs
}

// text writes a value as YAML.
func text(v reflect.Value) string {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		if b, err := m.MarshalText(); err == nil {
			return string(b)
		}
	}
	switch v.Kind() {
	case reflect.Slice:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = text(v.Index(i))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case reflect.String:
		if v.Len() == 0 {
			return `""`
		}
	}
	return fmt.Sprint(v.Interface())
}

// Settings is the text of a naru.yaml that sets nothing and shows everything.
func Settings() string {
	var b strings.Builder
	b.WriteString("# Settings of this naru folder. Every key is shown with its default; take the # away\n" +
		"# to change one. `naru check` finds what is wrong with this file before it is used.\n")
	for _, k := range Keys() {
		indent := strings.Repeat("  ", strings.Count(k.Path, "."))
		if k.Block {
			fmt.Fprintf(&b, "\n%s%s: # %s\n", indent, strict.Leaf(k.Path), k.Doc)
			continue
		}
		for _, line := range wrap(k.Doc, 98-len(indent)) {
			fmt.Fprintf(&b, "%s# %s\n", indent, line)
		}
		note := ""
		if k.Varies != "" {
			note = "   # " + k.Varies
		}
		fmt.Fprintf(&b, "%s#%s: %s%s\n", indent, strict.Leaf(k.Path), k.Default, note)
	}
	return b.String()
}

// Text is a naru.yaml that sets every key to what it is in c, sizes to the two
// decimals that they are shown with.
func (c Config) Text() ([]byte, error) { return strict.Text(c) }

// Reference is docs/configuration.md.
func Reference() string {
	var b strings.Builder
	b.WriteString(`# naru.yaml

Settings of one folder. The file may be missing, and so may every key: then the default holds.
` + "`naru init DIR`" + ` writes a file that shows all of them; ` + "`naru check`" + ` names everything that is
wrong in one, with line and cure. An unknown key is an error. The environment is not read, but for
` + "`NARU_URL`" + ` (where client commands find their server) and what the Go runtime reads itself.

Sizes are numbers with B, KiB, MiB, GiB, TiB (powers of 1024) or kB, MB, GB, TB (powers of 1000);
durations have ms, s, m, h or d. A change takes effect at the next start.
`)
	for _, k := range Keys() {
		if k.Block {
			fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| key | default | |\n| --- | --- | --- |\n", k.Path, sentence(k.Doc))
			continue
		}
		def := "`" + k.Default + "`"
		if k.Varies != "" {
			def = k.Varies
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", k.Path, def, strings.ReplaceAll(sentence(k.Doc), "|", `\|`))
	}
	return b.String()
}

// sentence begins with a capital letter and ends with a stop.
func sentence(s string) string {
	if s == "" {
		return s
	}
	s = strings.ToUpper(s[:1]) + s[1:]
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}

// wrap breaks a text into lines of at most width bytes, at blanks.
func wrap(s string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(s) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
