package duck

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strings"
	"time"
	"unsafe"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"naru/internal/query"
)

// column reads the values of one result column, or of one level of a nested
// one. The layouts are those of duckdb.h (DuckDB 1.5).
type column struct {
	kind  duckdb.Type
	inner duckdb.Type // of DECIMAL and ENUM: the integer that stores it
	width int         // of DECIMAL: its digits
	scale int         // of them behind the point
	size  int         // of ARRAY
	enum  []string
	names []string // members of STRUCT and UNION
	kids  []column
	plain bool // STRUCT without names: a tuple
	json  bool // VARCHAR that holds JSON

	data  unsafe.Pointer
	valid unsafe.Pointer
}

// newColumn reads a type. It copies all it needs.
func newColumn(t duckdb.LogicalType) (column, error) {
	c := column{kind: duckdb.GetTypeId(t)}
	kid := func(t duckdb.LogicalType) error {
		defer duckdb.DestroyLogicalType(&t)
		k, err := newColumn(t)
		c.kids = append(c.kids, k)
		return err
	}
	var err error
	switch c.kind {
	case duckdb.TypeVarchar:
		c.json = duckdb.LogicalTypeGetAlias(t) == "JSON"
	case duckdb.TypeDecimal:
		c.inner, c.width, c.scale = duckdb.DecimalInternalType(t), int(duckdb.DecimalWidth(t)), int(duckdb.DecimalScale(t))
	case duckdb.TypeEnum:
		c.inner = duckdb.EnumInternalType(t)
		for i := range duckdb.EnumDictionarySize(t) {
			c.enum = append(c.enum, duckdb.EnumDictionaryValue(t, duckdb.IdxT(i)))
		}
	case duckdb.TypeList:
		err = kid(duckdb.ListTypeChildType(t))
	case duckdb.TypeArray:
		c.size = int(duckdb.ArrayTypeArraySize(t))
		err = kid(duckdb.ArrayTypeChildType(t))
	case duckdb.TypeMap:
		if err = kid(duckdb.MapTypeKeyType(t)); err == nil {
			err = kid(duckdb.MapTypeValueType(t))
		}
	case duckdb.TypeStruct:
		c.plain = true
		for i := range duckdb.StructTypeChildCount(t) {
			name := duckdb.StructTypeChildName(t, i)
			c.names = append(c.names, name)
			c.plain = c.plain && name == ""
			if err = kid(duckdb.StructTypeChildType(t, i)); err != nil {
				break
			}
		}
	case duckdb.TypeUnion:
		for i := range duckdb.UnionTypeMemberCount(t) {
			if err = kid(duckdb.UnionTypeMemberType(t, i)); err != nil {
				break
			}
		}
	case duckdb.TypeBoolean, duckdb.TypeTinyInt, duckdb.TypeSmallInt, duckdb.TypeInteger, duckdb.TypeBigInt,
		duckdb.TypeUTinyInt, duckdb.TypeUSmallInt, duckdb.TypeUInteger, duckdb.TypeUBigInt, duckdb.TypeFloat, duckdb.TypeDouble,
		duckdb.TypeHugeInt, duckdb.TypeUHugeInt, duckdb.TypeBigNum, duckdb.TypeBlob, duckdb.TypeBit, duckdb.TypeUUID,
		duckdb.TypeDate, duckdb.TypeTime, duckdb.TypeTimeNS, duckdb.TypeTimeTZ, duckdb.TypeInterval, duckdb.TypeTimestamp, duckdb.TypeTimestampS,
		duckdb.TypeTimestampMS, duckdb.TypeTimestampNS, duckdb.TypeTimestampTZ, duckdb.TypeSQLNull:
	default:
		err = fmt.Errorf("values of type %s cannot be sent: cast them to VARCHAR", typeName(t))
	}
	return c, err
}

