package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"time"
)

// kind is a type of event: where it is sent and which table it becomes.
type kind struct {
	stream int // index of streams
	name   string
}

// table is the kind's table as SQL names it.
func (k kind) table() string { return streams[k.stream] + "." + k.name }

var streams = []string{"events", "app"}

var kinds = []kind{
	{0, "page_view"}, {0, "click"}, {0, "search"}, {0, "purchase"},
	{1, "metric"}, {1, "error_report"},
}

const purchase, click = 3, 1 // of kinds: the two tables of the join

// Numbers begin so high that they have the same number of digits through a
// whole run: a body is built once and its numbers are put in place.
const (
	firstConn = 10
	firstReq  = 10_000_000
	firstSeq  = 1_000_000_000_000
	reqDigits = 8
	seqDigits = 13
	tsLayout  = "2006-01-02T15:04:05.000Z"
)

// item is one line of a body.
type item struct {
	kind int
	bad  bool // has to end in `rejected`
}

// body is the plan of a request, the same for all connections: what its items
// are. Its bytes are a template.
type body struct {
	stream  int
	single  bool // one event as a JSON object instead of NDJSON
	items   []item
	good    int
	before  []int // good items before each item: its distance from the request's first offset
	perKind []int // good items of each kind
}

// plans are the bodies that a run sends in turn, made from its seed.
func plans(rng *rand.Rand, size int) []*body {
	var out []*body
	for i := range 16 {
		b := &body{stream: 0, perKind: make([]int, len(kinds))}
		if i%4 == 3 {
			b.stream = 1
		}
		n := max(1, size*4/5+rng.IntN(size*2/5+1)) // size on average
		if i%8 == 5 {
			n, b.single = 1, true
		}
		for range n {
			it := item{kind: pick(rng, b.stream), bad: !b.single && rng.IntN(300) == 0}
			b.before = append(b.before, b.good)
			b.items = append(b.items, it)
			if !it.bad {
				b.good++
				b.perKind[it.kind]++
			}
		}
		out = append(out, b)
	}
	return out
}

// pick draws a kind of a stream; the first are the more frequent.
func pick(rng *rand.Rand, stream int) int {
	x := rng.IntN(100)
	if stream == 1 {
		if x < 92 {
			return 4
		}
		return 5
	}
	switch {
	case x < 55:
		return 0
	case x < 80:
		return click
	case x < 93:
		return 2
	}
	return purchase
}

// text is a body's bytes for one connection, with the places of the numbers.
type text struct {
	plan    *body
	bytes   []byte
	req     []int
	seq     []int
	ts      []int // of the items that carry the time of sending
	id      []int // of what is random in every event, so that nothing compresses too well
	heading []byte
}

// write makes a connection's bytes of a plan. late is the time of those events
// that come a day late, as in life some do.
func (b *body) write(conn int, rng *rand.Rand, late time.Time) *text {
	t := &text{plan: b}
	out := &bytes.Buffer{}
	for i, it := range b.items {
		if i > 0 {
			out.WriteByte('\n')
		}
		if it.bad && i%2 == 0 { // JSON, but no object
			fmt.Fprintf(out, `["conn",%d,"req",`, firstConn+conn)
			t.req = append(t.req, out.Len())
			fmt.Fprintf(out, `%d,"seq",`, firstReq)
			t.seq = append(t.seq, out.Len())
			fmt.Fprintf(out, `%d]`, firstSeq)
			continue
		}
		fmt.Fprintf(out, `{"conn":%d,"req":`, firstConn+conn)
		t.req = append(t.req, out.Len())
		fmt.Fprintf(out, `%d,"seq":`, firstReq)
		t.seq = append(t.seq, out.Len())
		fmt.Fprintf(out, `%d,"type":"%s","ts":"`, firstSeq, kinds[it.kind].name)
		if rng.IntN(50) > 0 {
			t.ts = append(t.ts, out.Len())
		}
		fmt.Fprintf(out, `%s","trace":"`, late.UTC().Format(tsLayout))
		t.id = append(t.id, out.Len())
		fmt.Fprintf(out, `%016x",`, 0)
		fields(out, it.kind, rng)
		if it.bad {
			out.WriteString(`,"cut":"here`) // broken in the middle of a string
			continue
		}
		out.WriteByte('}')
	}
	t.bytes = out.Bytes()
	media := "application/x-ndjson"
	if b.single {
		media = "application/json"
	}
	t.heading = fmt.Appendf(nil, "POST /v1/events?stream=%s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\n", streams[b.stream], media)
	return t
}

