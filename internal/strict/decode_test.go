package strict

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

type either struct {
	word string
	n    int
}

func (e *either) ReadYAML(d *Decoder, n *Node, path string) {
	for key, val := range Pairs(n) {
		if key.Value != "n" {
			d.Fail(key.Line, Join(path, key.Value), "only n")
			continue
		}
		d.Into(val, Join(path, "n"), &e.n)
		return
	}
	d.Into(n, path, &e.word)
}

func TestDecode(t *testing.T) {
	type settings struct {
		Name    string            `yaml:"name"`
		Headers map[string]string `yaml:"headers"`
		Steps   []either          `yaml:"steps"`
	}
	var s settings
	d := New("f.yaml", &s)
	d.Decode(strings.NewReader("name: a\nheaders: {X-A: b, X-C: '1'}\nsteps:\n  - w\n  - n: 3\n"), &s)
	require.Empty(t, d.Problems())
	require.Equal(t, settings{Name: "a", Headers: map[string]string{"X-A": "b", "X-C": "1"}, Steps: []either{{word: "w"}, {n: 3}}}, s)
	require.Equal(t, 2, d.LineOf("headers.X-A"))
	require.Equal(t, 5, d.LineOf("steps[1].n.deeper"))

	s = settings{}
	d = New("f.yaml", &s)
	d.Decode(strings.NewReader("nam: a\nheaders: {A: 1, A: 2, B: [x]}\nsteps:\n  - {n: x}\n"), &s)
	require.Equal(t, `f.yaml:1: nam: unknown key; did you mean name?
f.yaml:2: headers.A: is set twice
f.yaml:2: headers.B: wants a text, not a list
f.yaml:4: steps[0].n: "x" is not a whole number in its range`, d.Problems().Sorted().Error())
}
