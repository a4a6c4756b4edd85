package rowfile

import (
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"naru/internal/event"
)

// parquetFile gathers rows as columns and writes them as row groups.
type parquetFile struct {
	w     *pqarrow.FileWriter
	rows  *array.RecordBuilder
	count int
	kept  int64
}

// A row group ends at either.
const (
	groupRows  = 128 << 10
	groupBytes = 32 << 20 // before encoding
)

func newParquet(w io.Writer, codec string, columns []event.Column) (encoder, error) {
	fields := make([]arrow.Field, len(columns))
	for i, c := range columns {
		fields[i] = arrow.Field{Name: c.Name, Type: arrowType(c.Type), Nullable: true}
	}
	schema := arrow.NewSchema(fields, nil)
	props := []parquet.WriterProperty{
		parquet.WithVersion(parquet.V2_6),
		parquet.WithDataPageVersion(parquet.DataPageV1), // which every reader has
		parquet.WithMaxRowGroupLength(groupRows),
		parquet.WithCreatedBy("naru"),
	}
	switch codec {
	case "gzip":
		props = append(props, parquet.WithCompression(compress.Codecs.Gzip))
	case "zstd":
		props = append(props, parquet.WithCompression(compress.Codecs.Zstd), parquet.WithCompressionLevel(1))
	}
	out, err := pqarrow.NewFileWriter(schema, w, parquet.NewWriterProperties(props...), pqarrow.DefaultWriterProps())
	if err != nil {
		return nil, err
	}
	return &parquetFile{w: out, rows: array.NewRecordBuilder(memory.DefaultAllocator, schema)}, nil
}

func arrowType(t event.ColumnType) arrow.DataType {
	switch t {
	case event.BoolColumn:
		return arrow.FixedWidthTypes.Boolean
	case event.LongColumn:
		return arrow.PrimitiveTypes.Int64
	case event.DoubleColumn:
		return arrow.PrimitiveTypes.Float64
	case event.TimestampColumn:
		return arrow.FixedWidthTypes.Timestamp_us // UTC
	case event.DateColumn:
		return arrow.FixedWidthTypes.Date32
	}
	return arrow.BinaryTypes.String
}

func (f *parquetFile) append(_ *event.Event, _ int32, values []any) error {
	for i, v := range values {
		f.kept += 8
		switch b := f.rows.Field(i); v := v.(type) {
		case nil:
			b.AppendNull()
		case bool:
			b.(*array.BooleanBuilder).Append(v)
		case int64:
			b.(*array.Int64Builder).Append(v)
		case float64:
			b.(*array.Float64Builder).Append(v)
		case string:
			b.(*array.StringBuilder).Append(v)
			f.kept += int64(len(v))
		case json.RawMessage:
			b.(*array.StringBuilder).Append(string(v))
			f.kept += int64(len(v))
		case day:
			b.(*array.Date32Builder).Append(arrow.Date32(v))
		case time.Time:
			b.(*array.TimestampBuilder).Append(arrow.Timestamp(v.UnixMicro()))
		}
	}
	if f.count++; f.count < groupRows && f.kept < groupBytes {
		return nil
	}
	return f.flush()
}

func (f *parquetFile) held() int64 { return f.kept }

func (f *parquetFile) flush() error {
	if f.count == 0 {
		return nil
	}
	rec := f.rows.NewRecordBatch()
	defer rec.Release()
	f.count, f.kept = 0, 0
	return f.w.Write(rec)
}

func (f *parquetFile) finish() error { return errors.Join(f.flush(), f.w.Close()) }
