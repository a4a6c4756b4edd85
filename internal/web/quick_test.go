package web

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
)

// onQuickPath makes serve take plain POSTs to /x on the quick path.
var onQuickPath bool

// TestServerOnTheQuickPath: what holds for net/http holds there, too.
func TestServerOnTheQuickPath(t *testing.T) {
	onQuickPath = true
	defer func() { onQuickPath = false }()
	for name, test := range map[string]func(*testing.T){
		"stalled body":   TestStalledBodyIs408,
		"dripped body":   TestDrippedBodyIs408,
		"slow body":      TestSlowBodyIsRead,
		"no deadline":    TestBodyLeavesNoDeadline,
		"unread body":    TestUnreadStalledBody,
		"not continued":  TestRefusedBodyIsNotContinued,
		"slow headers":   TestSlowHeadersAreCut,
		"long headers":   TestLongHeadersAre431,
		"connections":    TestConnectionsBeyondTheLimitWait,
		"drain":          TestDrainAnswersWhatIsInFlight,
		"drain gives up": TestDrainGivesUp,
		"panic":          TestPanicIsAnswered,
		"client is cut":  TestClientThatDoesNotReadIsCut,
		"write deadline": TestHandlerChoosesItsWriteDeadline,
	} {
		t.Run(name, test)
	}
}

// echo answers with all that a handler sees of a request.
func echo() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		h := r.Header.Clone()
		w.Header().Set("X-Two", "a")
		w.Header().Add("X-Two", "b")
		w.Header().Set("Content-Type", "text/plain")
		if r.URL.Query().Get("status") != "" {
			w.WriteHeader(http.StatusTeapot)
		}
		fmt.Fprintf(w, "%s %s %s %q %v %d %q %v", r.Method, r.URL, r.Proto, r.Host, h, r.ContentLength, body, err)
	})
}

// talk sends requests over one connection and gives the answers, without dates.
func talk(t *testing.T, quick bool, wire string, parts int) (answers []answer) {
	onQuickPath = quick
	defer func() { onQuickPath = false }()
	synctest.Test(t, func(t *testing.T) {
		_, ln, _ := serve(t, DefaultConfig(), echo())
		c := ln.dial(t)
		defer c.Close()
		var cut []string
		for i := range parts {
			cut = append(cut, wire[i*len(wire)/parts:(i+1)*len(wire)/parts])
		}
		send(c, cut...)
		br := bufio.NewReader(c)
		for {
			resp, err := http.ReadResponse(br, nil)
			if err != nil {
				return
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				return
			}
			resp.Header.Del("Date")
			resp.Header.Del("Content-Length") // net/http sends long answers in chunks
			answers = append(answers, answer{resp.StatusCode, resp.Header, string(body), resp.Close})
			if resp.Close {
				return
			}
			if strings.Count(wire, "POST ")+strings.Count(wire, "GET ") == len(answers) {
				return
			}
		}
	})
	return answers
}

// TestQuickPathAnswersAlike: several requests of all kinds over one connection are
// answered as net/http answers them, however they are cut into packets.
func TestQuickPathAnswersAlike(t *testing.T) {
	plain := "POST /x?a=b%20c HTTP/1.1\r\nHost: localhost:8080\r\nContent-Type: application/json\r\nx-lower: v \r\nContent-Length: 5\r\n\r\nhello"
	for name, wire := range map[string]string{
		"one":            plain,
		"three":          plain + plain + plain,
		"empty body":     "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n" + plain,
		"status":         "POST /x?status=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx" + plain,
		"large body":     "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("0123456789", 10000) + plain,
		"chunked":        plain + "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + plain,
		"get":            plain + "GET /x HTTP/1.1\r\nHost: h\r\n\r\n" + plain,
		"another path":   plain + "POST /y HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab" + plain,
		"close":          plain + "POST /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab",
		"keep-alive":     "POST /x HTTP/1.1\r\nHost: h\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nab" + plain,
		"no length":      plain + "POST /x HTTP/1.1\r\nHost: h\r\n\r\n",
		"two lengths":    plain + "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
		"same length":    plain + "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab" + plain,
		"both":           plain + "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"no host":        plain + "POST /x HTTP/1.1\r\nContent-Length: 2\r\n\r\nab",
		"two hosts":      plain + "POST /x HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 2\r\n\r\nab",
		"folded":         plain + "POST /x HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\nab",
		"bare lines":     plain + "POST /x HTTP/1.1\nHost: a\nContent-Length: 2\n\nab",
		"space in name":  plain + "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length : 2\r\n\r\nab",
		"signed":         plain + "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\nab",
		"old":            plain + "POST /x HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
		"absolute":       plain + "POST http://a/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
		"repeated":       plain + "POST /x HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\nCookie: b=2\r\nContent-Length: 2\r\n\r\nab" + plain,
		"control":        plain + "POST /x HTTP/1.1\r\nHost: a\r\nA: \x01\r\nContent-Length: 2\r\n\r\nab",
		"no HTTP at all": "hello\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			for _, parts := range []int{1, 2, 7, min(len(wire), 50)} {
				want := talk(t, false, wire, parts)
				got := talk(t, true, wire, parts)
				if len(want) == 0 || !reflect.DeepEqual(got, want) {
					t.Errorf("in %d parts:\n%.500s\nwant\n%.500s", parts, fmt.Sprint(got), fmt.Sprint(want))
				}
			}
		})
	}
}

