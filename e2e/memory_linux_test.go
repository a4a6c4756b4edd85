package e2e

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Anonymous memory that the server may take under abuse: its limits (64 MiB in
// flight, the SQL engine's budget) and what the runtime adds to them.
const memoryBound = 400 << 20

// rssAnon is the process's anonymous memory in bytes.
func rssAnon(t testing.TB, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no RssAnon in /proc/PID/status")
	return 0
}

// peak samples the server's memory until the returned function is called,
// which gives the most that was seen.
func peak(t testing.TB, s *server) func() int64 {
	stop, most := make(chan struct{}), make(chan int64)
	go func() {
		top := int64(0)
		poll := time.NewTicker(10 * time.Millisecond)
		defer poll.Stop()
		for {
			select {
			case <-poll.C:
				if !s.ended() {
					top = max(top, rssAnon(t, s.pid()))
				}
			case <-stop:
				most <- top
				return
			}
		}
	}()
	return func() int64 { close(stop); return <-most }
}

// zeros is a gzip body that inflates to n bytes of zeros, in one member. The
// checksum at its end is wrong: nobody should get that far.
func zeros(t testing.TB, n int64) []byte {
	t.Helper()
	const chunk = 64 << 20
	var block bytes.Buffer
	w, err := flate.NewWriter(&block, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, chunk)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil { // ends at a byte, so that copies can follow each other
		t.Fatal(err)
	}
	out := []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}
	out = append(out, bytes.Repeat(block.Bytes(), int(n/chunk))...)
	out = append(out, 1, 0, 0, 0xff, 0xff) // an empty last block
	out = binary.LittleEndian.AppendUint32(out, 0)
	return binary.LittleEndian.AppendUint32(out, uint32(n))
}

// zstdZeros is the same as one zstd frame.
func zstdZeros(t testing.TB, n int64) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	chunk := make([]byte, 16<<20)
	for ; n > 0; n -= int64(len(chunk)) {
		if _, err := w.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// served sends events and asks until stop, and returns how often; each must work.
func served(t testing.TB, s *server, stop <-chan struct{}) int {
	n := 0
	for {
		select {
		case <-stop:
			return n
		default:
		}
		r, err := s.do("POST", "/v1/events?type=honest", []byte(`{"a":1}`), jsonType)
		if err != nil || (r.status != 200 && r.status != 503 && r.status != 429) {
			t.Errorf("an honest client's event: %d %s %v", r.status, r.body, err)
			return n
		}
		if r.status != 200 {
			continue // asked to come back: bounded, not broken
		}
		if r, err = s.do("POST", "/v1/sql", []byte("select 42"), plainType); err != nil || r.status != 200 {
			t.Errorf("an honest client's query: %d %s %v", r.status, r.body, err)
			return n
		}
		n++
	}
}

// TestBombs: bodies that inflate to 10 GB are refused with bounded memory
// while others are served.
func TestBombs(t *testing.T) {
	t.Parallel()
	s := serve(t, project(t, ""))
	const size = 10 << 30
	gzipBomb := zeros(t, size)
	t.Logf("10 GB of zeros in %d bytes of gzip", len(gzipBomb))
	bombs := []struct {
		encoding string
		body     []byte
	}{{"gzip", gzipBomb}, {"deflate", append([]byte{0x78, 0x9c}, gzipBomb[10:]...)}, {"zstd", zstdZeros(t, 1<<30)}}

	most := peak(t, s)
	stop := make(chan struct{})
	var honest sync.WaitGroup
	var n int
	honest.Go(func() { n = served(t, s, stop) })
	var senders sync.WaitGroup
	var mu sync.Mutex
	answers := map[int]int{}
	for range 4 {
		for _, bomb := range bombs {
			senders.Go(func() {
				for tries := 0; tries < 1000; tries++ {
					status, err := abuse(s, bomb.encoding, bomb.body)
					if err != nil {
						t.Errorf("%s: %v", bomb.encoding, err)
						return
					}
					mu.Lock()
					answers[status]++
					mu.Unlock()
					if status == http.StatusRequestEntityTooLarge {
						return
					}
					if status != 503 && status != 429 {
						t.Errorf("%s: status %d, want 413", bomb.encoding, status)
						return
					}
				}
				t.Errorf("%s: refused for want of room again and again", bomb.encoding)
			})
		}
	}
	senders.Wait()
	close(stop)
	honest.Wait()
	got := most()
	t.Logf("answers: %v; most anonymous memory %d MiB; an honest client was served %d times meanwhile", answers, got>>20, n)
	if got > memoryBound {
		t.Errorf("most anonymous memory %d MiB, want at most %d MiB", got>>20, memoryBound>>20)
	}
	if n == 0 {
		t.Error("no honest client was served meanwhile")
	}
	s.post("", "application/json", `{"a": 1}`)
}

// abuse sends a body and reads the answer also when the server stops reading.
func abuse(s *server, encoding string, body []byte) (status int, err error) {
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * soonWithin)); err != nil {
		return 0, err
	}
	head := fmt.Sprintf("POST /v1/events HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-ndjson\r\nContent-Encoding: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n",
		c.RemoteAddr(), encoding, len(body))
	go func() {
		if _, err := io.WriteString(c, head); err == nil {
			_, _ = c.Write(body) // the server may well stop reading
		}
	}()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	return resp.StatusCode, nil
}

