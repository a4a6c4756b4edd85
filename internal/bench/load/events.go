// Package load makes events and sends them: page views of a web shop, the same
// ones every time, over a few connections that each wait for their answers.
package load

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// seed makes every run send the same events.
const seed = 20261121

// firstView is when the first page was viewed, in ms since 1970: 2026-01-01.
const firstView = 1767225600000

// choice draws words, some more often than others.
type choice struct {
	words []string
	upTo  []float64 // sums of the weights
}

func choose(weights []float64, words ...string) choice {
	c := choice{words: words}
	sum := 0.0
	for i := range words {
		sum += weights[i]
		c.upTo = append(c.upTo, sum)
	}
	return c
}

func (c choice) draw(r *rand.Rand) string {
	i, _ := slices.BinarySearch(c.upTo, r.Float64()*c.upTo[len(c.upTo)-1])
	return c.words[min(i, len(c.words)-1)]
}

// harmonic weights: the second half as often as the first, the third a third.
func harmonic(n int) []float64 {
	w := make([]float64, n)
	for i := range w {
		w[i] = 1 / float64(i+1)
	}
	return w
}

// PageViews makes n events in order of time, each a JSON object of some 265
// bytes on one line without its end: nine fields, one of them an object of four.
// Some values have few forms (country), some many (user), one is unique (event_id).
func PageViews(n int) [][]byte {
	r := rand.New(rand.NewPCG(seed, 2))
	var pages []string
	for _, area := range []string{"products", "blog", "docs", "category", "account", "checkout", "help", "offers"} {
		for _, leaf := range []string{"index", "headphones-7", "spring-sale", "getting-started", "faq", "shoes-and-boots", "kitchen-42", "news-2026",
			"cart", "confirmation", "search", "top-rated", "pricing", "gift-cards", "returns"} {
			pages = append(pages, "/"+area+"/"+leaf)
		}
	}
	page := choose(harmonic(len(pages)), pages...)
	from := choose([]float64{40, 30, 9, 8, 6, 4, 3}, "https://www.google.com/", "", "https://m.facebook.com/", "https://www.bing.com/", "https://t.co/x",
		"https://news.example.com/", "https://mail.example.org/inbox")
	browser := choose([]float64{60, 20, 8, 8, 4}, "Chrome", "Safari", "Firefox", "Edge", "Samsung Internet")
	system := choose([]float64{1, 1, 1, 1, 1}, "Windows", "iOS", "Android", "macOS", "Linux")
	country := choose([]float64{30, 12, 9, 8, 8, 7, 5, 4, 3, 3, 3, 3, 2, 2, 1}, "US", "IN", "DE", "GB", "BR", "FR", "JP", "CA", "AU", "NL", "ES", "IT", "PL", "SE", "MX")
	width := choose([]float64{1, 1, 1, 1, 1}, "1920", "1366", "390", "1440", "2560")

	var all []byte
	ends := make([]int, n)
	at := float64(firstView)
	for i := range n {
		at += 43 * r.ExpFloat64()
		user := int64(math.Pow(1-r.Float64(), -1/0.6)) % 200000
		visit := uint32(user*2654435761 + int64(at)/1800000)
		dwell := min(int64(math.Exp(8+1.2*r.NormFloat64())), 3600000)
		all = fmt.Appendf(all, `{"event_id":"%016x","type":"page","ts":"%s","anon_id":"u%06d","session":"s%08x","path":"%s","referrer":"%s","dur_ms":%d,`+
			`"context":{"browser":"%s","os":"%s","country":"%s","width":%s}}`,
			r.Uint64(), time.UnixMilli(int64(at)).UTC().Format("2006-01-02T15:04:05.000Z"), user, visit, page.draw(r), from.draw(r), dwell,
			browser.draw(r), system.draw(r), country.draw(r), width.draw(r))
		ends[i] = len(all)
	}
	lines := make([][]byte, n)
	began := 0
	for i, end := range ends {
		lines[i], began = all[began:end:end], end
	}
	return lines
}

// Bodies joins lines to NDJSON bodies of batch lines each; what is left over at
// the end is left out.
func Bodies(lines [][]byte, batch int) [][]byte {
	var out [][]byte
	for chunk := range slices.Chunk(lines, batch) {
		if len(chunk) == batch {
			out = append(out, bytes.Join(chunk, []byte{'\n'}))
		}
	}
	return out
}
