package duck

import "strings"

// hideFiles blanks the file names in the boxes of an EXPLAIN ANALYZE. A path is
// broken over several lines of its box, beside other boxes, so it is found by
// its heading and taken out column by column.
func hideFiles(plan string) string {
	if !strings.Contains(plan, "Filename(s)") {
		return plan
	}
	lines := strings.Split(plan, "\n")
	hiding := map[int]bool{} // by the place where the box begins
	for n, line := range lines {
		cells := []rune(line)
		changed := false
		for start := 0; start < len(cells); {
			if cells[start] != '│' {
				start++
				continue
			}
			end := start + 1
			for end < len(cells) && cells[end] != '│' {
				end++
			}
			if end == len(cells) {
				break
			}
			text := strings.TrimSpace(string(cells[start+1 : end]))
			switch {
			case strings.HasPrefix(text, "Filename(s)"):
				hiding[start] = true
			case text == "":
				delete(hiding, start)
			case hiding[start]:
				for i := start + 1; i < end; i++ {
					cells[i] = ' '
				}
				changed = true
			}
			start = end
		}
		if changed {
			lines[n] = string(cells)
		}
	}
	return strings.Join(lines, "\n")
}
