package main

import (
	"fmt"
	"slices"
	"sync"
)

// outcome is what the client knows of a request.
type outcome uint8

const (
	pending outcome = iota // no answer so far
	acked                  // 200: all of it is durable
	refused                // 429: none of it is stored
	unknown                // broken off, or 503: whole or not at all
)

func (o outcome) String() string {
	return [...]string{"pending", "acknowledged", "refused", "unknown"}[o]
}

// request is one line of the ledger. Its number is its place.
type request struct {
	first  int64 // sequence number of its first item
	offset int64 // of its first good item in the log, from the answer; else -1
	plan   uint16
	life   uint16
	is     outcome
	sent   bool // handed to the kernel whole
}

// account is one connection's ledger: its requests follow each other without
// a gap in their sequence numbers.
type account struct {
	number int
	plans  []*body

	mu struct {
		sync.Mutex
		requests []request
		next     int64 // sequence number of the next item
		// acked are the acknowledged requests of each stream, by number; their
		// offsets ascend, because a connection waits for each answer.
		acked [][]int32
	}
}

func newAccount(number int, plans []*body) *account {
	a := &account{number: number, plans: plans}
	a.mu.acked = make([][]int32, len(streams))
	return a
}

// begin notes a request that is about to be sent.
func (a *account) begin(plan, life int) (number, first int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	number, first = int64(len(a.mu.requests)), a.mu.next
	a.mu.requests = append(a.mu.requests, request{first: first, offset: -1, plan: uint16(plan), life: uint16(life)})
	a.mu.next += int64(len(a.plans[plan].items))
	return number, first
}

// sent notes that all of a request has been written.
func (a *account) sent(number int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.requests[number].sent = true
}

// end notes what became of a request. offset is that of its first good item,
// -1 when it has none or is not known.
func (a *account) end(number int64, is outcome, offset int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := &a.mu.requests[number]
	r.is, r.offset = is, offset
	if is != acked || offset < 0 {
		return nil
	}
	stream := a.plans[r.plan].stream
	if before := a.mu.acked[stream]; len(before) > 0 {
		last := a.mu.requests[before[len(before)-1]]
		if end := last.offset + int64(a.plans[last.plan].good); offset < end {
			return fmt.Errorf("connection %d, request %d: acknowledged at offset %d of %s, but an earlier request ends at %d",
				a.number, number, offset, streams[stream], end)
		}
	}
	a.mu.acked[stream] = append(a.mu.acked[stream], int32(number))
	return nil
}

// inFlight counts requests that are sent whole and have no answer yet.
func (a *account) inFlight() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for i := len(a.mu.requests) - 1; i >= 0 && a.mu.requests[i].is == pending; i-- {
		if a.mu.requests[i].sent {
			n++
		}
	}
	return n
}

// bounds are how many rows must and may be there.
type bounds struct{ least, most int64 }

func (b bounds) hold(n int64) bool { return b.least <= n && n <= b.most }
func (b bounds) String() string    { return fmt.Sprintf("%d to %d", b.least, b.most) }

func (b bounds) plus(c bounds) bounds { return bounds{b.least + c.least, b.most + c.most} }

