package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/schema"
)

// atOnce is how many values of each column are in memory.
const atOnce = 16 << 10

// column finds a top-level column of a Parquet file.
func column(s *schema.Schema, name string) (int, error) {
	i := s.ColumnIndexByName(name)
	if i < 0 {
		return 0, fmt.Errorf("no column %s", name)
	}
	return i, nil
}

// each opens a Parquet file and calls read for every row group with the
// columns asked for.
func each(path string, names []string, read func(rows int64, columns []file.ColumnChunkReader) error) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	r, err := file.NewParquetReader(f) // closes f
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	defer func() {
		if err = errors.Join(err, r.Close()); err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}()
	for g := range r.NumRowGroups() {
		group := r.RowGroup(g)
		var columns []file.ColumnChunkReader
		for _, name := range names {
			i, err := column(r.MetaData().Schema, name)
			if err != nil {
				return err
			}
			c, err := group.Column(i)
			if err != nil {
				return err
			}
			columns = append(columns, c)
		}
		if err := read(group.NumRows(), columns); err != nil {
			return err
		}
	}
	return nil
}

// numbers gives the rows of whole-number columns in parts, column by column.
// A null is an error: naru's own events have all of them.
func numbers(ctx context.Context, path string, names []string, part func(columns [][]int64)) error {
	levels := make([]int16, atOnce)
	buffers := make([][]int64, len(names))
	for i := range buffers {
		buffers[i] = make([]int64, atOnce)
	}
	return each(path, names, func(rows int64, columns []file.ColumnChunkReader) error {
		for rows > 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			n := min(rows, atOnce)
			out := make([][]int64, len(columns))
			for i, c := range columns {
				ints, ok := c.(*file.Int64ColumnChunkReader)
				if !ok {
					return fmt.Errorf("column %s is no column of whole numbers", names[i])
				}
				for at := int64(0); at < n; {
					total, values, err := ints.ReadBatch(n-at, buffers[i][at:n], levels[at:n], nil)
					if err != nil {
						return fmt.Errorf("column %s: %w", names[i], err)
					}
					if total == 0 || int64(values) != total {
						return fmt.Errorf("column %s: %d of %d values are null or missing", names[i], total-int64(values), n-at)
					}
					at += total
				}
				out[i] = buffers[i][:n]
			}
			part(out)
			rows -= n
		}
		return nil
	})
}

// texts gives the values of one column of bytes.
func texts(ctx context.Context, path, name string, value func([]byte)) error {
	levels := make([]int16, 1024)
	buffer := make([]parquet.ByteArray, 1024)
	return each(path, []string{name}, func(rows int64, columns []file.ColumnChunkReader) error {
		c, ok := columns[0].(*file.ByteArrayColumnChunkReader)
		if !ok {
			return fmt.Errorf("column %s is no column of bytes", name)
		}
		for rows > 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			total, values, err := c.ReadBatch(min(rows, int64(len(buffer))), buffer, levels, nil)
			if err != nil {
				return fmt.Errorf("column %s: %w", name, err)
			}
			if total == 0 || int64(values) != total {
				return fmt.Errorf("column %s: values are null or missing", name)
			}
			for _, v := range buffer[:values] {
				value(v)
			}
			rows -= total
		}
		return nil
	})
}
