package duck

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"naru/internal/event"
	"naru/internal/lake/columnar"
	"naru/internal/query"
)

// outColumn is a column of the rows that steps make.
type outColumn struct {
	event.Column
	role role
	col  column
	to   uint64 // of a routeColumn: its bit in event.Event.To
}

type role uint8

const (
	dataColumn     role = iota
	ownColumn           // the event's own: the value counts for nothing
	overrideColumn      // an attribute of the event
	rowColumn           // query.RowColumn
	routeColumn         // query.RouteColumn
)

var overrides = map[string]bool{"_id": true, "_type": true, "_source": true, "_subject": true, "_time": true}

// readColumns reads what the rows of a result are.
func readColumns(res *duckdb.Result, null []bool) (columns []outColumn, err error) {
	routes := 0 // in their order
	for i := range duckdb.ColumnCount(res) {
		t := duckdb.ColumnLogicalType(res, i)
		c := outColumn{Column: event.Column{Name: duckdb.ColumnName(res, i)}}
		name := typeName(t)
		c.col, err = newColumn(t)
		duckdb.DestroyLogicalType(&t)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", c.Name, err)
		}
		if int(i) < len(null) && null[i] {
			c.col, name = column{kind: duckdb.TypeSQLNull}, "NULL"
		}
		if c.Name == query.RowColumn {
			c.role = rowColumn
			columns = append(columns, c)
			continue
		}
		if c.Name == query.RouteColumn(routes) {
			c.role, c.to = routeColumn, 1<<routes
			routes++
			columns = append(columns, c)
			continue
		}
		c.Type = c.col.eventType()
		for _, e := range event.Envelope {
			if foldName(c.Name) != e.Name {
				continue
			}
			c.role = ownColumn
			if overrides[e.Name] {
				c.role = overrideColumn
			}
			if e.Name == "_time" && c.Type != event.TimestampColumn && c.Type != event.DateColumn && c.col.kind != duckdb.TypeSQLNull {
				return nil, fmt.Errorf("column _time is %s: it is the time of the event; write CAST(... AS TIMESTAMPTZ) AS _time, or choose another name", name)
			}
			c.Column = e
		}
		columns = append(columns, c)
	}
	return columns, nil
}

// eventType is the type that sinks know.
func (c *column) eventType() event.ColumnType {
	switch c.kind {
	case duckdb.TypeBoolean:
		return event.BoolColumn
	case duckdb.TypeTinyInt, duckdb.TypeSmallInt, duckdb.TypeInteger, duckdb.TypeBigInt, duckdb.TypeUTinyInt, duckdb.TypeUSmallInt, duckdb.TypeUInteger, duckdb.TypeUBigInt,
		duckdb.TypeHugeInt, duckdb.TypeUHugeInt:
		return event.LongColumn
	case duckdb.TypeFloat, duckdb.TypeDouble:
		return event.DoubleColumn
	case duckdb.TypeDecimal:
		if c.inner != duckdb.TypeHugeInt && c.width <= exactDigits {
			return event.DoubleColumn
		}
	case duckdb.TypeVarchar:
		if c.json {
			return event.JSONColumn
		}
	case duckdb.TypeDate:
		return event.DateColumn
	case duckdb.TypeTimestamp, duckdb.TypeTimestampS, duckdb.TypeTimestampMS, duckdb.TypeTimestampNS, duckdb.TypeTimestampTZ:
		return event.TimestampColumn
	case duckdb.TypeList, duckdb.TypeArray, duckdb.TypeStruct, duckdb.TypeMap, duckdb.TypeUnion:
		return event.JSONColumn
	}
	return event.StringColumn
}

// exactDigits are those that a double keeps.
const exactDigits = 15

// keep makes events of the rows of a result.
func (a *applying) keep(p *prepared, res *duckdb.Result, lo, hi int) error {
	g := a.segment
	if p.columns == nil {
		columns, err := readColumns(res, p.null)
		if err != nil {
			step := g.plan.steps[len(g.plan.steps)-1]
			return &stepError{line: step.line, step: step.label, err: err}
		}
		p.columns = columns
	}
	a.know(p.columns)
	first := len(a.rows.List)
	w := rowWriter{columns: p.columns, from: g.from, times: g.times(), rows: &a.rows, most: int(g.s.cfg.Rows)}
	a.expect(lo, hi)
	for {
		chunk := duckdb.FetchChunk(*res)
		if chunk.Ptr == nil {
			break
		}
		err := w.chunk(chunk)
		duckdb.DestroyDataChunk(&chunk)
		switch {
		case err == nil:
		case err != errRows:
			return err
		case hi-lo > 1:
			return &memoryError{err}
		default:
			return &rowError{text: fmt.Sprintf("the rows of this event take more than %s (steps.rows)", g.s.cfg.Rows)}
		}
	}
	a.size += w.made
	a.sort(first)
	return nil
}

// expect makes room for the rows of the whole batch, if each event has one.
func (a *applying) expect(lo, hi int) {
	if len(a.rows.List) == 0 && hi > lo {
		left := min(a.in.Next-a.segment.from.list[lo].offset, roomRows)
		a.rows.List = slices.Grow(a.rows.List, max(hi-lo, int(left)))
	}
}

// roomRows is for how many rows room is made before they are there.
const roomRows = 32_768

var errRows = errors.New("too many rows at once")

