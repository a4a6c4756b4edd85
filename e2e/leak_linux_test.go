package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
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

// TestNoLeaks: after many requests of all sorts, broken off ones among them,
// the server has hardly more goroutines and descriptors than before.
func TestNoLeaks(t *testing.T) {
	t.Parallel()
	s := serve(t, project(t, "pipelines:\n  commit_interval: 100ms\nlog:\n  segment: 64KiB\n"))
	round := func(n int) {
		for i := range n {
			s.post("?type=leak", "application/x-ndjson", strings.Repeat(`{"a":1,"text":"`+strings.Repeat("x", 100)+"\"}\n", 20))
			if _, err := s.trySQL("select count(*) from range(10)"); err != nil {
				t.Fatal(err)
			}
			_, _ = s.trySQL("select nonsense")
			s.call("GET", "/v1/status", nil)
			s.call("POST", "/v1/events", []byte("[broken"), jsonType)
			switch i % 4 {
			case 0: // a query whose client leaves
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
				req, err := http.NewRequestWithContext(ctx, "POST", s.url+"/v1/sql", strings.NewReader("select count(*) from range(100000000000) t(i) where i % 7 = 3"))
				if err != nil {
					t.Fatal(err)
				}
				if resp, err := http.DefaultClient.Do(req); err == nil {
					resp.Body.Close()
				}
				cancel()
			case 1: // a body that is never finished
				c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.WriteString(c, "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
				c.Close()
			}
		}
	}
	round(20)
	s.waitCell("select count(*) from leak", "400")
	goroutines, files := s.metric("go_goroutines"), descriptors(t, s.pid())
	round(150)
	s.waitCell("select count(*) from leak", "3400")
	const slack = 15
	eventually(t, "as many goroutines and descriptors as before", func() (bool, string) {
		g, f := s.metric("go_goroutines"), descriptors(t, s.pid())
		return g <= goroutines+slack && f <= files+slack, fmt.Sprintf("%v goroutines, were %v; %d descriptors, were %d", g, goroutines, f, files)
	})
}
