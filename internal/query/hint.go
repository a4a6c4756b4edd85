package query

import (
	"slices"
	"strings"

	"naru/internal/spelling"
)

// didYouMean names up to three of the known names that are nearest to name, as
// the end of a sentence; empty when none is near.
func didYouMean(name string, known []string) string {
	near := nearest(name, known, 3)
	if len(near) == 0 {
		return ""
	}
	return "; did you mean " + strings.Join(near, " or ") + "?"
}

// nearest returns at most n of known, the nearest first. Case does not matter, of
// any letter: DuckDB tells Ü from ü, and so this is how one learns of it.
func nearest(name string, known []string, n int) []string {
	type scored struct {
		name string
		far  int
	}
	var near []scored
	name = strings.ToLower(name)
	limit := max(2, len(name)/3)
	for _, k := range known {
		if abs(len(k)-len(name)) > limit+2 && !strings.Contains(strings.ToLower(k), name) {
			continue
		}
		far := spelling.Distance(name, strings.ToLower(k))
		if far > limit && len(name) >= 3 && strings.Contains(strings.ToLower(k), name) {
			far = limit
		}
		if far <= limit {
			near = append(near, scored{k, far})
		}
	}
	slices.SortFunc(near, func(a, b scored) int {
		if a.far != b.far {
			return a.far - b.far
		}
		return strings.Compare(a.name, b.name)
	})
	names := make([]string, 0, n)
	for _, s := range near[:min(n, len(near))] {
		names = append(names, s.name)
	}
	return names
}

func abs(n int) int {
	if n < 0 {
		return -n
	}
	return n
}

func mapKeys(m map[string]bool) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}