// within bounds the rows of a kind that have offsets from lo to hi, given that
// everything up to hi is there. Requests of unknown outcome count as perhaps
// there if they may lie in between.
func (a *account) within(k int, lo, hi int64) bounds {
	a.mu.Lock()
	defer a.mu.Unlock()
	stream := kinds[k].stream
	list := a.mu.acked[stream]
	end := func(n int32) int64 {
		r := a.mu.requests[n]
		return r.offset + int64(a.plans[r.plan].good)
	}
	from, _ := slices.BinarySearchFunc(list, lo, func(n int32, lo int64) int {
		if end(n) <= lo {
			return -1
		}
		return 1
	})
	var b bounds
	for ; from < len(list); from++ {
		r := a.mu.requests[list[from]]
		if r.offset > hi {
			break
		}
		p := a.plans[r.plan]
		if r.offset >= lo && end(list[from]) <= hi+1 {
			b.least += int64(p.perKind[k])
			continue
		}
		for i, it := range p.items { // cut by a border
			if at := r.offset + int64(p.before[i]); !it.bad && it.kind == k && at >= lo && at <= hi {
				b.least++
			}
		}
	}
	b.most = b.least
	// What is unknown and may lie there: behind the last request that ends
	// before lo, and before the first one that begins after hi.
	first, last := 0, len(a.mu.requests)
	if at, _ := slices.BinarySearchFunc(list, lo, func(n int32, lo int64) int {
		if end(n) <= lo {
			return -1
		}
		return 1
	}); at > 0 {
		first = int(list[at-1])
	}
	if from < len(list) {
		last = int(list[from])
	}
	for i := first; i < last; i++ {
		if r := a.mu.requests[i]; r.is == pending || r.is == unknown {
			b.most += int64(a.plans[r.plan].perKind[k])
		}
	}
	return b
}

// settled is how many requests, from the first on, lie below an offset of a
// stream, as far as answers tell.
func (a *account) settled(stream int, below int64) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := a.mu.acked[stream]
	n, _ := slices.BinarySearchFunc(list, below, func(n int32, below int64) int {
		r := a.mu.requests[n]
		if r.offset+int64(a.plans[r.plan].good) <= below {
			return -1
		}
		return 1
	})
	if n == 0 {
		return 0
	}
	return int64(list[n-1]) + 1
}

// joined bounds the pairs of rows of two kinds with the same request number
// from lo to hi.
func (a *account) joined(k, l int, lo, hi int64) bounds {
	a.mu.Lock()
	defer a.mu.Unlock()
	var b bounds
	for _, r := range a.mu.requests[max(lo, 0):min(hi+1, int64(len(a.mu.requests)))] {
		p := a.plans[r.plan]
		n := int64(p.perKind[k]) * int64(p.perKind[l])
		switch r.is {
		case acked:
			b.least += n
			b.most += n
		case pending, unknown:
			b.most += n
		case refused:
		}
	}
	return b
}

// place tells whether a row may be there: the request was sent, has that item,
// and the item belongs into that table at that offset.
func (a *account) place(req, seq int64, k int, offset int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if req < 0 || req >= int64(len(a.mu.requests)) {
		return fmt.Errorf("request %d was never sent", req)
	}
	r := a.mu.requests[req]
	p := a.plans[r.plan]
	i := seq - r.first
	switch {
	case i < 0 || i >= int64(len(p.items)):
		return fmt.Errorf("request %d has no item with sequence number %d", req, seq)
	case p.items[i].bad || p.items[i].kind != k:
		return fmt.Errorf("request %d, sequence number %d does not belong there", req, seq)
	case r.is == refused:
		return fmt.Errorf("request %d was refused", req)
	case r.is == acked && r.offset+int64(p.before[i]) != offset:
		return fmt.Errorf("request %d, sequence number %d is at offset %d, the answer said %d", req, seq, offset, r.offset+int64(p.before[i]))
	}
	return nil
}

// tally counts items by stream and outcome.
type tally struct {
	good, bad           []int64 // acknowledged, by stream
	maybeGood, maybeBad []int64 // of unknown outcome
	requests            [4]int64
}

func (a *account) add(t *tally) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.mu.requests {
		p := a.plans[r.plan]
		t.requests[r.is]++
		good, bad := int64(p.good), int64(len(p.items)-p.good)
		switch r.is {
		case acked:
			t.good[p.stream] += good
			t.bad[p.stream] += bad
		case unknown, pending:
			t.maybeGood[p.stream] += good
			t.maybeBad[p.stream] += bad
		case refused:
		}
	}
}

func count(accounts []*account) *tally {
	n := len(streams)
	t := &tally{good: make([]int64, n), bad: make([]int64, n), maybeGood: make([]int64, n), maybeBad: make([]int64, n)}
	for _, a := range accounts {
		a.add(t)
	}
	return t
}
