package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// row is what a table has of one event.
type row struct {
	kind                   int
	conn, req, seq, offset int64
}

// played is what a server without a fault makes of a ledger with requests of
// every outcome.
type played struct {
	accounts   []*account
	rows       []row
	rejections [][]byte
}

func play(t testing.TB, seed uint64, requests int) *played {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 0))
	list := plans(rng, 60)
	p := &played{}
	var texts [][]*text
	for c := range 3 {
		p.accounts = append(p.accounts, newAccount(c, list))
		var own []*text
		for _, b := range list {
			own = append(own, b.write(c, rng, time.Now()))
		}
		texts = append(texts, own)
	}
	ends := make([]int64, len(streams))
	for i := range requests {
		c := rng.IntN(len(p.accounts))
		plan := rng.IntN(len(list))
		body, txt := list[plan], texts[c][plan]
		number, first := p.accounts[c].begin(plan, i)
		txt.number(number, first, time.Now(), rng)
		is, there := acked, true
		switch x := rng.IntN(20); {
		case x == 0:
			is = unknown
		case x == 1:
			is, there = unknown, false
		case x == 2:
			is, there = refused, false
		}
		offset := int64(-1)
		if is == acked {
			offset = ends[body.stream]
		}
		if err := p.accounts[c].end(number, is, offset); err != nil {
			t.Fatal(err)
		}
		if !there {
			continue
		}
		lines := bytes.Split(bytes.Clone(txt.bytes), []byte("\n"))
		for j, it := range body.items {
			if it.bad {
				p.rejections = append(p.rejections, lines[j])
				continue
			}
			p.rows = append(p.rows, row{it.kind, int64(c) + firstConn, number + firstReq, first + int64(j) + firstSeq, ends[body.stream] + int64(body.before[j])})
		}
		ends[body.stream] += int64(body.good)
	}
	return p
}

// report is what the server of a played ledger says.
func (p *played) report() *report {
	r := &report{Balanced: true}
	rows, bad := make([]int64, len(streams)), make([]int64, len(streams))
	for _, row := range p.rows {
		rows[kinds[row.kind].stream]++
	}
	for _, original := range p.rejections {
		a := p.accounts[number(original, "conn")-firstConn]
		bad[a.plans[a.mu.requests[number(original, "req")-firstReq].plan].stream]++
	}
	for i, name := range streams {
		r.Streams = append(r.Streams, streamReport{Stream: name, Acknowledged: rows[i] + bad[i], Written: rows[i], Rejections: bad[i], Balanced: true})
	}
	n := int64(len(p.rejections))
	r.Streams = append(r.Streams, streamReport{Stream: "rejected", Kept: n, KeptInTable: n, Balanced: true})
	return r
}

func (p *played) prove(r *report) []string {
	var found findings
	proof := newProof(p.accounts, &found)
	for _, r := range p.rows {
		proof.row(r.kind, r.conn, r.req, r.seq, r.offset)
	}
	for _, original := range p.rejections {
		proof.rejection(original)
	}
	proof.settle()
	proof.equation(r)
	return found.all()
}

// first finds a request of an outcome and the places of its rows.
func (p *played) first(t testing.TB, is outcome, stored bool) (a *account, n int, at []int) {
	t.Helper()
	for _, a := range p.accounts {
		for n, r := range a.mu.requests {
			if r.is != is || a.plans[r.plan].good < 2 {
				continue
			}
			var at []int
			for i, row := range p.rows {
				if row.conn == int64(a.number)+firstConn && row.req == int64(n)+firstReq {
					at = append(at, i)
				}
			}
			if stored == (len(at) > 0) {
				return a, n, at
			}
		}
	}
	t.Fatalf("no %v request (stored: %v)", is, stored)
	return nil, 0, nil
}

