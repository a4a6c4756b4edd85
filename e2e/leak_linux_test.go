package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// descriptors counts the open files of a process.
func descriptors(t *testing.T, pid int) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestNoLeaks: after many requests of all sorts, broken off ones among them, and
// many commits that failed, the server has hardly more goroutines, descriptors
// and memory than before.
func TestNoLeaks(t *testing.T) {
	t.Parallel()
	dir := project(t, "pipelines:\n  commit_interval: 100ms\n  backoff_max: 100ms\nlog:\n  segment: 64KiB\n")
	s := serve(t, dir)
	tails := func(n int) { // followers that leave
		for range n {
			ctx, cancel := context.WithCancel(context.Background())
			req, err := http.NewRequestWithContext(ctx, "GET", s.url+"/v1/streams/events/events?last=2&follow=true", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil || resp.StatusCode != 200 {
				t.Fatalf("tail: %v", err)
			}
			if _, err := resp.Body.Read(make([]byte, 10)); err != nil {
				t.Fatalf("tail: %v", err)
			}
			cancel()
			resp.Body.Close()
		}
	}
	round := func(n int) {
		for i := range n {
			s.post("?type=leak", "application/x-ndjson", strings.Repeat(`{"a":1,"text":"`+strings.Repeat("x", 100)+"\"}\n", 20))
			if _, err := s.trySQL("select count(*) from range(10)"); err != nil {
				t.Fatal(err)
			}
			_, _ = s.trySQL("select nonsense")
			s.call("GET", "/v1/status", nil)
			s.call("POST", "/v1/events", []byte("[broken"), jsonType)
			// A body that is never finished.
			c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
			c.Close()
			if i%4 == 0 { // a query whose client leaves
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
				req, err := http.NewRequestWithContext(ctx, "POST", s.url+"/v1/sql", strings.NewReader("select count(*) from range(100000000000) t(i) where i % 7 = 3"))
				if err != nil {
					t.Fatal(err)
				}
				if resp, err := http.DefaultClient.Do(req); err == nil {
					resp.Body.Close()
				}
				cancel()
			}
		}
	}
	round(20)
	s.waitCell("select count(_offset) from leak", "400")
	tails(20)
	failCommits(t, s, "leak", 5)
	s.waitCell("select count(_offset) from leak", "401")
	goroutines, files, memory := s.metric("go_goroutines"), descriptors(t, s.pid()), rssAnon(t, s.pid())
	round(200)
	s.waitCell("select count(_offset) from leak", "4401")
	tails(200)
	failCommits(t, s, "leak", 50)
	s.waitCell("select count(_offset) from leak", "4402")
	const slack, slackMemory = 15, 96 << 20 // of memory: buffers that are kept to be used again
	eventually(t, "as many goroutines and descriptors as before", func() (bool, string) {
		g, f, m := s.metric("go_goroutines"), descriptors(t, s.pid()), rssAnon(t, s.pid())
		return g <= goroutines+slack && f <= files+slack && m <= memory+slackMemory, fmt.Sprintf("%v goroutines, were %v; %d descriptors, were %d; %d MiB, were %d",
			g, goroutines, f, files, m>>20, memory>>20)
	})
	t.Logf("%v goroutines, were %v; %d descriptors, were %d; %d MiB of anonymous memory, were %d", s.metric("go_goroutines"), goroutines,
		descriptors(t, s.pid()), files, rssAnon(t, s.pid())>>20, memory>>20)
	balanced(t, s, 4402)
	if code := s.stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d", code)
	}
	deep(t, dir)
}

// failCommits sends an event whose commit fails n times, because a file stands in
// the place of the table's data folder, and then lets it succeed.
func failCommits(t *testing.T, s *server, table string, n int) {
	t.Helper()
	data := ""
	for _, x := range readCatalog(t, s.dir) {
		if strings.HasSuffix(x.name, "."+table) {
			data = filepath.Join(x.location, "data")
		}
	}
	if data == "" {
		t.Fatalf("no table %s", table)
	}
	if err := os.Rename(data, data+"-away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(data, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	failed := func() int { return strings.Count(s.logs.String(), "pipeline stopped; trying again") }
	before := failed()
	s.post("?type="+table, "application/json", `{"a":1}`)
	eventually(t, "commits fail", func() (bool, string) { return failed()-before >= n, fmt.Sprint(failed() - before) })
	if err := os.Remove(data); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(data+"-away", data); err != nil {
		t.Fatal(err)
	}
}
