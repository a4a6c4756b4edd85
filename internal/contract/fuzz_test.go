package contract

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"naru/internal/jsonscan"
)

// FuzzContract: any bytes are a contract or a list of mistakes, and what is a
// contract judges.
func FuzzContract(f *testing.F) {
	for _, pattern := range []string{"testdata/odcs/*.yaml", "testdata/lint/*.yaml", "testdata/check/*.yaml"} {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			f.Add(read(f, name))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		set, problems := Compile([]File{{Name: "x.yaml", Data: text}})
		if (set == nil) == (problems == nil) {
			t.Fatalf("%v and %v", set, problems)
		}
		for _, p := range problems {
			if p.Text == "" || p.File != "x.yaml" {
				t.Fatalf("%+v", p)
			}
		}
		if set == nil {
			return
		}
		var s Scratch
		for _, c := range set.Contracts {
			c.Check([]byte(`{"a":1,"id":"x","items":[{"sku":"a"}],"name":null}`), &s)
		}
		Diff(set, set)
	})
}

// FuzzCheck: any bytes are judged, whatever they are; what is no JSON is told as
// that and nothing else, and the same bytes have the same verdict.
func FuzzCheck(f *testing.F) {
	rules, frozen := load(f, "check/rules.yaml").Contracts[0], load(f, "check/frozen.yaml").Contracts[0]
	for _, line := range []string{`{"s":"ab","free":1}`, `{"free":1,"s":"\ud83d\ude00","list":[{"sku":"a"}]}`, `{"inner":"{\"id\":1}","n":1e400}`,
		"{\"s\":\"\xff\xfe\"}", `{"at":"2016-12-31T23:59:60Z"}`, `[`, ``, `{"o":{"x":1},"o":null}`} {
		f.Add([]byte(line))
	}
	var s, again Scratch
	var scan jsonscan.Scanner
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, c := range []*Contract{rules, frozen} {
			found := append([]Violation{}, c.Check(data, &s)...)
			valid := scan.Valid(data)
			if none := len(found) == 1 && found[0].Rule == ruleJSON && found[0].Path == "$"; none == valid {
				t.Fatalf("%q: valid %v, found %v", data, valid, found)
			}
			second := c.Check(data, &again)
			if len(second) != len(found) {
				t.Fatalf("%q: %v, then %v", data, found, second)
			}
			for i, v := range found {
				if v != second[i] {
					t.Fatalf("%q: %v, then %v", data, v, second[i])
				}
				if _, err := json.Marshal(v); err != nil || len(v.Value) > 3*maxShown {
					t.Fatalf("%q: %v: %v", data, v, err)
				}
			}
		}
	})
}