func TestProofNotices(t *testing.T) {
	if found := play(t, 1, 400).prove(play(t, 1, 400).report()); len(found) > 0 {
		t.Fatalf("a server without a fault: %s", strings.Join(found, "\n"))
	}
	for name, fault := range map[string]struct {
		do  func(p *played)
		say string
	}{
		"a row is lost": {func(p *played) {
			_, _, at := p.first(t, acked, true)
			p.rows = slices.Delete(p.rows, at[0], at[0]+1)
		}, "missing: "},
		"a row is there twice": {func(p *played) { p.rows = append(p.rows, p.rows[7]) }, "there twice"},
		"a whole request is lost": {func(p *played) {
			_, _, at := p.first(t, acked, true)
			p.rows = slices.Delete(p.rows, at[0], at[len(at)-1]+1)
		}, ": 0 of "},
		"half of an unknown request": {func(p *played) {
			_, _, at := p.first(t, unknown, true)
			p.rows = slices.Delete(p.rows, at[1], at[1]+1)
		}, "(unknown, "},
		"a refused request is there": {func(p *played) {
			a, n, _ := p.first(t, refused, false)
			r := a.mu.requests[n]
			for i, it := range a.plans[r.plan].items {
				if !it.bad {
					p.rows = append(p.rows, row{it.kind, int64(a.number) + firstConn, int64(n) + firstReq, r.first + int64(i) + firstSeq, 1_000_000 + int64(a.plans[r.plan].before[i])})
				}
			}
		}, "(refused, "},
		"a row nobody sent":          {func(p *played) { p.rows = append(p.rows, row{0, firstConn, firstReq + 100_000, firstSeq, 1}) }, "never sent"},
		"a row of no connection":     {func(p *played) { p.rows = append(p.rows, row{0, firstConn + 50, firstReq, firstSeq, 1}) }, "never sent"},
		"a row in another table":     {func(p *played) { p.rows[3].kind = (p.rows[3].kind + 1) % 4 }, "it should be in "},
		"a row in another place":     {func(p *played) { p.rows[3].offset += 5 }, "its request says offset"},
		"a rejection is lost":        {func(p *played) { p.rejections = p.rejections[1:] }, "bad items are there"},
		"a rejection is there twice": {func(p *played) { p.rejections = append(p.rejections, p.rejections[0]) }, "twice"},
		"a rejection nobody sent":    {func(p *played) { p.rejections = append(p.rejections, []byte("x")) }, "never sent"},
		"a good event was rejected": {func(p *played) {
			r := p.rows[0]
			p.rows = p.rows[1:]
			p.rejections = append(p.rejections, fmt.Appendf(nil, `{"conn":%d,"req":%d,"seq":%d`, r.conn, r.req, r.seq))
		}, "which is a good event"},
		"the ledger lacks a request": {func(p *played) {
			a := p.accounts[0]
			last := len(a.mu.requests) - 1
			for a.mu.requests[last].is != acked {
				last--
			}
			a.mu.requests = a.mu.requests[:last]
		}, "never sent"},
	} {
		p := play(t, 1, 400)
		r := p.report()
		fault.do(p)
		if found := strings.Join(p.prove(r), "\n"); !strings.Contains(found, fault.say) {
			t.Errorf("%s: want %q among what was found:\n%.600s", name, fault.say, found)
		}
	}
}

func TestEquationNotices(t *testing.T) {
	p := play(t, 2, 200)
	for name, change := range map[string]func(r *report){
		"acknowledged":  func(r *report) { r.Streams[0].Acknowledged++ },
		"written":       func(r *report) { r.Streams[1].Written--; r.Streams[1].Acknowledged-- },
		"rejections":    func(r *report) { r.Streams[0].Rejections++; r.Streams[0].Acknowledged++ },
		"duplicates":    func(r *report) { r.Streams[0].Duplicates++ },
		"left over":     func(r *report) { r.Streams[0].NotYetWritten = 1 },
		"balance":       func(r *report) { r.Balanced = false },
		"no stream":     func(r *report) { r.Streams = r.Streams[1:] },
		"kept":          func(r *report) { r.Streams[2].Kept++ },
		"kept in table": func(r *report) { r.Streams[2].KeptInTable-- },
	} {
		r := p.report()
		change(r)
		if found := p.prove(r); len(found) == 0 {
			t.Errorf("%s: nothing found", name)
		}
	}
}

