package columnar

import (
	"context"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"

	"naru/internal/fault"
	"naru/internal/vfs"
)

// ReadThrough reads every page of a Parquet file of whatever writer and returns
// its rows. Damage that the format shows (footer, page headers, compressed pages
// that do not unpack, checksums of pages) is a *fault.Corrupt; a changed byte in
// a page that is stored plain is not seen.
func ReadThrough(ctx context.Context, fs vfs.FS, path string) (rows int64, err error) {
	f, err := fs.Open(path)
	if err != nil {
		return 0, err
	}
	at := int64(-1)
	defer func() {
		// Over bytes that nothing vouches for, the reader may panic.
		if p := recover(); p != nil {
			err = &fault.Corrupt{Path: path, Offset: at, Reason: fmt.Sprint(p)}
		}
		err = errors.Join(err, f.Close())
	}()
	bad := func(err error) error { return &fault.Corrupt{Path: path, Offset: at, Reason: err.Error()} }
	r, err := file.NewParquetReader(struct{ parquet.ReaderAtSeeker }{f})
	if err != nil {
		return 0, bad(err)
	}
	for g := range r.NumRowGroups() {
		group := r.RowGroup(g)
		for c := range group.NumColumns() {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			chunk, err := group.MetaData().ColumnChunk(c)
			if err != nil {
				return 0, bad(err)
			}
			at = chunk.DataPageOffset()
			if chunk.HasDictionaryPage() {
				at = min(at, chunk.DictionaryPageOffset())
			}
			pages, err := group.GetColumnPageReader(c)
			if err != nil {
				return 0, bad(err)
			}
			for pages.Next() { // unpacks the page
				_ = pages.Page()
			}
			if err := pages.Err(); err != nil {
				return 0, bad(fmt.Errorf("row group %d, column %d: %w", g, c, err))
			}
		}
	}
	return r.NumRows(), nil
}
