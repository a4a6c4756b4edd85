package columnar

import (
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// fieldIDKey is the metadata key by which pqarrow hands field ids to Parquet.
const fieldIDKey = "PARQUET:field_id"

func fieldID(id int) arrow.Metadata {
	return arrow.NewMetadata([]string{fieldIDKey}, []string{strconv.Itoa(id)})
}

// arrowType is the Arrow type of a kind's values.
func arrowType(k Kind) arrow.DataType {
	switch k {
	case Bool:
		return arrow.FixedWidthTypes.Boolean
	case Long:
		return arrow.PrimitiveTypes.Int64
	case Int:
		return arrow.PrimitiveTypes.Int32
	case Date:
		return arrow.FixedWidthTypes.Date32
	case Double:
		return arrow.PrimitiveTypes.Float64
	case Timestamp:
		return arrow.FixedWidthTypes.Timestamp_us // UTC
	case Binary:
		return arrow.BinaryTypes.Binary
	default:
		return arrow.BinaryTypes.String
	}
}

// arrowField describes a column; all are nullable.
func arrowField(f Field) arrow.Field {
	t := arrowType(f.Kind)
	if e := f.Kind.Element(); e != 0 {
		t = arrow.ListOfField(arrow.Field{Name: "element", Type: arrowType(e), Nullable: true, Metadata: fieldID(f.ElementID)})
	}
	return arrow.Field{Name: f.Name, Type: t, Nullable: true, Metadata: fieldID(f.ID)}
}

// written lists the fields that stand in files.
func (s *Schema) written() []Field {
	fields := make([]Field, 0, len(s.Fields))
	for _, f := range s.Fields {
		if !f.Dropped && f.Kind != Foreign {
			fields = append(fields, f)
		}
	}
	return fields
}

func arrowSchema(fields []Field) *arrow.Schema {
	af := make([]arrow.Field, len(fields))
	for i, f := range fields {
		af[i] = arrowField(f)
	}
	return arrow.NewSchema(af, nil)
}

// dictionaryType is the form of text columns that repeat themselves.
var dictionaryType = &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}

// array views the column as an Arrow array; no values are copied, so the
// column must not change while the array lives.
func (c *column) array() arrow.Array {
	var valid *memory.Buffer
	if c.nulls > 0 {
		valid = memory.NewBufferBytes(c.valid)
	}
	data := func(t arrow.DataType, children []arrow.ArrayData, buffers ...*memory.Buffer) arrow.ArrayData {
		return array.NewData(t, c.n, append([]*memory.Buffer{valid}, buffers...), children, c.nulls, 0)
	}
	switch c.kind {
	case Bool:
		return array.MakeFromData(data(arrowType(Bool), nil, memory.NewBufferBytes(c.bools)))
	case Long, Timestamp:
		return array.MakeFromData(data(arrowType(c.kind), nil, memory.NewBufferBytes(arrow.Int64Traits.CastToBytes(c.longs))))
	case Int, Date:
		return array.MakeFromData(data(arrowType(c.kind), nil, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(c.ints))))
	case Double:
		return array.MakeFromData(data(arrowType(Double), nil, memory.NewBufferBytes(arrow.Float64Traits.CastToBytes(c.doubles))))
	case String, JSON, Binary:
		if c.dict != nil {
			codes := memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(c.codes))
			return array.MakeFromData(array.NewDataWithDictionary(dictionaryType, c.n, []*memory.Buffer{valid, codes}, c.nulls, 0, c.dict.array()))
		}
		ends := memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(c.ends))
		return array.MakeFromData(data(arrowType(c.kind), nil, ends, memory.NewBufferBytes(c.text)))
	default:
		e := c.elem.array()
		ends := memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(c.ends))
		list := arrow.ListOfField(arrow.Field{Name: "element", Type: e.DataType(), Nullable: true})
		return array.MakeFromData(data(list, []arrow.ArrayData{e.Data()}, ends))
	}
}

func (d *dictionary) array() *array.Data {
	ends := memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(d.ends))
	return array.NewData(arrow.BinaryTypes.String, d.len(), []*memory.Buffer{nil, ends, memory.NewBufferBytes(d.text)}, nil, 0, 0)
}

// load copies an Arrow array of the column's kind into an empty column.
func (c *column) load(a arrow.Array) {
	for row := range a.Len() {
		if a.IsNull(row) {
			c.pad(row + 1)
			continue
		}
		switch a := a.(type) {
		case *array.Int64:
			c.putLong(a.Value(row))
		case *array.String:
			c.putText([]byte(a.Value(row)))
		}
	}
}
