package columnar

import (
	"context"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"

	"naru/internal/vfs"
)

// Run are rows of a file, [From, To), by their number in it.
type Run struct{ From, To int64 }

// Copied is a finished file of which some rows are copied.
type Copied struct {
	Path string
	Rows []Run // in order, without overlap
}

// Copy writes the rows of several files of one partition, in their order, into one new
// file at dst made by create. All are of the schema given, or an earlier form of it. It
// holds about one row group in memory.
func Copy(ctx context.Context, fs vfs.FS, create func(path string) (Output, error), from []Copied, dst string, schema *Schema) (DataFile, error) {
	var all []source
	for _, c := range from {
		all = append(all, source{path: c.Path, schema: schema, rows: c.Rows})
	}
	f, _, err := merge(ctx, fs, create, all, dst, nil, schema)
	return f, err
}

// RowsWhere lists the rows of a file whose places are wanted; a row without a place is
// asked for with a nil log.
func RowsWhere(ctx context.Context, fs vfs.FS, path string, want func(log []byte, partition int32, offset int64) bool) (runs []Run, n int64, err error) {
	at := int64(0)
	_, err = ReadPlaces(ctx, fs, path, PlacesOptions{}, func(p *Places) error {
		for i := range p.Log {
			if want(p.Log[i], p.Partition[i], p.Offset[i]) {
				if k := len(runs) - 1; k >= 0 && runs[k].To == at {
					runs[k].To++
				} else {
					runs = append(runs, Run{at, at + 1})
				}
				n++
			}
			at++
		}
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("look for rows to copy: %w", err)
	}
	return runs, n, nil
}

// pick writes those rows of a record that runs name; at is the number of its first one.
// It returns the runs that are left.
func (m *merger) pick(rec arrow.RecordBatch, plan []step, at int64, runs []Run) ([]Run, error) {
	end := at + rec.NumRows()
	for len(runs) > 0 && runs[0].From < end {
		from, to := max(runs[0].From, at), min(runs[0].To, end)
		part := rec.NewSlice(from-at, to-at)
		err := m.write(part, plan)
		part.Release()
		if err != nil {
			return nil, err
		}
		if runs[0].To > end {
			break
		}
		runs = runs[1:]
	}
	return runs, nil
}
