package config

// nearest gives the key path that was most likely meant by the unknown one, or
// "" when none is near: a neighbour with a similar name, else a key of that
// name, or nearly, somewhere else.
func nearest(unknown string, keys []string) string {
	best, bestCost := "", 1<<30
	name := leaf(unknown)
	for _, k := range keys {
		far := distance(name, leaf(k))
		if far > max(1, len(name)/3) {
			continue
		}
		cost := 4 * far
		if parent(k) != parent(unknown) {
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

// distance is how many letters must be inserted, deleted, replaced or swapped
// with their neighbour to make b of a (optimal string alignment).
func distance(a, b string) int {
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
