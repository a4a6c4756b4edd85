package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
)

// TestEverythingAtOnce: senders, queries, followers, status and metrics beside
// each other, with commits, rolls and retention under them, over a stop and two
// kills. With NARU_BIN naming a binary that was built with -race (make test-race)
// every data race in it fails the test: see launch.
func TestEverythingAtOnce(t *testing.T) {
	t.Parallel()
	dir := project(t, "log:\n  segment: 1MiB\n  retain_bytes: 4MiB\n  recycle: 2MiB\nlake:\n  expire_every: 3\n  keep_snapshots: 2\n  gc_delay: 0s\npipelines:\n  commit_interval: 100ms\n")
	l := newLedger(61)
	for round := range 3 {
		s := serve(t, dir)
		ld := l.start(s.url, 4, small(wikipedia(t)))
		ctx, stop := context.WithCancel(context.Background())
		var others sync.WaitGroup
		again := func(what func()) {
			others.Go(func() {
				for ctx.Err() == nil {
					what()
				}
			})
		}
		for _, query := range []string{
			"select count(*), max(_offset) from wiki_edit", "select channel, count(*) from wiki_edit group by 1 order by 2 desc limit 5", "select nonsense",
		} {
			again(func() { _, _ = s.trySQL(query) })
		}
		for _, path := range []string{"/v1/status", "/metrics", "/readyz", "/", "/v1/streams/events/events?last=5"} {
			again(func() { _, _ = s.do("GET", path, nil) })
		}
		again(func() { // a follower that leaves after a while
			req, err := http.NewRequestWithContext(ctx, "GET", s.url+"/v1/streams/events/events?last=1&follow=true", nil)
			if err != nil {
				t.Error(err)
				return
			}
			if resp, err := http.DefaultClient.Do(req); err == nil {
				_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
				resp.Body.Close()
			}
		})
		wanted := l.acked() + 4000
		eventually(t, "load", func() (bool, string) { return l.acked() >= wanted, fmt.Sprint(l.acked()) })
		if round == 1 {
			s.kill()
		} else if code := s.stop(); code != 0 {
			t.Errorf("SIGTERM: exit %d\n%s", code, s.logs.last(4<<10))
		}
		stop()
		others.Wait()
		for _, err := range ld.finish() {
			t.Error(err)
		}
		l.cut(round + 1)
	}
	s := serve(t, dir)
	prove(t, s, l)
	if code := s.stop(); code != 0 {
		t.Errorf("SIGTERM: exit %d", code)
	}
	deep(t, dir)
}
