package duck

/*
#include <stdint.h>
#include <stdlib.h>

void naruInputBind(void *info);
void naruInputInit(void *info);
void naruInputFill(void *info, void *chunk);
*/
import "C"

import (
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"naru/internal/lake/columnar"
	"naru/internal/query"
)

// inputFunction is the table function that gives events to DuckDB: of the columns
// that a plan needs it fills one chunk, straight from those of a stage.
const inputFunction = "_naru_input"

// chunkRows is the size of DuckDB's chunks.
const chunkRows = 2048

// input is what one call of the table function reads. It is used by whoever holds
// the statement that has the call, and by DuckDB while that waits for it.
type input struct {
	id      int64
	columns []inputColumn
	stage   *columnar.Builder
	lo, hi  int // rows of the stage that the next execution reads
	wanted  []int
	done    bool
	err     error
	pins    runtime.Pinner // text that DuckDB's vectors point to
}

// inputColumn is a column that steps may read: one of the stage, or RowColumn.
type inputColumn struct {
	name string
	kind columnar.Kind
	at   int // in the stage's schema; -1: RowColumn
}

var (
	inputs   sync.Map // *input by id
	inputIDs atomic.Int64
)

func newInput() *input {
	in := &input{id: inputIDs.Add(1)}
	inputs.Store(in.id, in)
	return in
}

func (in *input) close() { inputs.Delete(in.id) }

// registerInput makes the table function known to an instance.
func registerInput(c *conn) error {
	f := duckdb.CreateTableFunction()
	defer duckdb.DestroyTableFunction(&f)
	number := duckdb.CreateLogicalType(duckdb.TypeBigInt)
	defer duckdb.DestroyLogicalType(&number)
	duckdb.TableFunctionSetName(f, inputFunction)
	duckdb.TableFunctionAddParameter(f, number)
	duckdb.TableFunctionSetBind(f, C.naruInputBind)
	duckdb.TableFunctionSetInit(f, C.naruInputInit)
	duckdb.TableFunctionSetFunction(f, C.naruInputFill)
	duckdb.TableFunctionSupportsProjectionPushdown(f, true)
	if duckdb.RegisterTableFunction(c.c, f) == duckdb.StateError {
		return fmt.Errorf("register table function %s", inputFunction)
	}
	return nil
}

// inputOf finds the input behind the bind data of a call.
func inputOf(data unsafe.Pointer) *input {
	if data == nil {
		return nil
	}
	v, ok := inputs.Load(*(*int64)(data))
	if !ok {
		return nil
	}
	in, _ := v.(*input)
	return in
}

//export naruInputBind
func naruInputBind(info unsafe.Pointer) {
	b := duckdb.BindInfo{Ptr: info}
	v := duckdb.BindGetParameter(b, 0)
	defer duckdb.DestroyValue(&v)
	id := (*int64)(C.malloc(C.size_t(unsafe.Sizeof(int64(0)))))
	*id = duckdb.GetInt64(v)
	duckdb.BindSetBindData(b, unsafe.Pointer(id), C.free)
	in := inputOf(unsafe.Pointer(id))
	if in == nil {
		duckdb.BindSetError(b, "the input is closed")
		return
	}
	for _, c := range in.columns {
		t := inputType(c.kind)
		duckdb.BindAddResultColumn(b, c.name, t)
		duckdb.DestroyLogicalType(&t)
	}
	// Few against most tables, so that a join looks the table's rows up in these.
	duckdb.BindSetCardinality(b, chunkRows, false)
}

//export naruInputInit
func naruInputInit(info unsafe.Pointer) {
	i := duckdb.InitInfo{Ptr: info}
	in := inputOf(duckdb.InitGetBindData(i))
	if in == nil {
		duckdb.InitSetError(i, "the input is closed")
		return
	}
	duckdb.InitSetMaxThreads(i, 1)
	in.done = false
	in.wanted = in.wanted[:0]
	for n := range duckdb.InitGetColumnCount(i) {
		in.wanted = append(in.wanted, int(duckdb.InitGetColumnIndex(i, n)))
	}
}

//export naruInputFill
func naruInputFill(info, chunk unsafe.Pointer) {
	f, c := duckdb.FunctionInfo{Ptr: info}, duckdb.DataChunk{Ptr: chunk}
	in := inputOf(duckdb.FunctionGetBindData(f))
	if in == nil {
		duckdb.FunctionSetError(f, "the input is closed")
		return
	}
	if in.done || in.hi == in.lo {
		duckdb.DataChunkSetSize(c, 0)
		return
	}
	in.done = true
	for i, at := range in.wanted {
		if at < 0 || at >= len(in.columns) {
			continue // a column of DuckDB's own, of which nothing is read but that it is there
		}
		in.fill(duckdb.DataChunkGetVector(c, duckdb.IdxT(i)), in.columns[at])
	}
	if in.err != nil {
		duckdb.FunctionSetError(f, in.err.Error())
		return
	}
	duckdb.DataChunkSetSize(c, duckdb.IdxT(in.hi-in.lo))
}

// inputType is DuckDB's type for a column of a stage.
func inputType(k columnar.Kind) duckdb.LogicalType {
	if e := k.Element(); e != 0 {
		t := inputType(e)
		defer duckdb.DestroyLogicalType(&t)
		return duckdb.CreateListType(t)
	}
	t := duckdb.CreateLogicalType(inputTypes[k])
	if k == columnar.JSON {
		duckdb.LogicalTypeSetAlias(t, "JSON")
	}
	return t
}