// bind points the column at a vector; it is valid as long as its chunk.
func (c *column) bind(v duckdb.Vector) {
	c.data, c.valid = duckdb.VectorGetData(v), duckdb.VectorGetValidity(v)
	switch c.kind {
	case duckdb.TypeList:
		c.kids[0].bind(duckdb.ListVectorGetChild(v))
	case duckdb.TypeMap:
		entry := duckdb.ListVectorGetChild(v)
		c.kids[0].bind(duckdb.StructVectorGetChild(entry, 0))
		c.kids[1].bind(duckdb.StructVectorGetChild(entry, 1))
	case duckdb.TypeArray:
		c.kids[0].bind(duckdb.ArrayVectorGetChild(v))
	case duckdb.TypeStruct:
		for i := range c.kids {
			c.kids[i].bind(duckdb.StructVectorGetChild(v, duckdb.IdxT(i)))
		}
	case duckdb.TypeUnion: // the tag stands first
		c.data = duckdb.VectorGetData(duckdb.StructVectorGetChild(v, 0))
		for i := range c.kids {
			c.kids[i].bind(duckdb.StructVectorGetChild(v, duckdb.IdxT(i+1)))
		}
	}
}

func at[T any](c *column, row int) T {
	var zero T
	return *(*T)(unsafe.Add(c.data, uintptr(row)*unsafe.Sizeof(zero)))
}

func (c *column) null(row int) bool {
	return c.valid != nil && *(*uint64)(unsafe.Add(c.valid, row/64*8))&(1<<(row%64)) == 0
}

// hugeint is DuckDB's 128-bit integer.
type hugeint struct {
	lower uint64
	upper int64
}

func (h hugeint) big() *big.Int {
	b := new(big.Int).Lsh(big.NewInt(h.upper), 64)
	return b.Add(b, new(big.Int).SetUint64(h.lower))
}

type interval struct {
	months, days int32
	micros       int64
}

type listEntry struct{ offset, length uint64 }

// value of a row, as query.Rows documents them. size adds up the bytes of what
// it returns, roughly.
func (c *column) value(row int, size *int64) any {
	if c.kind == duckdb.TypeSQLNull || c.null(row) {
		*size++
		return nil
	}
	*size += 8
	switch c.kind {
	case duckdb.TypeBoolean:
		return at[bool](c, row)
	case duckdb.TypeTinyInt:
		return int64(at[int8](c, row))
	case duckdb.TypeSmallInt:
		return int64(at[int16](c, row))
	case duckdb.TypeInteger:
		return int64(at[int32](c, row))
	case duckdb.TypeBigInt:
		return at[int64](c, row)
	case duckdb.TypeUTinyInt:
		return uint64(at[uint8](c, row))
	case duckdb.TypeUSmallInt:
		return uint64(at[uint16](c, row))
	case duckdb.TypeUInteger:
		return uint64(at[uint32](c, row))
	case duckdb.TypeUBigInt:
		return at[uint64](c, row)
	case duckdb.TypeFloat:
		return widen(at[float32](c, row))
	case duckdb.TypeDouble:
		return at[float64](c, row)
	case duckdb.TypeHugeInt:
		return at[hugeint](c, row).big()
	case duckdb.TypeUHugeInt:
		h := at[hugeint](c, row)
		b := new(big.Int).Lsh(new(big.Int).SetUint64(uint64(h.upper)), 64)
		return b.Add(b, new(big.Int).SetUint64(h.lower))
	case duckdb.TypeBigNum:
		return bignum(c.bytes(row))
	case duckdb.TypeDecimal:
		return c.decimal(row)
	case duckdb.TypeVarchar:
		b := c.bytes(row)
		*size += int64(len(b))
		return string(b)
	case duckdb.TypeBlob:
		b := c.bytes(row)
		*size += int64(len(b))
		return append([]byte{}, b...)
	case duckdb.TypeBit:
		s := bitText(c.bytes(row))
		*size += int64(len(s))
		return s
	case duckdb.TypeUUID:
		return uuidText(at[hugeint](c, row))
	case duckdb.TypeEnum:
		return c.enumText(row)
	case duckdb.TypeDate:
		return dateText(at[int32](c, row))
	case duckdb.TypeTime:
		return timeText(at[int64](c, row) * 1000)
	case duckdb.TypeTimeNS:
		return timeText(at[int64](c, row))
	case duckdb.TypeTimeTZ:
		return timeTZText(at[uint64](c, row))
	case duckdb.TypeInterval:
		return at[interval](c, row).String()
	case duckdb.TypeTimestamp:
		return timestampText(at[int64](c, row), time.Microsecond)
	case duckdb.TypeTimestampS:
		return timestampText(at[int64](c, row), time.Second)
	case duckdb.TypeTimestampMS:
		return timestampText(at[int64](c, row), time.Millisecond)
	case duckdb.TypeTimestampNS:
		return timestampText(at[int64](c, row), time.Nanosecond)
	case duckdb.TypeTimestampTZ:
		micros := at[int64](c, row)
		if s := infinite(micros); s != "" {
			return s
		}
		return time.UnixMicro(micros).UTC()
	case duckdb.TypeList:
		e := at[listEntry](c, row)
		return c.items(int(e.offset), int(e.length), size)
	case duckdb.TypeArray:
		return c.items(row*c.size, c.size, size)
	case duckdb.TypeMap:
		e := at[listEntry](c, row)
		m := make(query.Object, e.length)
		for i := range m {
			key := c.kids[0].value(int(e.offset)+i, size)
			m[i] = query.Member{Name: query.Text(key), Value: c.kids[1].value(int(e.offset)+i, size)}
		}
		return m
	case duckdb.TypeStruct:
		return c.members(row, size)
	case duckdb.TypeUnion:
		return c.kids[at[uint8](c, row)].value(row, size)
	}
	return nil // newColumn let no other kind pass
}

