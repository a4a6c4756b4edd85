package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strconv"
)

// proof holds every row of the lake against the ledger: one bit for each
// sequence number of each connection, and for each request how many of its
// items are there and from where.
type proof struct {
	accounts []*account
	found    *findings
	of       []evidence // by connection
	// Rows seen, by stream: written ones and rejections.
	rows, rejections []int64
	whole, absent    int // requests of unknown outcome
}

type evidence struct {
	bits []uint64
	// By request: items there, and the offset of the first good one as the
	// first row met says it.
	good, bad []int32
	base      []int64
}

const noBase = math.MinInt64

func newProof(accounts []*account, found *findings) *proof {
	p := &proof{accounts: accounts, found: found, rows: make([]int64, len(streams)), rejections: make([]int64, len(streams))}
	for _, a := range accounts {
		a.mu.Lock()
		n := len(a.mu.requests)
		e := evidence{bits: make([]uint64, a.mu.next/64+1), good: make([]int32, n), bad: make([]int32, n), base: make([]int64, n)}
		for i, r := range a.mu.requests {
			e.base[i] = noBase
			if r.is == acked {
				e.base[i] = r.offset
			}
		}
		a.mu.Unlock()
		p.of = append(p.of, e)
	}
	return p
}

// item finds the request and the place in it that numbers speak of; nil when
// there are no such.
func (p *proof) item(conn, req, seq int64) (a *account, r *request, i int64) {
	conn -= firstConn
	if conn < 0 || conn >= int64(len(p.accounts)) {
		return nil, nil, 0
	}
	a = p.accounts[conn]
	req -= firstReq
	if req < 0 || req >= int64(len(a.mu.requests)) {
		return a, nil, 0
	}
	r = &a.mu.requests[req]
	i = seq - firstSeq - r.first
	if i < 0 || i >= int64(len(a.plans[r.plan].items)) {
		return a, nil, 0
	}
	return a, r, i
}

// mark notes that an item is there; false when it was already.
func (e *evidence) mark(seq int64) bool {
	was := e.bits[seq/64]>>(seq%64)&1 == 1
	e.bits[seq/64] |= 1 << (seq % 64)
	return !was
}

func (e *evidence) has(seq int64) bool { return e.bits[seq/64]>>(seq%64)&1 == 1 }

// row takes one row of a kind's table.
func (p *proof) row(k int, conn, req, seq, offset int64) {
	name := func() string {
		return fmt.Sprintf("row of %s at offset %d (connection %d, request %d, sequence number %d)", kinds[k].table(), offset, conn-firstConn, req-firstReq, seq-firstSeq)
	}
	a, r, i := p.item(conn, req, seq)
	if r == nil {
		p.found.add("%s: never sent", name())
		return
	}
	e := &p.of[a.number]
	plan := a.plans[r.plan]
	p.rows[kinds[k].stream]++
	switch it := plan.items[i]; {
	case it.bad:
		p.found.add("%s: it should be in rejected", name())
	case it.kind != k:
		p.found.add("%s: it should be in %s", name(), kinds[it.kind].table())
	case !e.mark(seq - firstSeq):
		p.found.add("%s: there twice", name())
	default:
		e.good[req-firstReq]++
		base := &e.base[req-firstReq]
		if *base == noBase {
			*base = offset - int64(plan.before[i])
		}
		if want := *base + int64(plan.before[i]); offset != want {
			p.found.add("%s: its request says offset %d", name(), want)
		}
	}
}

// rejection takes the original bytes of one row of rejected.
func (p *proof) rejection(original []byte) {
	a, r, i := p.item(number(original, "conn"), number(original, "req"), number(original, "seq"))
	if r == nil {
		p.found.add("rejected has %.100q: never sent", original)
		return
	}
	plan := a.plans[r.plan]
	p.rejections[plan.stream]++
	e := &p.of[a.number]
	switch {
	case !plan.items[i].bad:
		p.found.add("rejected has %.100q, which is a good event", original)
	case !e.mark(r.first + i):
		p.found.add("rejected has %.100q twice", original)
	default:
		e.bad[number(original, "req")-firstReq]++
	}
}