// number puts a request's numbers, time and random parts in place.
func (t *text) number(req, seq int64, now time.Time, rng *rand.Rand) {
	for _, at := range t.req {
		digits(t.bytes[at:at+reqDigits], firstReq+req)
	}
	for i, at := range t.seq {
		digits(t.bytes[at:at+seqDigits], firstSeq+seq+int64(i))
	}
	stamp := now.UTC().Format(tsLayout)
	for _, at := range t.ts {
		copy(t.bytes[at:], stamp)
	}
	for _, at := range t.id {
		n := rng.Uint64()
		for i := range 16 {
			t.bytes[at+i] = "0123456789abcdef"[n>>(4*i)&15]
		}
	}
}

func digits(to []byte, n int64) {
	for i := len(to) - 1; i >= 0; i-- {
		to[i] = byte('0' + n%10)
		n /= 10
	}
}

var (
	pages    = []string{"/", "/products/wireless-headphones-7", "/products/kitchen-42", "/blog/spring-sale", "/docs/getting-started", "/help/returns", "/cart", "/checkout/confirm"}
	referrer = []string{"https://www.google.com/", "", "https://t.co/x", "https://news.ycombinator.com/", "https://mail.example.org/inbox"}
	browsers = []string{"Chrome", "Safari", "Firefox", "Edge"}
	systems  = []string{"Windows", "iOS", "Android", "macOS", "Linux"}
	lands    = []string{"US", "DE", "GB", "FR", "IN", "BR", "JP", "CA", "AU", "NL"}
	metrics  = []string{"http_requests", "queue_depth", "heap_bytes", "cpu_seconds", "disk_reads"}
)

func one(rng *rand.Rand, of []string) string { return of[rng.IntN(len(of))] }

// fields writes what an event of the kind carries besides its numbers, so that
// an event has some 200 to 300 bytes.
func fields(out *bytes.Buffer, k int, rng *rand.Rand) {
	user := fmt.Sprintf(`"user":"u%06d","session":"s%08x"`, rng.IntN(200000), rng.Uint32())
	context := fmt.Sprintf(`"context":{"browser":"%s","os":"%s","country":"%s","width":%d}`,
		one(rng, browsers), one(rng, systems), one(rng, lands), 300+rng.IntN(2200))
	switch kinds[k].name {
	case "page_view":
		fmt.Fprintf(out, `%s,"path":"%s","referrer":"%s","dwell_ms":%d,%s`, user, one(rng, pages), one(rng, referrer), rng.IntN(600000), context)
	case "click":
		fmt.Fprintf(out, `%s,"path":"%s","element":"#button-%d","x":%d,"y":%d,%s`, user, one(rng, pages), rng.IntN(40), rng.IntN(1920), rng.IntN(4000), context)
	case "search":
		fmt.Fprintf(out, `%s,"query":"%s %s","hits":%d,"filters":["price","%s"],%s`, user, one(rng, metrics), one(rng, systems), rng.IntN(900), one(rng, lands), context)
	case "purchase":
		fmt.Fprintf(out, `%s,"order":"o%010d","total":%d.25,"items":%d,"paid":%v,%s`, user, rng.Uint32(), rng.IntN(900), 1+rng.IntN(9), rng.IntN(20) > 0, context)
	case "metric":
		fmt.Fprintf(out, `"name":"%s","value":%d.5,"host":"node-%03d.example.org","labels":{"zone":"%s","service":"checkout","version":"4.%d"}`,
			one(rng, metrics), rng.IntN(100000), rng.IntN(200), one(rng, lands), rng.IntN(30))
	default:
		fmt.Fprintf(out, `"message":"request %08x took too long","host":"node-%03d.example.org","line":%d,"tags":["slow","%s"],"fatal":%v`,
			rng.Uint32(), rng.IntN(200), rng.IntN(900), one(rng, lands), rng.IntN(100) == 0)
	}
}
