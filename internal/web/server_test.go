package web

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are in memory, so that servers run on
// the test's clock.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (p *pipes) dial(t *testing.T) net.Conn {
	t.Helper()
	client, server := net.Pipe()
	select {
	case p.conns <- server:
	case <-p.done:
		t.Fatal("the listener is closed")
	}
	return client
}

// serve runs a server on the test's clock, which must be a bubble's.
func serve(t *testing.T, cfg Config, h http.Handler) (*Server, *pipes, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	s := NewServer(cfg, h, slog.New(slog.NewTextHandler(log, nil)))
	if onQuickPath {
		s.Quick("/x")
	}
	ln := newPipes()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ln) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s, ln, log
}

// send writes while the answer is read, as the server may answer early.
func send(c net.Conn, parts ...string) {
	go func() {
		for _, p := range parts {
			if _, err := io.WriteString(c, p); err != nil {
				return
			}
		}
	}()
}

type answer struct {
	status int
	header http.Header
	body   string
	close  bool
}

func receive(t *testing.T, br *bufio.Reader) answer {
	t.Helper()
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatalf("read answer: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read answer: %v", err)
	}
	return answer{resp.StatusCode, resp.Header, string(body), resp.Close}
}

// reader is a handler that reads bodies as doors do.
func reader() http.Handler {
	br := &BodyReader{Max: 1 << 20, MaxInflate: 1 << 20, Budget: NewBudget(4 << 20)}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var b Body
		defer b.Release()
		if err := br.Read(&b, r); err != nil {
			Fail(w, err)
			return
		}
		fmt.Fprintf(w, "%d bytes", len(b.Bytes))
	})
}

const head = "POST /x HTTP/1.1\r\nHost: localhost\r\n"

func TestStalledBodyIs408(t *testing.T) {
	for _, framing := range []string{"Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n5\r\nabc"} {
		synctest.Test(t, func(t *testing.T) {
			_, ln, _ := serve(t, DefaultConfig(), reader())
			c := ln.dial(t)
			began := time.Now()
			send(c, head, framing)
			got := receive(t, bufio.NewReader(c))
			if got.status != 408 || !got.close || !strings.Contains(got.body, "after 3 bytes") {
				t.Errorf("%+v", got)
			}
			if waited := time.Since(began); waited != 30*time.Second {
				t.Errorf("answered after %v", waited)
			}
		})
	}
}

// A body that trickles is given up when it falls below the least rate, however
// short its pauses are.
func TestDrippedBodyIs408(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ln, _ := serve(t, DefaultConfig(), reader())
		c := ln.dial(t)
		began := time.Now()
		var sender sync.WaitGroup
		defer sender.Wait()
		sender.Go(func() {
			_, _ = io.WriteString(c, head+"Content-Length: 100000\r\n\r\n")
			for range 1000 {
				if _, err := c.Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		got := receive(t, bufio.NewReader(c))
		if got.status != 408 {
			t.Errorf("%+v", got)
		}
		if waited := time.Since(began); waited < 30*time.Second || waited > 32*time.Second {
			t.Errorf("answered after %v", waited)
		}
	})
}

// A slow body that keeps the rate is read to its end, far beyond one stall time.
func TestSlowBodyIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ln, _ := serve(t, DefaultConfig(), reader())
		c := ln.dial(t)
		part := strings.Repeat("x", 100<<10)
		var sender sync.WaitGroup
		defer sender.Wait()
		sender.Go(func() {
			_, _ = io.WriteString(c, head+"Content-Length: 1024000\r\n\r\n")
			for range 10 {
				if _, err := io.WriteString(c, part); err != nil {
					return
				}
				time.Sleep(20 * time.Second)
			}
		})
		if got := receive(t, bufio.NewReader(c)); got.status != 200 || got.body != "1024000 bytes" {
			t.Errorf("%+v", got)
		}
	})
}

// Once the body is there, no deadline is left that would cancel the request
// while its handler works.
func TestBodyLeavesNoDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read := reader()
		_, ln, _ := serve(t, DefaultConfig(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			read.ServeHTTP(w, r)
			select {
			case <-r.Context().Done():
				t.Error("the request was cancelled")
			case <-time.After(time.Hour):
			}
		}))
		c := ln.dial(t)
		br := bufio.NewReader(c)
		for range 2 { // the connection stays usable
			send(c, head, "Content-Length: 3\r\n\r\nabc")
			if got := receive(t, br); got.status != 200 || got.body != "3 bytes" {
				t.Errorf("%+v", got)
			}
		}
	})
}

// A handler that does not read a body does not make the server wait for it.
func TestUnreadStalledBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ln, _ := serve(t, DefaultConfig(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			Problem(w, 403, "no", "not for you")
		}))
		c := ln.dial(t)
		send(c, head, "Content-Length: 1000\r\n\r\nabc")
		if got := receive(t, bufio.NewReader(c)); got.status != 403 {
			t.Errorf("%+v", got)
		}
		synctest.Wait()
		if s.InFlight() != 0 {
			t.Error("still in flight")
		}
	})
}

// A body that nobody wants is not asked for.
func TestRefusedBodyIsNotContinued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ln, _ := serve(t, DefaultConfig(), reader())
		for _, c := range []struct {
			length string
			status int
		}{{"2000000", 413}, {"3", 100}} {
			conn := ln.dial(t)
			send(conn, head, "Expect: 100-continue\r\nContent-Length: "+c.length+"\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || resp.StatusCode != c.status {
				t.Errorf("length %s: %v, %v", c.length, resp, err)
			}
			conn.Close()
		}
	})
}

func TestClientThatDoesNotReadIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		began := time.Now()
		_, ln, _ := serve(t, DefaultConfig(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var err error
			for err == nil {
				_, err = w.Write(make([]byte, 32<<10))
			}
			ended <- err
		}))
		c := ln.dial(t)
		send(c, "GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if err := <-ended; err == nil {
			t.Error("no error")
		}
		if waited := time.Since(began); waited < 30*time.Second || waited > time.Minute {
			t.Errorf("cut after %v", waited)
		}
		c.Close()
	})
}

// A handler may be stricter than the stall timeout, also for a moment only.
func TestHandlerChoosesItsWriteDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waited := make(chan time.Duration, 1)
		_, ln, _ := serve(t, DefaultConfig(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctl := http.NewResponseController(w)
			if err := ctl.SetWriteDeadline(time.Now().Add(3 * time.Second)); err != nil {
				t.Error(err)
			}
			if r.URL.Path == "/once" {
				_, _ = io.WriteString(w, "ok")
				if err := errors.Join(ctl.Flush(), ctl.SetWriteDeadline(time.Time{})); err != nil {
					t.Error(err)
				}
				return
			}
			began := time.Now()
			var err error
			for err == nil {
				_, err = w.Write(make([]byte, 32<<10))
			}
			waited <- time.Since(began)
		}))
		c := ln.dial(t)
		br := bufio.NewReader(c)
		send(c, "GET /once HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if got := receive(t, br); got.body != "ok" {
			t.Errorf("%+v", got)
		}
		time.Sleep(10 * time.Second) // beyond what the handler chose
		send(c, "GET /once HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if got := receive(t, br); got.body != "ok" {
			t.Errorf("%+v", got)
		}
		send(c, "GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if got := <-waited; got != 3*time.Second {
			t.Errorf("cut after %v", got)
		}
		c.Close()
	})
}

func TestSlowHeadersAreCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ln, _ := serve(t, DefaultConfig(), reader())
		c := ln.dial(t)
		began := time.Now()
		send(c, "POST /x HTTP/1.1\r\nHost: local")
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%v", err)
		}
		if waited := time.Since(began); waited != 10*time.Second {
			t.Errorf("cut after %v", waited)
		}
	})
}

func TestLongHeadersAre431(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ln, _ := serve(t, DefaultConfig(), reader())
		for size, status := range map[int]int{31 << 10: 200, 33 << 10: 431} {
			c := ln.dial(t)
			send(c, head, "Content-Length: 0\r\nX-Long: ", strings.Repeat("x", size), "\r\n\r\n")
			if got := receive(t, bufio.NewReader(c)); got.status != status {
				t.Errorf("%d bytes: %+v", size, got)
			}
			c.Close()
		}
	})
}

func TestConnectionsBeyondTheLimitWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.Connections = 2
		_, ln, _ := serve(t, cfg, reader())
		a, b := ln.dial(t), ln.dial(t)
		third := make(chan net.Conn)
		go func() { third <- ln.dial(t) }()
		synctest.Wait()
		select {
		case <-third:
			t.Fatal("a third connection was accepted")
		default:
		}
		a.Close() // the server sees it and makes room
		c := <-third
		send(c, head, "Content-Length: 1\r\n\r\nx")
		if got := receive(t, bufio.NewReader(c)); got.status != 200 {
			t.Errorf("%+v", got)
		}
		b.Close()
		c.Close()
	})
}

func TestDrainAnswersWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s, ln, _ := serve(t, DefaultConfig(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-release
			_, _ = io.WriteString(w, "done")
		}))
		first, second := ln.dial(t), ln.dial(t)
		send(first, "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
		synctest.Wait()
		drained := make(chan error, 1)
		go func() { drained <- s.Drain(context.Background()) }()
		synctest.Wait()

		send(second, head, "Content-Length: 1\r\n\r\nx")
		got := receive(t, bufio.NewReader(second))
		if got.status != 503 || !got.close || got.header.Get("Retry-After") != "2" || got.header.Get("Content-Type") != ProblemType {
			t.Errorf("while draining: %+v", got)
		}
		select {
		case err := <-drained:
			t.Fatalf("drained with a request in flight: %v", err)
		default:
		}
		close(release)
		if got := receive(t, bufio.NewReader(first)); got.status != 200 || got.body != "done" {
			t.Errorf("in flight: %+v", got)
		}
		if err := <-drained; err != nil {
			t.Error(err)
		}
	})
}

func TestDrainGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ln, _ := serve(t, DefaultConfig(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}))
		c := ln.dial(t)
		send(c, "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		synctest.Wait()
		if s.InFlight() != 0 {
			t.Error("still in flight")
		}
	})
}

func TestPanicIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ln, log := serve(t, DefaultConfig(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/early":
				panic("oops")
			case "/late":
				w.WriteHeader(200)
				_, _ = w.Write(make([]byte, 10000))
				panic("oops")
			}
			panic(http.ErrAbortHandler)
		}))
		c := ln.dial(t)
		send(c, "GET /early HTTP/1.1\r\nHost: localhost\r\n\r\n")
		got := receive(t, bufio.NewReader(c))
		var problem struct{ Status int }
		if err := json.Unmarshal([]byte(got.body), &problem); err != nil || got.status != 500 || problem.Status != 500 {
			t.Errorf("%+v, %v", got, err)
		}
		synctest.Wait()
		if !strings.Contains(log.String(), "oops") || !strings.Contains(log.String(), "path=/early") {
			t.Errorf("logged %q", log)
		}
		for _, path := range []string{"/late", "/abort"} {
			c := ln.dial(t)
			send(c, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
			}
			if err == nil {
				t.Errorf("%s: a whole answer", path)
			}
		}
	})
}
