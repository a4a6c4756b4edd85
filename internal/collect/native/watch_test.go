package native

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"naru/internal/collect"
	"naru/internal/obs"
	"naru/internal/stream/memory"
)

// page keeps what is written.
type page struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (p *page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.Write(b)
}

func (p *page) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.String()
}

// stuck is a terminal that takes nothing.
type stuck struct{ entered chan struct{} }

func (s stuck) Write(b []byte) (int, error) {
	select {
	case s.entered <- struct{}{}:
	default:
	}
	select {}
}

func newWatchedDoor(t *testing.T) (*Door, *collect.Watch) {
	t.Helper()
	watch := collect.NewWatch()
	e, err := collect.New(collect.DefaultConfig(), collect.Deps{Log: memory.New(), Contracts: always(compile(t, pages)), Watch: watch, Registry: obs.NewRegistry(), Logger: obs.Discard(), Now: func() time.Time { return received }})
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(e)
	if err != nil {
		t.Fatal(err)
	}
	return d, watch
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, watch := newWatchedDoor(t)
		ctx, stop := context.WithCancel(context.Background())
		out, ended := &page{}, make(chan struct{})
		go func() {
			defer close(ended)
			_ = watch.Run(ctx, out)
		}()
		do(t, d, request("", `{"type":"page","path":"a","email":"secret"}`+"\n"+`{"type":"other\u001b[2J","n":1}`+"\nnonsense"))
		synctest.Wait()
		got := out.String()
		for _, want := range []string{
			"REJECTED events page: contract: $.path is \"a\": want the pattern ^/; $.email is (personal data): want the format email  (personal data)\n",
			"accepted events other [2J  {\"type\":\"other\\u001b[2J\",\"n\":1}\n", "REJECTED events : not_json: expected true, false or null at byte",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
		if strings.ContainsAny(got, "\x1b") || strings.Contains(got, "secret") {
			t.Errorf("%q", got)
		}
		// Far more than anybody can read: some are shown, all are counted.
		do(t, d, request("", strings.Repeat(`{"a":1}`, 1000)+"\n"+strings.Repeat("bad\n", 500)))
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		more := strings.TrimPrefix(out.String(), got)
		if n := strings.Count(more, "accepted events"); n == 0 || n > 40 || !strings.Contains(more, "not shown") {
			t.Errorf("%d lines: %s", n, more)
		}
		stop()
		<-ended
	})
}

// A terminal that hangs does not hold up the door.
func TestWatchNeverHoldsUpTheDoor(t *testing.T) {
	d, watch := newWatchedDoor(t)
	terminal := stuck{make(chan struct{}, 1)}
	go func() { _ = watch.Run(context.Background(), terminal) }() // stays until the test's end: that is the point
	do(t, d, request("", `{}`))
	<-terminal.entered
	for range 50 {
		if got := do(t, d, request("", strings.Repeat(`{"a":1}`, 100))); got.Accepted != 100 {
			t.Fatal(got.body)
		}
	}
}
