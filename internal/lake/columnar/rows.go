package columnar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"naru/internal/vfs"
)

// Row is one row of a data file. Its slices are valid until the callback
// returns.
type Row struct {
	Log       []byte // nil when the row names no place in the log
	Partition int32
	Offset    int64
	Values    []Value // of the other columns, without nulls, in the order of the file
}

// Value is a column's value in one row.
type Value struct {
	Field  Field
	Bool   bool
	Long   int64 // Long, Int, Timestamp, Date
	Double float64
	Text   []byte // String, JSON, Binary
	List   []Value
	Null   bool // elements of lists only
}

// ReadRows reads a data file row by row. Columns are found by field id in the
// schema, dropped ones included; those that it does not know are left out.
func ReadRows(ctx context.Context, fs vfs.FS, path string, s *Schema, fn func(*Row) error) (rows int64, err error) {
	err = openFile(fs, path, func(pf *file.Reader) error {
		rows, err = readRows(ctx, pf, s, fn)
		return err
	})
	return rows, err
}

func readRows(ctx context.Context, pf *file.Reader, s *Schema, fn func(*Row) error) (rows int64, err error) {
	r, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{BatchSize: batchRows(pf)}, memory.DefaultAllocator)
	if err != nil {
		return 0, err
	}
	records, err := r.GetRecordReader(ctx, nil, nil)
	if err != nil {
		return 0, err
	}
	defer records.Release()
	fields := make([]Field, len(records.Schema().Fields()))
	for i, af := range records.Schema().Fields() {
		text, _ := af.Metadata.GetValue(fieldIDKey)
		if id, err := strconv.Atoi(text); err == nil {
			fields[i], _ = s.ByID(id)
		}
	}
	var row Row
	for {
		rec, err := records.Read()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return rows, err
		}
		cells := make([]cells, len(fields))
		for i, f := range fields {
			if f.ID == 0 || f.Kind == Foreign {
				continue
			}
			if cells[i], err = cellsOf(f, rec.Column(i)); err != nil {
				return rows, err
			}
		}
		for n := range int(rec.NumRows()) {
			row = Row{Values: row.Values[:0]}
			placed := 0
			for i := range cells {
				if cells[i] == nil {
					continue
				}
				v, ok := cells[i](n)
				if !ok {
					continue
				}
				switch v.Field.ID {
				case idLog:
					row.Log = v.Text
					placed++
				case idPartition:
					row.Partition = int32(v.Long)
					placed++
				case idOffset:
					row.Offset = v.Long
					placed++
				default:
					row.Values = append(row.Values, v)
				}
			}
			if placed < 3 {
				row.Log = nil
			}
			if err := fn(&row); err != nil {
				return rows, err
			}
			rows++
		}
	}
}

// cells gives the value of a row; ok is false for null.
type cells func(row int) (v Value, ok bool)

func cellsOf(f Field, a arrow.Array) (cells, error) {
	value := func(get func(int, *Value)) cells {
		return func(row int) (Value, bool) {
			if a.IsNull(row) {
				return Value{}, false
			}
			v := Value{Field: f}
			get(row, &v)
			return v, true
		}
	}
	switch a := a.(type) {
	case *array.Boolean:
		return value(func(i int, v *Value) { v.Bool = a.Value(i) }), nil
	case *array.Int64:
		return value(func(i int, v *Value) { v.Long = a.Value(i) }), nil
	case *array.Int32:
		return value(func(i int, v *Value) { v.Long = int64(a.Value(i)) }), nil
	case *array.Date32:
		return value(func(i int, v *Value) { v.Long = int64(a.Value(i)) }), nil
	case *array.Timestamp:
		unit := a.DataType().(*arrow.TimestampType).Unit
		if unit != arrow.Microsecond {
			return nil, fmt.Errorf("column %s counts time in %s", f.Name, unit)
		}
		return value(func(i int, v *Value) { v.Long = int64(a.Value(i)) }), nil
	case *array.Float64:
		return value(func(i int, v *Value) { v.Double = a.Value(i) }), nil
	case *array.String:
		return value(func(i int, v *Value) { v.Text = []byte(a.Value(i)) }), nil
	case *array.Binary:
		return value(func(i int, v *Value) { v.Text = a.Value(i) }), nil
	case *array.Dictionary:
		words, err := cellsOf(f, a.Dictionary())
		if err != nil {
			return nil, err
		}
		return func(row int) (Value, bool) {
			if a.IsNull(row) {
				return Value{}, false
			}
			return words(a.GetValueIndex(row))
		}, nil
	case *array.List:
		element := Field{ID: f.ElementID, Kind: f.Kind.Element()}
		get, err := cellsOf(element, a.ListValues())
		if err != nil {
			return nil, err
		}
		return value(func(i int, v *Value) {
			from, to := a.ValueOffsets(i)
			v.List = make([]Value, 0, to-from)
			for j := from; j < to; j++ {
				e, ok := get(int(j))
				if !ok {
					e = Value{Field: element, Null: true}
				}
				v.List = append(v.List, e)
			}
		}), nil
	}
	return nil, fmt.Errorf("column %s has type %s, which naru does not write", f.Name, a.DataType())
}

// MediaType sorts a media type: JSON when there is none; text; else bytes.
func MediaType(contentType []byte) (json, text bool) {
	m := mediaOf(contentType)
	return m == mediaJSON, m == mediaText
}
