package columnar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/metadata"

	"naru/internal/vfs"
)

// Places says where the events of some rows of a data file stand in the log:
// slices of one length, valid until the callback returns.
type Places struct {
	Log       [][]byte // nil where a row names no place, as another writer's rows do
	Partition []int32
	Offset    []int64
}

// PlacesOptions choose what ReadPlaces reads.
type PlacesOptions struct {
	// Want is asked for the offsets of each row group, from the file's own
	// statistics; groups without them are always read. Nil reads all.
	Want func(first, last int64) bool
}

// placesBatch is how many rows are read at once.
const placesBatch = 16 << 10

// ReadPlaces reads _log, _partition and _offset of a data file, and nothing
// else of it, in the order of its rows. It returns how many rows the file has,
// those of groups left out included. A file without these columns, as another
// writer makes it, has rows without places.
func ReadPlaces(ctx context.Context, fs vfs.FS, path string, o PlacesOptions, fn func(*Places) error) (rows int64, err error) {
	err = openFile(fs, path, func(pf *file.Reader) error {
		rows, err = readPlaces(ctx, pf, o, fn)
		return err
	})
	return rows, err
}

func readPlaces(ctx context.Context, pf *file.Reader, o PlacesOptions, fn func(*Places) error) (rows int64, err error) {
	r := &placeReader{logAt: leaf(pf, idLog, ColumnLog), partitionAt: leaf(pf, idPartition, ColumnPartition), offsetAt: leaf(pf, idOffset, ColumnOffset)}
	for g := range pf.NumRowGroups() {
		if err := ctx.Err(); err != nil {
			return rows, err
		}
		rg := pf.RowGroup(g)
		rows += rg.NumRows()
		if o.Want != nil && r.offsetAt >= 0 {
			if first, last, ok := groupBounds(pf, g, r.offsetAt); ok && !o.Want(first, last) {
				continue
			}
		}
		if err := r.group(rg, fn); err != nil {
			return rows, err
		}
	}
	return rows, nil
}

// openFile opens a data file for fn. Its bytes are not trusted: a parser that
// panics over them gives an error.
func openFile(fs vfs.FS, path string, fn func(*file.Reader) error) (err error) {
	f, err := fs.Open(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("parse: %v", p)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			err = fmt.Errorf("read %s: %w", path, err)
		}
	}()
	pf, err := file.NewParquetReader(struct{ parquet.ReaderAtSeeker }{f})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pf.Close()) }()
	return fn(pf)
}

// leaf finds a column by field id, or by name where a file has no ids.
func leaf(pf *file.Reader, id int32, name string) int {
	s := pf.MetaData().Schema
	byName := -1
	for i := range s.NumColumns() {
		n := s.Column(i).SchemaNode()
		if n.FieldID() == id {
			return i
		}
		if n.FieldID() < 0 && s.Column(i).Path() == name {
			byName = i
		}
	}
	return byName
}

// groupBounds are the statistics of a column of 64-bit numbers in a row group.
func groupBounds(pf *file.Reader, group, column int) (first, last int64, ok bool) {
	c, err := pf.MetaData().RowGroup(group).ColumnChunk(column)
	if err != nil {
		return 0, 0, false
	}
	if set, err := c.StatsSet(); err != nil || !set {
		return 0, 0, false
	}
	st, err := c.Statistics()
	if err != nil || st == nil || !st.HasMinMax() {
		return 0, 0, false
	}
	n, is := st.(*metadata.Int64Statistics)
	if !is {
		return 0, 0, false
	}
	return n.Min(), n.Max(), true
}

// placeReader holds the buffers of one file's reading.
type placeReader struct {
	logAt, partitionAt, offsetAt int

	texts             []parquet.ByteArray
	ints              []int32
	longs             []int64
	levels            []int16
	out               Places
	nullPart, nullOff []bool
	last              []byte            // of _log
	names             map[string][]byte // all of _log
}