func TestFilesOfACommit(t *testing.T) {
	files := []dataFile{
		{path: "/a/1.parquet", snapshot: 1, day: "1"}, {path: "/a/2.parquet", snapshot: 1, day: "2"},
		{path: "/a/3.parquet", snapshot: 2, day: "1"},
	}
	var found findings
	if checkFiles("t", files, &found); len(found.all()) > 0 {
		t.Errorf("one file a day and commit: %v", found.all())
	}
	for say, more := range map[string]dataFile{
		"added 2 files for one day: 2.parquet 4.parquet": {path: "/a/4.parquet", snapshot: 1, day: "2"},
		"names the file /a/3.parquet twice":              {path: "/a/3.parquet", snapshot: 3, day: "1"},
	} {
		var found findings
		if checkFiles("t", append(slices.Clone(files), more), &found); !strings.Contains(strings.Join(found.all(), "\n"), say) {
			t.Errorf("want %q, found %v", say, found.all())
		}
	}
}

// TestBounds holds what the ledger expects of a question against the rows.
func TestBounds(t *testing.T) {
	p := play(t, 3, 600)
	rng := rand.New(rand.NewPCG(3, 3))
	exact := 0
	for range 2000 {
		k, c := rng.IntN(len(kinds)), rng.IntN(len(p.accounts))
		lo := rng.Int64N(int64(len(p.rows)))
		hi := lo + rng.Int64N(2000)
		n := int64(0)
		for _, r := range p.rows {
			if r.kind == k && r.conn == int64(c)+firstConn && r.offset >= lo && r.offset <= hi {
				n++
			}
		}
		b := p.accounts[c].within(k, lo, hi)
		if !b.hold(n) {
			t.Fatalf("connection %d, %s, offsets %d to %d: %d rows, want %v", c, kinds[k].name, lo, hi, n, b)
		}
		if b.least == b.most {
			exact++
		}
		from := rng.Int64N(int64(len(p.accounts[c].mu.requests)))
		to := from + rng.Int64N(20)
		pairs := int64(0)
		per := map[int64][2]int64{}
		for _, r := range p.rows {
			if r.conn == int64(c)+firstConn && r.req >= from+firstReq && r.req <= to+firstReq {
				n := per[r.req]
				switch r.kind {
				case purchase:
					n[0]++
				case click:
					n[1]++
				}
				per[r.req] = n
			}
		}
		for _, n := range per {
			pairs += n[0] * n[1]
		}
		if b := p.accounts[c].joined(purchase, click, from, to); !b.hold(pairs) {
			t.Fatalf("connection %d, requests %d to %d: %d pairs, want %v", c, from, to, pairs, b)
		}
	}
	if exact < 200 {
		t.Errorf("only %d of 2000 expectations are exact: they would hardly notice a loss", exact)
	}
}

// TestBodies: what is sent is what the plan says.
func TestBodies(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	singles, bad, size, items := 0, 0, 0, 0
	for _, b := range plans(rng, 500) {
		txt := b.write(5, rng, time.Now())
		txt.number(77, 4_000_000_000, time.Now(), rng)
		if b.single {
			singles++
		}
		size += len(txt.bytes)
		for i, line := range bytes.Split(txt.bytes, []byte("\n")) {
			items++
			var v struct {
				Conn, Req, Seq int64
				Type, TS       string
			}
			err := json.Unmarshal(line, &v)
			if b.items[i].bad {
				bad++
				if err == nil {
					t.Fatalf("bad item %d is good: %s", i, line)
				}
				v.Conn, v.Req, v.Seq = number(line, "conn"), number(line, "req"), number(line, "seq")
			} else if _, timeErr := time.Parse(tsLayout, v.TS); err != nil || timeErr != nil || v.Type != kinds[b.items[i].kind].name {
				t.Fatalf("item %d: %v %v %s", i, err, timeErr, line)
			}
			if v.Conn != firstConn+5 || v.Req != firstReq+77 || v.Seq != firstSeq+4_000_000_000+int64(i) {
				t.Fatalf("item %d has the numbers %+v: %s", i, v, line)
			}
		}
	}
	if mean := size / items; singles == 0 || bad == 0 || mean < 200 || mean > 300 {
		t.Errorf("%d single events, %d bad items, %d bytes an event", singles, bad, mean)
	}
}
