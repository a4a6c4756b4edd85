package web

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func compress(t testing.TB, coding string, data []byte) []byte {
	t.Helper()
	var (
		buf bytes.Buffer
		w   io.WriteCloser
		err error
	)
	switch coding {
	case "gzip":
		w = gzip.NewWriter(&buf)
	case "deflate":
		w = zlib.NewWriter(&buf)
	case "raw":
		w, err = flate.NewWriter(&buf, 6)
	case "zstd":
		w, err = zstd.NewWriter(&buf, zstd.WithEncoderConcurrency(1))
	default:
		return data
	}
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func post(coding string, body io.Reader) *http.Request {
	r := httptest.NewRequest("POST", "/", body)
	switch coding {
	case "":
	case "raw":
		r.Header.Set("Content-Encoding", "deflate")
	default:
		r.Header.Set("Content-Encoding", coding)
	}
	return r
}

// unsized hides the length, so that the request is chunked.
func unsized(r *http.Request) *http.Request {
	r.ContentLength = -1
	return r
}

func TestReadBody(t *testing.T) {
	text := []byte(strings.Repeat("all kinds of text, ", 20000)) // 380 kB
	for _, coding := range []string{"", "identity", "gzip", "x-gzip", "GZIP", "deflate", "raw", "zstd"} {
		plain := strings.TrimPrefix(strings.ToLower(coding), "x-")
		data := compress(t, plain, text)
		for _, chunked := range []bool{false, true} {
			for _, size := range []int{0, len(data)} {
				br := &BodyReader{Max: 1 << 20, MaxInflate: 1 << 20, Budget: NewBudget(4 << 20)}
				r := post(coding, bytes.NewReader(data[:size]))
				if chunked {
					r = unsized(r)
				}
				want := text
				if size == 0 {
					want = nil
				}
				var b Body
				for range 2 { // the second time with the memory of the first
					if err := br.Read(&b, r); err != nil {
						t.Fatalf("%q, chunked %v, %d bytes: %v", coding, chunked, size, err)
					}
					if !bytes.Equal(b.Bytes, want) || b.Sent != int64(size) {
						t.Fatalf("%q, chunked %v: %d bytes, sent %d", coding, chunked, len(b.Bytes), b.Sent)
					}
					if used := br.Budget.Used(); used < int64(len(want)) || used > 4<<20 {
						t.Errorf("%q, chunked %v: %d bytes reserved for %d", coding, chunked, used, len(want))
					}
					b.Release()
					r.Body = io.NopCloser(bytes.NewReader(data[:size]))
				}
				if br.Budget.Used() != 0 {
					t.Errorf("%q: %d bytes stay reserved", coding, br.Budget.Used())
				}
			}
		}
	}
}

func TestReadBodyOfSeveralMembers(t *testing.T) {
	for _, coding := range []string{"gzip", "zstd"} {
		data := append(compress(t, coding, []byte("one ")), compress(t, coding, []byte("two"))...)
		br := &BodyReader{Max: 1 << 20, MaxInflate: 1 << 20, Budget: NewBudget(4 << 20)}
		var b Body
		if err := br.Read(&b, post(coding, bytes.NewReader(data))); err != nil || string(b.Bytes) != "one two" {
			t.Errorf("%s: %q, %v", coding, b.Bytes, err)
		}
	}
}

func TestReadBodyRefuses(t *testing.T) {
	text := []byte(strings.Repeat("0123456789abcdef", 4096)) // 64 KiB
	gz, zs, zl, raw := compress(t, "gzip", text), compress(t, "zstd", text), compress(t, "deflate", text), compress(t, "raw", text)
	wrongSum := bytes.Clone(gz)
	wrongSum[len(wrongSum)-6] ^= 1
	// A frame whose head asks for a window of 128 MiB.
	wide := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 17 << 3, 0x01, 0x00, 0x00}
	for _, c := range []struct {
		name, coding string
		body         []byte
		status       int
		says         string
	}{
		{"too long", "", make([]byte, 100<<10+1), 413, "at most 100KiB are taken (body)"},
		{"unknown coding", "br", text, 415, `Content-Encoding is "br"`},
		{"two codings", "gzip, zstd", gz, 415, "one of them only"},
		{"no gzip", "gzip", text, 400, "the gzip body cannot be decompressed"},
		{"gzip cut off", "gzip", gz[:len(gz)/2], 400, "the compressed data ends too early"},
		{"gzip without its sum", "gzip", gz[:len(gz)-4], 400, "ends too early"},
		{"wrong sum", "gzip", wrongSum, 400, "checksum"},
		{"text behind gzip", "gzip", append(bytes.Clone(gz), "text behind"...), 400, "cannot be decompressed"},
		{"no zstd", "zstd", text, 400, "the zstd body cannot be decompressed"},
		{"zstd cut off", "zstd", zs[:len(zs)-3], 400, "ends too early"},
		{"zstd cut in its head", "zstd", zs[:3], 400, "the zstd body"},
		{"text behind zstd", "zstd", append(bytes.Clone(zs), "text behind"...), 400, "cannot be decompressed"},
		{"wide window", "zstd", wide, 413, "window is larger than 8MiB"},
		{"deflate cut off", "deflate", zl[:len(zl)-5], 400, "ends too early"},
		{"text behind deflate", "deflate", append(bytes.Clone(zl), 'x'), 400, "bytes behind the end"},
		{"text behind raw deflate", "raw", append(bytes.Clone(raw), 'x'), 400, "bytes behind the end"},
		{"no deflate", "deflate", []byte("\xff\xff\xff"), 400, "the deflate body"},
		{"inflates too far", "gzip", compress(t, "gzip", make([]byte, 200<<10+1)), 413, "more than 200KiB (decompressed)"},
	} {
		for _, chunked := range []bool{false, true} {
			br := &BodyReader{Max: 100 << 10, MaxInflate: 200 << 10, Budget: NewBudget(64 << 20)}
			r := post(c.coding, bytes.NewReader(c.body))
			if chunked {
				r = unsized(r)
			}
			var (
				b Body
				e *Error
			)
			err := br.Read(&b, r)
			if !errors.As(err, &e) {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			says := c.says
			if e.Status != c.status || !strings.Contains(e.Detail, says) {
				t.Errorf("%s, chunked %v: %d %s: %s, want %d with %q", c.name, chunked, e.Status, e.Title, e.Detail, c.status, says)
			}
			if br.Budget.Used() != 0 || len(b.Bytes) != 0 {
				t.Errorf("%s: %d bytes stay reserved, %d in the body", c.name, br.Budget.Used(), len(b.Bytes))
			}
		}
	}
}

func TestReadBodyOverBudget(t *testing.T) {
	for _, coding := range []string{"", "gzip"} {
		br := &BodyReader{Max: 1 << 20, MaxInflate: 1 << 20, Budget: NewBudget(2 << 20)}
		if !br.Budget.Reserve(1700 << 10) {
			t.Fatal("cannot fill the budget")
		}
		var (
			b Body
			e *Error
		)
		// A second one waits already, so this one is refused at once.
		br.Budget.mu.granted = make(chan struct{})
		err := br.Read(&b, post(coding, bytes.NewReader(compress(t, coding, make([]byte, 600<<10)))))
		if !errors.As(err, &e) || e.Status != 429 || e.RetryAfter <= 0 || !strings.Contains(e.Detail, "set aside for bodies (2MiB)") {
			t.Errorf("%q: %v", coding, err)
		}
		if used := br.Budget.Used(); used != 1700<<10 {
			t.Errorf("%q: %d bytes reserved", coding, used)
		}
	}
}

// The largest body allowed passes when it is alone, also where the buffer that
// it grows into is as large as the whole budget.
func TestReadBodyMayFillTheBudget(t *testing.T) {
	const limit = 1 << 20
	br := &BodyReader{Max: limit, MaxInflate: limit, Budget: NewBudget(limit)}
	for _, coding := range []string{"", "gzip", "zstd"} {
		for _, chunked := range []bool{false, true} {
			r := post(coding, bytes.NewReader(compress(t, coding, make([]byte, limit))))
			if chunked {
				r = unsized(r)
			}
			var b Body
			if err := br.Read(&b, r); err != nil || len(b.Bytes) != limit {
				t.Errorf("%q, chunked %v: %d bytes, %v", coding, chunked, len(b.Bytes), err)
			}
			b.Release()
		}
	}
}

func TestBodyWeight(t *testing.T) {
	for _, coding := range []string{"", "gzip"} {
		br := &BodyReader{Max: 1 << 20, MaxInflate: 1 << 20, Budget: NewBudget(64 << 20), Weight: func(n int64) int64 { return 3 * n }}
		var b Body
		if err := br.Read(&b, post(coding, bytes.NewReader(compress(t, coding, make([]byte, 200<<10))))); err != nil {
			t.Fatal(err)
		}
		held := br.Budget.Used()
		if held < 600<<10 {
			t.Errorf("%q: %d bytes reserved", coding, held)
		}
		if err := b.Hold(1000); err != nil || br.Budget.Used() != held+1000 {
			t.Errorf("%q: %d bytes reserved, %v", coding, br.Budget.Used(), err)
		}
		br.Budget.mu.granted = make(chan struct{}) // somebody waits already
		var e *Error
		for err := error(nil); err == nil; {
			if err = b.Hold(1 << 20); err == nil && br.Budget.Used() == br.Budget.Share() {
				break // beyond its share nothing more is counted
			} else if err != nil && (!errors.As(err, &e) || e.Status != 429) {
				t.Errorf("%q: %v", coding, err)
			}
		}
		b.Release()
		if br.Budget.Used() != 0 {
			t.Errorf("%q: %d bytes stay reserved", coding, br.Budget.Used())
		}
	}
}

// bomb inflates to size zero bytes and is made as it is read.
type bomb struct {
	head, block []byte
	rest        []byte
	n           int
}

func gzipBomb(t testing.TB, size int) io.Reader {
	t.Helper()
	const chunk = 16 << 20
	var buf bytes.Buffer
	w, err := flate.NewWriter(&buf, 9)
	if err == nil {
		_, err = w.Write(make([]byte, chunk))
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return &bomb{head: []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}, block: buf.Bytes(), n: size / chunk}
}

func (b *bomb) Read(p []byte) (int, error) {
	if b.head != nil {
		n := copy(p, b.head)
		b.head = nil
		return n, nil
	}
	if len(b.rest) == 0 {
		if b.n == 0 {
			return 0, io.EOF
		}
		b.n--
		b.rest = b.block
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// A body that would inflate to 10 GB costs what the limit allows, not more.
func TestBombCostsTheLimitOnly(t *testing.T) {
	const limit = 8 << 20
	br := &BodyReader{Max: 1 << 30, MaxInflate: limit, Budget: NewBudget(64 << 20)}
	var before, after runtime.MemStats
	src := gzipBomb(t, 10<<30)
	runtime.ReadMemStats(&before)
	var (
		b Body
		e *Error
	)
	err := br.Read(&b, unsized(post("gzip", src)))
	runtime.ReadMemStats(&after)
	if !errors.As(err, &e) || e.Status != 413 {
		t.Fatalf("%v", err)
	}
	// All buffers on the way up to the limit together: twice the limit.
	if got := after.TotalAlloc - before.TotalAlloc; got > 2*limit+4<<20 {
		t.Errorf("%d MiB allocated for a limit of %d MiB", got>>20, limit>>20)
	}
	if left := src.(*bomb).n; left < 600 {
		t.Errorf("read on to the end: %d blocks left", left)
	}
}

type failing struct {
	data []byte
	err  error
}

func (f *failing) Read(p []byte) (int, error) {
	if len(f.data) == 0 {
		return 0, f.err
	}
	n := copy(p, f.data)
	f.data = f.data[n:]
	return n, nil
}

func TestReadBodyFromABrokenWire(t *testing.T) {
	gz := compress(t, "gzip", []byte(strings.Repeat("text", 1000)))
	for _, c := range []struct {
		coding string
		data   []byte
		length int64
		err    error
		status int
		says   string
	}{
		{"", []byte("0123"), 10, io.ErrUnexpectedEOF, 400, "beyond byte 4: it ends before its announced size"},
		{"", []byte("0123"), -1, io.ErrUnexpectedEOF, 400, "beyond byte 4"},
		{"", []byte("0123"), -1, errors.New("malformed chunked encoding"), 400, "malformed chunked encoding"},
		{"gzip", gz[:20], -1, io.ErrUnexpectedEOF, 400, "beyond byte 20"},
		{"gzip", nil, -1, io.ErrUnexpectedEOF, 400, "beyond byte 0"},
		{"", []byte("0123"), 10, fmt.Errorf("read: %w", deadline{}), 408, "after 4 bytes"},
		{"zstd", compress(t, "zstd", gz)[:20], -1, fmt.Errorf("read: %w", deadline{}), 408, "after 20 bytes"},
	} {
		br := &BodyReader{Max: 1 << 20, MaxInflate: 1 << 20, Budget: NewBudget(4 << 20)}
		r := post(c.coding, &failing{c.data, c.err})
		r.ContentLength = c.length
		var (
			b Body
			e *Error
		)
		err := br.Read(&b, r)
		if !errors.As(err, &e) || e.Status != c.status || !e.Close || !strings.Contains(e.Detail, c.says) {
			t.Errorf("%q, %d bytes, %v: %+v, want %d with %q", c.coding, len(c.data), c.err, e, c.status, c.says)
		}
	}
}

// deadline is what a connection's read gives past its deadline.
type deadline struct{}

func (deadline) Error() string        { return "i/o timeout" }
func (deadline) Is(target error) bool { return target.Error() == "i/o timeout" }

func FuzzReadBody(f *testing.F) {
	for i, coding := range []string{"gzip", "deflate", "raw", "zstd"} {
		f.Add(byte(i), compress(f, coding, []byte("some text")))
	}
	f.Fuzz(func(t *testing.T, which byte, data []byte) {
		coding := []string{"gzip", "deflate", "raw", "zstd"}[which%4]
		br := &BodyReader{Max: 1 << 16, MaxInflate: 1 << 20, Budget: NewBudget(32 << 20)}
		var b Body
		err := br.Read(&b, post(coding, bytes.NewReader(data)))
		if len(b.Bytes) > 1<<20 {
			t.Fatalf("%d bytes", len(b.Bytes))
		}
		var e *Error
		if err != nil && (!errors.As(err, &e) || e.Status/100 != 4) {
			t.Fatal(err)
		}
		b.Release()
		if br.Budget.Used() != 0 {
			t.Fatalf("%d bytes stay reserved", br.Budget.Used())
		}
	})
}
