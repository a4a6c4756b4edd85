// Package problem says what is wrong in a file that people write: where, what,
// and the cure.
package problem

import (
	"fmt"
	"slices"
	"strings"
)

// Problem is one mistake.
type Problem struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"` // from 1; 0 when no line is to blame
	Key  string `json:"key,omitempty"`  // path, as in log.segment_size
	Text string `json:"text"`           // what is wrong, and the cure
}

func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// List is all that is wrong; as an error, one a line.
type List []Problem

func (l List) Error() string {
	lines := make([]string, len(l))
	for i := range l {
		lines[i] = l[i].String()
	}
	return strings.Join(lines, "\n")
}

// Sorted puts them in the order of the file, each once: what stands at the head
// of a file may be read several times.
func (l List) Sorted() List {
	slices.SortStableFunc(l, func(a, b Problem) int { return a.Line - b.Line })
	var out List
	seen := map[Problem]bool{}
	for _, one := range l {
		if !seen[one] {
			seen[one] = true
			out = append(out, one)
		}
	}
	return out
}