// TestStalledReaders: clients that ask for a big answer and stop reading it
// cost bounded memory, and others are served.
func TestStalledReaders(t *testing.T) {
	t.Parallel()
	s := serve(t, project(t, ""))
	s.post("?type=page", "application/x-ndjson", strings.Repeat(`{"path":"/index.html","text":"`+strings.Repeat("x", 200)+`"}`+"\n", 20000))
	s.waitCell("select count(_offset) from page", "20000")

	most := peak(t, s)
	const stalled = 2
	for i := range stalled {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.(*net.TCPConn).SetReadBuffer(4096); err != nil {
			t.Fatal(err)
		}
		query := "select a.*, b.path from page a, page b"
		fmt.Fprintf(c, "POST /v1/sql HTTP/1.1\r\nHost: %s\r\nContent-Type: text/plain\r\nAccept: text/csv\r\nContent-Length: %d\r\n\r\n%s", c.RemoteAddr(), len(query), query)
		if err := c.SetReadDeadline(time.Now().Add(soonWithin)); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 12)
		if _, err := io.ReadFull(c, line); err != nil || string(line) != "HTTP/1.1 200" {
			t.Fatalf("stalled reader %d: answer begins with %q, %v", i, line, err)
		}
	}
	for range 100 {
		if got := s.cell("select count(_offset) from page"); got != "20000" {
			t.Fatalf("count beside stalled readers: %s", got)
		}
		s.post("?type=other", "application/json", `{"a": 1}`)
	}
	got := most()
	t.Logf("most anonymous memory %d MiB beside %d stalled readers", got>>20, stalled)
	if got > memoryBound {
		t.Errorf("most anonymous memory %d MiB, want at most %d MiB", got>>20, memoryBound>>20)
	}
}

// TestSlowHeads: many connections that never finish their headers keep nobody
// else from being served.
func TestSlowHeads(t *testing.T) {
	t.Parallel()
	s := serve(t, project(t, ""))
	for range 200 {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "POST /v1/events HTTP/1.1\r\nHost: x\r\nX-"); err != nil {
			t.Fatal(err)
		}
	}
	for range 50 {
		s.post("", "application/json", `{"a": 1}`)
	}
	if got := rssAnon(t, s.pid()); got > memoryBound {
		t.Errorf("anonymous memory %d MiB, want at most %d MiB", got>>20, memoryBound>>20)
	}
}