func (c *column) items(from, n int, size *int64) []any {
	list := make([]any, n)
	for i := range list {
		list[i] = c.kids[0].value(from+i, size)
	}
	return list
}

func (c *column) members(row int, size *int64) any {
	if c.plain {
		tuple := make([]any, len(c.kids))
		for i := range tuple {
			tuple[i] = c.kids[i].value(row, size)
		}
		return tuple
	}
	o := make(query.Object, len(c.kids))
	for i := range o {
		*size += int64(len(c.names[i]))
		o[i] = query.Member{Name: c.names[i], Value: c.kids[i].value(row, size)}
	}
	return o
}

// bytes of a string_t: up to 12 inside the element, else behind a pointer. They
// belong to DuckDB.
func (c *column) bytes(row int) []byte {
	p := unsafe.Add(c.data, row*16)
	n := int(*(*uint32)(p))
	if n <= 12 {
		return unsafe.Slice((*byte)(unsafe.Add(p, 4)), n)
	}
	return unsafe.Slice(*(**byte)(unsafe.Add(p, 8)), n)
}

func (c *column) decimal(row int) json.Number {
	var digits string
	switch c.inner {
	case duckdb.TypeSmallInt:
		digits = fmt.Sprint(at[int16](c, row))
	case duckdb.TypeInteger:
		digits = fmt.Sprint(at[int32](c, row))
	case duckdb.TypeBigInt:
		digits = fmt.Sprint(at[int64](c, row))
	default:
		digits = at[hugeint](c, row).big().String()
	}
	if c.scale == 0 {
		return json.Number(digits)
	}
	sign := ""
	if digits[0] == '-' {
		sign, digits = "-", digits[1:]
	}
	if n := c.scale + 1 - len(digits); n > 0 {
		digits = strings.Repeat("0", n) + digits
	}
	point := len(digits) - c.scale
	return json.Number(sign + digits[:point] + "." + digits[point:])
}

func (c *column) enumText(row int) string {
	var i int
	switch c.inner {
	case duckdb.TypeUTinyInt:
		i = int(at[uint8](c, row))
	case duckdb.TypeUSmallInt:
		i = int(at[uint16](c, row))
	default:
		i = int(at[uint32](c, row))
	}
	return c.enum[i]
}

// widen gives the float64 that prints like f.
func widen(f float32) float64 {
	d := float64(f)
	if math.IsNaN(d) || math.IsInf(d, 0) || math.Abs(d) < 1<<24 && d == math.Trunc(d) {
		return d
	}
	short, err := json.Number(fmt.Sprint(f)).Float64()
	if err != nil {
		return d
	}
	return short
}

// bignum reads DuckDB's BIGNUM: three bytes of head whose first bit says
// positive, then the magnitude big-endian; all inverted when negative.
func bignum(b []byte) *big.Int {
	if len(b) < 4 {
		return new(big.Int)
	}
	if b[0]&0x80 != 0 {
		return new(big.Int).SetBytes(b[3:])
	}
	magnitude := make([]byte, len(b)-3)
	for i, x := range b[3:] {
		magnitude[i] = ^x
	}
	n := new(big.Int).SetBytes(magnitude)
	return n.Neg(n)
}
