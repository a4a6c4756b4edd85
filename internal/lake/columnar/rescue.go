package columnar

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"naru/internal/jsonscan"
	"naru/internal/lake"
)

// rescued gathers the JSON object {"path": value} of the row being read.
type rescued struct {
	json  []byte // without the closing brace; empty when there is nothing
	paths []byte // the paths in plain text, for the counts
	ends  []int
	sums  []uint64       // hashes of the paths, until they are many
	seen  map[uint64]int // then how often each path has come up
}

const manyPaths = 16

func (r *rescued) reset() {
	r.json, r.paths, r.ends, r.sums = r.json[:0], r.paths[:0], r.ends[:0], r.sums[:0]
	r.seen = nil
}

// begin opens the next member; the caller appends its value to json. path is
// overwritten.
func (r *rescued) begin(path []byte) {
	r.paths = append(r.paths, path...)
	r.ends = append(r.ends, len(r.paths))
	if n := r.count(xxhash.Sum64(path)); n > 1 {
		path = appendRepeat(path, n)
	}
	if len(r.json) == 0 {
		r.json = append(r.json, '{')
	} else {
		r.json = append(r.json, ',')
	}
	r.json = jsonscan.AppendQuoted(r.json, path)
	r.json = append(r.json, ':')
}

// count notes a path and tells how often it has come up in this row.
func (r *rescued) count(sum uint64) int {
	if r.seen == nil {
		n := 1
		for _, s := range r.sums {
			if s == sum {
				n++
			}
		}
		r.sums = append(r.sums, sum)
		if len(r.sums) < manyPaths {
			return n
		}
		r.seen = make(map[uint64]int, 4*manyPaths)
		for _, s := range r.sums {
			r.seen[s]++
		}
		return n
	}
	r.seen[sum]++
	return r.seen[sum]
}

// appendRepeat marks the nth value of one path, n > 1: `path\2`. No path of
// keys looks so, since a backslash inside a key is doubled.
func appendRepeat(path []byte, n int) []byte {
	return strconv.AppendInt(append(path, '\\'), int64(n), 10)
}

// rescue puts a value that has no column, or does not fit its column, into
// _rescued.
func (b *Builder) rescue(o *object, key, raw []byte) {
	b.path = o.appendPath(b.path[:0], key)
	b.rescued.begin(b.path)
	b.rescued.json = appendJSON(b.rescued.json, raw)
}

// mergeRescued adds a value to the object of a row that is finished; old is
// nil when it has none.
func mergeRescued(s *scanner, old []byte, path string, value []byte) []byte {
	quoted := jsonscan.AppendQuoted(nil, []byte(path))
	for n := 2; len(old) > 0 && hasMember(s, old, quoted); n++ {
		quoted = jsonscan.AppendQuoted(nil, appendRepeat([]byte(path), n))
	}
	var out []byte
	if len(old) > 0 {
		out = append(append(out, old[:len(old)-1]...), ',')
	} else {
		out = append(out, '{')
	}
	out = append(append(out, quoted...), ':')
	return append(append(out, value...), '}')
}

// hasMember tells whether an object that rescued wrote has a member by that
// quoted name.
func hasMember(s *scanner, object, quoted []byte) bool {
	for i := 1; i < len(object); i++ { // behind '{' or ','
		end, _, _ := scanString(object, i+1)
		if end < 0 {
			return false
		}
		if bytes.Equal(object[i:end+1], quoted) {
			return true
		}
		if i = s.skip(object, end+2); i < 0 {
			return false
		}
	}
	return false
}

// topPaths counts paths in bounded memory (Space-Saving, Metwally and others
// 2005): when a new path meets a full list it takes the place and the count of
// the rarest.
type topPaths struct{ counts map[string]int64 }

const maxTop = 64

func (t *topPaths) add(path []byte, n int64) {
	if _, ok := t.counts[string(path)]; ok || len(t.counts) < maxTop {
		if t.counts == nil {
			t.counts = map[string]int64{}
		}
		t.counts[string(path)] += n
		return
	}
	var rarest string
	least := int64(-1)
	for p, c := range t.counts {
		if least < 0 || c < least || c == least && p > rarest {
			rarest, least = p, c
		}
	}
	delete(t.counts, rarest)
	t.counts[string(path)] = least + n
}

func (t *topPaths) list() []lake.PathCount {
	var list []lake.PathCount
	for p, c := range t.counts {
		list = append(list, lake.PathCount{Path: p, Count: c})
	}
	slices.SortFunc(list, func(a, b lake.PathCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Path, b.Path))
	})
	return list
}
