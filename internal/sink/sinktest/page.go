package sinktest

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"naru/internal/sink"
	"naru/internal/strict"
)

// Page checks the page of a kind of sink for users (docs/sinks/NAME.md) against the
// kind: it names every setting, and its guarantee, and the settings in its examples,
// blocks fenced as ```yaml with `to:`, are right.
func Page(t *testing.T, kind sink.Kind, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	settings := reflect.ValueOf(kind.Settings()).Elem()
	strict.Walk(settings, "", func(key string, v reflect.Value) {
		if !strict.IsBlock(v) && !strings.Contains(string(text), "`"+key+"`") {
			t.Errorf("%s does not say what `%s` is", path, key)
		}
	})
	if !strings.Contains(string(text), kind.Guarantee) {
		t.Errorf("%s does not have the guarantee: %s", path, kind.Guarantee)
	}
	examples := 0
	for block := range strings.SplitSeq(string(text), "\n```yaml\n") {
		block, _, _ = strings.Cut(block, "\n```")
		if !strings.HasPrefix(block, "to:") && !strings.Contains(block, "\nto:") {
			continue
		}
		var p struct {
			To []entry `yaml:"to"`
		}
		d := strict.New(path, &p)
		d.Unknown = func(key, _ *strict.Node, path string) bool { return path == "" } // the rest of a pipeline
		d.Decode(strings.NewReader(block), &p)
		for _, e := range p.To {
			node := e.kinds[kind.Name]
			if node == nil {
				continue
			}
			examples++
			s := kind.Settings()
			if strict.IsText(node) && kind.Short != "" {
				d.IntoKey(node, kind.Name, kind.Short, s)
			} else {
				d.Into(node, kind.Name, s)
			}
			if err := s.Validate(); err != nil {
				t.Errorf("%s: an example of %s: %v", path, kind.Name, err)
			}
		}
		for _, p := range d.Problems() {
			t.Errorf("%s: an example: %s: %s", path, p.Key, p.Text)
		}
	}
	if examples == 0 {
		t.Errorf("%s has no example", path)
	}
}

// entry is one sink as it stands in `to:`.
type entry struct{ kinds map[string]*strict.Node }

// ReadYAML implements strict.Reader.
func (e *entry) ReadYAML(_ *strict.Decoder, n *strict.Node, _ string) {
	e.kinds = map[string]*strict.Node{}
	for key, value := range strict.Pairs(n) {
		e.kinds[key.Value] = value
	}
}
