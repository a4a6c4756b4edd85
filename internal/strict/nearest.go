package strict

import "naru/internal/spelling"

// nearest gives the key path that was most likely meant by the unknown one, or
// "" when none is near: a neighbour with a similar name, else a key of that
// name, or nearly, somewhere else.
func nearest(unknown string, keys []string) string {
	best, bestCost := "", 1<<30
	name := Leaf(unknown)
	for _, k := range keys {
		far := spelling.Distance(name, Leaf(k))
		if far > max(1, len(name)/3) {
			continue
		}
		cost := 4 * far
		if Parent(k) != Parent(unknown) {
			cost++ // of two equally near names the neighbour is meant
			if far > 1 {
				continue // elsewhere only what is all but the same
			}
		}
		if cost < bestCost {
			best, bestCost = k, cost
		}
	}
	return best
}