// TestQuickPathIsTaken: it is no matter of luck which path a request takes.
func TestQuickPathIsTaken(t *testing.T) {
	var h plainHead
	h.fields = http.Header{}
	paths := map[string]bool{"/x": true}
	if !h.read([]byte("POST /x?a=1 HTTP/1.1\r\nHost: h\r\nUser-Agent: curl\r\nContent-Length: 3\r\n\r\n"), paths) || h.length != 3 || h.query != "a=1" {
		t.Errorf("a plain head: %+v", h)
	}
}

// FuzzPlainHead: what the quick path takes, net/http takes, and sees the same.
func FuzzPlainHead(f *testing.F) {
	f.Add([]byte("POST /x?a=1 HTTP/1.1\r\nHost: h\r\nUser-Agent: curl\r\nContent-Length: 3\r\n\r\n"))
	f.Add([]byte("POST /x HTTP/1.1\r\nHost: [::1]:80\r\nX-\xc3: \xff\r\nContent-Length: 007\r\nConnection: keep-alive\r\n\r\n"))
	f.Add([]byte("POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\naccept_x:\t y\t\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		size, ok := endOfHead(b, 0)
		if !ok {
			return
		}
		h := plainHead{fields: http.Header{}}
		if !h.read(b[:size], map[string]bool{"/x": true}) {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b[:size])))
		if err != nil {
			t.Fatalf("net/http refuses it: %v", err)
		}
		if r.Method != "POST" || r.URL.String() != h.target || r.URL.Path != h.path || r.URL.RawQuery != h.query || r.Host != h.host ||
			r.ContentLength != h.length || r.Close || !reflect.DeepEqual(r.Header, h.fields) || r.RequestURI != h.target {
			t.Errorf("%+v\nnet/http: %+v %v", h, r, r.URL)
		}
	})
}

// TestQuickPathDrains over real sockets: what is in flight is answered before
// Drain returns, connections that wait are closed, and Serve ends without error.
func TestQuickPathDrains(t *testing.T) {
	in, release := make(chan struct{}), make(chan struct{})
	s := NewServer(DefaultConfig(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "wait" {
			close(in)
			<-release
		}
		_, _ = io.WriteString(w, "done")
	}), slog.New(slog.DiscardHandler))
	s.Quick("/x")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ln) }()
	dial := func(wire string) (net.Conn, *bufio.Reader) {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := io.WriteString(c, wire); err != nil {
			t.Fatal(err)
		}
		return c, bufio.NewReader(c)
	}
	const length = " HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx"
	_, idle := dial("POST /x" + length)
	if got := receive(t, idle); got.body != "done" {
		t.Fatalf("%+v", got)
	}
	_, other := dial("GET /y HTTP/1.1\r\nHost: h\r\n\r\n") // gone over to net/http
	if got := receive(t, other); got.body != "done" {
		t.Fatalf("%+v", got)
	}
	_, busy := dial("POST /x?wait" + length)
	<-in
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(t.Context()) }()
	for !s.draining.Load() {
		runtime.Gosched()
	}
	close(release)
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if got := receive(t, busy); got.status != 200 || got.body != "done" {
		t.Errorf("in flight: %+v", got)
	}
	for name, br := range map[string]*bufio.Reader{"idle": idle, "net/http's": other, "answered": busy} {
		if _, err := br.ReadByte(); err != io.EOF {
			t.Errorf("%s connection: %v, want its end", name, err)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestQuickPathLingers over real sockets: a client that is still sending a body
// which nobody wants reads the answer, and no reset connection.
func TestQuickPathLingers(t *testing.T) {
	for _, quick := range []bool{false, true} {
		s := NewServer(DefaultConfig(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			Fail(w, &Error{Status: http.StatusRequestEntityTooLarge, Title: "too large"})
		}), slog.New(slog.DiscardHandler))
		if quick {
			s.Quick("/x")
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = s.Serve(ln) }()
		for range 5 {
			resp, err := http.Post("http://"+ln.Addr().String()+"/x", "text/plain", bytes.NewReader(make([]byte, 32<<20)))
			if err != nil {
				t.Errorf("quick %v: %v", quick, err)
				continue
			}
			if resp.StatusCode != http.StatusRequestEntityTooLarge {
				t.Errorf("quick %v: %s", quick, resp.Status)
			}
			resp.Body.Close()
		}
		_ = s.Close()
	}
}
