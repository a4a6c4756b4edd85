package columnar

import (
	"bytes"
	"testing"

	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/stretchr/testify/require"
)

// TestPageCodec: pages are compressed by encoders that stay, and read back.
func TestPageCodec(t *testing.T) {
	KeepEncoders()
	codec, err := compress.GetCodec(compress.Codecs.Zstd)
	require.NoError(t, err)
	own, ok := codec.(pageCodec)
	require.True(t, ok, "arrow's zstd is not what it was")
	for _, page := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("a page "), 100_000)} {
		for _, level := range []int{zstdLevel, zstdLevel + 2} {
			packed := codec.EncodeLevel(nil, page, level)
			require.Equal(t, own.ErrorCodec.EncodeLevel(nil, page, level), packed, "files are as arrow makes them")
			got, err := compress.Decode(codec, nil, packed)
			require.NoError(t, err)
			require.Equal(t, len(page), len(got))
			require.True(t, bytes.Equal(page, got))
		}
	}
	page := bytes.Repeat([]byte("some text of a page"), 1000)
	dst := make([]byte, 0, codec.CompressBound(int64(len(page))))
	require.Less(t, testing.AllocsPerRun(100, func() { codec.EncodeLevel(dst, page, zstdLevel) }), 1.0)
}
