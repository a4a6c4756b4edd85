package contract

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"naru/internal/vfs"
)

// TestEverything: what a contract says about itself comes out.
func TestEverything(t *testing.T) {
	set := load(t, "odcs/everything.odcs.yaml")
	c := set.For("order_paid")
	if set.ForBytes([]byte("order_paid")) != c || set.For("nothing") != nil || len(set.Contracts) != 2 {
		t.Fatalf("contracts: %v", set.Contracts)
	}
	if c.Mode != Enforce || set.For("order_cancelled").Mode != Observe {
		t.Error("the mode at the type goes before the one at the file")
	}
	want := Ingestion{JobID: "orders-17", SourceHost: "db1.example.com", SourceDatabase: "shop", Type: "cdc", FrequencyMin: 120,
		SourceOwner: "jun@example.com", IngestionOwner: "ada@example.com"}
	if c.Ingest != want {
		t.Errorf("ingestion is %+v", c.Ingest)
	}
	if c.Owner != "Mina (mina@example.com)" || c.Team != "orders" || len(c.Support) != 2 || len(c.SLA) != 3 || c.Version != "2.3.0" {
		t.Errorf("people: %q %q %v %v", c.Owner, c.Team, c.Support, c.SLA)
	}
	if !reflect.DeepEqual(c.PrimaryKey, []string{"id"}) || !reflect.DeepEqual(c.Unique, []string{"id"}) || c.Personal() != 1 {
		t.Errorf("keys: %v %v, %d personal", c.PrimaryKey, c.Unique, c.Personal())
	}
	var paths []string
	for _, f := range c.Fields {
		paths = append(paths, f.Path)
	}
	if got := strings.Join(paths, " "); got != "id paid_at customer total currency items items[] items[].sku items[].count items[].tags items[].tags[] day at gift" {
		t.Errorf("fields are %s", got)
	}
	other := load(t, "odcs/enum-32.odcs.yaml").For("state")
	if len(c.Hash) != 32 || c.Hash == other.Hash || c.Hash == set.For("order_cancelled").Hash || c.Hash != load(t, "odcs/everything.odcs.yaml").For("order_paid").Hash {
		t.Errorf("hash is %q", c.Hash)
	}
}

func TestOneTypeOneContract(t *testing.T) {
	page := read(t, "testdata/page.odcs.yaml")
	_, problems := Compile([]File{{Name: "a.yaml", Data: page}, {Name: "b.yaml", Data: page}})
	if len(problems) != 1 || !strings.Contains(problems[0].String(), "b.yaml:11: schema: the type page has a contract already, in a.yaml:11") {
		t.Errorf("problems: %v", problems)
	}
	retired := []byte(strings.Replace(string(page), "status: active", "status: retired", 1))
	set, problems := Compile([]File{{Name: "a.yaml", Data: retired}, {Name: "b.yaml", Data: page}})
	if problems != nil || set.For("page").File != "b.yaml" {
		t.Errorf("a retired contract makes room: %v", problems)
	}
}

// TestLimits: what is too large is named, quickly, whatever it is.
func TestLimits(t *testing.T) {
	head := "apiVersion: v3.1.0\nkind: DataContract\nid: x\nversion: 1.0.0\nstatus: active\nschema:\n  - name: x\n    properties:\n"
	deep := ""
	for i := range 40 {
		deep += strings.Repeat("  ", i) + "      - name: a\n" + strings.Repeat("  ", i) + "        properties:\n"
	}
	bomb := "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c < 'j'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	many := strings.Repeat("      - {name: a}\n", MaxFields+2)
	for text, want := range map[string]string{
		strings.Repeat("#", MaxFile+1):          "is larger than 1024 KiB",
		head + deep:                             "nested deeper than 32 levels",
		bomb:                                    "has more than 200000 values",
		strings.Repeat("[", 200):                "not YAML",
		strings.Repeat("- ", 200) + "x":         "is nested deeper than 100 levels",
		head + many:                             "more mistakes than these",
		"\xff":                                  "is not UTF-8",
		"":                                      "is empty",
		head + "      - {name: a}\n---\nb: 1\n": "a second document begins here",
		head + "      - {name: a, <<: {required: 1}}": "merge keys are not read",
		head + "      - {name: a, logicalType: string, logicalTypeOptions: {pattern: " + strings.Repeat("a", MaxPattern+1) + "}}": "has 1001 bytes: at most 1000",
	} {
		_, problems := Compile([]File{{Name: "x.yaml", Data: []byte(text)}})
		if !strings.Contains(problems.Error(), want) {
			t.Errorf("%.60q: %.300v, want %q", text, problems, want)
		}
	}
}

