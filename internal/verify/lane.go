package verify

import (
	"math"
	"slices"

	"naru/internal/event"
)

// laneKey names one partition of a stream in one incarnation of the log.
type laneKey struct {
	stream    string
	inc       event.Incarnation
	partition int32
}

// lane is what is known of one partition in one incarnation.
type lane struct {
	laneKey
	known  bool  // by the log
	closed bool  // a repair has ended it
	first  int64 // offset at which the incarnation began
	end    int64 // first offset that it does not have
	kept   int64 // the log has events from here on: retention dropped those before
	mark   int64 // the pipeline's watermark: all below is covered

	// By the table's number: offsets below floor are in the table, offsets below
	// start belong into _other.
	floor, start []int64

	seen   runs // offsets of events that were read from the log
	lost   runs // offsets that a repair has given up
	chunks map[int64]*chunk
	last   int64 // number of the chunk that was asked for last
	lastAt *chunk
}

// Rows and events are compared by chunks of so many offsets: first by sums,
// then, where these differ, one by one.
const (
	chunkBits = 18
	chunkSize = 1 << chunkBits
)

// chunk has what is summed of chunkSize offsets.
type chunk struct {
	cells  []*cell // by the table's number
	unseen sums    // rows of events that the log has not any more
	odd    bool    // look at it one by one in any case
}

// cell is a table's share of a chunk.
type cell struct{ events, rows sums }

// sums of a set of offsets. Two sets with equal sums are equal but for a chance
// of one in 2^64: the hash is keyed anew for each run.
type sums struct {
	n       int64
	hash    uint64
	content uint64 // of rows and events, when they are compared
}

func (s *sums) add(hash uint64) { s.n++; s.hash += hash }

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// chunk gives the chunk that holds an offset.
func (l *lane) chunk(offset int64) *chunk {
	n := offset >> chunkBits
	if l.lastAt != nil && l.last == n {
		return l.lastAt
	}
	c := l.chunks[n]
	if c == nil {
		c = &chunk{}
		if l.chunks == nil {
			l.chunks = map[int64]*chunk{}
		}
		l.chunks[n] = c
	}
	l.last, l.lastAt = n, c
	return c
}

func (c *chunk) cell(table int) *cell {
	if table >= len(c.cells) {
		c.cells = append(c.cells, make([]*cell, table+1-len(c.cells))...)
	}
	if c.cells[table] == nil {
		c.cells[table] = &cell{}
	}
	return c.cells[table]
}

// covered tells whether the table covers the offset.
func (l *lane) covered(table int, offset int64) bool { return offset < l.floor[table] }

// within tells whether the lane has, or had, an event at the offset.
func (l *lane) within(offset int64) bool { return l.known && offset >= l.first && offset < l.end }

// runs is a set of offsets as sorted runs [from, to).
type runs []run

type run struct{ from, to int64 }

// add puts in an offset; adding in order is cheap.
func (r *runs) add(from, to int64) {
	if from >= to {
		return
	}
	s := *r
	if n := len(s); n == 0 || s[n-1].to < from {
		*r = append(s, run{from, to})
		return
	} else if s[n-1].to == from {
		s[n-1].to = to
		return
	}
	i, _ := slices.BinarySearchFunc(s, from, func(a run, at int64) int { return cmpInt(a.to, at) })
	j := i
	for j < len(s) && s[j].from <= to {
		from, to = min(from, s[j].from), max(to, s[j].to)
		j++
	}
	*r = slices.Replace(s, i, j, run{from, to})
}

func cmpInt(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// at gives the run that holds the offset, or the place where it would be.
func (r runs) at(offset int64) (i int, in bool) {
	i, _ = slices.BinarySearchFunc(r, offset, func(a run, at int64) int { return cmpInt(a.to-1, at) })
	return i, i < len(r) && r[i].from <= offset
}

func (r runs) has(offset int64) bool { _, in := r.at(offset); return in }

// without calls fn for the parts of [from, to) that are not in r.
func (r runs) without(from, to int64, fn func(from, to int64)) {
	i, _ := r.at(from)
	for from < to && i < len(r) {
		if r[i].from > from {
			fn(from, min(r[i].from, to))
		}
		from = max(from, r[i].to)
		i++
	}
	if from < to {
		fn(from, to)
	}
}

// touches tells whether any offset of [from, to) is in r.
func (r runs) touches(from, to int64) bool {
	i, _ := r.at(from)
	return i < len(r) && r[i].from < to
}

// endless is the watermark of a lane that the pipeline has left behind.
const endless = math.MaxInt64
