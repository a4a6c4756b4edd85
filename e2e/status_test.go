package e2e

import (
	"encoding/json"
	"fmt"
	"testing"
)

// status reads /v1/status.
func (s *server) status() (map[string]any, error) {
	r, err := s.do("GET", "/v1/status", nil)
	if err != nil {
		return nil, err
	}
	if r.status != 200 {
		return nil, fmt.Errorf("status: %d %s", r.status, r.body)
	}
	var out map[string]any
	return out, json.Unmarshal(r.body, &out)
}

// sum adds up the numbers under a key, wherever in the document it stands.
func sum(document any, key string) (total float64, found bool) {
	switch d := document.(type) {
	case map[string]any:
		for k, v := range d {
			if n, ok := v.(float64); ok && k == key {
				total, found = total+n, true
				continue
			}
			n, ok := sum(v, key)
			total, found = total+n, found || ok
		}
	case []any:
		for _, v := range d {
			n, ok := sum(v, key)
			total, found = total+n, found || ok
		}
	}
	return total, found
}

// caughtUp tells whether everything acknowledged has been written: only then
// can a surplus be told from what is still on its way.
func caughtUp(s *server) (bool, string) {
	document, err := s.status()
	if err != nil {
		return false, err.Error()
	}
	left, found := sum(document, "not_yet_written")
	if !found {
		return false, "no not_yet_written in the status"
	}
	return left == 0, fmt.Sprintf("%v not yet written", left)
}

// TestEquation: acknowledged = written + rejections + duplicates + filtered +
// not yet written, for every stream, in the status.
func TestEquation(t *testing.T) {
	t.Parallel()
	s := serve(t, project(t, "pipelines:\n  commit_interval: 200ms\n"))
	s.post("?type=page", "application/x-ndjson", "{\"a\":1}\nbroken\n{\"a\":2}\n")
	s.post("?type=visit&stream=shop", "application/x-ndjson", "{\"a\":1}\n[]\n")
	s.waitCell("select count(_offset) from page", "2")
	s.waitCell("select count(_offset) from shop.visit", "1")
	s.waitCell("select count(_offset) from rejected", "2")
	eventually(t, "caught up", func() (bool, string) { return caughtUp(s) })
	document, err := s.status()
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(document)
	for _, c := range []struct {
		key  string
		want float64
	}{{"acknowledged", 5}, {"written", 3}, {"rejections", 2}, {"duplicates", 0}, {"filtered", 0}, {"not_yet_written", 0}} {
		if got, found := sum(document, c.key); !found || got != c.want {
			t.Errorf("status: the sum of %s is %v (there: %v), want %v\n%s", c.key, got, found, c.want, text)
		}
	}
}
