package contract

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// pageViews are like those of the bench corpus: nine fields, one of them an
// object, about 260 bytes.
func pageViews(n int) (out [][]byte, size int64) {
	r := rand.New(rand.NewPCG(1, 2))
	at := time.UnixMilli(1767225600000).UTC()
	browsers := []string{"Chrome", "Safari", "Firefox", "Edge", "Samsung Internet"}
	refs := []string{"https://www.google.com/", "https://www.bing.com/", "", "https://news.ycombinator.com/"}
	paths := []string{"/products/wireless-headphones-7", "/blog/getting-started", "/docs/search", "/checkout/gift-cards"}
	for range n {
		at = at.Add(time.Duration(r.IntN(90)) * time.Millisecond)
		e := fmt.Appendf(nil, `{"event_id":"%016x","type":"page","ts":"%s","anon_id":"u%06d","session":"s%08x","path":"%s","referrer":"%s","dur_ms":%d,"context":{"browser":"%s","os":"Android","country":"US","width":%d}}`,
			r.Uint64(), at.Format("2006-01-02T15:04:05.000Z"), r.IntN(200000), r.Uint32(), paths[r.IntN(len(paths))], refs[r.IntN(len(refs))], r.IntN(3600000), browsers[r.IntN(len(browsers))], 1920)
		out, size = append(out, e), size+int64(len(e))
	}
	return out, size
}

func load(t testing.TB, names ...string) *Set {
	t.Helper()
	var files []File
	for _, name := range names {
		text, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, File{Name: name, Data: text})
	}
	set, problems := Compile(files)
	if problems != nil {
		t.Fatal(problems)
	}
	return set
}

// BenchmarkCheck is row 5 of the performance table: the nine-field contract.
func BenchmarkCheck(b *testing.B) {
	c := load(b, "page.odcs.yaml").For("page")
	events, size := pageViews(1000)
	var s Scratch
	b.SetBytes(size / int64(len(events)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if v := c.Check(events[i%len(events)], &s); v != nil {
			b.Fatal(v)
		}
	}
}

// BenchmarkCheckSchema is a contract with a JSON Schema beside its fields.
func BenchmarkCheckSchema(b *testing.B) {
	text, err := os.ReadFile("../../examples/wikipedia/contracts/edit.odcs.yaml")
	if err != nil {
		b.Fatal(err)
	}
	set, problems := Compile([]File{{Name: "edit.yaml", Data: text}})
	if problems != nil {
		b.Fatal(problems)
	}
	event := []byte(`{"time":"2015-09-12T00:46:58.771Z","channel":"#en.wikipedia","cityName":null,"countryIsoCode":null,"countryName":null,"isAnonymous":false,"isMinor":false,"isNew":false,"isRobot":false,"isUnpatrolled":false,"metroCode":null,"namespace":"Talk","page":"Talk:Oswald Tilghman","regionIsoCode":null,"regionName":null,"user":"GELongstreet","delta":36,"added":36,"deleted":0}`)
	var s Scratch
	b.SetBytes(int64(len(event)))
	b.ReportAllocs()
	for b.Loop() {
		if v := set.For("edit").Check(event, &s); v != nil {
			b.Fatal(v)
		}
	}
}
