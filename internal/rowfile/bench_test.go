package rowfile

import (
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/sink/sinktest"
)

// BenchmarkAppend is a row of ten columns, with its path.
func BenchmarkAppend(b *testing.B) {
	rows := make([]event.Event, 1000)
	for i := range rows {
		rows[i] = sinktest.Row(fmt.Sprint("id-", i), int64(i), 0)
	}
	path, err := ParsePath("day={_time:%F}/yes={yes}")
	require.NoError(b, err)
	of, err := path.Of(sinktest.Columns)
	require.NoError(b, err)
	b.Run("path", func(b *testing.B) {
		var dst []byte
		for i := 0; b.Loop(); i++ {
			dst = of.Append(dst[:0], &rows[i%1000], 0)
		}
	})
	for _, format := range Formats {
		for _, compress := range []string{"none", "zstd"} {
			b.Run(format+"/"+compress, func(b *testing.B) {
				f, err := New(io.Discard, Options{format, compress}, sinktest.Columns)
				require.NoError(b, err)
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if err := f.Append(&rows[i%1000], 0); err != nil {
						b.Fatal(err)
					}
				}
				require.NoError(b, f.Finish())
			})
		}
	}
}
