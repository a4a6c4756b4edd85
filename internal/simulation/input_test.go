package simulation

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// shipment is one request of a client.
type shipment struct {
	stream string
	cloud  bool // CloudEvents with a partition key
	items  []item
}

// item is one event, or what was meant to be one.
type item struct {
	key  string
	text string
	bad  bool // it will be refused
	over bool // only by a contract, and not when that is loosened
}

// client makes the requests of one connection. Everything that depends on the
// order of events is under names of the connection's own.
type client struct {
	rng   *rand.Rand
	n     int // connection
	seq   int
	topic *topics
	cloud bool
}

// topics are what the clients of one history talk of: few, so that tables grow.
type topics struct{ streams, types, days []string }

func newTopics(rng *rand.Rand) *topics {
	t := &topics{streams: []string{"events"}}
	if rng.IntN(3) == 0 {
		t.streams = append(t.streams, "orders")
	}
	for range 1 + rng.IntN(4) {
		t.types = append(t.types, typeNames[rng.IntN(len(typeNames))])
	}
	for range 1 + rng.IntN(2) {
		t.days = append(t.days, fmt.Sprintf("201%d-0%d-1%d", 5+rng.IntN(2), 1+rng.IntN(9), rng.IntN(9)))
	}
	return t
}

// Some of these fold to one table.
var typeNames = []string{"PageView", "page_view", "page-view", "order.paid", "OrderPaid", "Заказ", "x", "login", "a.b.c", "rejected", "_odd"}

func newClient(n int, rng *rand.Rand, t *topics, cloud bool) *client {
	return &client{n: n, rng: rng, topic: t, cloud: cloud}
}

func pick(rng *rand.Rand, of []string) string { return of[rng.IntN(len(of))] }

// next makes a request of up to most events.
func (c *client) next(most int) shipment {
	s := shipment{stream: pick(c.rng, c.topic.streams), cloud: c.cloud && c.rng.IntN(3) == 0}
	for range 1 + c.rng.IntN(most) {
		s.items = append(s.items, c.item(s.cloud))
	}
	return s
}

func (c *client) item(cloud bool) item {
	key := fmt.Sprintf("c%d-%d", c.n, c.seq)
	c.seq++
	head := fmt.Sprintf(`{"k":"%s"`, key)
	switch {
	case c.rng.IntN(12) == 0 && !cloud:
		return item{key: key, bad: true, text: head + []string{`, "broken`, `, "n": 01}`, `, "x": }`}[c.rng.IntN(3)]}
	case c.rng.IntN(25) == 0 && cloud: // a CloudEvent without its type
		return item{key: key, bad: true, text: fmt.Sprintf(`{"specversion":"1.0","id":"%s","source":"/s","data":%s}}`, key, head)}
	}
	typ, when := pick(c.rng, c.topic.types), fmt.Sprintf("%sT10:%02d:00Z", pick(c.rng, c.topic.days), c.seq%60)
	agreed, breaks := c.agreed(typ)
	rest := c.fields()
	if breaks { // it may come in later, and the order of these matters
		rest = ""
	}
	body := head + agreed + rest + "}"
	if cloud {
		return item{key: key, bad: breaks, over: breaks, text: fmt.Sprintf(`{"specversion":"1.0","id":"%s","source":"/s%d","type":"%s","time":"%s","subject":"u%d","partitionkey":"p%d","data":%s}`,
			key, c.n, typ, when, c.n, c.rng.IntN(9), body)}
	}
	return item{key: key, bad: breaks, over: breaks, text: fmt.Sprintf(`%s,"type":"%s","time":"%s"}`, strings.TrimSuffix(body, "}"), typ, when)}
}

// fields are what a type may turn out to have.
func (c *client) fields() string {
	var b strings.Builder
	own := fmt.Sprintf("c%d_", c.n)
	if c.rng.IntN(8) == 0 { // segments are to fill
		fmt.Fprintf(&b, `,"pad":"%x"`, noise(c.rng, 300))
	}
	for range c.rng.IntN(7) {
		switch i := c.rng.IntN(14); i {
		case 0:
			fmt.Fprintf(&b, `,"n":%d`, c.rng.IntN(1000))
		case 1: // whole numbers first, fractions some time later
			fmt.Fprintf(&b, `,"%sprice":%s`, own, []string{"1", "20", "9007199254740993", "2.5"}[c.late(4)])
		case 2: // a type that changes
			fmt.Fprintf(&b, `,"%smood":%s`, own, []string{`"good"`, `true`, `7`, `[1]`, `{"x":1}`}[c.rng.IntN(5)])
		case 3: // a column that comes late
			fmt.Fprintf(&b, `,"col%d":"v%d"`, c.seq/10, c.seq)
		case 4: // names that fold to one
			fmt.Fprintf(&b, `,"%s":%d`, []string{own + "Name", own + "name", own + "NAME"}[c.rng.IntN(3)], c.seq)
		case 5: // paths that meet
			if c.rng.IntN(2) == 0 {
				fmt.Fprintf(&b, `,"%sa":{"b":%d,"c":"t"}`, own, c.seq)
			} else {
				fmt.Fprintf(&b, `,"%sa_b":%d`, own, c.seq)
			}
		case 6:
			fmt.Fprintf(&b, `,"%stags":%s`, own, []string{`["a","b"]`, `[]`, `[null]`, `[1,2]`, `[1,2.5]`, `[{"x":1}]`, `["c",null]`}[c.rng.IntN(7)])
		case 7:
			b.WriteString(`,"nothing":null`)
		case 8:
			fmt.Fprintf(&b, `,"text":"%s"`, []string{"é", `\u00e9`, `a\"b`, `\ud800`, "日本", strings.Repeat("long ", 60)}[c.rng.IntN(6)])
		case 9:
			fmt.Fprintf(&b, `,"ok":%t`, c.rng.IntN(2) == 0)
		case 10:
			fmt.Fprintf(&b, `,"deep":{"er":{"and":{"er":%d}}}`, c.rng.IntN(9))
		case 11: // a key twice
			fmt.Fprintf(&b, `,"%stwice":1,"%stwice":2`, own, own)
		case 12:
			fmt.Fprintf(&b, `,"%sbig":%s`, own, []string{"9223372036854775807", "9223372036854775808", "1e400", "-0.0", "1e-400", "123456789012345678"}[c.rng.IntN(6)])
		case 13: // names that are taken
			fmt.Fprintf(&b, `,"%s":"%d"`, []string{"_type", "_OFFSET", "", "_rescued", "_extensions", "_file"}[c.rng.IntN(6)], c.seq)
		}
	}
	return b.String()
}

func noise(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// late picks of n choices; the last ones are rare, and not there at first.
func (c *client) late(n int) int {
	if c.seq > 12 && c.rng.IntN(8) == 0 {
		return n - 1
	}
	return c.rng.IntN(n - 1)
}

// body is the request's body and media type.
func (s shipment) body() (text, media string) {
	var b strings.Builder
	if s.cloud {
		for i, it := range s.items {
			b.WriteByte("[,"[min(i, 1)])
			b.WriteString(it.text)
		}
		return b.String() + "]", "application/cloudevents-batch+json"
	}
	for _, it := range s.items {
		b.WriteString(it.text + "\n")
	}
	return b.String(), "application/x-ndjson"
}
