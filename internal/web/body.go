package web

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"naru/internal/quantity"
)

const (
	// firstStep is the size of the buffer for a body of unknown size.
	firstStep = 64 << 10
	// keepBuffer is the largest buffer that a Body keeps between requests.
	keepBuffer = 1 << 20
	// busyRetry is when a client should come back after it met a full budget.
	busyRetry = time.Second
)

// BodyReader reads request bodies within limits.
type BodyReader struct {
	Max        int64 // bytes as sent
	MaxInflate int64 // bytes once decompressed
	Budget     *Budget
	// Weight is what a body of n bytes takes of the budget: itself, and what its
	// handler will need for it. Nil: n.
	Weight func(n int64) int64
	// Section is what stands before the names of the limits in messages, as in
	// "collect.".
	Section string
}

func (br *BodyReader) weight(n int64) int64 {
	if br.Weight == nil {
		return n
	}
	return br.Weight(n)
}

// Body is a body in memory together with its share of the budget. The zero
// value is ready; it is meant to be pooled.
type Body struct {
	// Bytes is the body, decompressed. It is valid until Release.
	Bytes []byte
	// Sent is the number of bytes that came over the wire.
	Sent int64

	budget *Budget
	done   <-chan struct{} // of the request
	held   int64
	extra  int64 // part of held that is a decoder's
}

// Release gives the share of the budget back. Bytes keeps its memory, unless it
// is large, for the next Read.
func (b *Body) Release() {
	if b.held > 0 {
		b.budget.Release(b.held)
	}
	b.held, b.extra, b.budget, b.done = 0, 0, nil, nil
	b.Bytes = b.Bytes[:0]
	if cap(b.Bytes) > keepBuffer {
		b.Bytes = nil
	}
}

// Read reads the body of r into b, which must have been released. Its errors are
// *Error: 400 for what is cut short or cannot be decompressed, 408 for a body
// that stalls, 413 for too much, 415 for an encoding that nobody knows here, 429
// when the budget is used up. After an error b holds nothing.
func (br *BodyReader) Read(b *Body, r *http.Request) error {
	b.Bytes, b.Sent, b.budget, b.done = b.Bytes[:0], 0, br.Budget, r.Context().Done()
	err := br.read(b, r)
	if err != nil {
		b.Release()
	}
	return err
}

func (br *BodyReader) read(b *Body, r *http.Request) error {
	coding, err := contentCoding(r.Header)
	if err != nil {
		return err
	}
	if r.ContentLength > br.Max {
		return br.tooLarge(fmt.Sprintf("the body has %d bytes", r.ContentLength))
	}
	if coding == "" && r.ContentLength >= 0 {
		return br.readSized(b, r)
	}
	src := &countingReader{r: r.Body, max: br.Max}
	if coding == "" {
		if err := b.reserve(br.weight(b.start())); err != nil {
			return err
		}
		err = br.fill(b, src, br.Max)
		b.Sent = src.n
		if err == nil {
			return nil
		}
		return br.readError(src, err, b)
	}
	return br.inflate(b, src, coding)
}

// readSized reads a body whose size is known.
func (br *BodyReader) readSized(b *Body, r *http.Request) error {
	n := r.ContentLength
	if n == 0 {
		return nil
	}
	if err := b.reserve(br.weight(n)); err != nil {
		return err
	}
	if int64(cap(b.Bytes)) < n {
		b.Bytes = make([]byte, n)
	}
	b.Bytes = b.Bytes[:n]
	got, err := io.ReadFull(r.Body, b.Bytes)
	b.Sent = int64(got)
	if err != nil {
		b.Bytes = b.Bytes[:got]
		return br.readError(&countingReader{n: int64(got), err: err}, err, b)
	}
	return nil
}

// inflate reads a compressed body through its decoder: what was sent is never
// kept, and what comes out never grows beyond the limit.
func (br *BodyReader) inflate(b *Body, src *countingReader, coding string) error {
	if err := b.reserve(br.weight(b.start())); err != nil {
		return err
	}
	in := bufioPool.Get().(*bufio.Reader)
	in.Reset(src)
	defer func() {
		in.Reset(nil)
		bufioPool.Put(in)
	}()
	if _, err := in.Peek(1); errors.Is(err, io.EOF) {
		return nil // no body at all: the caller says what that means
	} else if err != nil {
		return br.readError(src, err, b)
	}
	dec, err := openDecoder(in, coding)
	if err != nil {
		return br.decodeError(src, err, b, coding)
	}
	defer dec.release()
	if dec.window > 0 {
		b.extra = dec.window
		if err := b.reserve(br.weight(b.start()) + b.extra); err != nil {
			return err
		}
	}
	err = br.fill(b, dec, br.MaxInflate)
	if err == nil {
		if _, more := in.Peek(1); !errors.Is(more, io.EOF) {
			if more == nil {
				more = errBehind
			}
			err = more
		}
	}
	b.Sent = src.n
	if err != nil {
		return br.decodeError(src, err, b, coding)
	}
	return nil
}

var (
	errTooMuch = errors.New("body beyond its limit")
	errBehind  = errors.New("bytes behind the end of the compressed data")
)

