package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// remotes gives the suite's own schemas, which it refers to as if over HTTP.
type remotes string

func (r remotes) Load(url string) (any, error) {
	name, ok := strings.CutPrefix(url, "http://localhost:1234/")
	if !ok {
		return nil, errors.New("nothing is fetched")
	}
	text, err := os.ReadFile(filepath.Join(string(r), name))
	if err != nil {
		return nil, err
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(text))
}

// exceptions are cases of the suite that naru answers otherwise, each with the
// error that says so. They must be less than 2 % of a draft.
var exceptions = map[string]string{}

// TestJSONSchemaSuite runs the required cases of the drafts that are claimed:
// testdata/suite, and a whole checkout of the suite where NARU_JSON_SCHEMA_SUITE
// names one.
func TestJSONSchemaSuite(t *testing.T) {
	suite(t, "testdata/suite", "testdata/suite/remotes", 1000)
	if dir := os.Getenv("NARU_JSON_SCHEMA_SUITE"); dir != "" {
		suite(t, filepath.Join(dir, "tests"), filepath.Join(dir, "remotes"), 1200)
	}
}

func suite(t *testing.T, dir, others string, least int) {
	for draft, url := range map[string]string{"draft2020-12": "https://json-schema.org/draft/2020-12/schema", "draft7": "http://json-schema.org/draft-07/schema#"} {
		total, failed, excepted := 0, 0, 0
		for _, name := range scripts(t, filepath.Join(dir, draft, "*.json")) {
			var groups []struct {
				Description string
				Schema      json.RawMessage
				Tests       []struct {
					Description string
					Data        json.RawMessage
					Valid       bool
				}
			}
			if err := json.Unmarshal(read(t, name), &groups); err != nil {
				t.Fatal(err)
			}
			for _, g := range groups {
				schema, err := suiteSchema(g.Schema, url, remotes(others))
				for _, one := range g.Tests {
					total++
					id := strings.Join([]string{draft, filepath.Base(name), g.Description, one.Description}, ": ")
					if want, ok := exceptions[id]; ok {
						if excepted++; err == nil || !strings.Contains(err.Error(), want) {
							t.Errorf("%s: %v, want %q", id, err, want)
						}
						continue
					}
					tree := treeBuilder{s: &Scratch{}, text: one.Data}
					doc, ok := tree.value(0, 0)
					if err != nil || !ok || (schema.Validate(doc) == nil) != one.Valid {
						failed++
						t.Errorf("%s: %v %v, want %v", id, err, tree.limit, one.Valid)
					}
				}
			}
		}
		t.Logf("%s: %d cases, %d excepted, %d failed", draft, total, excepted, failed)
		if total < least*2/3 || 50*excepted >= total {
			t.Errorf("%s: %d cases, %d of them excepted", draft, total, excepted)
		}
	}
}

func suiteSchema(text []byte, draft string, l jsonschema.URLLoader) (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	c := newCompiler(l)
	c.DefaultDraft(drafts[strings.TrimSuffix(draft, "#")])
	if err := c.AddResource("naru:///suite.json", doc); err != nil {
		return nil, err
	}
	return c.Compile("naru:///suite.json")
}

// TestODCSExamples: files that use every section of the standard are valid, both
// by the standard's schema and by naru; NARU_ODCS_EXAMPLES may name a folder with
// the standard's own.
func TestODCSExamples(t *testing.T) {
	names := scripts(t, "testdata/odcs/*.yaml")
	if dir := os.Getenv("NARU_ODCS_EXAMPLES"); dir != "" {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && IsContract(path) {
				names = append(names, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		set, problems := Compile([]File{{Name: filepath.Base(name), Data: read(t, name)}})
		if problems != nil {
			t.Errorf("%s:\n%v", name, problems)
			continue
		}
		for _, c := range set.Contracts {
			if c.Check([]byte(`{}`), &Scratch{}); c.Hash == "" || c.root == nil {
				t.Errorf("%s: %s is not compiled", name, c.Type)
			}
		}
	}
	t.Logf("%d files", len(names))
}
