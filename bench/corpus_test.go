package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"testing"
	"time"
)

// The own corpus has the shape that the rows' figures are about.
func TestGenerate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.ndjson")
	const n = 2000
	if err := generate(path, n); err != nil {
		t.Fatal(err)
	}
	all, err := bodies(path, n, 1)
	if err != nil {
		t.Fatal(err)
	}
	size, last := 0, time.Time{}
	for _, body := range all {
		size += len(body)
		var e struct {
			ID      string    `json:"event_id"`
			Type    string    `json:"type"`
			At      time.Time `json:"ts"`
			Dwell   int64     `json:"dur_ms"`
			Context struct {
				Browser string
				Width   int
			}
		}
		if err := json.Unmarshal(body, &e); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if len(e.ID) != 16 || e.Type != "page" || e.At.Before(last) || e.Dwell < 0 || e.Context.Browser == "" || e.Context.Width == 0 {
			t.Fatalf("odd event: %s", body)
		}
		last = e.At
	}
	if mean := size / n; mean < 250 || mean > 280 {
		t.Errorf("events of %d bytes on average, want some 265", mean)
	}
	if _, err := bodies(path, n+1, 500); err == nil {
		t.Error("a corpus that is too short was taken")
	}
	cut, err := bodies(path, n, 600)
	if err != nil || len(cut) != 4 {
		t.Errorf("%d bodies of 600, %v; want 4", len(cut), err)
	}
}

func TestRefusesMemory(t *testing.T) {
	if name, err := fileSystem("/dev/shm"); err == nil && name == "tmpfs" {
		t.Error("tmpfs was taken")
	}
}

// A body that is sent again has ids that no other event has had.
func TestIDs(t *testing.T) {
	event := func(id string) string { return `{"event_id":"` + id + `","type":"page"}` }
	bodies := [][]byte{[]byte(event("0123456789abcdef") + "\n" + event("fedcba9876543210")), []byte(event("00aa00aa00aa00aa"))}
	x := newIDs(bodies)
	seen := map[string]bool{}
	for range 40 {
		for i, b := range bodies {
			before := len(b)
			x.renew(i, b)
			if len(b) != before || !json.Valid(bytes.Split(b, []byte("\n"))[0]) {
				t.Fatalf("body became %s", b)
			}
			for _, at := range x.at[i] {
				id := string(b[at : at+16])
				if seen[id] {
					t.Fatalf("%s comes twice", id)
				}
				seen[id] = true
			}
		}
	}
	if len(seen) != 120 {
		t.Errorf("%d ids, not 120", len(seen))
	}
}