// fill reads src to its end into b, reserving before it grows. Bytes that b
// kept from earlier requests are reserved already.
func (br *BodyReader) fill(b *Body, src io.Reader, limit int64) error {
	if cap(b.Bytes) < firstStep {
		b.Bytes = make([]byte, 0, firstStep)
	}
	var probe [1]byte
	for empty := 0; ; {
		size := int64(cap(b.Bytes))
		if int64(len(b.Bytes)) == size && size < limit {
			size = min(2*size, limit)
			if err := b.reserve(br.weight(size) + b.extra); err != nil {
				return err
			}
			grown := make([]byte, len(b.Bytes), size)
			copy(grown, b.Bytes)
			b.Bytes = grown
		}
		room := b.Bytes[len(b.Bytes):cap(b.Bytes)]
		if len(room) == 0 {
			room = probe[:] // full: only the end may follow
		}
		n, err := src.Read(room)
		if int64(len(b.Bytes)+n) > limit {
			return errTooMuch
		}
		b.Bytes = b.Bytes[:len(b.Bytes)+n]
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if n > 0 {
			empty = 0
		} else if empty++; empty > 100 {
			return io.ErrNoProgress
		}
	}
}

// Hold takes n bytes more of the budget for what is made of the body; Release
// gives them back too. The error is an *Error, 429.
func (b *Body) Hold(n int64) error { return b.reserve(b.held + n) }

// start is what a body of unknown size begins with.
func (b *Body) start() int64 { return max(firstStep, int64(cap(b.Bytes))) }

// reserve makes the share of the budget total bytes. It never asks for more
// than one body can get, so the largest one allowed passes when it is alone.
func (b *Body) reserve(total int64) error {
	more := min(total, b.budget.Share()) - b.held
	if more <= 0 {
		return nil
	}
	ok := false
	if b.held == 0 {
		ok = b.budget.Reserve(more)
	} else {
		ok = b.budget.Grow(b.done, b.held, more)
	}
	if !ok {
		return &Error{
			Status: http.StatusTooManyRequests, Title: "too much in flight", RetryAfter: busyRetry,
			Detail: fmt.Sprintf("other requests hold the memory set aside for bodies (%s); send the same request again after Retry-After", quantity.Bytes(b.budget.limit)),
		}
	}
	b.held += more
	return nil
}

func (br *BodyReader) tooLarge(what string) *Error {
	return &Error{
		Status: http.StatusRequestEntityTooLarge, Title: "body too large",
		Detail: fmt.Sprintf("%s, at most %s are taken (%sbody); send it in smaller requests", what, quantity.Bytes(br.Max), br.Section),
	}
}

// readError classes what went wrong on the wire.
func (br *BodyReader) readError(src *countingReader, err error, b *Body) error {
	var own *Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, errTooMuch):
		e := br.tooLarge("the body is larger")
		e.Close = true
		return e
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &Error{
			Status: http.StatusRequestTimeout, Title: "body stalled", Close: true, Err: err,
			Detail: fmt.Sprintf("the body stopped coming, or came too slowly, after %d bytes; nothing was stored, send it again", src.n),
		}
	}
	why := "it ends before its announced size"
	if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		why = err.Error()
	}
	return &Error{
		Status: http.StatusBadRequest, Title: "body cut short", Close: true, Err: err,
		Detail: fmt.Sprintf("the body cannot be read beyond byte %d: %s; nothing was stored, send it again", src.n, why),
	}
}

// decodeError classes what went wrong in a compressed body.
func (br *BodyReader) decodeError(src *countingReader, err error, b *Body, coding string) error {
	var own *Error
	switch {
	case errors.As(err, &own):
		return own
	case src.err != nil: // the wire was the cause
		return br.readError(src, src.err, b)
	case errors.Is(err, errTooMuch):
		return &Error{
			Status: http.StatusRequestEntityTooLarge, Title: "body too large once decompressed", Close: true,
			Detail: fmt.Sprintf("the body inflates to more than %s (%sdecompressed); send it in smaller requests", quantity.Bytes(br.MaxInflate), br.Section),
		}
	case isWindowError(err):
		return &Error{
			Status: http.StatusRequestEntityTooLarge, Title: "compression window too large", Close: true,
			Detail: fmt.Sprintf("the zstd window is larger than %s; compress without --long or --ultra", quantity.Bytes(maxWindow)),
		}
	}
	why := err.Error()
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		why = "the compressed data ends too early"
	}
	return &Error{
		Status: http.StatusBadRequest, Title: "broken compression", Err: err,
		Detail: fmt.Sprintf("the %s body cannot be decompressed: %s, at byte %d of what it inflates to (%d bytes as sent were read); nothing was stored",
			coding, why, len(b.Bytes), src.n),
	}
}

// contentCoding reads Content-Encoding: "", "gzip", "zstd" or "deflate".
func contentCoding(h http.Header) (string, error) {
	values := h["Content-Encoding"]
	if len(values) == 0 {
		return "", nil
	}
	coding := strings.ToLower(strings.TrimSpace(strings.Join(values, ",")))
	switch coding {
	case "", "identity":
		return "", nil
	case "gzip", "x-gzip":
		return "gzip", nil
	case "zstd", "deflate":
		return coding, nil
	}
	return "", &Error{
		Status: http.StatusUnsupportedMediaType, Title: "unknown content encoding",
		Detail: "Content-Encoding is " + strconv.Quote(coding) + "; send gzip, zstd, deflate or none, one of them only",
	}
}

// countingReader counts what comes over the wire, up to max, and remembers why
// it ended.
type countingReader struct {
	r   io.Reader
	n   int64
	max int64
	err error // other than io.EOF
}

func (c *countingReader) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.n > c.max {
		c.err = errTooMuch
		return 0, c.err
	}
	if err != nil && err != io.EOF { // io.ErrUnexpectedEOF is the wire's fault
		c.err = err
	}
	return n, err
}
