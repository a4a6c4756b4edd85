package contract

import (
	"fmt"
	"slices"
	"strings"
)

// Problem is one mistake in a contract file. It has the fields of
// config.Problem, so that naru check can show both in one list.
type Problem struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"` // from 1; 0 when no line is to blame
	Key  string `json:"key,omitempty"`  // path, as in schema[0].properties[2].logicalType
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

// Problems are all that is wrong; as an error, one a line.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}

// sorted puts them in the order of the file, each once: what stands at the head
// of a file is read for each of its types.
func (p Problems) sorted() Problems {
	slices.SortStableFunc(p, func(a, b Problem) int { return a.Line - b.Line })
	var out Problems
	seen := map[Problem]bool{}
	for _, one := range p {
		if !seen[one] {
			seen[one] = true
			out = append(out, one)
		}
	}
	return out
}

func (c *Contract) where() string { return fmt.Sprintf("%s:%d", c.File, c.Line) }

// didYouMean names the known word that was most likely meant, as the end of a
// sentence; empty when none is near.
func didYouMean(word string, known []string) string {
	best, far := "", max(1, len(word)/3)+1
	for _, k := range known {
		if len(k)-len(word) >= far || len(word)-len(k) >= far {
			continue
		}
		if n := distance(strings.ToLower(word), strings.ToLower(k)); n < far {
			best, far = k, n
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// distance is how many letters must be inserted, deleted, replaced or swapped
// with their neighbour to make b of a (optimal string alignment).
func distance(a, b string) int {
	a, b = a[:min(len(a), 64)], b[:min(len(b), 64)]
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
