package duck

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"naru/internal/lake"
	"naru/internal/query"
)

// Pruning leaves out of a query the data files in which, by the bounds that the
// table's manifests hold, no row can pass the query's WHERE. DuckDB would find that
// out too, but only by opening each file: a quarter of a millisecond and some ten
// kilobytes for each of thousands.
//
// A file is left out only where that is sure. Which terms of the WHERE count is
// query's to say (Statement.Filters); here they are compared with bounds, for
// columns and constants of types that DuckDB compares as they are compared here.
// The constants' values are DuckDB's own, computed in the transaction in which the
// statement then runs, so that now() is the same in both.

// prune takes the files out of the views that no row of the answer can come from.
// views are those of the different tables among tables, which are those of st.Refs.
func (s *session) prune(ctx context.Context, st *query.Statement, tables []lake.Ident, views []*lake.View) error {
	var wanted []*tableFilter
	var all []*condition
	for _, v := range views {
		if f := newTableFilter(st, tables, v); f != nil {
			wanted = append(wanted, f)
			for _, ref := range f.refs {
				all = append(all, ref...)
			}
		}
	}
	if len(all) == 0 {
		return nil
	}
	if err := s.connect(ctx); err != nil {
		return err
	}
	if ok, err := s.evaluate(ctx, all); !ok {
		return err
	}
	for _, f := range wanted {
		kept := make([]lake.File, 0, len(f.view.Files))
		for _, file := range f.view.Files {
			if f.keeps(file.Bounds) {
				kept = append(kept, file)
			}
		}
		f.view.Files = kept
	}
	return nil
}

// tableFilter is what the references to one table ask of its rows.
type tableFilter struct {
	view *lake.View
	refs [][]*condition
}

// newTableFilter is nil when nothing is known of some reference to the table: all
// of them share its view.
func newTableFilter(st *query.Statement, tables []lake.Ident, v *lake.View) *tableFilter {
	columns, err := viewColumns(v)
	if len(v.Files) == 0 || err != nil {
		return nil
	}
	f := &tableFilter{view: v}
	for i, t := range tables {
		if t != v.Ident {
			continue
		}
		var ref []*condition
		for _, c := range st.Filters[i] {
			if c := newCondition(c, columns, v.Columns); c != nil {
				ref = append(ref, c)
			}
		}
		if len(ref) == 0 {
			return nil
		}
		f.refs = append(f.refs, ref)
	}
	return f
}

// keeps tells whether a file with these bounds may have rows for one of the
// references.
func (f *tableFilter) keeps(b lake.Bounds) bool {
	return slices.ContainsFunc(f.refs, func(ref []*condition) bool {
		return !slices.ContainsFunc(ref, func(c *condition) bool { return !c.possible(b) })
	})
}

// family of types whose values are compared in one way.
type family int

const (
	whole    family = iota // INTEGER and BIGINT
	fraction               // DOUBLE
	text                   // VARCHAR: by bytes
	moment                 // TIMESTAMP WITH TIME ZONE: microseconds since 1970
)

var families = map[string]family{"INTEGER": whole, "BIGINT": whole, "DOUBLE": fraction, "VARCHAR": text, "TIMESTAMP WITH TIME ZONE": moment}

// condition is a comparison of a known column.
type condition struct {
	op        query.Op
	fieldID   int
	family    family
	constants []query.Constant
	values    []value // nil: the comparison cannot be judged
}

// newCondition is nil when the name is not that of exactly one column, or its
// type is not one that can be judged. Where the hot tail has widened the column
// the query compares other values than the files have.
func newCondition(c query.Comparison, columns []viewColumn, files []lake.Column) *condition {
	found := -1
	for i, col := range columns {
		if c.Names(col.name) {
			if found >= 0 {
				return nil
			}
			found = i
		}
	}
	if found < 0 {
		return nil
	}
	col := columns[found]
	fam, ok := families[col.typ]
	at := slices.IndexFunc(files, func(f lake.Column) bool { return f.Name == col.name })
	if !ok || at < 0 {
		return nil
	}
	if t, err := columnType(files[at].Type); err != nil || t != col.typ {
		return nil
	}
	return &condition{op: c.Op, fieldID: files[at].FieldID, family: fam, constants: c.Constants}
}

// possible tells whether a file with these bounds may have rows that pass.
func (c *condition) possible(b lake.Bounds) bool {
	if c.values == nil {
		return true
	}
	l, u := b.Get(c.fieldID)
	lower, upper := c.end(l), c.end(u)
	// NaN is the greatest number for DuckDB and beyond all bounds for Iceberg.
	if c.family == fraction && (c.op == query.Greater || c.op == query.GreaterOrEqual) {
		return true
	}
	below := func(v value) bool { return lower.known && v.compare(lower) < 0 } // v is less than all values
	above := func(v value) bool { return upper.known && v.compare(upper) > 0 }
	first := c.values[0]
	switch c.op {
	case query.Equal, query.In:
		return slices.ContainsFunc(c.values, func(v value) bool { return !below(v) && !above(v) })
	case query.Less:
		return !lower.known || lower.compare(first) < 0
	case query.LessOrEqual:
		return !below(first)
	case query.Greater:
		return !upper.known || upper.compare(first) > 0
	case query.GreaterOrEqual:
		return !above(first)
	case query.Between:
		return !above(first) && !below(c.values[1])
	}
	return true
}