func (r *placeReader) group(rg *file.RowGroupReader, fn func(*Places) error) error {
	left := rg.NumRows()
	if r.texts == nil {
		r.texts, r.ints, r.longs = make([]parquet.ByteArray, placesBatch), make([]int32, placesBatch), make([]int64, placesBatch)
		r.levels = make([]int16, placesBatch)
		r.out = Places{Log: make([][]byte, placesBatch), Partition: make([]int32, placesBatch), Offset: make([]int64, placesBatch)}
		r.nullPart, r.nullOff = make([]bool, placesBatch), make([]bool, placesBatch)
	}
	if r.logAt < 0 || r.partitionAt < 0 || r.offsetAt < 0 {
		clear(r.out.Log)
		for left > 0 {
			n := min(left, placesBatch)
			if err := fn(&Places{Log: r.out.Log[:n], Partition: r.out.Partition[:n], Offset: r.out.Offset[:n]}); err != nil {
				return err
			}
			left -= n
		}
		return nil
	}
	logs, err := placeColumn[*file.ByteArrayColumnChunkReader](rg, r.logAt)
	if err != nil {
		return err
	}
	partitions, err := placeColumn[*file.Int32ColumnChunkReader](rg, r.partitionAt)
	if err != nil {
		return err
	}
	offsets, err := placeColumn[*file.Int64ColumnChunkReader](rg, r.offsetAt)
	if err != nil {
		return err
	}
	for left > 0 {
		n := min(left, placesBatch)
		err := fill(n, logs.ReadBatchInPage, r.texts, r.levels, logs.Descriptor().MaxDefinitionLevel(), func(i int, v parquet.ByteArray, null bool) {
			if null {
				r.out.Log[i] = nil
				return
			}
			r.out.Log[i] = r.name(v)
		})
		if err == nil {
			err = fill(n, partitions.ReadBatchInPage, r.ints, r.levels, partitions.Descriptor().MaxDefinitionLevel(), func(i int, v int32, null bool) {
				r.out.Partition[i], r.nullPart[i] = v, null
			})
		}
		if err == nil {
			err = fill(n, offsets.ReadBatchInPage, r.longs, r.levels, offsets.Descriptor().MaxDefinitionLevel(), func(i int, v int64, null bool) {
				r.out.Offset[i], r.nullOff[i] = v, null
			})
		}
		if err != nil {
			return err
		}
		for i := range n {
			if r.nullPart[i] || r.nullOff[i] {
				r.out.Log[i] = nil
			}
		}
		if err := fn(&Places{Log: r.out.Log[:n], Partition: r.out.Partition[:n], Offset: r.out.Offset[:n]}); err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// name copies a text that lies in a page: the page goes when the next one comes.
func (r *placeReader) name(v []byte) []byte {
	if bytes.Equal(v, r.last) && r.last != nil {
		return r.last
	}
	known, ok := r.names[string(v)]
	if !ok {
		if r.names == nil || len(r.names) > maxNames {
			r.names = map[string][]byte{}
		}
		known = append([]byte{}, v...)
		r.names[string(v)] = known
	}
	r.last = known
	return known
}

// maxNames bounds what name remembers; a log has few incarnations.
const maxNames = 1000

// placeColumn opens a column chunk that must have the type that naru writes.
func placeColumn[T file.ColumnChunkReader](rg *file.RowGroupReader, at int) (T, error) {
	var none T
	c, err := rg.Column(at)
	if err != nil {
		return none, err
	}
	typed, ok := c.(T)
	if !ok {
		return none, fmt.Errorf("column %s has type %s, which naru does not write there", c.Descriptor().Path(), c.Type())
	}
	if c.Descriptor().MaxRepetitionLevel() > 0 {
		return none, fmt.Errorf("column %s is a list", c.Descriptor().Path())
	}
	return typed, nil
}

// fill reads exactly n values, nulls included, page by page, and hands out each.
func fill[T any](n int64, read func(int64, []T, []int16, []int16) (int64, int, error), values []T, levels []int16, max int16, set func(int, T, bool)) error {
	for done := int64(0); done < n; {
		want := n - done
		if max == 0 {
			got, _, err := read(want, values[:want], nil, nil)
			if err != nil {
				return err
			}
			if got == 0 {
				return io.ErrUnexpectedEOF
			}
			for i := range got {
				set(int(done+i), values[i], false)
			}
			done += got
			continue
		}
		got, _, err := read(want, values[:want], levels[:want], nil)
		if err != nil {
			return err
		}
		if got == 0 {
			return io.ErrUnexpectedEOF
		}
		at := 0
		var zero T
		for i := range got {
			if levels[i] < max {
				set(int(done+i), zero, true)
				continue
			}
			set(int(done+i), values[at], false)
			at++
		}
		done += got
	}
	return nil
}
