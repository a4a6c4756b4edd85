package definition

import (
	"encoding/json"

	"naru/internal/strict"
)

// ReadYAML implements strict.Reader.
func (t *Test) ReadYAML(d *strict.Decoder, n *strict.Node, path string) {
	type plain struct {
		Name       string  `yaml:"name"`
		Input      []Value `yaml:"input"`
		Rows       rows    `yaml:"rows"`
		Rejections int     `yaml:"rejections"`
	}
	var p plain
	d.Know(path, &p)
	d.Into(n, path, &p)
	*t = Test{Name: p.Name, Input: p.Input, Rows: p.Rows.all, To: p.Rows.to, Rejections: p.Rejections, Line: n.Line}
	if len(t.Input) == 0 {
		d.Fail(n.Line, path+".input", "is missing: a test needs at least one event")
	}
}

// rows are a list, or a list for each of some sinks.
type rows struct {
	all []Value
	to  map[string][]Value
}

// ReadYAML implements strict.Reader.
func (r *rows) ReadYAML(d *strict.Decoder, n *strict.Node, path string) {
	if strict.KindName(n) != "a block of keys" {
		d.Into(n, path, &r.all)
		return
	}
	r.to = map[string][]Value{}
	d.Into(n, path, &r.to)
}

// ReadYAML implements strict.Reader.
func (v *Value) ReadYAML(d *strict.Decoder, n *strict.Node, path string) {
	v.Line = n.Line
	if strict.KindName(n) != "a block of keys" {
		d.Fail(n.Line, path, "wants a block of keys, not %s", strict.KindName(n))
		return
	}
	tree, err := strict.Tree(n)
	if err == nil {
		v.JSON, err = json.Marshal(tree)
	}
	if err != nil {
		d.Fail(n.Line, path, "cannot be read as JSON: %v", err)
	}
}
