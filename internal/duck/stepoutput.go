package duck

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"
	"unsafe"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"naru/internal/event"
	"naru/internal/jsonscan"
	"naru/internal/lake/columnar"
	"naru/internal/query"
)

// outColumn is a column of the rows that steps make.
type outColumn struct {
	event.Column
	role role
	key  []byte // `"name":`
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
		c.key = append(jsonscan.AppendQuoted(nil, c.Name), ':')
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
	first, made := len(a.rows), 0
	w := rowWriter{columns: p.columns, from: g.from, times: g.times()}
	for {
		chunk := duckdb.FetchChunk(*res)
		if chunk.Ptr == nil {
			break
		}
		err := w.chunk(chunk, &a.rows)
		duckdb.DestroyDataChunk(&chunk)
		if err != nil {
			return err
		}
		if made += w.made; made <= int(g.s.cfg.Rows) {
			continue
		}
		if hi-lo > 1 {
			return &memoryError{errRows}
		}
		return &rowError{text: fmt.Sprintf("the rows of this event take more than %s (steps.rows)", g.s.cfg.Rows)}
	}
	a.size += made
	a.sort(a.rows[first:])
	return nil
}

var errRows = errors.New("too many rows at once")

// sort puts rows into the order of their events, and those of one event into one
// that is the same each time.
func (a *applying) sort(made []event.Event) {
	byOffset := func(x, y event.Event) int { return int(min(max(x.Offset-y.Offset, -1), 1)) }
	if a.segment.plan.joins {
		// A join gives its rows in any order.
		slices.SortStableFunc(made, func(x, y event.Event) int {
			if c := byOffset(x, y); c != 0 {
				return c
			}
			return compareRows(&x, &y)
		})
	} else if !slices.IsSortedFunc(made, byOffset) {
		slices.SortStableFunc(made, byOffset)
	}
}

// rowBytes is what a row takes beside its data.
const rowBytes = int(unsafe.Sizeof(event.Event{}))

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

// rowWriter makes events of rows.
type rowWriter struct {
	columns []outColumn
	from    []event.Event
	times   []int64
	arena   []byte
	made    int // bytes of the last chunk's rows
}

func (w *rowWriter) chunk(chunk duckdb.DataChunk, rows *[]event.Event) error {
	n := int(duckdb.DataChunkGetSize(chunk))
	at := -1
	for i := range w.columns {
		w.columns[i].col.bind(duckdb.DataChunkGetVector(chunk, duckdb.IdxT(i)))
		if w.columns[i].role == rowColumn {
			at = i
		}
	}
	if at < 0 {
		return errors.New("compute steps: rows have lost their event")
	}
	w.arena = make([]byte, 0, max(len(w.arena)+len(w.arena)/8, 1024)) // the old one is the rows'
	*rows = slices.Grow(*rows, n)
	for row := range n {
		source := atRow(&w.columns[at].col, row)
		if source < 0 || source >= int64(len(w.from)) {
			return errors.New("compute steps: rows have lost their event")
		}
		e := w.from[source]
		start := len(w.arena)
		w.arena = append(w.arena, '{')
		for i := range w.columns {
			c := &w.columns[i]
			if c.role == routeColumn {
				if !c.col.null(row) && isTrue(&c.col, row) {
					e.To |= c.to
				}
				continue
			}
			if c.role == ownColumn || c.role == rowColumn || c.col.kind == duckdb.TypeSQLNull || c.col.null(row) {
				continue
			}
			var err error
			if c.role == overrideColumn {
				err = w.override(c, row, &e, w.times[source])
			} else {
				before := len(w.arena)
				w.arena = append(w.arena, c.key...)
				value := len(w.arena)
				w.arena, err = c.col.appendJSON(w.arena, row, true)
				if len(w.arena) == value { // null
					w.arena = w.arena[:before]
				} else {
					w.arena = append(w.arena, ',')
				}
			}
			if err != nil {
				return &rowError{text: fmt.Sprintf("column %s: %v", c.Name, err)}
			}
		}
		if last := len(w.arena) - 1; w.arena[last] == ',' {
			w.arena = w.arena[:last]
		}
		w.arena = append(w.arena, '}')
		e.Data = w.arena[start:len(w.arena):len(w.arena)]
		*rows = append(*rows, e)
	}
	w.made = len(w.arena) + n*rowBytes
	return nil
}

func atRow(c *column, row int) int64 { return at[int64](c, row) }

func isTrue(c *column, row int) bool { return at[bool](c, row) }

// override gives an event an attribute that a step has computed.
func (w *rowWriter) override(c *outColumn, row int, e *event.Event, read int64) error {
	if c.Name == "_time" {
		micros, err := c.col.micros(row)
		if err == nil && micros != read {
			e.Time = time.UnixMicro(micros).UTC()
		}
		return err
	}
	var size int64
	var text []byte
	if c.col.kind == duckdb.TypeVarchar {
		text = c.col.bytes(row)
	} else {
		text = []byte(query.Text(c.col.value(row, &size)))
	}
	var to *[]byte
	switch c.Name {
	case "_id":
		to = &e.ID
	case "_type":
		to = &e.Type
	case "_source":
		to = &e.Source
	default:
		to = &e.Subject
	}
	if bytes.Equal(*to, text) {
		return nil
	}
	if len(text) == 0 && c.Name != "_subject" {
		return errors.New("is empty; NULL keeps that of the event")
	}
	if c.Name == "_id" {
		e.GeneratedID = false
	}
	*to = bytes.Clone(text)
	return nil
}