// sort puts rows, from the first that is new, into the order of their events, and those
// of one event into one that is the same each time.
func (a *applying) sort(first int) {
	made := a.rows.List[first:]
	byOffset := func(x, y event.Row) int { return cmp.Compare(x.Offset, y.Offset) }
	if !slices.IsSortedFunc(made, byOffset) {
		slices.SortStableFunc(made, byOffset)
	}
	if !a.segment.plan.joins {
		return
	}
	// A join gives its rows in any order.
	for from, to := 0, 0; from < len(made); from = to {
		for to = from + 1; to < len(made) && made[to].Offset == made[from].Offset; to++ {
		}
		if to-from > 1 {
			a.sortByValue(made[from:to])
		}
	}
}

// sortByValue puts the rows of one event into an order.
func (a *applying) sortByValue(rows []event.Row) {
	one := event.Rows{List: rows, Frames: a.rows.Frames}
	all := make([]event.Event, len(rows))
	order := make([]int, len(rows))
	for i := range rows {
		one.Event(i, &all[i], nil)
		order[i] = i
	}
	slices.SortStableFunc(order, func(x, y int) int { return compareRows(&all[x], &all[y]) })
	was := slices.Clone(rows)
	for i, from := range order {
		rows[i] = was[from]
	}
}

func compareRows(x, y *event.Event) int {
	for _, pair := range [][2][]byte{{x.Data, y.Data}, {x.ID, y.ID}, {x.Type, y.Type}, {x.Source, y.Source}, {x.Subject, y.Subject}} {
		if c := bytes.Compare(pair[0], pair[1]); c != 0 {
			return c
		}
	}
	return x.Time.Compare(y.Time)
}

// know adds columns to those of the batch.
func (a *applying) know(columns []outColumn) {
	for _, c := range columns {
		if c.role == rowColumn || c.role == routeColumn {
			continue
		}
		at := slices.IndexFunc(a.columns, func(k event.Column) bool { return k.Name == c.Name })
		switch {
		case at < 0:
			a.columns = append(a.columns, c.Column)
		case a.columns[at].Type != c.Type:
			a.columns[at].Type = wider(a.columns[at].Type, c.Type, c.col.kind == duckdb.TypeSQLNull)
		}
	}
}

// wider is the type of a column that changes within a batch, as it does where the
// first fraction of a field comes.
func wider(a, b event.ColumnType, null bool) event.ColumnType {
	switch {
	case null:
		return a
	case a == event.LongColumn && b == event.DoubleColumn, a == event.DoubleColumn && b == event.LongColumn:
		return event.DoubleColumn
	}
	return b
}

// times are the values of _time that steps have read, for each event.
func (g *segment) times() []int64 {
	for i, f := range g.stage.Schema().Fields {
		if f.Name == columnar.ColumnTime {
			cells, _ := g.stage.Cells(i)
			return cells.Longs
		}
	}
	return nil
}

// rowWriter makes rows of the chunks of a result.
type rowWriter struct {
	columns []outColumn
	from    *sources
	times   []int64
	rows    *event.Rows
	made    int // bytes
	most    int // of them
}

// chunk adds a frame with the rows of a chunk; errRows: they take too much.
func (w *rowWriter) chunk(chunk duckdb.DataChunk) error {
	n := int(duckdb.DataChunkGetSize(chunk))
	at := -1
	for i := range w.columns {
		w.columns[i].col.bind(duckdb.DataChunkGetVector(chunk, duckdb.IdxT(i)))
		if w.columns[i].role == rowColumn {
			at = i
		}
	}
	if at < 0 {
		return errLost
	}
	f := &frame{of: w.from, source: make([]int32, n)}
	number, first := int32(len(w.rows.Frames)), len(w.rows.List)
	w.rows.List = slices.Grow(w.rows.List, n)
	for row := range n {
		source := atRow(&w.columns[at].col, row)
		if source < 0 || source >= int64(w.from.len()) {
			return errLost
		}
		f.source[row] = int32(source)
		w.rows.List = append(w.rows.List, event.Row{Offset: w.from.list[source].offset, Frame: number, At: int32(row)})
	}
	w.rows.Frames = append(w.rows.Frames, f)
	w.from.frames++
	f.cells.Rows = n
	w.made += n * (event.RowSize + 4)
	for i := range w.columns {
		if err := w.column(&w.columns[i], f, w.rows.List[first:]); err == errRows {
			return err
		} else if err != nil {
			return &rowError{text: fmt.Sprintf("column %s: %v", w.columns[i].Name, err)}
		}
	}
	if w.made += 4*len(f.instead) + f.own.size(); w.made > w.most {
		return errRows
	}
	return nil
}

var errLost = errors.New("compute steps: rows have lost their event")

// column reads one column of a chunk into a frame and its rows.
func (w *rowWriter) column(c *outColumn, f *frame, rows []event.Row) error {
	switch c.role {
	case rowColumn, ownColumn:
		return nil
	case routeColumn:
		for row := range rows {
			if !c.col.null(row) && isTrue(&c.col, row) {
				rows[row].To |= c.to
			}
		}
		return nil
	}
	if c.col.kind == duckdb.TypeSQLNull {
		return nil
	}
	if c.role == overrideColumn {
		for row := range rows {
			if !c.col.null(row) {
				if err := f.override(c, row, w.times); err != nil {
					return err
				}
				if w.made+f.own.size() > w.most {
					return errRows
				}
			}
		}
		return nil
	}
	cells, err := c.col.cells(len(rows), w.most-w.made)
	if err != nil {
		return err
	}
	if !cells.Any() {
		return nil // whether an event has too many rows may not depend on what others have
	}
	cells.Field.Name = c.Name
	f.cells.Add(cells)
	if w.made += f.cells.Last().Size(); w.made > w.most {
		return errRows
	}
	return nil
}

func atRow(c *column, row int) int64 { return at[int64](c, row) }

func isTrue(c *column, row int) bool { return at[bool](c, row) }
