package web

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// maxWindow is the largest zstd window: what every decoder should support by
// RFC 8878, and what zstd's levels up to 19 use.
const maxWindow = 8 << 20

var bufioPool = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 16<<10) }}

// decoder inflates. window is the memory it takes, where that is much.
type decoder struct {
	io.Reader
	window int64
	put    func()
}

func (d *decoder) release() {
	if d.put != nil {
		d.put()
	}
}

var (
	gzipPool  sync.Pool // *gzip.Reader
	flatePool sync.Pool // flate reader
	zlibPool  sync.Pool // zlib reader
	// zstdPool keeps few decoders, because each keeps its window.
	zstdPool = make(chan *zstd.Decoder, 2)
)

func openDecoder(in *bufio.Reader, coding string) (*decoder, error) {
	switch coding {
	case "gzip":
		z, _ := gzipPool.Get().(*gzip.Reader)
		if z == nil {
			z = new(gzip.Reader)
		}
		if err := z.Reset(in); err != nil {
			return nil, err
		}
		return &decoder{Reader: z, put: func() { gzipPool.Put(z) }}, nil
	case "deflate":
		return openDeflate(in)
	case "zstd":
		return openZstd(in)
	}
	return nil, fmt.Errorf("open decoder: no coding %q", coding)
}

// openDeflate takes both forms that go by the name of deflate: zlib, which the
// standard means (RFC 9110, 8.4.1.2), and raw, which some clients send.
func openDeflate(in *bufio.Reader) (*decoder, error) {
	head, err := in.Peek(2)
	if err == nil && head[0]&0x0f == 8 && (uint(head[0])<<8|uint(head[1]))%31 == 0 {
		z, _ := zlibPool.Get().(io.ReadCloser)
		if z == nil {
			if z, err = zlib.NewReader(in); err != nil {
				return nil, err
			}
		} else if err := z.(zlib.Resetter).Reset(in, nil); err != nil {
			return nil, err
		}
		return &decoder{Reader: z, put: func() { zlibPool.Put(z) }}, nil
	}
	z, _ := flatePool.Get().(io.ReadCloser)
	if z == nil {
		z = flate.NewReader(in)
	} else if err := z.(flate.Resetter).Reset(in, nil); err != nil {
		return nil, err
	}
	return &decoder{Reader: z, put: func() { flatePool.Put(z) }}, nil
}

// openZstd looks at the first frame's head to learn the window before the
// decoder allocates it. Later frames may have other windows, up to maxWindow;
// such bodies are rare enough to leave them out of the account.
func openZstd(in *bufio.Reader) (*decoder, error) {
	head, err := in.Peek(zstd.HeaderMaxSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var h zstd.Header
	if err := h.Decode(head); err != nil {
		return nil, err
	}
	if h.WindowSize > maxWindow && !h.SingleSegment {
		return nil, zstd.ErrWindowSizeExceeded
	}
	var z *zstd.Decoder
	select {
	case z = <-zstdPool:
	default:
		z, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, fmt.Errorf("make zstd decoder: %w", err)
		}
	}
	put := func() {
		_ = z.Reset(nil) // drops the reference to the body
		select {
		case zstdPool <- z:
		default:
			z.Close()
		}
	}
	if err := z.Reset(in); err != nil {
		put()
		return nil, err
	}
	return &decoder{Reader: z, window: int64(min(h.WindowSize, maxWindow)), put: put}, nil
}

func isWindowError(err error) bool {
	return errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeTooSmall)
}
