package columnar

import (
	"runtime"
	"sync"

	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/klauspost/compress/zstd"
)

// pageCodec is arrow's zstd with encoders of its own for the pages of data files.
// Arrow's stand in a pool that every collection empties, and a new one takes more than a
// megabyte: a quarter of all garbage while tables were loaded.
type pageCodec struct {
	compress.ErrorCodec
	compress.StreamingCodec
}

// pageEncoders is how many pages are compressed at once.
const pageEncoders = 8

var pageEncoder = sync.OnceValue(func() *zstd.Encoder {
	// As arrow makes them, so that files are the same.
	enc, err := zstd.NewWriter(nil, zstd.WithZeroFrames(true), zstd.WithAllLitEntropyCompression(true),
		zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(zstdLevel)), zstd.WithEncoderConcurrency(min(runtime.GOMAXPROCS(0), pageEncoders)))
	if err != nil {
		panic(err) // the options are no input
	}
	return enc
})

// EncodeLevel implements compress.Codec.
func (c pageCodec) EncodeLevel(dst, src []byte, level int) []byte {
	if level != zstdLevel {
		return c.ErrorCodec.EncodeLevel(dst, src, level)
	}
	return pageEncoder().EncodeAll(src, dst[:0])
}

// KeepEncoders makes files of this process be written by encoders that stay. Arrow looks
// its codecs up without a lock, so it is to be called before any file is written or read.
func KeepEncoders() { keepEncoders() }

var keepEncoders = sync.OnceFunc(func() {
	codec, err := compress.GetCodec(compress.Codecs.Zstd)
	if err != nil {
		panic(err) // arrow has it
	}
	block, ok := codec.(compress.ErrorCodec)
	stream, streams := codec.(compress.StreamingCodec)
	if ok && streams {
		compress.RegisterCodec(compress.Codecs.Zstd, pageCodec{block, stream})
	}
})
