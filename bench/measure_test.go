package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	m := median([]measure{
		{Rate: 3, P99: 1, Figures: map[string]float64{"x": 5}},
		{Rate: 1, P99: 9, Figures: map[string]float64{"x": 1}},
		{Rate: 2, P99: 4, Figures: map[string]float64{"x": 3}}})
	if m.Rate != 2 || m.P99 != 4 || m.Figures["x"] != 3 {
		t.Errorf("median %+v, want the middle of each figure", m)
	}
}

// By the definition: the smallest value that is not below the given share.
func TestPercentile(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := 1; n <= 300; n++ {
		values := make([]int, n)
		for i := range values {
			values[i] = rng.IntN(n)
		}
		slices.Sort(values)
		for _, percent := range []int{1, 50, 99, 100} {
			got := percentile(values, float64(percent)/100)
			below := 0
			for _, v := range values {
				if v < got {
					below++
				}
			}
			upTo := below + len(values[below:]) - len(slices.DeleteFunc(slices.Clone(values[below:]), func(v int) bool { return v == got }))
			if upTo*100 < percent*n || below*100 >= percent*n {
				t.Fatalf("%d values, %d %%: %d of them are below %d, %d not above it", n, percent, below, got, upTo)
			}
		}
	}
	if percentile([]int{}, 0.5) != 0 {
		t.Error("a percentile of nothing")
	}
}

func TestTenths(t *testing.T) {
	samples := []int64{900, 900} // of the start
	for i := range int64(100) {
		samples = append(samples, 100+i)
	}
	samples[50] = 5000 // a peak in the middle
	all := tenths(samples, 2)
	if len(all) != 10 || all[0] < 100 || all[0] > 109 || all[4] < 140 || all[4] > 149 || all[9] < 190 || all[9] > 199 {
		t.Errorf("tenths %d", all)
	}
	if all := tenths([]int64{7}, 5); len(all) != 1 || all[0] != 7 {
		t.Errorf("of one sample: %d", all)
	}
	if all := tenths(nil, 5); len(all) > 0 {
		t.Errorf("of none: %d", all)
	}
}

func TestFreshness(t *testing.T) {
	const s = time.Second
	acks := []acknowledged{{9, 1 * s}, {19, 2 * s}, {29, 5 * s}, {39, 9 * s}}
	queries := []seen{
		{0, 1 * s, -1},
		{3 * s, 4 * s, 19},      // finds the first two
		{4 * s, 5*s + s/2, 29},  // finds one whose answer came after it began
		{6 * s, 7 * s, 29},      // nothing new
		{8 * s, 8*s + s/10, 39}, // finds one before its answer
	}
	f, err := freshness(acks, queries)
	if err != nil {
		t.Fatal(err)
	}
	want := fresh{
		answered: []time.Duration{3 * s, 2 * s, s / 2, 0},
		visible:  []time.Duration{2 * s, 1 * s, 0, 0},
		hidden:   []time.Duration{0, 0, 0, 0},
	}
	if !reflect.DeepEqual(f, want) {
		t.Errorf("got  %+v\nwant %+v", f, want)
	}

	// A query in between that did not find it is a lower bound.
	f, err = freshness(acks[:1], []seen{{2 * s, 3 * s, -1}, {4 * s, 5 * s, 9}})
	if err != nil || f.hidden[0] != 1*s || f.visible[0] != 3*s || f.answered[0] != 4*s {
		t.Errorf("got %+v, %v", f, err)
	}
	// What no query found is told, not left out.
	if f, err = freshness(acks, queries[:3]); err != nil || f.unseen != 1 || len(f.answered) != 3 {
		t.Errorf("got %+v, %v; want one unseen", f, err)
	}
	if f, err = freshness(acks, nil); err != nil || f.unseen != 4 {
		t.Errorf("got %+v, %v; want all unseen", f, err)
	}
	if _, err := freshness([]acknowledged{{9, s}, {9, s}}, queries); err == nil {
		t.Error("two batches that end at one offset were taken")
	}
	if _, err := freshness(acks, []seen{{0, s, 9}, {s, 2 * s, 5}}); err == nil {
		t.Error("a query that sees less than the one before it was taken")
	}
}

