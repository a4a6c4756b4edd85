package contract

import (
	"bufio"
	"compress/gzip"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

// TestDraft: the draft of some events, as people get it.
func TestDraft(t *testing.T) {
	s := NewSample()
	for i := range 600 {
		e := `{"id":"0190b3a0-7c1e-7000-8000-00000000000` + string(rune('0'+i%10)) + `","at":"2026-01-31T09:00:00Z","day":"2026-01-31","state":"` +
			[]string{"paid", "open", "no"}[i%3] + `","total":` + []string{"12.5", "7", "0.25"}[i%3] + `,"count":` + []string{"1", "900", "-3"}[i%3] +
			`,"note":null,"customer":{"email":"mina@example.com","name":"` + strings.Repeat("x", i%30) + `"},"items":[{"sku":"a"},{"sku":"b","n":1}],"mixed":` + []string{"1", `"x"`, "true"}[i%3]
		if i%2 == 0 {
			e += `,"gift":true,"odd key":"` + strings.Repeat("y", i%20) + `"`
		}
		s.Add([]byte(e + "}"))
	}
	s.Add([]byte("[1]"))
	s.Add([]byte("nonsense"))
	if s.Events() != 600 || s.Bad() != 2 {
		t.Errorf("%d events, %d bad", s.Events(), s.Bad())
	}
	wanted(t, "testdata/draft.yaml", string(s.Draft("order")))
}

// keeps tells that a draft is a contract and that all events keep it.
func keeps(t *testing.T, events [][]byte) {
	t.Helper()
	s := NewSample()
	for _, e := range events {
		s.Add(e)
	}
	text := s.Draft("t")
	set, problems := Compile([]File{{Name: "t.yaml", Data: text}})
	if problems != nil {
		t.Fatalf("%v\n%s", problems, text)
	}
	var scratch Scratch
	for _, e := range events {
		if found := set.For("t").Check(e, &scratch); found != nil {
			t.Fatalf("%s\n%s\n%v", text, e, found)
		}
	}
}

// TestDraftIsKept: whatever the events, the draft is a contract that they keep.
func TestDraftIsKept(t *testing.T) {
	d := dice{rand.New(rand.NewPCG(rand.Uint64(), 3))}
	for range 300 {
		root := map[string]any{"logicalType": "object", "properties": d.properties(3)}
		var events [][]byte
		for len(events) < 1+d.IntN(40) {
			if e := d.event(root); e[0] == '{' {
				events = append(events, []byte(e))
			}
		}
		keeps(t, events)
	}
	keeps(t, [][]byte{[]byte(`{"n":1e400,"m":` + strings.Repeat("9", 1000) + `,"a":[[[[[[[[[[[[1]]]]]]]]]]]],"":1,"x":"\ud800"}`), []byte(`{"m":1}`)})
}

func TestDraftOfWikipedia(t *testing.T) {
	f, err := os.Open("../../examples/wikipedia/wikipedia_edits.ndjson.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var events [][]byte
	for in := bufio.NewScanner(z); in.Scan() && len(events) < 5000; {
		events = append(events, append([]byte{}, in.Bytes()...))
	}
	keeps(t, events)
}
