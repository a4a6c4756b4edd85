package main

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"time"
)

// sharedGenerator makes the corpus that the figures of the peers were taken on.
const sharedGenerator = "../shared/bench/page_views.py"

// corpus makes the file of n page views, once, and returns its path and where
// it comes from. Beside a checkout that has the shared generator that one is
// used, so that figures of several machines are on the same bytes; a clone on
// its own has the generator below, whose events have the same shape and size.
func corpus(dir string, n int) (path, origin string, err error) {
	path = filepath.Join(dir, fmt.Sprintf("page_views_%d.ndjson", n))
	origin = "own generator"
	python, noPython := exec.LookPath("python3")
	if _, err := os.Stat(sharedGenerator); err == nil && noPython == nil {
		origin = "page_views.py"
		path = filepath.Join(dir, fmt.Sprintf("page_views_py_%d.ndjson", n))
	}
	if _, err := os.Stat(path); err == nil {
		return path, origin, nil
	}
	part := path + ".part"
	if origin == "page_views.py" {
		cmd := exec.Command(python, sharedGenerator, fmt.Sprint(n), part)
		cmd.Stderr = os.Stderr
		err = cmd.Run()
	} else {
		err = generate(part, n)
	}
	if err != nil {
		return "", "", fmt.Errorf("make corpus: %w", err)
	}
	return path, origin, os.Rename(part, path)
}

// weighted draws from words by their weights.
type weighted struct {
	words []string
	sums  []float64
}

func weigh(words []string, weight func(i int) float64) weighted {
	w := weighted{words: words}
	sum := 0.0
	for i := range words {
		sum += weight(i)
		w.sums = append(w.sums, sum)
	}
	return w
}

func (w weighted) draw(r *rand.Rand) string {
	x := r.Float64() * w.sums[len(w.sums)-1]
	return w.words[sort.SearchFloat64s(w.sums, x)]
}

func list(weights ...float64) func(int) float64 { return func(i int) float64 { return weights[i] } }

// generate writes n page views of a web shop in order of time: some 265 bytes,
// nine fields, one of them an object; a fixed seed.
func generate(path string, n int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	out := bufio.NewWriterSize(f, 1<<20)
	r := rand.New(rand.NewPCG(20261121, 1))

	var pages []string
	for _, section := range []string{"products", "blog", "docs", "category", "account", "checkout", "help", "offers"} {
		for _, page := range []string{"index", "wireless-headphones-7", "spring-sale", "getting-started", "faq", "shoes",
			"kitchen-42", "news-2024", "cart", "confirm", "search", "top-rated", "pricing", "gift-cards", "returns"} {
			pages = append(pages, "/"+section+"/"+page)
		}
	}
	page := weigh(pages, func(i int) float64 { return 1 / float64(i+1) })
	referrer := weigh([]string{"https://www.google.com/", "https://www.bing.com/", "", "https://t.co/x",
		"https://news.ycombinator.com/", "https://m.facebook.com/", "https://mail.example.org/inbox"}, list(40, 8, 30, 6, 4, 9, 3))
	browser := weigh([]string{"Chrome", "Safari", "Firefox", "Edge", "Samsung Internet"}, list(60, 20, 8, 8, 4))
	system := weigh([]string{"Windows", "iOS", "Android", "macOS", "Linux"}, list(1, 1, 1, 1, 1))
	country := weigh([]string{"US", "DE", "GB", "FR", "IN", "BR", "JP", "CA", "AU", "NL", "ES", "IT", "PL", "SE", "MX"},
		list(30, 9, 8, 7, 12, 8, 5, 4, 3, 3, 3, 3, 2, 2, 1))
	widths := []int{1920, 1366, 390, 1440, 2560}

	at := int64(1767225600000) // 2026-01-01, in ms
	for range n {
		at += int64(r.ExpFloat64() * 43)
		user := int64(math.Pow(1-r.Float64(), -1/0.6)) % 200000
		session := uint32(user*2654435761 + at/1800000)
		dwell := min(int64(math.Exp(8+1.2*r.NormFloat64())), 3600000)
		fmt.Fprintf(out, `{"event_id":"%016x","type":"page","ts":"%s","anon_id":"u%06d","session":"s%08x","path":"%s","referrer":"%s","dur_ms":%d,"context":{"browser":"%s","os":"%s","country":"%s","width":%d}}`+"\n",
			r.Uint64(), time.UnixMilli(at).UTC().Format("2006-01-02T15:04:05.000Z"), user, session, page.draw(r), referrer.draw(r),
			dwell, browser.draw(r), system.draw(r), country.draw(r), widths[r.IntN(len(widths))])
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// bodies cuts a corpus into NDJSON bodies of batch events each. The last line of
// a body has no break: Bento would take what follows it for one more event,
// refuse it, and with it the whole Parquet file.
func bodies(path string, n, batch int) ([][]byte, error) {
	all, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for n > 0 {
		end := 0
		for range min(batch, n) {
			i := bytes.IndexByte(all[end:], '\n')
			if i < 0 {
				return nil, fmt.Errorf("read corpus %s: %d events too few", path, n)
			}
			end += i + 1
		}
		out = append(out, all[:end-1:end-1])
		all, n = all[end:], n-min(batch, n)
	}
	return out, nil
}