// However often somebody looks, the truth lies between hidden and visible.
func TestFreshnessBounds(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		const lag = 300 * time.Millisecond // of every batch, exactly
		var acks []acknowledged
		at := time.Duration(0)
		for i := range int64(200) {
			at += time.Duration(rng.IntN(20)) * time.Millisecond
			acks = append(acks, acknowledged{i, at})
		}
		var queries []seen
		for began := time.Duration(0); began < at+2*time.Second; {
			upTo := int64(-1)
			for _, a := range acks {
				if a.at+lag <= began {
					upTo = a.last
				}
			}
			ended := began + time.Duration(rng.IntN(400))*time.Millisecond
			queries = append(queries, seen{began, ended, upTo})
			began = ended + time.Duration(1+rng.IntN(200))*time.Millisecond
		}
		f, err := freshness(acks, queries)
		if err != nil || f.unseen > 0 {
			t.Fatal(err, f.unseen)
		}
		for i := range acks {
			if f.hidden[i] >= lag || f.visible[i] < lag || f.answered[i] < f.visible[i] {
				t.Fatalf("batch %d: hidden %v, visible %v, answered %v; the truth is %v", i, f.hidden[i], f.visible[i], f.answered[i], lag)
			}
		}
	}
}

func TestReadAnswer(t *testing.T) {
	const plain = "HTTP/1.1 200 OK\r\nDate: x\r\ncontent-length: 5\r\n\r\nhello"
	const chunked = "HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
	const empty = "HTTP/1.1 204 No Content\r\n\r\n"
	in := bufio.NewReaderSize(strings.NewReader(plain+chunked+plain+empty+plain), 64)
	for _, want := range []string{"200 hello", "503 abcde", "200 hello", "204 ", "200 hello"} {
		status, body, err := readAnswer(in, make([]byte, 2))
		if got := fmt.Sprintf("%d %s", status, body); err != nil || got != want {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
	}
	for _, broken := range []string{"", "nonsense\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"} {
		if _, _, err := readAnswer(bufio.NewReader(strings.NewReader(broken)), nil); err == nil {
			t.Errorf("%q was taken", broken)
		}
	}
}

func TestLastOffset(t *testing.T) {
	const answer = `{"accepted": 500, "rejected": [], "positions": [{"stream": "events", "partition": 0, "first": 10, "last": 509}]}`
	if n, err := lastOffset([]byte(answer)); err != nil || n != 509 {
		t.Errorf("got %d, %v", n, err)
	}
	for _, broken := range []string{``, `{"accepted": 0, "positions": []}`, `{"last": x}`} {
		if _, err := lastOffset([]byte(broken)); err == nil {
			t.Errorf("%q was taken", broken)
		}
	}
}

// New runs replace those of their own rows, and the file is made anew from what
// it holds itself.
func TestKeep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "RESULTS.md")
	m := machine{"a machine", "ext4", "own generator"}
	old := []measure{{Row: "1", Run: 1, System: "naru", Rate: 1, CPU: 2, Syncs: 3}, {Row: "2", Run: 1, System: "naru", Rate: 4, Syncs: -1}}
	if err := keep(path, old, m); err != nil {
		t.Fatal(err)
	}
	now := []measure{{Row: "2", Run: 1, System: "naru", Rate: 6e5, P99: 1}, {Row: "2", Run: 1, System: bentoLines, Rate: 5e5, Syncs: -1}}
	if err := keep(path, now, m); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(file)
	got, err := parseRaw(text)
	if err != nil || !reflect.DeepEqual(got, append(old[:1:1], now...)) {
		t.Fatalf("read back %+v, %v", got, err)
	}
	for _, want := range []string{"**not met**", "**met**", "1.20 × events/s", "- **2** ("} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// Every row has a name of its own and says how it is taken.
func TestTable(t *testing.T) {
	names := map[string]bool{}
	for _, r := range table() {
		if names[r.name] || r.scenario == "" || r.target == "" || r.method == "" || r.take == nil || r.judge == nil {
			t.Errorf("row %q is not whole", r.name)
		}
		names[r.name] = true
	}
}
