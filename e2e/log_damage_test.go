package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// flipByte changes one byte of a file.
func flipByte(t *testing.T, path string, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x04
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// TestLogDamage: a byte of an older segment and one of the last are flipped while
// nobody looks. serve refuses, fsck names both, the repair loses just these two
// frames and says so, and everything else is there.
func TestLogDamage(t *testing.T) {
	t.Parallel()
	dir := project(t, "log:\n  segment: 64KiB\npipelines:\n  commit_interval: 50ms\n")
	s := serve(t, dir)
	const n = 400
	for i := range n {
		s.post("?type=d", "application/json", fmt.Sprintf(`{"n":%d,"pad":%q}`, i, strings.Repeat("x", 600)))
	}
	s.waitCell("select count(_offset) from d", fmt.Sprint(n))
	if r := naru(t, "", "log", "fsck", dir); r.code == 0 || !strings.Contains(r.stderr, "stop it first") {
		t.Fatalf("fsck beside a server: %+v", r)
	}
	if code := s.stop(); code != 0 {
		t.Fatal(code)
	}
	must(t, "", "log", "fsck", dir)
	segs := segments(t, dir)
	if len(segs) < 4 {
		t.Fatalf("%d segments", len(segs))
	}
	flipByte(t, segs[1], 20_000)
	flipByte(t, segs[len(segs)-1], 3_000)
	if _, err := tryServe(t, dir); err == nil || !strings.Contains(err.Error(), filepath.Base(segs[len(segs)-1])) {
		t.Fatalf("serve on a damaged log: %v", err)
	}
	r := naru(t, "", "log", "fsck", dir)
	if r.code != 1 || !strings.Contains(r.stdout, segs[1]+" at byte ") || !strings.Contains(r.stdout, segs[len(segs)-1]+" at byte ") || !strings.Contains(r.stderr, "--repair") {
		t.Fatalf("fsck: %+v", r)
	}
	var repaired struct {
		Damage []any
		Cut    bool
		Lost   []struct {
			Stream     string
			First, End int64
		}
	}
	if err := json.Unmarshal([]byte(must(t, "", "log", "fsck", dir, "--repair", "--json")), &repaired); err != nil {
		t.Fatal(err)
	}
	lost := int64(0)
	for _, l := range repaired.Lost {
		lost += l.End - l.First
	}
	if len(repaired.Damage) != 2 || !repaired.Cut || lost < 1 || lost > 2 {
		t.Fatalf("repair: %+v", repaired)
	}
	must(t, "", "log", "fsck", dir)
	if got := int64(strings.Count(must(t, "", "log", "cat", "events", dir), "\n")); got != n-lost {
		t.Fatalf("%d events are left of %d, %d are said to be lost", got, n, lost)
	}
	s = serve(t, dir)
	s.post("?type=d", "application/json", `{"n":1000}`)
	s.waitCell("select count(_offset) from d", fmt.Sprint(n+1)) // the table had them all
	if code := s.stop(); code != 0 {
		t.Fatal(code)
	}
}