var inputTypes = map[columnar.Kind]duckdb.Type{
	columnar.Bool: duckdb.TypeBoolean, columnar.Long: duckdb.TypeBigInt, columnar.Int: duckdb.TypeInteger, columnar.Double: duckdb.TypeDouble,
	columnar.String: duckdb.TypeVarchar, columnar.JSON: duckdb.TypeVarchar, columnar.Binary: duckdb.TypeBlob, columnar.Timestamp: duckdb.TypeTimestampTZ, columnar.Date: duckdb.TypeDate,
}

// fill writes the rows from lo to hi of a column into a vector.
func (in *input) fill(v duckdb.Vector, c inputColumn) {
	n := in.hi - in.lo
	if c.at < 0 {
		rows := unsafe.Slice((*int64)(duckdb.VectorGetData(v)), n)
		for i := range rows {
			rows[i] = int64(in.lo + i)
		}
		return
	}
	cells, ok := in.stage.Cells(c.at)
	if !ok {
		cells = columnar.Cells{Rows: in.hi, Valid: make([]byte, in.hi/8+1)}
	}
	in.cells(v, &cells, c.kind, in.lo, in.hi)
}

// cells writes values, nulls as the validity of the vector.
func (in *input) cells(v duckdb.Vector, c *columnar.Cells, kind columnar.Kind, lo, hi int) {
	n := hi - lo
	if n == 0 {
		return
	}
	nulls := c.Valid != nil
	if nulls {
		duckdb.VectorEnsureValidityWritable(v)
		valid := unsafe.Slice((*uint64)(duckdb.VectorGetValidity(v)), (n+63)/64)
		for i := range valid {
			valid[i] = math.MaxUint64
		}
		for i := range n {
			if c.Null(lo + i) {
				valid[i>>6] &^= 1 << (i & 63)
			}
		}
	}
	data := duckdb.VectorGetData(v)
	switch kind {
	case columnar.Long, columnar.Timestamp:
		copyCells(data, c.Longs, lo, hi)
	case columnar.Int, columnar.Date:
		copyCells(data, c.Ints, lo, hi)
	case columnar.Double:
		copyCells(data, c.Doubles, lo, hi)
	case columnar.Bool:
		if c.Bools == nil {
			return
		}
		to := unsafe.Slice((*byte)(data), n)
		for i := range to {
			to[i] = c.Bools[(lo+i)>>3] >> ((lo + i) & 7) & 1
		}
	case columnar.String, columnar.JSON, columnar.Binary:
		in.texts(data, c, lo, hi)
	default:
		in.lists(v, data, c, kind, lo, hi)
	}
}

func copyCells[T any](to unsafe.Pointer, from []T, lo, hi int) {
	if len(from) >= hi {
		copy(unsafe.Slice((*T)(to), hi-lo), from[lo:hi])
	}
}

// stringHead is DuckDB's string_t: up to 12 bytes stand in it, of more the first
// four and where they are.
type stringHead struct {
	size  uint32
	first [4]byte
	at    uint64 // or eight more bytes
}

const inlined = 12

// texts writes strings. DuckDB's vector points into the stage's memory, which is
// pinned and left alone until the statement has ended; what DuckDB keeps longer
// it copies.
func (in *input) texts(data unsafe.Pointer, c *columnar.Cells, lo, hi int) {
	if len(c.Text) > 0 {
		in.pins.Pin(&c.Text[0])
	}
	base := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(c.Text))))
	heads := unsafe.Slice((*stringHead)(data), hi-lo)
	for i := range heads {
		row := lo + i
		if c.Null(row) {
			heads[i] = stringHead{}
			continue
		}
		if c.Codes != nil {
			row = int(c.Codes[row])
		}
		from, to := c.Ends[row], c.Ends[row+1]
		h := stringHead{size: uint32(to - from)}
		if h.size <= inlined {
			copy(unsafe.Slice(&h.first[0], inlined), c.Text[from:to])
		} else {
			copy(h.first[:], c.Text[from:from+4])
			h.at = base + uint64(from)
		}
		heads[i] = h
	}
}

func (in *input) lists(v duckdb.Vector, data unsafe.Pointer, c *columnar.Cells, kind columnar.Kind, lo, hi int) {
	if c.Elements == nil {
		return
	}
	entries := unsafe.Slice((*listEntry)(data), hi-lo)
	first, last := int(c.Ends[lo]), int(c.Ends[hi])
	for i := range entries {
		entries[i] = listEntry{offset: uint64(int(c.Ends[lo+i]) - first), length: uint64(c.Ends[lo+i+1] - c.Ends[lo+i])}
	}
	if duckdb.ListVectorReserve(v, duckdb.IdxT(last-first)) == duckdb.StateError || duckdb.ListVectorSetSize(v, duckdb.IdxT(last-first)) == duckdb.StateError {
		in.err = fmt.Errorf("no memory for a list of %d items", last-first)
		clear(entries)
		return
	}
	in.cells(duckdb.ListVectorGetChild(v), c.Elements, kind.Element(), first, last)
}

// declare lists the columns of the stage that steps may name; mentioned tells
// whether one of them does.
func (in *input) declare(mentioned func(name string) bool) (columns []inputColumn) {
	for i, f := range in.stage.Schema().Fields {
		if f.Dropped || f.Kind == columnar.Foreign || f.Name == columnar.ColumnLog || !mentioned(f.Name) {
			continue
		}
		columns = append(columns, inputColumn{name: f.Name, kind: f.Kind, at: i})
	}
	return append(columns, inputColumn{name: query.RowColumn, kind: columnar.Long, at: -1})
}
