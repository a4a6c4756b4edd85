package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// item is one real record, ready to be stamped and sent.
type item struct {
	// body is a JSON object whose first byte is replaced by the stamp.
	body []byte
	// check is a number that SQL can compute from the stored row as well.
	check int64
}

// dataset is real data as JSON objects.
type dataset struct {
	typ   string // event type and table name
	check string // SQL for item.check over the table's columns
	// Turning: requests are spread over several tables, TYPE_0, TYPE_1, ..., and
	// get a field `amount` that is whole in the first half of each and a
	// fraction in the second, so that the column changes its type.
	turning bool
	items   []item
}

// sharedData is the folder of the real data sets beside the checkout.
func sharedData(t testing.TB) string {
	dir := filepath.Join(repoRoot(), "..", "shared", "data")
	if _, err := os.Stat(dir); err != nil {
		needs(t, "real data sets in %s: %v", dir, err)
	}
	return dir
}

// readShared reads one of the real data files.
func readShared(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(sharedData(t), name))
	if err != nil {
		needs(t, "real data set: %v", err)
	}
	return b
}

// wikipediaLines are the edits of one day, one JSON object a line; they are
// part of the project.
var wikipediaLines = sync.OnceValues(func() ([][]byte, error) {
	f, err := os.Open(filepath.Join(repoRoot(), "examples", "wikipedia", "wikipedia_edits.ndjson.gz"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	in := bufio.NewScanner(z)
	for in.Scan() {
		out = append(out, bytes.Clone(in.Bytes()))
	}
	return out, in.Err()
})

// wikipedia is the edits as they are; the check is the column `delta`.
func wikipedia(t testing.TB) *dataset {
	t.Helper()
	lines, err := wikipediaLines()
	if err != nil {
		t.Fatal(err)
	}
	d := &dataset{typ: "wiki_edit", check: "delta"}
	for _, line := range lines {
		var e struct{ Delta int64 }
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		d.items = append(d.items, item{line, e.Delta})
	}
	if len(d.items) != 39244 {
		t.Fatalf("wikipedia: %d edits, want 39244", len(d.items))
	}
	return d
}

// openBandit is both CSV files as JSON objects; the check is item_id*10+position.
func openBandit(t testing.TB) *dataset {
	t.Helper()
	d := &dataset{typ: "impression", check: "item_id * 10 + position", turning: true}
	for _, name := range []string{"open_bandit_random_men.csv", "open_bandit_bts_men.csv"} {
		rows, err := csv.NewReader(bytes.NewReader(readShared(t, name))).ReadAll()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, row := range rows[1:] {
			object := map[string]any{}
			for i, column := range rows[0] {
				var number json.Number
				if json.Unmarshal([]byte(row[i]), &number) == nil {
					object[column] = number
				} else {
					object[column] = row[i]
				}
			}
			body, err := json.Marshal(object)
			if err != nil {
				t.Fatal(err)
			}
			var e struct {
				Item     int64 `json:"item_id"`
				Position int64 `json:"position"`
			}
			if err := json.Unmarshal(body, &e); err != nil {
				t.Fatalf("%s: %v", body, err)
			}
			d.items = append(d.items, item{body, e.Item*10 + e.Position})
		}
	}
	if len(d.items) != 20000 {
		t.Fatalf("open bandit: %d impressions, want 20000", len(d.items))
	}
	return d
}

// apache is the access log, each line wrapped; the check is its length in
// characters.
func apache(t testing.TB) *dataset {
	t.Helper()
	d := &dataset{typ: "access", check: "length(line)"}
	for line := range strings.Lines(string(readShared(t, "apache_access.log"))) {
		line = strings.TrimRight(line, "\r\n")
		body, err := json.Marshal(map[string]string{"line": line})
		if err != nil {
			t.Fatal(err)
		}
		d.items = append(d.items, item{body, int64(len([]rune(line)))})
	}
	if len(d.items) != 10000 {
		t.Fatalf("apache: %d lines, want 10000", len(d.items))
	}
	return d
}
