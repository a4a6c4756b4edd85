package clickhouse

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"naru/internal/event"
	"naru/internal/jsonscan"
	"naru/internal/row"
	"naru/internal/sink"
)

// queue are the rows of one partition in one life of the log that are not inserted.
type queue struct {
	columns []event.Column // of all rows
	reader  *row.Reader
	given   []event.Column // that reader reads
	data    []byte         // rows as JSON, a line each
	lines   []line
}

// line is a row of a queue.
type line struct {
	offset  int64
	row     int32
	end     int    // in data
	refused string // why it is not in data
}

// lineBytes is what a row holds beside its data.
const lineBytes = 40

func (q *queue) size() int64 { return int64(len(q.data) + len(q.lines)*lineBytes) }

// columnsAre is told of the columns of the rows that come next.
func (q *queue) columnsAre(columns []event.Column) {
	if q.reader != nil && slices.Equal(q.given, columns) {
		return
	}
	q.given, q.reader = columns, row.NewReader(columns)
	for _, c := range columns {
		if !slices.ContainsFunc(q.columns, func(have event.Column) bool { return have.Name == c.Name }) {
			q.columns = append(q.columns, c)
		}
	}
}

// What DateTime64 and Date32 can hold.
var (
	firstTime = time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)
	lastTime  = time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC)
)

// add appends a row; key is the column that its key goes to, empty: none.
func (q *queue) add(e *event.Event, at event.Position, key string) {
	before := len(q.data)
	l := line{offset: e.Offset, row: e.Row}
	q.data = append(q.data, '{')
	for i, v := range q.reader.Values(e, at.Partition) {
		if i > 0 {
			q.data = append(q.data, ',')
		}
		q.data = append(jsonscan.AppendQuoted(q.data, q.given[i].Name), ':')
		switch v := v.(type) {
		case nil:
			q.data = append(q.data, "null"...)
		case bool:
			q.data = strconv.AppendBool(q.data, v)
		case int64:
			q.data = strconv.AppendInt(q.data, v, 10)
		case float64:
			q.data = strconv.AppendFloat(q.data, v, 'g', -1, 64)
		case string:
			q.data = jsonscan.AppendQuoted(q.data, v)
		case json.RawMessage: // a text: the server would give no object back as it was
			q.data = jsonscan.AppendQuoted(q.data, []byte(v))
		case time.Time:
			if v.Before(firstTime) || !v.Before(lastTime) { // the server would take another time for it, in silence
				l.refused = fmt.Sprintf("column %s: %s is outside what ClickHouse holds, 1900 to 2299", q.given[i].Name, v.UTC().Format(time.DateOnly))
			}
			layout := row.TimeLayout
			if q.given[i].Type == event.DateColumn {
				layout = time.DateOnly
			}
			q.data = append(v.UTC().AppendFormat(append(q.data, '"'), layout), '"')
		}
	}
	if key != "" {
		q.data = append(jsonscan.AppendQuoted(append(q.data, ','), key), ':', '"')
		q.data = append(sink.AppendKey(q.data, e.Place(at), e.Row), '"')
	}
	q.data = append(q.data, '}', '\n')
	if l.refused != "" {
		q.data = q.data[:before]
	}
	l.end = len(q.data)
	q.lines = append(q.lines, l)
}

// below is how many lines stand below an offset.
func (q *queue) below(offset int64) int {
	n, _ := slices.BinarySearchFunc(q.lines, offset, func(l line, off int64) int {
		if l.offset < off {
			return -1
		}
		return 1
	})
	return n
}

func (q *queue) start(i int) int {
	if i == 0 {
		return 0
	}
	return q.lines[i-1].end
}

// text is what the lines [from, to) are as data, but for those that are refused.
func (q *queue) text(from, to int) []byte {
	if from == to {
		return nil
	}
	var out []byte
	whole := true
	for i := from; i < to && whole; i++ {
		whole = q.lines[i].refused == "" || q.lines[i].end == q.start(i)
	}
	if whole {
		return q.data[q.start(from):q.lines[to-1].end]
	}
	for i := from; i < to; i++ {
		if q.lines[i].refused == "" {
			out = append(out, q.data[q.start(i):q.lines[i].end]...)
		}
	}
	return out
}

// drop forgets the first n lines.
func (q *queue) drop(n int) {
	cut := 0
	if n > 0 {
		cut = q.lines[n-1].end
	}
	q.data = append([]byte(nil), q.data[cut:]...)
	q.lines = append([]line(nil), q.lines[n:]...)
	for i := range q.lines {
		q.lines[i].end -= cut
	}
	if len(q.lines) == 0 {
		q.columns, q.reader = nil, nil
	}
}

// quote makes a name safe whatever is in it.
func quote(name string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(name) + "`"
}

// quoteName quotes database.table.
func quoteName(name string) string {
	db, table, ok := strings.Cut(name, ".")
	if !ok {
		return quote(name)
	}
	return quote(db) + "." + quote(table)
}

func quoteAll(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = quote(n)
	}
	return strings.Join(out, ", ")
}

// text is a text as a literal.
func text(s string) string {
	return "'" + strings.NewReplacer("\\", "\\\\", "'", "\\'", "\x00", "\\0").Replace(s) + "'"
}
