package contract

import (
	"fmt"
	"strings"

	"naru/internal/problem"
	"naru/internal/spelling"
)

// Problem is one mistake in a contract file.
type Problem = problem.Problem

// Problems are all that is wrong; as an error, one a line.
type Problems = problem.List

func (c *Contract) where() string { return fmt.Sprintf("%s:%d", c.File, c.Line) }

// didYouMean names the known word that was most likely meant, as the end of a
// sentence; empty when none is near.
func didYouMean(word string, known []string) string {
	best, far := "", max(1, len(word)/3)+1
	for _, k := range known {
		if len(k)-len(word) >= far || len(word)-len(k) >= far {
			continue
		}
		if n := spelling.Distance(strings.ToLower(word), strings.ToLower(k)); n < far {
			best, far = k, n
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}
