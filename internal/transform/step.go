package transform

import "naru/internal/strict"

// Step is one entry of `steps:` in a pipeline's file.
type Step struct {
	Line int    // where it stands
	Kind string // sql, filter, ...
	SQL  string // of the kind sql
}

// ReadYAML implements strict.Reader.
func (s *Step) ReadYAML(d *strict.Decoder, n *strict.Node, path string) {
	s.Line = n.Line
	for key, val := range strict.Pairs(n) {
		if key.Value != "sql" {
			d.Fail(key.Line, path, "unknown step %s", key.Value)
			continue
		}
		s.Kind = key.Value
		d.Into(val, strict.Join(path, "sql"), &s.SQL)
	}
}

// Key is all of a step that decides about rows.
func (s *Step) Key() string { return s.Kind + "\x00" + s.SQL }

// Everything are the steps of a pipeline without any whose sink needs columns.
var Everything = []Step{{Kind: "sql", SQL: "SELECT * FROM input"}}
