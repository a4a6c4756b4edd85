package main

import (
	"fmt"
	"time"
)

// acknowledged is a batch whose answer came: all its events are on disk. Times
// are since the beginning of the load.
type acknowledged struct {
	last int64         // offset of its last event in the stream's one partition
	at   time.Duration // when the answer was there
}

// seen is a query that looked for the newest events.
type seen struct {
	began, ended time.Duration
	upTo         int64 // highest offset that it, or one before it, found; -1: none
}

// fresh is how long after their acknowledgement batches were seen, batch by
// batch. The truth about when a batch became visible lies between hidden and
// visible: a query that began before it did not have it, one that began then did.
type fresh struct {
	answered []time.Duration // to the end of the first query that found it: what somebody who asks waits for
	visible  []time.Duration // to the beginning of that query
	hidden   []time.Duration // to the beginning of the last query that did not find it
	unseen   int             // batches that no query found
}

// freshness matches batches with the queries that first found them. Both must
// be in order: acks by offset, queries by time. A batch that was found before its
// answer came counts as 0.
func freshness(acks []acknowledged, queries []seen) (fresh, error) {
	var f fresh
	q := 0
	for i, a := range acks {
		if i > 0 && a.last <= acks[i-1].last {
			return fresh{}, fmt.Errorf("match batches with queries: offset %d after %d", a.last, acks[i-1].last)
		}
		for q < len(queries) && queries[q].upTo < a.last {
			if q > 0 && queries[q].upTo < queries[q-1].upTo {
				return fresh{}, fmt.Errorf("match batches with queries: offset %d was seen, then only %d", queries[q-1].upTo, queries[q].upTo)
			}
			q++
		}
		if q == len(queries) {
			f.unseen = len(acks) - i
			break
		}
		f.answered = append(f.answered, max(0, queries[q].ended-a.at))
		f.visible = append(f.visible, max(0, queries[q].began-a.at))
		before := time.Duration(0)
		if q > 0 {
			before = queries[q-1].began - a.at
		}
		f.hidden = append(f.hidden, max(0, before))
	}
	return f, nil
}
