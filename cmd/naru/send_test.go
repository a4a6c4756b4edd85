package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"naru/internal/client/upload"
	"naru/internal/web"
)

// fakeServer is a door that accepts lines with a brace and keeps them by id.
type fakeServer struct {
	url string

	mu struct {
		sync.Mutex
		folder string
		ids    []string
		lines  []string
		calls  int
		fail   func(call int, w http.ResponseWriter) bool // answers itself
	}
}

func newFakeServer(t *testing.T) *fakeServer {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	f := &fakeServer{}
	f.mu.folder = "folder-1"
	f.url = remote(t, f.serve)
	return f
}

func (f *fakeServer) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.URL.Path == "/v1/status" {
		fmt.Fprintf(w, `{"folder":{"id":%q}}`, f.mu.folder)
		return
	}
	f.mu.calls++
	if f.mu.fail != nil && f.mu.fail(f.mu.calls, w) {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	q := r.URL.Query()
	accepted, rejected := 0, []map[string]any{}
	for i, line := range strings.Split(strings.TrimSuffix(string(body), "\n"), "\n") {
		if !strings.HasPrefix(line, "{") {
			rejected = append(rejected, map[string]any{"index": i, "reason": "not_object", "detail": "an event is an object"})
			continue
		}
		var first int
		_, _ = fmt.Sscan(q.Get("id_first"), &first)
		f.mu.ids = append(f.mu.ids, q.Get("type")+" "+q.Get("id_prefix")+fmt.Sprint(first+i))
		f.mu.lines = append(f.mu.lines, line)
		accepted++
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"accepted": accepted, "rejected": rejected, "positions": []int{}})
}

// stored gives what the door has, and forgets it.
func (f *fakeServer) stored() (ids, lines []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ids, lines = f.mu.ids, f.mu.lines
	f.mu.ids, f.mu.lines, f.mu.calls = nil, nil, 0
	return ids, lines
}