// number finds `"name":123` or `"name",123`; -1 when it is not there.
func number(in []byte, name string) int64 {
	_, rest, ok := bytes.Cut(in, []byte(`"`+name+`"`))
	if !ok || len(rest) < 2 {
		return -1
	}
	rest = rest[1:]
	end := 0
	for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
		end++
	}
	n, err := strconv.ParseInt(string(rest[:end]), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// settle holds every request against what was met of it.
func (p *proof) settle() {
	for c, a := range p.accounts {
		e := &p.of[c]
		for n, r := range a.mu.requests {
			plan := a.plans[r.plan]
			good, bad := int(e.good[n]), int(e.bad[n])
			all := good == plan.good && bad == len(plan.items)-plan.good
			none := good == 0 && bad == 0
			switch {
			case r.is == acked && all, r.is == refused && none:
				continue
			case (r.is == unknown || r.is == pending) && all:
				p.whole++
				continue
			case (r.is == unknown || r.is == pending) && none:
				p.absent++
				continue
			}
			p.found.add("connection %d, request %d (%v, life %d, %s): %d of %d good and %d of %d bad items are there; missing: %s",
				c, n, r.is, r.life, streams[plan.stream], good, plan.good, bad, len(plan.items)-plan.good, missing(e, r.first, len(plan.items)))
		}
	}
}

// missing names the first sequence numbers that are not there.
func missing(e *evidence, first int64, n int) string {
	out := ""
	named := 0
	for seq := first; seq < first+int64(n); seq++ {
		if e.has(seq) {
			continue
		}
		if named == 5 {
			return out + " ..."
		}
		named++
		out += fmt.Sprintf(" %d", seq)
	}
	return out
}

// listed is a table with its data files.
type listed struct {
	diskTable
	list []dataFile
}

// prove holds all that the disk has against the ledger and the server's own
// account. An error means that it could not be done.
func prove(ctx context.Context, accounts []*account, tables []listed, r *report, found *findings) (*proof, error) {
	p := newProof(accounts, found)
	if err := p.read(ctx, tables); err != nil {
		return nil, err
	}
	p.settle()
	p.equation(r)
	return p, nil
}

// read takes in all tables from the disk.
func (p *proof) read(ctx context.Context, tables []listed) error {
	known := map[string]int{}
	for k := range kinds {
		known[kinds[k].table()] = k
	}
	for _, t := range tables {
		checkFiles(t.name, t.list, p.found)
		k, ours := known[t.name]
		if !ours && t.name != "rejected.rejected" {
			p.found.add("there is a table %s, which nobody sent anything to", t.name)
			continue
		}
		rows := int64(0)
		for _, f := range t.list {
			before := rows
			var err error
			if ours {
				err = numbers(ctx, f.path, []string{"conn", "req", "seq", "_offset"}, func(c [][]int64) {
					for i := range c[0] {
						p.row(k, c[0][i], c[1][i], c[2][i], c[3][i])
					}
					rows += int64(len(c[0]))
				})
			} else {
				err = texts(ctx, f.path, "original", func(v []byte) { p.rejection(v); rows++ })
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				p.found.add("table %s: %v", t.name, err) // goes on: the rest may tell more
				continue
			}
			if rows-before != f.rows {
				p.found.add("table %s: %s has %d rows, its manifest says %d", t.name, f.path, rows-before, f.rows)
			}
		}
		if rows != t.rows {
			p.found.add("table %s: %d rows, its snapshot says %d", t.name, rows, t.rows)
		}
	}
	return nil
}

// equation holds the server's own account against the rows and the ledger:
// acknowledged = written + rejections, exactly, and as many as the client knows of.
func (p *proof) equation(r *report) {
	t := count(p.accounts)
	if !r.Balanced {
		p.found.add("status: the counts of a stream do not add up")
	}
	seen := map[string]bool{}
	var kept int64
	for i, name := range streams {
		kept += p.rejections[i]
		for _, s := range r.Streams {
			if s.Stream != name {
				continue
			}
			seen[name] = true
			if s.Acknowledged != s.Written+s.Rejections || s.NotYetWritten != 0 || s.Duplicates != 0 || s.Filtered != 0 {
				p.found.add("stream %s: %d acknowledged, %d written, %d rejections, %d duplicates, %d filtered, %d not yet written",
					name, s.Acknowledged, s.Written, s.Rejections, s.Duplicates, s.Filtered, s.NotYetWritten)
			}
			if s.Written != p.rows[i] || s.Rejections != p.rejections[i] {
				p.found.add("stream %s: status says %d written and %d rejections, the tables hold %d and %d", name, s.Written, s.Rejections, p.rows[i], p.rejections[i])
			}
			if good := (bounds{t.good[i], t.good[i] + t.maybeGood[i]}); !good.hold(s.Written) {
				p.found.add("stream %s: %d written, the client knows of %v", name, s.Written, good)
			}
			if bad := (bounds{t.bad[i], t.bad[i] + t.maybeBad[i]}); !bad.hold(s.Rejections) {
				p.found.add("stream %s: %d rejections, the client knows of %v", name, s.Rejections, bad)
			}
		}
		if !seen[name] && t.good[i]+t.bad[i] > 0 {
			p.found.add("status does not know the stream %s", name)
		}
	}
	for _, s := range r.Streams {
		if s.Stream == "rejected" && (s.Kept != kept || s.KeptInTable != kept) {
			p.found.add("rejected: status says %d kept and %d in the table, the table holds %d", s.Kept, s.KeptInTable, kept)
		}
	}
}