func TestLoad(t *testing.T) {
	fsys := vfs.OS()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"contracts/page.odcs.yaml": string(read(t, "testdata/page.odcs.yaml")), "contracts/.hidden.yaml": "x", "contracts/README.md": "x",
		"contracts/web/state.yaml": string(read(t, "testdata/odcs/enum-32.odcs.yaml")) +
			"    customProperties: [{property: naru.jsonSchema, value: {$ref: deep/state.json}}]\n",
		"contracts/web/deep/state.json": `{"$ref": "other.json"}`, "contracts/web/deep/other.json": `{"required": ["state"]}`,
	} {
		path := dir + "/" + name
		if err := os.MkdirAll(path[:strings.LastIndexByte(path, '/')], 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := Load(fsys, dir+"/contracts")
	if err != nil || len(files) != 4 || files[0].Name != "contracts/page.odcs.yaml" {
		t.Fatalf("%v: %v", files, err)
	}
	set, problems := Compile(files)
	if problems != nil || len(set.Contracts) != 2 {
		t.Fatal(problems)
	}
	one, err := LoadFile(fsys, dir+"/contracts/web/state.yaml")
	if err != nil || len(one) != 3 {
		t.Fatalf("%v: %v", one, err)
	}
	alone, problems := Compile(one)
	if problems != nil {
		t.Fatal(problems)
	}
	for _, c := range []*Contract{set.For("state"), alone.For("state")} {
		if v := c.Check([]byte(`{}`), &Scratch{}); len(v) != 1 || v[0].Rule != "jsonSchema.required" {
			t.Errorf("violations: %v", v)
		}
	}
	if files, err := Load(fsys, dir+"/nothing"); err != nil || files != nil {
		t.Errorf("a folder that is not there: %v, %v", files, err)
	}
	if err := os.Remove(dir + "/contracts/web/deep/other.json"); err != nil {
		t.Fatal(err)
	}
	if files, err = Load(fsys, dir+"/contracts"); err != nil {
		t.Fatal(err)
	}
	if _, problems := Compile(files); !strings.Contains(problems.Error(), "refers to contracts/web/deep/other.json, which is not there") {
		t.Errorf("problems: %v", problems)
	}
}

// TestWikipediaEdits: a contract that real data breaks. 101 edits from the US
// have no metro code, 80 change more than 10,000 characters, none does both.
func TestWikipediaEdits(t *testing.T) {
	files, err := Load(vfs.OS(), "../../examples/wikipedia/contracts")
	if err != nil {
		t.Fatal(err)
	}
	set, problems := Compile(files)
	if problems != nil {
		t.Fatal(problems)
	}
	c := set.For("edit")
	f, err := os.Open("../../examples/wikipedia/wikipedia_edits.ndjson.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	var s Scratch
	for in := bufio.NewScanner(z); in.Scan(); {
		found := c.Check(in.Bytes(), &s)
		if len(found) == 0 {
			count["good"]++
			continue
		}
		var reasons []string
		for _, v := range found {
			reasons = append(reasons, v.Rule+" "+v.Path)
		}
		slices.Sort(reasons)
		count[strings.Join(reasons, ", ")]++
	}
	want := map[string]int{"good": 39063, "jsonSchema.type $.metroCode": 101, "maximum $.delta": 80}
	if !reflect.DeepEqual(count, want) {
		t.Errorf("verdicts are %v, want %v", count, want)
	}
}

// TestCheckConcurrently: contracts are shared, scratches are not.
func TestCheckConcurrently(t *testing.T) {
	set := load(t, "check/rules.yaml", "page.odcs.yaml")
	events, _ := pageViews(50)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var s Scratch
			for _, e := range events {
				if v := set.For("page").Check(e, &s); v != nil {
					t.Error(v)
				}
				if v := set.For("r").Check(e, &s); len(v) != 2 {
					t.Error(v)
				}
			}
		})
	}
	wg.Wait()
}