// value of a column or a constant. A whole number may be compared with a
// constant that is none: then isFloat is set and the column's value is taken as
// a DOUBLE, as DuckDB does.
type value struct {
	known   bool
	isFloat bool
	i       int64
	f       float64
	s       string
}

func (v value) compare(w value) int {
	switch {
	case v.isFloat || w.isFloat:
		return cmp.Compare(v.float(), w.float()) // no NaN comes here
	case v.s != w.s:
		return cmp.Compare(v.s, w.s)
	}
	return cmp.Compare(v.i, w.i)
}

func (v value) float() float64 {
	if v.isFloat {
		return v.f
	}
	return float64(v.i)
}

// end reads a bound. That of a file from before a promotion (int to long, float to
// double) has the size of its former type.
func (c *condition) end(b lake.Bound) value {
	if !b.Known {
		return value{}
	}
	if c.family == text {
		return value{known: true, s: b.Value}
	}
	var bits uint64
	switch len(b.Value) {
	case 4:
		bits = uint64(binary.LittleEndian.Uint32([]byte(b.Value)))
	case 8:
		bits = binary.LittleEndian.Uint64([]byte(b.Value))
	default:
		return value{}
	}
	if c.family == fraction {
		f := math.Float64frombits(bits)
		if len(b.Value) == 4 {
			f = float64(math.Float32frombits(uint32(bits)))
		}
		return value{known: !math.IsNaN(f), isFloat: true, f: f}
	}
	if len(b.Value) == 4 {
		return value{known: c.family == whole, i: int64(int32(bits))}
	}
	return value{known: true, i: int64(bits)}
}

var (
	wholeTypes = map[string]bool{"TINYINT": true, "SMALLINT": true, "INTEGER": true, "BIGINT": true}
	timeTypes  = map[string]bool{"TIMESTAMP WITH TIME ZONE": true, "TIMESTAMP": true, "DATE": true}
)

// evaluate begins the transaction of the statement and fills in the constants'
// values. ok is false when that failed, which is no error: the statement will say
// what is wrong with it.
func (s *session) evaluate(ctx context.Context, conditions []*condition) (ok bool, err error) {
	var list []string
	for _, c := range conditions {
		for _, k := range c.constants {
			as := k.SQL
			switch c.family {
			case fraction:
				as = "TRY_CAST(" + k.SQL + " AS DOUBLE)"
			case moment:
				as = "TRY_CAST(" + k.SQL + " AS TIMESTAMP WITH TIME ZONE)"
			}
			list = append(list, k.SQL, as) // the first for its type
		}
	}
	if err := s.conn.exec("BEGIN TRANSACTION"); err != nil {
		return false, s.trouble(ctx, "prepare query", err)
	}
	types, values, err := s.conn.row("SELECT " + strings.Join(list, ", "))
	if err != nil {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if err := s.conn.exec("ROLLBACK"); err != nil {
			return false, s.trouble(ctx, "prepare query", err)
		}
		return false, nil
	}
	at := 0
	for _, c := range conditions {
		c.fill(types[at:], values[at:])
		at += 2 * len(c.constants)
	}
	return true, nil
}

// fill takes the constants' values as DuckDB compares them with the column. They
// must agree in their type where it has a say: several constants are brought to
// one type before they are compared.
func (c *condition) fill(types []string, values []any) {
	filled := make([]value, len(c.constants))
	for i, k := range c.constants {
		v := value{known: true}
		typ, ok := types[2*i], false
		switch x := values[2*i+1].(type) {
		case int64:
			v.i, ok = x, c.family == whole && wholeTypes[typ]
		case float64:
			v.isFloat, v.f = true, x
			numeric := wholeTypes[typ] || typ == "DOUBLE" || strings.HasPrefix(typ, "DECIMAL(")
			ok = !math.IsNaN(x) && (c.family == whole && typ == "DOUBLE" || c.family == fraction && numeric)
		case string:
			v.s, ok = x, c.family == text && typ == "VARCHAR"
		case time.Time:
			v.i, ok = x.UnixMicro(), c.family == moment && (timeTypes[typ] || typ == "VARCHAR" && k.Literal)
		}
		if !ok || v.isFloat != filled[0].isFloat && i > 0 {
			return
		}
		filled[i] = v
	}
	c.values = filled
}

var errNoAnswer = errors.New("no answer")

// row runs a statement that answers with one row and gives the columns' types
// and values.
func (c *conn) row(sql string) (types []string, values []any, err error) {
	r, err := c.stream(sql)
	if err != nil {
		return nil, nil, err
	}
	defer r.close()
	var readers []column
	for i := range duckdb.ColumnCount(&r.res) {
		t := duckdb.ColumnLogicalType(&r.res, i)
		reader, err := newColumn(t)
		types = append(types, typeName(t))
		duckdb.DestroyLogicalType(&t)
		if err != nil {
			return nil, nil, err
		}
		readers = append(readers, reader)
	}
	chunk, err := r.next()
	if err == nil && chunk == nil {
		err = errNoAnswer
	}
	if err != nil {
		return nil, nil, err
	}
	for i := range readers {
		readers[i].bind(duckdb.DataChunkGetVector(*chunk, duckdb.IdxT(i)))
		values = append(values, readers[i].value(0, new(int64)))
	}
	return types, values, nil
}