func (f *fakeServer) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSendOnceOnly(t *testing.T) {
	f := newFakeServer(t)
	in := file(t, "edits.csv", "id,zip\n1,01\n2,02\n3,03\n")
	code, out, errs := call(t, "", nil, "send", "--url", f.url, "--type", "t", in)
	if code != 0 || errs != "" || !regexp.MustCompile(`^sent 3 events in \S+: 3 accepted, 0 rejected\n$`).MatchString(out) {
		t.Fatalf("%d %q %q", code, out, errs)
	}
	ids, lines := f.stored()
	if strings.Join(lines, " ") != `{"id":1,"zip":"01"} {"id":2,"zip":"02"} {"id":3,"zip":"03"}` || !regexp.MustCompile(`^t edits\.csv:22:[0-9a-f]{16}:0$`).MatchString(ids[0]) {
		t.Errorf("%q %q", ids, lines)
	}
	code, out, _ = call(t, "", nil, "send", "--url", f.url, "--type", "t", in)
	if again, _ := f.stored(); code != 0 || !strings.HasPrefix(out, "nothing to do: all 3 records of "+in) || len(again) != 0 {
		t.Errorf("a second time: %d %s, %d events", code, out, len(again))
	}
	code, out, _ = call(t, "", nil, "send", "--url", f.url, "--type", "t", "--json", in)
	var got sent
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || !got.Nothing || !got.Done || got.Skipped != 3 {
		t.Errorf("--json: %d %s %v", code, out, err)
	}
	// The same records have the same ids when they are sent again on purpose,
	for what, args := range map[string][]string{"--restart": {"--restart"}, "another state": {"--state", filepath.Join(t.TempDir(), "s")}} {
		if code, _, errs := call(t, "", nil, append([]string{"send", "--url", f.url, "--type", "t", in}, args...)...); code != 0 {
			t.Errorf("%s: %d %s", what, code, errs)
		}
		if again, _ := f.stored(); strings.Join(again, " ") != strings.Join(ids, " ") {
			t.Errorf("%s: %q, want %q", what, again, ids)
		}
	}
	// and another folder behind the same address has not had them,
	f.set(func() { f.mu.folder = "folder-2" })
	call(t, "", nil, "send", "--url", f.url, "--type", "t", in)
	if again, _ := f.stored(); len(again) != 3 {
		t.Errorf("another folder: %d events", len(again))
	}
	// nor has another type.
	call(t, "", nil, "send", "--url", f.url, "--type", "u", in)
	if again, _ := f.stored(); len(again) != 3 {
		t.Errorf("another type: %d events", len(again))
	}
	// A changed file is another file.
	if err := os.WriteFile(in, []byte("id,zip\n1,01\n2,02\n3,04\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(in, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	call(t, "", nil, "send", "--url", f.url, "--type", "t", in)
	if again, _ := f.stored(); len(again) != 3 || again[0] == ids[0] {
		t.Errorf("a changed file: %q", again)
	}
}

func TestSendGoesOn(t *testing.T) {
	f := newFakeServer(t)
	var text strings.Builder
	for i := range 25 {
		fmt.Fprintf(&text, "{\"n\":%d}\n", i)
	}
	in := file(t, "x.ndjson", text.String())
	f.set(func() {
		f.mu.fail = func(call int, w http.ResponseWriter) bool {
			if call == 3 {
				web.Problem(w, 401, "no key", "give one")
			}
			return call == 3
		}
	})
	args := []string{"send", "--url", f.url, "--batch-events", "10", in}
	code, out, errs := call(t, "", nil, args...)
	if code != 1 || !strings.HasPrefix(out, "sent 20 events") || errs != "naru: send "+in+": send records 21-25: no key (401): give one\n" {
		t.Fatalf("%d %q %q", code, out, errs)
	}
	code, out, errs = call(t, "", nil, args...)
	if code != 0 || !strings.HasPrefix(out, "sent 5 events") || errs != "going on behind 20 records that were acknowledged earlier\n" {
		t.Errorf("%d %q %q", code, out, errs)
	}
	ids, lines := f.stored()
	if len(ids) != 25 || lines[24] != `{"n":24}` || !strings.HasSuffix(ids[24], ":24") || !strings.HasSuffix(ids[20], ":20") {
		t.Errorf("%q %q", ids, lines)
	}
}

func TestSendTriesAgain(t *testing.T) {
	f := newFakeServer(t)
	f.set(func() {
		f.mu.fail = func(call int, w http.ResponseWriter) bool {
			switch call {
			case 1:
				web.Problem(w, 429, "busy", "wait")
			case 2:
				panic(http.ErrAbortHandler) // no answer at all
			}
			return call == 1
		}
	})
	in := file(t, "x.ndjson", "{}\n")
	code, out, errs := call(t, "", nil, "send", "--url", f.url, in)
	if code != 0 || !strings.HasPrefix(out, "sent 1 events") || strings.Count(errs, "waiting ") != 2 || !strings.Contains(errs, "busy (429): wait") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	code, _, errs = call(t, "", nil, "send", "--url", "http://127.0.0.1:1", "--retry-for", "0s", in)
	if code != 1 || !strings.Contains(errs, "gave up after 0s: ask http://127.0.0.1:1") || !strings.Contains(errs, "hint: is the server running?") {
		t.Errorf("nobody there: %d %q", code, errs)
	}
}

func TestSendReportsRefusals(t *testing.T) {
	f := newFakeServer(t)
	in := file(t, "x.ndjson", "{}\n"+strings.Repeat("nope\n", 12))
	code, out, errs := call(t, "", nil, "send", "--url", f.url, in)
	if code != 0 || !strings.Contains(out, "1 accepted, 12 rejected") {
		t.Errorf("%d %q", code, out)
	}
	if !strings.HasPrefix(errs, "rejected: record 2, line 2: not_object: an event is an object\n") || strings.Count(errs, "\n") != 11 || !strings.HasSuffix(errs, "rejected: 2 more; all are in the stream and table rejected\n") {
		t.Errorf("%s", errs)
	}
	if code, _, errs := call(t, "", nil, "send", "--url", f.url, "--strict", "--restart", in); code != 1 || !strings.Contains(errs, "12 events refused") {
		t.Errorf("--strict: %d %s", code, errs)
	}
	code, out, _ = call(t, "", nil, "send", "--url", f.url, "--json", "--restart", in)
	var got sent
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || !got.Done || got.Nothing || got.Rejected != 12 || len(got.Refusals) != 10 || got.Refusals[0].Line != 2 {
		t.Errorf("--json: %d %s %v", code, out, err)
	}
}

func TestSendStandardInput(t *testing.T) {
	f := newFakeServer(t)
	for range 2 {
		if code, out, errs := call(t, `[{"a":1}, {"a":2}]`, nil, "send", "--url", f.url, "-"); code != 0 || !strings.HasPrefix(out, "sent 2 events") {
			t.Errorf("%d %q %q", code, out, errs)
		}
	}
	if ids, _ := f.stored(); len(ids) != 4 || ids[0] == ids[2] {
		t.Errorf("two runs of standard input: %q", ids)
	}
	call(t, "{}\n", nil, "send", "--url", f.url, "--id-prefix", "mine-", "-")
	if ids, _ := f.stored(); strings.Join(ids, "") != " mine-0" {
		t.Errorf("--id-prefix: %q", ids)
	}
}

func TestSendWhatIsNoFile(t *testing.T) {
	f := newFakeServer(t)
	dir := t.TempDir()
	if code, _, errs := call(t, "", nil, "send", "--url", f.url, dir); code != 1 || !strings.Contains(errs, "not a regular file") || !strings.Contains(errs, "hint: send what a pipe gives with -") {
		t.Errorf("a folder: %d %s", code, errs)
	}
	if code, _, errs := call(t, "", nil, "send", "--url", f.url, filepath.Join(dir, "x")); code != 1 || !strings.Contains(errs, "no such file") {
		t.Errorf("nothing: %d %s", code, errs)
	}
}

func TestProgressLine(t *testing.T) {
	p := newProgress(&cli{}, 1000, func() int64 { return 250 })
	got := p.line(upload.Result{Skipped: 10, Records: 40, Accepted: 30, Rejected: 10}, 2*time.Second)
	if got != "[#######-----------------------]  25%  250B  50 events  20/s" {
		t.Errorf("%q", got)
	}
	p.size = 0
	if got := p.line(upload.Result{Records: 4, Accepted: 4}, time.Second); got != "250B  4 events  4/s" {
		t.Errorf("without a size: %q", got)
	}
	if got := (&progress{size: 10, consumed: func() int64 { return 99 }}).line(upload.Result{}, 0); !strings.Contains(got, "] 100%") {
		t.Errorf("a file that has grown: %q", got)
	}
}
